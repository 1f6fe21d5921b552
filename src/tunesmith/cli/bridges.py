"""`tunesmith mlflow ...`, `wandb ...` and `hub ...`: versions to and from registries that others keep."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, command_group, open_store, show

__all__ = ["hub_app", "mlflow_app", "wandb_app"]

Ref = Annotated[str, typer.Argument(metavar="REF", help="A version such as boutique@1, or a name (its champion).")]


mlflow_app = command_group("mlflow", "Tell an MLflow server of a version.")
wandb_app = command_group("wandb", "Write a version down for Weights & Biases; sent only when asked.")
hub_app = command_group("hub", "Versions to the Hugging Face Hub, and bases from it; only the repository that is named.")


@mlflow_app.callback()
def mlflow() -> None:
    """Tell an MLflow server of a version."""


@wandb_app.callback()
def wandb() -> None:
    """Write a version down for Weights & Biases; sent only when asked."""


@hub_app.callback()
def hub() -> None:
    """Versions to the Hugging Face Hub, and bases from it; only the repository that is named."""


@mlflow_app.command("push")
def mlflow_push(
    ref: Ref,
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="MLflow's address. Default: MLFLOW_TRACKING_URI, else a database in the workspace."),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Default: MLFLOW_EXPERIMENT_NAME, else `tunesmith`.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Push a version with its recipe, metrics, files and aliases. Pushed again, it is there once."""
    from tunesmith.pipeline.mlflow_bridge import push_to_mlflow

    pushed = push_to_mlflow(ref, store=open_store(workspace), uri=uri, experiment=experiment)
    aliases = f" · {', '.join(pushed.aliases)}" if pushed.aliases else ""
    what = "registered as" if pushed.is_new else "was there as"
    line = f"{pushed.ref} {what} {pushed.model} version {pushed.version}{aliases} · run {pushed.run_id} at {pushed.where}"
    show(asdict(pushed) if as_json else line, as_json=as_json)


@wandb_app.command("push")
def wandb_push(
    ref: Ref,
    project: Annotated[str | None, typer.Option("--project", help="Default: WANDB_PROJECT, else `tunesmith`.")] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Send it now. Without it nothing leaves this machine, whatever WANDB_MODE says.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write a version with its recipe, metrics, files and aliases as a run that `wandb sync` can send."""
    from tunesmith.pipeline.wandb_bridge import push_to_wandb

    pushed = push_to_wandb(ref, store=open_store(workspace), project=project, is_online=online)
    aliases = f" · {', '.join(pushed.aliases)}" if pushed.aliases else ""
    way = "sent to" if pushed.is_online else "written down, and sent nowhere; to send it:"
    show(asdict(pushed) if as_json else f"{pushed.ref} · run {pushed.run_id}{aliases} · {way} {pushed.where}", as_json=as_json)


@hub_app.command("push")
def hub_push(
    ref: Ref,
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="The repository; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="SHA", help="Push only if the repository stands at this revision.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Push a version's safetensors and JSON in one commit. The token is read from HF_TOKEN."""
    from tunesmith.pipeline.hub_bridge import push_to_hub

    pushed = push_to_hub(ref, to=to, store=open_store(workspace), private=private, parent=parent)
    line = f"{pushed.ref} is at {pushed.name}@{pushed.revision}" + ("" if pushed.is_new else " (was there already)")
    show(asdict(pushed) if as_json else line, as_json=as_json)


@hub_app.command("pull")
def hub_pull(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository.")],
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="SHA", help="40 hex digits; a branch or tag is resolved, and `main` if left out."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Get a base into the workspace, checked, at one fixed revision."""
    from tunesmith.pipeline.hub_bridge import pull_from_hub

    base = pull_from_hub(name, store=open_store(workspace), revision=revision)
    content = {"base": base.name, "path": str(Path(base.path)), "digest": base.digest}
    show(content if as_json else f"{base.name}\nnext     base: {base.name}", as_json=as_json)

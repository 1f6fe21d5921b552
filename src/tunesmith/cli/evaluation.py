"""The commands that judge: answers made elsewhere, and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, one_of, open_store, show

__all__ = ["compare", "evaluate", "judge", "score"]


def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Rows with `prediction` and `reference` (or `references`).")
    ],
    metrics: Annotated[
        str,
        typer.Option(
            help="Of rouge, bleu, chrf, ter, squad, classification, calibration, diversity, grounding; or your own FILE.py:FUNCTION."
        ),
    ] = "rouge,bleu,chrf",
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Another system's predictions of the same rows, to compare with.")
    ] = None,
    stem: Annotated[bool, typer.Option("--stem", help="ROUGE compares Porter stems.")] = False,
    rouge_tokenizer: Annotated[
        str, typer.Option(help="unicode: words of any script; rouge_score: what that package takes for words.")
    ] = "unicode",
    facts: Annotated[Path | None, typer.Option(metavar="SHEET", help="A fact sheet, for `grounding`.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the resampling behind intervals and p values.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Score predictions made elsewhere, with intervals, and compare two systems row by row."""
    from tunesmith.evaluate.rouge import RougeTokenizer
    from tunesmith.evaluate.scoring import score_files
    from tunesmith.terminal.score_screen import score_screen

    names = _parts(metrics)
    tokenizer = one_of(rouge_tokenizer, RougeTokenizer, option="--rouge-tokenizer")
    found = score_files(predictions, metrics=names, against=against, stems=stem, tokenizer=tokenizer, facts=facts, seed=seed)
    show(found.as_json() if as_json else score_screen(found), as_json=as_json)


def judge(
    model: Annotated[str, typer.Argument(help="A version such as boutique@1, or a name.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="An arm of its report, or another version. Default: the report's baseline."),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who judges; can be changed on the page.")] = "me",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 0,
    seed: Annotated[int, typer.Option(help="Of the order of pairs, of their sides, and of resampling.", min=0)] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the page's address.")] = False,
    results: Annotated[bool, typer.Option("--results", help="Say what was judged so far, and end; so does --json.")] = False,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Let a model judge: an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1."),
    ] = None,
    judge_model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="What the judge is called there.")] = None,
    key_env: Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable that holds its key.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Let people say which of two answers is better, without telling whose they are; and say what they prefer."""
    from tunesmith.pipeline import judging, preferences
    from tunesmith.terminal import open_page
    from tunesmith.terminal.judge_screen import preferences_screen

    store = open_store(workspace)
    if url is not None:
        from tunesmith.terminal import watching

        with watching(is_quiet=as_json) as watcher:
            judging.judge_by_endpoint(
                model, store=store, against=against, url=url, name=judge_model, key_env=key_env, seed=seed, watcher=watcher
            )
    if results or as_json or url is not None:
        found = preferences.read_preferences(model, store=store, against=against, seed=seed)
        show(found.as_json() if as_json else preferences_screen(found), as_json=as_json)
        return
    judging.judge(model, store=store, against=against, by=by, seed=seed, port=port, on_ready=open_page(no_browser=no_browser))


MaxRows = Annotated[
    int | None, typer.Option("--max-rows", metavar="N", help="Rows, at most, that are answered. Default: the recipe's.", min=1)
]
Page = Annotated[
    Path | None, typer.Option("--out", metavar="REPORT.html", help="Where the page goes. Default: the workspace's reports.")
]

MoreArms = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Ask also few_shot, instruction, tuned_few_shot, an endpoint of its recipe; or `recipe`: all of its arms.",
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(metavar="TASKS", help="Run tasks of lm-eval instead: names or YAML files, parted by commas (extra `lm-eval`)."),
]


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A version such as boutique@1, or a name (its champion).")],
    against: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Another version, or base. Default: the base, where there is one.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to judge on. Default: the version's own untouched test rows.")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=KEY", help="Which key of FILE is which: prompt=text. May be given often."),
    ] = None,
    arms: MoreArms = None,
    max_rows: MaxRows = None,
    out: Page = None,
    scale_sweep: Annotated[
        bool, typer.Option("--scale-sweep", help="Of an adapter: how much of the fine-tune to keep, instead of judging.")
    ] = False,
    lm_eval: Tasks = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Judge a version by its recipe's metrics on rows that it has not seen, beside its base or another version, and write a page."""
    from tunesmith.pipeline import evaluate_ref, run_lm_eval
    from tunesmith.pipeline.safety import scale_sweep as sweep_scales
    from tunesmith.terminal import judged_screen, watching
    from tunesmith.terminal.evaluation_screen import harness_screen, sweep_screen

    store = open_store(workspace)
    if scale_sweep:
        points = sweep_scales(model, store=store)
        show(points if as_json else sweep_screen(points), as_json=as_json)
        return
    if lm_eval is not None:
        found = run_lm_eval(model, _parts(lm_eval), store=store, limit=max_rows)
        show({"results": found.get("results", {})} if as_json else harness_screen(found), as_json=as_json)
        return
    with watching(is_quiet=as_json) as watcher:
        judged = evaluate_ref(
            model,
            store=store,
            against=against,
            data=data,
            names=names or (),
            arms=_parts(arms),
            max_rows=max_rows,
            out=out,
            watcher=watcher,
        )
    show(judged.as_json() if as_json else judged_screen(judged), as_json=as_json)


def compare(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A version such as boutique@1.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The version that the verdict is about.")],
    max_rows: MaxRows = None,
    out: Page = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions on the test rows that neither has seen, and write a page."""
    from tunesmith.pipeline import compare_refs
    from tunesmith.terminal import judged_screen, watching

    store = open_store(workspace)
    with watching(is_quiet=as_json) as watcher:
        judged = compare_refs(first, second, store=store, max_rows=max_rows, out=out, watcher=watcher)
    show(judged.as_json() if as_json else judged_screen(judged), as_json=as_json)


def _parts(text: str | None) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]

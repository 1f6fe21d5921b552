"""The files in `deploy/` and their page, held to what they speak of: commands, options, variables, paths, ports and times."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tunesmith.serve import create_app, serve
from tunesmith.serve.lifecycle import _FLUSH_TIMEOUT_S

from .conftest import require_tool

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "deployment.md"
DOCKERFILES = [DEPLOY / "Dockerfile", DEPLOY / "cloud" / "Dockerfile"]
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DRAIN_S = inspect.signature(serve).parameters["drain_timeout_s"].default
"""How long answers under way are given; then come their last bytes."""
LONGEST_STOP_S = DRAIN_S + _FLUSH_TIMEOUT_S
OWN_VARIABLES = {"TUNESMITH_MODEL", "TUNESMITH_ALLOWED_HOSTS"}
"""Of the deployment files themselves: the argument of `serve`, and an option that the command line reads by itself."""


class Engine:
    ref = "boutique@1"
    max_length = 10

    def count_prompt(self, messages: object, /) -> int:
        raise NotImplementedError

    def stream(self, messages: object, params: object, /) -> Iterator[Any]:
        raise NotImplementedError


def paths() -> set[str]:
    """That the application answers."""
    app = create_app({"boutique": Engine()}, api_key="k")
    try:
        return {route.path for route in app.routes}  # type: ignore[attr-defined]
    finally:
        app.state.service.close(patience_s=1)


def parse(argv: Sequence[str]) -> None:
    """What the command line does with these arguments, short of doing it; raises where it would complain."""
    from tunesmith.cli import app

    command: Any = typer.main.get_command(app)
    rest = list(argv)
    context = command.make_context("tunesmith", rest[:1] or ["--help"], resilient_parsing=True)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
        context = command.make_context(name, list(rest), parent=context, resilient_parsing=hasattr(command, "commands"))


def yaml_of(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def manifests() -> dict[str, Any]:
    return {file.stem: yaml.safe_load(file.read_text()) for file in KUBERNETES}


def container() -> Any:
    (only,) = manifests()["deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)?", text).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit == "m" else 1)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Of a Dockerfile, in order, with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#")))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    parse(["serve", "boutique", "--host", "0.0.0.0"])
    for wrong in (["sevre", "boutique"], ["serve", "boutique", "--hots", "x"], ["serve"], ["serve", "boutique", "--port", "x"]):
        with pytest.raises(Exception, match=r"(?i)no command|no such option|missing parameter|valid integer"):
            parse(wrong)


def test_variables_are_read_by_the_program() -> None:
    known = {name for file in (ROOT / "src").rglob("*.py") for name in re.findall(r"TUNESMITH_[A-Z_]+", file.read_text())}
    for file in [*(file for file in DEPLOY.rglob("*") if file.is_file()), PAGE]:
        assert set(re.findall(r"TUNESMITH_[A-Z_]+", file.read_text())) <= known | OWN_VARIABLES, file


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_an_image_is_built_from_files_that_are_there_and_sent(file: Path) -> None:
    ignored = file.with_name("Dockerfile.dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored, "everything is kept back but what is named"
    for word, rest in instructions(file):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source in sent


def test_the_image_holds_all_that_the_package_is_made_of() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = " ".join(rest for word, rest in instructions(DEPLOY / "Dockerfile") if word == "COPY").split()
    needed = [build["project"]["readme"], *build["project"]["license-files"]]
    needed += build["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed += build["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {name.split("/")[0] for name in needed} <= set(copied)
    (extras,) = [rest.split("=")[1] for word, rest in instructions(DEPLOY / "Dockerfile") if rest.startswith("EXTRAS=")]
    assert set(extras.split(",")) <= set(build["project"]["optional-dependencies"])
    (python,) = [rest.split("=")[1] for word, rest in instructions(DEPLOY / "Dockerfile") if rest.startswith("PYTHON=")]
    assert f">={python}" == build["project"]["requires-python"]


def test_what_is_installed_in_the_image_has_exact_versions() -> None:
    installs = [rest for _, rest in instructions(DEPLOY / "Dockerfile") if "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    index = [rest for word, rest in instructions(DEPLOY / "Dockerfile") if word == "ARG" and "TORCH_INDEX" in rest]
    assert index == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]
    assert "${TORCH_INDEX}" in installs[0]


def test_the_image_runs_as_nobody_and_asks_whether_it_is_ready() -> None:
    stages = [i for i, (word, _) in enumerate(instructions(DEPLOY / "Dockerfile")) if word == "FROM"]
    last = dict(instructions(DEPLOY / "Dockerfile")[stages[-1] :])
    assert len(stages) == 2
    assert last["USER"] == "10001:10001"
    assert last["EXPOSE"] == "8000"
    assert last["ENTRYPOINT"] == '["tunesmith"]'
    check = last["HEALTHCHECK"].split("CMD ")[1]
    (url,) = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", check)
    assert url in paths()
    compile(yaml.safe_load(check)[-1], "healthcheck", "exec")


def test_compose_starts_the_server_behind_what_it_needs() -> None:
    services = yaml_of("compose.yaml")["services"]
    tunesmith, prometheus = services["tunesmith"], services["prometheus"]
    parse([word if not word.startswith("${") else "boutique" for word in tunesmith["command"]])
    assert (DEPLOY / tunesmith["build"]["context"] / tunesmith["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert tunesmith["read_only"]
    assert tunesmith["tmpfs"] == ["/tmp"]
    assert seconds(tunesmith["stop_grace_period"]) > LONGEST_STOP_S
    assert all(port.startswith("127.0.0.1:") for port in [*tunesmith["ports"], *prometheus["ports"]])
    user = services["postgres"]["environment"]["POSTGRES_USER"]
    assert re.fullmatch(rf"postgresql://{user}:.*@postgres/tunesmith", tunesmith["environment"]["TUNESMITH_LEDGER"])
    volumes = {mount.split(":")[0] for one in services.values() for mount in one["volumes"] if not mount.startswith(".")}
    assert volumes == set(yaml_of("compose.yaml")["volumes"])


def test_the_names_by_which_the_server_is_called_are_allowed() -> None:
    (target,) = yaml_of("prometheus/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    told = yaml_of("compose.yaml")["services"]["tunesmith"]["environment"]["TUNESMITH_ALLOWED_HOSTS"]
    assert target.split(":")[0] in told.split()
    variables = {one["name"]: one.get("value") for one in container()["env"]}
    assert variables["TUNESMITH_ALLOWED_HOSTS"].split() == [manifests()["service"]["metadata"]["name"]]


def test_prometheus_asks_the_server_with_its_key() -> None:
    compose, settings = yaml_of("compose.yaml"), yaml_of("prometheus/prometheus.yml")
    (job,) = settings["scrape_configs"]
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert secret.name in compose["services"]["prometheus"]["secrets"]
    assert compose["secrets"][secret.name] == {"environment": "TUNESMITH_API_KEY"}
    ((target,),) = [one["targets"] for one in job["static_configs"]]
    name, port = target.split(":")
    assert compose["services"][name]["command"][-2:] == ["--port", port]
    assert all((DEPLOY / "prometheus" / file).is_file() for file in settings["rule_files"])
    assert job["metrics_path"] in paths()


def test_rules_are_about_figures_that_the_server_gives() -> None:
    rules = [rule for group in yaml_of("prometheus/rules.yml")["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    named = {name for rule in rules for name in re.findall(r"\btunesmith[:_][a-z0-9_:]+", rule["expr"])} - recorded
    assert named
    metrics = (ROOT / "src" / "tunesmith" / "serve" / "metrics.py").read_text()
    assert [name for name in named if f'"{re.sub("_(total|bucket)$", "", name)}"' not in metrics] == []
    for rule in rules:
        if "alert" in rule:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_kustomization_names_every_manifest_but_the_example() -> None:
    found = {file.name for file in KUBERNETES} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(manifests()["kustomization"]["resources"]) == found


def test_manifests_speak_of_each_other() -> None:
    found = manifests()
    pod = found["deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    ports = {port["name"] for port in container()["ports"]}
    assert found["service"]["spec"]["selector"] == labels == found["deployment"]["spec"]["selector"]["matchLabels"]
    assert found["networkpolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert found["poddisruptionbudget"]["spec"]["selector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in found["service"]["spec"]["ports"]} <= ports
    assert {port["port"] for port in found["networkpolicy"]["spec"]["ingress"][0]["ports"]} <= ports
    claims = [one["persistentVolumeClaim"]["claimName"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [found["storage"]["metadata"]["name"]]
    assert {mount["name"] for mount in container()["volumeMounts"]} == {volume["name"] for volume in pod["spec"]["volumes"]}
    for one in container()["env"]:
        if "value" in one:
            continue
        reference = one["valueFrom"]["secretKeyRef"]
        assert reference["name"] == found["secret.example"]["metadata"]["name"]
        assert reference.get("optional") or reference["key"] in found["secret.example"]["stringData"]


def test_kubernetes_probes_the_paths_and_waits_for_the_drain() -> None:
    spec = manifests()["deployment"]["spec"]["template"]["spec"]
    parse(container()["args"])
    (port,) = [port["containerPort"] for port in container()["ports"]]
    assert container()["args"][-2:] == ["--port", str(port)]
    probes = {name: container()[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["httpGet"] for name, probe in probes.items()} == {
        "startup": {"path": "/readyz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
    }
    assert {"/readyz", "/livez"} <= paths()
    name, before_s = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert name == "sleep"
    assert spec["terminationGracePeriodSeconds"] > float(before_s) + LONGEST_STOP_S


def test_the_pod_may_do_no_more_than_it_must() -> None:
    spec = manifests()["deployment"]["spec"]["template"]["spec"]
    user = dict(instructions(DEPLOY / "Dockerfile"))["USER"]
    assert f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" == user
    assert spec["securityContext"]["runAsNonRoot"]
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in container()["volumeMounts"]} == {"/data", "/tmp"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


@pytest.mark.slow
def test_kubectl_reads_the_kustomization() -> None:
    told = subprocess.run(
        [require_tool("kubectl"), "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert {one["kind"] for one in yaml.safe_load_all(told.stdout)} == {
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    }


@pytest.mark.slow
@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_docker_finds_nothing_wrong(file: Path) -> None:
    docker = require_tool("docker")
    if subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker on this machine has no buildx")
    told = subprocess.run(
        [docker, "build", "--check", "--file", str(file), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.slow
def test_docker_compose_reads_its_file() -> None:
    docker = require_tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker on this machine has no compose")
    variables = {"TUNESMITH_API_KEY": "k", "POSTGRES_PASSWORD": "p", "TUNESMITH_MODEL": "boutique"}
    told = subprocess.run(
        [docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert told.returncode == 0, told.stderr


def unit() -> dict[str, list[str]]:
    """Settings of the systemd unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "tunesmith.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_runs_the_server_hardened_and_waits_for_the_drain() -> None:
    (start,) = unit()["ExecStart"]
    program, *argv = shlex.split(start)
    assert program.endswith("/bin/tunesmith")
    parse(argv)
    assert argv[1] == "${TUNESMITH_MODEL}"
    assert float(unit()["TimeoutStopSec"][0]) > LONGEST_STOP_S
    assert unit()["KillSignal"] == ["SIGTERM"]
    assert unit()["EnvironmentFile"] == ["/etc/tunesmith/environment"]
    assert unit()["DynamicUser"] == unit()["NoNewPrivileges"] == ["yes"]
    assert unit()["ProtectSystem"] == ["strict"]
    assert "TUNESMITH_WORKSPACE=%S/tunesmith" in unit()["Environment"][0]


def test_systemd_reads_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    tool = require_tool("systemd-analyze")
    file = tmp_path / "tunesmith.service"
    text = (DEPLOY / "tunesmith.service").read_text()
    file.write_text(text.replace("/opt/tunesmith/bin/tunesmith", str(Path(sys.executable).with_name("tunesmith"))))
    told = subprocess.run([tool, "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    rating = subprocess.run(
        [tool, "security", "--offline=yes", "--no-pager", "--threshold=20", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rating.returncode == 0, rating.stdout.splitlines()[-1]


def test_every_command_on_the_page_can_be_typed() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    typed = re.compile(r"(?:^ *|[ /])tunesmith ((?:serve|chat|run|version) [^#|;&]*)")
    found = [match for line in lines for match in typed.findall(line)]
    assert len(found) >= 3
    for command in found:
        parse([word for word in shlex.split(command) if word != "\\"])


def test_every_file_on_the_page_is_there_and_none_is_left_out() -> None:
    text = PAGE.read_text()
    for name in re.findall(r"(?<![\w/])(?:deploy|docs|tests)/[\w./-]*\w", text):
        assert (ROOT / name).exists(), name
    for file in [*DOCKERFILES, DEPLOY / "compose.yaml", DEPLOY / "tunesmith.service", DEPLOY / "cloud" / "gateway.py"]:
        assert str(file.relative_to(ROOT)) in text

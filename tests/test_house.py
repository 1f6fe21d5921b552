"""The rules of the house, as tests: floors, fences, sizes, exports, options, documents."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tunesmith"
GOLDEN = ROOT / "tests" / "golden"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file())

FLOORS = {
    "errors": 0,
    "_lazy": 0,
    "records": 0.5,
    "store": 1,
    "data": 2,
    "model": 2,
    "train": 3,
    "evaluate": 3,
    "serve": 3,
    "pipeline": 4,
    "terminal": 5,
    "cli": 6,
    "__main__": 7,
}
FENCES = {
    "torch": {"model", "train"},
    "peft": {"model"},
    "transformers": {"model"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "tokenizers": {"data"},
    "sacrebleu": {"evaluate"},
    "typer": {"cli"},
    "rich": {"terminal", "cli"},
    "httpx": {"evaluate", "serve"},
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PUBLIC_METHODS = 10
MAX_CONFIG_FIELDS = 15


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[str]:
    """Every module that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_room_has_a_floor() -> None:
    assert {room_of(file) for file in FILES} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_only_go_down_and_stay_inside_the_fences(file: Path) -> None:
    room = room_of(file)
    for module in imports_of(file):
        package, _, rest = module.partition(".")
        if package == "tunesmith" and rest and room != "__init__":
            other = rest.split(".")[0]
            assert other == room or FLOORS[other] < FLOORS[room], f"{file} imports {module}: not a lower floor"
        if package in FENCES:
            assert room in FENCES[package], f"{file} imports {module}, which belongs in {sorted(FENCES[package])}"


def test_the_import_linter_agrees() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_files_functions_and_classes_stay_small(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MAX_FILE_LINES, f"{file} has more than {MAX_FILE_LINES} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{file}:{node.lineno} {node.name} has {lines} lines"
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
            public = [n.name for n in methods if not any(ast.unparse(d).endswith("property") for d in n.decorator_list)]
            assert len(public) <= MAX_PUBLIC_METHODS, f"{file}:{node.lineno} {node.name} has {len(public)} public methods"


def test_configurations_stay_small() -> None:
    from tunesmith.data.config import DataConfig, MixConfig, SourceConfig
    from tunesmith.evaluate.config import CostConfig, EndpointConfig, EvaluateConfig, SearchConfig
    from tunesmith.model.config import ScratchConfig
    from tunesmith.pipeline.recipe import Recipe
    from tunesmith.train.config import ComputeConfig, LoraConfig, OptimiserConfig, TrainConfig

    training = (TrainConfig, LoraConfig, OptimiserConfig, ComputeConfig)
    judging = (EvaluateConfig, EndpointConfig, SearchConfig, CostConfig)
    for config in (Recipe, DataConfig, SourceConfig, MixConfig, *training, *judging, ScratchConfig):
        assert len(config.model_fields) <= MAX_CONFIG_FIELDS, config.__name__
        for name, info in config.model_fields.items():
            assert info.description, f"{config.__name__}.{name} says nothing of its unit, range or reason"


_NEVER_IMPORTED = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
_NEVER_CALLED = {
    "torch": {"load", "save"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load", "dump_all"},
    "os": {"system", "popen"},
    "numpy": {"load"},
    "np": {"load"},
}


def dangers(tree: ast.AST) -> list[str]:
    """What in a module could run what a file says: unpicklers, loaders that build objects, evaluated text, shells, archives laid out."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in named if name.partition(".")[0] in _NEVER_IMPORTED]
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in {"eval", "exec", "__import__"}:
                found.append(function.id)
            if isinstance(function, ast.Attribute):
                owner = function.value.id if isinstance(function.value, ast.Name) else ""
                if function.attr in _NEVER_CALLED.get(owner, ()) or function.attr in {"extractall", "allow_pickle"}:
                    found.append(f"{owner}.{function.attr}")
            for keyword in node.keywords:
                is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg in {"shell", "trust_remote_code", "allow_pickle"} and is_true:
                    found.append(f"{keyword.arg}=True")
    return found


def test_nothing_runs_what_a_file_says() -> None:
    for file in FILES:
        assert dangers(ast.parse(file.read_text())) == [], file


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import yaml\nyaml.load('x')",
        "eval('1')",
        "exec('x')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import tarfile\ntarfile.open('x').extractall()",
        "import os\nos.system('x')",
        "f(trust_remote_code=True)",
    ],
)
def test_a_dangerous_line_would_be_found(code: str) -> None:
    assert dangers(ast.parse(code))


def exports() -> dict[str, list[str]]:
    return {name: list(importlib.import_module(f"tunesmith.{name}").__all__) for name in sorted([*ROOMS, "records", "errors"])}


def test_public_names_are_sorted_real_and_pinned() -> None:
    """A change of the public interface is made on purpose: set TUNESMITH_UPDATE_GOLDEN=1 and read the difference."""
    found = exports()
    for name, names in found.items():
        assert names == sorted(names), f"tunesmith.{name}.__all__ is not sorted"
        module = importlib.import_module(f"tunesmith.{name}")
        missing = [export for export in names if not hasattr(module, export)]
        assert not missing, f"tunesmith.{name} names {missing} and has no such thing"
    assert found == golden("exports.json", found)


@pytest.mark.parametrize("room", ROOMS)
def test_an_export_means_the_same_whatever_was_imported_before(room: str) -> None:
    """A verb that bears its module's name would turn into the module once that is imported."""
    package = importlib.import_module(f"tunesmith.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name in package.__all__:
            importlib.import_module(f"tunesmith.{room}.{module.name}")
            assert callable(getattr(package, module.name)), f"tunesmith.{room}.{module.name} is a module and a function"


def found_commands() -> dict[str, Any]:
    """Every command by its whole name, those of groups included."""
    from tunesmith.cli import app

    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {each}": one for each, one in (inner or {}).items()}
        found |= {name: command} if inner is None or command.invoke_without_command else {}
    return dict(sorted(found.items()))


def commands() -> dict[str, list[str]]:
    return {
        name: sorted(option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))
        for name, command in found_commands().items()
    }


def test_commands_and_options_are_pinned() -> None:
    found = commands()
    assert found == golden("commands.json", found)


def test_every_command_and_option_is_documented_and_has_help() -> None:
    reference = (ROOT / "docs" / "commands.md").read_text()
    for name, command in found_commands().items():
        assert command.help, f"{name} has no help"
        section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", reference, re.MULTILINE | re.DOTALL)
        assert section, f"docs/commands.md has no section `{name}`"
        for option in commands()[name]:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in section[1], f"docs/commands.md, {name}: {option} is missing"


def test_every_machine_readable_command_has_json() -> None:
    assert {name for name, options in commands().items() if "--json" in options} >= {
        "check",
        "run",
        "models",
        "chat",
        "doctor",
        "version",
    }


def test_help_and_recipe_errors_load_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nbase: tunesmith/base\ndata: {sources: [{path: x.jsonl}]}\ntrian: {}\n")
    heavy = ("torch", "transformers", "peft", "sqlalchemy", "fastapi", "scipy", "sacrebleu")
    for argv in (["--help"], ["version"], ["schema"], ["check", str(tmp_path / "bad.yaml")]):
        code = (
            f"import sys; sys.argv = ['tunesmith', *{argv!r}]\n"
            "from tunesmith.__main__ import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert result.stderr.splitlines()[-1] == "[]", f"tunesmith {' '.join(argv)} loads {result.stderr}"


def test_the_readme_names_every_room_and_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in [*ROOMS, "records.py", "errors.py", "recipes", "examples", "benchmarks", "docs", "tests"]:
        assert re.search(rf"\b{re.escape(name)}\b", readme), f"README.md's tree lacks {name}"


def test_every_design_page_names_a_test_that_exists() -> None:
    pages = sorted((ROOT / "docs" / "design").glob("*.md"))
    assert pages
    for page in pages:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
        assert named, f"{page.name} names no test that keeps its decision"
        for file, function in named:
            assert (ROOT / file).is_file(), f"{page.name} names {file}, which does not exist"
            assert not function or f"def {function}(" in (ROOT / file).read_text(), f"{page.name}: no {function} in {file}"


def test_no_path_of_a_developers_machine_stands_in_the_project() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked or [str(f.relative_to(ROOT)) for f in FILES]:
        file = ROOT / name
        if file.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ""} and file.is_file():
            assert not re.search(r"(?<!\w)/(work|root)/", file.read_text(errors="replace")), name


def test_version_is_the_same_everywhere() -> None:
    import tunesmith

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == tunesmith.__version__
    assert f"## {tunesmith.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def golden(name: str, found: object) -> object:
    file = GOLDEN / name
    if os.environ.get("TUNESMITH_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(file.read_text())


def test_every_recipe_key_is_documented() -> None:
    from tunesmith.pipeline import json_schema

    reference = (ROOT / "docs" / "recipe.md").read_text()
    schema = json_schema()
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    assert not [key for key in sorted(keys) if f"| `{key}` |" not in reference]

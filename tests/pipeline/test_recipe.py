import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import tunesmith
from tunesmith.data.clean_config import CleanStep, StepName
from tunesmith.errors import NotFound, RecipeError
from tunesmith.model.config import ScratchConfig
from tunesmith.pipeline.recipe import LoadedRecipe, Recipe, json_schema, load_recipe
from tunesmith.pipeline.yaml_lines import dump_yaml

BOUTIQUE = """\
name: boutique
base: tunesmith/base
data:
  sources:
    - path: data/boutique.jsonl
      domain: boutique
"""


def load(folder: Path, text: str, *overrides: str) -> LoadedRecipe:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, overrides=overrides)


def messages(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides)
    return str(caught.value).splitlines()


def test_a_short_recipe_is_complete(tmp_path: Path) -> None:
    loaded = load(tmp_path, BOUTIQUE)
    assert (loaded.recipe.name, loaded.recipe.base, loaded.recipe.promote) == ("boutique", "tunesmith/base", "if_better")
    assert (loaded.path, loaded.folder) == (tmp_path / "recipe.yaml", tmp_path)
    assert loaded.resolved()["train"]["lora"] == {"rank": 16, "alpha": 32.0, "scaling": "standard", "dropout": 0.0}
    assert json.loads(json.dumps(loaded.resolved())) == loaded.resolved()


def test_a_recipe_describes_a_model_from_scratch(tmp_path: Path) -> None:
    text = BOUTIQUE.replace("tunesmith/base", "{num_layers: 2, context: 64}") + "train: {method: full, max_length: 64}\n"
    base = load(tmp_path, text).recipe.base
    assert isinstance(base, ScratchConfig)
    assert (base.num_layers, base.context) == (2, 64)


def test_the_errors_of_a_recipe_are_listed_at_once(tmp_path: Path) -> None:
    text = BOUTIQUE + "  split: {test: 15}\ntrain:\n  learning_rat: 1e-4\n  epochs: three\n"
    assert messages(tmp_path, text, "promote=if_beter") == [
        f"{tmp_path / 'recipe.yaml'} has 4 errors",
        "  line 7    data.split.test: 15 is not a share between 0 and 1. Did you mean 0.15?",
        "  line 9    train.learning_rat: unknown key. Did you mean `learning_rate`?",
        "  line 10   train.epochs: 'three' is not a number",
        "  --set promote=if_beter: 'if_beter' is not one of if_better, if_not_worse(MARGIN), manual, always, never. "
        "Did you mean if_better?",
    ]


@pytest.mark.parametrize("name", ["bou tique", "boutique@1", "", "-x", ".", "..", "a/b", "x" * 64, "é", "a\n"])
def test_a_name_that_cannot_stand_in_a_version_is_refused(tmp_path: Path, name: str) -> None:
    (line,) = messages(tmp_path, dump_yaml({"name": name}) + BOUTIQUE.split("\n", 1)[1])[1:]
    assert line.endswith(
        "has not the right form. A name is 1 to 63 letters, digits, `-`, `_` or `.`, and begins with a letter or digit."
    )


def test_random_weights_are_not_given_an_adapter(tmp_path: Path) -> None:
    text = BOUTIQUE.replace("tunesmith/base", "{num_layers: 2}")
    (line,) = messages(tmp_path, text + "train:\n  seed: 1\n  method: lora\n")[1:]
    assert line.startswith("  line 9    recipe: train.method is `lora`, but `base` describes a model from scratch")
    assert load(tmp_path, text, "train.method=full").recipe.train.method == "full"


def test_a_key_that_nothing_reads_is_an_error(tmp_path: Path) -> None:
    text = BOUTIQUE + "train:\n  method: full\n  lora: {rank: 4}\n"
    (line,) = messages(tmp_path, text)[1:]
    assert line == "  line 9    train.lora.rank: is set but nothing reads it: train.method is `full`"


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("weight_decay: 0.1", "unknown key here. Write it as `train.optimiser.weight_decay`"),
        ("max_grad_norm: 1", "unknown key here. Write it as `train.optimiser.max_grad_norm`"),
        ("weigth_decay: 0.1", "unknown key. Did you mean `train.optimiser.weight_decay`?"),
        ("precision: bf16", "unknown key here. Write it as `train.compute.precision`"),
    ],
)
def test_a_key_that_lies_deeper_is_named_with_its_whole_path(tmp_path: Path, written: str, answer: str) -> None:
    (line,) = messages(tmp_path, BOUTIQUE + f"train:\n  {written}\n")[1:]
    assert line == f"  line 8    train.{written.split(':', maxsplit=1)[0]}: {answer}"


@pytest.mark.parametrize(
    ("written", "unread"),
    [
        ("optimiser: {decay: 0.1}", "train.optimiser.decay: is set but nothing reads it: train.schedule is `cosine`"),
        (
            "{schedule: one_cycle, optimiser: {beta1: 0.9}}",
            "train.optimiser.beta1: is set but nothing reads it: train.schedule is `one_cycle`",
        ),
    ],
)
def test_a_setting_of_another_schedule_is_an_error(tmp_path: Path, written: str, unread: str) -> None:
    (line,) = messages(tmp_path, BOUTIQUE + f"train:\n  {written}\n")[1:]
    assert line.endswith(unread)
    assert (
        load(tmp_path, BOUTIQUE, "train={schedule: wsd, optimiser: {decay: 0.1, beta1: 0.8}}").recipe.train.optimiser.decay == 0.1
    )


# The digest


def test_the_digest_is_the_same_under_order_comments_and_written_defaults(tmp_path: Path) -> None:
    digest = load(tmp_path, BOUTIQUE).digest
    head, data = BOUTIQUE.split("data:\n")
    reordered = f"# a comment\ndata:\n{data}\ntrain: {{epochs: 3, learning_rate: null}}\n{head}"
    assert load(tmp_path, reordered).digest == digest
    assert load(tmp_path, BOUTIQUE, "train.epochs=3.0").digest == digest
    assert len(digest) == 64


def test_the_digest_differs_when_a_value_does(tmp_path: Path) -> None:
    overrides = ["train.seed=1", "name=other", "data.sources.0.domain=x", "train.learning_rate=1e-4", "promote=never"]
    digests = {load(tmp_path, BOUTIQUE, override).digest for override in overrides}
    assert len(digests | {load(tmp_path, BOUTIQUE).digest}) == len(overrides) + 1


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)
rates = st.floats(0, 1, exclude_min=True)
recipes = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
        "base": texts | st.builds(lambda layers: {"num_layers": layers}, st.integers(1, 99)),
        "data": st.fixed_dictionaries({"sources": st.lists(st.fixed_dictionaries({"path": texts, "domain": texts}), min_size=1)}),
        "train": st.fixed_dictionaries({"method": st.just("full")}, optional={"learning_rate": rates, "seed": st.integers(0, 9)}),
    },
    optional={"promote": st.sampled_from(["if_better", "if_not_worse(1.0)", "manual", "always", "never"])},
)  # fmt: skip


@given(recipes)
def test_a_resolved_recipe_dumped_and_loaded_has_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory, written: dict[str, object]
) -> None:
    folder = tmp_path_factory.mktemp("recipe", numbered=True)
    first = load(folder, dump_yaml(written))
    again = load(folder, dump_yaml(first.resolved()))
    assert again.digest == first.digest
    assert again.recipe == first.recipe


# Finding and reading the file

NOT_UTF8 = "is not UTF-8; the file seems to be in"


def test_a_folder_stands_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(BOUTIQUE)
    assert load_recipe(tmp_path).path == tmp_path / "recipe.yaml"


def test_a_folder_without_a_recipe_lists_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"has no recipe\.yaml\. Make one with `tunesmith init`, for data of your own with --data PATH\.$"
    ):
        load_recipe(tmp_path)
    (tmp_path / "shop.yml").write_text(BOUTIQUE)
    with pytest.raises(NotFound, match=r"has no recipe\.yaml\. There are: shop\.yml\.$"):
        load_recipe(tmp_path)


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "boutique.yaml").write_text(BOUTIQUE)
    (tmp_path / "other.yaml").write_text(BOUTIQUE)
    with pytest.raises(NotFound) as caught:
        load_recipe(tmp_path / "botique.yaml")
    assert str(caught.value) == f"{tmp_path}/botique.yaml does not exist. Did you mean {tmp_path}/boutique.yaml?"
    with pytest.raises(NotFound, match="does not exist"):
        load_recipe(tmp_path / "no" / "such" / "folder.yaml")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1    recipe: empty. It needs the keys name, base, data"),
        (b"name: a\nbase: caf\xe9\n", f"line 2    encoding: byte 0xe9 {NOT_UTF8} another encoding. Save it as UTF-8"),
        ("name: a".encode("utf-16"), f"line 1    encoding: byte 0xff {NOT_UTF8} UTF-16. Save it as UTF-8"),
        (b"#" * 262_145, "file: more than 256 KiB, too large for a recipe. Is it a data file? Name it under data.sources"),
    ],
    ids=["empty", "latin-1", "utf-16", "large"],
)  # fmt: skip
def test_a_file_that_cannot_be_a_recipe_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value).splitlines() == [f"{file} has 1 error", f"  {problem}"]


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + BOUTIQUE).digest == load(tmp_path, BOUTIQUE).digest


def test_reading_a_recipe_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'tokenizers', 'sqlalchemy', 'alembic', 'fastapi', 'scipy', 'pyarrow', 'sacrebleu'}"
    code = f"import sys, tunesmith.pipeline.recipe; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The schema


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema
    described = {"Recipe": schema} | schema["$defs"]
    for model in _models(Recipe):
        properties = described[model.__name__]["properties"]
        assert properties.keys() == model.model_fields.keys()
        assert [name for name, entry in properties.items() if not entry.get("description")] == [], model
        assert described[model.__name__]["additionalProperties"] is False


# Every key is read


def test_every_recipe_key_is_read_by_some_code() -> None:
    unread = unread_fields(Recipe, Path(tunesmith.__file__).parent)
    # The settings of a cleaning step are a field with the step's name, which `clean_config.named` reads by that name.
    assert set(CleanStep.model_fields) <= set(get_args(StepName))
    assert [field for field in unread if not field.startswith("CleanStep.")] == []


def test_the_scan_for_unread_keys_finds_one(tmp_path: Path) -> None:
    class Inner(BaseModel):
        read: int = 0
        only_written: int = 0
        only_in_config: int = 0

    class Outer(BaseModel):
        inners: tuple[Inner, ...] = ()

    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "config.py").write_text("def check(c): return c.only_in_config")
    (tmp_path / "room" / "work.py").write_text("def work(c):\n    c.inners[0].only_written = 1\n    return c.inners[0].read")
    assert unread_fields(Outer, tmp_path) == ["Inner.only_written", "Inner.only_in_config"]


def test_what_is_declared_irrelevant_is_a_field() -> None:
    for model in _models(Recipe):
        for key in getattr(model, "IRRELEVANT", {}):
            here: Any = model
            for name in key.split("."):
                assert name in here.model_fields, f"{model.__name__}.IRRELEVANT names {key}, which is no field"
                here = here.model_fields[name].annotation


def unread_fields(root: type[BaseModel], folder: Path) -> list[str]:
    """Fields of a tree of configurations that no code below a folder reads as an attribute.

    What configuration modules read of themselves, to check it, does not count.
    """
    read: set[str] = set()
    for file in folder.rglob("*.py"):
        if file.name not in ("config.py", "recipe.py"):
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return [f"{model.__name__}.{name}" for model in _models(root) for name in model.model_fields if name not in read]


def _models(root: type[BaseModel]) -> list[type[BaseModel]]:
    found = [root]
    for info in root.model_fields.values():
        found += [inner for model in _models_in(info.annotation) for inner in _models(model)]
    return list(dict.fromkeys(found))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def test_a_margin_and_a_file_of_prompts_are_read_from_the_recipe(tmp_path: Path) -> None:
    more = "evaluate: {must_not_break: prompts.jsonl, safety: {max_forgetting: 5}}\npromote: if_not_worse(1.0)\n"
    recipe = load(tmp_path, BOUTIQUE + more).recipe
    assert (recipe.promote, recipe.evaluate.must_not_break) == ("if_not_worse(1.0)", "prompts.jsonl")
    assert recipe.evaluate.safety.max_forgetting == 5
    assert messages(tmp_path, BOUTIQUE + "promote: if_not_worse\n")[1:] == [
        "  line 7    promote: 'if_not_worse' needs a margin of 0 or more, in points: if_not_worse(1.0)"
    ]


def test_a_rule_that_yaml_reads_as_a_truth_value_is_told_with_the_rules_there_are(tmp_path: Path) -> None:
    assert messages(tmp_path, BOUTIQUE + "promote: yes\n")[1:] == [
        "  line 7    promote: `yes` is read as true, and is not one of if_better, manual, always, never, if_not_worse(1.0)"
    ]

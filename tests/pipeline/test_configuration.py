"""The machinery behind a recipe, on a small tree of configurations of its own."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunesmith.errors import Problem, RecipeError
from tunesmith.pipeline.configuration import read_config
from tunesmith.pipeline.overrides import apply_overrides
from tunesmith.pipeline.relevance import resolved, unread_keys
from tunesmith.pipeline.yaml_lines import dump_yaml, parse_yaml

FROZEN = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Source(BaseModel):
    model_config = FROZEN
    path: str
    limit: int | None = Field(default=None, ge=1)
    domain: str = ""
    weight: Annotated[float, Field(ge=0, le=9)] | None = None


class Split(BaseModel):
    model_config = FROZEN
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows."""
    warmth: float = Field(default=0.1, gt=0, le=1)
    """No such word here."""


class Data(BaseModel):
    model_config = FROZEN
    sources: tuple[Source, ...] = Field(min_length=1)
    split: Split = Split()
    clean: tuple[Literal["exact", "near"], ...] = ()
    shuffle: bool = True


class Lora(BaseModel):
    model_config = FROZEN
    rank: int = 16
    alpha: float = 32.0


class Train(BaseModel):
    model_config = FROZEN
    method: Literal["lora", "full"] = "lora"
    lora: Lora = Lora()
    epochs: int = Field(default=3, gt=0)
    learning_rate: float = 1e-3
    patience: int | Literal["never"] = 3

    IRRELEVANT: ClassVar[Mapping[str, Callable[["Train"], str | None]]] = {
        "lora": lambda config: None if config.method == "lora" else f"train.method is `{config.method}`",
    }


class Scratch(BaseModel):
    model_config = FROZEN
    width: int = 8
    heads: int = 2

    @model_validator(mode="after")
    def _divides(self) -> "Scratch":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads ({self.heads})")
        return self


class Job(BaseModel):
    model_config = FROZEN
    name: str = Field(pattern=r"^[a-z]+$", max_length=8)
    """A name is made of small letters.

    More is said here.
    """
    base: Annotated[str, Field(min_length=1)] | Scratch
    data: Data
    train: Train = Train()

    IRRELEVANT: ClassVar[Mapping[str, Callable[["Job"], str | None]]] = {
        "data.split.warmth": lambda job: "the name is `cold`" if job.name == "cold" else None,
    }


DATA = "\ndata: {sources: [{path: a}]}"
DATA_KEYS = "is not a mapping of keys. Known keys: sources, split, clean, shuffle"
PATHS = "'a.jsonl' is not a list. Write [{path: 'a.jsonl'}]"
COLON = "a colon where none can stand: the line is indented too deep, or text that holds `: ` is not quoted"
SOUND = "name: shop\nbase: some/model\ndata:\n  sources:\n    - path: rows.jsonl\n"


def problems_of(text: str, *overrides: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(RecipeError) as caught:
        read_config(text, model=Job, source="job.yaml", overrides=overrides)
    return [tuple(problem) for problem in caught.value.problems]


def test_a_sound_text_becomes_a_configuration() -> None:
    job = read_config(SOUND + "train: {learning_rate: 1e-4, epochs: 1e1}", model=Job, source="job.yaml")
    assert job.data.sources == (Source(path="rows.jsonl"),)
    assert (job.train.learning_rate, job.train.epochs) == (0.0001, 10)


# Each line is added to SOUND, and so stands on line 6 or below.
@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("train: {learning_rat: 1}", (6, "train.learning_rat", "unknown key. Did you mean `learning_rate`?")),
        ("train:\n  epochs: 1\n  learn: 1", (8, "train.learn", "unknown key. Did you mean `learning_rate`?")),
        ("train: {Learning-Rate: 1}", (6, "train.Learning-Rate", "unknown key. Did you mean `learning_rate`?")),
        ("train: {lr: 1}", (6, "train.lr", "unknown key. Did you mean `learning_rate`?")),
        ("train: {lro: 1}", (6, "train.lro", "unknown key. Known here: method, lora, epochs, learning_rate, patience")),
        ("train: {pat: 1}", (6, "train.pat", "unknown key. Did you mean `patience`?")),
        ("learning_rate: 1", (6, "learning_rate", "unknown key here. Write it as `train.learning_rate`")),
        ("path: a", (6, "path", "unknown key here. Write it as `data.sources.path`")),
        ("train: {name: x}", (6, "train.name", "unknown key here. Write it as `name` at the top")),
        ("lerning_rate: 1", (6, "lerning_rate", "unknown key. Did you mean `train.learning_rate`?")),
        ("zzz: 1", (6, "zzz", "unknown key. Known here: name, base, data, train")),
        ("train: {epochs: three}", (6, "train.epochs", "'three' is not a whole number")),
        ("train: {epochs: 2.5}", (6, "train.epochs", "2.5 is not a whole number")),
        ("train: {epochs: yes}", (6, "train.epochs", "yes is not a whole number")),
        ("train: {epochs: '3'}", (6, "train.epochs", "'3' is not a whole number. Did you mean 3?")),
        ("train: {epochs: '1,000'}", (6, "train.epochs", "'1,000' is not a whole number. Did you mean 1000?")),
        ("train: {epochs: 10k}", (6, "train.epochs", "'10k' is not a whole number. Did you mean 10000?")),
        ("train: {epochs: 0}", (6, "train.epochs", "0 is out of range: it must be above 0")),
        ("train: {epochs: [1]}", (6, "train.epochs", "a list is not a whole number")),
        ("train: {epochs: }", (6, "train.epochs", "empty. Write a value, or remove the key for the default")),
        ("train: {learning_rate: 3m}", (6, "train.learning_rate", "'3m' is not a number")),
        ("train: {learning_rate: fast}", (6, "train.learning_rate", "'fast' is not a number")),
        ("train: {method: lorra}", (6, "train.method", "'lorra' is not one of lora, full. Did you mean lora?")),
        ("train: {method: 5}", (6, "train.method", "5 is not one of lora, full")),
        ("train: {patience: soon}", (6, "train.patience", "'soon' is neither a whole number nor one of never")),
        ("train: {patience: [1]}", (6, "train.patience", "a list is neither a whole number nor one of never")),
        ("train: {lora: 5}", (6, "train.lora", "5 is not a mapping of keys. Known keys: rank, alpha")),
        ("train: {lora: {rank: x}}", (6, "train.lora.rank", "'x' is not a whole number")),
        ("train:", (6, "train", "empty. Write a value, or remove the key for the default")),
        ("      limit: 0", (6, "data.sources[0].limit", "0 is out of range: it must be at least 1")),
        ("      weight: 10", (6, "data.sources[0].weight", "10 is out of range: it must be at least 0 and at most 9")),
        ("      domain: no", (6, "data.sources[0].domain", "`no` is read as false, not as text. Quote it: 'no'")),
        ("      domain: 1e4", (6, "data.sources[0].domain", "1e4 is read as a number, not as text. Quote it: '1e4'")),
        ("      domain: [a]", (6, "data.sources[0].domain", "a list is not text")),
        ("    - {limit: 1}", (6, "data.sources[1].path", "missing, and it has no default")),
        ("    - {pth: b}", (6, "data.sources[1].pth", "unknown key. Did you mean `path`?")),
        ("    - b.jsonl", (6, "data.sources[1]", "'b.jsonl' is not a mapping of keys. Write path: 'b.jsonl'")),
        ("  split: {test: 15}", (6, "data.split.test", "15 is not a share between 0 and 1. Did you mean 0.15?")),
        ("  split: {test: -0.1}", (6, "data.split.test", "-0.1 is not a share between 0 and 1")),
        ("  split: {test: 15%}", (6, "data.split.test", "'15%' is not a number. Did you mean 0.15?")),
        ("  split: {test: '0,2'}", (6, "data.split.test", "'0,2' is not a number. Did you mean 0.2?")),
        ("  split: {test: 1}", (6, "data.split.test", "1 is out of range: it must be at least 0 and below 1")),
        ("  split: {warmth: 2}", (6, "data.split.warmth", "2 is out of range: it must be above 0 and at most 1")),
        ("  clean: [exat]", (6, "data.clean[0]", "'exat' is not one of exact, near. Did you mean exact?")),
        ("  clean: near", (6, "data.clean", "'near' is not a list. Write ['near']")),
        ("  clean: {a: b}", (6, "data.clean", "a mapping is not a list. Begin each entry with `- `")),
        ("  shuffle: 1", (6, "data.shuffle", "1 is not true or false")),
        ("train: {seed: 007}", (6, "train.seed", "007 is ambiguous: some read it as octal. Write 7, or quote it if it is text")),
        ("name: other", (6, "name", "the key stands twice, first on line 1. Remove one of them")),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_mend(added: str, problem: tuple[int, str, str]) -> None:
    assert problems_of(SOUND + added) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("base: x" + DATA, (1, "name", "missing, and it has no default")),
        ("nam: shop\nbase: x" + DATA, (1, "nam", "unknown key. Did you mean `name`?")),
        ("name: My shop\nbase: x" + DATA, (1, "name", "'My shop' has not the right form. A name is made of small letters.")),
        ("name: longerthaneight\nbase: x" + DATA, (1, "name", "'longerthaneight' is too long: at most 8 characters")),
        ("name: shop\nbase: ''" + DATA, (2, "base", "'' is too short: at least 1 character")),
        ("name: shop\nbase: [x]" + DATA, (2, "base", "a list is neither text nor a mapping of keys")),
        ("name: shop\nbase: 7" + DATA, (2, "base", "7 is read as a number, not as text. Quote it: '7'")),
        ("name: shop\nbase:" + DATA, (2, "base", "empty. Write a value")),
        ("name: shop\nbase:\n  widht: 3" + DATA, (3, "base.widht", "unknown key. Did you mean `width`?")),
        ("name: shop\nbase:\n  heads: 3\n  width: 7" + DATA, (4, "base", "width 7 is not a multiple of heads (3)")),
        ("name: shop\nbase: x\ndata: {sources: []}", (3, "data.sources", "an empty list is too short: at least 1 entry")),
        ("name: shop\nbase: x\ndata: {sources: a.jsonl}", (3, "data.sources", PATHS)),
        ("name: shop\nbase: x\ndata: a.jsonl", (3, "data", f"'a.jsonl' {DATA_KEYS}")),
        ("", (1, "recipe", "empty. It needs the keys name, base, data")),
        ("# only a comment\n", (1, "recipe", "empty. It needs the keys name, base, data")),
        ("- name: shop", (1, "recipe", "a list, not a mapping of keys. It needs the keys name, base, data")),
        ("rows.jsonl", (1, "recipe", "a single value, not a mapping of keys. It needs the keys name, base, data")),
        ("name: shop\nbase: x: y", (2, "YAML", COLON)),
    ],
)  # fmt: skip
def test_a_mistake_at_the_top_is_named_with_its_line_and_mend(text: str, problem: tuple[int, str, str]) -> None:
    assert problems_of(text) == [problem]


def test_every_mistake_is_listed_at_once_in_the_order_of_lines() -> None:
    text = "name: no\nbase: x\ndata:\n  sources:\n    - path: !!set {a}\n      limit: x\n  zzz: 1\n"
    text += "train:\n  epochs: 0\n  epochs: 1\n"
    with pytest.raises(RecipeError) as caught:
        read_config(text, model=Job, source="job.yaml", overrides=["train.lora.rank=x"])
    assert str(caught.value).splitlines() == [
        "job.yaml has 7 errors",
        "  line 1    name: `no` is read as false, not as text. Quote it: 'no'",
        "  line 5    data.sources[0].path: the tag `!!set` is not allowed: a recipe holds only text, numbers, lists and mappings",
        "  line 6    data.sources[0].limit: 'x' is not a whole number",
        "  line 7    data.zzz: unknown key. Known here: sources, split, clean, shuffle",
        "  line 9    train.epochs: 0 is out of range: it must be above 0",
        "  line 10   train.epochs: the key stands twice, first on line 9. Remove one of them",
        "  --set train.lora.rank=x: 'x' is not a whole number",
    ]


def test_an_unreadable_value_is_reported_once_not_also_as_the_wrong_type() -> None:
    assert [key for _, key, _ in problems_of(SOUND + "train: {epochs: .inf}")] == ["train.epochs"]


# Overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.learning_rate=1e-4", ("train", "learning_rate"), 0.0001),
        ("train.lora.rank=4", ("train", "lora", "rank"), 4),
        ("train={epochs: 7}", ("train", "epochs"), 7),
        ("data.sources.0.path=*.jsonl", ("data", "sources", 0, "path"), "*.jsonl"),
        ("data.sources[0].limit=5", ("data", "sources", 0, "limit"), 5),
        ("data.sources=[{path: x}, {path: 'y'}]", ("data", "sources", 1, "path"), "y"),
        ("base=a=b", ("base",), "a=b"),
        ("base={width: 16}", ("base", "width"), 16),
        ("data.clean=[near]", ("data", "clean"), ("near",)),
        ('name="no"', ("name",), "no"),
    ],
)
def test_an_override_is_laid_over_the_file(override: str, path: tuple[str | int, ...], value: object) -> None:
    found: object = read_config(SOUND, model=Job, source="job.yaml", overrides=[override])
    for item in path:
        found = found[item] if isinstance(found, tuple) and isinstance(item, int) else getattr(found, str(item))
    assert found == value


def test_a_later_override_wins_and_an_override_mends_the_file() -> None:
    job = read_config(SOUND + "train: {epochs: x}", model=Job, source="x", overrides=["train.epochs=0", "train.epochs=5"])
    assert job.train.epochs == 5


def test_the_document_under_an_override_stays_as_it_was() -> None:
    document = parse_yaml(SOUND)
    assert apply_overrides(document, ["name=other"]).value != document.value
    assert document == parse_yaml(SOUND)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rat=1e-4", "unknown key. Did you mean `learning_rate`?"),
        ("train.epochs=three", "'three' is not a whole number"),
        ("train={epochs: three}", "train.epochs: 'three' is not a whole number"),
        ("data.sources.0.limit=0", "0 is out of range: it must be at least 1"),
        ("data.sources.1.path=x", "`data.sources` is a list: after it comes a position (0), not '1'"),
        ("data.sources.first.path=x", "`data.sources` is a list: after it comes a position (0), not 'first'"),
        ("data.sources=[{}]", "data.sources[0].path: missing, and it has no default"),
        ("base.width=8", "`base` is 'some/model', which has no keys below it"),
        ("train.epochs", "write it as key=value, such as train.epochs=3"),
        ("=3", "write the key as a dotted path, such as data.sources.0.path"),
        ("train..epochs=3", "write the key as a dotted path, such as data.sources.0.path"),
        ("train=[1", "a `[` or `{` is opened and not closed, or a comma is missing"),
        ("train.epochs=.inf", ".inf is not a finite number. If it is text, quote it"),
        ("name=no", "`no` is read as false, not as text. Quote it: 'no'"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(override: str, message: str) -> None:
    assert problems_of(SOUND, override) == [(None, f"--set {override}", message)]


def test_an_override_of_undecodable_bytes_is_a_problem_that_can_be_printed() -> None:
    ((_, key, message),) = problems_of(SOUND, "name=\udcff")
    assert f"{key}: {message}".encode()


# Keys that nothing reads


def test_a_key_that_is_set_and_read_by_nothing_is_a_problem_at_its_line() -> None:
    text = SOUND + "train:\n  method: full\n  lora:\n    rank: 4\n    alpha: 8\n"
    reason = "is set but nothing reads it: train.method is `full`"
    assert problems_of(text) == [(9, "train.lora.rank", reason), (10, "train.lora.alpha", reason)]
    assert problems_of(SOUND + "train: {lora: {}}", "train.method=full") == [(6, "train.lora", reason)]
    assert problems_of(SOUND, "train={method: full, lora: {rank: 16}}") == [
        (None, "--set train={method: full, lora: {rank: 16}}", f"train.lora.rank: {reason}")
    ]


def test_a_parent_can_say_that_a_key_of_a_child_is_not_read() -> None:
    text = SOUND.replace("shop", "cold") + "  split: {warmth: 0.5, test: 0.5}\n"
    assert problems_of(text) == [(6, "data.split.warmth", "is set but nothing reads it: the name is `cold`")]


def test_a_key_that_is_read_or_left_out_is_no_problem() -> None:
    job = read_config(SOUND + "train: {method: full, epochs: 2}", model=Job, source="job.yaml")
    assert unread_keys(job) == []
    assert unread_keys(read_config(SOUND + "train: {lora: {rank: 4}}", model=Job, source="job.yaml")) == []


def test_a_resolved_configuration_has_every_default_but_no_key_that_nothing_reads() -> None:
    job = read_config(SOUND + "train: {method: full}", model=Job, source="job.yaml")
    assert resolved(job) == {
        "name": "shop",
        "base": "some/model",
        "data": {
            "sources": [{"path": "rows.jsonl", "limit": None, "domain": "", "weight": None}],
            "split": {"test": 0.1, "warmth": 0.1},
            "clean": [],
            "shuffle": True,
        },
        "train": {"method": "full", "epochs": 3, "learning_rate": 0.001, "patience": 3},
    }


names = st.text("abcz", min_size=1, max_size=8)
sources = st.fixed_dictionaries(
    {"path": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))},
    optional={
        "limit": st.none() | st.integers(1, 2**63 - 1),
        "domain": st.sampled_from(["no", "1e-4", "07", "a: b", "#", "2026-11-21"]),
    },
)
methods = st.sampled_from([{"method": "full"}, {"lora": {"rank": 2}}, {"patience": "never"}, {}])
jobs = st.fixed_dictionaries(
    {
        "name": names,
        "base": st.sampled_from(["x/y", "12", {"width": 6, "heads": 3}]),
        "data": st.fixed_dictionaries({"sources": st.lists(sources, min_size=1, max_size=3)}),
    },
    optional={"train": methods.flatmap(lambda m: st.builds(lambda rate: m | {"learning_rate": rate}, st.floats(-1e300, 1e300)))},
)  # fmt: skip


@given(jobs)
def test_a_resolved_configuration_dumped_and_read_again_is_the_same(given_job: dict[str, object]) -> None:
    first = read_config(dump_yaml(given_job), model=Job, source="job.yaml")
    again = read_config(dump_yaml(resolved(first)), model=Job, source="job.yaml")
    assert again == first
    assert resolved(again) == resolved(first)


keys = st.sampled_from(["name", "base", "data", "train", "sources", "lora", "rank", "path", "epochs", "split", "zzz", "0"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)


@given(st.dictionaries(keys, anything, max_size=6), st.lists(st.tuples(keys, keys, st.text(max_size=8)), max_size=2))
def test_whatever_is_written_is_a_configuration_or_a_list_of_plain_problems(
    tree: dict[str, object], options: list[tuple[str, str, str]]
) -> None:
    text = yaml.safe_dump(tree)
    overrides = [f"{above}.{below}={value}" for above, below, value in options]
    error = None
    try:
        read_config(text, model=Job, source="job.yaml", overrides=overrides)
    except RecipeError as raised:
        error = raised
    if error is not None:
        assert error.problems
        for problem in error.problems:
            assert isinstance(problem, Problem)
            assert problem.line is None or 1 <= problem.line <= len(text.splitlines())
            assert "\n" not in problem.message
        jargon = ("Input should", "pydantic", "https://", "Value error", "function-after")
        assert not any(noise in str(error) for noise in jargon)

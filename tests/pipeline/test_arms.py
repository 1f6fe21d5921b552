"""The arms of a recipe, built on the embedded base: what they are called, how they were chosen, and that they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.data.chat import ChatFormat
from tunesmith.errors import DataError, EndpointError, NotFound, RecipeError, UserError
from tunesmith.evaluate import Arm, EvaluateConfig, evaluate
from tunesmith.evaluate.config import EndpointConfig
from tunesmith.evaluate.prompts import CHAT
from tunesmith.model import load_model, open_base, this_machine
from tunesmith.model.load import context_length
from tunesmith.pipeline.arms import Arms, Sheets, build_arms, meter_of, read_sheets, require_keys
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.recipe import load_recipe
from tunesmith.records import Message, Record, Role, Source

TOPICS = ("coats", "hats", "belts", "rings", "shoes", "bags", "ties", "socks", "scarves", "skirts", "shirts", "dresses")
PROGRESS: list[tuple[str, int, int | None]] = []


def row(topic: str, wording: str, *, cluster: str) -> Record:
    messages = (
        Message(role=Role.USER, content=wording.format(topic)),
        Message(role=Role.ASSISTANT, content=f"The {topic} cost {len(topic)} euros."),
    )
    return Record(id=f"{topic}/{wording}", source=Source(path="x", line=1), messages=messages, cluster=cluster)


TRAIN = [row(topic, "What do the {} cost?", cluster=f"a{topic}") for topic in TOPICS]
VALIDATION = [row(topic, "How much are the {}?", cluster=f"b{topic}") for topic in TOPICS]
TEST = [row(topic, "Tell me the price of the {}.", cluster=f"c{topic}") for topic in TOPICS]


@pytest.fixture(scope="module")
def base() -> ChatModel:
    path = open_base("tunesmith/base", folder=Path("/"), cache=Path("/")).path
    machine = this_machine(precision="fp32", num_threads=None)
    return ChatModel(
        ref="base",
        model=load_model(path, machine=machine),
        chat=ChatFormat.load(path),
        machine=machine,
        max_length=context_length(path),
        max_new_tokens=8,
    )


def build(
    config: EvaluateConfig, base: ChatModel, *, has_base: bool = True, sheets: Sheets | None = None, **rows: list[Record]
) -> Arms:
    given = {"train": TRAIN, "validation": VALIDATION, "test": TEST} | rows
    warned: list[str] = []
    arms = build_arms(
        config,
        tuned=base,
        base=base if has_base else None,
        sheets=sheets or Sheets(),
        warn=warned.append,
        on_progress=lambda *args: PROGRESS.append(args),
        **given,
    )
    arms.details["warned"] = warned
    return arms


def test_all_arms_are_built_measured_and_compared(base: ChatModel) -> None:
    config = EvaluateConfig(
        arms=("zero_shot", "few_shot", "instruction", "tuned_few_shot"),
        metrics=("perplexity", "rouge"),
        max_new_tokens=8,
        search={"rows": 8, "answers": 64},  # type: ignore[arg-type]
        endpoints=(EndpointConfig(name="other", url="http://127.0.0.1:9", model="m"),),
    )
    arms = build(config, base, sheets=Sheets(facts="Everything is cheap. " * 400))
    assert (list(arms.prompted), list(arms.tuned), list(arms.endpoints)) == (
        ["base+few_shot", "base+instruction"],
        ["tuned+few_shot"],
        ["other"],
    )
    swept, found = arms.details["base+few_shot"], arms.details["base+instruction"]
    assert swept["prompt"] == {"name": "chat", "version": 1, "digest": CHAT.digest}
    assert [one["number"] for one in swept["sweep"]] == [1, 2, 4, 8]
    assert max(swept["sweep"], key=lambda one: one["value"])["number"] == swept["number"]
    assert swept["num_rows"] == 8
    assert found["num_answers"] == 64
    assert any(step["facts"] and step["value"] is not None for step in found["trail"])  # as many lines as fit
    meter = meter_of(config, training_s=60)
    report = evaluate(
        TEST,
        arms={"base": base, **arms.prompted, "tuned": base, **arms.tuned},
        config=config,
        prompted=list(arms.prompted),
        meter=meter,
    )
    # All count the very same tokens, or there would be no difference in perplexity.
    assert all(
        "perplexity" in report.differences[arm] for arm in ("base+few_shot", "base+instruction", "tuned", "tuned+few_shot")
    )
    took = report.details["arms"]
    assert took["base"]["prompt_tokens"] == pytest.approx(
        sum(base.count_prompt(r.messages[:1]) for r in TEST) / len(TEST), abs=0.01
    )
    assert took["base+few_shot"]["prompt_tokens"] > 2 * took["base"]["prompt_tokens"]
    assert 0 < took["tuned"]["answer_tokens"] <= 8
    assert report.details["prompting"]["arm"] in arms.prompted


def test_what_does_not_fit_is_told(base: ChatModel) -> None:
    config = EvaluateConfig(arms=("few_shot",), max_new_tokens=8, metrics=("perplexity",))
    long = [row(topic, "What do the {} cost? " + "Please say. " * 120, cluster=f"a{topic}") for topic in TOPICS]
    arms = build(config, base, train=long, validation=[])
    assert arms.in_words() == []
    few_shot = arms.prompted["base+few_shot"]
    for _ in range(2):  # asked twice it is told once
        few_shot.generate([record.messages[:1] for record in TEST])
    left_out = few_shot.num_left_out  # type: ignore[attr-defined]
    assert 12 <= left_out <= 48
    assert arms.in_words() == [
        f"base+few_shot: {left_out} examples did not fit into the context and were left out, the farthest first"
    ]
    assert all(base.count_prompt(few_shot.prompt(r.messages[:1])) <= base.max_length - 8 for r in TEST)  # type: ignore[attr-defined]


def test_the_likelihood_after_a_prompt_is_that_of_the_same_turns_written_out_as_context(base: ChatModel) -> None:
    arms = build(EvaluateConfig(arms=("few_shot",), max_new_tokens=8, metrics=("perplexity",)), base, validation=[])
    asked = TEST[0]
    shown = arms.prompted["base+few_shot"].prompt(asked.messages[:1])[:-1]  # type: ignore[attr-defined]
    assert len(shown) == 8
    written = replace(asked, messages=(*(replace(turn, weight=0.0) for turn in shown), *asked.messages))
    alone, expected = base.likelihood([asked])[0], base.likelihood([written])[0]
    (found,) = arms.prompted["base+few_shot"].likelihood([asked])  # type: ignore[attr-defined]
    assert found == expected
    assert (found.num_tokens, found.num_bytes) == (alone.num_tokens, alone.num_bytes)
    assert found.nll != alone.nll


def test_an_example_never_comes_from_the_asked_rows_cluster(base: ChatModel) -> None:
    near = [row(topic, "Tell me what the {} cost.", cluster=f"c{topic}") for topic in TOPICS]
    arms = build(EvaluateConfig(arms=("few_shot",), max_new_tokens=8, metrics=("perplexity",)), base, train=near)
    prompt = arms.prompted["base+few_shot"].prompt(TEST[0].messages[:1])  # type: ignore[attr-defined]
    shown = [message.content for message in prompt[:-1]]
    assert shown
    assert not any("coats" in text for text in shown)


def test_a_model_from_scratch_has_no_prompted_base_and_rows_that_are_no_examples_are_told(base: ChatModel) -> None:
    config = EvaluateConfig(max_new_tokens=8)
    assert build(config, base, has_base=False).prompted == {}
    texts = [Record(id="t", source=Source(path="x", line=1), text="plain")]
    arms = build(config, base, train=texts)
    assert arms.prompted == {}
    assert arms.details["warned"] == ["no training row is a single question with an answer, so no prompt with examples is tried"]
    arms = build(EvaluateConfig(arms=("instruction",), max_new_tokens=8), base, validation=[])
    assert arms.details["warned"] == ["there are no validation rows to choose an instruction on, so that arm is left out"]


def test_without_validation_rows_the_number_of_examples_is_not_chosen(base: ChatModel) -> None:
    arms = build(EvaluateConfig(max_new_tokens=8), base, validation=[])
    assert arms.details["base+few_shot"]["note"] == "no validation rows to choose it on"
    assert isinstance(arms.prompted["base+few_shot"], Arm)


def test_the_recipe_that_asks_whether_to_prompt_or_to_fine_tune_can_be_read() -> None:
    loaded = load_recipe(Path(__file__).parents[2] / "recipes" / "prompt_or_finetune.yaml")
    assert "instruction" in loaded.recipe.evaluate.arms
    assert "closed on Sundays" in (read_sheets(loaded.recipe.evaluate, folder=loaded.folder).facts or "")


def test_settings_that_no_arm_reads_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    head = "name: x\nbase: tunesmith/base\ndata: {sources: [{path: x.jsonl}]}\n"
    recipe.write_text(head + "evaluate: {arms: [zero_shot], facts: f.md, prompt: p.jinja, search: {rows: 9}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    told = str(caught.value)
    assert "evaluate.facts: is set but nothing reads it" in told
    assert "evaluate.prompt: is set but nothing reads it: evaluate.arms has no arm with a prompt" in told
    assert "evaluate.search.rows: is set but nothing reads it" in told
    recipe.write_text(head + "evaluate: {search: {answers: 9}}\n")
    with pytest.raises(RecipeError, match=r"evaluate\.arms has no `instruction`"):
        load_recipe(recipe)


def test_files_are_read_before_anything_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EvaluateConfig(metrics=("grounding",), facts="facts.md", prompt="prompt.jinja")
    with pytest.raises(NotFound, match=r"facts\.md does not exist; `evaluate\.facts` names it"):
        read_sheets(config, folder=tmp_path)
    (tmp_path / "facts.md").write_text(" \n")
    with pytest.raises(DataError, match="is empty"):
        read_sheets(config, folder=tmp_path)
    (tmp_path / "facts.md").write_text("We open at 9 am.")
    (tmp_path / "prompt.jinja").write_text("{{ nothing }}")
    with pytest.raises(UserError, match=r"prompt\.jinja: the prompt reads `nothing`"):
        read_sheets(config, folder=tmp_path)
    (tmp_path / "prompt.jinja").write_text(CHAT.text)
    sheets = read_sheets(config, folder=tmp_path)
    assert set(sheets.metrics(config)) == {"grounding"}
    before = sheets.digest
    (tmp_path / "facts.md").write_text("We open at 10 am.")
    assert read_sheets(config, folder=tmp_path).digest != before
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    other = EndpointConfig(name="other", url="http://127.0.0.1:9", model="m", key_env="NO_SUCH_KEY")
    with pytest.raises(EndpointError, match="NO_SUCH_KEY"):
        require_keys(EvaluateConfig(endpoints=(other,)))


def test_a_recipe_may_bring_its_own_metric_and_is_judged_anew_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def polite(answer, references):\n    return 100.0 * answer.startswith('The')\n")
    config = EvaluateConfig(metrics=("rouge",), own_metrics=("mine.py:polite",))
    sheets = read_sheets(config, folder=tmp_path)

    class Polite:
        def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
            return ["The hats cost 4 euros." if i % 2 else "4" for i in range(len(conversations))]

    report = evaluate(TEST, arms={"tuned": Polite()}, config=config, metrics=sheets.metrics(config))
    assert report.scores["tuned"]["polite"].value == 50
    assert report.signatures["polite"].startswith("polite|the user's own|")
    before = sheets.digest
    file.write_text(file.read_text().replace("100.0", "1.0"))
    assert read_sheets(config, folder=tmp_path).digest != before
    with pytest.raises(NotFound, match="no function 'absent'"):
        read_sheets(EvaluateConfig(own_metrics=("mine.py:absent",)), folder=tmp_path)

"""The sheet of proofs with a version: stored, read again, and asked before a version is promoted."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tunesmith.__main__ import main
from tunesmith.errors import NotFound, UserError
from tunesmith.pipeline import Sheet, load_recipe, prove, run, stored_sheet
from tunesmith.pipeline.proving import _subject
from tunesmith.records import Proof
from tunesmith.store import Store, examine
from tunesmith.train import Subject

RECIPE = """
name: tiny
base: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, context: 64}
data: {sources: [{path: rows.jsonl}], split: {validation: 0.1, test: 0.1, near_duplicates: null}}
train: {method: full, max_steps: 2, max_length: 64, batch_tokens: 256}
evaluate: {metrics: [perplexity], max_new_tokens: 2}
promote: always
"""
HOLDS = Proof(name="packed = unpacked", meaning="m", compared="c", figure=1e-7, tolerance=1e-5, holds=True)
FAILS = Proof(name="changed", meaning="m", compared="it did not", figure=0.0, tolerance=1e-4, rule="at least", holds=False)
UNUSED = Proof(name="compiled = eager", meaning="m", compared="nothing is compiled", holds=None)

Outcome = Callable[[list[Proof]], list[Subject]]


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Let the proofs come out in a certain way; returns the list of the subjects that they are asked about."""

    def decide(proofs: list[Proof]) -> list[Subject]:
        asked: list[Subject] = []

        def fake(subject: Subject, *, on_proof: Callable[[Proof], None], on_contract: object, ask: object) -> list[Proof]:
            assert callable(on_contract)
            assert callable(ask), "a fresh process was made ready before"
            asked.append(subject)
            for proof in proofs:
                on_proof(proof)
            return proofs

        monkeypatch.setattr("tunesmith.train.proofs.prove_training", fake)
        return asked

    return decide


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"Price of {n}?"}, {"role": "assistant", "content": f"It is {7 * n}."}]}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_a_run_ends_with_a_sheet_that_changes_nothing_of_its_version(project: Path, outcome: Outcome) -> None:
    asked, store = outcome([HOLDS, UNUSED]), Store(project / "work")
    version = run(load_recipe(project), store=store).version
    sheet = stored_sheet(version, store=store)
    assert sheet is not None
    assert (sheet.subject, sheet.model, sheet.proofs[:2]) == ("tiny@1", version.artefact, (HOLDS, UNUSED))
    assert [(proof.name, proof.holds) for proof in sheet.proofs[2:]] == [("served over HTTP = library", None)], (
        "no contract was made"
    )
    assert sheet.summary == "1 of 1 proofs hold · 2 not used here"
    assert asked[0].is_tuned
    assert len(asked[0].records) == 48
    assert store.ledger.version("tiny@1") == version
    assert store.ledger.aliases("tiny") == {"champion": 1}
    assert examine(store).sound
    assert not examine(store).findings

    run(load_recipe(project), store=store)
    assert len(asked) == 1, "a run does not prove again what this code has proved on this machine"
    assert prove("tiny", store=store) == sheet
    assert len(asked) == 2, "who asks for a proof gets one that is made now"
    assert [event.kind for event in store.ledger.events("tiny")] == ["registered", "proved", "pointed", "proved"]
    assert not examine(store).findings


def test_a_version_is_proved_compiled_where_its_training_compiled_or_on_demand(
    project: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, store = outcome([HOLDS, UNUSED]), Store(project / "work")
    version = run(load_recipe(project), store=store).version
    prove("tiny@1", store=store)
    monkeypatch.setattr("tunesmith.model.compiled.can_compile", lambda: True)
    prove("tiny@1", store=store, compiled=True)
    prove("tunesmith/base", store=store, compiled=True)
    assert [subject.is_compiled for subject in asked] == [False, False, True, True]

    file = store.artefacts.get(version.artefact).path / "tunesmith.json"
    facts = orjson.loads(file.read_bytes())
    assert facts["is_compiled"] is False
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: orjson.dumps(facts | {"is_compiled": True}) if path == file else read(path)
    )
    assert _subject(version, store=store).is_compiled
    del facts["is_compiled"]
    monkeypatch.setattr(Path, "read_bytes", lambda path: orjson.dumps(facts) if path == file else read(path))
    assert not _subject(version, store=store).is_compiled, "a version from before this was kept"


def test_who_asks_for_compiling_without_a_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.model.compiled.can_compile", lambda: False)
    with pytest.raises(UserError, match=r"no C\+\+ compiler"):
        prove("tunesmith/base", store=Store(tmp_path / "work"), compiled=True)


def test_a_version_of_which_a_proof_fails_is_not_promoted(
    project: Path, outcome: Outcome, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome([HOLDS, FAILS])
    workspace = project / "work"
    for argv, code in ((["run", str(project)], 0), (["prove", "tiny@1"], 3), (["prove", "tiny@1", "--json"], 3)):
        monkeypatch.setattr(sys, "argv", ["tunesmith", *argv, "--workspace", str(workspace)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code, argv
        said = capsys.readouterr()
        if argv[0] == "run":
            assert "tiny@1 is not promoted" in said.err
            assert "it did not" in said.err
    shown = orjson.loads(said.out)
    assert (shown["holds"], [proof["holds"] for proof in shown["proofs"]]) == (False, [True, False, None])
    assert "not proved: changed" in said.err
    assert Store(workspace).ledger.aliases("tiny") == {}
    assert [event.kind for event in Store(workspace).ledger.events("tiny")] == ["registered", "refuted", "refuted", "refuted"]


def test_a_base_is_proved_and_leaves_nothing_behind(tmp_path: Path, outcome: Outcome) -> None:
    asked = outcome([HOLDS])
    sheet = prove("tunesmith/base", store=Store(tmp_path / "work"))
    assert sheet.holds
    assert (asked[0].is_tuned, asked[0].max_length, list(asked[0].records)) == (False, 1024, [])
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("ref", ["nothing-here", "nothing@2"])
def test_what_is_neither_version_nor_base_is_named(ref: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=ref.partition("@")[0]):
        prove(ref, store=Store(tmp_path / "work"))


@pytest.mark.parametrize("proofs", [(), (UNUSED,), (UNUSED, UNUSED)])
def test_a_sheet_on_which_nothing_could_be_tried_proves_nothing(proofs: tuple[Proof, ...]) -> None:
    sheet = Sheet(subject="tiny@1", model="x", machine="2 cores", proofs=proofs)
    assert (sheet.holds, sheet.objection) == (False, "nothing could be tried")
    some = Sheet(subject="tiny@1", model="x", machine="2 cores", proofs=(*proofs, HOLDS))
    assert some.holds


def test_doctor_tells_what_it_did_apart_from_what_it_found() -> None:
    from tunesmith.store.doctor import Diagnosis
    from tunesmith.store.findings import Finding, FindingKind
    from tunesmith.terminal import diagnosis_screen

    finding = Finding(kind=FindingKind.BROKEN, digest="", detail="its recipe makes it again", action="marked as broken")
    told = diagnosis_screen(Diagnosis(root="/w", num_versions=1, num_stages=0, num_artefacts=0, num_bytes=0, findings=(finding,)))
    assert "its recipe makes it again · marked as broken" in told.plain


def test_the_screen_says_all_that_the_sheet_does() -> None:
    from tunesmith.terminal import sheet_screen

    text = sheet_screen(Sheet(subject="tiny@1", model="x", machine="2 cores", proofs=(HOLDS, FAILS, UNUSED))).plain
    assert "packed = unpacked   1e-07 (at most 1e-05)" in text
    assert "FAILS" in text
    assert "0 (at least 1e-04)" in text
    assert "nothing is compiled" in text
    assert "1 of 2 proofs hold · 1 not used here" in text

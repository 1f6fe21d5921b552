"""Predictions made elsewhere: files in, figures with intervals out."""

import json
import math
import random
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from tunesmith.errors import DataError, NotFound, TunesmithError, UserError
from tunesmith.evaluate.scoring import score_files
from tunesmith.records import Score

WORDS = ["the", "shop", "opens", "at", "nine", "and", "closes", "late", "on", "friday", "when", "lisa", "has", "time"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(number: int, *, seed: int = 0, rate: float = 0.3) -> list[dict[str, Any]]:
    draw, errors = random.Random(seed), random.Random(f"{seed} {rate}")
    rows = []
    for i in range(number):
        reference = draw.choices(WORDS, k=draw.randint(4, 12))
        prediction = [errors.choice(WORDS) if errors.random() < rate else word for word in reference]
        rows.append({"id": i, "prediction": " ".join(prediction), "reference": " ".join(reference)})
    return rows


def test_figures_are_those_of_the_reference_packages(tmp_path: Path) -> None:
    rows = made(50)
    found = score_files(write(tmp_path / "a.jsonl", rows), metrics=["rouge", "bleu", "chrf", "ter"]).as_json()
    answers, references = [row["prediction"] for row in rows], [row["reference"] for row in rows]
    scorer = RougeScorer(["rouge1", "rougeLsum"])
    for name in ("rouge1", "rougeLsum"):
        expected = 100 * sum(scorer.score(r, a)[name].fmeasure for a, r in zip(answers, references, strict=True)) / 50
        assert found["metrics"][name]["value"] == pytest.approx(expected, abs=1e-9)
    assert found["metrics"]["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score, abs=1e-6)
    assert found["metrics"]["chrf"]["value"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score, abs=1e-9)
    assert found["metrics"]["ter"]["value"] == pytest.approx(sacrebleu.corpus_ter(answers, [references]).score, abs=1e-9)
    for score in found["metrics"].values():
        assert score["low"] < score["value"] < score["high"]
    assert set(found["signatures"]) == {*found["metrics"], "interval"}
    assert "difference" not in found


def test_another_system_is_compared_row_by_row_by_id(tmp_path: Path) -> None:
    rows, others = made(120, rate=0.2), made(120, rate=0.5)
    random.Random(1).shuffle(others)
    found = score_files(
        write(tmp_path / "a.jsonl", rows), metrics=["rouge"], against=write(tmp_path / "b.jsonl", others)
    ).as_json()
    difference = found["difference"]["rouge1"]
    assert difference["value"] == pytest.approx(found["metrics"]["rouge1"]["value"] - found["against"]["rouge1"]["value"])
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert difference["p_value"] <= difference["p_adjusted"] < 0.01
    assert difference["rows_needed"] < 120


def test_rows_of_one_cluster_widen_the_interval(tmp_path: Path) -> None:
    rows = made(20)
    copies = [row | {"id": f"{row['id']}-{k}", "cluster": f"c{row['id']}"} for row in rows for k in range(10)]
    alone = [row | {"cluster": row["id"]} for row in copies]
    wide, narrow = (
        score_files(write(tmp_path / f"{name}.jsonl", made_rows), metrics=["rouge"]).metrics["rouge1"]
        for name, made_rows in (("w", copies), ("n", alone))
    )
    assert wide.value == pytest.approx(narrow.value)
    assert (wide.high or 0) - (wide.low or 0) > 2 * ((narrow.high or 0) - (narrow.low or 0))


def test_the_tokenizer_of_rouge_score_and_stems_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prediction": "магазин running", "reference": "магазин runs"}])
    values = {
        (tokenizer, stems): score_files(path, metrics=["rouge"], tokenizer=tokenizer, stems=stems).metrics["rouge1"].value
        for tokenizer in ("unicode", "rouge_score")
        for stems in (False, True)
    }
    assert values == {("unicode", False): 50, ("unicode", True): 100, ("rouge_score", False): 0, ("rouge_score", True): 100}


def test_labels_probabilities_and_several_references(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = []
    for _ in range(60):
        p = draw.random()
        rows.append(
            {
                "prediction": "yes" if p > 0.5 else "no",
                "reference": draw.choice(["yes", "no"]),
                "probabilities": {"yes": p, "no": 1 - p},
            }
        )
    found = score_files(write(tmp_path / "a.jsonl", rows), metrics=["classification", "calibration"]).metrics
    expected = roc_auc_score([row["reference"] == "yes" for row in rows], [row["probabilities"]["yes"] for row in rows])
    assert found["auc"].value == pytest.approx(100 * expected)
    assert (found["auc"].low or 0) < found["auc"].value < (found["auc"].high or 0)
    assert {"accuracy", "f1_macro", "ece", "brier"} <= found.keys()
    several = write(tmp_path / "b.jsonl", [{"prediction": "b", "references": ["a b", "b"]}])
    assert score_files(several, metrics=["squad"]).metrics["exact_match"].value == 100


def test_a_metric_of_ones_own_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def polite(answer, references):\n    return None if answer == 'skip' else 10.0 * ('please' in answer)\n"
        "def broken(answer, references):\n    return 1 / 0\n"
    )
    path = write(tmp_path / "a.jsonl", [{"prediction": text, "reference": "x"} for text in ("please", "no", "skip")])
    assert score_files(path, metrics=["mine.py:polite"]).metrics["polite"].value == 5
    with pytest.raises(UserError, match=r"metric broken: .*a\.jsonl:1: ZeroDivisionError"):
        score_files(path, metrics=["mine.py:broken"])
    with pytest.raises(NotFound, match="no function 'absent' in"):
        score_files(path, metrics=["mine.py:absent"])
    with pytest.raises(UserError, match="'polite' is unknown"):
        score_files(path, metrics=["polite"])


OWN = """
from __future__ import annotations
import sys
from dataclasses import dataclass

@dataclass
class Weight:
    each: float = 2.0

def weighed(answer, references):
    print("hello")
    references.clear()
    return Weight().each

def leaves(answer, references):
    sys.exit(3)

def huge(answer, references):
    return 1e308

def none(answer, references):
    return None

def ter(answer, references):
    return 7.0
"""


def test_a_metric_of_ones_own_may_print_and_change_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    path = write(tmp_path / "a.jsonl", [{"prediction": "a", "reference": "a"}])
    found = score_files(path, metrics=["own.py:weighed", "squad", "own.py:weighed"]).metrics
    assert {name: score.value for name, score in found.items()} == {"weighed": 2, "exact_match": 100, "f1": 100}
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["own.py:leaves"], r"metric leaves: .*a\.jsonl:1: SystemExit: 3"),
        (["own.py:huge"], r"metric huge: .*a\.jsonl:1: it gave 1e\+308"),
        (["own.py:none", "squad"], "none: there is nothing in these rows that it could measure"),
        (["own.py:ter"], "tunesmith itself has a figure called 'ter'"),
        (["own.py:none", "./own.py:none"], "another function of your own is called 'none' too"),
        (["leaves.py:any"], "leaves.py fails when it is run: SystemExit"),
        ([":none"], "'' is no module's name"),
        (["..own:none"], "'..own' is no module's name"),
        ([], "names no metric"),
    ],
)
def test_a_metric_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    Path("leaves.py").write_text("import sys\nsys.exit(5)\n")
    path = write(tmp_path / "a.jsonl", [{"prediction": "a", "reference": "a"}])
    with pytest.raises(TunesmithError, match=message):
        score_files(path, metrics=metrics)


def test_a_fact_sheet_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path, sheet = write(tmp_path / "a.jsonl", [{"prediction": "It is 5 euros.", "reference": "a"}]), tmp_path / "facts.md"
    with pytest.raises(NotFound, match=r"facts\.md does not exist; `--facts` names it"):
        score_files(path, metrics=["grounding"], facts=sheet)
    for content, message in ((b"\xff\xfe", "not UTF-8"), (b" ", "is empty")):
        sheet.write_bytes(content)
        with pytest.raises(DataError, match=message):
            score_files(path, metrics=["grounding"], facts=sheet)


def test_a_difference_that_every_row_shows_still_takes_rows_enough_for_an_interval(tmp_path: Path) -> None:
    right = write(tmp_path / "a.jsonl", [{"prediction": "a", "reference": "a"}] * 20)
    wrong = write(tmp_path / "b.jsonl", [{"prediction": "b", "reference": "a"}] * 20)
    difference = score_files(right, metrics=["squad"], against=wrong).as_json()["difference"]["exact_match"]
    assert (difference["low"], difference["high"], difference["rows_needed"]) == (100, 100, 8)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prediction": "a"}, "`reference` is missing; the row has prediction"),
        ({"reference": "a"}, "`prediction` is missing"),
        ({"prediction": None, "reference": "a"}, "`prediction` is null. Where nothing was answered, write an empty text"),
        ({"prediction": ["a"], "reference": "a"}, "`prediction` is to be a text"),
        ({"prediction": "a", "references": []}, "`references` is to be a list"),
        ({"prediction": "a", "references": [1, {}]}, r"`references\[1\]` is to be a text"),
        ({"prediction": "a", "reference": "a", "probabilities": {"a": 2}}, "`probabilities` is to give"),
        ({"prediction": "a", "reference": "a", "probabilities": {"a": 10**400}}, "`probabilities` is to give"),
        ({"prediction": "a", "reference": "a", "cluster": [1]}, "`cluster` is to be a text"),
        ({"prediction": "a", "reference": "a", "id": {"a": 1}}, "`id` is to be a text"),
        ({"prediction": "a\ud83d", "reference": "a"}, r"half a character stands in `prediction`: .*ud83d"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"prediction": "a", "reference": "a"}, row])
    with pytest.raises(DataError, match=rf"a\.jsonl:2  .*{message}(.|\n)*1 of 2 rows cannot be scored"):
        score_files(path, metrics=["squad"])


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*none\.jsonl"):
        score_files(tmp_path / "none.jsonl", metrics=["squad"])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"empty\.jsonl holds no row"):
        score_files(tmp_path / "empty.jsonl", metrics=["squad"])


def test_files_of_other_rows_are_not_compared(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", [{"prediction": "a", "reference": "a"}, {"prediction": "a", "reference": "b"}])
    other = write(tmp_path / "b.jsonl", [{"prediction": "a", "reference": "a"}])
    with pytest.raises(DataError, match="2 and 1 rows"):
        score_files(one, metrics=["squad"], against=other)
    other = write(tmp_path / "b.jsonl", [{"prediction": "a", "reference": "b"}, {"prediction": "a", "reference": "a"}])
    with pytest.raises(DataError, match=r"a\.jsonl:1 and .*b\.jsonl:1 have different references"):
        score_files(one, metrics=["squad"], against=other)


def test_rows_are_not_paired_by_line_where_their_ids_contradict_it(tmp_path: Path) -> None:
    row = {"prediction": "yes", "reference": "yes"}
    one = write(tmp_path / "a.jsonl", [row | {"id": 1}, row])
    other = write(tmp_path / "b.jsonl", [row | {"id": 2}, row | {"id": 1}])
    with pytest.raises(DataError, match=r"a\.jsonl:1 and .*b\.jsonl:1 have different ids: '1' and '2'"):
        score_files(one, metrics=["squad"], against=other)
    with pytest.raises(DataError, match=r"b\.jsonl:2: id '1' stands in .*b\.jsonl:1 too"):
        score_files(other, metrics=["squad"], against=write(tmp_path / "b.jsonl", [row | {"id": 1}] * 2))


def test_rows_of_several_files_in_an_archive_are_not_one_cluster(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.jsonl", "b.jsonl"):
            archive.write(write(tmp_path / name, made(5)), name)
    found = score_files(tmp_path / "a.zip", metrics=["rouge"])
    assert (found.num_rows, found.num_clusters) == (10, 10)


def test_labels_that_are_numbers_or_truth_values_are_compared_by_what_they_are(tmp_path: Path) -> None:
    table = {"prediction": [1, 0, 2], "reference": [1.0, 0.0, 2.5]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert score_files(tmp_path / "a.parquet", metrics=["classification"]).metrics["accuracy"].value == pytest.approx(200 / 3)
    rows = [{"prediction": True, "reference": True, "probabilities": {"true": 1.0, "false": 0.0}}]
    assert score_files(write(tmp_path / "a.jsonl", rows), metrics=["calibration"]).metrics["brier"].value == 0
    pq.write_table(pa.table({"prediction": [1.0, math.nan], "reference": [1.0, math.nan]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:2  `prediction` is to be a text, and is nan"):
        score_files(tmp_path / "a.parquet", metrics=["squad"])


def test_systems_whose_nearest_references_differ_in_length_are_compared_in_bleu(tmp_path: Path) -> None:
    references = [
        ["it opens at nine", "the shop opens at nine on fridays"],
        ["the shop is closed at ten", "we close late then"],
    ] * 6
    long, short = ([max(two, key=len) + " anyway" for two in references], [min(two, key=len) for two in references])
    found = score_files(
        write(tmp_path / "a.jsonl", [{"prediction": p, "references": r} for p, r in zip(long, references, strict=True)]),
        metrics=["bleu"],
        against=write(tmp_path / "b.jsonl", [{"prediction": p, "references": r} for p, r in zip(short, references, strict=True)]),
    )
    columns = list(zip(*references, strict=True))
    expected = [sacrebleu.corpus_bleu(said, columns).score for said in (long, short)]
    assert [found.metrics["bleu"].value, found.against["bleu"].value] == pytest.approx(expected, abs=1e-6)
    assert found.differences["bleu"].value == pytest.approx(expected[0] - expected[1], abs=1e-6)


def test_an_answer_equal_to_the_shorter_of_its_references_is_right_in_bleu_too(tmp_path: Path) -> None:
    rows = [{"prediction": "at nine", "references": ["at nine", "the shop opens at nine"]}] * 3
    assert score_files(write(tmp_path / "a.jsonl", rows), metrics=["bleu"]).metrics["bleu"].value == pytest.approx(100)


def test_a_class_of_few_rows_has_no_interval_and_one_of_many_is_not_taken_for_wrong_where_it_is_not_drawn(tmp_path: Path) -> None:
    labels = ["rare"] * 3 + ["some"] * 9 + ["most"] * 108
    path = write(tmp_path / "a.jsonl", [{"prediction": label, "reference": label} for label in labels])
    found = score_files(path, metrics=["classification"]).metrics
    assert {label: found[f"f1:{label}"] for label in ("rare", "some", "most")} == {
        "rare": Score(value=100),
        "some": Score(value=100, low=100, high=100),
        "most": Score(value=100, low=100, high=100),
    }


def test_empty_cells_of_a_table_are_no_references_and_no_probabilities(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prediction,reference,references,probabilities\nyes,yes,,\n,no,,\n")
    assert score_files(tmp_path / "a.csv", metrics=["classification"]).metrics["accuracy"].value == 50


def test_blanks_around_the_labels_of_probabilities_do_not_matter(tmp_path: Path) -> None:
    rows = [{"prediction": "yes", "reference": "yes ", "probabilities": {" yes": 1, "no ": 0}}] * 3
    found = score_files(write(tmp_path / "a.jsonl", rows), metrics=["calibration"]).metrics
    assert (found["brier"].value, found["ece"].value) == (0, 0)


def test_answers_that_are_wrong_in_every_way_do_not_score_as_the_right_ones(tmp_path: Path) -> None:
    rows = [{"reference": f"we open at {i % 12 + 1} on day {i}", "question": f"when do you open on day {i}?"} for i in range(30)]
    metrics = ["rouge", "bleu", "chrf", "squad", "classification"]
    answers = {
        "right": [row["reference"] for row in rows],
        "question": [row["question"] for row in rows],
        "empty": [""] * 30,
        "constant": ["we are happy to help you with that"] * 30,
        "another": [rows[(i + 7) % 30]["reference"] for i in range(30)],
    }
    for name, said in answers.items():
        path = write(tmp_path / f"{name}.jsonl", [row | {"prediction": text} for row, text in zip(rows, said, strict=True)])
        for metric, score in score_files(path, metrics=metrics).metrics.items():
            if not metric.startswith("f1:"):
                assert (score.value == pytest.approx(100)) == (name == "right"), (name, metric)


def test_probabilities_that_sum_to_more_than_one_are_no_probabilities(tmp_path: Path) -> None:
    row = {"prediction": "a", "reference": "a"}
    rounded = [{**row, "probabilities": {"a": 0.34, "b": 0.34, "c": 0.33}}, {**row, "probabilities": {"a": 0.3}}]
    score_files(write(tmp_path / "a.jsonl", rounded), metrics=["calibration"])
    with pytest.raises(DataError, match=r"sum to 1\.8, and those of labels that exclude each other to 1 at most"):
        score_files(write(tmp_path / "a.jsonl", [{**row, "probabilities": {"a": 0.9, "b": 0.9}}]), metrics=["calibration"])
    with pytest.raises(DataError, match="names a label twice"):
        score_files(write(tmp_path / "a.jsonl", [{**row, "probabilities": {"a": 0.5, " a": 0.4}}]), metrics=["calibration"])

import json
from pathlib import Path

import pytest

from tunesmith.data.config import SourceConfig, SplitConfig
from tunesmith.data.splitting import split_files
from tunesmith.errors import DataError

VERBS = ("open", "close", "mend", "send", "wrap", "iron", "fold", "dye")
THINGS = ("dresses", "coats", "scarves", "gloves", "boots", "hats", "belts", "shirts")


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_keep_their_shape_with_source_and_cluster(tmp_path: Path) -> None:
    questions = [{"prompt": f"Do you {verb} {thing}?", "completion": f"Yes, {verb}."} for verb in VERBS for thing in THINGS]
    texts = [{"text": f"{thing} to {verb}", "label": verb} for verb in VERBS for thing in THINGS]
    write(tmp_path / "faq.jsonl", [*questions, {"prompt": "no answer"}])
    write(tmp_path / "texts.jsonl", texts)
    sources = [SourceConfig(path=str(tmp_path / name)) for name in ("faq.jsonl", "texts.jsonl")]
    done = split_files(sources, out=tmp_path / "out", config=SplitConfig(), seed=0)
    rows = [
        (name, json.loads(line)) for name in ("train", "validation", "test") for line in done.paths[name].read_text().splitlines()
    ]
    assert {name: sum(part == name for part, _ in rows) for name in done.splits} == done.splits
    given = {f"faq.jsonl:{i}": row for i, row in enumerate(questions, 1)} | {
        f"texts.jsonl:{i}": row for i, row in enumerate(texts, 1)
    }
    assert {row["source"] for _, row in rows} == set(given)
    for _, row in rows:
        before = given[row["source"]]
        if "text" in before:
            assert (row["text"], row["label"]) == (before["text"], before["label"])
        else:
            assert [message["content"] for message in row["messages"]] == [before["prompt"], before["completion"]]
    sides: dict[str, set[str]] = {}
    for name, row in rows:
        sides.setdefault(row["cluster"], set()).add(name)
    assert all(len(side) == 1 for side in sides.values())
    (dropped,) = map(json.loads, done.paths["dropped"].read_text().splitlines())
    assert dropped["source"] == "faq.jsonl:65"
    assert done.num_read == 129
    assert sum(done.dropped.values()) == 1


def test_equal_files_give_equal_bytes_and_a_seed_others(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"text": f"{verb} {thing} slowly"} for verb in VERBS for thing in THINGS])
    written = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        done = split_files([SourceConfig(path=str(tmp_path / "a.jsonl"))], out=tmp_path / name, config=SplitConfig(), seed=seed)
        written.append([path.read_bytes() for path in done.paths.values()])
    assert written[0] == written[1] != written[2]


def test_nothing_usable_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "q", "completion": ""}])
    with pytest.raises(DataError, match=r"a\.jsonl:1  .*\nnone of 1 rows can be used"):
        split_files([SourceConfig(path=str(tmp_path / "a.jsonl"))], out=tmp_path / "out", config=SplitConfig())
    assert not (tmp_path / "out").exists()

import gzip
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.data import DataConfig, SourceConfig, SplitConfig, freeze, load_snapshot, load_split, read
from tunesmith.data.clean.undo import restored
from tunesmith.errors import BrokenArtefact, DataError, NotFound
from tunesmith.records import Dropped
from tunesmith.store import Store


def write(path: Path, rows: Iterable[dict[str, object] | str]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def pairs(number: int, *, start: int = 0) -> list[dict[str, object]]:
    return [{"prompt": f"q{i}", "completion": f"a{i}", "domain": "ab"[i % 2]} for i in range(start, start + number)]


def config_for(*paths: str, **fields: object) -> DataConfig:
    return DataConfig(sources=tuple(SourceConfig(path=path) for path in paths), **fields)


def test_every_row_read_is_in_a_split_or_dropped_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [*pairs(100), *pairs(3), "{broken"])
    write(tmp_path / "b.txt", ["one text"])
    store = Store(tmp_path / "work")
    heard: list[tuple[str, int]] = []
    snapshot = freeze(config_for("a.jsonl", "b.txt"), folder=tmp_path, store=store, on_progress=lambda *what: heard.append(what))
    assert snapshot.num_read == 105
    assert snapshot.dropped == {"exact_duplicate": 3, "malformed_json": 1}
    assert snapshot.num_bad == 1
    assert sum(snapshot.splits.values()) == 101
    assert snapshot.formats == {
        "a.jsonl": "prompt_completion (prompt/completion in 103 of 103 rows)",
        "b.txt": "text (text in 1 of 1 rows)",
    }
    assert "exact_duplicates: 3 dropped" in snapshot.steps
    assert ("read", 105) in heard
    assert load_snapshot(store, snapshot.id) == snapshot
    loaded = [replace(record, cluster="") for name in snapshot.splits for record in load_split(store, snapshot, split=name)]
    sources = enumerate(("a.jsonl", "b.txt"))
    records = [row for n, source in sources for row in read(SourceConfig(path=source), folder=tmp_path, number=n).rows]
    kept = {record.id: record for record in reversed(records) if not isinstance(record, Dropped)}
    assert sorted(loaded, key=lambda r: r.id) == sorted(kept.values(), key=lambda r: r.id)
    dropped = [json.loads(line) for line in (store.artefacts.get(snapshot.id).path / "dropped.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["source"]) for row in dropped] == [("malformed_json", "a.jsonl:104")] + [
        ("exact_duplicate", f"a.jsonl:{n}") for n in (101, 102, 103)
    ]


def test_equal_data_gives_an_equal_id_wherever_it_lies(tmp_path: Path) -> None:
    ids = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.jsonl", pairs(40))
        snapshot = freeze(config_for("a.jsonl"), folder=tmp_path / name, store=Store(tmp_path / name / "work"))
        again = freeze(config_for("a.jsonl"), folder=tmp_path / name, store=Store(tmp_path / name / "work"))
        ids += [snapshot.id, again.id]
        artefact = Store(tmp_path / name / "work").artefacts.get(snapshot.id).path
        assert not any(str(tmp_path) in path.read_text() for path in artefact.iterdir())
    assert len(set(ids)) == 1
    absolute = freeze(config_for(str(tmp_path / "here" / "a.jsonl")), folder=tmp_path, store=Store(tmp_path / "work"))
    assert absolute.id == ids[0]
    assert freeze(config_for("a.jsonl", seed=1), folder=tmp_path / "here", store=Store(tmp_path / "work")).id != ids[0]


def test_too_many_bad_rows_are_refused_and_kept_aside_and_nothing_else_is_written(tmp_path: Path) -> None:
    write(tmp_path / "chats.jsonl", [*pairs(90), *(["{broken"] * 12), *pairs(20)])
    store = Store(tmp_path / "work")
    with pytest.raises(DataError) as error:
        freeze(config_for("chats.jsonl", max_bad_share=0.05), folder=tmp_path, store=store)
    lines = str(error.value).splitlines()
    quarantine = tmp_path / "work" / "quarantine" / "chats.jsonl"
    assert lines[0].startswith("chats.jsonl:91  not valid JSON")
    assert lines[9].startswith("chats.jsonl:100  ")
    assert lines[10] == "… and 2 more"
    assert lines[11] == f"12 of 122 rows quarantined (9.8 %, the gate is 5 %): {quarantine}"
    assert [json.loads(line)["source"] for line in quarantine.read_text().splitlines()] == [
        f"chats.jsonl:{n}" for n in range(91, 103)
    ]
    assert [path for path in store.root.rglob("*") if path.is_file()] == [quarantine]


def test_gate_lets_its_own_share_pass_and_counts_no_duplicates(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [*pairs(49), *pairs(49), "{broken", "{broken"])
    store = Store(tmp_path / "work")
    assert freeze(config_for("a.jsonl", max_bad_share=0.02), folder=tmp_path, store=store).dropped["malformed_json"] == 2
    with pytest.raises(DataError, match=r"the gate is 1\.9 %"):
        freeze(config_for("a.jsonl", max_bad_share=0.019), folder=tmp_path, store=store)


def test_files_of_a_folder_that_cannot_be_read_are_refused_however_few_rows_they_seem_to_hold(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.jsonl", pairs(300))
    write(tmp_path / "all.jsonl", pairs(5000))
    packed = gzip.compress((tmp_path / "all.jsonl").read_bytes())
    (tmp_path / "d" / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    write(tmp_path / "d" / "c.csv", ["Frage;Antwort", *(f"f{n};a{n}" for n in range(500))])
    (tmp_path / "d" / "empty.jsonl").touch()  # nothing is lost with it
    store = Store(tmp_path / "work")
    for share in (0.01, 0.99):
        with pytest.raises(DataError) as error:
            freeze(config_for("d", max_bad_share=share), folder=tmp_path, store=store)
        lines = str(error.value).splitlines()
        assert lines[0].startswith("d/b.jsonl.gz  the file is not sound gzip")
        assert lines[1].startswith("d/c.csv  no row is in a known format. Keys found: frage, antwort.")
        assert lines[2] == "2 of 3 files cannot be read, and nobody knows how many rows they hold."
        assert "data.max_bad_share: 1" in lines[3]
    snapshot = freeze(config_for("d", max_bad_share=1.0), folder=tmp_path, store=store)
    assert list(snapshot.unread) == list(load_snapshot(store, snapshot.id).unread) == ["d/b.jsonl.gz", "d/c.csv"]
    assert sum(snapshot.splits.values()) == 300
    (tmp_path / "d" / "empty.jsonl").unlink()
    assert not freeze(config_for("d/*.jsonl"), folder=tmp_path, store=store).unread


def test_a_file_without_wanted_rows_is_no_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.jsonl", [{**row, "lang": "de"} for row in pairs(40)])
    write(tmp_path / "d" / "b.jsonl", [{**row, "lang": "en"} for row in pairs(40)])
    config = DataConfig(sources=(SourceConfig(path="d", where={"lang": "de"}),))
    snapshot = freeze(config, folder=tmp_path, store=Store(tmp_path / "work"))
    assert not snapshot.unread
    assert sum(snapshot.splits.values()) == 40


def test_limit_takes_the_same_sample_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [*pairs(60), *pairs(60)])
    write(tmp_path / "b.jsonl", reversed(pairs(60)))
    taken = []
    for name in ("a.jsonl", "b.jsonl"):
        config = DataConfig(sources=(SourceConfig(path=name, limit=20),), split=SplitConfig(validation=0, test=0))
        store = Store(tmp_path / "work")
        snapshot = freeze(config, folder=tmp_path, store=store)
        assert snapshot.splits["train"] == 20
        assert snapshot.num_read == 20 + sum(snapshot.dropped.values())
        assert f"limit {name}: 20 of 60 rows" in snapshot.steps
        taken.append({record.id for record in load_split(store, snapshot, split="train")})
    assert taken[0] == taken[1]


def test_limit_takes_cleaned_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": f"q{i}  mail a{i}@example.com", "completion": f"a{i}"} for i in range(30)])
    source = SourceConfig(path="a.jsonl", limit=5)
    config = DataConfig(sources=(source,), clean=("whitespace", "pii"), split=SplitConfig(validation=0, test=0))
    store = Store(tmp_path / "work")
    rows = load_split(store, freeze(config, folder=tmp_path, store=store), split="train")
    assert len(rows) == 5
    assert all(row.messages[0].content.endswith(" mail [EMAIL_1]") for row in rows)


def test_what_cleaning_replaced_is_kept_beside_the_snapshot_and_not_in_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": f"{i}: mail a{i}@example.com", "completion": f"a{i}"} for i in range(30)])
    store = Store(tmp_path / "work")
    snapshot = freeze(config_for("a.jsonl", clean=("pii", "exact_duplicates")), folder=tmp_path, store=store)
    artefact = store.artefacts.get(snapshot.id).path
    assert not any("@example.com" in file.read_text() for file in artefact.iterdir())
    assert "pii: 30 changed, 0 dropped" in snapshot.steps
    beside = store.root / "cleaning" / snapshot.id
    changes = [json.loads(line) for line in (beside / "changes.jsonl").read_text().splitlines()]
    rows = [row for name in snapshot.splits for row in load_split(store, snapshot, split=name)]
    read_rows = {str(row.source): row for row in read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows}
    for row in rows:
        before = restored(row, changes)
        assert before.messages == read_rows[str(row.source)].messages  # type: ignore[union-attr]
    (account, _) = json.loads((beside / "account.json").read_text())
    assert (account["step"], account["num_changed"], account["found"], len(account["examples"])) == ("pii", 30, {"email": 30}, 5)
    assert all(file.stat().st_mode & 0o077 == 0 for file in beside.iterdir())


def test_limit_holds_for_its_own_source(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", pairs(30))
    write(tmp_path / "b.jsonl", pairs(30, start=30))
    config = DataConfig(
        sources=(SourceConfig(path="a.jsonl", limit=5), SourceConfig(path="b.jsonl")), split=SplitConfig(validation=0, test=0)
    )
    store = Store(tmp_path / "work")
    snapshot = freeze(config, folder=tmp_path, store=store)
    paths = [record.source.path for record in load_split(store, snapshot, split="train")]
    assert (paths.count("a.jsonl"), paths.count("b.jsonl")) == (5, 30)


def test_two_sources_may_name_one_file_and_their_rows_stay_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"en": f"word {i}", "fr": f"mot {i}"} for i in range(60)])
    ways = [{"prompt": "en", "completion": "fr"}, {"prompt": "fr", "completion": "en"}]
    sources = tuple(SourceConfig(path="a.jsonl", map=way, limit=limit) for way, limit in zip(ways, (20, 40), strict=True))
    store = Store(tmp_path / "work")
    config = DataConfig(sources=sources, split=SplitConfig(near_duplicates=None))
    snapshot = freeze(config, folder=tmp_path, store=store)
    rows = [row for name in snapshot.splits for row in load_split(store, snapshot, split=name)]
    assert {(row.origin, row.messages[0].content.split()[0]) for row in rows} == {(0, "word"), (1, "mot")}
    assert [sum(row.origin == origin for row in rows) for origin in (0, 1)] == [20, 40]


def test_only_bad_rows_are_refused_whatever_the_gate(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "q", "completion": ""}])
    with pytest.raises(DataError, match="1 of 1 rows quarantined"):
        freeze(config_for("a.jsonl", max_bad_share=1.0), folder=tmp_path, store=Store(tmp_path / "work"))


def test_altered_or_foreign_artefacts_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", pairs(30))
    store = Store(tmp_path / "work")
    snapshot = freeze(config_for("a.jsonl"), folder=tmp_path, store=store)
    with pytest.raises(NotFound, match="There are: train, validation, test"):
        load_split(store, snapshot, split="dev")
    with store.artefacts.publish("model") as staging:
        (staging.path / "x").write_text("x")
    with pytest.raises(NotFound, match="is a model, not a snapshot"):
        load_snapshot(store, staging.artefact.digest)
    folder = store.artefacts.get(snapshot.id).path
    folder.chmod(0o755)
    (folder / "train.jsonl").chmod(0o644)
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(BrokenArtefact, match="tunesmith doctor"):
        load_split(store, snapshot, split="train")
    (folder / "train.jsonl").write_text("{")
    with pytest.raises(BrokenArtefact, match="tunesmith doctor"):
        load_split(store, snapshot, split="train")
    shutil.rmtree(folder)


def test_recipe_values_out_of_range_are_refused() -> None:
    for fields in (
        {"split": {"test": 15}},
        {"split": {"validation": 0.5, "test": 0.5}},
        {"sources": []},
        {"max_bad_share": 2},
        {"x": 1},
    ):
        with pytest.raises(ValueError, match="validation error"):
            DataConfig.model_validate({"sources": [{"path": "a.jsonl"}]} | fields)


def test_rows_that_where_leaves_out_are_counted_and_no_fault(tmp_path: Path) -> None:
    """Half of the file is left out; the gate, which refuses a hundredth of bad rows, does not count them."""
    write(tmp_path / "a.jsonl", pairs(100))
    source = SourceConfig(path="a.jsonl", where={"domain": "a"})
    snapshot = freeze(DataConfig(sources=(source,)), folder=tmp_path, store=Store(tmp_path / "work"))
    assert (snapshot.num_read, snapshot.num_bad, snapshot.dropped) == (100, 0, {"not_wanted": 50})
    assert sum(snapshot.splits.values()) == 50


def test_a_source_may_say_where_its_rows_go_and_the_others_are_divided(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", pairs(20))
    write(tmp_path / "b.jsonl", pairs(5, start=100))
    sources = (SourceConfig(path="a.jsonl"), SourceConfig(path="b.jsonl", split="validation"))
    shares = SplitConfig(validation=0, test=0.2, near_duplicates=None)
    store = Store(tmp_path / "work")
    snapshot = freeze(DataConfig(sources=sources, split=shares), folder=tmp_path, store=store)
    assert dict(snapshot.splits) == {"train": 16, "validation": 5, "test": 4}
    assert {record.source.path for record in load_split(store, snapshot, split="validation")} == {"b.jsonl"}
    assert {record.source.path for name in ("train", "test") for record in load_split(store, snapshot, split=name)} == {"a.jsonl"}
    assert all(record.cluster for name in snapshot.splits for record in load_split(store, snapshot, split=name))
    assert "split: 5 rows are validation, as their source says" in snapshot.steps


def test_every_source_may_say_where_its_rows_go_if_some_are_left_to_train_on(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", pairs(20))
    write(tmp_path / "b.jsonl", pairs(5, start=100))

    def frozen(first: str, second: str) -> dict[str, int]:
        sources = (SourceConfig(path="a.jsonl", split=first), SourceConfig(path="b.jsonl", split=second))  # type: ignore[arg-type]
        return dict(freeze(DataConfig(sources=sources), folder=tmp_path, store=Store(tmp_path / "work")).splits)

    assert frozen("train", "validation") == {"train": 20, "validation": 5, "test": 0}
    with pytest.raises(DataError, match="no row is left to train on"):
        frozen("test", "validation")

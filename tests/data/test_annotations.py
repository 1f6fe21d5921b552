from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tunesmith.data import SourceConfig, read
from tunesmith.data.annotations import AnnotationLog, Annotations, Kind, decide, resolve, take_back
from tunesmith.data.read import content_digest
from tunesmith.data.rows import plain_record
from tunesmith.errors import DataError, OutOfSpace
from tunesmith.records import Dropped, Message, Record, Role, Source


def turn(role: str, content: str) -> Message:
    return Message(role=Role(role), content=content)


def row(*messages: Message, line: int = 1, rejected: tuple[Message, ...] = (), text: str | None = None) -> Record:
    digest = content_digest(text if text is not None else messages, rejected=rejected)
    return Record(id=digest, source=Source(path="a.jsonl", line=line), messages=messages, rejected=rejected, text=text)


CHAT = row(turn("user", "Open on Sunday?"), turn("assistant", "Yes."), turn("user", "When?"), turn("assistant", "At nine."))
PAIR = row(turn("user", "Open?"), turn("assistant", "Yes."), rejected=(turn("assistant", "No."),))
TEXT = row(text="We open at nine.")


def standing(*decisions) -> Annotations:
    found = Annotations()
    for decision in decisions:
        found.add(decision)
    return found


def read_all(path: Path) -> list:
    return list(AnnotationLog(path).read_new())


@pytest.mark.parametrize(
    ("record", "kind", "value"),
    [
        (CHAT, Kind.LABEL, "good"),
        (CHAT, Kind.ANSWER, "From eleven."),
        (PAIR, Kind.RANK, "rejected"),
        (PAIR, Kind.RANK, "tie"),
        (TEXT, Kind.LABEL, "näh\u202e"),
        (TEXT, Kind.ANSWER, "We open at ten."),
        (CHAT, Kind.SKIP, ""),
    ],
)
def test_a_decision_written_is_the_decision_read(record, kind, value, tmp_path):
    decision = decide(record, by="anna", kind=kind, value=value)
    AnnotationLog(tmp_path / "a.jsonl").append([decision])
    assert read_all(tmp_path / "a.jsonl") == [decision]


def test_a_decision_is_a_record_with_its_parent():
    corrected = decide(CHAT, by="anna", kind=Kind.ANSWER, value="From eleven.").record
    assert corrected is not None
    assert [m.content for m in corrected.messages] == ["Open on Sunday?", "Yes.", "When?", "From eleven."]
    assert corrected.parents == (CHAT.id,)
    assert corrected.id == content_digest(corrected.messages) != CHAT.id
    assert corrected.source == CHAT.source
    swapped = decide(PAIR, by="anna", kind=Kind.RANK, value="rejected").record
    assert swapped is not None
    assert (swapped.messages[-1].content, swapped.rejected[0].content) == ("No.", "Yes.")


def test_lines_and_exported_rows_are_read_by_the_reader_of_runs(tmp_path):
    log = AnnotationLog(tmp_path / "a.jsonl")
    decisions = [
        decide(CHAT, by="anna", kind=Kind.ANSWER, value="From eleven."),
        decide(CHAT, by="ben", kind=Kind.LABEL, value="good"),
    ]
    log.append(decisions)
    result = resolve(standing(*decisions), {CHAT.id: CHAT})
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(plain_record(r)) + b"\n" for r in result.records))
    for name, answers in (("a.jsonl", ["From eleven.", "At nine."]), ("rows.jsonl", ["From eleven."])):
        found = list(read(SourceConfig(path=name), folder=tmp_path).rows)
        assert [one.messages[-1].content for one in found if isinstance(one, Record)] == answers


@pytest.mark.parametrize(
    ("record", "kind", "value", "message"),
    [
        (CHAT, Kind.LABEL, "  ", "empty"),
        (CHAT, Kind.RANK, "tie", "cannot be said"),
        (PAIR, Kind.RANK, "left", "cannot be said"),
        (PAIR, Kind.ANSWER, "Perhaps.", "ranked"),
    ],
)
def test_what_does_not_fit_the_row_is_refused(record, kind, value, message):
    with pytest.raises(DataError, match=message):
        decide(record, by="anna", kind=kind, value=value)
    for name in ("", " ", "a\nb", "x" * 65, "a\x1b[31m"):
        with pytest.raises(DataError, match="annotator"):
            decide(TEXT, by=name, kind=Kind.LABEL, value="x")


def test_of_labels_most_votes_count_and_a_tie_is_left_out_with_its_reason():
    said = [decide(TEXT, by=name, kind=Kind.LABEL, value=label) for name, label in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert [r.label for r in resolve(standing(*said), {}).records] == ["x"]
    divided = resolve(standing(*said[:2]), {TEXT.id: TEXT})
    assert divided.records == []
    assert [(d.reason, d.detail) for d in divided.dropped] == [("annotators_disagree", "a: x, b: y")]


def test_a_person_who_decides_anew_is_counted_once():
    again = [decide(TEXT, by="a", kind=Kind.LABEL, value=label) for label in ("x", "y")]
    assert standing(*again).ratings(Kind.LABEL) == {"a": {TEXT.id: "y"}}


def test_tied_pairs_and_skipped_rows_are_left_out():
    said = [decide(PAIR, by="a", kind=Kind.RANK, value="tie"), decide(TEXT, by="a", kind=Kind.SKIP, value="")]
    found = resolve(standing(*said), {PAIR.id: PAIR, TEXT.id: TEXT})
    assert [d.reason for d in found.dropped] == ["no_better_answer", "skipped"]


def test_a_corrected_and_labelled_row_has_both_and_one_parent():
    said = [decide(CHAT, by="a", kind=Kind.ANSWER, value="From ten."), decide(CHAT, by="b", kind=Kind.LABEL, value="good")]
    (found,) = resolve(standing(*said), {CHAT.id: CHAT}).records
    assert (found.messages[-1].content, found.label, found.parents) == ("From ten.", "good", (CHAT.id,))


def test_taking_back_brings_the_decision_before_it_back():
    first, second = (decide(TEXT, by="a", kind=Kind.LABEL, value=label) for label in ("x", "y"))
    assert standing(first, second, take_back(second)).ratings(Kind.LABEL) == {"a": {TEXT.id: "x"}}
    gone = standing(first, take_back(first))
    assert (gone.ratings(Kind.LABEL), gone.rows(), gone.last_of("a")) == ({}, [], None)
    assert standing(take_back(first)).rows() == []


def test_a_torn_line_is_told_of_with_its_place_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    first, second = (decide(TEXT, by="a", kind=Kind.LABEL, value=label) for label in ("x", "y"))
    AnnotationLog(path).append([first])
    with path.open("ab") as file:
        file.write(b'{"text": "We open')
    assert read_all(path) == [first]
    AnnotationLog(path).append([second])
    found = read_all(path)
    assert [found[0], found[2]] == [first, second]
    assert isinstance(found[1], Dropped)
    assert (str(found[1].source), found[1].reason) == (f"{path}:2", "malformed_annotation")


@pytest.mark.parametrize(
    "line", [b"null", b"[]", b"{}", b'{"annotation": 3}', b"\xff\xfe", b'{"annotation":{"by":"a"}}', b"1" * 9999]
)
def test_lines_that_are_no_decisions_are_told_of_and_never_raise(line, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    assert [type(entry) for entry in read_all(tmp_path / "a.jsonl")] == [Dropped]


WRITER = """
import sys
from pathlib import Path
from tunesmith.data.annotations import AnnotationLog, Kind, decide
from tunesmith.records import Record, Source
log = AnnotationLog(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    row = Record(id=f"{sys.argv[2]}-{i}", source=Source(path="a", line=1), text="x" * 5000)
    log.append([decide(row, by=sys.argv[2], kind=Kind.LABEL, value="good")])
    print(i, flush=True)
"""


def writer(path: Path, by: str, num: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), by, str(num)], stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    processes = [writer(path, by, 60) for by in ("anna", "ben")]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    found = read_all(path)
    assert not [entry for entry in found if isinstance(entry, Dropped)]
    assert {entry.of for entry in found} == {f"{by}-{i}" for by in ("anna", "ben") for i in range(60)}


def test_after_a_kill_every_decision_that_was_answered_is_there(tmp_path):
    path = tmp_path / "a.jsonl"
    with writer(path, "anna", 100_000) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 20:
                os.kill(process.pid, signal.SIGKILL)
                break
        answered = 21 + len(process.stdout.readlines())
    found = read_all(path)
    whole = [entry.of for entry in found if not isinstance(entry, Dropped)]
    assert whole[:answered] == [f"anna-{i}" for i in range(answered)]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    """A limit on file size stands for the full disk: the kernel takes part of a line and refuses the rest."""
    path = tmp_path / "a.jsonl"
    log = AnnotationLog(path)
    log.append([decide(TEXT, by="a", kind=Kind.LABEL, value="x")])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(OutOfSpace, match="no space left"):
            log.append([decide(TEXT, by="a", kind=Kind.ANSWER, value="y" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before

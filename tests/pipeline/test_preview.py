"""A row as the model reads it, or why the model does not read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.data.chat import ChatFormat
from tunesmith.data.config import Overlong
from tunesmith.model import open_base
from tunesmith.model.base import EMBEDDED
from tunesmith.pipeline.preview import preview_row
from tunesmith.records import Message, Record, Role, Source
from tunesmith.terminal.data_screens import preview_screen
from tunesmith.train import Job
from tunesmith.train.config import TrainConfig

ROW = Record(
    id="1",
    source=Source(path="a.jsonl", line=7),
    messages=(Message(role=Role.USER, content="When do you open?"), Message(role=Role.ASSISTANT, content="At nine. " * 20)),
)


@pytest.fixture(scope="module")
def base() -> Path:
    return open_base(EMBEDDED, folder=Path(), cache=Path()).path


def job(base: Path, *, max_length: int, overlong: Overlong) -> Job:
    return Job(
        base=base,
        scratch=None,
        chat=ChatFormat.load(base),
        train=[ROW],
        validation=[],
        config=TrainConfig(max_length=max_length),
        overlong=overlong,
    )


def test_a_row_that_is_read_shows_its_pieces_and_what_is_cut(base: Path) -> None:
    shown = preview_row(ROW, job=job(base, max_length=40, overlong="right"))
    assert shown.left_out is None
    assert "At nine." in "".join(piece.text for piece in shown.pieces if piece.is_learned)
    assert shown.pieces[-1].end == 40
    assert shown.num_cut > 0


@pytest.mark.parametrize(("max_length", "overlong"), [(40, "drop"), (8, "right")])
def test_a_row_that_is_left_out_says_why(base: Path, max_length: int, overlong: Overlong) -> None:
    shown = preview_row(ROW, job=job(base, max_length=max_length, overlong=overlong))
    assert shown.pieces == ()
    assert shown.left_out
    assert shown.as_json()["left_out"] == shown.left_out
    (line,) = preview_screen(shown)
    assert "a.jsonl:7   not trained on: " in line.plain
    assert shown.left_out.split()[0] in line.plain

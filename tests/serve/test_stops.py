from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.serve.engine import Piece, TokenLogprob
from tunesmith.serve.stops import cut_at_stops

TEXTS = st.text(alphabet="abä🙂", max_size=24)


def cut_by_reading_letter_by_letter(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: read on until what was read ends with a stop string; the longest such is taken away."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(text=TEXTS, stops=st.lists(st.text(alphabet="abä🙂", min_size=1, max_size=5), max_size=4), data=st.data())
def test_stop_strings_cut_the_same_wherever_the_pieces_end(text, stops, data):
    borders = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    texts = [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]
    told = [(TokenLogprob(str(place), -1.0),) for place in range(len(texts))]
    ends = [*[None] * (len(texts) - 1), "length"]
    pieces = [Piece(text, 1, end, one) for text, end, one in zip(texts, ends, told, strict=True)]
    shown = list(cut_at_stops(iter(pieces), stops=stops))
    expected, is_stopped = cut_by_reading_letter_by_letter(text, stops)
    assert "".join(piece.text for piece in shown) == expected
    assert [piece.finish_reason for piece in shown[:-1]] == [None] * (len(shown) - 1)
    assert shown[-1].finish_reason == ("stop" if is_stopped else "length")
    assert sum(piece.num_tokens for piece in shown) == len(shown)
    begun = [sum(map(len, texts[:place])) for place in range(len(shown))]
    named = [int(one.token) for piece in shown for one in piece.logprobs]
    assert named == [place for place, start in enumerate(begun) if start < len(expected) or not is_stopped]
    length = 0
    for piece in shown:
        length += len(piece.text)
        assert all(begun[int(one.token)] < length or piece.finish_reason for one in piece.logprobs)


def test_text_is_held_back_only_while_a_stop_string_may_follow():
    pieces = [Piece("Hi #", 1, None), Piece("#", 1, None), Piece(" no", 1, None), Piece("", 0, "stop")]
    assert [p.text for p in cut_at_stops(iter(pieces), stops=["###"])] == ["Hi ", "", "## no", ""]
    assert [p.text for p in cut_at_stops(iter(pieces), stops=[])] == ["Hi #", "#", " no", ""]


def test_nothing_is_told_of_a_token_that_is_cut_away_behind_half_a_character():
    pieces = [
        Piece("", 1, None, (TokenLogprob("\ufffd", -1.0),)),
        Piece("\ufffdend", 1, None, (TokenLogprob("end", -2.0),)),
        Piece("", 0, "stop"),
    ]
    (_, cut) = cut_at_stops(iter(pieces), stops=["end"])
    assert (cut.text, cut.finish_reason, [one.token for one in cut.logprobs]) == ("\ufffd", "stop", ["\ufffd"])
    whole = list(cut_at_stops(iter(pieces), stops=[]))
    assert [one.token for piece in whole for one in piece.logprobs] == ["\ufffd", "end"]


def test_the_engine_is_closed_as_soon_as_a_stop_string_is_complete():
    told = []

    def engine():
        try:
            for text in "abcdef":
                told.append(text)
                yield Piece(text, 1, None)
        finally:
            told.append("closed")

    assert "".join(p.text for p in cut_at_stops(engine(), stops=["cd"])) == "ab"
    assert told == ["a", "b", "c", "d", "closed"]


def test_an_answer_that_ends_without_a_reason_is_an_error():
    with pytest.raises(RuntimeError, match="without a finish reason"):
        list(cut_at_stops(iter([Piece("a", 1, None)]), stops=[]))

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import BrokenArtefact, DataError
from tunesmith.evaluate import from_json, to_json
from tunesmith.evaluate.codec import digest_report
from tunesmith.records import Report, Sample, Score

number = st.floats(allow_nan=False)
score = st.builds(Score, value=number, low=st.none() | number, high=st.none() | number)
text = st.text(max_size=20)
report = st.builds(
    Report,
    id=st.just(""),
    kind=text,
    scores=st.dictionaries(text, st.dictionaries(text, score, max_size=3), max_size=3),
    samples=st.lists(
        st.builds(Sample, record=text, question=text, reference=text, answers=st.dictionaries(text, text, max_size=2)), max_size=3
    ).map(tuple),
    verdict=text,
    num_rows=st.integers(0, 10**9),
    signatures=st.dictionaries(text, text, max_size=3),
)


def signed(made: Report) -> Report:
    return Report(
        id=digest_report(made),
        kind=made.kind,
        scores=made.scores,
        samples=made.samples,
        verdict=made.verdict,
        num_rows=made.num_rows,
        signatures=made.signatures,
    )


@given(report.map(signed))
def test_a_report_survives_the_round_trip(made: Report) -> None:
    data = to_json(made)
    assert from_json(data) == made
    assert to_json(from_json(data)) == data


SMALL = signed(
    Report(id="", kind="evaluation", scores={"a": {"perplexity": Score(value=math.inf)}}, samples=(), verdict="v", num_rows=1)
)


def test_infinity_is_written_as_a_word_and_the_schema_is_stated() -> None:
    value = orjson.loads(to_json(SMALL))
    assert value["schema"] == 2
    assert value["scores"]["a"]["perplexity"] == {"value": "inf", "low": None, "high": None}


def test_an_altered_or_incomplete_report_is_broken() -> None:
    with pytest.raises(BrokenArtefact, match="altered"):
        from_json(to_json(SMALL).replace(b'"verdict":"v"', b'"verdict":"w"'))
    with pytest.raises(BrokenArtefact, match="num_rows"):
        from_json(to_json(SMALL).replace(b'"num_rows":1,', b""))
    with pytest.raises(BrokenArtefact, match="mistypes"):
        from_json(to_json(SMALL).replace(b'"value":"inf"', b'"value":null'))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema":3}', b"\xff"])
def test_what_is_no_report_of_this_schema_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        from_json(data)

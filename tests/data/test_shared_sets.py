"""The bars of the data gate on real data, where it lies beside the checkout (`TUNESMITH_SHARED`, else `../shared`)."""

import base64
import codecs
import gzip
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import SourceConfig, read
from tunesmith.data.files import BadRow, examine, find_parts
from tunesmith.data.files.encoding import decoded, encoding_of
from tunesmith.data.validation.tolerant import parse
from tunesmith.errors import DataError
from tunesmith.records import Dropped

SHARED = Path(os.environ.get("TUNESMITH_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data sets are not at {SHARED}; set TUNESMITH_SHARED")

# As the set names them, and as Python does; where browsers read a wider encoding, that one.
PYTHON = {
    "Big5": "big5hkscs",
    "CP932": "cp932",
    "EUC-KR": "cp949",
    "GB2312": "gb18030",
    "IBM855": "cp855",
    "IBM866": "cp866",
    "MacCyrillic": "mac_cyrillic",
    "SHIFT_JIS": "cp932",
    "TIS-620": "cp874",
}


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(SHARED / name) as file:
        yield from map(json.loads, file)


def codec_of(name: str) -> str | None:
    for spelt in (PYTHON.get(name, name), name.rpartition("-")[0].replace("windows-", "cp")):
        try:
            return codecs.lookup(spelt).name
        except LookupError:
            continue
    return None


def test_legacy_encodings_are_decoded_to_the_right_text() -> None:
    wrong = []
    rows = list(rows_of("dirty/encodings_chardet.jsonl.gz"))
    for row in rows:
        data, codec = base64.b64decode(row["b64"]), codec_of(row["encoding"])
        truth = data.decode(codec, "replace").removeprefix("\ufeff") if codec else None
        if re.sub("[\udc80-\udcff]", "\ufffd", decoded(data)) != truth:
            wrong.append((row["encoding"], row["file"], str(encoding_of(io.BytesIO(data)))))
    assert len(wrong) <= 0.05 * len(rows), wrong


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_the_json_test_suite_is_accepted_and_rejected_as_it_demands(suffix: str, tmp_path: Path) -> None:
    for row in rows_of("dirty/json_test_suite.jsonl.gz"):
        (tmp_path / f"a{suffix}").write_bytes(base64.b64decode(row["b64"]))
        found = list(examine(find_parts(f"a{suffix}", folder=tmp_path).parts[0]).rows)
        reasons = {one.content.reason for one in found if isinstance(one.content, BadRow)}
        is_json = bool(found) and not reasons & {"malformed_json", "encoding"}
        if row["expect"] == "accept":
            assert is_json or not found, row["name"]  # an empty array has no row
        if row["expect"] == "reject":
            assert not is_json, row["name"]


def test_pages_give_their_articles() -> None:
    """F over words as bags, the mean of pages; single signs where words are not set apart by blanks."""
    pytest.importorskip("trafilatura", exc_type=ImportError)
    from tunesmith.data.files.documents import html_text

    scores = []
    for row in rows_of("dirty/html_articles.jsonl.gz"):
        word = r"\w" if sum(ord(sign) > 0x2E80 for sign in row["article"]) * 3 > len(row["article"]) else r"\w+"
        found, truth = (Counter(re.findall(word, text)) for text in (html_text(row["html"]), row["article"]))
        scores.append(2 * (found & truth).total() / (found.total() + truth.total()))
    assert sum(scores) / len(scores) >= 0.90


@pytest.mark.parametrize(
    ("name", "format_", "num_rows", "reasons"),
    [
        ("dirty/bitext_v1_raw.csv.gz", "prompt_completion (instruction/response", 2500, {}),
        ("dirty/dedup_demo.jsonl.gz", "text (text", 14, {}),
        ("dirty/dialogsum_dev_pyrepr.jsonl.gz", "prompt_completion (dialogue/summary", 500, {}),
        ("dirty/enterprise_pii.jsonl.gz", "choices (", 2862, {}),
        ("dirty/html_articles.jsonl.gz", "text (article", 89, {}),
        ("dirty/naughty_strings.jsonl.gz", "text (text", 443, {"empty_content": 1}),
        ("dirty/pii_presidio.jsonl.gz", "text (text", 1268, {}),
        ("dirty/udhr_380_languages.jsonl.gz", "text (text", 334, {}),
        ("dialog/topical_chat.jsonl.gz", "dialogue (", 1617, {}),
        ("instruct/glaive_toolcall_en_demo.jsonl.gz", "sharegpt (", 242, {}),
        ("instruct/oasst_en_100_trees.jsonl.gz", "tree (", 91, {"lower_ranked": 254}),
        ("instruct/self_instruct_seed.jsonl.gz", "instances (", 148, {}),
        ("instruct/rasbt_instructions.jsonl.gz", "alpaca (", 926, {}),
        ("preference/dpo_en_demo.jsonl.gz", "preference (", 253, {}),
        ("preference/hh_rlhf_harmless_test.jsonl.gz", "preference (", 1947, {}),
        ("preference/kto_en_demo.jsonl.gz", "messages (", 256, {}),
        ("preference/rasbt_preference.jsonl.gz", "preference (", 921, {"equal_answers": 5}),
        ("qa/xquad_en.jsonl.gz", "prompt_completion (context+question/answers", 947, {}),
        ("qa/piqa.jsonl.gz", "choices (", 1543, {}),
        ("summarization/qmsum.jsonl.gz", "questions (a document", 839, {}),
        ("summarization/squality.jsonl.gz", "questions (a document", 375, {}),
        ("retail/abcd_sample.json.gz", "dialogue (known speakers", 3, {}),
        ("retail/taubench_retail_dialogs.jsonl.gz", "dialogue (known speakers", 56, {}),
        ("retail/bitext_intents.jsonl.gz", "text_label (utterance/intent", 6902, {}),
        ("retail/cucom_ecommerce.jsonl.gz", "dialogue (", 5085, {}),
    ],
)
def test_set_is_read_as_what_it_is(name: str, format_: str, num_rows: int, reasons: dict[str, int]) -> None:
    reading = read(SourceConfig(path=str(SHARED / name)), folder=Path())
    assert next(iter(reading.formats.values())).startswith(format_)
    found = Counter(row.reason if isinstance(row, Dropped) else "" for row in reading.rows)
    assert found == {"": num_rows} | reasons


def test_lines_that_a_library_repairs_are_mended_only_to_the_same() -> None:
    """json-repair's own cases: many guess, and those are left. Three are no rows: a bare string, a bare word, a key with a line break."""
    mended, other = 0, []
    for row in rows_of("dirty/json_repair_cases.jsonl.gz"):
        try:
            value, slips = parse(row["input"].strip())
        except ValueError:
            continue
        truth = row["expected"]
        with suppress(ValueError, TypeError):
            truth = truth if row["options"].get("return_objects") else json.loads(truth)
        mended += bool(slips) and value == truth
        if value != truth:
            other.append(value)
    assert mended == 15
    assert other == ['"', {"key_1\n": "value"}, True]


@pytest.mark.parametrize("name", ["dirty/ftfy_cases.jsonl.gz", "nc/multi30k.jsonl.gz", "retail/taubench_retail_users.json.gz"])
def test_set_that_says_not_what_is_learned_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(DataError, match=r"Keys found: .*map: "):
        read(SourceConfig(path=str(SHARED / name)), folder=Path())

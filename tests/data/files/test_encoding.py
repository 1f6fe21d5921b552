import io
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunesmith.data.files import BadRow, RawRow
from tunesmith.data.files.encoding import Encoding, as_utf8, decoded, encoding_of

POLISH = "Zażółć gęślą jaźń. Wiadomości z kraju i ze świata: pogoda, sport, kultura, nauka i gospodarka są dziś ważne. " * 3
RUSSIAN = "Мы открыты с девяти до семи часов, а в воскресенье магазин закрыт. Приходите за покупками завтра утром. " * 3
GERMAN = (
    "Die Öffnungszeiten unseres Geschäfts ändern sich über die Feiertage, für Fragen stehen wir natürlich zur Verfügung. " * 3
)
TURKISH = "Mağazamız pazar günleri kapalıdır, diğer günler sabah dokuzdan akşam yediye kadar açığız. Şimdiden teşekkürler. " * 3
JAPANESE = "当店は日曜日を除いて毎日営業しております。ご不明な点がございましたら、お気軽にお問い合わせください。" * 3
CHINESE = "我们的商店星期一到星期六营业，星期天休息。如果您有任何问题，请随时与我们联系，谢谢您的光临。" * 3
KOREAN = "저희 매장은 일요일을 제외하고 매일 영업합니다. 궁금한 점이 있으시면 언제든지 문의해 주세요. 감사합니다. " * 3
TEXTS = {
    "utf-8": GERMAN,
    "utf-8-sig": GERMAN,
    "utf-16": JAPANESE,
    "utf-16-le": GERMAN,
    "utf-16-be": GERMAN,
    "utf-32": KOREAN,
    "utf-32-le": GERMAN,
    "cp1252": GERMAN,
    "cp1250": POLISH,
    "iso8859_2": POLISH,
    "cp1254": TURKISH,
    "cp1251": RUSSIAN,
    "koi8_r": RUSSIAN,
    "cp866": RUSSIAN,
    "mac_cyrillic": RUSSIAN,
    "iso8859_5": RUSSIAN,
    "cp932": JAPANESE,
    "euc_jp": JAPANESE,
    "iso2022_jp": JAPANESE,
    "gb18030": CHINESE,
    "big5": "我們的商店星期一到星期六營業，星期天休息。如果您有任何問題，請隨時與我們聯絡，謝謝您的光臨。" * 3,
    "cp949": KOREAN,
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_decoded_whatever_its_encoding(name: str) -> None:
    assert decoded(TEXTS[name].encode(name)) == TEXTS[name]


@pytest.mark.parametrize("name", ["cp1251", "utf-16", "cp932"])
def test_table_in_another_encoding_is_read_row_by_row(name: str, rows_in: Callable[..., list[RawRow]]) -> None:
    text = JAPANESE if name == "cp932" else RUSSIAN
    rows = rows_in("a.csv", "".join(["question,answer\n", *(f'"{text}",{i}\n' for i in range(3))]).encode(name))
    assert [row.content for row in rows] == [{"question": text, "answer": str(i)} for i in range(3)]


def test_letter_beyond_ascii_at_the_end_of_a_long_file_is_seen() -> None:
    data = b"plain words " * 400_000 + RUSSIAN.encode("cp1251")
    assert encoding_of(io.BytesIO(data)).name == "cp1251"


def test_one_odd_byte_is_damage_and_few_among_sound_letters_are_too(rows_in: Callable[..., list[RawRow]]) -> None:
    for lines in ([b'{"text": "a\xe9"}', b'{"text": "b"}'], ['{"text": "äöüß"}'.encode(), b'{"text": "\xff\xfe"}']):
        kinds = [type(row.content) for row in rows_in("a.jsonl", b"\n".join(lines))]
        assert sorted(kinds, key=str) == sorted([BadRow, dict], key=str)


def test_page_that_declares_its_encoding_is_believed_if_that_decodes() -> None:
    page = f'<meta charset="iso-8859-7"><p>{"Καλημέρα σας"}</p>'
    found = encoding_of(io.BytesIO(page.encode("iso8859_7")))
    assert found == Encoding("iso8859_7", "it declares iso-8859-7")
    lying = '<meta charset="utf-16">' + RUSSIAN
    assert decoded(lying.encode("cp1251")) == lying


def test_evidence_is_told() -> None:
    assert str(encoding_of(io.BytesIO(b"\xff\xfea\x00"))) == "utf-16 (its byte order mark)"
    assert encoding_of(io.BytesIO("é".encode())).evidence == "1 characters beyond ASCII, all sound"
    assert "`pl`" in encoding_of(io.BytesIO(POLISH.encode("cp1250"))).evidence


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200), name=st.sampled_from(["utf-8-sig", "utf-16", "utf-32"])
)
@settings(deadline=None)
def test_any_text_with_a_mark_comes_back(text: str, name: str) -> None:
    assume(name != "utf-16" or not text.startswith("\0"))  # the mark of UTF-16 and a NUL are the mark of UTF-32
    data = text.encode(name)
    encoding = encoding_of(io.BytesIO(data))
    assert as_utf8(io.BytesIO(data), encoding).read().decode() == text or not text


@given(
    data=st.binary(max_size=300), name=st.sampled_from(["cp1252", "cp932", "gb18030", "utf-16", "utf-32", "iso2022_jp_2", "hz"])
)
@settings(deadline=None)
def test_undecodable_bytes_stay_undecodable_and_end_nothing(data: bytes, name: str) -> None:
    found = as_utf8(io.BytesIO(data), Encoding(name, "")).read()
    try:
        assert found.decode() == data.decode(name).removeprefix("\ufeff") or "\ufeff" in data.decode(name)
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            data.decode(name)

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunesmith.data import SourceConfig, read
from tunesmith.data.files import BadRow, RawRow
from tunesmith.data.files.encoding import Encoding, as_utf8, decoded, encoding_of
from tunesmith.records import Dropped, Record

POLISH = "Zażółć gęślą jaźń. Wiadomości z kraju i ze świata: pogoda, sport, kultura, nauka i gospodarka są dziś ważne. " * 3
RUSSIAN = "Мы открыты с девяти до семи часов, а в воскресенье магазин закрыт. Приходите за покупками завтра утром. " * 3
GERMAN = (
    "Die Öffnungszeiten unseres Geschäfts ändern sich über die Feiertage, für Fragen stehen wir natürlich zur Verfügung. " * 3
)
TURKISH = "Mağazamız pazar günleri kapalıdır, diğer günler sabah dokuzdan akşam yediye kadar açığız. Şimdiden teşekkürler. " * 3
JAPANESE = "当店は日曜日を除いて毎日営業しております。ご不明な点がございましたら、お気軽にお問い合わせください。" * 3
CHINESE = "我们的商店星期一到星期六营业，星期天休息。如果您有任何问题，请随时与我们联系，谢谢您的光临。" * 3
KOREAN = "저희 매장은 일요일을 제외하고 매일 영업합니다. 궁금한 점이 있으시면 언제든지 문의해 주세요. 감사합니다. " * 3
FRENCH = "L’été dernier, où était l’hôtel ? Ça a été très agréable : le garçon nous a même apporté un gâteau à la crème. "
SPANISH = "¿Cuándo abre la tienda? Mañana por la mañana, señor; está cerrada el miércoles, ¡qué lástima! "
FINNISH = (
    "Myymälämme on avoinna arkisin yhdeksästä seitsemään, ja lauantaisin se sulkee jo neljältä. Tervetuloa meille töihin. " * 12
)
SHORT = "Wie groß ist das Möbelstück? Natürlich ist es für Sie größer."
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


@pytest.mark.parametrize("name", ["cp1252", "cp850", "cp437", "mac_roman"])
@pytest.mark.parametrize("text", [SHORT, GERMAN, FRENCH.replace("’", "'"), SPANISH, FINNISH, GERMAN.upper()])
def test_western_text_of_windows_of_dos_and_of_old_macs_is_told_apart(text: str, name: str) -> None:
    assert decoded(text.encode(name)) == text


@pytest.mark.parametrize("name", ["cp1252", "mac_roman"])
@pytest.mark.parametrize(
    "text", [FRENCH, "“Don’t worry,” she said — it’s only 5 € and we’re nearly there… That’s the café’s price."]
)
def test_apostrophes_and_quotes_are_no_letters_of_another_encoding(text: str, name: str) -> None:
    assert decoded(text.encode(name)) == text


def test_control_characters_of_a_wrong_encoding_are_not_taken_for_text(rows_in: Callable[..., list[RawRow]]) -> None:
    lines = ["text", *[POLISH.replace(",", ";")] * 40]
    data = "\n".join(lines).encode("iso8859_2") + b"\nzdrowie m\x94belst\x81ck\n"
    assert encoding_of(io.BytesIO(data)).name == "iso8859_2"
    rows = rows_in("a.csv", data)
    texts = [row.content["text"] for row in rows if isinstance(row.content, dict)]
    assert texts == [*lines[1:], "zdrowie m\udc94belst\udc81ck"]  # which makes its own row bad
    assert decoded(b"a\x94b\xe9", encoding=Encoding("latin_1", "")) == "a\udc94bé"


def test_few_bytes_are_told_to_be_few_and_how_to_name_their_encoding() -> None:
    assert "by 2 bytes alone; if that is wrong, name it" in str(
        encoding_of(io.BytesIO("Wann öffnen Sie? Wir öffnen um neun.".encode("cp850")))
    )
    assert "alone" not in str(encoding_of(io.BytesIO(GERMAN.encode("cp850"))))


def test_byte_that_cannot_be_told_names_both_ways_out(tmp_path: Path) -> None:
    for name, data in {
        "a.csv": b"text\nIt costs 5 \x80 today.\nIt is free.\n",
        "a.jsonl": b'{"text": "5 \x80"}\n{"text": "free"}\n',
    }.items():
        (tmp_path / name).write_bytes(data)
        bad, _ = read(SourceConfig(path=name), folder=tmp_path).rows
        assert isinstance(bad, Dropped)
        assert "0x80" in bad.detail
        assert "Save the file as UTF-8, or name its encoding: `--encoding cp1252`" in bad.detail
    named, _ = read(SourceConfig(path="a.csv", encoding="cp1252"), folder=tmp_path).rows
    assert isinstance(named, Record)
    assert named.text == "It costs 5 € today."


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
    one = encoding_of(io.BytesIO(b'<!doctype html><meta charset="iso-8859-1"><p>caf\xe9'))
    assert one == Encoding("cp1252", "it declares iso-8859-1")
    spoken_of = b'{"text": "<meta charset=iso-8859-1>"}\n{"text": "caf\xe9"}'
    assert encoding_of(io.BytesIO(spoken_of)).name == "utf-8"
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

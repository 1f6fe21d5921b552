"""The national numbers of people that have a form of their own: identity, tax and social security numbers, with their check digits.

A number whose form and check digits leave little to chance is known by them alone. One that many an order number fits as well
(`word`) must stand after its own name, or after a word such as "id" or "tax".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import NamedTuple

__all__ = ["NATIONAL_IDS", "NationalId", "luhn", "mod97"]


class NationalId(NamedTuple):
    """One kind of number."""

    kind: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]
    """Given the number in capitals without separators."""
    word: re.Pattern[str] | None = None
    """Its own name, where the form alone is not enough."""
    is_checked: bool = True
    """Whether it has check digits."""


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right is doubled, and the sum of digits ends in 0."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[::-2]))) % 10 == 0


def mod97(text: str) -> bool:
    """ISO 13616, as in an IBAN: the first four characters go last, letters count from A = 10, and the rest by 97 is 1."""
    moved = text[4:] + text[:4]
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _is_date(year: str, month: str, day: str) -> bool:
    """Whether it is a date of some century. A year of two digits may be a leap year."""
    try:
        date(int(year) if len(year) == 4 else 2000 + int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _us_ssn(n: str) -> bool:
    return n[:3] not in {"000", "666"} and n[3:5] != "00" and n[5:] != "0000" and (n[0] != "9" or int(n[3:5]) >= 50)


def _uk_nino(n: str) -> bool:
    return n[:2] not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"} and n[0] not in "DFIQUV" and n[1] not in "DFIQUVO"


def _uk_nhs(n: str) -> bool:
    return (11 - _weighted(n, range(10, 1, -1)) % 11) % 11 == int(n[9])


def _de_steuer_id(n: str) -> bool:
    """ISO 7064, MOD 11,10; of the first ten digits exactly one is there twice or thrice."""
    check = 10
    for digit in n[:10]:
        check = ((check + int(digit)) % 10 or 10) * 2 % 11
    counts = [n[:10].count(digit) for digit in set(n[:10])]
    return n[0] != "0" and (11 - check) % 10 == int(n[10]) and max(counts) in {2, 3} and sum(c > 1 for c in counts) == 1


def _fr_nir(n: str) -> bool:
    number = n[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(n[13:])


def _es_dni(n: str) -> bool:
    number = n[:-1].translate({ord("X"): "0", ord("Y"): "1", ord("Z"): "2"})
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == n[-1]


_CF_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _it_codice_fiscale(n: str) -> bool:
    values = [int(sign) if sign.isdigit() else ord(sign) - 65 for sign in n[:15]]
    return (sum(_CF_ODD[value] for value in values[::2]) + sum(values[1::2])) % 26 == ord(n[15]) - 65


def _nl_bsn(n: str) -> bool:
    return n != "000000000" and _weighted(n, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _pl_pesel(n: str) -> bool:
    month = int(n[2:4]) % 20
    return _is_date(n[:2], str(month), n[4:6]) and _weighted(n, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def _se_personnummer(n: str) -> bool:
    n = n[-10:]
    day = int(n[4:6])
    return _is_date(n[:2], n[2:4], str(day - 60 if day > 60 else day)) and luhn(n)


def _fi_hetu(n: str) -> bool:
    return _is_date(n[4:6], n[2:4], n[:2]) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(n[:6] + n[-4:-1]) % 31] == n[-1]


def _no_fodselsnummer(n: str) -> bool:
    day, month = int(n[:2]), int(n[2:4])
    return (
        _is_date(n[4:6], str(month - 40 if month > 40 else month), str(day - 40 if day > 40 else day))
        and _weighted(n, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11 == 0
        and _weighted(n, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    )


def _dk_cpr(n: str) -> bool:
    return _is_date(n[4:6], n[2:4], n[:2])


def _cz_rodne_cislo(n: str) -> bool:
    month = int(n[2:4]) % 50
    return _is_date(n[:2], str(month - 20 if month > 20 else month), n[4:6]) and int(n[:9]) % 11 % 10 == int(n[9])


def _be_rijksregister(n: str) -> bool:
    return any(97 - int(century + n[:9]) % 97 == int(n[9:]) for century in ("", "2"))


def _ch_ahv(n: str) -> bool:
    return _weighted(n, (1, 3) * 7) % 10 == 0


def _pt_nif(n: str) -> bool:
    return (11 - _weighted(n, range(9, 1, -1)) % 11) % 11 % 10 == int(n[8])


_VERHOEFF = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


def _in_aadhaar(n: str) -> bool:
    """Verhoeff 1969: multiply, in the dihedral group of order ten, the digits permuted by their place."""
    check = 0
    for place, digit in enumerate(reversed(n)):
        other = int(_VERHOEFF[place % 8][int(digit)])
        is_turned, is_other_turned = check // 5, other // 5
        check = (check + (-other if is_turned else other)) % 5 + 5 * (is_turned ^ is_other_turned)
    return check == 0


def _br_cpf(n: str) -> bool:
    checks = [_weighted(n[:size], range(size + 1, 1, -1)) * 10 % 11 % 10 for size in (9, 10)]
    return len(set(n)) > 1 and checks == [int(n[9]), int(n[10])]


def _ro_cnp(n: str) -> bool:
    check = _weighted(n, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return _is_date(n[1:3], n[3:5], n[5:7]) and (1 if check == 10 else check) == int(n[12])


def _tr_kimlik(n: str) -> bool:
    tenth = (7 * sum(map(int, n[:9:2])) - sum(map(int, n[1:8:2]))) % 10
    return tenth == int(n[9]) and sum(map(int, n[:10])) % 10 == int(n[10])


def _cn_resident(n: str) -> bool:
    """GB 11643-1999."""
    check = "10X98765432"[_weighted(n, (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)) % 11] if n[:17].isdigit() else ""
    return _is_date(n[6:10], n[10:12], n[12:14]) and check == n[17]


def _kr_rrn(n: str) -> bool:
    return _is_date(n[:2], n[2:4], n[4:6]) and (11 - _weighted(n, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10 == int(n[12])


def _za_id(n: str) -> bool:
    return _is_date(n[:2], n[2:4], n[4:6]) and luhn(n)


_CURP = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"


def _mx_curp(n: str) -> bool:
    return _is_date(n[4:6], n[6:8], n[8:10]) and (
        -sum(_CURP.index(sign) * weight for sign, weight in zip(n[:17], range(18, 1, -1), strict=True)) % 10 == int(n[17])
    )


def _ie_pps(n: str) -> bool:
    extra = ord(n[8]) - 64 if len(n) == 9 and n[8] != "W" else 0
    return "WABCDEFGHIJKLMNOPQRSTUV"[(_weighted(n, range(8, 1, -1)) + 9 * extra) % 23] == n[7]


def _ca_sin(n: str) -> bool:
    return n[0] not in "08" and luhn(n)


def _au_tfn(n: str) -> bool:
    return _weighted(n, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def _any(_number: str) -> bool:
    return True


def _kind(kind: str, pattern: str, is_valid: Callable[[str], bool], word: str = "") -> NationalId:
    is_checked = is_valid not in {_any, _us_ssn, _dk_cpr}
    # Without anything to check the capitals are part of the form.
    flags = re.ASCII if is_valid is _any else re.ASCII | re.IGNORECASE
    whole = re.compile(rf"(?<![\w+]){pattern}(?!\w|[.\-/]\d)", flags)
    return NationalId(kind, whole, is_valid, re.compile(word, re.IGNORECASE) if word else None, is_checked)


NATIONAL_IDS = (
    _kind("US_SSN", r"\d{3}-\d{2}-\d{4}", _us_ssn),
    _kind("US_SSN", r"\d{3} ?\d{2} ?\d{4}", _us_ssn, r"\bssn\b|social security"),
    _kind("UK_NINO", r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]", _uk_nino),
    _kind("UK_NHS", r"\d{3}[ -]?\d{3}[ -]?\d{4}", _uk_nhs, r"\bnhs\b|patient|health"),
    _kind("DE_TAX_ID", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _de_steuer_id, r"steuer|idnr"),
    _kind("FR_NIR", r"[1-478] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d[\dAB] ?\d{3} ?\d{3} ?[ /]?\d{2}", _fr_nir),
    _kind("ES_DNI", r"(?:\d{8}|\d{2}\.\d{3}\.\d{3}|[XYZ]-?\d{7})-?[A-Z]", _es_dni),
    _kind(
        "IT_CODICE_FISCALE",
        r"[A-Z]{3} ?[A-Z]{3} ?[\dL-V]{2}[ABCDEHLMPRST][\dL-V]{2} ?[A-Z][\dL-V]{3}[A-Z]",
        _it_codice_fiscale,
    ),
    _kind("NL_BSN", r"\d{4}\.?\d{2}\.?\d{3}", _nl_bsn, r"\bbsn\b|burgerservice|sofi"),
    _kind("PL_PESEL", r"\d{11}", _pl_pesel, r"pesel"),
    _kind("SE_PERSONNUMMER", r"(?:19|20)?\d{6}[-+]\d{4}", _se_personnummer),
    _kind("SE_PERSONNUMMER", r"(?:19|20)?\d{10}", _se_personnummer, r"personn|samordning"),
    _kind("FI_HETU", r"\d{6}[-+ABCDEFUVWXY]\d{3}[\dA-Y]", _fi_hetu),
    _kind("NO_FODSELSNUMMER", r"\d{6} ?\d{5}", _no_fodselsnummer),
    _kind("DK_CPR", r"\d{6}-?\d{4}", _dk_cpr, r"\bcpr\b|personn"),
    _kind("CZ_RODNE_CISLO", r"\d{6}/\d{4}", _cz_rodne_cislo),
    _kind("BE_RIJKSREGISTER", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", _be_rijksregister),
    _kind("BE_RIJKSREGISTER", r"\d{11}", _be_rijksregister, r"rijksreg|registre national|insz|niss"),
    _kind("CH_AHV", r"756\.?\d{4}\.?\d{4}\.?\d{2}", _ch_ahv),
    _kind("PT_NIF", r"[1-9]\d{2} ?\d{3} ?\d{3}", _pt_nif, r"\bnif\b|contribuinte"),
    _kind("IE_PPS", r"\d{7}[A-W][A-IW]?", _ie_pps),
    _kind("RO_CNP", r"[1-9]\d{12}", _ro_cnp),
    _kind("TR_KIMLIK", r"[1-9]\d{10}", _tr_kimlik, r"kimlik|\bt\.?c\.?\b|tckn"),
    _kind("IN_AADHAAR", r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}", _in_aadhaar),
    _kind("IN_AADHAAR", r"[2-9]\d{11}", _in_aadhaar, r"aadha+r|uidai"),
    _kind("IN_PAN", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", _any),
    _kind("BR_CPF", r"\d{3}\.\d{3}\.\d{3}-\d{2}", _br_cpf),
    _kind("BR_CPF", r"\d{11}", _br_cpf, r"\bcpf\b"),
    _kind("CN_RESIDENT_ID", r"[1-9]\d{16}[\dX]", _cn_resident),
    _kind("KR_RRN", r"\d{6}-\d{7}", _kr_rrn),
    _kind("ZA_ID", r"\d{10}[012]\d{2}", _za_id),
    _kind("MX_CURP", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z\d]\d", _mx_curp),
    _kind("CA_SIN", r"\d{3}[ -]?\d{3}[ -]?\d{3}", _ca_sin, r"\bsin\b|social insurance"),
    _kind("AU_TFN", r"\d{3} ?\d{3} ?\d{3}", _au_tfn, r"\btfn\b|tax file"),
)

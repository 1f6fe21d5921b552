"""Whether the licences of a base and of its data fit one another, as far as a table can say; where it cannot, it says so.

Knows a few dozen licences that models and data sets bear. Whether a model is a derived work of its training data is not settled in law,
and nothing here settles it: conditions are put side by side for a person to decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["Fit", "Kind", "fit", "known_licence"]


class Kind(Enum):
    """What a licence asks of whoever hands on what was made with it."""

    FREE = "asks for nothing"
    NOTICE = "asks that its notice or its authors be named"
    SHARE_ALIKE = "asks that what is derived bears the same licence"
    NO_COMMERCE = "forbids commercial use"
    NO_COMMERCE_SHARE_ALIKE = "forbids commercial use, and asks that what is derived bears the same licence"
    NO_DERIVATIVES = "forbids to hand on what is derived"
    USE_RESTRICTED = "restricts what it may be used for, in terms of its own"


_KINDS: Mapping[Kind, tuple[str, ...]] = {
    Kind.FREE: ("cc0-1.0", "unlicense", "pddl", "wtfpl"),
    Kind.NOTICE: (
        *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "ms-pl", "artistic-2.0", "bsl-1.0"),
        *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "odc-by"),
    ),
    Kind.SHARE_ALIKE: (
        *("cc-by-sa-3.0", "cc-by-sa-4.0", "cdla-sharing-1.0", "odbl", "gfdl"),
        *("gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "eupl-1.1"),
    ),
    Kind.NO_COMMERCE: ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
    Kind.NO_COMMERCE_SHARE_ALIKE: ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    Kind.NO_DERIVATIVES: ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    Kind.USE_RESTRICTED: (
        *("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "bigscience-bloom-rail-1.0"),
        *("bigcode-openrail-m", "llama2", "gemma"),
    ),
}
"""The hub's identifiers (huggingface.co/docs/hub/repositories-licenses)."""
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_SPELLED = {
    "cc0": "cc0-1.0",
    "apache 2": "apache-2.0",
    "apache2": "apache-2.0",
    "apache 2.0": "apache-2.0",
    "apache license 2.0": "apache-2.0",
    "mit license": "mit",
    "the mit license": "mit",
    "odc-by-1.0": "odc-by",
    "odbl-1.0": "odbl",
    "pddl-1.0": "pddl",
    "gpl-2.0-only": "gpl-2.0",
    "gpl-2.0-or-later": "gpl-2.0",
    "gpl-3.0-only": "gpl-3.0",
    "gpl-3.0-or-later": "gpl-3.0",
    "agpl-3.0-only": "agpl-3.0",
    "agpl-3.0-or-later": "agpl-3.0",
}
"""Other spellings, of which there can be no doubt. `CC-BY`, without its version, is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What can be said of the licences together."""

    licence: str | None
    """The hub's identifier that the version may bear as far as the table can say: the base's; None where that is for a person to say."""
    sentences: tuple[str, ...]
    """Why, and what is asked. Names of licences in them are as their owners wrote them."""


def known_licence(text: str) -> str | None:
    """The hub's identifier of a licence, or None where the text is no licence that the table knows.

    >>> known_licence("CC BY 4.0"), known_licence("Apache License 2.0"), known_licence("ask Bob")
    ('cc-by-4.0', 'apache-2.0', None)
    """
    plain = " ".join(text.casefold().split())
    dashed = re.sub(r"[\s_]+", "-", plain)
    candidates = (plain, dashed, _SPELLED.get(plain), _SPELLED.get(dashed))
    return next((name for name in candidates if name in _KIND_OF), None)


def fit(base: str | None, data: Sequence[str], *, has_base: bool, num_unnamed: int) -> Fit:
    """Put a base's licence and its data's side by side.

    Args:
        base: as its card names it; None where it names none.
        data: licences of the rows, each once, as their sources name them.
        has_base: whether there is a base at all.
        num_unnamed: rows that name no licence.
    """
    problems = []
    if has_base and base is None:
        problems.append("The base names no licence.")
    if num_unnamed:
        problems.append(f"{num_unnamed:,} rows name no licence.")
    named = [*([base] if base is not None else []), *data]
    unknown = [name for name in named if known_licence(name) is None]
    problems += [f"What {name} allows is not known here." for name in unknown]
    known = {name: identifier for name in named if (identifier := known_licence(name)) is not None}
    problems += _conflicts(known)
    asked = [
        f"{name} {_KIND_OF[identifier].value}." for name, identifier in known.items() if _KIND_OF[identifier] is not Kind.FREE
    ]
    if problems:
        return Fit(licence=None, sentences=(*problems, *asked))
    licence = known[base] if base is not None else None
    strict = {identifier for identifier in known.values() if _KIND_OF[identifier] not in {Kind.FREE, Kind.NOTICE}}
    if strict - {licence}:
        return Fit(licence=None, sentences=(*asked, "Which licence this version bears is for its owner to say."))
    if licence is None:
        return Fit(licence=None, sentences=(*asked, "There is no base whose licence it could bear; its owner must name one."))
    return Fit(licence=licence, sentences=(*asked, f"Nothing in the table speaks against {base}, the base's own licence."))


def _conflicts(known: Mapping[str, str]) -> list[str]:
    """Pairs that cannot both be kept by one work that is handed on."""
    kinds = {name: _KIND_OF[identifier] for name, identifier in known.items()}
    found = [
        f"{name} forbids to hand on what is derived, so whether this version may be handed on is doubtful."
        for name, kind in kinds.items()
        if kind is Kind.NO_DERIVATIVES
    ]
    sharing = {known[name]: name for name, kind in kinds.items() if kind in {Kind.SHARE_ALIKE, Kind.NO_COMMERCE_SHARE_ALIKE}}
    if len(sharing) > 1:
        found.append(f"{' and '.join(sharing.values())} do not fit: each asks that what is derived bears it alone.")
    limited = {name for name, kind in kinds.items() if kind in {Kind.NO_COMMERCE, Kind.USE_RESTRICTED}}
    open_ended = {name for name, kind in kinds.items() if kind is Kind.SHARE_ALIKE}
    if limited and open_ended:
        found.append(
            f"{' and '.join(sorted(limited))} and {' and '.join(sorted(open_ended))} do not fit: the one limits the use, the other forbids "
            "to add limits."
        )
    return found

"""One sentence for one kind of mistake: what was found, what is possible, and the likely mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, WithJsonSchema

from tunesmith.pipeline._config_tree import Spot, keys_below, noun
from tunesmith.pipeline.yaml_lines import dotted, shorten

__all__ = ["nearest", "neither", "say", "unknown_key"]


def say(spot: Spot, *, kind: str, value: Any, raw: str | None, context: Mapping[str, Any], otherwise: str) -> str:
    """The message for one pydantic error.

    Args:
        spot: where it is.
        kind: pydantic's name for the error.
        value: what was found.
        raw: how it was written, if it was an unquoted scalar.
        context: pydantic's details, such as the bound that was crossed.
        otherwise: pydantic's own sentence, reworded when the kind is not known here.
    """
    if kind == "missing":
        return "missing, and it has no default"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if value is None:
        return "empty. Write a value" if spot.is_required else "empty. Write a value, or remove the key for the default"
    shown = _shown(value, raw)
    if kind in _WANTED:
        return f"{shown} is not {_WANTED[kind]}{_number_guess(value, _WANTED[kind])}"
    if kind in _SENTENCES:
        return _SENTENCES[kind](spot, value, shown)
    return _length_or_form(spot, kind, shown, context, otherwise)


def unknown_key(model: type[BaseModel], spot: Spot) -> tuple[str, str | None]:
    """The message for a key that does not exist where it stands, and the key of that place that was meant, if one is near."""
    name = str(spot.path[-1])
    here = list(spot.owner.model_fields) if spot.owner else []
    places = dict.fromkeys(path for path in keys_below(model) if path[-1] == name)
    if places:
        where = [f"`{dotted(path)}`" if len(path) > 1 else f"`{name}` at the top" for path in places]
        return f"unknown key here. Write it as {_or(where)}", None
    guess = nearest(name, here)
    if guess:
        return f"unknown key. Did you mean `{guess}`?", guess
    elsewhere = {path[-1]: dotted(path) for path in keys_below(model)}
    far = nearest(name, [str(key) for key in elsewhere], cutoff=0.8)
    if far:
        return f"unknown key. Did you mean `{elsewhere[far]}`?", None
    return f"unknown key. Known here: {', '.join(here)}", None


def neither(value: Any, raw: str | None, members: Iterable[Any]) -> str:
    """The message for a value that fits no member of a union."""
    if value is None:
        return f"empty. Write {_or([noun(member) for member in members])}"
    return f"{_shown(value, raw)} is neither {' nor '.join(noun(member) for member in members)}"


def nearest(word: str, choices: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The choice that a word most likely stands for: by its initials (`lr`), its spelling, or its beginning (`val`)."""
    spelt = {choice.lower().replace("-", "_"): choice for choice in choices}
    sought = word.lower().replace("-", "_")
    short = [choice for key, choice in spelt.items() if sought == "".join(part[:1] for part in key.split("_"))]
    begun = [choice for key, choice in spelt.items() if len(sought) >= 3 and key.startswith(sought)]
    # Of three letters two are soon alike: `lr` is nearer to `lora` than any reader would say.
    close = difflib.get_close_matches(sought, spelt, n=1, cutoff=cutoff if len(sought) > 3 else 0.75)
    if len(short) == 1 and len(sought) > 1:
        return short[0]
    if close:
        return spelt[close[0]]
    return begun[0] if len(begun) == 1 else None


def _out_of_range(spot: Spot, value: float, shown: str) -> str:
    low, low_word, high, high_word = _bounds(spot)
    bounds = [f"{word} {_figure(bound)}" for word, bound in ((low_word, low), (high_word, high)) if bound is not None]
    message = f"{shown} is out of range: it must be {' and '.join(bounds)}"
    if "share" in spot.description.lower() and low == 0 and high == 1 and not 0 <= value <= 1:
        message = f"{shown} is not a share between 0 and 1"
        if 1 < value < 100:
            message += f". Did you mean {_figure(value / 100)}?"
    return message


def _bounds(spot: Spot) -> tuple[float | None, str, float | None, str]:
    low: float | None = None
    high: float | None = None
    low_word, high_word = "at least", "at most"
    for constraint in spot.metadata:
        for name in ("ge", "gt", "le", "lt"):
            bound = getattr(constraint, name, None)
            if bound is not None and name in ("ge", "gt"):
                low, low_word = bound, "at least" if name == "ge" else "above"
            elif bound is not None:
                high, high_word = bound, "at most" if name == "le" else "below"
    return low, low_word, high, high_word


def _not_a_choice(spot: Spot, value: Any, shown: str) -> str:
    choices = [str(choice) for choice in get_args(spot.annotation)] if get_origin(spot.annotation) is Literal else []
    guess = nearest(value, choices) if isinstance(value, str) else None
    return f"{shown} is not one of {', '.join(choices)}" + (f". Did you mean {guess}?" if guess else "")


def _not_text(spot: Spot, value: Any, shown: str) -> str:
    schema: Any = next((one.json_schema for one in spot.metadata if isinstance(one, WithJsonSchema)), {})
    if choices := [word for one in schema.get("anyOf", ()) for word in (*one.get("enum", ()), *one.get("examples", ()))]:
        as_read = f"`{shown}` is read as {str(value).lower()}, and" if isinstance(value, bool) else shown
        return f"{as_read} is not one of {', '.join(choices)}"
    if isinstance(value, bool):
        return f"`{shown}` is read as {str(value).lower()}, not as text. Quote it: '{shown}'"
    if isinstance(value, int | float):
        return f"{shown} is read as a number, not as text. Quote it: '{shown}'"
    return f"{shown} is not text"


def _not_a_list(spot: Spot, value: Any, shown: str) -> str:
    entry = next(iter(get_args(spot.annotation)), None)
    required = [name for name, info in getattr(entry, "model_fields", {}).items() if info.is_required()]
    if isinstance(value, dict):
        return f"{shown} is not a list. Begin each entry with `- `"
    return f"{shown} is not a list. Write [{{{required[0]}: {shown}}}]" if required else f"{shown} is not a list. Write [{shown}]"


def _not_a_mapping(spot: Spot, value: Any, shown: str) -> str:
    fields = getattr(spot.annotation, "model_fields", {})
    required = [name for name, info in fields.items() if info.is_required()]
    message = f"{shown} is not a mapping of keys"
    if isinstance(value, str) and len(required) == 1 and fields[required[0]].annotation is str:
        return f"{message}. Write {required[0]}: {shown}"
    return message + (f". Known keys: {', '.join(fields)}" if fields else "")


def _number_guess(value: Any, wanted: str) -> str:
    """`1,000`, `15%`, `10k` and quoted numbers are text; say which number they likely mean."""
    if not isinstance(value, str) or "number" not in wanted:
        return ""
    text = value.strip().lower()
    scale = {"%": 0.01, "k": 1e3}.get(text[-1:], 1.0)
    digits = text.rstrip("%k").strip()
    if re.fullmatch(r"[-+]?\d{1,3}([,' ]\d{3})+", digits):
        digits = re.sub(r"[,' ]", "", digits)
    digits = digits.replace(",", ".")
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", digits):
        return ""
    number = float(digits) * scale
    if "whole" in wanted and not number.is_integer():
        return ""
    return f". Did you mean {_figure(number)}?"


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
_SENTENCES: Mapping[str, Callable[[Spot, Any, str], str]] = {
    "greater_than": _out_of_range,
    "greater_than_equal": _out_of_range,
    "less_than": _out_of_range,
    "less_than_equal": _out_of_range,
    "literal_error": _not_a_choice,
    "string_type": _not_text,
    "model_type": _not_a_mapping,
    "model_attributes_type": _not_a_mapping,
    "dict_type": _not_a_mapping,
    "list_type": _not_a_list,
    "tuple_type": _not_a_list,
}


def _length_or_form(spot: Spot, kind: str, shown: str, context: Mapping[str, Any], otherwise: str) -> str:
    one, many = ("character", "characters") if kind.startswith("string_") else ("entry", "entries")
    if kind in ("too_short", "string_too_short"):
        least = context["min_length"]
        return f"{shown} is too short: at least {least} {one if least == 1 else many}"
    if kind in ("too_long", "string_too_long"):
        most = context["max_length"]
        return f"{shown} is too long: at most {most} {one if most == 1 else many}"
    if kind == "string_pattern_mismatch":
        rule = spot.description.split("\n\n")[0].strip()
        return f"{shown} has not the right form. {rule}" if rule else f"{shown} does not match {context.get('pattern')}"
    return f"{shown} is not allowed: {_plain(otherwise)}"


def _plain(sentence: str) -> str:
    return re.sub(r"^Input should be ", "it must be ", sentence).replace("Input", "it").strip()


def _shown(value: Any, raw: str | None) -> str:
    if isinstance(value, str):
        return "'" + shorten(value) + "'"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return shorten(raw) if raw else str(value).lower() if isinstance(value, bool) else _figure(value)


def _figure(number: float) -> str:
    whole = int(number)
    return str(whole) if whole == number and abs(number) < 1e15 else f"{number:.12g}"


def _or(phrases: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))

"""Walking a tree of pydantic models by its annotations: from the place of an error to the field that it concerns.

pydantic names the member of a union on the way to an error (`base -> ScratchConfig -> hidden_size`); users never wrote that word,
so it is taken out of the path and kept apart.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from tunesmith.pipeline.yaml_lines import KeyPath

__all__ = ["Branch", "Spot", "fits", "keys_below", "kind_of", "noun", "spot_of", "value_at"]


class Branch(NamedTuple):
    """One member of a union that pydantic tried."""

    path: KeyPath
    member: Any
    members: tuple[Any, ...]


class Spot(NamedTuple):
    """The place of an error, in a user's terms."""

    path: KeyPath
    owner: type[BaseModel] | None
    """The config class whose key the last item is; None for a list's entry or for the root."""
    annotation: Any
    metadata: tuple[Any, ...]
    """Constraints of the value, such as `Ge(0)`."""
    description: str
    is_required: bool
    branches: tuple[Branch, ...]


def spot_of(model: type[BaseModel], loc: Sequence[str | int]) -> Spot:
    """Follow a pydantic error location down a config class."""
    spot = Spot((), None, model, (), "", False, ())
    for item in loc:
        members, metadata = _members(spot.annotation)
        spot = spot._replace(annotation=members[0], metadata=(*spot.metadata, *metadata))
        if len(members) > 1:
            member = next((m for m in members if _is_called(m, str(item))), members[0])
            branch = Branch(spot.path, member, members)
            spot = spot._replace(annotation=member, branches=(*spot.branches, branch))
        else:
            spot = _below(spot, item)
    members, metadata = _members(spot.annotation)
    return spot._replace(annotation=members[0], metadata=(*spot.metadata, *metadata))


def _below(spot: Spot, item: str | int) -> Spot:
    path = (*spot.path, item)
    annotation = spot.annotation
    if _is_model(annotation):
        info = annotation.model_fields.get(item)
        if info is None:
            return Spot(path, annotation, Any, (), "", False, spot.branches)
        metadata = tuple(info.metadata)
        return Spot(path, annotation, info.annotation, metadata, info.description or "", info.is_required(), spot.branches)
    arguments = get_args(annotation)
    inner = Any
    if arguments:
        inner = arguments[-1] if _kind(annotation) == "mapping" else arguments[0]
    # A list's entry is spoken of as its field is.
    return Spot(path, None, inner, (), spot.description, True, spot.branches)


def keys_below(model: type[BaseModel], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key that a config class allows at any depth; positions in lists are left out."""
    for name, info in model.model_fields.items():
        yield (*path, name)
        for nested in _models_in(info.annotation):
            yield from keys_below(nested, (*path, name))


def value_at(value: Any, path: KeyPath) -> Any:
    """The plain value at a path, or None where there is none."""
    for item in path:
        if isinstance(value, dict):
            value = value.get(item)
        elif isinstance(value, list) and isinstance(item, int) and item < len(value):
            value = value[item]
        else:
            return None
    return value


def fits(value: object, member: Any) -> bool:
    """Whether a plain value has the outer shape (mapping, list or scalar) of a union's member."""
    return kind_of(value) == _kind(_bare(member)[0])


def kind_of(value: object) -> str:
    """`mapping`, `list` or `scalar`."""
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "scalar"


def noun(annotation: Any) -> str:
    """What values of an annotation are called in a message."""
    bare, _ = _bare(annotation)
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(bare))
    shapes = {"mapping": "a mapping of keys", "list": "a list"}
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return shapes.get(_kind(bare)) or plain.get(bare, "a value of its kind")


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    inner, *extras = get_args(annotation)
    # `Field(ge=0)` inside Annotated keeps its constraints in a list of its own.
    return inner, tuple(constraint for extra in extras for constraint in getattr(extra, "metadata", [extra]))


def _members(annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The members of a union, and the constraints around it; an annotation that is no union is its one member.

    None is left out: pydantic does not name `X | None` on the way to an error. A lone member is laid bare.
    """
    bare, metadata = _bare(annotation)
    if get_origin(bare) not in (Union, types.UnionType):
        return (bare,), metadata
    members = tuple(member for member in get_args(bare) if member is not type(None))
    if len(members) > 1:
        return members, metadata
    inner, inner_metadata = _members(members[0])
    return inner, (*metadata, *inner_metadata)


def _is_called(member: Any, tag: str) -> bool:
    bare, _ = _bare(member)
    name = getattr(get_origin(bare) or bare, "__name__", str(bare)).lower()
    tag = tag.lower().removeprefix("constrained-")
    if tag.startswith("function-"):  # "function-after[check(), ScratchConfig]": a model with a validator
        tag = tag.rstrip("]").rsplit(" ", 1)[-1]
    return tag.split("[")[0] == name


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation) or annotation
    if not isinstance(origin, type) or issubclass(origin, str):
        return "scalar"
    if issubclass(origin, BaseModel | Mapping):
        return "mapping"
    return "list" if issubclass(origin, Sequence | AbstractSet) else "scalar"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if _is_model(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)

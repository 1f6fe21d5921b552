"""Lists as OpenAI's clients read them: a page of `data`, and whether there is more behind its last id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from tunesmith.serve.refusal import Refusal, clipped

__all__ = ["page_of"]


class _Listed(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Listed)


def page_of(
    found: Sequence[T],
    *,
    query: Mapping[str, str],
    show: Callable[[T], dict[str, Any]],
    default: int,
    most: int,
) -> dict[str, Any]:
    """The page that a query asks for with `after`, `limit` and `order`; the newest first unless it says otherwise.

    Args:
        found: everything, oldest first.
        query: of the URL.
        show: one item on the wire.
        default: items of a page when the query names no limit.
        most: what the limit may be.

    Raises:
        Refusal: 400, a parameter is wrong; 404, nothing to begin after.
    """
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise Refusal(f"order: must be `asc` or `desc`, not {clipped(order)!r}.", param="order", code="invalid_value")
    ordered = list(found) if order == "asc" else list(reversed(found))
    limit = _limit(query.get("limit"), default=default, most=most)
    first = 0
    if after := query.get("after"):
        places = [at for at, item in enumerate(ordered) if item.id == after]
        if not places:
            message = f"after: there is no {clipped(after)!r} in this list."
            raise Refusal(message, status=404, param="after", code="invalid_value")
        first = places[0] + 1
    page = ordered[first : first + limit]
    return {
        "object": "list",
        "data": [show(item) for item in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": first + limit < len(ordered),
    }


def _limit(text: str | None, *, default: int, most: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise Refusal(
            f"limit: must be a whole number from 1 to {most}, not {clipped(text)!r}.", param="limit", code="invalid_value"
        )
    return int(text)

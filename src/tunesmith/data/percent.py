"""How a share of rows is written."""

from __future__ import annotations

__all__ = ["percent"]


def percent(share: float) -> str:
    """A share in percent, to two digits; nearly all is not all.

    >>> percent(0.0125), percent(1.0), percent(0.998)
    ('1.2 %', '100 %', '99.8 %')
    """
    figure = 100 * share
    return f"{figure:.2g} %" if figure < 99 else f"{figure:.4g} %"

"""Package exports that load their module on first use.

`tunesmith --help` must not import torch, and the recipe must be able to read `train.config` without it; so a room whose
modules are heavy lists its exports and loads each when it is touched (PEP 562).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_exports"]


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Make a package's `__getattr__`.

    Args:
        package: the package's `__name__`.
        homes: for each exported name, the submodule that defines it.
    """

    def __getattr__(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return __getattr__

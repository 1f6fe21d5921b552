"""The user's own metric: one function from an answer and its references to a number.

It is named as `FILE.py:FUNCTION`, or `module:FUNCTION` for what is installed. The file is run: it is the user's own code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np

from tunesmith.errors import NotFound, UserError
from tunesmith.evaluate.config import MetricName
from tunesmith.evaluate.metric import Metric, Outcome, Statistics
from tunesmith.evaluate.reading import READINGS

__all__ = ["OwnFunction", "is_own_metric", "load_metric", "load_metrics", "metric_of"]

OwnFunction = Callable[[str, Sequence[str]], float | None]
"""An answer and its references in, a number out; None where the row cannot be judged."""

_TAKEN = frozenset({*READINGS, *get_args(MetricName), "calibration", "interval"})
"""What figures, metrics and signatures of ours are called."""
_LARGEST = 1e100
"""Sums of squares of larger numbers overflow."""


def is_own_metric(name: str) -> bool:
    """Whether a metric's name says where its function stands."""
    return ":" in name


def load_metrics(names: Iterable[str], *, folder: Path) -> dict[str, Metric]:
    """Load several, each under the name of its function.

    Raises:
        NotFound: there is no such file, module or function.
        UserError: a file fails when it is run, or a name is taken.
    """
    loaded: dict[str, Metric] = {}
    for name in dict.fromkeys(names):
        own, metric = load_metric(name, folder=folder)
        if own in loaded:
            raise UserError(f"{name}: another function of your own is called {own!r} too. Give each a name of its own")
        loaded[own] = metric
    return loaded


def load_metric(name: str, *, folder: Path) -> tuple[str, Metric]:
    """Load a metric of the user's.

    Args:
        name: `FILE.py:FUNCTION` or `module:FUNCTION`.
        folder: to which a file's path is relative.

    Returns:
        What the figure is called (the function's name), and the metric.

    Raises:
        NotFound: there is no such file, module or function.
        UserError: the file fails when it is run, or a figure of ours has the function's name.
    """
    where, _, function_name = name.rpartition(":")
    if function_name in _TAKEN:
        raise UserError(f"{name}: tunesmith itself has a figure called {function_name!r}. Give the function another name")
    module = _file_module(folder / where) if where.endswith(".py") else _installed(where)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise NotFound(f"{name}: there is no function {function_name!r} in {where}")
    return function_name, metric_of(function, name=function_name)


def metric_of(function: OwnFunction, *, name: str) -> Metric:
    """Make a metric of a function: the mean over rows of what it gives, higher being better."""

    def measure(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
        with redirect_stdout(sys.stderr):  # what it prints is not the result
            values = [None if row.answer is None else _value(function, row, name=name) for row in outcomes]
        if all(value is None for value in values):
            return {}
        counted = np.array([value is not None for value in values], dtype=np.bool_)
        rows = np.array([[value or 0.0, value is not None] for value in values], float)
        found = Statistics(
            rows=rows,
            counted=counted,
            figure=lambda sums: sums[..., 0] / sums[..., 1],
            denominator=1,
            signature=f"{name}|the user's own|mean over rows",
        )
        return {name: found}

    return measure


def _value(function: OwnFunction, row: Outcome, *, name: str) -> float | None:
    try:
        value = function(row.answer or "", list(row.references))
        number = None if value is None else float(value)
    except (Exception, SystemExit) as error:  # what a stranger's function raises is told, with the row
        raise UserError(f"metric {name}: {row.record.source}: {type(error).__name__}: {error}") from error
    if number is not None and not abs(number) <= _LARGEST:
        raise UserError(
            f"metric {name}: {row.record.source}: it gave {number:g}, and a number of at most {_LARGEST:g}, or None, is needed"
        )
    return number


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    name = f"tunesmith_metric_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} fails when it is run: {type(error).__name__}: {error}") from error
    return module


def _installed(name: str) -> ModuleType:
    if not all(map(str.isidentifier, name.split("."))):
        raise NotFound(f"{name!r} is no module's name. A file is named with its ending: metric.py:FUNCTION")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotFound(f"there is no module {name!r} ({error}). A file is named with its ending: metric.py:FUNCTION") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"module {name} fails when it is imported: {type(error).__name__}: {error}") from error

"""Jinja's immutable sandbox with a budget: a chat template from a stranger ends, and builds no text that fills the memory.

The sandbox of jinja keeps a template from Python's insides; it does not keep it from looping for ever or from asking for a text of
a terabyte. Here a rendering has a budget of work, counted and not timed, so that a row is refused on every machine or on none: a
turn of a loop and a call of a macro cost `_TURN`, a value costs its characters and elements when an operation makes it. What would make
much out of little (a width, a power, a repetition, a replacement) is measured before it is done.

A thread that watches could not stop a template in one long call into C, a signal reaches the main thread alone, and a process for
each rendering would cost ten times the rendering.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["BudgetSpent", "MeteredSandbox", "budget"]

BUDGET = 20_000_000
"""Units of work for one rendering; about a second at worst. An ordinary conversation needs a thousandth."""
PER_CHARACTER = 64
"""Units more for each character that goes in."""
PER_MESSAGE = 100_000
"""Units more for each message: some templates look through all messages for each of them."""
MAX_TEMPLATE = 1 << 20
"""Characters; the longest template of a known model has 20 thousand."""
_TURN = 100
_ITEM = 20
_MAX_WIDTH = 100_000
"""The largest whole number that may be given to a function or filter, as a width, a count or a range."""
_MAX_DEPTH = 100
_WIDE_FORMAT = re.compile(r"[0-9]{5,}|\{[^{}]*\{")
_GROWING = frozenset({"replace", "join", "format", "format_map", "translate", "expandtabs"})


class BudgetSpent(jinja2.TemplateError):
    """The template does more work than any chat template needs."""

    def __init__(self, what: str = "it loops or grows without end") -> None:
        super().__init__(f"the template was stopped: {what}")


class _Meter(threading.local):
    left = BUDGET


_METER = _Meter()


@contextmanager
def budget(*, num_characters: int, num_messages: int = 0) -> Iterator[None]:
    """Give what is rendered in the block a fresh budget.

    Args:
        num_characters: that go into the rendering.
        num_messages: that go into it.
    """
    _METER.left = BUDGET + PER_CHARACTER * num_characters + PER_MESSAGE * num_messages
    try:
        yield
    finally:
        _METER.left = BUDGET


def _spend(units: int) -> None:
    _METER.left -= units
    if _METER.left < 0:
        raise BudgetSpent


def _turn() -> str:
    _spend(_TURN)
    return ""


def _weigh(value: Any, depth: int = 0) -> Any:
    """Pay for a value, with all that is in it as often as it is in it; return it."""
    if isinstance(value, str):
        _spend(1 + len(value))
    elif isinstance(value, int):
        _spend(1 + value.bit_length())
    elif isinstance(value, list | tuple | set | frozenset | Mapping | Namespace):
        if depth > _MAX_DEPTH:
            raise BudgetSpent("a value lies in itself, or too deep")
        _spend(_ITEM * (1 + len(value) if not isinstance(value, Namespace) else 1))
        if isinstance(value, Namespace):
            value_inside: Any = value._Namespace__attrs
        else:
            value_inside = value
        for inner in value_inside.values() if isinstance(value_inside, Mapping) else value_inside:
            _weigh(inner, depth + 1)
        if isinstance(value_inside, Mapping):
            _spend(sum(len(key) for key in value_inside if isinstance(key, str)))
    return value


def _check_numbers(values: Any, depth: int = 0) -> None:
    """Refuse a width or a count that no template needs."""
    for value in values:
        if isinstance(value, int) and abs(value) > _MAX_WIDTH:
            raise BudgetSpent(f"a width or count of {str(value)[:20] if value.bit_length() < 4000 else 'thousands of digits'}")
        if isinstance(value, tuple | list) and depth < 3 and len(value) < 100:
            _check_numbers(value, depth + 1)


def _check_growth(name: str, text: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Measure what a growing operation on a text would give."""
    if name == "replace":
        old, new = (*[str(a) for a in args[:2]], str(kwargs.get("old", "")), str(kwargs.get("new", "")))[:2]
        source = str(text)
        _spend(len(source) + (source.count(old) if old else len(source) + 1) * len(new))
    elif name == "join":
        items = args[0] if args else ()
        if isinstance(items, list | tuple):
            _spend(sum(len(item) if isinstance(item, str) else 1 for item in items) + len(str(text)) * len(items))
        elif isinstance(items, str):
            _spend(len(items) * (1 + len(str(text))))
        else:
            raise BudgetSpent("it joins what has no length")
    elif isinstance(text, str) and _WIDE_FORMAT.search(text):
        raise BudgetSpent("a format with a width of five digits, or one inside another")
    elif name == "translate":
        raise BudgetSpent("`translate` is not for templates")
    elif name == "expandtabs":
        _spend(len(str(text)) * 1 + str(text).count("\t") * int(args[0] if args else 8))


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def metered(*args: Any, **kwargs: Any) -> Any:
        _check_numbers(args)
        _check_numbers(kwargs.values())
        at = 1 if hasattr(function, "jinja_pass_arg") else 0
        value = args[at] if len(args) > at else None
        if name in _CHEAP:
            _spend(1)
            return function(*args, **kwargs)
        if isinstance(value, Iterator):
            value = _paid_list(value)
            args = (*args[:at], value, *args[at + 1 :])
        if name == "sum" and any(isinstance(given, list | tuple) for given in (*args[at + 1 :], *kwargs.values())):
            raise BudgetSpent("it sums lists")
        if name == "tojson":
            _spend(0 if not kwargs.get("indent") else _depth_cost(value, int(kwargs["indent"])))
        elif name in {"replace", "format"}:
            _check_growth(name, value, args[at + 1 :], kwargs)
        elif name == "join":
            _check_growth("join", args[at + 1] if len(args) > at + 1 else kwargs.get("d", ""), (value,), {})
        elif name == "indent":
            lines = str(value).count("\n") + 1 if isinstance(value, str) else 1
            width = args[at + 1] if len(args) > at + 1 else kwargs.get("width", 4)
            _spend(lines * (width if isinstance(width, int) else len(str(width))))
        _weigh(value)
        return _weigh(function(*args, **kwargs))

    metered.__name__ = name
    if hasattr(function, "jinja_pass_arg"):
        metered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    if hasattr(function, "jinja_async_variant"):
        metered.jinja_async_variant = function.jinja_async_variant  # type: ignore[attr-defined]
    return metered


_CHEAP = frozenset(
    {"length", "count", "default", "d", "first", "last", "attr", "map", "select", "reject", "selectattr", "rejectattr"}
)
"""Filters that make nothing of a size of its own; what `map` and `select` call pays for itself."""
_FORBIDDEN = frozenset({"pprint", "urlize", "xmlattr", "filesizeformat", "wordwrap", "striptags", "random"})
"""Filters of web pages that no chat template needs, one of which (`random`) would make a prompt differ from the next."""


def _paid_list(values: Iterator[Any]) -> list[Any]:
    found = []
    for value in values:
        _spend(_TURN)
        found.append(value)
    return found


def _depth_cost(value: Any, indent: int, depth: int = 1) -> int:
    """Characters of indentation in JSON."""
    if depth > _MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
        return 0
    inside = list(value.values()) if isinstance(value, Mapping) else list(value)
    _spend(len(inside))
    return sum(depth * indent + _depth_cost(inner, indent, depth + 1) for inner in inside)


class _Paid(NodeTransformer):
    """Puts a toll at the start of every body that can run more than once, and on every value that is built."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:
        return self._with_toll(node)

    def visit_Macro(self, node: jinja2.nodes.Macro) -> jinja2.nodes.Node:
        return self._with_toll(node)

    def visit_CallBlock(self, node: jinja2.nodes.CallBlock) -> jinja2.nodes.Node:
        return self._with_toll(node)

    def visit_Block(self, node: jinja2.nodes.Block) -> jinja2.nodes.Node:
        return self._with_toll(node)

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:
        self.generic_visit(node)
        node.nodes = [_through("weigh", inner) for inner in node.nodes]
        return _through("weigh", node)

    def visit_List(self, node: jinja2.nodes.List) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _through("weigh", node)

    def visit_Dict(self, node: jinja2.nodes.Dict) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _through("weigh", node)

    def visit_Tuple(self, node: jinja2.nodes.Tuple) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _through("weigh", node) if node.ctx == "load" else node

    def visit_Getitem(self, node: jinja2.nodes.Getitem) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _through("weigh", node) if isinstance(node.arg, jinja2.nodes.Slice) else node

    def visit_Compare(self, node: jinja2.nodes.Compare) -> jinja2.nodes.Node:
        """A comparison costs its operands, unless one of them stands in the template and is thereby short."""
        self.generic_visit(node)
        for operand in node.ops:
            if operand.op in {"in", "notin"} or (
                not isinstance(node.expr, jinja2.nodes.Const) and not isinstance(operand.expr, jinja2.nodes.Const)
            ):
                operand.expr = _through("weigh", operand.expr)
        return node

    def _with_toll(self, node: Any) -> jinja2.nodes.Node:
        self.generic_visit(node)
        toll = jinja2.nodes.Call(jinja2.nodes.EnvironmentAttribute("turn"), [], [], None, None, lineno=node.lineno)
        node.body.insert(0, jinja2.nodes.ExprStmt(toll, lineno=node.lineno))
        tolled: jinja2.nodes.Node = node
        return tolled


def _through(name: str, node: jinja2.nodes.Expr) -> jinja2.nodes.Expr:
    place = jinja2.nodes.EnvironmentAttribute(name, lineno=node.lineno)
    return jinja2.nodes.Call(place, [node], [], None, None, lineno=node.lineno)


class MeteredSandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment of chat templates. There are no other templates to include, import or extend."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    turn = staticmethod(_turn)
    weigh = staticmethod(_weigh)

    def __init__(
        self, *, functions: Mapping[str, Callable[..., Any]], filters: Mapping[str, Callable[..., Any]], **options: Any
    ) -> None:
        super().__init__(**options, finalize=_weigh)
        self.globals.pop("lipsum")
        self.globals.update(functions)
        self.filters.update(filters)
        self.filters = {name: _metered_filter(name, f) for name, f in self.filters.items() if name not in _FORBIDDEN}

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        if len(source) > MAX_TEMPLATE:
            raise jinja2.TemplateSyntaxError(f"longer than {MAX_TEMPLATE} characters", 1)
        paid: jinja2.nodes.Template = _Paid().visit(super()._parse(source, name, filename))
        return paid

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a template, and pay for what it returns."""
        if function is _weigh or function is _turn:
            return function(*args)
        _check_numbers(args)
        _check_numbers(kwargs.values())
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)  # jinja wraps str.format
        name = getattr(function, "__name__", "")
        if isinstance(owner, str) and name in _GROWING:
            args = tuple(_paid_list(arg) if isinstance(arg, Iterator) else arg for arg in args)
            _check_growth(name, owner, args, kwargs)
        if isinstance(owner, str):
            _spend(len(owner) // 4)
            _weigh(list(args))
        return _weigh(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`, if what comes of it is of a size that can be."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _spend(abs(left).bit_length() * abs(right))
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, int) and isinstance(other, str | list | tuple):
                    _spend(max(one, 0) * (1 + len(other)))
        elif operator == "%" and isinstance(left, str):
            _check_growth("format", left, (), {})
            _weigh(right)
            _check_numbers(right if isinstance(right, tuple) else (right,))
        return _weigh(super().call_binop(context, operator, left, right))

"""The token ledger in words, from the plain values that are stored with a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["account_in_words", "passes_in_words", "tools_warning"]


def account_in_words(account: Mapping[str, Any]) -> str:
    """One account: what is read, what of it is supervised, what is lost and why.

    Args:
        account: as `Account.as_json` gives it.
    """
    kept, cut = account["kept"], account["truncated"]
    share = kept["supervised"] / max(kept["tokens"], 1)
    parts = [f"{kept['tokens']:,} tokens of {_rows(kept['rows'])}", f"{kept['supervised']:,} supervised ({share:.0%})"]
    if account["split_rows"]:
        parts.append(f"{_rows(account['split_rows'])} divided")
    if cut["rows"]:
        lost = cut["supervised"] / max(account["all"]["supervised"], 1)
        parts.append(f"{_rows(cut['rows'])} cut, {cut['supervised']:,} supervised tokens lost ({lost:.2%})")
    else:
        parts.append("no row is cut")
    if account["dropped"]:
        reasons = ", ".join(f"{tally['rows']:,} {reason}" for reason, tally in account["dropped"].items())
        num_rows, num_lost = (sum(tally[key] for tally in account["dropped"].values()) for key in ("rows", "supervised"))
        lost = f", {num_lost:,} supervised tokens lost" if num_lost else ""
        parts.append(f"{_rows(num_rows)} left out{lost}: {reasons}")
    return " · ".join(parts)


def tools_warning(account: Mapping[str, Any]) -> str | None:
    """What to say where rows offer tools that the chat template does not print; None where there is no such row.

    Args:
        account: as `Account.as_json` gives it.
    """
    number = account.get("rows_with_unseen_tools", 0)  # versions of before do not count them
    if not number:
        return None
    return (
        f"{_rows(number)} {'offers' if number == 1 else 'offer'} tools that the chat template does not print: the model never sees "
        "what it could call, and learns to make calls up. Take a base whose template prints `tools`, or give its folder another "
        "chat_template.jinja."
    )


def passes_in_words(sources: Mapping[str, Any]) -> list[str]:
    """How often each source is read in the whole training, and its share of what is read; nothing where there is only one.

    Args:
        sources: for each source a `Passed` as plain values.
    """
    if len(sources) < 2:
        return []
    whole = max(sum(passed["tokens"] for passed in sources.values()), 1)
    return [
        f"{name}: read {passed['epochs']:.1f} times, {passed['tokens']:,} tokens ({passed['tokens'] / whole:.0%})"
        if passed["sequences"]
        else f"{name}: not read at all"
        for name, passed in sources.items()
    ]


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")

"""`data validate`: open the tokenizer that is wanted, and check the files with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.data.validation import Rules, Validation, validate
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat

__all__ = ["open_chat", "validate_files"]


def validate_files(
    sources: Sequence[str | Path],
    *,
    rules: Rules,
    store: Store,
    base: str | None = None,
    fix: Path | None = None,
    watcher: Watcher | None = None,
) -> Validation:
    """Find every error in some files of rows, and write a corrected copy if one is wanted.

    Args:
        sources: files, folders, patterns, archives or URLs, in order.
        rules: by what rows are judged, and how much is told.
        store: where a base from the hub is kept.
        base: whose tokenizer and template count tokens: a base as in a recipe, or a folder with a tokenizer. None: none are counted.
        fix: where the corrected copy goes.
        watcher: told how far it is.

    Raises:
        UserError: a file or the base cannot be used, or the copy would replace a source.
    """
    watch = watcher or Silent()
    return validate(
        sources,
        rules=rules,
        chat=None if base is None else open_chat(base, store=store),
        fix=fix,
        on_progress=lambda done, total: watch.progress("rows", done=done, total=total),
    )


def open_chat(base: str, *, store: Store) -> ChatFormat:
    """The tokenizer and chat template of a base, or of a folder that holds no more than these.

    Raises:
        UserError: there is no such base, or it has no tokenizer.
    """
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import open_base

    folder = Path(base).expanduser()
    if (folder / "tokenizer.json").is_file() and not (folder / "config.json").is_file():
        return ChatFormat.load(folder)
    return ChatFormat.load(open_base(base, folder=Path(), cache=store.cache).path)

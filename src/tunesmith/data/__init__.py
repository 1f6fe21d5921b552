"""Text to tokens: read, clean, split, freeze, lay out as chat, pack. Knows no model.

files --read--> Record | Dropped --clean--> --split--> --freeze--> Snapshot --encode, pack--> TokenBatch
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

# Bound here at once: each of these verbs bears its module's name, and importing the module later would hide it.
from tunesmith.data.clean import clean
from tunesmith.data.config import DataConfig, SourceConfig, SplitConfig
from tunesmith.data.freeze import freeze, load_snapshot, load_split
from tunesmith.data.read import SourceReading, read, source_digests
from tunesmith.data.split import Division, split

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat, Rendered
    from tunesmith.data.ledger import Ledger
    from tunesmith.data.pack import Encoded, encode
    from tunesmith.data.tokenizer import train_tokenizer

__all__ = [
    "ChatFormat",
    "DataConfig",
    "Division",
    "Encoded",
    "Ledger",
    "Rendered",
    "SourceConfig",
    "SourceReading",
    "SplitConfig",
    "clean",
    "encode",
    "freeze",
    "load_snapshot",
    "load_split",
    "read",
    "source_digests",
    "split",
    "train_tokenizer",
]

# `pack` is not among them for the same reason: import it from tunesmith.data.pack.
__getattr__ = lazy_exports(
    __name__,
    {
        "ChatFormat": "chat",
        "Encoded": "pack",
        "Ledger": "ledger",
        "Rendered": "chat",
        "encode": "pack",
        "train_tokenizer": "tokenizer",
    },
)

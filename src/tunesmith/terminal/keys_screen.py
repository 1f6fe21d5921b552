"""API keys, as far as they may be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from tunesmith.terminal.layout import field

if TYPE_CHECKING:
    from tunesmith.store import ApiKey

__all__ = ["keys_screen", "new_key_screen"]


def new_key_screen(key: ApiKey) -> Text:
    """What was made; the secret itself stands on stdout."""
    return Text("\n").join(
        [
            field("key", f"{key.prefix}… for {key.name} · shown this once"),
            *_about(key),
            field("next", f"tunesmith keys list       tunesmith keys revoke {key.prefix}"),
        ]
    )


def keys_screen(keys: Sequence[ApiKey]) -> Text:
    """One line for each key, and one for what limits it."""
    if not keys:
        return field("keys", "none yet; `tunesmith keys create NAME` makes one")
    parts = []
    for key in keys:
        parts.append(field(key.prefix, f"{key.name} · {_state(key)}"))
        parts += _about(key)
    return Text("\n").join(parts)


def _about(key: ApiKey) -> list[Text]:
    return [field("", " · ".join(_facts(key)))]


def _facts(key: ApiKey) -> Iterator[str]:
    yield f"opens {', '.join(sorted(key.scopes))}"
    for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
        if (limit := getattr(key.quotas, name)) is not None:
            yield f"{limit:,} {name.replace('_per_minute', ' a minute').replace('concurrent_requests', 'requests at once')}"
    yield f"last used {key.last_used_at[:13].replace('T', ' ')} h UTC" if key.last_used_at else "never used"


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at[:16].replace('T', ' ')}"
    if key.expires_at is None:
        return "good"
    return f"{'good until' if key.is_good() else 'expired'} {key.expires_at[:16].replace('T', ' ')}"

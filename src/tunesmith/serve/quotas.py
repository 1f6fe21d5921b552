"""What a key may use in a minute, and what it has used: requests, tokens, and answers at once.

A quota fills evenly and is full after a minute's rest. Tokens are reserved before a request is queued, by an estimate of its prompt and
by `max_tokens`, and settled by what was really used when it ends; what was used beyond the reservation is owed. The counts are this
process's own and begin anew with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.serve.refusal import Refusal, refusal_response
from tunesmith.store.api_keys import ApiKey

__all__ = ["Bucket", "Charge", "Meter", "charge_of", "within_quotas"]

_MINUTE_S = 60.0
_MAX_RETRY_S = 120
"""The official clients heed a Retry-After up to this."""


class Bucket:
    """One quota per minute."""

    def __init__(self, limit: int, *, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._level = float(limit)
        self._at = clock()

    @property
    def level(self) -> float:
        """What may be used now; below 0 what is owed."""
        now = self._clock()
        self._level = min(self._level + (now - self._at) * self.limit / _MINUTE_S, self.limit)
        self._at = now
        return self._level

    def take(self, amount: float) -> None:
        """Use so much; a negative amount is given back."""
        self._level = min(self.level - amount, self.limit)

    def wait_s(self, amount: float) -> float:
        """How long until so much may be used."""
        return max(amount - self.level, 0.0) * _MINUTE_S / self.limit


class Charge:
    """One request's claim on its key's tokens. Without a bucket it claims nothing."""

    def __init__(self, bucket: Bucket | None = None) -> None:
        self._bucket = bucket
        self._reserved = 0
        self._spent = 0
        self._is_begun = False

    def reserve(self, *, num_prompt_tokens: int, num_new_tokens: int) -> None:
        """Claim tokens for a request that is about to be queued.

        Args:
            num_prompt_tokens: an estimate.
            num_new_tokens: the most that may be generated.

        Raises:
            Refusal: 429.
        """
        if self._bucket is None:
            return
        limit = self._bucket.limit
        if num_prompt_tokens > limit:
            message = (
                f"The prompt has about {num_prompt_tokens:,} tokens, and this key may use {limit:,} a minute: it will never fit."
            )
            raise _refused(message, wait_s=_MAX_RETRY_S, is_final=True)
        # More than all of it is never there. Who asks for so much waits for a full bucket.
        amount = min(num_prompt_tokens + num_new_tokens, limit)
        wait_s = self._bucket.wait_s(amount)
        if wait_s > 0:
            message = f"This key may use {limit:,} tokens a minute; about {amount:,} are asked for and {_whole(self._bucket.level):,} left."
            raise _refused(message, wait_s=wait_s)
        self._bucket.take(amount)
        self._reserved += amount

    def spend(self, num_tokens: int) -> None:
        """Note tokens as they are read or written, 0 when the engine begins. Called on the engine's thread."""
        self._is_begun = True
        self._spent += num_tokens

    def settle(self) -> None:
        """Charge what was used. What was begun and left before anything was told costs what was reserved."""
        if self._bucket is not None and (self._reserved or self._spent):
            used = self._spent or (self._reserved if self._is_begun else 0)
            self._bucket.take(used - self._reserved)
        self._reserved = self._spent = 0


class Meter:
    """What one key uses."""

    def __init__(self, key: ApiKey, *, clock: Callable[[], float] = time.monotonic) -> None:
        quotas = key.quotas
        self._max_open = quotas.concurrent_requests
        self._num_open = 0
        self._requests = None if quotas.requests_per_minute is None else Bucket(quotas.requests_per_minute, clock=clock)
        self._tokens = None if quotas.tokens_per_minute is None else Bucket(quotas.tokens_per_minute, clock=clock)

    def enter(self) -> Charge:
        """Count a request; `leave` must follow.

        Raises:
            Refusal: 429.
        """
        if self._max_open is not None and self._num_open >= self._max_open:
            raise _refused(f"This key may have {self._max_open:,} requests under way at once, and has them.", wait_s=1)
        if self._requests is not None:
            if (wait_s := self._requests.wait_s(1)) > 0:
                raise _refused(f"This key may make {self._requests.limit:,} requests a minute.", wait_s=wait_s)
            self._requests.take(1)
        self._num_open += 1
        return Charge(self._tokens)

    def leave(self, charge: Charge) -> None:
        """The request has ended."""
        self._num_open -= 1
        charge.settle()

    def headers(self) -> dict[str, str]:
        """What is left, as OpenAI's API tells it; nothing where there is no limit."""
        told = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
                told[f"x-ratelimit-remaining-{name}"] = str(_whole(bucket.level))
                told[f"x-ratelimit-reset-{name}"] = _duration(bucket.wait_s(bucket.limit))
        return told


def within_quotas(app: ASGIApp) -> ASGIApp:
    """Count each request with a key, refuse it where a quota is used up, and tell in each answer what is left."""
    meters: dict[str, Meter] = {}

    async def metered(scope: Scope, receive: Receive, send: Send) -> None:
        key: ApiKey | None = scope["state"].get("key") if scope["type"] == "http" else None
        if key is None:
            await app(scope, receive, send)
            return
        meter = meters.setdefault(key.prefix, Meter(key))

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(meter.headers())
            await send(message)

        try:
            charge = meter.enter()
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, send_with_limits)
            return
        scope["state"]["charge"] = charge
        try:
            await app(scope, receive, send_with_limits)
        finally:
            meter.leave(charge)

    return metered


def charge_of(scope: Scope) -> Charge:
    """The claim of a request; one that claims nothing where there are no keys."""
    charge = scope["state"].get("charge")
    return charge if isinstance(charge, Charge) else Charge()


def _refused(message: str, *, wait_s: float, is_final: bool = False) -> Refusal:
    seconds = min(max(math.ceil(wait_s), 1), _MAX_RETRY_S)
    headers = {"Retry-After": str(seconds)} | ({"x-should-retry": "false"} if is_final else {})
    advice = "Send less at once." if is_final else f"Try again in {seconds} s."
    return Refusal(f"{message} {advice}", status=429, code="rate_limit_exceeded", headers=headers)


def _whole(level: float) -> int:
    return max(math.floor(level), 0)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 120ms, 7s, 1m30s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"

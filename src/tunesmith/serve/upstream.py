"""Another server's model as an engine of ours, so that names, queues, stop strings, records and errors are the same for all.

Each answer is a task on the link's thread that reads the server's stream and leaves pieces; the lane's thread collects them. Nothing
here waits for the network but `step`, and that no longer than 10 ms, so that new requests are let in while others wait for a slow first
token. An answer that nobody wants any more hangs up, and the server behind stops writing it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import httpx

from tunesmith.errors import EndpointError
from tunesmith.records import Message
from tunesmith.serve.engine import Piece, SamplingParams, Wait
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.upstream_answer import Answer, events
from tunesmith.serve.upstream_ask import PromptFormat, Question, question
from tunesmith.serve.upstream_driver import Driver
from tunesmith.serve.upstream_faults import refusal_of_failure, refusal_of_reply, unreadable
from tunesmith.serve.upstream_link import Link, read_up_to

__all__ = ["UpstreamEngine"]

_LOG = logging.getLogger("tunesmith.serve")
_STEP_S = 0.01
_MAX_ERROR_BYTES = 64 * 1024
_OK = 200


class UpstreamEngine:
    """A `serve.BatchingEngine` whose answers come from somewhere else."""

    def __init__(
        self,
        *,
        ref: str,
        link: Link,
        driver: Driver,
        model: Mapping[str, str],
        max_length: int,
        layout: PromptFormat | None = None,
        max_running: int = 256,
    ) -> None:
        """Keep the parts.

        Args:
            ref: the version that answers, such as `boutique@7`.
            link: to the server.
            driver: its kind.
            model: the fields of a request that name the model there.
            max_length: its context in tokens.
            layout: how training laid conversations out; None leaves it to the server's own template.
            max_running: answers at once; the server has its own limit and queue.
        """
        self.ref = ref
        self.max_length = max_length
        self.max_running = max_running
        self.num_open = 0
        """Answers under way."""
        self.restore: Callable[[], None] | None = None
        """Loads the version again where a server that was started anew has lost it. Called on a thread that may wait."""
        self._link = link
        self._driver = driver
        self._model = model
        self._layout = layout
        self._news = threading.Event()
        self._restoring = asyncio.Lock()

    def count_prompt(self, messages: Sequence[Message], /) -> int:
        """Tokens of a conversation where its layout is known; else 0, until the server tells with its answer."""
        return 0 if self._layout is None else len(self._layout.encode(messages))

    def stream(self, messages: Sequence[Message], params: SamplingParams, /) -> Iterator[Piece | Wait]:
        """Ask, and pass on what comes. Closing it hangs up.

        Raises:
            Refusal: the server cannot answer this, or cannot answer now.
        """
        asked = question(
            messages, params, driver=self._driver, model=self._model, max_length=self.max_length, layout=self._layout
        )
        mail: deque[Piece | Exception] = deque()
        reading = self._link.start(self._read(asked, messages, params, mail))
        self.num_open += 1
        try:
            while True:
                if not mail:
                    yield Wait.FOR_STEP
                    continue
                news = mail.popleft()
                if isinstance(news, Exception):
                    raise news
                yield news
                if news.finish_reason is not None:
                    return
        finally:
            self.num_open -= 1
            reading.cancel()

    def step(self) -> None:
        """Wait until any answer has news, but not long."""
        self._news.wait(_STEP_S)
        self._news.clear()

    def reset(self) -> None:
        """Forget what is under way: each answer hangs up as it is closed."""
        self._news.clear()

    async def _read(
        self, asked: Question, messages: Sequence[Message], params: SamplingParams, mail: deque[Piece | Exception]
    ) -> None:
        """Read one answer to its end. Raises nothing but a cancellation."""

        def leave(news: Piece | Exception) -> None:
            mail.append(news)
            self._news.set()

        try:
            await self._receive(asked, messages, params, leave)
        except asyncio.CancelledError:
            leave(unreadable("the way to it was closed"))  # heard by nobody, unless it was not the answer's own end
            raise
        except Refusal as refusal:
            _LOG.warning("%s for %s: %s", self._link.address, self.ref, refusal.message)
            leave(refusal)
        except (TimeoutError, httpx.HTTPError) as error:
            _LOG.warning("%s for %s: %s", self._link.address, self.ref, type(error).__name__)
            leave(refusal_of_failure(error))
        except Exception as error:
            leave(error)

    async def _receive(
        self,
        asked: Question,
        messages: Sequence[Message],
        params: SamplingParams,
        leave: Callable[[Piece | Exception], None],
        *,
        may_restore: bool = True,
    ) -> None:
        key = self._link.api_key
        answer = Answer(num_logprobs=params.num_logprobs, key=key)
        async with (
            asyncio.timeout(self._link.patience_s) as patience,
            self._link.open("POST", asked.path, asked.body) as response,
        ):
            if response.status_code != _OK:
                body = await read_up_to(response, _MAX_ERROR_BYTES)
                if not (may_restore and self._is_missing(response.status_code, body)):
                    raise refusal_of_reply(response.status_code, response.headers, body, key=key)
                patience.reschedule(None)
                await self._restore_once()
                return await self._receive(asked, messages, params, leave, may_restore=False)
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise unreadable("it did not stream its answer")
            async for name, data in events(_parts(response)):
                patience.reschedule(asyncio.get_running_loop().time() + self._link.patience_s)
                for piece in answer.take(name, data):
                    leave(await self._counted(piece, messages))
                if answer.is_done:
                    return None
        raise unreadable("its answer was cut")

    def _is_missing(self, status: int, body: bytes) -> bool:
        adapters = self._driver.adapters
        return self.restore is not None and adapters is not None and adapters.is_missing(status, body.decode(errors="replace"))

    async def _restore_once(self) -> None:
        """Of many that miss the version at once, one has it loaded, and the others find it there."""
        async with self._restoring:
            restore = self.restore
            if restore is None:
                return
            try:
                await asyncio.to_thread(restore)
            except EndpointError as error:
                _LOG.warning("%s could not be loaded again: %s", self.ref, error)

    async def _counted(self, piece: Piece, messages: Sequence[Message]) -> Piece:
        """The last piece tells the prompt's tokens; a server that sends no usage is asked for them."""
        if piece.finish_reason is None or piece.num_prompt_tokens is not None or self._layout is not None:
            return piece
        if (count := self._driver.count_prompt) is None:
            return piece
        try:
            return piece._replace(num_prompt_tokens=await count(self._link, self._model["model"], messages))
        except (TimeoutError, httpx.HTTPError):
            return piece  # the answer is whole; only its count is not known


async def _parts(response: httpx.Response) -> AsyncIterator[bytes]:
    async for part in response.aiter_raw():
        yield part

from __future__ import annotations

import asyncio
import threading

from tunesmith.serve.engine import Piece
from tunesmith.serve.lane import Ask, Lane
from tunesmith.serve.wire import read_chat_request


def test_leaving_a_generation_early_stops_the_engine(scripted):
    """Whatever the reason: here nobody hung up, the reader just stopped."""
    is_going_on = threading.Event()
    engine = scripted("a", "b", "c", before=lambda i: is_going_on.wait(60) if i else None)
    lane = Lane(engine, max_queue=1)
    request = read_chat_request({"model": "boutique", "messages": [{"role": "user", "content": "x"}]})

    async def read_one_piece() -> None:
        with lane.submit(Ask(id="chatcmpl-1", deployment="boutique", request=request, received=0.0)) as generation:
            assert await generation.event() == 1, "the prompt's tokens come first"
            assert await generation.event() == Piece("a", 1, None)
            assert await generation.event(patience_s=0.01) is None
        assert lane.open == ()
        is_going_on.set()
        assert await asyncio.to_thread(engine.was_abandoned.wait, 10)

    asyncio.run(read_one_piece())
    lane.close(patience_s=60)

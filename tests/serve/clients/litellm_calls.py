"""What litellm sees of a running server. `calls` says how it is run; the variable LITELLM_LOCAL_MODEL_COST_MAP keeps it off the network."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import litellm
from calls import ANSWER, KEY, QUESTION, main, raised
from pydantic import BaseModel

litellm.suppress_debug_info = True


class Hours(BaseModel):
    """What the engine named `json` says."""

    day: str
    is_open: bool


def settings(url: str, model: str = "boutique", **options: Any) -> dict[str, Any]:
    base = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": KEY, "num_retries": 0, "timeout": 60}
    return {**base, "messages": QUESTION, **options}


def check_an_answer(url: str) -> None:
    answer = litellm.completion(**settings(url))
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0


def check_a_stream(url: str) -> None:
    parts = list(litellm.completion(**settings(url, stream=True, stream_options={"include_usage": True})))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == ANSWER
    assert any(getattr(part, "usage", None) for part in parts)
    assert "stop" in [part.choices[0].finish_reason for part in parts if part.choices]


def check_async(url: str) -> None:
    async def ask() -> None:
        assert (await litellm.acompletion(**settings(url))).choices[0].message.content == ANSWER
        stream = await litellm.acompletion(**settings(url, stream=True))
        assert "".join([part.choices[0].delta.content or "" async for part in stream]) == ANSWER

    asyncio.run(ask())


def check_the_provider_for_servers_of_ones_own(url: str) -> None:
    answer = litellm.completion(**settings(url, model="boutique") | {"model": "hosted_vllm/boutique"})
    assert answer.choices[0].message.content == ANSWER


def check_parameters(url: str) -> None:
    answer = litellm.completion(
        **settings(
            url,
            "base",
            temperature=0,
            top_p=0.9,
            max_tokens=4,
            seed=1,
            n=2,
            stop=["###"],
            user="u",
            logprobs=True,
            top_logprobs=1,
        )
    )
    assert len(answer.choices) == 2
    assert answer.choices[0].logprobs.content


def check_a_conversation_that_goes_on(url: str) -> None:
    message = litellm.completion(**settings(url)).choices[0].message
    for turn in (message, message.model_dump()):
        again = litellm.completion(**settings(url, messages=[*QUESTION, turn, *QUESTION]))
        assert again.choices[0].message.content == ANSWER


def check_structured_output(url: str) -> None:
    answer = litellm.completion(**settings(url, "json", response_format=Hours))
    assert Hours.model_validate_json(answer.choices[0].message.content) == Hours(day="Sunday", is_open=False)


def check_retries(url: str) -> None:
    started = time.monotonic()
    headers = {"x-refuse": "503", "x-refuse-id": uuid.uuid4().hex}
    asked = {name: value for name, value in settings(url).items() if name != "num_retries"}
    answer = litellm.completion(**asked, max_retries=2, extra_headers=headers)
    assert answer.choices[0].message.content == ANSWER
    assert time.monotonic() - started > 0.95


def check_errors(url: str) -> None:
    raised(litellm.NotFoundError, litellm.completion, **settings(url, "nobody"))
    raised(litellm.AuthenticationError, litellm.completion, **settings(url, api_key="sk-wrong"))
    raised(litellm.BadRequestError, litellm.completion, **settings(url, temperature=3))
    busy = {"x-refuse": "429", "x-refuse-id": uuid.uuid4().hex}
    raised(litellm.RateLimitError, litellm.completion, **settings(url, max_retries=0, extra_headers=busy))


def check_plain_completions(url: str) -> None:
    asked = {name: value for name, value in settings(url, "base").items() if name != "messages"}
    answer = litellm.text_completion(**{**asked, "model": "text-completion-openai/base"}, prompt="The shop is", max_tokens=3)
    assert isinstance(answer.choices[0].text, str)


def check_embeddings(url: str) -> None:
    asked = {name: value for name, value in settings(url, "base").items() if name != "messages"}
    answer = litellm.embedding(**asked, input=["One", "Two"])
    assert len(answer.data) == 2


if __name__ == "__main__":
    main(globals())

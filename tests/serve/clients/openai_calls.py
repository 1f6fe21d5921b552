"""What the openai package sees of a running server. `calls` says how it is run."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, Literal

import openai
from calls import ANSWER, KEY, QUESTION, main, raised
from pydantic import BaseModel


class Hours(BaseModel):
    """What the engine named `json` says."""

    day: str
    is_open: bool


class Verdict(BaseModel):
    """What even a model that knows nothing can bring to an end."""

    day: Literal["Saturday", "Sunday"]
    is_open: bool


def client(url: str, **options: Any) -> openai.OpenAI:
    settings: dict[str, Any] = {"api_key": KEY, "max_retries": 0, "timeout": 60, "_strict_response_validation": True}
    return openai.OpenAI(base_url=f"{url}/v1", **{**settings, **options})


def check_a_whole_answer(url: str) -> None:
    with client(url) as made:
        answer = made.chat.completions.create(model="boutique", messages=QUESTION)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "boutique@1"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def check_a_streamed_answer(url: str) -> None:
    with client(url) as made:
        chunks = list(
            made.chat.completions.create(model="boutique", messages=QUESTION, stream=True, stream_options={"include_usage": True})
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0


def check_the_events_of_a_stream(url: str) -> None:
    with client(url) as made, made.chat.completions.stream(model="boutique", messages=QUESTION) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert said == ANSWER == final.choices[0].message.content


def check_async_answers(url: str) -> None:
    async def ask() -> None:
        settings: dict[str, Any] = {"api_key": KEY, "max_retries": 0, "_strict_response_validation": True}
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **settings) as made:
            answers = await asyncio.gather(*[made.chat.completions.create(model="boutique", messages=QUESTION) for _ in range(4)])
            assert [answer.choices[0].message.content for answer in answers] == [ANSWER] * 4
            stream = await made.chat.completions.create(model="boutique", messages=QUESTION, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER

    asyncio.run(ask())


def check_an_answer_parsed_into_a_model(url: str) -> None:
    with client(url) as made:
        answer = made.chat.completions.parse(model="json", messages=QUESTION, response_format=Hours)
        assert answer.choices[0].message.parsed == Hours(day="Sunday", is_open=False)
        with made.chat.completions.stream(model="json", messages=QUESTION, response_format=Hours) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == Hours(day="Sunday", is_open=False)


def check_several_answers_with_their_probabilities(url: str) -> None:
    with client(url) as made:
        answer = made.chat.completions.create(model="base", messages=QUESTION, n=2, logprobs=True, top_logprobs=2, max_tokens=4)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.content) > 0
        assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in choice.logprobs.content)


def check_a_conversation_that_goes_on(url: str) -> None:
    """The client's own object of the last answer, and its dump with all its empty fields, are turns of the next question."""
    with client(url) as made:
        message = made.chat.completions.create(model="boutique", messages=QUESTION).choices[0].message
        for turn in (message, message.model_dump(), message.model_dump(exclude_none=True)):
            again = made.chat.completions.create(model="boutique", messages=[*QUESTION, turn, *QUESTION])
            assert again.choices[0].message.content == ANSWER
        parts = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ]
        assert made.chat.completions.create(model="boutique", messages=parts).choices[0].message.content == ANSWER


def check_a_refused_request_is_tried_again_when_the_server_says(url: str) -> None:
    for status in ("429", "503"):
        with client(url, max_retries=2) as made:
            started = time.monotonic()
            headers = {"x-refuse": status, "x-refuse-id": uuid.uuid4().hex}
            answer = made.chat.completions.create(model="boutique", messages=QUESTION, extra_headers=headers)
            assert answer.choices[0].message.content == ANSWER
            assert time.monotonic() - started > 0.95, "Retry-After: 1 was not heeded"


def check_a_refusal_without_tries_left_is_told_by_its_class(url: str) -> None:
    kinds = {"429": openai.RateLimitError, "503": openai.InternalServerError}
    for status, kind in kinds.items():
        with client(url) as made:
            headers = {"x-refuse": status, "x-refuse-id": uuid.uuid4().hex}
            error = raised(kind, made.chat.completions.create, model="boutique", messages=QUESTION, extra_headers=headers)
        assert error.response.headers["retry-after"] == "1"
        assert error.code in ("rate_limit_exceeded", "overloaded")


def check_headers_of_an_answer(url: str) -> None:
    with client(url) as made:
        raw = made.chat.completions.with_raw_response.create(
            model="boutique", messages=QUESTION, extra_headers={"x-request-id": "mine-1"}
        )
        assert raw.headers["x-request-id"] == "mine-1"
        assert raw.headers["x-model-version"] == "boutique@1"
        assert raw.parse().choices[0].message.content == ANSWER
        assert made.models.list()._request_id.startswith("req_")
        with made.chat.completions.with_streaming_response.create(model="boutique", messages=QUESTION, stream=True) as streamed:
            assert streamed.headers["x-model-version"] == "boutique@1"
            assert streamed.headers["content-type"].startswith("text/event-stream")


def check_models(url: str) -> None:
    with client(url) as made:
        names = [model.id for model in made.models.list()]
        assert {"boutique", "boutique@1", "base", "json"} <= set(names)
        assert made.models.retrieve("boutique@1").id == "boutique@1"
        assert raised(openai.NotFoundError, made.models.retrieve, "nobody").code == "model_not_found"


def check_plain_completions(url: str) -> None:
    with client(url) as made:
        answer = made.completions.create(model="base", prompt="The shop is", max_tokens=3, temperature=0, logprobs=1)
        assert answer.object == "text_completion"
        assert len(answer.choices[0].logprobs.tokens) == 3
        scored = made.completions.create(model="base", prompt=["One", "Two"], max_tokens=0, echo=True)
        assert [choice.text for choice in scored.choices] == ["One", "Two"]


def check_embeddings(url: str) -> None:
    """The client asks for base64 by itself, which its own strict validation does not expect, and for plain numbers when told."""
    with client(url, _strict_response_validation=False) as made:
        answer = made.embeddings.create(model="base", input=["One", "Two"])
    with client(url) as made:
        plain = made.embeddings.create(model="base", input=["One", "Two"], encoding_format="float")
    one, two = (item.embedding for item in answer.data)
    assert len(one) == len(two) > 0
    assert max(abs(a - b) for a, b in zip(one, plain.data[0].embedding, strict=True)) < 1e-6


def check_an_answer_kept_to_a_schema_by_a_real_model(url: str) -> None:
    with client(url) as made:
        answer = made.chat.completions.parse(
            model="base", messages=QUESTION, response_format=Verdict, max_completion_tokens=60, temperature=1, seed=1
        )
        assert isinstance(answer.choices[0].message.parsed, Verdict)
        create = made.chat.completions.parse
        raised(openai.LengthFinishReasonError, create, model="base", messages=QUESTION, response_format=Verdict, max_tokens=2)


def check_errors_by_class_and_code(url: str) -> None:
    with client(url) as made:
        create = made.chat.completions.create
        missing = raised(openai.NotFoundError, create, model="nobody", messages=QUESTION)
        assert (missing.code, missing.param, missing.type) == ("model_not_found", "model", "invalid_request_error")
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        refused = raised(openai.BadRequestError, create, model="boutique", messages=QUESTION, tools=tools)
        assert (refused.code, refused.param) == ("unsupported_parameter", "tools")
        assert refused.request_id
        hot = raised(openai.BadRequestError, create, model="boutique", messages=QUESTION, temperature=3)
        assert hot.param == "temperature"
        broken = raised(openai.InternalServerError, create, model="broken", messages=QUESTION)
        assert broken.code == "server_error"
    with client(url, api_key="sk-wrong") as made:
        assert raised(openai.AuthenticationError, made.models.list).code == "invalid_api_key"


def check_a_stream_that_fails_in_the_middle(url: str) -> None:
    with client(url) as made:
        stream = made.chat.completions.create(model="breaking", messages=QUESTION, stream=True)
        error = raised(openai.APIError, list, stream)
    assert error.code == "server_error"


def check_leaving_a_stream(url: str) -> None:
    """Whether the server noticed, its side asserts."""
    with client(url) as made:
        stream = made.chat.completions.create(model="slow", messages=QUESTION, stream=True)
        assert any(chunk.choices[0].delta.content for chunk in stream)
        stream.close()


def check_giving_up_on_an_answer(url: str) -> None:
    """Whether the server noticed, its side asserts."""
    with client(url, timeout=0.5) as made:
        raised(openai.APITimeoutError, made.chat.completions.create, model="slow_whole", messages=QUESTION)


if __name__ == "__main__":
    main(globals())

"""What langchain-openai sees of a running server. `calls` says how it is run."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import openai
from calls import ANSWER, KEY, main, raised
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

QUESTION = "Do you open on Sundays?"


class Hours(BaseModel):
    """What the engine named `json` says."""

    day: str
    is_open: bool


def chat(url: str, model: str = "boutique", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=KEY, **{"max_retries": 0, "timeout": 60, **options})


def check_an_answer(url: str) -> None:
    answer = chat(url).invoke(QUESTION)
    assert answer.content == ANSWER
    assert answer.response_metadata["model_name"] == "boutique@1"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["output_tokens"] > 0


def check_a_stream(url: str) -> None:
    parts = list(chat(url, stream_usage=True).stream(QUESTION))
    assert "".join(part.content for part in parts) == ANSWER
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) > 0


def check_async_and_batches(url: str) -> None:
    async def ask() -> None:
        assert (await chat(url).ainvoke(QUESTION)).content == ANSWER
        assert "".join([part.content async for part in chat(url).astream(QUESTION)]) == ANSWER

    asyncio.run(ask())
    assert [answer.content for answer in chat(url).batch([QUESTION] * 3)] == [ANSWER] * 3


def check_a_chain(url: str) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Answer as {who}."), ("human", "{question}")])
    chain = prompt | chat(url, temperature=0, seed=1, max_tokens=50, stop=["###"]) | StrOutputParser()
    assert chain.invoke({"who": "a shop", "question": QUESTION}) == ANSWER


def check_a_conversation_that_goes_on(url: str) -> None:
    first = chat(url).invoke(QUESTION)
    turns = [SystemMessage("Be brief."), HumanMessage(QUESTION), first, AIMessage("Indeed."), HumanMessage("Sure?", name="anna")]
    assert raised(openai.BadRequestError, chat(url).invoke, turns).param == "messages[4].name"
    turns[-1] = HumanMessage([{"type": "text", "text": "Sure?"}])
    assert chat(url).invoke(turns).content == ANSWER


def check_structured_output(url: str) -> None:
    for method in ("json_schema", "json_mode"):
        asked = chat(url, "json").with_structured_output(Hours, method=method)
        assert asked.invoke(QUESTION) == Hours(day="Sunday", is_open=False), method


def check_probabilities_of_tokens(url: str) -> None:
    answer = chat(url, "base", max_tokens=4, logprobs=True, top_logprobs=2, temperature=0).invoke(QUESTION)
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


def check_retries(url: str) -> None:
    started = time.monotonic()
    headers = {"x-refuse": "503", "x-refuse-id": uuid.uuid4().hex}
    assert chat(url, max_retries=2, default_headers=headers).invoke(QUESTION).content == ANSWER
    assert time.monotonic() - started > 0.95


def check_errors(url: str) -> None:
    assert raised(openai.NotFoundError, chat(url, "nobody").invoke, QUESTION).code == "model_not_found"
    wrong = ChatOpenAI(model="boutique", base_url=f"{url}/v1", api_key="sk-wrong", max_retries=0)
    raised(openai.AuthenticationError, wrong.invoke, QUESTION)
    raised(openai.APIError, lambda: list(chat(url, "breaking").stream(QUESTION)))


def check_plain_completions(url: str) -> None:
    plain = OpenAI(model="base", base_url=f"{url}/v1", api_key=KEY, max_retries=0, max_tokens=3, temperature=0)
    assert isinstance(plain.invoke("The shop is"), str)
    assert len(plain.generate(["One", "Two"]).generations) == 2


def check_embeddings(url: str) -> None:
    made = OpenAIEmbeddings(model="base", base_url=f"{url}/v1", api_key=KEY, max_retries=0, check_embedding_ctx_length=False)
    one, two = made.embed_documents(["One", "Two"])
    assert len(one) == len(two) > 0
    assert one != two


if __name__ == "__main__":
    main(globals())

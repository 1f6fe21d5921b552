"""Adapters of a server behind us: loaded, warmed, flipped to, drained and unloaded, under names that are never reused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import EndpointError, ModelError
from tunesmith.records import Message, Role
from tunesmith.serve.engine import Piece, SamplingParams, Wait
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.upstream import UpstreamEngine
from tunesmith.serve.upstream_adapters import UpstreamAdapters
from tunesmith.serve.upstream_driver import OPENAI, Driver, is_ready, read_load
from tunesmith.serve.upstream_link import Link
from tunesmith.serve.upstream_llama_server import LLAMA_SERVER, num_slots, read_adapters
from tunesmith.serve.upstream_sglang import SGLANG
from tunesmith.serve.upstream_vllm import VLLM, text_of

from .fakes_upstream import BASE, Fake, Plain, error, serving

DRIVERS = {"vllm": VLLM, "sglang": SGLANG, "llama": LLAMA_SERVER, "openai": OPENAI}
HELLO = [Message(role=Role.USER, content="Hello")]
Linked = Callable[[Fake], Link]


@pytest.fixture
def linked() -> Iterator[Linked]:
    """Starts fakes, and links to them."""
    ends: list[Callable[[], object]] = []

    def link_to(fake: Fake) -> Link:
        server = serving(fake)
        link = Link(server.__enter__(), paths=DRIVERS[fake.kind].may_ask, api_key=fake.key, patience_s=20.0)
        ends.extend([lambda: server.__exit__(None, None, None), link.close])
        return link

    yield link_to
    for end in reversed(ends):
        end()


def adapter(store: Path, name: str, says: str) -> Path:
    """One in the store; the fake says what its file says."""
    folder = store / name
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(says)
    return folder


def adapters(link: Link, store: Path, driver: Driver = VLLM) -> UpstreamAdapters:
    return UpstreamAdapters(link, driver, store=store, base=BASE, max_length=128)


def opened(made: UpstreamAdapters, ref: str, folder: Path, **options: Any) -> UpstreamEngine:
    return made.open(ref, folder, max_length=64, layout=None, **options)


def patiently(stream: Iterator[Piece | Wait], engine: UpstreamEngine) -> Iterator[Piece]:
    for news in stream:
        if isinstance(news, Wait):
            engine.step()
        else:
            yield news


def answer(engine: UpstreamEngine) -> str:
    return "".join(piece.text for piece in patiently(engine.stream(HELLO, SamplingParams()), engine)).strip()


LIFE = {
    "vllm": ["/v1/models", "/v1/load_lora_adapter", "/v1/chat/completions", "flip", "/v1/unload_lora_adapter"],
    "sglang": ["/v1/models", "/load_lora_adapter", "/v1/chat/completions", "flip", "/unload_lora_adapter"],
}


@pytest.mark.parametrize("kind", LIFE)
def test_a_version_is_loaded_warmed_flipped_to_and_the_old_one_drained_and_unloaded(
    kind: str, linked: Linked, tmp_path: Path
) -> None:
    fake = Fake(kind)
    made = adapters(linked(fake), tmp_path, DRIVERS[kind])
    old_folder, new_folder = adapter(tmp_path, "aa", "the old one"), adapter(tmp_path, "bb", "the new one")
    old = opened(made, "boutique@7", old_folder)
    assert answer(old) == "the old one"
    before = len(fake.asked)
    order: list[str] = []
    waiting = [1]
    flipped = threading.Event()

    def flip(engine: UpstreamEngine) -> None:
        order.extend(fake.paths()[before:])
        order.append("flip")
        assert set(fake.loaded) == {"boutique@7", "boutique@8"}
        flipped.set()

    swapped: list[UpstreamEngine] = []
    swap = threading.Thread(
        target=lambda: swapped.append(
            made.swap(lambda: opened(made, "boutique@8", new_folder), flip=flip, old=old, num_waiting=lambda: waiting[0])
        )
    )
    swap.start()
    assert flipped.wait(20)
    assert answer(old) == "the old one"  # what was accepted before is still answered
    assert "boutique@7" in fake.loaded
    waiting[0] = 0
    swap.join(20)
    assert [*order, fake.paths()[-1]] == LIFE[kind]
    assert set(fake.loaded) == {"boutique@8"}
    assert answer(swapped[0]) == "the new one"
    warmed = fake.bodies("/v1/chat/completions")[-3]
    assert warmed["max_tokens"] == 1
    assert (warmed.get("lora_path") if kind == "sglang" else warmed["model"]) == "boutique@8"
    load = fake.bodies(LIFE[kind][1])[-1]
    assert load == {"lora_name": "boutique@8", "lora_path": str(new_folder)}
    assert fake.downloaded == []


def test_one_that_is_still_used_after_the_wait_stays(linked: Linked, tmp_path: Path) -> None:
    fake = Fake()
    made = adapters(linked(fake), tmp_path)
    engine = opened(made, "boutique@7", adapter(tmp_path, "aa", "old"))
    assert not made.retire(engine, num_waiting=lambda: 1, patience_s=0.1)
    stream = engine.stream(HELLO, SamplingParams())
    next(iter(stream))
    assert not made.retire(engine, num_waiting=lambda: 0, patience_s=0.1)
    assert "boutique@7" in fake.loaded
    stream.close()  # type: ignore[attr-defined]
    assert made.retire(engine, num_waiting=lambda: 0, patience_s=5)
    assert fake.loaded == {}


def test_a_name_is_never_given_to_anything_else(linked: Linked, tmp_path: Path) -> None:
    fake = Fake()
    link = linked(fake)
    first, second = adapter(tmp_path, "aa", "first"), adapter(tmp_path, "bb", "second")
    made = adapters(link, tmp_path)
    engine = opened(made, "boutique@7", first)
    made.retire(engine, num_waiting=lambda: 0, patience_s=5)
    with pytest.raises(EndpointError, match="a name is never reused"):
        opened(made, "boutique@7", second)
    assert answer(opened(made, "boutique@7", first)) == "first"  # a way back to the same version
    # Another process of ours finds it there; of another workspace, it is another's.
    again = len(fake.bodies("/v1/load_lora_adapter"))
    assert answer(opened(adapters(link, tmp_path), "boutique@7", first)) == "first"
    assert len(fake.bodies("/v1/load_lora_adapter")) == again
    with pytest.raises(EndpointError, match="has another adapter of the name boutique@7"):
        opened(adapters(link, tmp_path), "boutique@7", second)
    assert fake.loaded == {"boutique@7": first}


def test_the_fake_answers_from_its_cache_when_a_name_is_loaded_again(linked: Linked, tmp_path: Path) -> None:
    """What the rule above is for: without it the second adapter's name would be answered by the first."""
    fake = Fake()
    link = linked(fake)
    for name, says in (("aa", "first"), ("bb", "second")):
        body = {"lora_name": "boutique", "lora_path": str(adapter(tmp_path, name, says)), "load_inplace": True}
        link.ask("POST", "/v1/load_lora_adapter", body)
    engine = UpstreamEngine(ref="boutique", link=link, driver=VLLM, model={"model": "boutique"}, max_length=64)
    assert answer(engine) == "first"


def test_only_adapters_of_the_store_are_handed_over(linked: Linked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    store = tmp_path / "store"
    inside = adapter(store, "aa", "inside")
    outside = adapter(tmp_path, "elsewhere", "outside")
    (store / "link").symlink_to(outside)
    (store / "whole").mkdir()
    made = adapters(linked(fake), store)
    for folder in (outside, store / "link", store / ".." / "elsewhere", store, Path("aa")):
        with pytest.raises(ModelError, match="only adapters of this workspace's store"):
            opened(made, "boutique@7", folder)
    with pytest.raises(ModelError, match=r"it has no adapter_config\.json"):
        opened(made, "boutique@7", store / "whole")
    assert fake.asked == []
    monkeypatch.chdir(store)
    opened(made, "boutique@7", Path("aa"))
    assert fake.bodies("/v1/load_lora_adapter")[0]["lora_path"] == str(inside)
    assert fake.downloaded == []


def test_one_that_does_not_answer_is_taken_back_and_nothing_is_flipped(linked: Linked, tmp_path: Path) -> None:
    flips: list[UpstreamEngine] = []
    fake = Fake(refuse=lambda asked: error(500, "CUDA out of memory") if asked.path.endswith("completions") else None)
    made = adapters(linked(fake), tmp_path)
    folder = adapter(tmp_path, "aa", "old")
    with pytest.raises(EndpointError, match="CUDA out of memory"):
        made.swap(lambda: opened(made, "boutique@7", folder), flip=flips.append, old=None, num_waiting=lambda: 0)
    assert (flips, fake.loaded) == ([], {})
    fake.refuse, fake.first = lambda _: None, threading.Event()
    with pytest.raises(EndpointError, match=r"did not answer within 0\.1 s"):
        opened(made, "boutique@7", folder, timeout_s=0.1)
    assert fake.loaded == {}


@pytest.mark.parametrize("kind", LIFE)
def test_a_server_that_was_started_anew_is_given_the_adapter_again(kind: str, linked: Linked, tmp_path: Path) -> None:
    fake = Fake(kind)
    made = adapters(linked(fake), tmp_path, DRIVERS[kind])
    engine = opened(made, "boutique@7", adapter(tmp_path, "aa", "the same one"))
    fake.loaded.clear()
    streams = [engine.stream(HELLO, SamplingParams()) for _ in range(4)]
    for stream in streams:
        next(iter(stream))  # all are on their way, and miss it
    fake.wait_until(lambda: len(fake.bodies("/v1/chat/completions")) >= 5)
    said = ["".join(news.text for news in patiently(stream, engine)).strip() for stream in streams]
    assert said == ["the same one"] * 4
    assert len(fake.bodies(LIFE[kind][1])) == 2
    assert made.retire(engine, num_waiting=lambda: 0, patience_s=5)
    with pytest.raises(Refusal):  # nobody brings back what was put away on purpose
        list(patiently(engine.stream(HELLO, SamplingParams()), engine))
    assert fake.loaded == {}


def test_what_a_server_says_against_an_adapter_is_passed_on(linked: Linked, tmp_path: Path) -> None:
    folder = adapter(tmp_path, "aa", "old")
    fake = Fake(
        refuse=lambda asked: error(400, "LoRA rank 64 is greater than max_lora_rank 16.") if "load" in asked.path else None
    )
    with pytest.raises(EndpointError, match="LoRA rank 64 is greater than max_lora_rank 16"):
        opened(adapters(linked(fake), tmp_path), "boutique@7", folder)
    said = {"success": False, "error_message": "rank 64 is too large", "loaded_adapters": {}}
    for status in (200, 400):
        fake = Fake("sglang", refuse=lambda asked, s=status: Plain(s, said) if "load" in asked.path else None)
        with pytest.raises(EndpointError, match="rank 64 is too large"):
            opened(adapters(linked(fake), tmp_path, SGLANG), "boutique@7", folder)
    for driver in (LLAMA_SERVER, OPENAI):
        with pytest.raises(ModelError, match="takes no adapters while it runs"):
            adapters(linked(Fake(driver.name)), tmp_path, driver)


def test_a_server_says_whether_it_is_ready_and_how_busy_it_is(linked: Linked) -> None:
    for kind, driver in DRIVERS.items():
        fake = Fake(kind, is_loading=True)
        assert is_ready(linked(fake), driver) == (kind != "llama")
        assert fake.paths() == [driver.health]
    assert not is_ready(Link("http://127.0.0.1:9"), OPENAI)
    assert is_ready(linked(Fake("llama")), LLAMA_SERVER)
    assert read_load(linked(Fake()), VLLM) == (3, 2, 0.25)
    assert read_load(linked(Fake("sglang")), SGLANG) == (3, None, None)  # one series for each of two ranks
    assert read_load(linked(Fake("openai")), OPENAI) == (None, None, None)


def test_a_llama_server_tells_its_slots_context_and_adapters(linked: Linked) -> None:
    link = linked(Fake("llama"))
    assert num_slots(link) == 2
    assert LLAMA_SERVER.max_length is not None
    assert LLAMA_SERVER.max_length(link) == 96
    assert read_adapters(link) == ((0, "boutique.gguf", 1.0),)


def test_tokens_and_texts_are_asked_of_servers_that_tell_them(linked: Linked) -> None:
    for driver in (VLLM, SGLANG):
        assert driver.tokens_of is not None
        assert driver.tokens_of(linked(Fake(driver.name)), BASE, "héllo") == list("héllo".encode())
    assert text_of(linked(Fake()), BASE, list("héllo".encode())) == "héllo"


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "http://", "http://u:p@host:1", "http://h:99999", "http://h/?a=b", "http://h:0", "file:///etc"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="--upstream"):
        Link(url)


def test_an_address_may_end_in_v1() -> None:
    assert Link("http://host:8000/v1/").address == Link("http://host:8000").address == "http://host:8000"

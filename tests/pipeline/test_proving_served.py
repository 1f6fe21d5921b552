"""What our own server says is held to what the library says, in a process of its own; and others' servers by the command line."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from safetensors.torch import load_file, save_file

import tunesmith.model
from tunesmith.__main__ import main
from tunesmith.data.chat import ChatFormat
from tunesmith.data.contract import Contract
from tunesmith.model import add_lora, load_model, load_version, new_model, save_model, this_machine
from tunesmith.model.config import ScratchConfig
from tunesmith.pipeline import proving_served
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.proving_served import Served, fresh_server, prove_served
from tunesmith.records import Message, Record, Role, Source
from tunesmith.serve import create_app
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.lifecycle import Server
from tunesmith.train import Saved, Subject, TrainConfig
from tunesmith.train.contract import contract_of
from tunesmith.train.proofs_adapter import trial_adapter

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "context": 128}
RECORDS = [
    Record(
        id=str(n),
        source=Source(path="rows.jsonl", line=n),
        messages=(Message(role=Role.USER, content=f"Price of {n}?"), Message(role=Role.ASSISTANT, content=f"It is {7 * n}.")),
    )
    for n in range(4)
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """An adapter that does something, on a small random base, with a tokenizer whose template prints a BOS."""
    folder = tmp_path_factory.mktemp("version")
    base, tuned = folder / "base", folder / "tuned"
    for place in (base, tuned):
        place.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(EMBEDDED / name, place / name)
        configuration = json.loads((place / "tokenizer_config.json").read_text()) | {"bos_token": "<|endoftext|>"}
        (place / "tokenizer_config.json").write_text(json.dumps(configuration))
        template = place / "chat_template.jinja"
        template.write_text("{{ bos_token }}" + template.read_text())
    shape = ScratchConfig.model_validate({"vocab_size": ChatFormat.load(base).num_tokens, **SHAPE})
    save_model(new_model(shape, special_tokens={}, machine=this_machine(), seed=0), base, base_path=None)
    model = trial_adapter(load_model(base, machine=this_machine()), config=TrainConfig.model_validate({"lora": {"rank": 8}}).lora)
    save_model(model, tuned, base_path=base)
    return Saved(folder=tuned, base=base)


@pytest.fixture(scope="module")
def contract(saved: Saved) -> Contract:
    made = contract_of(saved, chat=ChatFormat.load(saved.folder), records=RECORDS, max_length=128)
    assert made is not None
    return made


@contextmanager
def serving(model: ChatModel, *names: str) -> Iterator[str]:
    """Our server, in this process."""
    sock, is_ready = bind("127.0.0.1", 0, has_key=False), threading.Event()
    app = create_app(dict.fromkeys(names, model.served()), api_key=None)
    server = Server(app, sock=sock, drain_timeout_s=1.0, on_ready=lambda _: is_ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert is_ready.wait(120)
        yield url_of(sock)
    finally:
        server.stop()
        server.stop()
        thread.join(60)
        sock.close()


def opened(saved: Saved, *, chat: Path | None = None) -> ChatModel:
    machine = this_machine()
    model = load_version(saved.folder, base=saved.base, machine=machine)
    return ChatModel(ref="v@1", model=model, chat=ChatFormat.load(chat or saved.folder), machine=machine, max_length=128)


def test_a_version_says_over_http_what_it_says_in_the_library(saved: Saved, contract: Contract) -> None:
    subject = Subject(saved=saved, is_tuned=True, chat=ChatFormat.load(saved.folder), records=RECORDS, max_length=128)
    with fresh_server() as start:
        proof = prove_served(start(subject, ref="v@1"), contract, ref="v@1")
    assert proof.holds, proof
    assert proof.figure is not None
    assert proof.figure <= 1e-5
    assert "token ids of 4 conversations" in proof.compared


def said(question: str, answer: str) -> Record:
    source = Source(path="rows.jsonl", line=1)
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(id=question, source=source, messages=messages)


@pytest.mark.parametrize("num_rows", [1, 12])
def test_a_version_that_answers_in_one_of_two_words_is_proved_too(saved: Saved, num_rows: int) -> None:
    records = [said(f"Is film {n} good?", "no" if n % 2 else "yes") for n in range(num_rows)]
    subject = Subject(saved=saved, is_tuned=True, chat=ChatFormat.load(saved.folder), records=records, max_length=128)
    contract = contract_of(saved, chat=ChatFormat.load(saved.folder), records=records, max_length=128)
    with fresh_server() as start:
        proof = prove_served(start(subject, ref="v@1"), contract, ref="v@1")
    assert contract is not None
    assert len(contract.probes) == min(num_rows, 4)
    assert proof.holds, proof
    assert proof.figure is not None
    assert proof.figure <= 1e-5


def test_a_server_that_does_not_start_says_why(contract: Contract, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving_served, "COMMAND", (sys.executable, "-c", "input(); raise SystemExit('no such thing')"))
    subject = Subject(saved=saved, is_tuned=True, chat=None, records=(), max_length=128)
    with fresh_server() as start:
        proof = prove_served(start(subject, ref="v@1"), contract, ref="v@1")
    assert proof.holds is False
    assert "no such thing" in proof.compared


def changed_template(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("assistant\\n", "bot\\n"))


def double_bos(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text("{{ bos_token }}" + file.read_text())


def swapped_tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:200]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def zeroed_adapter(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * ("lora_A" in name) for name, tensor in load_file(file).items()}, file)


def wrong_scale(folder: Path) -> None:
    file = folder / "adapter_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"lora_alpha": 2 * content["lora_alpha"]}))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (None, "the token ids of 4 conversations"),
        (changed_template, "another template"),
        (double_bos, "double BOS"),
        (swapped_tokenizer, "another tokenizer"),
        (zeroed_adapter, "the base is served in place of the tuned model"),
        (wrong_scale, "it counts about 2 times there"),
    ],
)
def test_a_served_version_with_a_defect_is_found(
    plant: Callable[[Path], None] | None, said: str, saved: Saved, contract: Contract, tmp_path: Path
) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(saved.folder, folder)
    if plant is not None:
        plant(folder)
    with serving(opened(Saved(folder=folder, base=saved.base)), "v@1") as url:
        proof = prove_served(Served(lambda: url, "none"), contract, ref="v@1")
    assert proof.holds is (plant is None), proof
    assert said in proof.compared


RECIPE = """
name: tiny
base: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, context: 64}
data: {sources: [{path: rows.jsonl}], split: {validation: 0.1, test: 0.1, near_duplicates: null}}
train: {method: full, max_steps: 2, max_length: 64, batch_tokens: 256}
evaluate: {metrics: [perplexity], max_new_tokens: 2}
promote: always
"""


def test_the_command_line_holds_a_server_to_a_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.pipeline import load_recipe, open_version, run
    from tunesmith.store import Store

    rows = [
        {"messages": [{"role": "user", "content": f"Price of {n}?"}, {"role": "assistant", "content": f"It is {7 * n}."}]}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr("tunesmith.train.proofs.prove_training", lambda *_, **__: [])
    store = Store(tmp_path / "work")
    run(load_recipe(tmp_path), store=store)

    def prove(*arguments: str) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["tunesmith", "prove", "tiny@1", *arguments, "--workspace", str(tmp_path / "work")])
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return code or 0, said.out, said.err

    sound = open_version("tiny@1", store=store)
    other = add_lora(open_version("tiny@1", store=store)._model, rank=4, alpha=8, seed=0)
    for name, parameter in other.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.5)
    with serving(sound, "tiny", "tiny@1") as url:
        code, out, err = prove("--endpoint", url, "--json")
        assert code == 0, (out, err)
        sheet = orjson.loads(out)
        assert (sheet["subject"], sheet["machine"], sheet["holds"]) == ("tiny@1", f"tiny at {url}", True)
        assert len(sheet["proofs"]) == 6
        code, _, err = prove("--endpoint", url, "--model", "huge")
        assert (code, "it has no model 'huge'; it serves: tiny, tiny@1" in err) == (2, True)
    code, _, err = prove("--endpoint", url)
    assert (code, "the connection failed" in err) == (2, True)
    code, _, err = prove("--model", "x")
    assert (code, "goes with --endpoint" in err) == (2, True)
    parts: dict[str, Any] = {"chat": sound._chat, "machine": sound._machine, "max_length": sound.max_length}
    with serving(ChatModel(ref="tiny@1", model=other, **parts), "tiny") as url:
        code, out, err = prove("--endpoint", url)
        assert code == 3
        assert "not proved: its weights = the version's" in err
        assert "nats per token apart" in " ".join(out.split())

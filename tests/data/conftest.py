"""A tiny real tokenizer, and folders that carry chat templates in the style of well-known models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tunesmith.data.chat import ChatFormat
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.records import Message, Record, Role, Source

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
# The last turn shows its (empty) reasoning; it is dropped once the conversation goes on.
QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.role == 'assistant' and loop.last and '</think>' not in message.content %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% if loop.last or message.role != 'assistant' %}{{ message.content }}"
    "{% else %}{{ message.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# No control token anywhere: only EOS can teach where an answer ends.
PLAIN = (
    "{% for message in messages %}{{ ('### ' + message.role + ':\\n') + message.content + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\\n' }}{% endif %}"
)
# The end of the conversation is marked, the end of an earlier answer is not.
ENDS_ONCE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% else %}{{ eos_token }}{% endif %}"
)

TEMPLATES = {
    "chatml": None,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "plain": PLAIN,
    "ends_once": ENDS_ONCE,
}

CONTROL = (
    "<s>",
    "</s>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "[INST]",
    "[/INST]",
    "<start_of_turn>",
    "<end_of_turn>",
)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = ["user assistant system Hello, how are you today? We are open from 9 to 17, and we are closed on Sundays."] * 20
    train_tokenizer(texts, vocab_size=340, folder=folder)
    return folder


@pytest.fixture(scope="session")
def load_chat(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ChatFormat]:
    """Load the tokenizer with a named template and the control tokens that templates here print."""
    loaded: dict[str, ChatFormat] = {}

    def load(name: str) -> ChatFormat:
        if name not in loaded:
            folder = tmp_path_factory.mktemp(name)
            write_tokenizer(folder, like=tokenizer_folder, control=CONTROL, template=TEMPLATES[name])
            loaded[name] = ChatFormat.load(folder)
        return loaded[name]

    return load


def write_tokenizer(folder: Path, *, like: Path, control: Sequence[str], template: str | None) -> None:
    definition = json.loads((like / "tokenizer.json").read_text())
    first = len(definition["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    definition["added_tokens"] += [{"id": first + i, "content": token, **flags} for i, token in enumerate(control)]
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<|endoftext|>",
    }
    if template is not None:
        configuration["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))


@pytest.fixture
def conversation() -> Callable[..., Record]:
    """Build a conversation from contents that alternate user, assistant."""

    def build(*contents: str, system: str | None = None, weights: dict[int, float] | None = None, **fields: str) -> Record:
        turns = [
            Message(role=Role.ASSISTANT if i % 2 else Role.USER, content=content, weight=(weights or {}).get(i, 1.0))
            for i, content in enumerate(contents)
        ]
        if system is not None:
            turns.insert(0, Message(role=Role.SYSTEM, content=system))
        return Record(id=fields.pop("id", "r"), source=Source(path="chats.jsonl", line=1), messages=tuple(turns), **fields)

    return build

"""A model that answers in words: tokens from `model`, text from `data.chat`, the shapes that `evaluate` and `serve` ask for.

The same object is judged and served, so what is measured is what answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.growing_text import GrowingText
from tunesmith.errors import ModelError
from tunesmith.evaluate import Likelihood, Usage
from tunesmith.evaluate.arms import Answered
from tunesmith.pipeline.plain_text import PlainText
from tunesmith.pipeline.served_model import ServedModel
from tunesmith.records import Message, Record
from tunesmith.serve import Piece

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import Packing
    from tunesmith.model.machine import Machine

__all__ = ["ChatModel"]

_TOKENS_PER_PASS = 4096
"""Tokens in one likelihood pass: enough to fill a CPU, little enough for its caches."""


class ChatModel:
    """One model with its chat format. It is an `evaluate.Arm` and a `serve.Engine`."""

    def __init__(
        self,
        *,
        ref: str,
        model: Any,
        chat: ChatFormat,
        machine: Machine,
        max_length: int,
        max_new_tokens: int = 128,
        base_folder: Path | None = None,
        why_no_base: str = "",
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
        prefix: Sequence[int] = (),
    ) -> None:
        """Keep the parts.

        Args:
            ref: what it is called, such as `boutique@1`.
            model: a transformers or PEFT model.
            chat: its tokenizer and template.
            machine: where the model is.
            max_length: its context in tokens.
            max_new_tokens: of an answer in evaluation.
            base_folder: what it was trained on, if it did not start from scratch and is still there.
            why_no_base: what became of it, where it is not.
            around: entered for every use; switches the adapter off to show the base.
            prefix: tokens in front of every conversation, such as those that stand for a soft prompt.
        """
        self.ref = ref
        self.max_length = max_length
        self.num_cut_prompts = 0
        """Conversations so far that were too long for the context and lost their beginning."""
        self.last_usage: list[Usage] = []
        """Tokens of the last prompts and answers."""
        self._model = model
        self._chat = chat
        self._machine = machine
        self._max_new_tokens = max_new_tokens
        self._base_folder = base_folder
        self._why_no_base = why_no_base or f"{ref} started from scratch and has no base"
        self._around = around
        self._prefix = list(prefix)

    def base(self) -> ChatModel:
        """The same model before training: the adapter switched off, or the base loaded beside it.

        Raises:
            ModelError: it started from scratch, or its base is gone or has changed.
        """
        from tunesmith.model import adapter_disabled, is_adapter, load_model

        if self._base_folder is None:
            raise ModelError(self._why_no_base)
        is_on_base = is_adapter(self._model)
        return ChatModel(
            ref="base",
            model=self._model if is_on_base else load_model(self._base_folder, machine=self._machine),
            chat=self._chat,
            machine=self._machine,
            max_length=self.max_length,
            max_new_tokens=self._max_new_tokens,
            base_folder=self._base_folder,
            around=(lambda: adapter_disabled(self._model)) if is_on_base else nullcontext,
        )

    def scaled(self, factor: float) -> ChatModel:
        """The same model with its adapter counted `factor` times: 0 is the base, 1 the model itself.

        Raises:
            ModelError: it has no adapter.
        """
        from tunesmith.model import adapter_scaled, is_adapter

        if not is_adapter(self._model):
            raise ModelError(f"{self.ref} has no adapter whose scale could be changed: every weight was trained")
        return ChatModel(
            ref=f"{self.ref} x {factor:g}",
            model=self._model,
            chat=self._chat,
            machine=self._machine,
            max_length=self.max_length,
            max_new_tokens=self._max_new_tokens,
            base_folder=self._base_folder,
            around=lambda: adapter_scaled(self._model, factor),
        )

    def soft_prompted(self, folder: Path) -> ChatModel:
        """The same model with a saved soft prompt in front of every conversation. This one goes on without it.

        Args:
            folder: of the prompt; call this once for a model.

        Raises:
            ModelError: it does not fit the model, which may have one already.
        """
        from tunesmith.model import placeholders, read_soft_prompt

        return ChatModel(
            ref=f"{self.ref}+soft_prompt",
            model=read_soft_prompt(self._model, folder),
            chat=self._chat,
            machine=self._machine,
            max_length=self.max_length,
            max_new_tokens=self._max_new_tokens,
            base_folder=self._base_folder,
            around=self._around,
            prefix=placeholders(self._model),
        )

    def plain_text(self) -> PlainText:
        """The same model going on with plain text, without a chat template."""
        return PlainText(
            model=self._model, chat=self._chat, machine=self._machine, max_length=self.max_length, around=self._around
        )

    def served(self, *, packing: Packing = "packed") -> ServedModel:
        """The same model as a `serve.TokenEngine`, which can also be asked token by token. Its weights must not change any more.

        Raises:
            ModelError: int8 of a model for which it is not known, or which it moves too far.
        """
        return ServedModel(
            ref=self.ref,
            model=self._model,
            chat=self._chat,
            max_length=self.max_length,
            prefix=self._prefix,
            around=self._around,
            packing=packing,
        )

    def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
        """Answer each conversation greedily. `tools` are those that each offers, or empty."""
        return [answered.text for answered in self.answer(conversations, tools=tools)]

    def answer(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[Answered]:
        """The same, with whether the model ended its turn: an answer of as many tokens as it may have was cut."""
        from tunesmith.model import Sampling, generate

        offered = tools or [""] * len(conversations)
        prompts = [
            self._prompt(messages, room=self._max_new_tokens, tools=tools_of_one)
            for messages, tools_of_one in zip(conversations, offered, strict=True)
        ]
        with self._around():
            answers = generate(
                self._model,
                prompts,
                sampling=Sampling(max_new_tokens=self._max_new_tokens),
                stop_tokens=self._chat.stop_tokens,
            )
        self.last_usage = [Usage(len(prompt), len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
        return [Answered(self._chat.decode(answer).strip(), len(answer) < self._max_new_tokens) for answer in answers]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        """Summed negative log-likelihood of what each record teaches."""
        from tunesmith.data.pack import encode, pack, prefixed
        from tunesmith.model import segment_nll

        encoded = encode(records, chat=self._chat, max_length=self.max_length - len(self._prefix))
        encoded = prefixed(encoded, prefix=self._prefix)
        batches = pack(encoded, batch_tokens=max(_TOKENS_PER_PASS, self.max_length), seed=0, epoch=0)
        nll: dict[str, float] = {}
        count: dict[str, int] = {}
        with self._around():
            for batch in batches:
                pairs = segment_nll(self._model, batch, device=self._machine.device)
                for record_id, (total, tokens) in zip(batch.record_ids, pairs, strict=True):
                    nll[record_id] = nll.get(record_id, 0.0) + total
                    count[record_id] = count.get(record_id, 0) + tokens
        return [
            Likelihood(nll=nll.get(r.id, 0.0), num_tokens=count.get(r.id, 0), num_bytes=_num_supervised_bytes(r)) for r in records
        ]

    def count_prompt(self, messages: Sequence[Message], *, tools: str = "") -> int:
        """Tokens of a conversation, the generation prompt included."""
        return len(self._prefix) + len(self._chat.encode_prompt(messages, tools=tools))

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[Piece]:
        """Answer piece by piece, in whole characters. The last piece carries the reason for the end."""
        from tunesmith.model import Sampling, write

        prompt = self._prompt(messages, room=1)
        room = self.max_length - len(prompt)
        sampling = Sampling(max_new_tokens=min(max_tokens or room, room), temperature=temperature, top_p=top_p, seed=seed)
        text = GrowingText(self._chat.decode)
        finish = "length"
        with self._around():
            for said in write(self._model, prompt, sampling=sampling, stop_tokens=self._chat.stop_tokens):
                finish = said.finish or finish
                if said.choice is not None:
                    yield Piece(text=text.add(said.choice.token), num_tokens=1, finish_reason=None)
        yield Piece(text=text.rest(), num_tokens=0, finish_reason=finish)

    def _prompt(self, messages: Sequence[Message], *, room: int, tools: str = "") -> list[int]:
        """The conversation's tokens; when too long for the context, the oldest are left out so that `room` are free."""
        prompt = self._chat.encode_prompt(messages, tools=tools)
        longest = max(self.max_length - room - len(self._prefix), 1)
        self.num_cut_prompts += len(prompt) > longest
        return [*self._prefix, *prompt[-longest:]]


def _num_supervised_bytes(record: Record) -> int:
    if record.text is not None:
        return len(record.text.encode())
    return sum(len(m.content.encode()) for m in record.messages if m.role == "assistant" and m.weight)

"""The one road from messages to tokens, used by training, evaluation and serving alike.

What is learned is known by construction, never by searching for marks in text. For the assistant turn i,

    prompt = the template's text of messages[:i] with the generation prompt
    answer = what the text of messages[:i + 1] adds to it, up to and including the end-of-turn token

Each piece is tokenised on its own, so the ids before an answer are exactly `encode_prompt(messages[:i])`, and every answer that
is learned ends with a learned end-of-turn token. A template that rewrites earlier turns (dropped reasoning) has no text of which
every prompt is a prefix; a conversation then gives one `Rendered` for each supervised turn. No content can forge a control token:
see `tokenizer`. BOS appears only where the template prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.chat_files import NAMED_TOKENS, read_configuration, write_json
from tunesmith.data.layout import Layout, NoPlace, Typesetter
from tunesmith.data.template import CHATML, CHATML_WITHOUT_TOKENS, ChatTemplate, TemplateRefused, read_template
from tunesmith.data.tokenizer import Codec
from tunesmith.data.tools import parse_tools, with_texts
from tunesmith.errors import DataError, ModelError
from tunesmith.records import Dropped, Message, Record, Role
from tunesmith.store.digest import digest_of

__all__ = ["ChatFormat", "Rendered"]

_CHUNK = 4096  # records rendered before their pieces are tokenised together
_PRIVATE = frozenset({"auto_map", "name_or_path", "_name_or_path"})


class Rendered(NamedTuple):
    """One token sequence. `weights[i]` is the weight of the loss for predicting `tokens[i]`; 0 is context."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


class ChatFormat:
    """A tokenizer with its chat template. Made by `ChatFormat.load`.

    Args:
        codec: the tokenizer.
        template: the chat template.
        configuration: the content of tokenizer_config.json, completed.
    """

    def __init__(self, codec: Codec, *, template: ChatTemplate, configuration: Mapping[str, Any]) -> None:
        self._codec = codec
        self._template = template
        self._configuration = dict(configuration)
        self._eos = str(configuration["eos_token"]) if configuration.get("eos_token") else None
        self._continues = self._continues_example()
        self._end, self.stop_tokens = self._find_end()

    @classmethod
    def load(cls, folder: Path) -> ChatFormat:
        """Read a model or tokenizer folder: tokenizer.json, tokenizer_config.json and the chat template.

        A folder without a template gets ChatML. If its vocabulary lacks ChatML's tokens, these are ordinary text and an answer
        ends with EOS; the vocabulary is never resized.

        Raises:
            ModelError: no readable tokenizer, a broken template, or no token at which an answer could end.
        """
        configuration = read_configuration(folder)
        special_tokens = {key: configuration[key] for key in NAMED_TOKENS if configuration.get(key)}
        codec = Codec.load(folder, special_tokens=special_tokens.values())
        found = read_template(folder, configuration)
        if found is None:
            known = {"<|im_start|>", "<|im_end|>"} <= codec.control_ids.keys()
            found = (CHATML if known else CHATML_WITHOUT_TOKENS), "the default ChatML template"
        template = ChatTemplate(found[0], name=found[1], special_tokens=special_tokens)
        template.check()
        chat = cls(codec, template=template, configuration=configuration)
        if chat._eos is None and chat._end is None:
            raise ModelError(
                f"{folder}: the tokenizer has no eos_token and {template.name} ends an answer with no control token, "
                "so a model could never learn to stop. Set eos_token in tokenizer_config.json."
            )
        return chat

    @property
    def digest(self) -> str:
        """Hash of all that decides which ids a conversation becomes and where an answer ends."""
        special = {key: self._configuration.get(key) for key in (*NAMED_TOKENS, "add_bos_token")}
        return digest_of(
            {
                "tokenizer": self._codec.definition,
                "template": self._template.text,
                "special_tokens": special,
                "stop_tokens": list(self.stop_tokens),
            }
        )

    @property
    def definition(self) -> str:
        """The tokenizer as the text of a tokenizer.json."""
        return json.dumps(self._codec.definition)

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary, added tokens included; every id is below it in a sound tokenizer."""
        return self._codec.num_tokens

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Names of the control tokens; in the text of a message each is only its letters."""
        return tuple(self._codec.control_ids)

    def control_token(self, name: str) -> int | None:
        """The id of the control token with this name; None where there is none."""
        return self._codec.control_ids.get(name)

    @property
    def description(self) -> dict[str, Any]:
        """What tokenizer_config.json says, completed, with the chat template; without what names files or code."""
        shown = {key: value for key, value in self._configuration.items() if key not in _PRIVATE and not key.endswith("_file")}
        return {"tokenizer_class": "PreTrainedTokenizerFast", **shown, "chat_template": self._template.text}

    @property
    def pad_token(self) -> int:
        """Id to pad with: the tokenizer's own, else one that ends an answer."""
        name = self._configuration.get("pad_token") or self._eos
        token = self._codec.token_id(str(name)) if name else None
        return self.stop_tokens[0] if token is None else token

    @cached_property
    def bos_token(self) -> int | None:
        """Id with which sequences of this model begin, if there is one."""
        name = self._configuration.get("bos_token")
        return self._codec.token_id(str(name)) if name else None

    def render(self, record: Record) -> list[Rendered]:
        """Turn a record into token sequences: one, or one for each supervised turn if the template rewrites earlier turns.

        Raises:
            DataError: the template refuses the conversation, or its answers do not continue its prompts.
        """
        (rendered,) = self.render_many([record])
        if isinstance(rendered, Dropped):
            raise DataError(f"{rendered.source}  {rendered.detail}")
        return rendered

    def render_many(self, records: Iterable[Record]) -> Iterator[list[Rendered] | Dropped]:
        """Render many records, tokenising in bulk; one result for each record, in order.

        A conversation that the template refuses becomes `Dropped("template_refused")`. What would teach something wrong is dropped
        too: an answer that the template does not print ("no_place_for_answer"), one whose end could not be learned
        ("no_end_of_turn"), a sequence that begins with two BOS ("double_bos").
        """
        remaining = iter(records)
        while chunk := list(islice(remaining, _CHUNK)):
            laid_out = [self._lay_out(record) for record in chunk]
            chains = [layout.pieces for result in laid_out if not isinstance(result, Dropped) for layout in result]
            encoded = iter(self._codec.encode(chains))
            for record, result in zip(chunk, laid_out, strict=True):
                if isinstance(result, Dropped):
                    yield result
                    continue
                tokens = [next(encoded) for _ in result]
                rendered = [_join(layout.weights, pieces) for layout, pieces in zip(result, tokens, strict=True)]
                if record.text is not None:
                    rendered = [self._framed(one) for one in rendered]
                elif not all(self._ends(layout.weights, pieces) for layout, pieces in zip(result, tokens, strict=True)):
                    detail = (
                        f"an answer would be learned without a token that ends it: {self._template.name} prints none here, and "
                    )
                    detail += "the tokenizer has no eos_token. The model would never stop. Set eos_token in tokenizer_config.json"
                    yield _dropped(record, "no_end_of_turn", detail)
                    continue
                yield self._begun_once(record, rendered)

    def encode_prompt(self, messages: Sequence[Message], *, tools: str = "") -> list[int]:
        """Encode a conversation up to the answer that is wanted: the very ids that training saw before that answer.

        Args:
            messages: up to the answer.
            tools: offered in the conversation, as `Record.tools` has them.

        Raises:
            DataError: the template refuses the conversation, or the tools are no JSON list of tools.
        """
        try:
            pieces = self._typesetter(tools).prompt(self._shielded(messages))
        except TemplateRefused as error:
            raise DataError(f"{self._template.name} refuses this conversation: {error}") from error
        (encoded,) = self._codec.encode([pieces])
        return [token for piece in encoded for token in piece]

    def encode_text(self, text: str, *, begun: bool = True) -> list[int]:
        """Encode plain text that goes on: begun as texts of this model begin, unless that is not wanted, and not ended."""
        ((tokens,),) = self._codec.encode([[self._codec.shield(text)]])
        return [*(self._frame[0] if begun else []), *tokens]

    def prints_tools(self, record: Record) -> bool:
        """Whether the tools that a record offers stand in its prompts. A template may know no tools; a text has no template."""
        if parse_tools(record.tools) is None:
            return True
        return record.text is None and self._typesetter(record.tools).prints_tools(self._shielded(record.messages))

    def decode(self, tokens: Sequence[int], *, keep_control: bool = False) -> str:
        """Turn ids into text; control tokens are left out unless wanted."""
        return self._codec.decode(tokens, keep_control=keep_control)

    def token_bytes(self, token: int) -> bytes | None:
        """What a token stands for, a part of a character too; None where its tokenizer does not tell."""
        return self._codec.token_bytes(token)

    def save(self, folder: Path) -> None:
        """Write the tokenizer and its template so that `transformers.AutoTokenizer` and `ChatFormat.load` read them."""
        folder.mkdir(parents=True, exist_ok=True)
        dropped = {"chat_template", "auto_map"}
        configuration = {key: value for key, value in self._configuration.items() if key not in dropped}
        configuration["stop_token_ids"] = list(self.stop_tokens)
        configuration.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        write_json(folder / "tokenizer.json", self._codec.definition)
        write_json(folder / "tokenizer_config.json", configuration)
        (folder / "chat_template.jinja").write_text(self._template.text, encoding="utf-8", newline="")

    def _continues_example(self) -> bool:
        """Whether an answer continues its prompt in the plainest conversation; if not, it does so in no other."""
        question, answer = Message(role=Role.USER, content="x"), Message(role=Role.ASSISTANT, content="y")
        try:
            prompt = self._template.render([question], add_generation_prompt=True)
            return self._template.render([question, answer], add_generation_prompt=False).startswith(prompt)
        except TemplateRefused:
            return True  # it wants other conversations; each row will tell

    def _find_end(self) -> tuple[str | None, tuple[int, ...]]:
        """Learn from an example how the template ends an answer.

        Returns:
            The control token after an answer, if any, and every id at which generation must stop.
        """
        stops = {int(token) for token in self._configuration.get("stop_token_ids", [])}
        if self._eos and (token := self._codec.token_id(self._eos)) is not None:
            stops.add(token)
        controls = self._codec.controls(self._text_after_answer())
        ids = self._codec.control_ids
        # Some templates print more than one (END_RESPONSE, END_OF_TURN): the one that serving stops at comes first.
        end = next((name for name in controls if ids[name] in stops), next(iter(controls), None))
        return end, tuple(sorted(stops | ({ids[end]} if end else set())))

    def _text_after_answer(self) -> str:
        """What the template prints after an answer, whether the conversation ends there or goes on."""
        question, answer = Message(role=Role.USER, content="x"), Message(role=Role.ASSISTANT, content="\ufdd4y\ufdd4")
        try:
            last = self._template.render([question, answer], add_generation_prompt=False)
        except TemplateRefused:
            return ""  # told row by row when real conversations are rendered
        try:
            earlier = self._template.render([question, answer, question], add_generation_prompt=False)
        except TemplateRefused:
            earlier = last
        tails = [text.rpartition(answer.content)[2] for text in (last, earlier)]
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*tails, strict=False)))
        return tails[0][:shared] or tails[0]

    def _lay_out(self, record: Record) -> list[Layout] | Dropped:
        if record.text is not None:
            return [Layout([self._codec.shield(record.text)], [1.0])]
        try:
            return self._typesetter(record.tools).conversation(self._shielded(record.messages))
        except NoPlace:
            detail = f"{self._template.name} does not print the answer, so it cannot be learned. Give the folder another template"
            return _dropped(record, "no_place_for_answer", detail)
        except TemplateRefused as error:
            return _dropped(record, "template_refused", f"the chat template refuses this conversation: {error}")

    def _ends(self, weights: Sequence[float], pieces: Sequence[Sequence[int]]) -> bool:
        """Whether every piece that is learned ends with a token at which generation stops."""
        return all(piece[-1] in self.stop_tokens for weight, piece in zip(weights, pieces, strict=True) if weight and piece)

    def _begun_once(self, record: Record, rendered: list[Rendered]) -> list[Rendered] | Dropped:
        bos = self.bos_token
        if bos is not None and any(one.tokens[:2] == (bos, bos) for one in rendered):
            detail = (
                f"{self._template.name} gives this row two BOS tokens, and no model has seen that. Take one out of the template"
            )
            return _dropped(record, "double_bos", detail)
        return rendered

    def _typesetter(self, tools: str) -> Typesetter:
        """Lays out conversations that offer these tools. A control token's name in a tool is only its letters, as in a message."""
        offered = with_texts(parse_tools(tools), self._codec.shield)
        template = self._template.offering(offered) if offered else self._template
        return Typesetter(template=template, end=self._end, eos=self._eos, continues=self._continues)

    def _shielded(self, messages: Sequence[Message]) -> list[Message]:
        return [
            message if (content := self._codec.shield(message.content)) == message.content else replace(message, content=content)
            for message in messages
        ]

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """What goes before and after a plain text: what the tokenizer puts there, and EOS."""
        before, after = self._codec.added_around("a")
        bos = self._codec.token_id(str(self._configuration.get("bos_token")))
        if self._configuration.get("add_bos_token") is False:
            before = [token for token in before if token != bos]
        elif self._configuration.get("add_bos_token") and bos is not None and bos not in before:
            before = [bos, *before]
        eos = self._codec.token_id(self._eos) if self._eos else None
        return before, [*after, eos] if eos is not None and eos not in after else after

    def _framed(self, rendered: Rendered) -> Rendered:
        before, after = self._frame
        weights = (*(0.0 for _ in before), *rendered.weights, *(1.0 for _ in after))
        return Rendered((*before, *rendered.tokens, *after), weights)


def _join(weights: Sequence[float], pieces: Sequence[Sequence[int]]) -> Rendered:
    spread: list[float] = []
    for weight, piece in zip(weights, pieces, strict=True):
        spread += [weight] * len(piece)
    return Rendered(tuple(chain.from_iterable(pieces)), tuple(spread))


def _dropped(record: Record, reason: str, detail: str) -> Dropped:
    return Dropped(source=record.source, reason=reason, detail=detail, raw=_shortened(record.messages))


def _shortened(messages: Sequence[Message]) -> str:
    text = " / ".join(f"{message.role}: {message.content}" for message in messages)
    return text if len(text) <= 200 else text[:199] + "…"

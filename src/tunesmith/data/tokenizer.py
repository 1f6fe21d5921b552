"""Text to token ids and back: reading a tokenizer so that no text can forge its control tokens, and training a new one.

A control token is an added token that the tokenizer marks `special` (`<|im_end|>`, `</s>`). Where its name stands in the text of
a message it is ordinary text and never the token. Done in two steps: `shield` breaks every such name inside a content with a
private mark before the template sees it, and encoding uses a copy of the tokenizer in which every control token bears a private
name of this process; the names that the template itself printed are swapped for the private ones, the marks are taken out, and
what is left can only be ordinary text. Non-special added tokens (`<think>`) are vocabulary like any other and are left alone.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tunesmith.data.template import CHATML
from tunesmith.data.token_bytes import byte_kinds, bytes_of
from tunesmith.errors import DataError, ModelError

__all__ = ["Codec", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
_MAX_GROWTH = 64
"""Times; known tokenizers replace a character by one or two."""
_SPECIAL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")

# Words with a sign before them, combining marks on their letters; every digit alone, so that numbers are spelt one way only; line ends
# apart. It cuts where llama.cpp's pre-tokenizer `qwen35` does: an engine that knows only a list of patterns reads our text alike.
_PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class _Control(NamedTuple):
    """How control tokens are named, for real and in private."""

    ids: dict[str, int]
    private: dict[str, str]
    swallows_blanks: frozenset[str]
    mark: str

    def pattern(self) -> str:
        return "|".join(re.escape(name) for name in sorted(self.ids, key=len, reverse=True)) or r"(?!)"


class Codec:
    """A tokenizer as the rest of the room uses it. Made by `Codec.load`."""

    def __init__(self, text: str, *, special_tokens: Iterable[str] = ()) -> None:
        self._json: dict[str, Any] = json.loads(text)
        self._json["truncation"] = self._json["padding"] = None
        _check_growth(self._json)
        _mark_special(self._json, set(special_tokens))
        self._plain = Tokenizer.from_str(json.dumps(self._json))
        self._byte_kinds = byte_kinds(self._json)
        self._added = {added.content for added in self._plain.get_added_tokens_decoder().values()}
        self._control = _control_tokens(self._json)
        private = _renamed(self._json, self._control.private)
        self._tokenizer = Tokenizer.from_str(json.dumps(private))
        self._adds_prefix, inner = _without_prefix(private)
        self._inner = Tokenizer.from_str(json.dumps(inner)) if self._adds_prefix else self._tokenizer
        pattern, mark = self._control.pattern(), re.escape(self._control.mark)
        self._name_in_content = re.compile(f"(?=(?:{pattern}))(.)", re.DOTALL)
        self._name_in_text = re.compile(f"(?:{pattern})(?!{mark})")

    @classmethod
    def load(cls, folder: Path, *, special_tokens: Iterable[str] = ()) -> Codec:
        """Read `tokenizer.json`.

        Args:
            folder: where it lies.
            special_tokens: names that the tokenizer's configuration calls special, should tokenizer.json not say so.

        Raises:
            ModelError: the folder has none, or it is not a fast tokenizer's file.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder}: no tokenizer.json. Save the base's fast tokenizer there first: "
                "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
            )
        try:
            return cls(path.read_text(encoding="utf-8"), special_tokens=special_tokens)
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise ModelError(f"{path}: not a readable fast tokenizer: {error}") from error

    @property
    def definition(self) -> dict[str, Any]:
        """The content of tokenizer.json without truncation and padding."""
        return self._json

    @property
    def control_ids(self) -> dict[str, int]:
        return self._control.ids

    @property
    def num_tokens(self) -> int:
        return int(self._plain.get_vocab_size(with_added_tokens=True))

    def token_id(self, token: str) -> int | None:
        return self._plain.token_to_id(token)

    def shield(self, content: str) -> str:
        """Break every control token's name in a content, so that it is encoded as the ordinary text it is."""
        return self._name_in_content.sub(rf"\1{self._control.mark}", content)

    def controls(self, text: str) -> list[str]:
        """List the control tokens that a template printed, in order, in text whose contents are shielded."""
        return self._name_in_text.findall(text)

    def last_control(self, text: str) -> re.Match[str] | None:
        """Find the last control token that a template printed, in text whose contents are shielded."""
        last = None
        for last in self._name_in_text.finditer(text):  # noqa: B007 - only the last one is wanted
            pass
        return last

    def added_around(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids that the tokenizer's own post-processor puts before and after a plain text, such as BOS."""
        bare = self._plain.encode(text, add_special_tokens=False).ids
        full = self._plain.encode(text, add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
        return [], []

    def encode(self, chains: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Encode texts given as consecutive pieces; each piece is tokenised on its own, as it stands in its text.

        A tokenizer that opens a text with a blank of its own does so in the first piece only.

        Raises:
            DataError: a text that is not Unicode (a lone surrogate).
        """
        outer: list[str] = []
        inner: list[str] = []
        places: list[list[list[tuple[bool, int]]]] = []
        for chain in chains:
            place = []
            before: str | None = None
            for piece in chain:
                parts = self._parts(piece, before=before)
                at = []
                for text, is_inner in parts:
                    jobs = inner if is_inner else outer
                    at.append((is_inner, len(jobs)))
                    jobs.append(text)
                place.append(at)
                before = piece if piece else before
            places.append(place)
        done = {False: self._encode_all(self._tokenizer, outer), True: self._encode_all(self._inner, inner)}
        return [[[token for kind, i in at for token in done[kind][i]] for at in place] for place in places]

    def decode(self, tokens: Sequence[int], *, keep_control: bool = False) -> str:
        """Turn ids into text, with or without the control tokens among them."""
        return str(self._plain.decode(list(tokens), skip_special_tokens=not keep_control))

    def token_bytes(self, token: int) -> bytes | None:
        """What a token stands for, where that is known."""
        name = self._plain.id_to_token(token)
        if name is None or name in self._added:
            return None if name is None else name.encode()
        return bytes_of(name, kinds=self._byte_kinds)

    def _parts(self, piece: str, *, before: str | None) -> list[tuple[str, bool]]:
        """Split a piece into texts to encode, each with whether it must not open with a blank of the tokenizer's own."""
        if before is not None and self._control.swallows_blanks:
            last = self.last_control(before)
            if last and last.end() == len(before) and last.group() in self._control.swallows_blanks:
                piece = piece.lstrip()
        if before is None or not self._adds_prefix:
            return [(self._private(piece), False)]
        if self._adds_prefix == "section":
            last = self.last_control(before)
            if last and last.end() == len(before):
                return [(self._private(piece), False)]
        first = self._name_in_text.search(piece)
        border = first.start() if first else len(piece)
        return [(self._private(piece[:border]), True), (self._private(piece[border:]), False)]

    def _private(self, text: str) -> str:
        names = self._control.private
        return self._name_in_text.sub(lambda match: names[match.group()], text).replace(self._control.mark, "")

    @staticmethod
    def _encode_all(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
        try:
            distinct = list(dict.fromkeys(texts))  # canned answers and system prompts repeat
            encodings = tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
            ids = {text: encoding.ids for text, encoding in zip(distinct, encodings, strict=True)}
            return [ids[text] for text in texts]
        except (TypeError, UnicodeEncodeError) as error:
            for text in texts:
                if not _is_unicode(text):
                    raise DataError(f"a text holds a lone surrogate, which is not Unicode: {text[:60]!a}") from error
            raise
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what the library throws is of a class that cannot be imported
                raise
            raise ModelError(f"the tokenizer gives up on a text: {error}. A pattern in its tokenizer.json is to blame") from error


def _check_growth(definition: dict[str, Any]) -> None:
    """Refuse a definition whose replacements, one upon the other, would make a text so long that it fills the memory."""
    for part in ("normalizer", "decoder"):
        factor, waiting = 1, [definition.get(part)]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                waiting += [*node.get("normalizers", ()), *node.get("decoders", ())]
                if node.get("type") == "Replace":
                    factor *= max(1, len(str(node.get("content", ""))))
        if factor > _MAX_GROWTH:
            raise ValueError(f"its {part} can make a text more than {_MAX_GROWTH} times as long")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _mark_special(definition: dict[str, Any], names: set[str]) -> None:
    """Make control tokens of the named tokens that the vocabulary has."""
    added: list[dict[str, Any]] = definition.setdefault("added_tokens", [])
    for token in added:
        token["special"] = bool(token.get("special")) or token["content"] in names
    vocabulary = definition["model"].get("vocab")
    if not isinstance(vocabulary, dict):
        vocabulary = {entry[0]: i for i, entry in enumerate(vocabulary or [])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for name in sorted(names - {token["content"] for token in added}):
        if name in vocabulary:
            added.append({"id": vocabulary[name], "content": name, **flags})


def _control_tokens(definition: dict[str, Any]) -> _Control:
    added = [token for token in definition.get("added_tokens", []) if token.get("special") and token["content"]]
    # Non-characters and a number drawn for this process: no text can hold these names by chance or by design.
    drawn = secrets.token_hex(8)
    return _Control(
        ids={token["content"]: int(token["id"]) for token in added},
        private={token["content"]: f"\ufdd0{drawn}x{i:x}\ufdd1" for i, token in enumerate(added)},
        swallows_blanks=frozenset(token["content"] for token in added if token.get("rstrip")),
        mark=f"\ufdd2{drawn}\ufdd3",
    )


def _renamed(definition: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Copy a tokenizer's definition with its control tokens under other names, ids unchanged."""
    copy: dict[str, Any] = json.loads(json.dumps(definition))
    for token in copy["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"]) if token.get("special") else token["content"]
    model = copy["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): i for token, i in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    copy["post_processor"] = None
    return copy


def _without_prefix(definition: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Copy a definition without the blank that it puts before a text.

    Returns:
        "" if it puts none, "text" if only at the start of a text, "section" if after every control token too; and the copy.
    """
    copy: dict[str, Any] = json.loads(json.dumps(definition))
    found: set[str] = set()

    def strip(node: dict[str, Any] | None) -> dict[str, Any] | None:
        if node is None:
            return None
        for key in ("normalizers", "pretokenizers"):
            if key in node:
                node[key] = [kept for child in node[key] if (kept := strip(child)) is not None]
        if node["type"] == "Prepend":
            found.add("section")
            return None
        if node["type"] == "Metaspace" and node.get("prepend_scheme", "always") != "never":
            found.add("text" if node.get("prepend_scheme") == "first" else "section")
            node["prepend_scheme"] = "never"
            node.pop("add_prefix_space", None)
        elif node["type"] == "ByteLevel" and node.get("add_prefix_space"):
            found.add("section")
            node["add_prefix_space"] = False
        return node

    copy["normalizer"], copy["pre_tokenizer"] = strip(copy.get("normalizer")), strip(copy.get("pre_tokenizer"))
    return ("section" if "section" in found else "text" if found else ""), copy


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE tokenizer and save it as a transformers fast tokenizer with a ChatML template.

    Every text can be encoded and decodes to itself. The same texts in the same order give the same files. With little text the
    vocabulary comes out smaller than asked.

    Args:
        texts: the training text; read once.
        vocab_size: at most so many tokens, special tokens and the 256 bytes included.
        folder: where tokenizer.json, tokenizer_config.json and chat_template.jinja go; made if missing.

    Raises:
        DataError: `vocab_size` has no room for the bytes and the special tokens.
    """
    smallest = 256 + len(_SPECIAL)
    if vocab_size < smallest:
        raise DataError(
            f"vocab_size is {vocab_size}; it must be at least {smallest}: 256 bytes and {len(_SPECIAL)} special tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in _SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "extra_special_tokens": list(_SPECIAL[1:]),
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")

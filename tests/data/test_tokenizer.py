import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tunesmith.data.chat import ChatFormat
from tunesmith.data.token_bytes import byte_kinds, bytes_of
from tunesmith.data.tokenizer import Codec, train_tokenizer
from tunesmith.errors import DataError, ModelError


@given(text=st.text(max_size=80))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_text_decodes_to_itself(tokenizer_folder: Path, text: str) -> None:
    codec = Codec.load(tokenizer_folder)
    ((tokens,),) = codec.encode([[codec.shield(text)]])
    assert codec.decode(tokens) == text


def test_same_texts_give_the_same_files_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tunesmith.data.tokenizer import train_tokenizer\n"
        "train_tokenizer((f'word{i} and the {i % 7} other thing' for i in range(400)), vocab_size=400, folder=Path(sys.argv[1]))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=environment)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_digits_stand_alone_and_words_keep_their_blank(tmp_path: Path) -> None:
    train_tokenizer(["the year 2024 and the year 2025"] * 50, vocab_size=300, folder=tmp_path)
    tokens = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("the year 2024").tokens
    assert tokens == ["the", "Ġyear", "Ġ", "2", "0", "2", "4"]


def test_special_tokens_come_first(tokenizer_folder: Path) -> None:
    codec = Codec.load(tokenizer_folder)
    assert codec.control_ids == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


def test_vocabulary_without_room_for_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 259"):
        train_tokenizer(["a"], vocab_size=258, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    train_tokenizer(["a"], vocab_size=259, folder=tmp_path)
    assert Codec.load(tmp_path).num_tokens == 259


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
def test_replacements_that_would_fill_the_memory_are_refused_before_they_are_tried(
    tokenizer_folder: Path, tmp_path: Path, part: str
) -> None:
    folder = shutil.copytree(tokenizer_folder, tmp_path / "t")
    definition = json.loads((folder / "tokenizer.json").read_text())

    def load(num_letters: int) -> Codec:
        step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * num_letters}
        definition[part] = {"type": "Sequence", f"{part}s": [step] * 4}
        (folder / "tokenizer.json").write_text(json.dumps(definition))
        return Codec.load(folder)

    load(2)
    with pytest.raises(ModelError, match=f"its {part} can make a text more than 64 times as long"):
        load(1000)


def test_a_pattern_on_which_the_library_gives_up_is_told_in_plain_words() -> None:
    class PanicException(BaseException):
        """As the library's own, which is no Exception."""

    class Panicking:
        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise PanicException("retry-limit-in-match over")

    with pytest.raises(ModelError, match="gives up on a text: retry-limit-in-match over"):
        Codec._encode_all(Panicking(), ["aaaa"])  # type: ignore[arg-type]


def test_a_byte_level_token_is_known_by_its_bytes(tokenizer_folder: Path) -> None:
    """Put together they are the text, letter by letter, whatever the bytes are."""
    chat = ChatFormat.load(tokenizer_folder)
    text = "Größe 😀 日本語 \x00\x7f\xa0\xad end\n\ttab"
    tokens = chat.encode_text(text, begun=False)
    assert b"".join(chat.token_bytes(token) or b"" for token in tokens).decode() == text
    every = {chat.token_bytes(token) for token in range(chat.num_tokens)}
    assert {bytes([byte]) for byte in range(256)} <= every
    assert chat.token_bytes(chat.stop_tokens[0]) == chat.decode([chat.stop_tokens[0]], keep_control=True).encode()
    assert chat.token_bytes(10**6) is None


@pytest.mark.parametrize(
    ("decoder", "name", "expected"),
    [
        ({"type": "ByteLevel"}, "Ġshop", b" shop"),
        ({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}, "<0xE2>", b"\xe2"),
        ({"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}, "▁shop", None),
        ({"type": "WordPiece"}, "##ing", None),
        ({"type": "ByteLevel"}, "日", None),
        (None, "shop", None),
    ],
)
def test_other_tokenizers_tell_what_they_can(decoder: object, name: str, expected: bytes | None) -> None:
    assert bytes_of(name, kinds=byte_kinds({"decoder": decoder})) == expected

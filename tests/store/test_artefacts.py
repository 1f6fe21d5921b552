"""Publishing, reading and verifying artefacts."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import BrokenArtefact, NotFound, TunesmithError
from tunesmith.store import Artefact, Artefacts


def publish(artefacts: Artefacts, files: dict[str, bytes], *, kind: str = "note") -> Artefact:
    with artefacts.publish(kind) as staging:
        for name, content in files.items():
            (staging.path / name).parent.mkdir(parents=True, exist_ok=True)
            (staging.path / name).write_bytes(content)
    return staging.artefact


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def test_the_digest_is_the_sha256_of_a_manifest_of_kind_and_files(tmp_path: Path) -> None:
    artefact = publish(Artefacts(tmp_path), {"b.txt": b"two", "sub/a.txt": b"one"})
    # Written out independently, with the standard library's JSON.
    files = {"b.txt": hashlib.sha256(b"two").hexdigest(), "sub/a.txt": hashlib.sha256(b"one").hexdigest()}
    manifest = json.dumps({"files": files, "kind": "note"}, separators=(",", ":"), sort_keys=True).encode()
    assert (artefact.path / "manifest.json").read_bytes() == manifest
    assert artefact.digest == hashlib.sha256(manifest).hexdigest() == artefact.path.name
    assert dict(artefact.files) == files
    assert Artefacts(tmp_path).get(artefact.digest) == artefact


@settings(deadline=None, max_examples=25)  # each example flushes to the disk, which may be busy
@given(st.dictionaries(st.from_regex(r"[a-zé]{1,8}(\.txt)?", fullmatch=True), st.binary(max_size=99), max_size=5), st.randoms())
def test_identity_does_not_depend_on_time_path_or_order(tmp_path_factory, files: dict[str, bytes], random) -> None:
    first = publish(Artefacts(tmp_path_factory.mktemp("a")), files)
    shuffled = list(files.items())
    random.shuffle(shuffled)
    elsewhere = Artefacts(tmp_path_factory.mktemp("b") / "deeper" / "still")
    with elsewhere.publish("note") as staging:
        for name, content in shuffled:
            (staging.path / name).write_bytes(content)
            os.utime(staging.path / name, (0, 0))
    assert staging.artefact.digest == first.digest
    assert {name: (staging.artefact.path / name).read_bytes() for name in staging.artefact.files} == files


def test_kind_names_and_contents_all_belong_to_the_identity(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    digests = {
        publish(artefacts, {"a": b"1"}).digest,
        publish(artefacts, {"a": b"1"}, kind="other").digest,
        publish(artefacts, {"b": b"1"}).digest,
        publish(artefacts, {"a": b"2"}).digest,
        publish(artefacts, {}).digest,
    }
    assert len(digests) == 5
    assert list(artefacts.digests()) == sorted(digests)


def test_publishing_twice_leaves_one_artefact_and_nothing_else(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    first = publish(artefacts, {"a": b"1"})
    assert publish(artefacts, {"a": b"1"}) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.digest]


def test_publishing_again_mends_a_broken_artefact(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    first = publish(artefacts, {"a": b"1"})
    damage(first.path / "a", b"2")
    publish(artefacts, {"a": b"1"})
    assert artefacts.verify(first.digest) == []
    assert [path.name for path in tmp_path.iterdir()] == [first.digest]


def test_a_published_folder_is_read_only(tmp_path: Path) -> None:
    artefact = publish(Artefacts(tmp_path), {"sub/a": b"1"})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [artefact.path, *artefact.path.rglob("*")]}
    assert modes == {artefact.digest: 0o555, "manifest.json": 0o444, "sub": 0o555, "a": 0o444}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_nothing_and_passes_through(tmp_path: Path, error: BaseException) -> None:
    artefacts = Artefacts(tmp_path)

    def write_and_fail(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"1")
        (folder / "sub").chmod(0o500)
        raise error

    with pytest.raises(type(error)) as caught, artefacts.publish("note") as staging:
        write_and_fail(staging.path)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_the_artefact_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    with artefacts.publish("note") as staging:
        (staging.path / "a").write_bytes(b"1")
        assert list(artefacts.digests()) == []
        with pytest.raises(RuntimeError, match="after the `with"):
            _ = staging.artefact
    assert list(artefacts.digests()) == [staging.artefact.digest]


def test_symlinks_and_the_manifests_own_name_are_refused(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path / "store")
    (tmp_path / "secret").mkdir()
    with pytest.raises(TunesmithError, match="link in this note is a symlink"), artefacts.publish("note") as staging:
        (staging.path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(TunesmithError, match=r"manifest\.json is written by the store"), artefacts.publish("note") as staging:
        (staging.path / "manifest.json").write_text("{}")
    assert list(artefacts.root.iterdir()) == []


@pytest.mark.parametrize("digest", ["0" * 64, "../secret", "", "A" * 64, ".."])
def test_what_is_no_artefact_is_not_found(tmp_path: Path, digest: str) -> None:
    (tmp_path / "secret").mkdir()
    artefacts = Artefacts(tmp_path / "store")
    publish(artefacts, {"a": b"1"})
    with pytest.raises(NotFound, match="there is no artefact"):
        artefacts.get(digest)
    with pytest.raises(NotFound, match="there is no artefact"):
        artefacts.verify(digest)


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path / "absent")
    assert list(artefacts.digests()) == []
    with pytest.raises(NotFound):
        artefacts.get("0" * 64)
    assert not artefacts.root.exists()


@settings(deadline=None, max_examples=40)
@given(place=st.integers(0, 4095), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_found(tmp_path_factory, place: int, bit: int) -> None:
    artefacts = Artefacts(tmp_path_factory.mktemp("store"))
    content = bytearray(hashlib.shake_256(b"weights").digest(4096))
    artefact = publish(artefacts, {"sub/weights": bytes(content)})
    assert artefacts.verify(artefact.digest) == []
    content[place] ^= 1 << bit
    damage(artefact.path / "sub" / "weights", bytes(content))
    (problem,) = artefacts.verify(artefact.digest)
    assert problem.startswith("sub/weights: its sha256 is ")


def test_missing_extra_truncated_and_replaced_files_are_all_told(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    artefact = publish(artefacts, {"a": b"1", "b": b"2", "c": b"3", "d/e": b"4"})
    artefact.path.chmod(0o700)
    (artefact.path / "a").unlink()
    (artefact.path / "new").write_bytes(b"5")
    damage(artefact.path / "b", b"")
    (artefact.path / "c").unlink()
    (artefact.path / "c").symlink_to("b")
    problems = artefacts.verify(artefact.digest)
    assert [problem.split(" is ")[0] for problem in problems] == [
        "a: the file",
        "new: the file",
        "b: its sha256",
        "c: not a regular file",
    ]


@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_lost_or_altered_manifest_is_a_broken_artefact(tmp_path: Path, content: bytes | None) -> None:
    artefacts = Artefacts(tmp_path)
    artefact = publish(artefacts, {"a": b"1"})
    artefact.path.chmod(0o700)
    if content is None:
        (artefact.path / "manifest.json").unlink()
    else:
        damage(artefact.path / "manifest.json", content)
    with pytest.raises(BrokenArtefact, match="tunesmith doctor"):
        artefacts.get(artefact.digest)
    (problem,) = artefacts.verify(artefact.digest)
    assert problem.startswith("manifest.json: ")


def test_many_may_publish_the_same_at_once_even_over_a_broken_copy(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    files = {f"file-{index}": bytes(10_000) for index in range(3)}
    broken = publish(artefacts, files)
    damage(broken.path / "file-0", b"")
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda _: publish(artefacts, files), range(24)))
    assert {artefact.digest for artefact in published} == {broken.digest}
    assert artefacts.verify(broken.digest) == []
    assert [path.name for path in tmp_path.iterdir()] == [broken.digest]

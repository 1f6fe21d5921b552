"""What can happen to a checkpoint on a disk. Every entry is a function of the checkpoint's folder."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import torch
from safetensors.torch import load_file, save_file

from tunesmith.store.digest import digest_of_file

Damage = Callable[[Path], None]


@contextmanager
def file_limit(num_bytes: int) -> Iterator[None]:
    """A disk that is full, as far as this process can see: no file may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def flip(name: str, place: int) -> Damage:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return apply


def cut(name: str) -> Damage:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


def lose(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def become_a_folder(name: str) -> Damage:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return apply


def link_to_itself(name: str) -> Damage:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / name)

    return apply


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def become_a_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "nowhere")


def lose_everything(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def say(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text) and None


def sealed(damage: Damage) -> Damage:
    """The same damage under a manifest that agrees with it: no disk does that, but another version or another model may."""

    def apply(folder: Path) -> None:
        damage(folder)
        names = ("tensors.safetensors", "state.json")
        (folder / "manifest.json").write_bytes(orjson.dumps({name: digest_of_file(folder / name) for name in names}))

    return apply


def change_state(change: Callable[[dict[str, object]], object]) -> Damage:
    def apply(folder: Path) -> None:
        state = orjson.loads((folder / "state.json").read_bytes())
        change(state)
        (folder / "state.json").write_bytes(orjson.dumps(state))

    return sealed(apply)


def change_tensors(prefix: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Damage:
    """Change, or for None take away, the first tensor with a dimension whose name begins so."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / "tensors.safetensors")
        name = next(name for name, tensor in sorted(tensors.items()) if name.startswith(prefix) and tensor.ndim)
        changed = change(tensors.pop(name))
        save_file(tensors if changed is None else {**tensors, name: changed.contiguous()}, folder / "tensors.safetensors")

    return sealed(apply)


DAMAGE: dict[str, Damage] = {
    "tensors cut short": cut("tensors.safetensors"),
    "a bit of a weight flipped": flip("tensors.safetensors", -1),
    "a bit of the header flipped": flip("tensors.safetensors", 12),
    "state cut short": cut("state.json"),
    "a digit of the state changed": flip("state.json", -2),
    "manifest cut short": cut("manifest.json"),
    "manifest says nothing": say("manifest.json", "{}"),
    "manifest is a list": say("manifest.json", "[]"),
    "manifest is no text": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe") and None,
    "manifest missing": lose("manifest.json"),
    "tensors missing": lose("tensors.safetensors"),
    "state missing": lose("state.json"),
    "a folder where the tensors should be": become_a_folder("tensors.safetensors"),
    "a folder where the state should be": become_a_folder("state.json"),
    "a folder where the manifest should be": become_a_folder("manifest.json"),
    "a link that leads nowhere": link_to_itself("state.json"),
    "state is a list": sealed(say("state.json", "[1, 2]")),
    "state is no JSON": sealed(say("state.json", '{"step": ')),
    "tensors of another format": sealed(say("tensors.safetensors", "PK not safetensors")),
    "tensors empty": sealed(say("tensors.safetensors", "")),
    "nothing but a name": lose_everything,
    "a file of that name": become_a_file,
    "a link of that name": become_a_link,
}
"""What every reader must notice."""

MISFIT: dict[str, Damage] = {
    "a key missing": change_state(lambda state: state.pop("place")),
    "a key of another type": change_state(lambda state: state.update(step="nine")),
    "a fraction for a count": change_state(lambda state: state.update(epoch=0.5)),
    "no random state": change_state(lambda state: state.pop("random")),
    "a random state of another kind": change_state(lambda state: state.update(random={"python": [3, [1], None], "numpy": {}})),
    "a curve of another form": change_state(lambda state: state.update(curve=[[1, 2]])),
    "a weight missing": change_tensors("weights.", lambda _: None),
    "a weight of another shape": change_tensors("weights.", lambda tensor: tensor[:1]),
    "a weight with a dimension more": change_tensors("weights.", lambda tensor: tensor[None]),
    "a best weight missing": change_tensors("best.", lambda _: None),
    "a moment of another shape": change_tensors("optimiser.exp_avg.", lambda tensor: tensor[:1]),
    "a moment missing": change_tensors("optimiser.exp_avg.", lambda _: None),
    "torch's random state missing": change_tensors("random.cpu", lambda _: None),
    "torch's random state cut short": change_tensors("random.cpu", lambda tensor: tensor[:8]),
}
"""What only a run can notice that is about to go on."""

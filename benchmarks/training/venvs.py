"""A virtual environment for each peer, built once and kept; versions are pinned, and a CUDA build is never downloaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["PEERS", "BuildFailed", "Peer", "build"]


class BuildFailed(Exception):
    """Why a peer cannot be had on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What is installed for a peer, after the torch that tunesmith itself uses."""

    requirements: tuple[str, ...]
    removed: tuple[str, ...] = ()
    """Packages that the resolver brings and that do not fit this torch."""
    stubs: tuple[str, ...] = ()
    """Modules that the peer imports and never uses for text; an empty one each."""

    @property
    def version(self) -> str:
        return self.requirements[0].replace("==", " ")


PEERS = {
    "trl": Peer(requirements=("trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets==5.2.0")),
    "llamafactory": Peer(
        requirements=("llamafactory==0.9.5", "transformers==5.6.0", "peft==0.18.1", "accelerate==1.11.0", "trl==0.24.0"),
        removed=("torchvision", "torchaudio"),  # built for another torch: importing them fails
        stubs=("torchaudio",),
    ),
    "torchtune": Peer(requirements=("torchtune==0.6.1", "torchao==0.15.0")),
}


def build(name: str, cache: Path) -> Path:
    """The Python of a peer's environment, built if it is not there yet.

    Raises:
        BuildFailed: pip could not, or would have to download CUDA.
    """
    peer, folder = PEERS[name], cache / name
    python, done = folder / "bin" / "python", folder / "built.json"
    torch = f"torch=={version('torch').partition('+')[0]}"
    wanted = {"torch": torch, "requirements": list(peer.requirements), "removed": list(peer.removed), "stubs": list(peer.stubs)}
    if done.is_file() and json.loads(done.read_text()) == wanted:
        return python
    print(f"building {folder} ({peer.version}; minutes, once)", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    for requirements in ([torch], [torch, *peer.requirements]):
        _refuse_cuda(pip, requirements)
        _run([*pip, "install", "--quiet", *requirements])
    if peer.removed:
        _run([*pip, "uninstall", "--quiet", "--yes", *peer.removed])
    packages = next(folder.glob("lib/python*/site-packages"))
    for stub in peer.stubs:
        (packages / f"{stub}.py").touch()
    done.write_text(json.dumps(wanted))
    return python


def _refuse_cuda(pip: list[str], requirements: list[str]) -> None:
    """Gigabytes that a CPU has no use for, and another torch than ours would make the comparison worthless."""
    report = json.loads(_run([*pip, "install", "--quiet", "--dry-run", "--report", "-", *requirements]))
    names = {item["metadata"]["name"].lower() for item in report["install"]}
    if cuda := sorted(name for name in names if name.startswith(("nvidia-", "triton"))):
        raise BuildFailed(
            f"installing {' '.join(requirements)} would download {', '.join(cuda[:3])} and more. Make a CPU build of torch "
            "reachable: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
        )


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if not line.startswith("WARNING")]
        raise BuildFailed(f"`{' '.join(command)}` failed: {' '.join(errors[-3:]) or result.returncode}")
    return result.stdout

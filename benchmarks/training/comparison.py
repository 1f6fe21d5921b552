"""All runs of a comparison, one after another, each side's turn coming before anybody's next one."""

from __future__ import annotations

import ctypes.util
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tunesmith
from benchmarks.training.running import RunFailed, environment, held_out_loss, our_path, say, time_side, usable_cores
from benchmarks.training.settings import ALLOCATORS, LEARNING_RATES, LORA, OURS, Side
from benchmarks.training.task import MAX_LENGTH, Task
from benchmarks.training.venvs import BuildFailed, build

__all__ = ["Comparison", "Turn", "plan"]

_HERE = Path(__file__).parent
_FIGURES = ("wall_s", "steady_s", "num_steps", "supervised", "peak_mb", "cpu_s", "foreign_share")


class Turn(NamedTuple):
    """Whose run comes next."""

    side: str
    allocator: str
    seed: int


def plan(sides: dict[str, Side], *, allocators: Sequence[str], seeds: int) -> list[Turn]:
    """Interleave the sides; each round begins with another one, so that nobody always follows the same neighbour.

    A side that is not tuned runs as it ships only: another allocator is already a tuning.
    """
    turns = []
    for seed in range(seeds):
        for number, allocator in enumerate(allocators):
            names = [name for name, side in sides.items() if side.is_tuned or allocator == "own"]
            start = (seed * len(allocators) + number) % len(names)
            turns += [Turn(name, allocator, seed) for name in names[start:] + names[:start]]
    return turns


@dataclass(kw_only=True)
class Comparison:
    """What does not change from run to run, and what came of the runs."""

    task: Task
    method: str
    number_format: str
    sides: dict[str, Side]
    cache: Path
    results: Path
    """A JSON line for each finished run, kept when the comparison is interrupted."""
    threads: int = field(default_factory=usable_cores)
    errors: dict[str, str] = field(default_factory=dict)
    """By side, or by side and allocator: why it has no figure."""

    def build_environments(self) -> None:
        """Build what is missing; a peer that cannot be built is left out, with the reason."""
        failed: dict[str, str] = {}
        for venv in dict.fromkeys(side.venv for side in self.sides.values() if side.venv):
            try:
                build(venv, self.cache)
            except BuildFailed as error:
                failed[venv] = str(error)
                say(f"{venv} is left out: {error}")
        self.errors |= {name: failed[side.venv] for name, side in self.sides.items() if side.venv in failed}

    def run(self, turns: Sequence[Turn], *, resume: bool) -> list[dict[str, Any]]:
        """Do every turn that is not done; each side reads its libraries from disk once before the first."""
        done = {run["key"]: run for run in self._finished()} if resume else {}
        if not resume:
            self.results.unlink(missing_ok=True)
        waiting = [turn for turn in turns if self._key(turn) not in done]
        for name in dict.fromkeys(turn.side for turn in waiting):
            self._warm_up(name)
        for turn in waiting:
            if turn.side not in self.errors:
                self._attempt(turn, number=turns.index(turn) + 1, of=len(turns), done=done)
        return [done[key] for turn in turns if (key := self._key(turn)) in done]

    def base_loss(self) -> float:
        """Held-out loss before any training."""
        return self._held_out(self.task.model)

    def _attempt(self, turn: Turn, *, number: int, of: int, done: dict[str, Any]) -> None:
        label = f"[{number}/{of}] seed {turn.seed} · {turn.allocator} · {turn.side}"
        say(f"{label} ...")
        try:
            run = self._timed(turn, rows=self.task.rows)
        except RunFailed as error:
            self.errors[turn.side] = str(error)
            say(f"{label} failed: {error}")
            return
        done[run["key"]] = run
        with self.results.open("a") as out:
            out.write(json.dumps(run) + "\n")
        say(
            f"{label} {run['wall_s']:.1f} s · {run['supervised'] / run['wall_s']:,.0f} tok/s · {run['peak_mb']:,.0f} MB · "
            f"held-out {run['held_out']:.3f} · {run['num_steps']} steps · others used {run['foreign_share']:.0%}"
        )

    def _warm_up(self, name: str) -> None:
        """A few rows, untimed: files come into the cache, and a side that cannot run here is told before the others wait for it."""
        if name in self.errors:
            return
        say(f"warming up {name} ...")
        rows = self.cache / "warm-up.jsonl"
        shortest = sorted(self.task.rows.read_text().splitlines(keepends=True), key=len)[:8]
        rows.write_text("".join(shortest))
        try:
            self._timed(Turn(name, "own", 0), rows=rows, evaluate=False)
        except RunFailed as error:
            self.errors[name] = str(error)
            say(f"{name} is left out: {error}")

    def _timed(self, turn: Turn, *, rows: Path, evaluate: bool = True) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self.cache, prefix="run-") as place:
            folder = Path(place)
            command = [self._python(turn.side), str(_HERE / "sides" / self.sides[turn.side].script)]
            run = time_side(
                command,
                self._orders(turn, rows=rows, folder=folder),
                env=self._environment(turn.side, turn.allocator, cache=folder / "hub"),
                log=self.cache / f"log-{turn.side}.txt",
            )
            saved = folder / "out" / str(run.get("saved_in", ""))
            return {
                "key": self._key(turn),
                **turn._asdict(),
                **{name: run[name] for name in _FIGURES},
                "number_format": run.get("format", self.number_format),
                "held_out": self._held_out(saved) if evaluate else None,
            }

    def _orders(self, turn: Turn, *, rows: Path, folder: Path) -> dict[str, Any]:
        settings = dict(self.sides[turn.side].settings)
        if settings.get("per_device_train_batch_size", 0) is None:
            settings["per_device_train_batch_size"] = self.rows_per_step
        return {
            "model": str(self.task.model),
            "rows": str(rows),
            "out": str(folder / "out"),
            "scratch": str(folder),
            "report": str(folder / "report.json"),
            "lora": LORA if self.method == "lora" else None,
            "learn": "everything" if self.method == "scratch" else "answers",
            "learning_rate": LEARNING_RATES[self.method],
            "max_length": MAX_LENGTH,
            "format": {"float32": "fp32", "bfloat16": "bf16"}[self.number_format],
            "seed": turn.seed,
            "settings": settings,
        }

    @property
    def rows_per_step(self) -> int:
        """For a side that takes rows and not tokens."""
        return max(1, round(self.task.num_rows * MAX_LENGTH / self.task.num_tokens))

    def _python(self, name: str) -> str:
        venv = self.sides[name].venv
        return sys.executable if venv is None else str(self.cache / venv / "bin" / "python")

    def _environment(self, name: str, allocator: str, *, cache: Path) -> dict[str, str]:
        extra = dict(ALLOCATORS[allocator])
        if allocator == "tcmalloc":
            extra["LD_PRELOAD"] = find_tcmalloc() or ""
        if self.sides[name].venv is None:  # the tunesmith that is imported here, and never our libraries for a peer
            extra |= our_path()
        return environment(threads=self.threads, cache=cache, extra=extra)

    def _held_out(self, saved: Path) -> float:
        learn = "everything" if self.method == "scratch" else "answers"
        with tempfile.TemporaryDirectory(dir=self.cache, prefix="score-") as place:
            return held_out_loss(saved, base=self.task.model, rows=self.task.held_out, learn=learn, scratch=Path(place))

    def _finished(self) -> Iterator[dict[str, Any]]:
        if self.results.is_file():
            yield from (json.loads(line) for line in self.results.read_text().splitlines())

    def _key(self, turn: Turn) -> str:
        """Equal keys are the same work: task, settings and, for our side, source."""
        side = self.sides[turn.side]
        source = _digest_of_source() if turn.side == OURS else ""
        facts = [self.task.digest, self.method, self.number_format, self.threads, *turn, side.settings, source]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def find_tcmalloc() -> str | None:
    """The library for LD_PRELOAD, if this machine has one."""
    return ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")


def _digest_of_source() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(tunesmith.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def clear(cache: Path) -> None:
    """Remove what an interrupted run left behind."""
    for folder in (*cache.glob("run-*"), *cache.glob("score-*")):
        shutil.rmtree(folder, ignore_errors=True)

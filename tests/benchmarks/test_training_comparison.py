"""The training benchmark's own logic: whose turn it is, what others took, ratios, resuming, and the peak."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from benchmarks.training import venvs
from benchmarks.training.__main__ import parse
from benchmarks.training.comparison import Comparison, Turn, plan
from benchmarks.training.running import RunFailed, busy_seconds, foreign_share, measure
from benchmarks.training.settings import SIDES, sides_of
from benchmarks.training.summary import peak_share, summarise, table, useful_flops
from benchmarks.training.task import Task
from torch.utils.flop_counter import FlopCounterMode

NAMES = list(SIDES)


def a_run(side: str, *, wall_s: float, seed: int = 0, allocator: str = "own") -> dict[str, Any]:
    return {
        "key": f"{side}-{allocator}-{seed}",
        "side": side,
        "allocator": allocator,
        "seed": seed,
        "wall_s": wall_s,
        "steady_s": wall_s / 2,
        "num_steps": 10,
        "supervised": 1000,
        "number_format": "float32",
        "peak_mb": 100.0 + seed,
        "cpu_s": wall_s,
        "foreign_share": 0.1 * seed,
        "held_out": 7.0 + seed,
    }


def test_each_side_has_one_turn_a_round_and_rounds_begin_with_different_sides() -> None:
    turns = plan(SIDES, allocators=["own", "glibc"], seeds=3)
    assert len(turns) == len(set(turns)) == 3 * (5 + 4)
    assert {turn.side for turn in turns if turn.allocator == "glibc"} == set(NAMES) - {"trl_default"}
    assert len({turns[i].side for i in (0, 9, 18)}) == 3
    assert [turn.seed for turn in turns] == [0] * 9 + [1] * 9 + [2] * 9


def test_ratios_are_medians_of_the_best_tuned_peer_by_ours() -> None:
    runs = [a_run("tunesmith", wall_s=wall, seed=seed) for seed, wall in enumerate((10.0, 30.0, 12.0))]
    runs += [a_run("trl_default", wall_s=24.0), a_run("trl", wall_s=48.0), a_run("torchtune", wall_s=36.0)]
    runs += [a_run("tunesmith", wall_s=10.0, allocator="glibc"), a_run("trl", wall_s=25.0, allocator="glibc")]
    result = summarise(runs, errors={"llamafactory": "no wheel"}, names=NAMES)
    assert result["ratio_best_tuned"] == pytest.approx(36 / 12), "TRL's defaults are faster here and not tuned"
    assert result["best_tuned"] == "torchtune"
    assert result["ratio_trl_default"] == pytest.approx(24 / 12)
    assert result["ratio_same_allocator"] == pytest.approx(25 / 10)
    assert result["held_out"] == pytest.approx(8.0)
    assert result["ours"]["supervised_tokens_per_s"] == pytest.approx(1000 / 12)
    assert result["ours"]["steady_supervised_tokens_per_s"] == pytest.approx(900 / 6)
    assert result["ours"]["peak_mb"] == 102
    assert result["peers"]["llamafactory"] == {"error": "no wheel"}
    assert {"wall_seconds", "supervised_tokens_per_s", "peak_mb", "held_out"} <= result["peers"]["trl"].keys()
    assert json.loads(json.dumps(result)) == result
    assert "no wheel" in table(result)


def test_without_a_peer_there_is_no_ratio() -> None:
    result = summarise([a_run("tunesmith", wall_s=10.0)], errors={}, names=["tunesmith"])
    assert (result["ratio_best_tuned"], result["ratio_trl_default"], result["ratio_same_allocator"]) == (None, None, None)


def test_useful_flops_are_those_that_torch_counts() -> None:
    shape = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, attn_implementation="eager"))
    tokens = torch.arange(64)[None] % 96
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens).logits.sum().backward()
    whole_square = 2 * 6 * 64**2 * 32  # torch counts all of each layer's square; half of it is masked away
    expected = counter.get_total_flops() - whole_square
    assert useful_flops(shape, lengths=[64], supervised=64, method="full") == pytest.approx(expected, rel=2e-3)
    frozen = useful_flops(shape, lengths=[64], supervised=64, method="lora")
    assert frozen > useful_flops(shape, lengths=[64], supervised=0, method="lora")


def test_the_share_of_the_peak_leaves_the_first_step_out() -> None:
    assert peak_share([a_run("tunesmith", wall_s=10.0)], flops=1e12, peak_tflops=0.9) == pytest.approx(0.9 / 5 / 0.9)


def test_busy_time_counts_neither_idle_nor_waiting_nor_guests_twice() -> None:
    ticks = 100  # sysconf(SC_CLK_TCK) on every Linux
    stat = f"cpu  {1 * ticks} {2 * ticks} {3 * ticks} 400 500 {6 * ticks} {7 * ticks} {8 * ticks} 900 1000\ncpu0 1 1 1 1\n"
    assert busy_seconds(stat) == pytest.approx(1 + 2 + 3 + 6 + 7 + 8)
    assert foreign_share(busy_s=15.0, own_s=10.0, wall_s=10.0, cores=2) == pytest.approx(0.25)
    assert foreign_share(busy_s=9.9, own_s=10.0, wall_s=10.0, cores=2) == 0.0


def test_a_run_is_measured_by_its_own_memory(tmp_path: Path) -> None:
    """Measured from a process as small as the benchmark's own: Linux counts a parent's memory as its child's."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.training.__main__ import main; from benchmarks.training.running import *\n"
        "for child in ('pass', 'x = bytes(1) * 300_000_000'):\n"
        "    print(measure([sys.executable, '-c', child], env={}, log=Path(sys.argv[1])).peak_mb)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "log.txt")]
    lines = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    small, large = map(float, lines[:2])
    assert small < 100
    assert large == pytest.approx(small + 300e6 / 2**20, rel=0.5)
    assert large > 300e6 / 2**20
    assert lines[2] == "[]", "a parent with torch in it makes every side's peak look larger than it is"


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"exit status 3.*last words"):
        measure([sys.executable, "-c", "print('last words'); exit(3)"], env={}, log=tmp_path / "log.txt")


class Fake(Comparison):
    """Runs nothing; stops at the turn that it is told to."""

    stop_at: Turn | None = None
    broken: str | None = None
    did: list[Turn]

    def _warm_up(self, name: str) -> None:
        pass

    def _timed(self, turn: Turn, **_: object) -> dict[str, Any]:
        if turn == self.stop_at:
            raise KeyboardInterrupt
        if turn.side == self.broken:
            raise RunFailed("it broke")
        self.did.append(turn)
        return {**a_run(turn.side, wall_s=1.0, seed=turn.seed, allocator=turn.allocator), "key": self._key(turn)}


def fake(folder: Path) -> Fake:
    task = Task(folder=folder, size="S", digest="d", num_rows=10, num_tokens=2048, num_supervised=1, lengths=(1,))
    sides = sides_of(["trl", "torchtune"])
    comparison = Fake(
        task=task, method="lora", number_format="float32", sides=sides, cache=folder, results=folder / "results.jsonl", threads=2
    )
    comparison.did = []
    return comparison


def test_an_interrupted_comparison_keeps_its_runs_and_resumes_only_on_request(tmp_path: Path) -> None:
    turns = plan(sides_of(["trl", "torchtune"]), allocators=["own"], seeds=2)
    first = fake(tmp_path)
    first.stop_at = turns[3]
    with pytest.raises(KeyboardInterrupt):
        first.run(turns, resume=False)
    second = fake(tmp_path)
    assert [Turn(run["side"], run["allocator"], run["seed"]) for run in second.run(turns, resume=True)] == turns
    assert (first.did, second.did) == (turns[:3], turns[3:])
    third = fake(tmp_path)
    third.run(turns, resume=False)
    assert third.did == turns


def test_a_peer_that_breaks_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    turns = plan(sides_of(["trl", "torchtune"]), allocators=["own", "glibc"], seeds=1)
    comparison = fake(tmp_path)
    comparison.broken = "torchtune"
    runs = comparison.run(turns, resume=False)
    assert {run["side"] for run in runs} == {"tunesmith", "trl_default", "trl"}
    assert comparison.errors == {"torchtune": "it broke"}


def test_a_build_that_would_download_cuda_is_refused() -> None:
    report = {"install": [{"metadata": {"name": "torch"}}, {"metadata": {"name": "nvidia-cublas"}}]}
    pip = [sys.executable, "-c", f"print({json.dumps(json.dumps(report))})"]
    with pytest.raises(venvs.BuildFailed, match=r"nvidia-cublas.*PIP_EXTRA_INDEX_URL"):
        venvs._refuse_cuda(pip, ["torch"])


def test_options_have_defaults_by_size_and_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert (parse([]).size, parse([]).steps, parse(["--size", "M"]).steps) == ("S", 96, 12)
    assert parse(["--peers", "trl,torchtune"]).peers == ["trl", "torchtune"]
    for arguments, words in ((["--peers", "axolotl"], "'axolotl' is unknown"), (["--seeds", "0"], "not a whole number from 1")):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert words in capsys.readouterr().err


def test_a_peer_is_given_the_allocator_and_never_our_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "anywhere")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    comparison = fake(tmp_path)
    ours, theirs = (comparison._environment(name, "glibc", cache=tmp_path) for name in ("tunesmith", "torchtune"))
    assert "PYTHONPATH" not in theirs
    assert {key for key in theirs if key.startswith("MALLOC_")} == {
        "MALLOC_MMAP_MAX_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_TOP_PAD_",
    }
    assert ours == {**theirs, "PYTHONPATH": ours["PYTHONPATH"]}

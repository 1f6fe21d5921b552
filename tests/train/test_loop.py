"""The loop on toy tasks: a tiny Llama learns to count."""

import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tunesmith.errors import Interrupted
from tunesmith.model import ScratchConfig, add_lora, new_model, this_machine
from tunesmith.model.forward import SummedLoss
from tunesmith.records import CurvePoint, TokenBatch
from tunesmith.train import CheckpointWarning
from tunesmith.train.config import TrainConfig
from tunesmith.train.loop import FitResult, Step, fit, validation_loss
from tunesmith.train.memory import memory_in_use
from tunesmith.train.schedule import pace_at

SHAPE = ScratchConfig(vocab_size=260, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, context=64)


def tiny() -> nn.Module:
    return new_model(SHAPE, special_tokens={"pad_token_id": 0}, machine=this_machine(), seed=0)


def lora(*, dropout: float = 0.0, seed: int = 1) -> nn.Module:
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)  # random features large enough for an adapter to work with
    return add_lora(model, rank=4, alpha=8.0, dropout=dropout, seed=seed)


def batch(documents: Sequence[Sequence[int]]) -> TokenBatch:
    targets = [token for document in documents for token in (*document[1:], -100)]
    return TokenBatch(
        tokens=np.array([token for document in documents for token in document], np.int32),
        targets=np.array(targets, np.int32),
        weights=np.array([float(target >= 0) for target in targets], np.float32),
        offsets=np.cumsum([0, *map(len, documents)]).astype(np.int32),
        record_ids=tuple(map(str, range(len(documents)))),
    )


def counting(start: int, length: int = 10) -> list[int]:
    return [3 + (start + i) % 20 for i in range(length)]


def epoch(number: int) -> list[TokenBatch]:
    starts = np.random.default_rng([0, number]).permutation(20).tolist()
    return [batch([counting(start) for start in starts[i : i + 4]]) for i in range(0, 20, 4)]


NOISE = [batch([np.random.default_rng(i).integers(3, 23, 10).tolist() for i in range(6)])]


def run(
    model: nn.Module,
    folder: Path,
    *,
    steps: int = 20,
    validation: Sequence[TokenBatch] = (),
    stop_at: int | None = None,
    seen: list[Step] | None = None,
    batches_per_step: int = 1,
    rate: float = 3e-3,
    **settings: object,
) -> FitResult:
    seen = [] if seen is None else seen
    return fit(
        model,
        epochs=epoch,
        validation=validation,
        total_steps=steps,
        batches_per_step=batches_per_step,
        config=TrainConfig.model_validate(settings),
        learning_rate=rate,
        device="cpu",
        folder=folder,
        on_step=seen.append,
        should_stop=lambda: stop_at is not None and seen[-1].step == stop_at,
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    for (name, ours), theirs in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("build", [tiny, lora])
def test_the_loss_falls_on_a_task_that_can_be_learned(build: type, tmp_path: Path) -> None:
    model, seen = build(), []
    result = run(model, tmp_path, steps=60, validation=[batch([counting(5, 25)])], rate=1e-2, evaluations=6, seen=seen)
    losses = [point.validation_loss for point in result.curve if point.validation_loss is not None]
    assert losses[0] > 1.5 * losses[-1]
    assert result.curve[0].train_loss > 1.5 * result.curve[-1].train_loss
    assert [step.step for step in seen] == list(range(1, 61))
    assert all(step.total_steps == 60 and step.tokens_per_s > 0 and step.eta_s >= 0 for step in seen)
    assert seen[-1].eta_s == 0
    assert [step.step for step in seen if step.validation_loss is not None] == [10, 20, 30, 40, 50, 60]
    assert not model.training


def test_the_reported_loss_is_the_mean_since_the_last_measurement(tmp_path: Path) -> None:
    seen: list[Step] = []
    model = tiny()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # uniform answers, and no gradient reaches a matrix
    result = run(model, tmp_path, steps=4, evaluations=2, rate=1e-9, seen=seen, validation=NOISE)
    assert [step.loss for step in seen] == pytest.approx([math.log(260)] * 4, rel=1e-4)
    assert [point.train_loss for point in result.curve] == pytest.approx([math.log(260)] * 2, rel=1e-4)
    assert [point.validation_loss for point in result.curve] == pytest.approx([math.log(260)] * 2, rel=1e-4)


def test_one_step_is_adamw_on_the_clipped_gradient_of_the_mean_loss(tmp_path: Path) -> None:
    model, expected = tiny(), tiny()
    (first, *_) = epoch(0)
    rows = torch.tensor(first.tokens).view(4, 10).long()  # equal lengths, so the documents are an ordinary batch
    logits = expected(input_ids=rows).logits[:, :-1]
    nn.functional.cross_entropy(logits.reshape(-1, 260), rows[:, 1:].reshape(-1)).backward()
    # So small a norm that Adam's epsilon (1e-8) shows, and with it the clipping. One step: m / sqrt(v) = g / |g|.
    nn.utils.clip_grad_norm_(expected.parameters(), 1e-6)
    run(model, tmp_path, steps=1, rate=0.01, optimiser={"max_grad_norm": 1e-6, "weight_decay": 0.5})
    for (name, ours), before in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert before.grad is not None
        decay = 0.5 if before.ndim == 2 else 0.0
        after = before * (1 - 0.01 * decay) - 0.01 * before.grad / (before.grad.abs() + 1e-8)
        torch.testing.assert_close(ours.detach(), after.detach(), rtol=1e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_micro_batches_of_the_same_rows_give_the_same_weights(tmp_path: Path) -> None:
    whole, parts = tiny(), tiny()

    def merged(number: int) -> list[TokenBatch]:
        pairs = epoch(number)[:4]
        return [
            TokenBatch(
                tokens=np.concatenate([a.tokens, b.tokens]),
                targets=np.concatenate([a.targets, b.targets]),
                weights=np.concatenate([a.weights, b.weights]),
                offsets=np.concatenate([a.offsets, b.offsets[1:] + a.num_tokens]),
                record_ids=a.record_ids + b.record_ids,
            )
            for a, b in (pairs[:2], pairs[2:])
        ]

    config = TrainConfig()
    common = {"validation": (), "total_steps": 6, "config": config, "learning_rate": 1e-3, "device": "cpu"}
    ignore: list[Step] = []
    fit(whole, epochs=merged, batches_per_step=1, folder=tmp_path / "a", on_step=ignore.append, **common)  # type: ignore[arg-type]
    four = lambda number: epoch(number)[:4]  # noqa: E731
    fit(parts, epochs=four, batches_per_step=2, folder=tmp_path / "b", on_step=ignore.append, **common)  # type: ignore[arg-type]
    for ours, theirs in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_batch_without_supervision_costs_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    model, before = tiny(), weights(tiny())
    empty = batch([[4], [5]])
    seen: list[Step] = []
    fit(
        model,
        epochs=lambda _: [empty],
        validation=[],
        total_steps=2,
        batches_per_step=1,
        config=TrainConfig(),
        learning_rate=0.1,
        device="cpu",
        folder=tmp_path,
        on_step=seen.append,
    )
    assert [step.loss for step in seen] == [0.0, 0.0]
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def best_of(curve: Sequence[CurvePoint]) -> CurvePoint:
    return min(curve, key=lambda point: math.inf if point.validation_loss is None else point.validation_loss)


@pytest.mark.parametrize("build", [tiny, lora])
def test_the_best_weights_are_kept_and_not_the_last(build: type, tmp_path: Path) -> None:
    model = build()
    result = run(model, tmp_path, steps=60, validation=NOISE, rate=2e-2, evaluations=12, patience=None, schedule="constant")
    best = best_of(result.curve)
    assert best.step < 60
    assert (result.best_step, result.num_steps, result.stopped_early) == (best.step, 60, False)
    assert len(result.curve) == 12
    assert validation_loss(model, NOISE, device="cpu") == best.validation_loss


def test_a_run_out_of_patience_stops_early(tmp_path: Path) -> None:
    model = tiny()
    result = run(model, tmp_path, steps=60, validation=NOISE, rate=2e-2, evaluations=12, patience=2, schedule="constant")
    best = best_of(result.curve)
    assert result.stopped_early
    assert result.num_steps == best.step + 2 * 5
    assert validation_loss(model, NOISE, device="cpu") == best.validation_loss


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    model = tiny()
    result = run(model, tmp_path, steps=10, evaluations=2, patience=1)
    assert (result.best_step, result.num_steps, result.stopped_early) == (10, 10, False)
    assert [point.validation_loss for point in result.curve] == [None, None]
    once_more = tiny()
    run(once_more, tmp_path / "again", steps=10, evaluations=2, patience=1)
    assert_equal(model, once_more)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), tiny().parameters(), strict=True))


def test_a_loss_that_is_not_finite_from_the_start_is_no_matter_of_the_learning_rate(tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(float("inf"))
    with pytest.raises(
        FloatingPointError, match=r"nan.*before anything was learned: a weight of the base.*train\.compute\.precision: fp32"
    ):
        run(model, tmp_path)


def test_a_loss_that_is_not_finite_later_stops_the_run_with_advice_on_the_learning_rate(tmp_path: Path) -> None:
    model, seen = tiny(), []

    def explode(*_: object) -> None:
        if len(seen) == 3:
            next(model.parameters()).data.fill_(float("inf"))

    model.get_decoder().register_forward_pre_hook(explode)  # type: ignore[operator]
    with pytest.raises(FloatingPointError, match=r"nan.*after step 3.*Set train\.learning_rate to a third"):
        run(model, tmp_path, seen=seen)


def test_a_validation_loss_that_is_not_finite_stops_the_run_too(tmp_path: Path) -> None:
    model, seen = tiny(), []

    def explode(*_: object) -> None:
        if not model.training:
            next(model.parameters()).data.fill_(float("inf"))

    run(model, tmp_path / "warm", steps=1)  # the trial whether it packs runs in evaluation mode
    model.get_decoder().register_forward_pre_hook(explode)  # type: ignore[operator]
    with pytest.raises(FloatingPointError, match=r"validation loss became nan after step 2"):
        run(model, tmp_path, steps=4, evaluations=2, validation=NOISE, seen=seen)


def test_momentum_and_the_optimisers_memory_are_the_recipes(tmp_path: Path) -> None:
    """Three steps against PyTorch's plain AdamW, its betas set by hand."""
    model, expected = tiny(), tiny()
    optimiser = torch.optim.AdamW(expected.parameters(), lr=1e-3, betas=(0.6, 0.7), weight_decay=0.0)
    for rows in (torch.tensor(batch.tokens).view(4, 10).long() for batch in epoch(0)[:3]):
        logits = expected(input_ids=rows).logits[:, :-1]
        nn.functional.cross_entropy(logits.reshape(-1, 260), rows[:, 1:].reshape(-1)).backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    settings = {"schedule": "constant", "warmup": 0.0, "optimiser": {"beta1": 0.6, "beta2": 0.7}}
    run(model, tmp_path, steps=3, rate=1e-3, **settings)  # type: ignore[arg-type]
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


def test_clipped_steps_are_counted_across_a_stop(tmp_path: Path) -> None:
    always = {"steps": 6, "optimiser": {"max_grad_norm": 1e-6}}
    assert run(tiny(), tmp_path / "always", **always).num_clipped == 6  # type: ignore[arg-type]
    assert run(tiny(), tmp_path / "never", steps=6, optimiser={"max_grad_norm": 1e6}).num_clipped == 0
    with pytest.raises(Interrupted):
        run(tiny(), tmp_path / "stopped", stop_at=4, **always)  # type: ignore[arg-type]
    assert run(tiny(), tmp_path / "stopped", **always).num_clipped == 6  # type: ignore[arg-type]


def test_the_loop_trains_on_whatever_loss_it_is_given(tmp_path: Path) -> None:
    """A method of its own: the squared distance of the weights from 1, divided like any other by the step's weight."""

    def towards_one(model: nn.Module, batch: TokenBatch, *, device: str) -> SummedLoss:
        total = sum(((parameter - 1) ** 2).sum() for parameter in model.parameters())
        return SummedLoss(torch.as_tensor(total, device=device), float(batch.num_supervised))

    model = tiny()
    fit(
        model,
        epochs=epoch,
        validation=[],
        total_steps=60,
        batches_per_step=1,
        config=TrainConfig(schedule="constant"),
        learning_rate=0.05,
        device="cpu",
        folder=tmp_path,
        on_step=lambda _: None,
        loss=towards_one,
    )
    assert all(torch.allclose(parameter, torch.ones(()), atol=0.3) for parameter in model.parameters())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path) -> None:
    model, before = tiny(), weights(tiny())
    next(model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match="gradient norm"):
        run(model, tmp_path)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("build", [tiny, lambda: lora(dropout=0.1)], ids=["full", "lora with dropout"])
@pytest.mark.parametrize("stop_at", [1, 7, 8, 19])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(build: type, stop_at: int, tmp_path: Path) -> None:
    whole, seen_whole = build(), []
    options = {"steps": 20, "validation": [batch([counting(3, 12)])], "evaluations": 5, "batches_per_step": 2}
    expected = run(whole, tmp_path / "whole", seen=seen_whole, **options)  # type: ignore[arg-type]
    with pytest.raises(Interrupted, match=f"step {stop_at} of 20"):
        run(build(), tmp_path / "stopped", stop_at=stop_at, **options)  # type: ignore[arg-type]
    resumed, seen = build(), []
    torch.manual_seed(999)  # whatever the new process has drawn before
    assert run(resumed, tmp_path / "stopped", seen=seen, **options) == expected  # type: ignore[arg-type]
    assert_equal(resumed, whole)
    assert [(step.step, step.loss) for step in seen] == [(step.step, step.loss) for step in seen_whole[stop_at:]]


def test_patience_and_the_best_weights_outlive_a_stop(tmp_path: Path) -> None:
    options = {"steps": 60, "validation": NOISE, "rate": 2e-2, "evaluations": 12, "patience": 2, "schedule": "constant"}
    whole, resumed = tiny(), tiny()
    expected = run(whole, tmp_path / "whole", **options)  # type: ignore[arg-type]
    assert expected.stopped_early
    with pytest.raises(Interrupted):  # after one measurement that was worse, before the second
        run(tiny(), tmp_path / "stopped", stop_at=expected.best_step + 7, **options)  # type: ignore[arg-type]
    assert run(resumed, tmp_path / "stopped", **options) == expected  # type: ignore[arg-type]
    assert_equal(resumed, whole)


def test_a_damaged_checkpoint_costs_steps_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.train.loop.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, resumed = tiny(), tiny()
    expected = run(whole, tmp_path / "whole", steps=12)
    with pytest.raises(Interrupted):
        run(tiny(), tmp_path / "stopped", steps=12, stop_at=9)
    (tmp_path / "stopped" / "step-00000009" / "state.json").write_text("{}")
    seen: list[Step] = []
    with pytest.warns(CheckpointWarning, match="step-00000009"):
        assert run(resumed, tmp_path / "stopped", steps=12, seen=seen) == expected
    assert seen[0].step == 9
    assert_equal(resumed, whole)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first, again = tiny(), tiny()
    with pytest.raises(Interrupted):
        run(first, tmp_path, steps=5, stop_at=5)
    seen: list[Step] = []
    result = run(again, tmp_path, steps=5, seen=seen)
    assert (seen, result.num_steps) == ([], 5)
    assert_equal(first, again)


def test_a_step_tells_its_rate_its_gradient_and_its_tokens(tmp_path: Path) -> None:
    """Against the schedule, and against the plain gradient of the mean loss of the first step."""
    seen: list[Step] = []
    run(tiny(), tmp_path, steps=6, seen=seen, optimiser={"max_grad_norm": 1e-3})
    rates = [pace_at(step, total_steps=6, peak=3e-3, config=TrainConfig()).rate for step in range(6)]
    assert [step.learning_rate for step in seen] == rates
    first = epoch(0)[0]
    assert seen[0].num_tokens == len(first.tokens) == 40
    assert seen[0].num_supervised == 36  # the last token of each of the four documents predicts nothing
    model = tiny()
    total = torch.zeros(())
    for start in range(4):
        document = torch.tensor(first.tokens[10 * start : 10 * start + 10]).long()[None]
        logits = model(document).logits[0, :-1]
        total = total + nn.functional.cross_entropy(logits, document[0, 1:], reduction="sum") / 36
    total.backward()  # type: ignore[no-untyped-call]
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None))
    assert seen[0].step_loss == pytest.approx(float(total.detach()), rel=1e-5)
    assert seen[0].grad_norm == pytest.approx(norm, rel=1e-4)
    assert [step.elapsed_s for step in seen] == sorted(step.elapsed_s for step in seen)


def test_the_memory_told_is_the_resident_set_of_this_process() -> None:
    """As /proc/self/status says it, within the kernel's own rounding of its counters, and it moves with a large tensor."""
    before = memory_in_use("cpu")
    ballast = mmap.mmap(-1, 64 * 2**20)  # not from the heap, which keeps what was freed
    ballast.write(b"1" * len(ballast))
    status = Path("/proc/self/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
    assert memory_in_use("cpu") == pytest.approx(resident, abs=8 * 2**20)
    assert memory_in_use("cpu") - before > 48 * 2**20
    ballast.close()

"""Packed tokens in, a trained model folder out: methods, the loop, checkpoints, the plan and plain-word warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.train.checkpoint import CheckpointWarning
    from tunesmith.train.compute import CompileWarning
    from tunesmith.train.config import ComputeConfig, LoraConfig, OptimiserConfig, TrainConfig
    from tunesmith.train.contract import contract_of
    from tunesmith.train.diagnosis import diagnose
    from tunesmith.train.job import Outcome, Plan, plan_job, train_job
    from tunesmith.train.loop import Step
    from tunesmith.train.preparation import Job, encode_row
    from tunesmith.train.proofs import Subject, prove_training
    from tunesmith.train.proofs_process import Saved

__all__ = [
    "CheckpointWarning",
    "CompileWarning",
    "ComputeConfig",
    "Job",
    "LoraConfig",
    "OptimiserConfig",
    "Outcome",
    "Plan",
    "Saved",
    "Step",
    "Subject",
    "TrainConfig",
    "contract_of",
    "diagnose",
    "encode_row",
    "plan_job",
    "prove_training",
    "train_job",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "CheckpointWarning": "checkpoint",
        "CompileWarning": "compute",
        "ComputeConfig": "config",
        "Job": "preparation",
        "LoraConfig": "config",
        "OptimiserConfig": "config",
        "Outcome": "job",
        "Plan": "job",
        "Saved": "proofs_process",
        "Step": "loop",
        "Subject": "proofs",
        "TrainConfig": "config",
        "contract_of": "contract",
        "diagnose": "diagnosis",
        "encode_row": "preparation",
        "plan_job": "job",
        "prove_training": "proofs",
        "train_job": "job",
    },
)

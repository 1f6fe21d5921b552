"""The whole job: a recipe, the stages that carry it out, and the versions that come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.pipeline.accounting import account_in_words, passes_in_words, tools_warning
    from tunesmith.pipeline.card import version_card
    from tunesmith.pipeline.chat_model import ChatModel
    from tunesmith.pipeline.checking import Checked, check
    from tunesmith.pipeline.cleaning import clean_rows
    from tunesmith.pipeline.covering import Coverage, CoveredFile, cover_file
    from tunesmith.pipeline.curve import Curve, read_curve
    from tunesmith.pipeline.evaluation import Judged, compare_refs, evaluate_ref
    from tunesmith.pipeline.lm_eval import export_samples, run_lm_eval
    from tunesmith.pipeline.preview import Piece, Preview
    from tunesmith.pipeline.progress import Silent, Watcher
    from tunesmith.pipeline.proving import Sheet, prove, stored_sheet
    from tunesmith.pipeline.proving_endpoint import prove_endpoint
    from tunesmith.pipeline.recipe import LoadedRecipe, Recipe, json_schema, load_recipe
    from tunesmith.pipeline.reproduction import Reproduction, reproduce_version
    from tunesmith.pipeline.running import Finished, run
    from tunesmith.pipeline.safety import scale_sweep
    from tunesmith.pipeline.serving import serve_version
    from tunesmith.pipeline.starter import start_project
    from tunesmith.pipeline.trackers import TrackerName
    from tunesmith.pipeline.validating import validate_files
    from tunesmith.pipeline.version_diff import VersionsDiff, diff_versions
    from tunesmith.pipeline.versions import open_version

__all__ = [
    "ChatModel",
    "Checked",
    "Coverage",
    "CoveredFile",
    "Curve",
    "Finished",
    "Judged",
    "LoadedRecipe",
    "Piece",
    "Preview",
    "Recipe",
    "Reproduction",
    "Sheet",
    "Silent",
    "TrackerName",
    "VersionsDiff",
    "Watcher",
    "account_in_words",
    "check",
    "clean_rows",
    "compare_refs",
    "cover_file",
    "diff_versions",
    "evaluate_ref",
    "export_samples",
    "json_schema",
    "load_recipe",
    "open_version",
    "passes_in_words",
    "prove",
    "prove_endpoint",
    "read_curve",
    "reproduce_version",
    "run",
    "run_lm_eval",
    "scale_sweep",
    "serve_version",
    "start_project",
    "stored_sheet",
    "tools_warning",
    "validate_files",
    "version_card",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ChatModel": "chat_model",
        "Checked": "checking",
        "Coverage": "covering",
        "CoveredFile": "covering",
        "Curve": "curve",
        "Finished": "running",
        "Judged": "evaluation",
        "LoadedRecipe": "recipe",
        "Piece": "preview",
        "Preview": "preview",
        "Recipe": "recipe",
        "Reproduction": "reproduction",
        "Sheet": "proving",
        "Silent": "progress",
        "TrackerName": "trackers",
        "VersionsDiff": "version_diff",
        "Watcher": "progress",
        "account_in_words": "accounting",
        "check": "checking",
        "clean_rows": "cleaning",
        "compare_refs": "evaluation",
        "cover_file": "covering",
        "diff_versions": "version_diff",
        "export_samples": "lm_eval",
        "evaluate_ref": "evaluation",
        "json_schema": "recipe",
        "load_recipe": "recipe",
        "open_version": "versions",
        "passes_in_words": "accounting",
        "prove": "proving",
        "prove_endpoint": "proving_endpoint",
        "read_curve": "curve",
        "reproduce_version": "reproduction",
        "run": "running",
        "run_lm_eval": "lm_eval",
        "scale_sweep": "safety",
        "serve_version": "serving",
        "start_project": "starter",
        "stored_sheet": "proving",
        "tools_warning": "accounting",
        "validate_files": "validating",
        "version_card": "card",
    },
)

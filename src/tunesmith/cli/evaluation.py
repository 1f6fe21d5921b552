"""The commands that judge: answers made elsewhere, and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, one_of, show

__all__ = ["score"]


def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Rows with `prediction` and `reference` (or `references`).")
    ],
    metrics: Annotated[
        str,
        typer.Option(
            help="Of rouge, bleu, chrf, ter, squad, classification, calibration, diversity, grounding; or your own FILE.py:FUNCTION."
        ),
    ] = "rouge,bleu,chrf",
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Another system's predictions of the same rows, to compare with.")
    ] = None,
    stem: Annotated[bool, typer.Option("--stem", help="ROUGE compares Porter stems.")] = False,
    rouge_tokenizer: Annotated[
        str, typer.Option(help="unicode: words of any script; rouge_score: what that package takes for words.")
    ] = "unicode",
    facts: Annotated[Path | None, typer.Option(metavar="SHEET", help="A fact sheet, for `grounding`.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the resampling behind intervals and p values.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Score predictions made elsewhere, with intervals, and compare two systems row by row."""
    from tunesmith.evaluate.rouge import RougeTokenizer
    from tunesmith.evaluate.scoring import score_files
    from tunesmith.terminal.score_screen import score_screen

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    tokenizer = one_of(rouge_tokenizer, RougeTokenizer, option="--rouge-tokenizer")
    found = score_files(predictions, metrics=names, against=against, stems=stem, tokenizer=tokenizer, facts=facts, seed=seed)
    show(found.as_json() if as_json else score_screen(found), as_json=as_json)

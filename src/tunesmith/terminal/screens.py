"""Screens of results. Each answers three questions: what happened, can I trust it, what next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunesmith.evaluate import table
from tunesmith.evaluate.reading import arms_table
from tunesmith.pipeline import Checked, Finished, Sheet, account_in_words, passes_in_words, read_curve, tools_warning
from tunesmith.records import ModelVersion, Proof, Report
from tunesmith.terminal.curve_screen import curve_screen
from tunesmith.terminal.data_screens import coverage_line, ledger_table, preview_screen
from tunesmith.terminal.layout import columns, duration, field, on_one_line, size

if TYPE_CHECKING:
    from tunesmith.store import Diagnosis, Store

__all__ = [
    "checked_screen",
    "diagnosis_screen",
    "finished_as_json",
    "finished_screen",
    "models_screen",
    "sheet_screen",
    "version_as_json",
]

_NUM_SAMPLES = 5

Listed = Sequence[tuple[ModelVersion, Sequence[str]]]
"""Versions, each with the aliases that point to it."""


def checked_screen(checked: Checked, *, recipe: Path) -> Text:
    """What `check` found."""
    plan, snapshot = checked.plan, checked.snapshot
    duplicates = sum(n for reason, n in snapshot.dropped.items() if reason.endswith("_duplicate"))
    others = sum(snapshot.dropped.values()) - duplicates
    quarantined = others if snapshot.num_bad is None else snapshot.num_bad
    rows = (
        f"{snapshot.num_read:,} read · {sum(snapshot.splits.values()):,} kept · "
        f"{duplicates:,} duplicates · {quarantined:,} quarantined"
    ) + (f" · {others - quarantined:,} left out" if others > quarantined else "")
    model = f"{plan.num_parameters / 1e6:.2f} M parameters, {plan.num_trained_parameters / 1e6:.2f} M of them trained"
    steps = (
        f"{plan.num_steps:,} steps · learning rate {plan.learning_rate:.1e} · about {duration(plan.seconds)} "
        f"(measured: a few steps) · {size(plan.peak_bytes)} of memory"
    )
    return _joined(
        [
            field("rows", rows),
            field("split", " · ".join(f"{name} {count:,}" for name, count in snapshot.splits.items())),
            *([field("leakage", str(snapshot.leakage))] if snapshot.leakage is not None else []),
            field("formats", "\n".join(f"{path}: {found}" for path, found in snapshot.formats.items())),
            *_token_account(checked),
            *([coverage_line(checked.coverage, num_test=snapshot.splits["test"])] if checked.coverage else []),
            field("model", f"{model} · {plan.machine}"),
            field("plan", steps),
            *_learning(checked),
            *(part for shown in checked.previews for part in preview_screen(shown)),
            field("next", f"tunesmith run {recipe}"),
        ]
    )


def _learning(checked: Checked) -> Iterator[Text]:
    curve = checked.learning_curve
    if curve is not None:
        yield field("more data", curve.verdict)
        yield Text(columns([["rows", "validation loss"], *([f"{n:,}", f"{loss:.3f}"] for n, loss in curve.points)]))


def _token_account(checked: Checked) -> Iterator[Text]:
    """The ledger: in one sentence, and source by source where there is more than one."""
    plan = checked.plan
    ledger = plan.ledger.as_json()
    yield field("tokens", account_in_words(ledger["total"]))
    if warning := tools_warning(ledger["total"]):
        yield field("tools", warning)
    if len(ledger["sources"]) > 1:
        yield Text(columns(ledger_table(plan.ledger)))
    if passes := passes_in_words({name: passed._asdict() for name, passed in plan.sources.items()}):
        capped = [name for name, part in (plan.mix or {}).items() if part["capped"]]
        note = [f"data.mix.max_epochs holds back {', '.join(capped)}: the epochs are shorter for it"] if capped else []
        yield field("mix", "\n".join([*passes, *note]))
    if plan.dropped:
        first = plan.dropped[0]
        yield field("left out", f"{len(plan.dropped):,} rows, the first: {first.source}: {first.detail}")


def finished_screen(finished: Finished, *, store: Store) -> Text:
    """What a run ends with: its curve, the table, a few answers side by side, the version, and what to do next."""
    version, report = finished.version, finished.report
    parts: list[Text] = []
    if finished.is_new:  # its warnings were told while it ran
        parts += [Text(""), curve_screen(replace(read_curve(version.ref, store=store), warnings=()))]
    if report is not None:
        parts += [Text(""), Text(columns(table(report))), Text("")]
        parts += [Text(columns(arms)), Text("")] if (arms := arms_table(report)) else []
        parts += [field("verdict", report.verdict), Text("")]
        parts += _samples(report)
    if finished.page is not None:
        parts.append(field("report", str(finished.page)))
    standing = (
        f"is {', '.join(finished.aliases)}" if finished.aliases else "is registered and not champion (`promote` in the recipe)"
    )
    if not finished.is_new:
        standing += " · this recipe had made it before"
    name = version.name
    next_steps = [f"tunesmith chat {name}", f'tunesmith chat {name} "..." --base', f"tunesmith serve {name}"]
    next_steps.append(f"tunesmith curve {version.ref}")
    parts += [field("version", f"{version.ref} {standing}"), field("next", "\n".join(next_steps))]
    return _joined(parts)


def finished_as_json(finished: Finished, *, folder: Path) -> dict[str, Any]:
    """What a run ends with, as plain values."""
    return version_as_json(finished.version, aliases=finished.aliases, folder=folder, sheet=finished.sheet) | {
        "is_new": finished.is_new,
        "warnings": list(finished.warnings),
        "refusal": list(finished.refusal),
        "ledger": finished.ledger,
        "sources": finished.sources,
        "log": str(finished.log) if finished.log else None,
        "chart": str(finished.chart),
        "page": str(finished.page) if finished.page else None,
    }


def _samples(report: Report) -> Iterator[Text]:
    """A few held-out questions, spread over the test rows, with every arm's answer."""
    step = max(len(report.samples) // _NUM_SAMPLES, 1)
    for sample in report.samples[::step][:_NUM_SAMPLES]:
        yield Text(f"  {on_one_line(sample.question)}")
        for arm, answer in sample.answers.items():
            yield field(f"  {arm}", on_one_line(answer) or "(nothing)")
        yield Text("")


def version_as_json(version: ModelVersion, *, aliases: Sequence[str], folder: Path, sheet: Sheet | None) -> dict[str, Any]:
    """One version as plain values. `folder` is where its adapter or model lies, for other tools to load; `sheet` its proofs."""
    return {
        "ref": version.ref,
        "folder": str(folder),
        "name": version.name,
        "number": version.number,
        "weights_digest": version.weights_digest,
        "aliases": list(aliases),
        "metrics": dict(version.metrics),
        "created_at": version.created_at,
        "run": version.run,
        "artefact": version.artefact,
        "chat_digest": version.chat_digest,
        "base_digest": version.base_digest,
        "reports": list(version.reports),
        "lineage": dict(version.lineage),
        "state": version.state,
        "proved": sheet.holds if sheet else None,
    }


def models_screen(listed: Listed) -> Text:
    """The registered versions, newest last."""
    if not listed:
        return Text("No versions yet. Make one: tunesmith init my-shop && tunesmith run my-shop")
    return _joined(
        part
        for version, aliases in listed
        for part in (
            field(
                version.ref,
                " · ".join(
                    [
                        *aliases,
                        *([] if version.state == "ready" else [version.state]),
                        version.created_at[:16].replace("T", " "),
                        version.weights_digest[:12],
                    ]
                ),
            ),
            field("", " · ".join(f"{name} {value:.4g}" for name, value in version.metrics.items())),
        )
    )


def diagnosis_screen(diagnosis: Diagnosis) -> Text:
    """What `doctor` found."""
    findings = [
        field(finding.kind, " · ".join(filter(None, [f"{finding.digest[:12]} {finding.detail}".strip(), finding.action])))
        for finding in diagnosis.findings
    ]
    counts = f"{diagnosis.num_versions} versions · {diagnosis.num_stages} stages · {diagnosis.num_artefacts} artefacts"
    state = "sound" if diagnosis.sound else "not sound; `tunesmith doctor --repair` sets aside what is broken"
    return _joined([*findings, field("workspace", f"{diagnosis.root} · {counts} · {size(diagnosis.num_bytes)} · {state}")])


def sheet_screen(sheet: Sheet) -> Text:
    """What was proved: each claim with its figure, what was compared, and what it means."""
    lines = []
    for proof in sheet.proofs:
        state = {True: "holds", False: "FAILS", None: "not used"}[proof.holds]
        style = {True: "green", False: "bold red", None: "dim"}[proof.holds]
        lines += [field(state, Text.assemble((proof.name, style), _figure(proof)))]
        lines += [field("", Text(proof.compared, style="dim"))]
        if proof.holds is not None:
            lines += [field("", proof.meaning)]
    return _joined([*lines, field("proofs", f"{sheet.subject} · {sheet.summary} · {sheet.machine}")])


def _figure(proof: Proof) -> str:
    if proof.holds is None:
        return ""
    found = "nothing measured" if proof.figure is None else f"{proof.figure:.2g}"
    return f"   {found}" + (f" ({proof.rule} {proof.tolerance:.0e})" if proof.tolerance else " (must be 0)")


def _joined(parts: Iterator[Text] | Sequence[Text]) -> Text:
    return Text("\n").join(parts)

"""The parts of a version's card, each as Markdown from stored figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.forgetting import forgetting_in_words
from tunesmith.evaluate.reading import (
    direction,
    format_difference,
    format_figure,
    leading,
    ordered_arms,
    ordered_metrics,
    reading_of,
)
from tunesmith.model.base import EMBEDDED
from tunesmith.pipeline.card_markup import block, bullets, code, escaped, recipe_block, table, without_paths
from tunesmith.pipeline.licences import known_licence
from tunesmith.pipeline.version_facts import VersionFacts
from tunesmith.records import Proof, Report, Score

__all__ = ["again", "data", "is_public", "licences", "limits", "opening", "proofs", "results", "training", "use", "worse"]

_PUBLIC = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MOST = 20
"""Rows of one table."""


def is_public(name: str) -> bool:
    """Whether a name is an id of the hub, or the embedded base's, and no folder or version of one machine."""
    return _PUBLIC.fullmatch(name) is not None


def opening(facts: VersionFacts) -> str:
    """What it is, and what it was trained to do."""
    base = code(facts.base_name)
    what = f"a LoRA adapter on {base}" if facts.is_adapter else f"a whole model, trained from {base}"
    if not facts.has_base:
        what = "a whole model, made from random weights"
    sentence = f"{facts.version.ref} is {what}."
    if facts.rows is not None:
        kinds = ", ".join(f"{count:,} rows ({kind})" for kind, count in facts.rows.kinds.items())
        sentence += f" It has learned from {kinds}"
        if domains := Counter(facts.rows.domains).most_common(_MOST):
            named = ", ".join(f"{code(domain)} ({count:,})" for domain, count in domains)
            more = len(facts.rows.domains) - len(domains)
            sentence += f", on {named}" + (f" and {more:,} more domains" if more else "")
        sentence += ". It is meant for what such rows ask, and for nothing else."
    return sentence


def results(facts: VersionFacts) -> str:
    """The verdict and every arm's figures with their intervals."""
    report = facts.report
    if report is None:
        return "Not measured: it keeps no test rows, or its report is gone."
    arms = ordered_arms(report)
    compared = report.differences.get(report.subject)
    rows = []
    for metric in ordered_metrics(report):
        if metric.startswith("f1:"):
            continue
        row = [escaped(reading_of(metric).label), *(_figure(report.scores[arm].get(metric), metric=metric) for arm in arms)]
        if compared is not None:
            found = compared.get(metric)
            row += (
                [format_difference(found, metric=metric), direction(found, metric=metric)]
                if found
                else ["", "cannot be compared"]
            )
        rows.append(row)
    names = [f"**{escaped(arm)}**" if arm == report.subject else escaped(arm) for arm in arms]
    names += [escaped(f"{report.subject} minus {report.baseline}"), "reading"] if compared is not None else []
    told = f"Figures on {report.num_rows:,} held-out rows, with 95 % intervals over clusters of like rows"
    if compared is None:
        told += ". There is no other model to compare it with.\n"
    else:
        told += (
            f"; a difference is paired, row by row. It is compared with {code(report.baseline)}. A `+` stands before a prompt.\n"
        )
    return f"{escaped(report.verdict)}\n\n{told}\n{table(['metric', *names], rows)}"


def worse(facts: VersionFacts) -> str:
    """Metrics, slices and rows on which it does worse, and what it forgot."""
    report = facts.report
    if report is None:
        return "Not measured."
    found = [f"{escaped(where)}: {shown}" for where, shown in _worse(report)]
    if (rows := _worse_rows(report)) is not None:
        found.append(rows)
    if told := forgetting_in_words(dict(report.details)):
        found.append(escaped(told))
    elif not (report.details.get("safety") or {}).get("forgetting"):
        found.append("What it forgot of general text was not measured.")
    head = ""
    if report.subject not in report.differences:
        head = "There is no other model to compare it with.\n\n"
    elif not any(_worse(report)):
        head = "No metric, on all rows or on a slice of them, is worse for certain.\n\n"
    return head + bullets(found)


def _worse(report: Report) -> Iterator[tuple[str, str]]:
    """Where, and by how much, for certain."""
    for metric, score in report.differences.get(report.subject, {}).items():
        if direction(score, metric=metric) == "worse":
            yield "all rows", f"{escaped(reading_of(metric).label)} {format_difference(score, metric=metric)}"
    for one in report.slices:
        for metric, score in one.differences.get(report.subject, {}).items():
            if direction(score, metric=metric) == "worse":
                shown = f"{escaped(reading_of(metric).label)} {format_difference(score, metric=metric)}"
                yield f"{one.name} ({one.num_rows:,} rows)", shown
    prompting = report.details.get("prompting")
    if prompting:
        difference = Score(**prompting["difference"])
        if direction(difference, metric=prompting["metric"]) == "worse":
            shown = (
                f"{escaped(reading_of(prompting['metric']).label)} {format_difference(difference, metric=prompting['metric'])}"
            )
            yield f"beside the best prompt, {prompting['arm']}", shown


def _worse_rows(report: Report) -> str | None:
    """How many answered rows score lower than the baseline's in the leading metric of answers."""
    pairs = [(row.scores.get(report.baseline, {}), row.scores.get(report.subject, {})) for row in report.samples]
    metric = leading(dict.fromkeys(name for before, after in pairs for name in before if name in after))
    if metric is None:
        return None
    sign = -1 if reading_of(metric).lower_is_better else 1
    both = [(before[metric], after[metric]) for before, after in pairs if metric in before and metric in after]
    lower = sum(sign * after < sign * before for before, after in both)
    return (
        f"{lower:,} of {len(both):,} answered rows do worse than {code(report.baseline)} in {escaped(reading_of(metric).label)}."
    )


def proofs(facts: VersionFacts) -> str:
    """Each proof with its figure and bound, and whether it could be trained again."""
    sheet = facts.sheet
    if sheet is None:
        text = f"Nothing yet; `tunesmith prove {facts.version.ref}` tries every claim.\n"
    else:
        words = {True: "holds", False: "**fails**", None: "does not arise"}
        rows = [[escaped(one.name), words[one.holds], *_bound(one), escaped(one.compared)] for one in sheet.proofs]
        text = f"{escaped(sheet.summary)}, on {escaped(sheet.machine)}.\n\n"
        text += table(["claim", "outcome", "figure", "bound", "what was compared"], rows)
    return f"{text}\n{_reproduced(facts)}"


def _bound(proof: Proof) -> tuple[str, str]:
    if proof.holds is None:
        return "", ""
    figure = "nothing measured" if proof.figure is None else f"{proof.figure:.2g}"
    return figure, f"{proof.rule} {proof.tolerance:.0e}" if proof.tolerance else "must be 0"


def _reproduced(facts: VersionFacts) -> str:
    found = facts.reproduction
    if found is None:
        return "It was not trained again yet.\n"
    differs = f" What was not as before: {'; '.join(map(escaped, found.differs))}." if found.differs else ""
    return f"Trained again from what is stored: {escaped(found.verdict)}{differs}\n"


def limits(facts: VersionFacts) -> str:
    """What is known to be weak or not known, each by what was measured."""
    report, found = facts.report, []
    if report is None:
        found.append("How good it is was not measured.")
    else:
        found += [escaped(line) for line in _of_report(report)]
    found += [f"Training warned: {escaped(warning)}" for warning in facts.training.get("warnings", ())]
    found.append(f"It reads {facts.training['max_length']:,} tokens at most.")
    if not facts.has_base:
        found.append("It started from random weights and knows nothing but these rows.")
    return bullets(found)


def _of_report(report: Report) -> Iterator[str]:
    signature = next((text for text in report.signatures.values() if "|clusters:" in text), "")
    if match := re.search(r"clusters:(\d+)", signature):
        yield f"The figures rest on {report.num_rows:,} rows in {int(match[1]):,} clusters."
    small = [one for one in report.slices if one.num_clusters < MIN_CLUSTERS]
    for one in small[:_MOST]:
        yield f"Too few rows to say anything of {one.name}: {one.num_rows:,} rows in {one.num_clusters:,} clusters."
    if len(small) > _MOST:
        yield f"The same of {len(small) - _MOST:,} more slices."
    if summary := (report.details.get("contamination") or {}).get("summary"):
        yield str(summary)
    safety = report.details.get("safety") or {}
    if stopping := (safety.get("stopping") or {}).get("tuned"):
        yield (
            f"{stopping['num_ended']:,} of {stopping['num_answers']:,} answers ended by themselves within "
            f"{stopping['max_new_tokens']:,} tokens."
        )
    if rote := (safety.get("memorisation") or {}).get("tuned"):
        yield (
            f"{rote['num_verbatim']:,} of {rote['num_answers']:,} answers say by rote what stands in an unrelated training answer: "
            f"{rote['min_words']} words or {rote['min_characters']} characters in a row."
        )
    if not safety.get("must_not_break"):
        yield "No prompts that must not break were given, so none was tried."
    yield from map(str, safety.get("failed", ()))


def data(facts: VersionFacts) -> str:
    """Sources, rows, what was dropped and why, and what cleaning found."""
    if facts.rows is None or facts.rows.snapshot is None:
        return "The rows are gone from the store."
    rows, snapshot = facts.rows, facts.rows.snapshot
    splits = list(snapshot.splits)
    sources = []
    for name, counts in snapshot.sources.items():
        found = rows.licences.get(name, {})
        named = ", ".join(f"{code(licence) or 'none named'} ({count:,})" for licence, count in found.items())
        kept = [f"{counts.splits.get(split, 0):,}" for split in splits]
        sources.append([code(without_paths(name)), *kept, f"{sum(counts.dropped.values()):,}", named])
    text = f"{snapshot.num_read:,} rows were read. Snapshot {code(snapshot.id[:12])}.\n\n"
    text += table(["source", *splits, "left out", "licence (rows)"], sources[:_MOST])
    text += f"\n{len(sources) - _MOST:,} more sources are in the snapshot.\n" if len(sources) > _MOST else ""
    quarantined = "not counted" if snapshot.num_bad is None else f"{snapshot.num_bad:,}"
    told = [f"Quarantined, for they could not be read or used: {quarantined}."]
    told += [f"Left out: {count:,} by {code(reason)}." for reason, count in sorted(snapshot.dropped.items())]
    told += [f"Cleaning: {escaped(step)}." for step in snapshot.steps if not step.startswith("read ")]
    told += [
        f"Found by {code(step)}: {', '.join(f'{count:,} {escaped(kind)}' for kind, count in sorted(found.items()))}."
        for step, found in rows.findings.items()
    ]
    if not _looked_for_people(facts):
        told.append("Personal data was not looked for: the recipe has no step `pii`.")
    if snapshot.leakage is not None:
        told.append(escaped(snapshot.leakage) + ".")
    return f"{text}\n{bullets(told)}"


def _looked_for_people(facts: VersionFacts) -> bool:
    return facts.rows is not None and any(step.startswith("pii:") for step in facts.rows.snapshot.steps)


def licences(facts: VersionFacts) -> str:
    """The licences themselves, the base's and the data's."""
    found: Counter[str] = Counter()
    for counts in facts.rows.licences.values() if facts.rows else ():
        found.update(counts)
    rows = [[f"base {code(facts.base_name)}", *_licence(facts.base_licence or "")]] if facts.has_base else []
    rows += [[f"{count:,} rows", *_licence(name)] for name, count in found.most_common(_MOST)]
    return "\n" + table(["of", "licence", "on the hub"], rows)


def _licence(name: str) -> tuple[str, str]:
    return code(name) or "none named", known_licence(name) or "not known" if name else ""


def training(facts: VersionFacts) -> str:
    """Method, steps, tokens, rate, seed, libraries and machine."""
    made, curve = facts.version.lineage, facts.training["curve"]
    lines = [escaped(facts.training_in_words) + "."]
    ledger = facts.training.get("ledger")
    if ledger:
        kept = ledger["total"]["kept"]
        lines.append(
            f"An epoch holds {kept['tokens']:,} tokens of {kept['rows']:,} rows, of which {kept['supervised']:,} are learned."
        )
    best = next((point for point in curve if point[0] == facts.training["best_step"]), None)
    if best is not None and best[2] is not None:
        lines.append(f"Validation loss {best[2]:.3f} nats per token at step {best[0]:,}, whose weights were kept.")
    shown = ", ".join(f"{name} {code(made[name])}" for name in _MADE_WITH if name in made)
    lines.append(f"Made with {shown}." if shown else "Libraries and machine were not kept by the release that made it.")
    lines.append(f"Weights {code(facts.version.weights_digest)}, base {code(facts.version.base_digest)}.")
    return bullets(lines)


_MADE_WITH = ("tunesmith", "python", "torch", "transformers", "tokenizers", "numpy", "machine", "processor", "threads")


def again(facts: VersionFacts) -> str:
    """The command and the recipe."""
    if facts.recipe is None:
        return "Its recipe was not kept by the release that made it."
    told = "In the workspace that holds it, from the stored rows, whether or not their files are still there:\n\n"
    told += block(f"tunesmith reproduce {facts.version.ref}", language="sh")
    return f"{told}\nIts recipe, every default filled in; paths of the machine are cut to their last name:\n\n{recipe_block(facts.recipe)}"


def use(facts: VersionFacts) -> str:
    """A few lines of plain transformers, and PEFT for an adapter, that run in the folder of the card and the weights."""
    is_chat = facts.rows is not None and facts.rows.kinds.get("plain text", 0) < sum(facts.rows.kinds.values())
    asks = _CHAT if is_chat else _TEXT
    libraries = "`transformers` and `peft`" if facts.is_adapter else "`transformers`"
    folder = "In the folder that holds the weights beside this card"
    return f"{folder}, with {libraries} installed:\n\n{block(_load(facts) + asks, language='python')}"


def _load(facts: VersionFacts) -> str:
    head = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    tokenizer = '\ntokenizer = AutoTokenizer.from_pretrained(".")\n'
    if not facts.is_adapter:
        return f'{head}{tokenizer}model = AutoModelForCausalLM.from_pretrained(".").eval()\n'
    if facts.base_name == EMBEDDED:
        where = (
            "from importlib.util import find_spec\nfrom pathlib import Path\n\nfrom peft import PeftModel\n"
            f'{head}\nbase = Path(find_spec("tunesmith").origin).parent / "model" / "embedded"  # inside the package\n'
        )
    elif is_public(facts.base_name):
        where = f'from peft import PeftModel\n{head}\nbase = "{facts.base_name}"\n'
    else:  # PEFT finds the folder that adapter_config.json names
        where = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n"
        return f'{where}{tokenizer}model = AutoPeftModelForCausalLM.from_pretrained(".").eval()\n'
    whole = "AutoModelForCausalLM.from_pretrained(base)"
    return f'{where}tokenizer = AutoTokenizer.from_pretrained(".")\nmodel = PeftModel.from_pretrained({whole}, ".").eval()\n'


_CHAT = """messages = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=128, do_sample=False)[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(answer, skip_special_tokens=True))
"""
_TEXT = """inputs = tokenizer("...", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128, do_sample=False)[0], skip_special_tokens=True))
"""


def _figure(score: Score | None, *, metric: str) -> str:
    if score is None:
        return ""
    bounds = [format_figure(Score(value=bound), metric=metric) for bound in (score.low, score.high) if bound is not None]
    return format_figure(score, metric=metric) + (f" [{', '.join(bounds)}]" if bounds else "")

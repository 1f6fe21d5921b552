"""A version as files for other tools: an adapter, a merged model, GGUF, ONNX. Each is proved before its folder appears.

Everything is written and proved in a folder beside the one that was asked for, and renamed at the end; whatever happens before that
leaves nothing that looks done.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from tunesmith import __version__
from tunesmith.data import load_snapshot, load_split
from tunesmith.errors import BrokenArtefact, GateRefused, Interrupted, ModelError, NotFound, UserError
from tunesmith.pipeline.card import version_card
from tunesmith.pipeline.export_files import Source, Staged, chat_of, context_of, default_type, kept_rows, proof_task, write_files
from tunesmith.pipeline.export_proofs import gather_probes, prove_export
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.proving import Sheet
from tunesmith.pipeline.stopping import interruptible
from tunesmith.pipeline.versions import ADAPTER_CONFIG, MODEL_FACTS, base_of
from tunesmith.store import Store, digest_of_files, sound_files_of
from tunesmith.store.folders import (
    flush_folder,
    is_in_use,
    make_folder,
    make_staging,
    plain_errors,
    remove_folder,
    staging_folders,
)

__all__ = ["EXPORT_FACTS", "ExportKind", "ExportType", "Exported", "export"]

ExportKind = Literal["adapter", "merged", "gguf", "onnx"]
ExportType = Literal["f32", "f16", "bf16", "q8_0"]
EXPORT_FACTS = "export.json"
"""In every export: what it is, of which version, and what was proved of it."""

_TYPES: dict[str, tuple[str, ...]] = {
    "adapter": (),
    "merged": ("f32", "f16", "bf16"),
    "gguf": ("f32", "f16", "bf16", "q8_0"),
    "onnx": ("f32",),
}
_UNFINISHED = "export.unfinished"
"""Marks a folder of ours that was killed before it was done, so that the next export beside it may clear it away."""
_NUM_RECORDS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export leaves behind."""

    ref: str
    to: ExportKind
    type: str | None
    """How weights are stored; None for an adapter."""
    folder: Path
    num_bytes: int
    notes: tuple[str, ...]
    """What the user should know of it, such as what rounding costs."""
    sheet: Sheet

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "ref": self.ref,
            "to": self.to,
            "type": self.type,
            "folder": str(self.folder),
            "bytes": self.num_bytes,
            "notes": list(self.notes),
            "sheet": self.sheet.as_json(),
        }


def export(
    ref: str, *, to: ExportKind, out: Path, store: Store, stored_as: ExportType | None = None, watcher: Watcher | None = None
) -> Exported:
    """Export a version or the embedded base, and prove it.

    Args:
        ref: `boutique`, `boutique@3`, or `tunesmith/base`.
        to: `adapter` (PEFT), `merged` (transformers), `gguf` (llama.cpp) or `onnx` (the logits of a prompt).
        out: the folder to be made; it must be new or empty.
        store: the workspace.
        stored_as: how weights are stored. Left out: as the base stores them (`merged`), f16 (`gguf`), f32 (`onnx`).
        watcher: hears what happens.

    Raises:
        NotFound: no such version.
        UserError: `out` is not empty, or `stored_as` is none of this format's.
        MissingExtra: the format needs a package that is not installed.
        ModelError: this model has no such form, and why.
        GateRefused: a proof failed; the message names the figure and its bound. Nothing was left behind.
        Interrupted: Ctrl-C or SIGTERM; nothing was left behind.
    """
    watch, started = watcher or Silent(), time.monotonic()
    _require(to, out=out, stored_as=stored_as)
    source = _source(ref, store=store)
    _require_form(source, to=to)
    try:
        with interruptible(), plain_errors(out, elsewhere="choose another --out"):
            exported = _export(source, to=to, out=out, stored_as=stored_as, watch=watch)
    except Interrupted as error:
        raise Interrupted(f"Interrupted; {out} was not made. The same command begins anew.") from error
    lines = [f"{exported.ref} as {_in_words(exported)}", *exported.notes, exported.sheet.summary]
    watch.stage("export", lines, seconds=time.monotonic() - started, is_cached=False)
    return exported


def _in_words(exported: Exported) -> str:
    return exported.to if exported.type is None else f"{exported.to}, {exported.type}"


def _require(to: ExportKind, *, out: Path, stored_as: str | None) -> None:
    """Refuse what cannot be done before anything is loaded."""
    if to not in get_args(ExportKind):
        raise UserError(f"--to: {to!r} is unknown. Known: {', '.join(get_args(ExportKind))}")
    if stored_as is not None and stored_as not in _TYPES[to]:
        known = f"Known for it: {', '.join(_TYPES[to])}" if _TYPES[to] else "An adapter stays as it was trained; leave --type out"
        raise UserError(f"--type: {to} is not stored as {stored_as!r}. {known}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} is {'not empty' if out.is_dir() else 'a file'}; name a folder that is new or empty")
    if to == "gguf":
        from tunesmith.model.gguf_file import require_gguf

        require_gguf()
    if to == "onnx":
        from tunesmith.model.onnx_file import require_onnx

        require_onnx()


def _source(ref: str, *, store: Store) -> Source:
    from tunesmith.model import open_base
    from tunesmith.model.base import EMBEDDED

    if ref == EMBEDDED:
        base = open_base(ref, folder=Path.cwd(), cache=store.cache)
        return Source(ref=ref, digest=base.digest, folder=base.path, base=None, facts={}, records=())
    version = store.ledger.version(ref)
    folder = sound_files_of(version, store=store).path
    facts = orjson.loads((folder / MODEL_FACTS).read_bytes())
    try:
        records = tuple(load_split(store, load_snapshot(store, facts["snapshot"]), split="train")[:_NUM_RECORDS])
    except (NotFound, BrokenArtefact):  # the rows are gone; the texts that are always asked remain
        records = ()
    base_folder = base_of(facts) if (folder / ADAPTER_CONFIG).is_file() else None
    return Source(
        ref=version.ref,
        digest=version.artefact,
        folder=folder,
        base=base_folder,
        facts=facts,
        records=records,
        card=version_card(version, store),
    )


def _require_form(source: Source, *, to: ExportKind) -> None:
    if to == "adapter" and not source.is_adapter:
        kind = "a base" if not source.facts else "trained in full (method `full`)"
        raise ModelError(f"{source.ref} is {kind}: every weight is its own, and there is no adapter. Export it with --to merged")
    if not source.is_adapter and not any(source.folder.glob("*.safetensors")):
        raise ModelError(f"{source.ref} holds neither an adapter nor a whole model, so there is nothing to export")
    if to == "gguf":
        from tunesmith.model.gguf_kinds import why_not_gguf

        if reason := why_not_gguf(source.whole, tokenizer=source.folder):
            raise ModelError(reason)


def _export(source: Source, *, to: ExportKind, out: Path, stored_as: str | None, watch: Watcher) -> Exported:
    from tunesmith.model.merge import open_exact
    from tunesmith.train.probe import log_likelihoods

    out = out.absolute()
    make_folder(out.parent)
    _clear_leftovers(out.parent)
    with make_staging(out.parent) as staging:
        (staging / _UNFINISHED).touch()
        watch.begin("export", f"loading {source.ref}")
        model = open_exact(source.folder, base=source.base)
        probes = gather_probes(chat_of(source), records=source.records, rows=kept_rows(source), context=context_of(source))
        said = log_likelihoods(model, probes.rows, device="cpu")
        staged = Staged(source=source, to=to, type=stored_as or default_type(source, to=to), folder=staging)
        watch.begin("export", f"writing {to}")
        write_files(model, staged)
        del model
        watch.begin("export", "a fresh process reads it, without tunesmith")
        proofs = prove_export(proof_task(staged), probes=probes, log_likelihoods=said)
        machine = f"{os.cpu_count()} cores, fp32"
        sheet = Sheet(subject=f"{source.ref} as {to}", model=source.digest, machine=machine, proofs=tuple(proofs))
        _require_proofs(sheet, out=out)
        exported = Exported(
            ref=source.ref,
            to=to,
            type=staged.type,
            folder=out,
            num_bytes=sum(file.stat().st_size for file in staging.rglob("*") if file.is_file()),
            notes=tuple(staged.notes),
            sheet=sheet,
        )
        _commit(staging, exported, source=source)
    return exported


def _require_proofs(sheet: Sheet, *, out: Path) -> None:
    failed = [proof for proof in sheet.proofs if proof.holds is False]
    if failed:
        lines = [
            f"  {proof.name}: found {'nothing' if proof.figure is None else f'{proof.figure:.2g}'}, where it must be {proof.rule} "
            f"{proof.tolerance:.2g} ({proof.compared})"
            for proof in failed
        ]
        raise GateRefused("\n".join([f"{sheet.subject} is not proved, and {out} was not made.", *lines]))


def _commit(staging: Path, exported: Exported, *, source: Source) -> None:
    """Write `export.json`, flush everything, and give the folder its name."""
    facts = {
        "schema": 1,
        "tunesmith": __version__,
        "ref": exported.ref,
        "to": exported.to,
        "type": exported.type,
        "artefact": source.digest,
        "notes": list(exported.notes),
        **{key: source.facts.get(key) for key in ("weights_digest", "chat_digest", "base", "base_digest", "snapshot")},
        "machine": exported.sheet.machine,
        "proofs": [asdict(proof) for proof in exported.sheet.proofs],
        "files": {name: digest for name, digest in digest_of_files(staging).items() if name != _UNFINISHED},
    }
    (staging / EXPORT_FACTS).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    (staging / _UNFINISHED).unlink()
    for file in staging.rglob("*"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    mask = os.umask(0)
    os.umask(mask)
    staging.chmod(0o777 & ~mask)
    flush_folder(staging)
    staging.rename(exported.folder)
    flush_folder(exported.folder.parent)


def _clear_leftovers(parent: Path) -> None:
    """Remove what exports that were killed have left here."""
    for folder in staging_folders(parent):
        if (folder / _UNFINISHED).is_file() and not is_in_use(folder):
            remove_folder(folder)

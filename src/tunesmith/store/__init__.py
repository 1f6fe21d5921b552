"""What is kept: content-addressed artefacts, and the ledger that names them. Knows nothing of texts or models.

Importing this package loads no SQLAlchemy; the ledger does at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.store.artefacts import Artefact, Artefacts, Staging
    from tunesmith.store.digest import canonical_json, digest_of, digest_of_file, digest_of_files
    from tunesmith.store.doctor import Diagnosis, Finding, FindingKind, examine
    from tunesmith.store.ledger import Event, Ledger
    from tunesmith.store.workspace import Store, find_workspace

__all__ = [
    "Artefact",
    "Artefacts",
    "Diagnosis",
    "Event",
    "Finding",
    "FindingKind",
    "Ledger",
    "Staging",
    "Store",
    "canonical_json",
    "digest_of",
    "digest_of_file",
    "digest_of_files",
    "examine",
    "find_workspace",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Artefact": "artefacts",
        "Artefacts": "artefacts",
        "Diagnosis": "doctor",
        "Event": "ledger",
        "Finding": "doctor",
        "FindingKind": "doctor",
        "Ledger": "ledger",
        "Staging": "artefacts",
        "Store": "workspace",
        "canonical_json": "digest",
        "digest_of": "digest",
        "digest_of_file": "digest",
        "digest_of_files": "digest",
        "examine": "doctor",
        "find_workspace": "workspace",
    },
)

"""What is kept: content-addressed artefacts, and the ledger that names them. Knows nothing of texts or models.

Importing this package loads no SQLAlchemy; the ledger does at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.store.api_keys import ApiKey, Quotas, Scope
    from tunesmith.store.artefacts import Artefact, Artefacts, Staging
    from tunesmith.store.collecting import Collected, collect
    from tunesmith.store.digest import canonical_json, digest_of, digest_of_file, digest_of_files
    from tunesmith.store.doctor import Diagnosis, examine
    from tunesmith.store.findings import Finding, FindingKind
    from tunesmith.store.keys import Keys, NewKey
    from tunesmith.store.ledger import Event, Ledger
    from tunesmith.store.moving import current, delete, mark, remove_alias, rollback
    from tunesmith.store.replaying import State, replay
    from tunesmith.store.request_log import FeedbackOutcome, RequestLog
    from tunesmith.store.request_reader import LoggedFeedback, LoggedInteraction, RequestReader
    from tunesmith.store.version_files import files_of, sound_files_of
    from tunesmith.store.workspace import Store, find_workspace

__all__ = [
    "ApiKey",
    "Artefact",
    "Artefacts",
    "Collected",
    "Diagnosis",
    "Event",
    "FeedbackOutcome",
    "Finding",
    "FindingKind",
    "Keys",
    "Ledger",
    "LoggedFeedback",
    "LoggedInteraction",
    "NewKey",
    "Quotas",
    "RequestLog",
    "RequestReader",
    "Scope",
    "Staging",
    "State",
    "Store",
    "canonical_json",
    "collect",
    "current",
    "delete",
    "digest_of",
    "digest_of_file",
    "digest_of_files",
    "examine",
    "files_of",
    "find_workspace",
    "mark",
    "remove_alias",
    "replay",
    "rollback",
    "sound_files_of",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ApiKey": "api_keys",
        "Artefact": "artefacts",
        "Artefacts": "artefacts",
        "Collected": "collecting",
        "Diagnosis": "doctor",
        "Event": "ledger",
        "FeedbackOutcome": "request_log",
        "Finding": "findings",
        "FindingKind": "findings",
        "Keys": "keys",
        "Ledger": "ledger",
        "NewKey": "keys",
        "Quotas": "api_keys",
        "Scope": "api_keys",
        "LoggedFeedback": "request_reader",
        "LoggedInteraction": "request_reader",
        "RequestLog": "request_log",
        "RequestReader": "request_reader",
        "Staging": "artefacts",
        "State": "replaying",
        "Store": "workspace",
        "canonical_json": "digest",
        "collect": "collecting",
        "current": "moving",
        "delete": "moving",
        "digest_of": "digest",
        "digest_of_file": "digest",
        "digest_of_files": "digest",
        "examine": "doctor",
        "files_of": "version_files",
        "find_workspace": "workspace",
        "mark": "moving",
        "remove_alias": "moving",
        "replay": "replaying",
        "rollback": "moving",
        "sound_files_of": "version_files",
    },
)

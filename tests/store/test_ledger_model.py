"""The ledger beside a plain model of it: any order of changes leaves both the same, and the event log says so too."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tunesmith.errors import GateRefused, NotFound, UserError
from tunesmith.records import ModelVersion
from tunesmith.store import Store, collect, delete, examine, remove_alias, replay, rollback

NUMBERS = st.integers(0, 3)
"""Which of the versions there are; counted around, so that no step comes to nothing."""


class Registry(RuleBasedStateMachine):
    """The model: versions by number with their content, and each alias as (version, arms, generation)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder)
        self.versions: dict[int, str] = {}
        self.broken: set[int] = set()
        self.aliases: dict[str, tuple[int, dict[int, float], int]] = {}
        self.removed: dict[str, int] = {}
        """Generation of aliases that are gone."""
        self.given = 0

    def teardown(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        for _ in range(3):
            self.register()

    def at(self, index: int) -> int:
        return sorted(self.versions)[index % len(self.versions)]

    @precondition(lambda self: len(self.versions) < 4)
    @rule()
    def register(self) -> None:
        self.given += 1
        with self.store.artefacts.publish("model") as staging:
            (staging.path / "weights").write_text(str(self.given))
        made = self.store.ledger.register(
            ModelVersion(
                name="m", number=0, run=str(self.given), artefact=staging.artefact.digest, weights_digest="", chat_digest="",
                base_digest="", created_at="",
            )
        )  # fmt: skip
        assert made.number == self.given
        self.versions[made.number] = made.artefact

    @rule(alias=st.sampled_from(["champion", "staging"]), number=NUMBERS, other=NUMBERS, share=st.sampled_from([0.0, 0.25, 0.5]),
          lag=st.sampled_from([0, 0, 0, 0, 0, 1]))  # fmt: skip
    def promote(self, alias: str, number: int, other: int, share: float, lag: int) -> None:
        number, other = self.at(number), self.at(other)
        arms = {number: 1.0 - share, other: share} if other != number else {number: 1.0}
        generation = self.aliases[alias][2] if alias in self.aliases else 0

        def point() -> None:
            self.store.ledger.point(
                "m", alias=alias, version=number, because=["why"], actor="ada", expected_generation=generation + lag,
                arms={f"m@{n}": s for n, s in arms.items()},
            )  # fmt: skip

        if lag or self.broken & set(arms):
            with pytest.raises(GateRefused):
                point()
            return
        point()
        if alias == "champion" and generation:
            before, shares, _ = self.aliases["champion"]
            if (before, shares) != (number, arms):
                left = shares if before == number else {n: s for n, s in shares.items() if n != number}
                total = sum(left.values())
                kept = {n: s / total for n, s in left.items()}
                self.aliases["previous"] = (before, kept, self.aliases.get("previous", (0, {}, 0))[2] + 1)
        self.aliases[alias] = (number, arms, (generation or self.removed.get(alias, 0)) + 1)

    @rule(alias=st.sampled_from(["champion", "staging"]))
    def take_away(self, alias: str) -> None:
        if alias == "champion" or alias not in self.aliases:
            with pytest.raises(UserError if alias == "champion" else NotFound):
                remove_alias(self.store.ledger, f"m@{alias}", because=[], actor="ada")
            return
        *_, generation = self.aliases.pop(alias)
        self.removed[alias] = generation + 1
        assert remove_alias(self.store.ledger, f"m@{alias}", because=[], actor="ada").generation == generation

    @rule()
    def go_back(self) -> None:
        champion, previous = self.aliases.get("champion"), self.aliases.get("previous")
        if champion is None or previous is None or champion[:2] == previous[:2] or self.broken & set(previous[1]):
            with pytest.raises(GateRefused):
                rollback(self.store.ledger, "m", because=[], actor="ada")
            return
        rollback(self.store.ledger, "m", because=[], actor="ada")
        self.aliases["champion"] = (*previous[:2], champion[2] + 1)
        self.aliases["previous"] = (*champion[:2], previous[2] + 1)

    @precondition(lambda self: len(self.versions) > 2)
    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        number = self.at(number)
        if any(number in {version, *arms} for version, arms, _ in self.aliases.values()):
            with pytest.raises(GateRefused, match="cannot be deleted"):
                delete(self.store.ledger, f"m@{number}", because=[], actor="ada")
            return
        delete(self.store.ledger, f"m@{number}", because=[], actor="ada")
        del self.versions[number]
        self.broken.discard(number)

    @rule()
    def clear_up(self) -> None:
        assert collect(self.store, grace_days=7).removed == ()  # all of it is new
        wanted = set(self.store.artefacts.digests()) - set(self.versions.values())
        assert {one.digest for one in collect(self.store, grace_days=0).removed} == wanted

    @rule(number=NUMBERS)
    def break_and_repair(self, number: int) -> None:
        number = self.at(number)
        if number in self.broken:
            return
        file = self.store.artefacts.root / self.versions[number] / "weights"
        file.chmod(0o600)
        file.write_text("x")
        self.broken.add(number)
        examine(self.store, repair=True)
        for alias in ("champion", "staging"):
            if alias in self.aliases:
                self._fall_back(alias)

    def _fall_back(self, alias: str) -> None:
        version, arms, generation = self.aliases[alias]
        if not self.broken & {version, *arms}:
            return
        if version in self.broken:
            version, arms, _ = self.aliases.get("previous", (0, {}, 0))
            if not version or version in self.broken:
                return
        sound = {n: s for n, s in arms.items() if n not in self.broken}
        self.aliases[alias] = (version, {n: s / sum(sound.values()) for n, s in sound.items()}, generation + 1)

    @precondition(lambda self: self.broken)
    @rule()
    def make_again_and_repair(self) -> None:
        for number in self.broken:
            with self.store.artefacts.publish("model") as staging:
                (staging.path / "weights").write_text(str(number))
            assert staging.artefact.digest == self.versions[number]
        self.broken.clear()
        examine(self.store, repair=True)

    @invariant()
    def both_are_the_same(self) -> None:
        ledger = self.store.ledger
        found = {version.number: (version.artefact, version.state) for version in ledger.versions()}
        assert found == {n: (a, "quarantined" if n in self.broken else "ready") for n, a in self.versions.items()}
        pointed = {alias: ledger.deployment("m", alias) for alias in ledger.aliases("m")}
        assert pointed.keys() == self.aliases.keys()
        for alias, (version, arms, generation) in self.aliases.items():
            held = pointed[alias]
            assert (held.version, held.generation) == (version, generation)
            assert held.arms == pytest.approx({f"m@{n}": share for n, share in arms.items()})
            assert math.isclose(sum(held.arms.values()), 1.0)
        told = replay(ledger.events("m"))
        assert told.aliases == {f"m@{alias}": replace(held) for alias, held in pointed.items()}
        assert told.versions == {f"m@{number}": state for number, (_, state) in found.items()}


def test_any_order_of_changes_leaves_the_ledger_as_a_plain_model_of_it_on_sqlite() -> None:
    run_state_machine_as_test(
        Registry,
        settings=settings(max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)),
    )


def test_any_order_of_changes_leaves_the_ledger_as_a_plain_model_of_it_on_postgresql(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnServer(Registry):
        def __init__(self) -> None:
            super().__init__()
            self.store.ledger.database.url.startswith("postgresql") or pytest.fail("not on the server")
            self.store.ledger.database.downgrade("base") if self.store.ledger.versions() else None

    monkeypatch.setenv("TUNESMITH_LEDGER", postgres_url)
    run_state_machine_as_test(
        OnServer,
        settings=settings(max_examples=5, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)),
    )

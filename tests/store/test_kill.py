"""A SIGKILL at any moment leaves the old state or the new one. Real processes are killed here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tunesmith.records import ModelVersion
from tunesmith.store import Artefacts, FindingKind, Ledger, Store, examine

# Children are forked from one small process, and each kills itself at its n-th system step (audit event or fsync) on the way
# through a publish, so every step is met once. The script prints what each child left behind.
_PUBLISH = """
import os, signal, sys
from pathlib import Path
from tunesmith.store import Artefacts

root = Path(sys.argv[1])

def publish(root):
    with Artefacts(root).publish("note") as staging:
        (staging.path / "sub").mkdir()
        for name in ("a", "sub/b"):
            (staging.path / name).write_bytes(b"x" * 5000)

def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

left = 0
publish(root / "warm")  # imports what is imported late, so that the children all take the same steps
steps = 0
while True:
    steps += 1
    pid = os.fork()
    if pid == 0:
        left = steps
        sys.addaudithook(step)
        flush = os.fsync
        os.fsync = lambda descriptor: (step(), flush(descriptor), step())
        publish(root / str(steps) / "artefacts")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
    print(steps, os.WTERMSIG(status), flush=True)
"""


def test_a_publish_killed_at_every_step_leaves_no_artefact_or_a_whole_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PUBLISH, str(tmp_path)], check=True, capture_output=True, text=True, timeout=240
    )
    kills = [line.split() for line in done.stdout.splitlines()]
    assert len(kills) > 30
    assert {signalled for _, signalled in kills} == {str(int(signal.SIGKILL))}
    (digest,) = Artefacts(tmp_path / "warm").digests()
    outcomes = []
    for step, _ in kills:
        store = Store(tmp_path / step)
        found = list(store.artefacts.digests())
        leftovers = list(store.artefacts.root.glob(".*")) if store.artefacts.root.exists() else []
        assert found in ([], [digest])
        assert all(store.artefacts.verify(name) == [] for name in found)
        assert len(found) + len(leftovers) <= 1
        outcomes.append("whole" if found else "leftover" if leftovers else "nothing")
        examine(store, repair=True)
        assert not leftovers or list(store.artefacts.root.iterdir()) == []
    # The states come in this order, and each was met.
    assert [state for i, state in enumerate(outcomes) if i == 0 or outcomes[i - 1] != state] == ["nothing", "leftover", "whole"]


_REGISTER = """
import os, sys
from tunesmith.records import ModelVersion
from tunesmith.store import Ledger

ledger, index = Ledger(sys.argv[1]), int(sys.argv[2]) * 1000
sys.stdout.write("ready\\n"); sys.stdout.flush()
while True:
    index += 1
    version = ledger.register(ModelVersion(name="boutique", number=0, run="", artefact=str(index), weights_digest="",
        chat_digest="", base_digest="", created_at=""))
    deployment = ledger.point("boutique", alias="champion", version=version.number, because=[], actor="",
        expected_generation=None)
    os.write(1, f"{version.number} {version.artefact} {deployment.generation}\\n".encode())
"""


def test_a_ledger_whose_writer_is_killed_keeps_what_was_acknowledged_and_is_sound(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    acknowledged: list[list[str]] = []
    for life in range(9):
        writer = subprocess.Popen([sys.executable, "-c", _REGISTER, url, str(life)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        began = time.perf_counter()
        # The first three lives may end while the ledger is being made. The others end in the midst of a change: at another
        # part of the time that a change takes on this machine just now.
        lines = [writer.stdout.readline() for _ in range(2 if life >= 3 else 0)]
        took = (time.perf_counter() - began) / 2 if lines else 0.4
        time.sleep(took * (life % 6) / 6)
        writer.kill()
        rest = writer.stdout.read()  # not communicate(): it would pass over the lines that are already buffered
        assert writer.wait(timeout=120) == -signal.SIGKILL
        writer.stdout.close()
        acknowledged += [line.split() for line in (*lines, *rest.splitlines())]
    assert len(acknowledged) >= 12
    kept = {version.number: version.artefact for version in ledger.versions()}
    assert sorted(kept) == list(range(1, len(kept) + 1))
    assert all(kept[int(number)] == artefact for number, artefact, _ in acknowledged)
    moves = [event for event in ledger.events("boutique") if event.alias == "champion"]
    assert [move.generation for move in moves] == list(range(1, len(moves) + 1))
    assert all(moves[int(generation) - 1].version == int(number) for number, _, generation in acknowledged)
    # Champion and previous moved together or not at all.
    assert ledger.aliases("boutique") == {"champion": moves[-1].version, "previous": moves[-2].version}
    assert ledger.database.problems() == []


def test_the_folder_of_a_publish_at_work_is_left_alone_and_that_of_a_dead_one_removed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tunesmith.store import Artefacts\n"
        "with Artefacts(Path(sys.argv[1])).publish('note') as staging:\n"
        "    (staging.path / 'a').write_bytes(b'1'); print(staging.path.name, flush=True); sys.stdin.readline()"
    )
    store = Store(tmp_path)
    command = [sys.executable, "-c", script, str(store.artefacts.root)]
    publisher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    name = publisher.stdout.readline().strip()
    assert examine(store, repair=True).findings == ()
    assert (store.artefacts.root / name / "a").exists()
    publisher.kill()
    publisher.communicate(timeout=120)
    (finding,) = examine(store, repair=False).findings
    assert (finding.kind, finding.digest, finding.action) == (FindingKind.LEFTOVER, name, "")
    (finding,) = examine(store, repair=True).findings
    assert finding.action == "removed"
    assert list(store.artefacts.root.iterdir()) == []


def test_a_leftover_is_found_even_when_its_process_id_belongs_to_another_program(tmp_path: Path) -> None:
    store = Store(tmp_path)
    leftover = store.artefacts.root / f".staging-{os.getpid()}-0a1b2c"
    leftover.mkdir(parents=True)
    assert examine(store).findings == ()  # perhaps it was made this instant
    os.utime(leftover, (0, 0))
    assert [finding.kind for finding in examine(store).findings] == [FindingKind.LEFTOVER]
    assert list(store.artefacts.digests()) == []


def test_a_version_registered_before_its_writer_died_can_be_registered_again(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    version = ModelVersion(
        name="b", number=0, run="r", artefact="a", weights_digest="", chat_digest="", base_digest="", created_at=""
    )
    assert ledger.register(version) == Ledger(ledger.database.url).register(version)

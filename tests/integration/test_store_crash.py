"""kill -9 in the middle of commits: the store opens again, is whole, and shows whole transactions only."""

from __future__ import annotations

import dataclasses
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from reconciler.core.model import IntentResult, IntentState, Reason, RolloutTarget, TargetState
from reconciler.shell.ports import AuditRow, Tx
from reconciler.shell.store import SqlStore, open_store
from tests.integration.store_values import TARGETS, assignment, intent, release, rollout, rows

SEED = 20260101
KILLS = 8


def decide(tx: Tx) -> int:
    """A T1 of which every part carries the rollout's new version, so that a torn one shows."""
    found = tx.rollout("r1")
    assert found is not None
    stored = tx.update_rollout(dataclasses.replace(found, reason=Reason("Step", str(found.version + 1))))
    number = stored.version

    def step(row: RolloutTarget) -> RolloutTarget:
        return dataclasses.replace(row, state=TargetState.APPLYING, attempt=number)

    tx.put_rollout_targets("r1", [step(row) for row in tx.rollout_targets("r1")])
    to = release(str(number))
    tx.put_release(to)
    for target in TARGETS:
        tx.put_assignment(assignment(target, to, heal_count=number))
    tx.put_intents([intent(f"{number}-{place}", order=place, name=f"object-{place}") for place in range(6)])
    tx.spend("changed", "cluster:eu-0", 1, float(number))
    tx.audit(AuditRow(float(number), "event", "Step", "x" * 500, rollout="r1"))
    tx.put_outbox(f"step-{number}", "step", {"number": number}, float(number))
    return number


def perform(tx: Tx, number: int) -> None:
    """Its T2."""
    tx.finish_intents(
        [IntentResult(f"{number}-{place}", IntentState.DONE, None, f"uid-{number}", 1) for place in range(6)]
    )


def run(path: Path) -> None:
    """What the child does until it is killed: a line for each transaction that it was told is committed."""
    store = open_store(path, new_id=lambda: "installation-1")
    while True:
        number = store.transact_now("T1", decide)
        print(f"T1 {number}", flush=True)
        store.transact_now("T2", lambda tx, number=number: perform(tx, number))  # type: ignore[misc]
        print(f"T2 {number}", flush=True)


def kill_after(path: Path, lines: int) -> tuple[int, int]:
    """Start the child, kill it after so many commits; returns the last T1 and T2 that it reported."""
    last = {"T1": 0, "T2": 0}
    with subprocess.Popen([sys.executable, "-m", __spec__.name, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for count, line in enumerate(child.stdout, start=1):
            point, _, number = line.partition(" ")
            last[point] = int(number)
            if count == lines:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    return last["T1"], last["T2"]


def check(store: SqlStore, decided: int, performed: int) -> None:
    """Everything told is there, and every part of it says the same."""

    def work(tx: Tx) -> None:
        found = tx.rollout("r1")
        assert found is not None
        number = found.version
        assert number in (decided, decided + 1)  # the last one may have been committed without being told
        assert found.reason == Reason("Step", str(number))
        assert {row.attempt for row in tx.rollout_targets("r1")} == {number}
        assert {(row.digest, row.heal_count) for row in tx.assignments()} == {(release(str(number)).digest, number)}
        assert tx.release(release(str(number)).digest) == release(str(number))
        assert tx.spent("changed", "cluster:eu-0", 0.0) == number
        assert [row.wall for row in tx.audit_log(limit=number + 5)] == [float(n) for n in range(number, 0, -1)]
        assert len(tx.outbox(limit=number + 5)) == number
        intents = tx.intents()
        assert len(intents) == 6 * number
        done = {one.id for one in intents if one.state is IntentState.DONE}
        assert len(done) in (6 * performed, 6 * performed + 6)
        assert {item.uid for item in tx.inventory(TARGETS[0])} == {f"uid-{len(done) // 6}"}

    store.read_now("check", work)


def test_kill_9_in_the_middle_of_commits(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    path = tmp_path / "reconciler.db"
    store = open_store(path, new_id=lambda: "installation-1")
    first = rollout()
    store.transact_now("set-up", lambda tx: tx.insert_rollout(first, rows(first, release())))
    store.close_now()
    decided = performed = 0
    for kill in range(KILLS):
        lines = draw.randrange(2, 120)
        print(f"seed {SEED}, kill {kill} after {lines} commits")
        told = kill_after(path, lines)
        decided, performed = max(decided, told[0]), max(performed, told[1])
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        store = open_store(path, new_id=lambda: "another")
        assert store.epoch == 3 + 2 * kill
        check(store, decided, performed)
        # An intent that was left pending is found, as a restart would, and finished.
        pending = store.read_now("pending", lambda tx: tx.intents(pending=True))
        results = [IntentResult(one.id, IntentState.DONE, None, f"uid-{one.id.split('-')[0]}", 1) for one in pending]
        store.transact_now("T2", lambda tx, results=results: tx.finish_intents(results))  # type: ignore[misc]
        decided = performed = store.read_now("version", lambda tx: tx.rollouts()[0].version)
        store.close_now()


if __name__ == "__main__":
    run(Path(sys.argv[1]))

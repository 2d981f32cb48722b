"""The questions asked in every cycle are answered by an index, whatever history has piled up, and the migrations are
part of what is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.model import IntentResult, IntentState, Reason
from reconciler.shell.ports import Tx
from reconciler.shell.store import SqlStore, open_store
from tests.integration.store_values import APPLICATION, TARGETS, intent, release, rollout, rows

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store() -> Iterator[SqlStore]:
    opened = open_store(":memory:", new_id=lambda: "i")
    first = rollout()
    opened.transact_now("add", lambda tx: tx.put_release(release()))
    opened.transact_now("add", lambda tx: tx.insert_rollout(first, rows(first, release())))
    opened.transact_now("add", lambda tx: tx.put_intents([intent("i")]))
    yield opened
    opened.close_now()


RESULT = IntentResult("i", IntentState.DONE, uid="u")

#: question, the index that has to answer it
QUESTIONS: list[tuple[Callable[[Tx], Any], str]] = [
    (lambda tx: tx.rollout("r1"), "sqlite_autoindex_rollout_1"),
    (lambda tx: tx.rollouts(active=True), "ix_rollout_active"),
    (lambda tx: tx.rollouts(source="fleet", active=True), "ix_rollout_source (source=? AND active=?)"),
    (
        lambda tx: tx.rollouts(application=APPLICATION, active=True),
        "ix_rollout_application (application=? AND active=?)",
    ),
    (lambda tx: tx.rollouts(application=APPLICATION), "ix_rollout_application"),
    (lambda tx: tx.rollout_targets("r1"), "PRIMARY KEY (rollout=?)"),
    (lambda tx: tx.active_rows(APPLICATION), "ix_rollout_target_active (application=?)"),
    (lambda tx: tx.active_rows(), "ix_rollout_target_active"),
    (lambda tx: tx.revision_of(TARGETS[0], "d"), "ix_rollout_target_release (to_digest=? AND cluster=?"),
    (lambda tx: tx.failed_prunes(APPLICATION), "ix_intent_failed_prune (application=?)"),
    (
        lambda tx: tx.refused_heals(TARGETS[0], "d", 7),
        "ix_intent_failed_heal (application=? AND cluster=? AND attempt=?)",
    ),
    (lambda tx: tx.put_rollout_targets("r1", rows(rollout(), release())), "PRIMARY KEY (rollout=?"),
    (lambda tx: tx.intents(cluster="eu-0", pending=True), "ix_intent_pending (cluster=?)"),
    (
        lambda tx: tx.intents(application=APPLICATION, cluster="eu-0", pending=True),
        "ix_intent_pending (cluster=? AND application=?)",
    ),
    (lambda tx: tx.intents(application=APPLICATION, pending=True), "ix_intent_pending_application (application=?)"),
    (lambda tx: tx.pending_counts(APPLICATION), "ix_intent_pending_application (application=?)"),
    (lambda tx: tx.intents(pending=True), "ix_intent_pending"),
    (lambda tx: tx.intents(owner="rollout:r1", pending=True), "ix_intent_owner (owner=? AND state=?)"),
    (lambda tx: tx.unfinished_intents("rollout:r1"), "ix_intent_owner (owner=? AND state=?)"),
    (lambda tx: tx.intent("i"), "sqlite_autoindex_intent_1"),
    (lambda tx: tx.finish_intents([RESULT]), "sqlite_autoindex_intent_1"),
    (lambda tx: tx.abandon_intents(TARGETS[0], Reason("X", "x")), "ix_intent_pending (cluster=? AND application=?)"),
    (lambda tx: tx.assignment(TARGETS[0]), "PRIMARY KEY (application=? AND cluster=?)"),
    (lambda tx: tx.assignments(source="fleet"), "ix_assignment_source"),
    (lambda tx: tx.assignments(cluster="eu-0"), "ix_assignment_cluster"),
    (lambda tx: tx.assignments(application=APPLICATION), "PRIMARY KEY (application=?)"),
    (lambda tx: tx.inventory(TARGETS[0]), "(application=? AND cluster=?)"),
    (lambda tx: tx.inventory_sizes(APPLICATION), "ix_inventory_application (application=?)"),
    (lambda tx: tx.inventory_of_cluster("eu-0"), "PRIMARY KEY (cluster=?)"),
    (lambda tx: tx.facts("eu-0"), "PRIMARY KEY (cluster=?)"),
    (lambda tx: tx.spent("restarts", "cluster:eu-0", 0.0), "ix_ledger_scope (kind=? AND scope=? AND wall>?)"),
    (lambda tx: tx.ledger("restarts", "x", 0.0), "ix_ledger_scope (kind=? AND scope=? AND wall>?)"),
    (lambda tx: tx.outbox(sent=False), "ix_outbox_unsent"),
    (lambda tx: tx.audit_log(application=APPLICATION), "ix_audit_application"),
    (lambda tx: tx.audit_log(rollout="r1"), "ix_audit_rollout"),
    (lambda tx: tx.drift_told(TARGETS[0]), "ix_audit_drift (application=? AND cluster=?)"),
]


@pytest.mark.parametrize(("question", "index"), QUESTIONS)
def test_an_index_answers(store: SqlStore, question: Callable[[Tx], Any], index: str) -> None:
    statements: list[str] = []

    def work(tx: Tx) -> None:
        store._raw.set_trace_callback(statements.append)
        question(tx)
        store._raw.set_trace_callback(None)

    store.transact_now("ask", work)
    asked = [one for one in statements if one.split()[0] in ("SELECT", "UPDATE", "DELETE")]
    plans = [" ; ".join(row[3] for row in store._raw.execute(f"EXPLAIN QUERY PLAN {one}")) for one in asked]
    assert any(index in plan for plan in plans), plans
    scans = [plan for plan in plans if "SCAN" in plan and f"SCAN {index}" not in plan and index not in plan]
    assert scans == []


def test_the_migrations_are_in_the_wheel(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    here = ROOT / "reconciler" / "shell" / "store"
    wanted = [str(file.relative_to(ROOT)) for file in sorted(here.rglob("*.py"))]
    assert [name for name in wanted if name not in names] == []
    assert "reconciler/shell/store/migrations/versions/r0001_initial.py" in names

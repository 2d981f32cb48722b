"""What a source does not ask the store for, its decision does not need: it is the same with everything read."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.apply_rules import ApplyRules, rules_from_text
from reconciler.core.compile import Releases
from reconciler.core.decide_source import ApplicationFacts, decide_application
from reconciler.core.fleet_model import CompiledApplication, FleetSnapshot
from reconciler.core.heal import HEALS_LEDGER, decide_heal, drifted_fields, heal_scope
from reconciler.core.inventory import prunable
from reconciler.core.model import (
    Assignment,
    ClusterView,
    Health,
    Intent,
    IntentResult,
    IntentState,
    InventoryItem,
    InventoryPhase,
    Reason,
    Release,
    RolloutTarget,
    Sync,
    Target,
    TargetState,
    TargetVerdict,
    Verb,
)
from reconciler.core.observation import IntentSummary, Observation
from reconciler.shell.gather_source import Gathering
from reconciler.shell.ports import Tx
from reconciler.shell.record import drifted, heals_of, report_only
from reconciler.shell.store.opening import from_bytes, open_store
from tests.core.decisions import APPLICATION, CONFIG, JOB, NEW, OLD, part, plan_of, rollout_of, target_of, time_at, wave

T = TypeVar("T")
CLUSTERS = ("c0", "c1")
NOW = time_at(1000.0)
WHY = Reason("Refused", "refused")


def manifest(kind: str) -> dict[str, object]:
    key = JOB if kind == "job" else CONFIG
    api_version = f"{key.group}/v1" if key.group else "v1"
    return {"apiVersion": api_version, "kind": key.kind, "metadata": {"name": key.name, "namespace": key.namespace}}


RELEASES = {
    OLD: Release(OLD, APPLICATION, (manifest("config"), manifest("job"))),
    NEW: Release(NEW, APPLICATION, (manifest("job"),)),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """What the store and the lane know of one target."""

    assigned: str
    baked: bool
    held: tuple[str, ...]  # which objects are in the inventory
    rows: tuple[TargetState, ...]  # in one active rollout each
    pending: int
    refused: bool  # a deletion was
    sync: Sync
    health: Health
    repaired: int


places = st.builds(
    Place,
    assigned=st.sampled_from(["", OLD, NEW]),
    baked=st.booleans(),
    held=st.sampled_from([(), ("job",), ("job", "config")]),
    rows=st.lists(st.sampled_from(list(TargetState)), max_size=2).map(tuple),
    pending=st.integers(0, 2),
    refused=st.booleans(),
    sync=st.sampled_from(list(Sync)),
    health=st.sampled_from([Health.HEALTHY, Health.PROGRESSING, Health.DEGRADED]),
    repaired=st.integers(0, 4),
)


def verdict_of(target: Target, place: Place) -> TargetVerdict:
    objects = (part(JOB, place.health, place.sync, drifted=("spec.image",)),)
    return TargetVerdict(target, place.assigned, 1000.0, place.sync, place.health, WHY, applied=True, objects=objects)


def intent(identity: str, target: Target, verb: Verb, digest: str) -> Intent:
    purpose = "prune" if verb is Verb.DELETE else "start"
    return Intent(identity, "source:fleet", purpose, target, verb, CONFIG, "v1", digest, 1, 0)


def put(tx: Tx, cluster: str, place: Place) -> None:
    target = target_of(cluster)
    if place.assigned:
        baked = place.assigned if place.baked else None
        tx.put_assignment(Assignment(target, place.assigned, "fleet", baked=baked))
    keys = {"job": JOB, "config": CONFIG}
    tx.put_inventory([InventoryItem(target, keys[name], "v1", InventoryPhase.OWNED, "u", 1) for name in place.held])
    for number, state in enumerate(place.rows):
        plan = plan_of([wave("all", [cluster])])
        rollout = dataclasses.replace(rollout_of(plan), id=f"{cluster}-{number}")
        tx.insert_rollout(rollout, [RolloutTarget(target, 0, NEW, OLD, OLD, state, WHY, changed=True)])
    tx.put_intents([intent(f"{cluster}-pending-{n}", target, Verb.APPLY, NEW) for n in range(place.pending)])
    if place.refused:
        tx.put_intents([intent(f"{cluster}-refused", target, Verb.DELETE, place.assigned)])
        tx.finish_intents([IntentResult(f"{cluster}-refused", IntentState.FAILED, WHY)])
    scope = heal_scope(target, drifted_fields(verdict_of(target, place))[0])
    for _ in range(place.repaired):
        tx.spend(HEALS_LEDGER, scope, 1, NOW.wall - 1.0)


@functools.cache
def empty() -> bytes:
    """A new store, to be copied: making its tables takes longer than what is asked of it."""
    store = open_store(":memory:", new_id=lambda: "installation-1")
    try:
        return store.serialize()
    finally:
        store.close_now()


def ask(found: dict[str, Place], self_heal: bool, work: Callable[[Tx], T]) -> T:
    """`work` on a store that knows `found`, by cluster."""

    def fill(tx: Tx) -> None:
        for each in RELEASES.values():
            tx.put_release(each)
        tx.put_apply_rules(APPLICATION, "fleet", ApplyRules(self_heal=self_heal).as_text())
        for cluster, place in found.items():
            put(tx, cluster, place)

    store = from_bytes(empty(), new_id=lambda: "installation-1")
    try:
        store.transact_now("fill", fill)
        return store.read_now("ask", work)
    finally:
        store.close_now()


def with_everything_read(tx: Tx, facts: ApplicationFacts, verdicts: dict[Target, TargetVerdict]) -> ApplicationFacts:
    """The same facts, with nothing left out because it seemed to be of no use."""
    assignments = facts.seen.assignments
    pending = Counter(intent.target for intent in tx.intents(application=APPLICATION, pending=True))
    since_wall = NOW.wall - 600.0
    heals = {
        target: {name: tx.spent(HEALS_LEDGER, heal_scope(target, name), since_wall) for name in drifted_fields(verdict)}
        for target, verdict in verdicts.items()
    }
    no_heal = not rules_from_text(tx.apply_rules(APPLICATION)).self_heal
    seen = dataclasses.replace(
        facts.seen,
        intents={target: IntentSummary(count) for target, count in pending.items()},
        heals=heals,
        report_only=frozenset({APPLICATION}) if no_heal else frozenset(),
    )
    every: dict[Target, tuple[InventoryItem, ...]] = {}
    refused: dict[Target, Reason] = {}
    for target, row in assignments.items():
        release = tx.release(row.digest)
        assert release is not None
        inventory = tx.inventory(target)
        if len(inventory) > len(release.objects):
            every[target] = prunable(inventory, release.objects).items
        for intent in tx.failed_prunes(APPLICATION):
            known = intent.key in {item.key for item in inventory}
            if intent.target == target and intent.digest == row.digest and known:
                refused[target] = Reason("PruneFailed", WHY.message)
    return dataclasses.replace(facts, seen=seen, prunable=every, prune_failed=refused)


@given(st.fixed_dictionaries(dict.fromkeys(CLUSTERS, places)), st.booleans(), st.booleans(), st.booleans())
def test_the_decision_is_that_on_all_facts(
    found: dict[str, Place], self_heal: bool, deletions_allowed: bool, leaves: bool
) -> None:
    goals = dict.fromkeys(CLUSTERS[:1] if leaves else CLUSTERS, NEW)
    compiled = CompiledApplication(APPLICATION, {}, goals, Releases(APPLICATION, [RELEASES[NEW]]), None, ())
    snapshot = FleetSnapshot("sample", {}, {APPLICATION: compiled}, (), deletions_allowed)
    clusters = {name: ClusterView(name, 1000.0, 0.0) for name in CLUSTERS}

    def both(tx: Tx) -> tuple[ApplicationFacts, ApplicationFacts]:
        gathering = Gathering("fleet", deletes_max=20)
        standing = gathering.standing(tx, APPLICATION)
        planned = {target for each in tx.rollouts(source="fleet", active=True) for target in each.plan.targets}
        assert standing.targets == {row.target for row in tx.assignments(source="fleet")} | planned
        verdicts = {target_of(name): verdict_of(target_of(name), place) for name, place in found.items()}
        facts = gathering.facts(tx, snapshot, standing, sorted(standing.targets), verdicts, clusters, NOW)
        return facts, with_everything_read(tx, facts, verdicts)

    facts, all_facts = ask(found, self_heal, both)
    assert decide_application(facts, NOW) == decide_application(all_facts, NOW)


@given(places, st.booleans(), st.booleans())
def test_a_repair_is_decided_as_on_all_facts(place: Place, self_heal: bool, contested: bool) -> None:
    """What rollouts ask: only where something has `drifted` and nothing is on its way."""
    target = target_of("c0")
    verdicts = {target: verdict_of(target, place)}
    intents = {target: IntentSummary(place.pending)} if place.pending else {}

    def both(tx: Tx) -> list[Observation]:
        return [
            Observation(
                verdicts,
                {"c0": ClusterView("c0", 1000.0, 0.0)},
                intents=intents,
                report_only=report_only(tx, of),
                heals=heals_of(tx, of, NOW),
            )
            for of in (drifted(verdicts, intents), verdicts)
        ]

    sparing, whole = ask({"c0": place}, self_heal, both)
    field = drifted_fields(verdicts[target])[0] if contested else ""
    assignment = Assignment(target, place.assigned, "fleet", contested=field)
    assert decide_heal(assignment, sparing, NOW) == decide_heal(assignment, whole, NOW)

"""One write at a time on a simulated API server: what is sent, and what becomes of it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from reconciler.core.inventory import PRUNE_ANNOTATION
from reconciler.core.model import IntentResult, IntentState, InventoryPhase, Manifest, ObjectKey, Reason
from reconciler.core.ownership import stamp
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.perform import Later
from reconciler.sim.admission import Answer, Review, Webhook
from reconciler.sim.plan import Crash, Dead, FaultKind, Generation
from tests.sim.observe_harness import simulated
from tests.sim.performing import TARGET, Bench, config_map

KEY = ObjectKey.of(config_map())


def said(outcome: IntentResult | Later) -> tuple[str, str | None]:
    """The state (or "later") and the reason's code."""
    state = "later" if isinstance(outcome, Later) else str(outcome.state)
    return state, outcome.reason.code if outcome.reason is not None else None


@simulated
async def test_create_update_and_nothing_to_do() -> None:
    bench = Bench()
    created = await bench.apply(config_map(a="1"))
    live = bench.live()
    assert live is not None
    assert isinstance(created, IntentResult)
    assert (created.state, created.uid) == (IntentState.DONE, live["metadata"]["uid"])
    assert said(await bench.apply(config_map(a="2"))) == ("done", None)
    assert said(await bench.apply(config_map(a="2"))) == ("unchanged", None)
    assert len(bench.writes()) == 2
    assert bench.seen.seen[KEY] == bench.live()


@simulated
async def test_somebody_elses_object_is_not_touched() -> None:
    bench = Bench()
    before = bench.cluster.create({**config_map(), "metadata": {"name": "settings", "namespace": "orders"}})
    assert said(await bench.apply(config_map(a="2"))) == ("failed", "NotOwned")
    assert said(await bench.apply(config_map(a="2"), intend=False)) == ("failed", "NotOwned")
    assert bench.live() == before
    assert bench.writes() == []


@simulated
async def test_an_object_with_our_mark_that_we_did_not_write_is_not_ours() -> None:
    bench = Bench()
    bench.cluster.create(config_map())
    assert said(await bench.apply(config_map(a="2"))) == ("failed", "NotOwned")


@simulated
async def test_one_created_just_before_a_crash_is_found_again() -> None:
    bench = Bench()
    bench.intend(KEY)
    bench.script.faults = {"PATCH": [FaultKind.LOST_AFTER]}
    assert said(await bench.apply(config_map()))[0] == "later"
    assert bench.live() is not None
    assert bench.items[KEY].uid == ""  # nobody knows yet
    assert said(await bench.apply(config_map())) == ("unchanged", None)
    assert len(bench.writes()) == 1


@pytest.mark.parametrize(
    "fault", [FaultKind.LOST_BEFORE, FaultKind.LOST_AFTER, FaultKind.SERVER_ERROR, FaultKind.BLACK_HOLE]
)
def test_an_outcome_nobody_knows_is_read_again_before_a_retry(fault: FaultKind) -> None:
    @simulated
    async def check() -> None:
        bench = Bench()
        bench.script.faults = {"PATCH": [fault]}
        first = await bench.apply(config_map())
        assert isinstance(first, Later)
        bench.script.points.clear()
        outcome = await bench.apply(config_map())
        methods = [point.split()[1] for point in bench.script.points]
        assert methods[0] == "GET"
        assert said(outcome)[0] == ("done" if "PATCH" in methods else "unchanged")
        assert sum(write.endswith(("200", "201")) for write in bench.writes()) == 1

    check()


@pytest.mark.parametrize("fault", FaultKind)
@pytest.mark.parametrize("ours", [{"mine": "1"}, {"a": "1"}, {"a": "2"}], ids=["beside", "equal", "conflict"])
def test_what_somebody_makes_at_the_same_moment_never_becomes_ours(fault: FaultKind, ours: dict[str, str]) -> None:
    """Between our read and our create, whatever becomes of our request and of our process."""

    @simulated
    async def check() -> None:
        bench = Bench()
        plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "orders"}}
        made: list[Manifest] = []

        async def meanwhile() -> Later | None:
            if not made:
                made.append(bench.cluster.create({**plain, "data": {"a": "1"}}))
            return None

        bench._permit = meanwhile  # type: ignore[method-assign]  # somebody acts between our read and our write
        bench.script.faults = {"PATCH": [fault]}
        with contextlib.suppress(Crash, Dead):
            await bench.apply(config_map(**ours))
        bench.kube = KubeCluster("c0", bench.cluster.transport("c0", bench.script, Generation()))
        assert said(await bench.apply(config_map(**ours))) == ("failed", "NotOwned")
        assert said(await bench.delete(KEY)) == ("failed", "NotOwned")
        assert bench.live() == made[0]

    check()


@simulated
async def test_a_cluster_that_does_not_answer_says_so() -> None:
    bench = Bench()
    bench.cluster.set_unreachable(True)
    outcome = await bench.apply(config_map())
    assert isinstance(outcome, Later)
    assert outcome.unreachable


@simulated
async def test_an_object_that_was_recreated_is_somebody_elses() -> None:
    bench = Bench()
    await bench.apply(config_map(a="1"))
    bench.cluster.delete("", "ConfigMap", "orders", "settings")
    bench.cluster.create({**config_map(), "metadata": {"name": "settings", "namespace": "orders"}})
    assert said(await bench.apply(config_map(a="2"))) == ("failed", "NotOwned")


@simulated
async def test_an_object_that_was_deleted_is_created_again() -> None:
    bench = Bench()
    await bench.apply(config_map())
    bench.cluster.delete("", "ConfigMap", "orders", "settings")
    before = bench.items[KEY].uid
    assert said(await bench.apply(config_map())) == ("done", None)
    assert bench.items[KEY].uid != before


@simulated
async def test_one_replaced_between_read_and_write_is_judged_anew() -> None:
    bench = Bench()
    await bench.apply(config_map(a="1"))
    read = bench.kube.get
    replaced: list[int] = []

    async def racing(api_version: str, key: ObjectKey) -> Manifest | None:
        live = await read(api_version, key)
        if not replaced:
            replaced.append(1)
            bench.cluster.delete("", "ConfigMap", "orders", "settings")
            bench.cluster.create({**config_map(), "metadata": {"name": "settings", "namespace": "orders"}})
        return live

    bench.kube.get = racing  # type: ignore[method-assign]  # somebody acts between our read and our write
    assert said(await bench.apply(config_map(a="2"))) == ("failed", "NotOwned")
    live = bench.live()
    assert live is not None
    assert live["data"] == {"a": "1"}


@simulated
async def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    bench = Bench()
    await bench.apply(config_map())
    patch = {"metadata": {"finalizers": ["example.com/hold"]}}
    bench.cluster.edit("", "ConfigMap", "orders", "settings", patch)
    bench.cluster.delete("", "ConfigMap", "orders", "settings")
    assert said(await bench.apply(config_map(a="2"))) == ("later", "Terminating")
    assert said(await bench.delete(KEY)) == ("later", "Terminating")
    assert len([write for write in bench.writes() if write.startswith("delete")]) == 1  # the person's


@simulated
async def test_where_only_the_server_can_tell_it_is_asked_before_anything_is_written() -> None:
    bench = Bench()
    manifest = config_map()
    service = {
        **manifest,
        "kind": "Service",
        "spec": {"ports": [{"port": 80}], "selector": {"app": "orders"}},
    }
    del service["data"]
    assert said(await bench.apply(service)) == ("done", None)
    assert said(await bench.apply(service)) == ("unchanged", None)
    assert [write.split()[0] for write in bench.writes()].count("dry-run") <= 1
    assert len([write for write in bench.writes() if not write.startswith("dry-run")]) == 1


@simulated
async def test_what_the_schema_lacks_is_refused_for_good() -> None:
    bench = Bench()
    wrong = {**config_map(), "spec": {"a": 1}}
    outcome = await bench.apply(wrong)
    assert isinstance(outcome, IntentResult)
    assert outcome.state is IntentState.FAILED
    assert outcome.reason is not None
    assert outcome.reason.code in ("SchemaMismatch", "Invalid")
    unknown = {**config_map(), "apiVersion": "example.com/v1", "kind": "Gadget"}
    assert said(await bench.apply(unknown)) == ("failed", "KindMissing")


@simulated
async def test_a_webhook_that_denies_is_a_refusal() -> None:
    def refuse(review: Review) -> Answer:
        return Answer(allowed=review.resource != "configmaps", message="no", code=403)

    bench = Bench(Webhook("policy.example.com", refuse))
    outcome = await bench.apply(config_map())
    assert said(outcome) == ("failed", "Denied")
    assert bench.live() is None


@simulated
async def test_without_a_permit_nothing_is_written() -> None:
    bench = Bench()
    bench.refusals = [Later(Reason("WriteLimit", "spent"), after_s=0.1)]
    assert said(await bench.apply(config_map())) == ("later", "WriteLimit")
    await bench.apply(config_map())
    bench.refusals = [Later(Reason("Abandoned", "not wanted"), after_s=0.0)]
    assert said(await bench.apply(config_map(a="2"))) == ("later", "Abandoned")
    bench.refusals = [Later(Reason("ClusterSuspended", "suspended"))]
    assert said(await bench.delete(KEY)) == ("later", "ClusterSuspended")
    assert len(bench.writes()) == 1


@simulated
async def test_nothing_to_do_needs_no_permit() -> None:
    bench = Bench()
    await bench.apply(config_map())
    asked = bench.asked
    assert said(await bench.apply(config_map())) == ("unchanged", None)
    assert bench.asked == asked


# ---- delete ------------------------------------------------------------------------------------------------------


@simulated
async def test_what_we_own_is_deleted_and_confirmed() -> None:
    bench = Bench()
    await bench.apply(config_map())
    outcome = await bench.delete(KEY)
    assert isinstance(outcome, IntentResult)
    assert (outcome.state, outcome.gone, bench.live()) == (IntentState.DONE, True, None)
    again = await bench.delete(KEY)
    assert isinstance(again, IntentResult)
    assert (again.state, again.gone) == (IntentState.DONE, True)


@pytest.mark.parametrize("case", ["recreated", "unmarked", "protected", "unknown"])
def test_what_is_not_deleted(case: str) -> None:
    @simulated
    async def check() -> None:
        bench = Bench()
        await bench.apply(config_map())
        item = bench.items[KEY]
        match case:
            case "recreated":
                bench.items[KEY] = replace(item, uid="another")
            case "unmarked":
                unmarked = {"metadata": {"labels": {"reconciler.dev/owner": None}}}
                bench.cluster.edit("", "ConfigMap", "orders", "settings", unmarked)
            case "protected":
                patch = {"metadata": {"annotations": {PRUNE_ANNOTATION: "disabled"}}}
                bench.cluster.edit("", "ConfigMap", "orders", "settings", patch)
            case _:
                del bench.items[KEY]
        outcome = await bench.delete(KEY)
        assert said(outcome) == ("failed", "PruneDisabled" if case == "protected" else "NotOwned")
        assert isinstance(outcome, IntentResult)
        assert outcome.gone is (case == "recreated")
        assert bench.live() is not None
        assert not any(write.startswith("delete") for write in bench.writes())

    check()


@simulated
async def test_a_delete_whose_answer_was_lost_is_read_again() -> None:
    bench = Bench()
    await bench.apply(config_map())
    bench.intend(KEY, InventoryPhase.DELETING, bench.items[KEY].uid)
    bench.script.faults = {"DELETE": [FaultKind.LOST_AFTER]}
    assert said(await bench.delete(KEY))[0] == "later"
    outcome = await bench.delete(KEY)
    assert isinstance(outcome, IntentResult)
    assert outcome.gone
    assert len([write for write in bench.writes() if write.startswith("delete")]) == 1
    assert bench.items[KEY].target == TARGET


@simulated
async def test_what_was_written_under_a_former_name_and_not_recorded_is_ours() -> None:
    bench, former = Bench(), "f" * 32
    await bench.apply(stamp(config_map(), former, "sample/old"))
    bench.intend(KEY)
    assert said(await bench.apply(config_map(a="2")))[0] == "failed"
    bench.former_owner = former
    assert said(await bench.apply(config_map(a="2"))) == ("done", None)

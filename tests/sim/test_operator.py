"""The model of the Flink operator: the statuses that a job's life and its misfortunes leave behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from reconciler.sim.behaviour import Behaviour, Behaviours
from reconciler.sim.flink_spec import Change, change, effective, flattened
from reconciler.sim.loop import run
from tests.sim.flink import (
    GROUP,
    HIGH_AVAILABILITY,
    ROLLBACK,
    Watched,
    deployment,
    running,
    session_cluster,
    session_job,
    spec_of,
    state_snapshot,
)

FIRST = [
    ("-", "-", "-"),
    ("CREATED", "MISSING", "-"),
    ("DEPLOYED", "DEPLOYING", "RECONCILING"),
    ("DEPLOYED", "DEPLOYED_NOT_READY", "RECONCILING"),
    ("DEPLOYED", "READY", "CREATED"),
    ("STABLE", "READY", "RUNNING"),
]
AGAIN = FIRST[2:]


def test_a_first_deployment() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(deployment())
        await asyncio.sleep(100)
        assert [entry[0] for entry in watched.history] == [0.0, 1.0, 3.0, 13.0, 23.0, 38.0]
        assert watched.states() == FIRST
        status = watched.status()
        assert status["observedGeneration"] == 1
        assert len(status["jobStatus"]["jobId"]) == 32
        assert status["jobStatus"]["startTime"] == str(int((watched.clock.now().wall - 77) * 1000))
        reconciliation = status["reconciliationStatus"]
        assert reconciliation["state"] == "DEPLOYED"
        assert spec_of(reconciliation["lastReconciledSpec"])["job"] == {
            "args": [],
            "jarURI": "local:///job.jar",
            "parallelism": 2,
            "state": "running",
            "upgradeMode": "stateless",  # the first deployment ignores the mode asked for
        }
        assert reconciliation["lastStableSpec"] == reconciliation["lastReconciledSpec"]
        assert json.loads(reconciliation["lastStableSpec"])["resource_metadata"]["firstDeployment"] is True
        assert watched.value()["metadata"]["finalizers"] == ["flinkdeployments.flink.apache.org/finalizer"]

    run(main())


@pytest.mark.parametrize(
    ("mode", "rotates", "stopped_as"),
    [("savepoint", True, "FINISHED"), ("stateless", True, "CANCELED"), ("last-state", False, "SUSPENDED")],
)
def test_an_upgrade(mode: str, rotates: bool, stopped_as: str) -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(upgradeMode=mode))
        before = watched.job_id()
        watched.edit({"image": "shop/orders:2"})
        await asyncio.sleep(2)
        # The change was seen, and yet all is green: only observedGeneration tells.
        assert watched.status()["lifecycleState"] == "STABLE"
        assert watched.status()["observedGeneration"] == 1 < watched.value()["metadata"]["generation"]
        await asyncio.sleep(100)
        states = watched.states()
        assert states == [("STABLE", "READY", "RUNNING"), ("UPGRADING", "MISSING", stopped_as), *AGAIN]
        assert (watched.job_id() != before) is rotates
        assert watched.status()["observedGeneration"] == 2
        assert ("upgradeSavepointPath" in watched.status()["jobStatus"]) is (mode == "savepoint")
        last = spec_of(watched.status()["reconciliationStatus"]["lastStableSpec"])
        assert (last["image"], last["job"]["upgradeMode"]) == ("shop/orders:2", mode)

    run(main())


def test_a_crash_loop_stays_stable() -> None:
    async def main() -> None:
        watched = await running(Watched())
        watched.edit({"image": "shop/orders:2-crash-loop"})
        await asyncio.sleep(200)
        states = watched.states()
        flips = states[states.index(("STABLE", "READY", "RUNNING"), 1) :]
        assert flips[:4] == [("STABLE", "READY", "RUNNING"), ("STABLE", "READY", "RESTARTING")] * 2
        assert watched.status()["observedGeneration"] == 2
        assert watched.deployments() == 2
        watched.edit({"image": "shop/orders:3"})
        await asyncio.sleep(200)
        assert watched.states()[-1] == ("STABLE", "READY", "RUNNING")
        assert watched.status()["observedGeneration"] == 3

    run(main())


@pytest.mark.parametrize(
    ("marker", "end", "error"),
    [
        ("never-starts", ("DEPLOYED", "DEPLOYED_NOT_READY", "RECONCILING"), ""),
        ("fails-at-start", ("FAILED", "READY", "FAILED"), "the job failed"),
        ("pull-error", ("DEPLOYED", "ERROR", "RECONCILING"), "ErrImagePull"),
        ("slow-start", ("DEPLOYED", "DEPLOYING", "RECONCILING"), ""),
    ],
)
def test_what_may_become_of_a_job(marker: str, end: tuple[str, str, str], error: str) -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(deployment(image=f"shop/orders:1-{marker}"))
        await asyncio.sleep(80)
        assert watched.states()[-1] == end
        assert error in watched.status().get("error", "")
        assert "lastStableSpec" not in watched.status()["reconciliationStatus"]
        await asyncio.sleep(400)
        assert (watched.status()["lifecycleState"] == "STABLE") is (marker == "slow-start")

    run(main())


def test_a_refused_spec_leaves_the_old_job_running_and_says_so() -> None:
    async def main() -> None:
        watched = await running(Watched())
        watched.edit({"image": "shop/orders:2-rejected-spec"})
        await asyncio.sleep(100)
        assert watched.states() == [("STABLE", "READY", "RUNNING")]
        assert watched.status()["observedGeneration"] == 1
        error = json.loads(watched.status()["error"])
        assert error["type"].endswith(".ValidationException")
        assert watched.events("ValidationError") == ["the specification was refused"]
        watched.edit({"image": "shop/orders:1"})
        await asyncio.sleep(100)
        assert "error" not in watched.status()
        assert watched.status()["observedGeneration"] == 3
        assert watched.deployments() == 1

    run(main())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"job": {"parallelism": 0}}, "Job parallelism must be larger than 0"),
        ({"flinkConfiguration": {"state.savepoints.dir": None}}, "savepoint while config key"),
        ({"flinkConfiguration": {"kubernetes.namespace": "x"}}, "Forbidden Flink config key"),
        ({"jobManager": {"replicas": 2}}, "High availability should be enabled"),
        ({"taskManager": {"resource": {"memory": None}}}, "TaskManager resource memory must be defined"),
        ({"job": None}, "Cannot switch from job to session cluster"),
    ],
)
def test_validation(spec: dict[str, Any], message: str) -> None:
    async def main() -> None:
        watched = await running(Watched())
        watched.edit(spec)
        await asyncio.sleep(10)
        assert message in watched.status()["error"]

    run(main())


def test_a_spec_refused_from_the_start_is_failed() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(deployment(image="shop/orders:1-rejected-spec"))
        await asyncio.sleep(100)
        assert watched.status()["lifecycleState"] == "FAILED"
        assert "observedGeneration" not in watched.status()
        assert watched.deployments() == 0

    run(main())


@pytest.mark.parametrize(
    ("spec", "restarts"),
    [
        ({"job": {"upgradeMode": "stateless"}}, False),
        ({"flinkConfiguration": {"kubernetes.operator.job.restart.failed": "true"}}, False),
        ({"job": {"allowNonRestoredState": True}}, False),
        ({"job": {"savepointRedeployNonce": 1, "initialSavepointPath": "s3://old"}}, True),
        ({"restartNonce": 1}, True),
        ({"job": {"parallelism": 3}}, True),
        ({"flinkConfiguration": {"taskmanager.numberOfTaskSlots": "2"}}, True),
        ({"podTemplate": {"metadata": {"labels": {"a": "b"}}}}, True),
    ],
)
def test_what_restarts_a_job_and_what_does_not(spec: dict[str, Any], restarts: bool) -> None:
    async def main() -> None:
        watched = await running(Watched())
        before = watched.job_id()
        watched.edit(spec)
        await asyncio.sleep(100)
        assert watched.status()["observedGeneration"] == 2
        assert watched.deployments() == (2 if restarts else 1)
        assert (watched.job_id() != before) is restarts
        assert watched.status()["lifecycleState"] == "STABLE"

    run(main())


def test_scaling_in_place() -> None:
    async def main() -> None:
        reactive = deployment(configuration={"scheduler-mode": "reactive"})
        reactive["spec"]["mode"] = "standalone"
        watched = await running(Watched(), reactive)
        watched.edit({"taskManager": {"replicas": 4}})
        await asyncio.sleep(60)
        assert watched.deployments() == 1
        assert watched.states() == [("STABLE", "READY", "RUNNING")]
        assert watched.status()["observedGeneration"] == 2
        assert spec_of(watched.status()["reconciliationStatus"]["lastStableSpec"])["taskManager"]["replicas"] == 4

    run(main())


def test_suspending_and_resuming() -> None:
    async def main() -> None:
        watched = await running(Watched())
        watched.edit({"job": {"state": "suspended"}})
        await asyncio.sleep(60)
        assert watched.states() == [("STABLE", "READY", "RUNNING"), ("SUSPENDED", "MISSING", "FINISHED")]
        assert watched.status()["observedGeneration"] == 2
        watched.edit({"job": {"state": "running"}})
        await asyncio.sleep(60)
        states = watched.states()
        assert states == [("SUSPENDED", "MISSING", "FINISHED"), ("UPGRADING", "MISSING", "FINISHED"), *AGAIN]

    run(main())


def test_wanted_suspended_from_the_start_never_gets_a_status() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(deployment(state="suspended"))
        await asyncio.sleep(600)
        assert watched.status() == {}
        watched.edit({"job": {"state": "running"}})
        await asyncio.sleep(60)
        assert watched.states() == FIRST

    run(main())


def test_a_bounded_job_finishes_and_its_job_manager_goes_a_day_later() -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(configuration={"execution.runtime-mode": "BATCH"}))
        await asyncio.sleep(200)
        assert watched.states() == [("STABLE", "READY", "FINISHED")]
        await asyncio.sleep(90_000)
        assert watched.states() == [("STABLE", "MISSING", "FINISHED")]

    run(main())


def test_without_its_rollback_the_operator_leaves_a_failed_upgrade_as_it_is() -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(configuration=HIGH_AVAILABILITY))
        watched.edit({"image": "shop/orders:2-never-starts"})
        await asyncio.sleep(3600)
        assert watched.states()[-1] == ("DEPLOYED", "DEPLOYED_NOT_READY", "RECONCILING")

    run(main())


@pytest.mark.parametrize("marker", ["never-starts", "pull-error", "fails-at-start"])
def test_the_operators_own_rollback_and_the_adoption_of_the_stable_spec(marker: str) -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(configuration=HIGH_AVAILABILITY | ROLLBACK))
        watched.edit({"image": f"shop/orders:2-{marker}"})
        await asyncio.sleep(600)
        lifecycles = [state[0] for state in watched.states()]
        assert lifecycles[-1] == "ROLLED_BACK"
        assert lifecycles.index("ROLLING_BACK") < lifecycles.index("ROLLED_BACK")
        assert watched.status()["jobStatus"]["state"] == "RUNNING"
        assert watched.value()["spec"]["image"] == f"shop/orders:2-{marker}"  # Git equals the cluster; old code runs
        assert watched.deployments() == 3

        watched.edit({"image": "shop/orders:1"})
        await asyncio.sleep(100)
        assert watched.states() == [("ROLLED_BACK", "READY", "RUNNING"), ("STABLE", "READY", "RUNNING")]
        assert watched.deployments() == 3  # adopted, without a second restart
        assert watched.status()["observedGeneration"] == 3

    run(main())


def test_there_is_no_rollback_after_a_redeployment_from_a_savepoint() -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(configuration=HIGH_AVAILABILITY | ROLLBACK))
        watched.edit({"image": "shop/orders:2-never-starts", "job": {"savepointRedeployNonce": 1}})
        await asyncio.sleep(3600)
        assert watched.states()[-1] == ("DEPLOYED", "DEPLOYED_NOT_READY", "RECONCILING")

    run(main())


def test_a_rolled_back_job_can_be_upgraded_again() -> None:
    async def main() -> None:
        watched = await running(Watched(), deployment(configuration=HIGH_AVAILABILITY | ROLLBACK))
        watched.edit({"image": "shop/orders:2-never-starts"})
        await asyncio.sleep(600)
        watched.edit({"image": "shop/orders:3"})
        await asyncio.sleep(100)
        assert watched.states()[-1] == ("STABLE", "READY", "RUNNING")
        assert spec_of(watched.status()["reconciliationStatus"]["lastStableSpec"])["image"] == "shop/orders:3"

    run(main())


def test_a_change_in_the_middle_of_a_deployment_is_taken_up_after_it_was_stopped() -> None:
    async def main() -> None:
        watched = await running(Watched())
        watched.edit({"image": "shop/orders:2-never-starts"})
        await asyncio.sleep(5)  # the old job is being stopped
        watched.edit({"image": "shop/orders:3"})
        await asyncio.sleep(200)
        assert watched.status()["lifecycleState"] == "STABLE"
        assert watched.status()["observedGeneration"] == 3
        assert spec_of(watched.status()["reconciliationStatus"]["lastStableSpec"])["image"] == "shop/orders:3"

    run(main())


def test_a_scenario_may_choose_behaviours_itself_and_change_them() -> None:
    async def main() -> None:
        bad: set[str] = {"orders"}
        chosen = Behaviours(chooser=lambda _kind, name, _spec: Behaviour.CRASH_LOOP if name in bad else None)
        watched = await running(Watched(behaviours=chosen))
        await asyncio.sleep(100)
        assert ("STABLE", "READY", "RESTARTING") in watched.states()
        bad.clear()
        await asyncio.sleep(100)
        watched.states()
        await asyncio.sleep(1000)
        assert watched.states() == []
        assert watched.status()["jobStatus"]["state"] == "RUNNING"

    run(main())


def test_session_jobs_wait_for_their_cluster_and_go_before_it() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(session_job())
        await asyncio.sleep(100)
        assert watched.status("report", "FlinkSessionJob")["lifecycleState"] == "CREATED"
        watched.cluster.create(session_cluster())
        await asyncio.sleep(100)
        assert watched.status("shared")["lifecycleState"] == "STABLE"
        assert watched.status("report", "FlinkSessionJob")["lifecycleState"] == "STABLE"
        assert "jobManagerDeploymentStatus" not in watched.status("report", "FlinkSessionJob")

        before = watched.job_id("report", "FlinkSessionJob")
        watched.edit({"job": {"parallelism": 2}}, "report", "FlinkSessionJob")
        await asyncio.sleep(100)
        assert watched.job_id("report", "FlinkSessionJob") != before

        watched.cluster.delete(GROUP, "FlinkDeployment", "default", "shared")
        await asyncio.sleep(100)
        assert "deletionTimestamp" in watched.value("shared")["metadata"]
        watched.cluster.delete(GROUP, "FlinkSessionJob", "default", "report")
        await asyncio.sleep(100)
        assert watched.cluster.server.objects("FlinkDeployment") == []
        assert watched.cluster.server.objects("FlinkSessionJob") == []

    run(main())


def test_deletion_takes_its_time_and_a_recreated_object_starts_anew() -> None:
    async def main() -> None:
        watched = await running(Watched())
        before, uid = watched.job_id(), watched.value()["metadata"]["uid"]
        watched.cluster.delete(GROUP, "FlinkDeployment", "default", "orders")
        await asyncio.sleep(3)
        assert "deletionTimestamp" in watched.value()["metadata"]
        await asyncio.sleep(3)
        assert watched.cluster.read(GROUP, "FlinkDeployment", "default", "orders") is None
        await running(watched)
        assert watched.value()["metadata"]["uid"] != uid
        assert watched.job_id() != before
        assert watched.deployments() == 1

    run(main())


def test_an_object_recreated_before_the_operator_looks_is_another_one() -> None:
    async def main() -> None:
        watched = await running(Watched())
        before = watched.job_id()
        gone = asyncio.Event()
        watched.cluster.server.observe(
            lambda key, event: gone.set() if (key.kind, event.type) == ("FlinkDeployment", "DELETED") else None
        )
        watched.cluster.delete(GROUP, "FlinkDeployment", "default", "orders")
        await gone.wait()
        watched.cluster.create(deployment())
        await asyncio.sleep(60)
        assert watched.status()["lifecycleState"] == "STABLE"
        assert watched.deployments() == 1
        assert watched.job_id() != before

    run(main())


@pytest.mark.parametrize(
    ("image", "limit", "end", "failures"),
    [("shop/orders:1", 1, "COMPLETED", 0), ("shop/orders:1-snapshot-fails", 1, "FAILED", 2), (None, 1, "ABANDONED", 0)],
)
def test_snapshots(image: str | None, limit: int, end: str, failures: int) -> None:
    async def main() -> None:
        watched = Watched()
        if image is not None:
            await running(watched, deployment(image=image))
        watched.cluster.create(state_snapshot(backoff_limit=limit))
        await asyncio.sleep(1.5)
        assert watched.status("before", "FlinkStateSnapshot")["state"] == "TRIGGER_PENDING"
        await asyncio.sleep(2)
        middle = watched.status("before", "FlinkStateSnapshot")["state"]
        assert middle == ("ABANDONED" if image is None else "IN_PROGRESS")
        await asyncio.sleep(100)
        status = watched.status("before", "FlinkStateSnapshot")
        assert (status["state"], status["failures"]) == (end, failures)
        assert status.get("path", "").startswith("s3://savepoints/savepoint-") is (end == "COMPLETED")

    run(main())


REDEPLOY = Change.SAVEPOINT_REDEPLOY
BASE: dict[str, Any] = {
    "image": "a:1",
    "flinkConfiguration": {"a": {"b": 1}, "c": True},
    "job": {"parallelism": 1},
    "taskManager": {"replicas": 1, "resource": {"cpu": 1}},
}


@pytest.mark.parametrize(
    ("after", "native", "standalone"),
    [
        ({}, Change.NONE, Change.NONE),
        ({"flinkConfiguration": {"a.b": "1", "c": "true"}}, Change.NONE, Change.NONE),
        ({"flinkConfiguration": {"a.b": 1, "c": True, "job.autoscaler.enabled": "true"}}, Change.IGNORE, Change.IGNORE),
        (
            {"flinkConfiguration": {"a.b": 1, "c": True, "pipeline.jobvertex-parallelism-overrides": "v:2"}},
            Change.SCALE,
            Change.UPGRADE,
        ),
        ({"job": {"parallelism": 2}}, Change.UPGRADE, Change.SCALE),
        ({"taskManager": {"replicas": 2, "resource": {"cpu": 1}}}, Change.UPGRADE, Change.SCALE),
        ({"taskManager": {"replicas": 2, "resource": {"cpu": 2}}}, Change.UPGRADE, Change.UPGRADE),
        (
            {"job": {"parallelism": 1, "savepointRedeployNonce": 1}},
            Change.SAVEPOINT_REDEPLOY,
            Change.SAVEPOINT_REDEPLOY,
        ),
        ({"restartNonce": 1}, Change.UPGRADE, Change.UPGRADE),
        ({"ingress": {"template": "x"}}, Change.UPGRADE, Change.UPGRADE),
        ({"image": "a:2", "job": {"parallelism": 1, "savepointRedeployNonce": 1}}, REDEPLOY, REDEPLOY),
    ],
)
def test_classes_of_changes(after: dict[str, Any], native: Change, standalone: Change) -> None:
    before, changed = effective(BASE), effective(BASE | after)
    assert change(before, changed, "native") is native
    assert change(before, changed, "standalone") is standalone


def test_configuration_is_compared_flat() -> None:
    assert flattened({"a": {"b": {"c": 1.5}}, "d": False, "e": None}) == {"a.b.c": "1.5", "d": "false"}

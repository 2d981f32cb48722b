"""What one look cannot see: durations, restarts and crash loops, over a history of looks at one object."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core.health import HEALTH_FUNCTIONS, SUSPENSIONS, Thresholds, evaluate, health
from reconciler.core.health_policy import thresholds
from reconciler.core.model import Facts, Health, Manifest

_POLICY = Path(__file__).parents[2] / "policies" / "health.yaml"


def _job(**changes: Any) -> Manifest:
    """A FlinkDeployment that runs; keywords change it."""
    generation = changes.get("generation", 1)
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {"name": "orders", "namespace": "orders", "generation": generation},
        "spec": {"image": "orders:1", "job": {"upgradeMode": "savepoint"}},
        "status": {
            "lifecycleState": changes.get("lifecycle", "STABLE"),
            "jobManagerDeploymentStatus": changes.get("job_manager", "READY"),
            "jobStatus": {"state": changes.get("job", "RUNNING"), "jobId": changes.get("job_id", "a")},
            "observedGeneration": changes.get("observed", generation),
            "reconciliationStatus": {"state": changes.get("reconciliation", "DEPLOYED")},
            "error": changes.get("error", ""),
        },
    }


def _history(*looks: tuple[float, Manifest], facts: Facts | None = None) -> tuple[list[tuple[str, str]], Facts]:
    """Judge each look in turn; the verdicts as (health, code), and the last facts."""
    facts = facts or Facts()
    said = []
    for now_s, manifest in looks:
        before = copy.deepcopy(manifest)
        found, reason, facts = health(manifest, facts, now_s)
        assert manifest == before, "a health function changes nothing"
        said.append((str(found), reason.code))
    return said, facts


RUNNING, RESTARTING = _job(), _job(job="RESTARTING")


@pytest.mark.parametrize(
    ("manifest", "limit_s", "early", "late"),
    [
        (RESTARTING, 120, "Restarting", "Restarting"),
        (_job(job_manager="MISSING", job="RECONCILING"), 180, "Stopped", "Stopped"),
        (_job(job="CANCELED"), 180, "Stopped", "Stopped"),
        (_job(lifecycle="DEPLOYED", job="RECONCILING"), 900, "ComingUp", "DeadlineExceeded"),
        (_job(lifecycle="UPGRADING", job_manager="MISSING"), 900, "ComingUp", "DeadlineExceeded"),
        (_job(observed=0, error="ValidationException: no"), 120, "MaybeRejected", "Rejected"),
        (_job(job_manager="ERROR", job="RECONCILING", error="ErrImagePull"), 300, "ImagePull", "ImagePull"),
    ],
)
def test_waiting_is_degraded_after_its_limit(manifest: Manifest, limit_s: float, early: str, late: str) -> None:
    said, facts = _history((1000.0, manifest), (1000.0 + limit_s - 1, manifest), (1000.0 + limit_s, manifest))
    assert said == [("Progressing", early), ("Progressing", early), ("Degraded", late)]
    assert facts.since_s == 1000.0


def test_a_silent_operator_is_not_the_jobs_fault() -> None:
    pending = _job(generation=2, observed=1)
    said, _ = _history((0.0, pending), (420.0, pending), (5000.0, pending))
    assert said == [("Progressing", code) for code in ("GenerationPending", "OperatorSilent", "OperatorSilent")]


def test_a_new_generation_starts_the_time_anew() -> None:
    said, facts = _history(
        (0.0, _job(lifecycle="DEPLOYED", job="RECONCILING")),
        (800.0, _job(generation=2, lifecycle="DEPLOYED", job="RECONCILING")),
        (1600.0, _job(generation=2, lifecycle="DEPLOYED", job="RECONCILING")),
    )
    assert {code for _, code in said} == {"ComingUp"}
    assert facts.since_s == 800.0


def test_three_restarts_in_ten_minutes_are_a_crash_loop_even_while_it_runs() -> None:
    said, facts = _history(
        (0.0, RUNNING),
        (100.0, RESTARTING),
        (110.0, RUNNING),
        (200.0, RESTARTING),
        (210.0, RUNNING),
        (300.0, RESTARTING),
        (310.0, RUNNING),
        (699.0, RUNNING),
        (701.0, RUNNING),
    )
    assert [code for _, code in said] == [
        *("Running", "Restarting", "Running", "Restarting", "Running", "CrashLoop", "CrashLoop", "CrashLoop"),
        "Running",
    ]
    assert facts.restarts == 3


def test_staying_in_a_restart_counts_once() -> None:
    _, facts = _history((0.0, RUNNING), (10.0, RESTARTING), (20.0, RESTARTING), (30.0, _job(job="RECONCILING")))
    assert (facts.restarts, facts.transitions_s) == (1, (10.0,))


def test_a_restart_nobody_saw_shows_in_the_job_id() -> None:
    said, facts = _history((0.0, RUNNING), (10.0, _job(job_id="b")), (20.0, _job(job_id="b")))
    assert [code for _, code in said] == ["Running"] * 3
    assert (facts.restarts, facts.job_id) == (1, "b")


def test_a_restart_that_ends_in_a_new_job_id_counts_once() -> None:
    _, facts = _history((0.0, RUNNING), (10.0, _job(job="RECONCILING")), (20.0, _job(job_id="b")))
    assert (facts.restarts, facts.job_id) == (1, "b")


def test_a_failed_job_that_was_submitted_again_restarted() -> None:
    _, facts = _history((0.0, RUNNING), (10.0, _job(job="FAILED")), (20.0, _job(job_id="b")))
    assert facts.restarts == 1


def test_an_upgrade_is_no_restart_and_forgets_the_old_loop() -> None:
    looping = Facts("running@1", 0.0, (1.0, 2.0, 3.0), "a", 3)
    said, facts = _history(
        (4.0, _job(generation=2, observed=1)),
        (5.0, _job(generation=2, lifecycle="UPGRADING", reconciliation="UPGRADING", job="FINISHED")),
        (6.0, _job(generation=2, lifecycle="DEPLOYED", job="RECONCILING", job_id="b")),
        (7.0, _job(generation=2, job_id="b")),
        facts=looping,
    )
    assert [code for _, code in said] == ["GenerationPending", "ComingUp", "ComingUp", "Running"]
    assert (facts.restarts, facts.transitions_s, facts.job_id) == (3, (), "b")


def test_the_first_start_is_no_restart() -> None:
    _, facts = _history((0.0, _job(lifecycle="DEPLOYED", job="RECONCILING")), (10.0, RUNNING))
    assert facts.restarts == 0


def test_transitions_are_bounded() -> None:
    looks = [(float(i), RUNNING if i % 2 == 0 else RESTARTING) for i in range(60)]
    _, facts = _history(*looks)
    assert len(facts.transitions_s) == 10
    assert facts.restarts == 30


def test_a_clock_that_jumps_back_degrades_nothing() -> None:
    said, _ = _history((1000.0, RESTARTING), (10.0, RESTARTING))
    assert said[-1] == ("Progressing", "Restarting")


def test_stable_with_nothing_running_is_never_healthy() -> None:
    for job in ("RESTARTING", "RECONCILING", "FAILING", "FAILED", "CANCELED", "SUSPENDED", "CREATED", "", "NEW_STATE"):
        found, _, _ = health(_job(job=job), Facts(), 0.0)
        assert found is not Health.HEALTHY, job


def test_a_pod_tells_its_restarts() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "status": {"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 2}]},
    }
    assert evaluate(pod, Facts(), 0.0)[2].restarts == 2


def test_an_unavailable_deployment_is_degraded_after_a_while() -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "generation": 1},
        "spec": {"replicas": 1},
        "status": {
            "observedGeneration": 1,
            "replicas": 1,
            "updatedReplicas": 1,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        },
    }
    said, _ = _history((0.0, deployment), (180.0, deployment))
    assert said == [("Progressing", "Unavailable"), ("Degraded", "Unavailable")]


def _standing_still(kind: str) -> tuple[Manifest, tuple[str, ...], Any]:
    """A live object whose spec says that it stands still and which does; the field that says so, and its value."""
    if kind in ("FlinkDeployment", "FlinkSessionJob"):
        job = _job(lifecycle="SUSPENDED", job_manager="MISSING", job="FINISHED")
        job["kind"] = kind
        job["spec"]["job"]["state"] = "suspended"
        return job, ("spec", "job", "state"), "suspended"
    field = "paused" if kind == "Deployment" else "suspend"
    return (
        {
            "apiVersion": "apps/v1" if kind == "Deployment" else "batch/v1",
            "kind": kind,
            "metadata": {"name": "web", "generation": 3},
            "spec": {"replicas": 2, field: True},
            "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 0, "availableReplicas": 0},
        },
        ("spec", field),
        True,
    )


SUSPENDABLE = ["CronJob", "Deployment", "FlinkDeployment", "FlinkSessionJob", "Job"]


def test_every_kind_that_can_be_suspended_is_tried() -> None:
    assert sorted(name for _, name in SUSPENSIONS) == SUSPENDABLE


@pytest.mark.parametrize("kind", SUSPENDABLE)
def test_suspended_is_what_git_declares_and_nothing_else(kind: str) -> None:
    live, path, _ = _standing_still(kind)
    undeclared = copy.deepcopy(live)
    holder = undeclared
    for name in path[:-1]:
        holder = holder[name]
    del holder[path[-1]]
    assert evaluate(live, Facts(), 0.0)[0] is Health.SUSPENDED  # a file: its own spec is all there is
    assert evaluate(live, Facts(), 0.0, desired=live)[0] is Health.SUSPENDED
    found, reason, _ = evaluate(live, Facts(), 0.0, desired=undeclared)
    assert (found, reason.code) == (Health.PROGRESSING, "SuspendedByHand")
    assert ".".join(path) in reason.message


@pytest.mark.parametrize("kind", SUSPENDABLE)
def test_what_is_suspended_by_hand_is_degraded_after_its_limit(kind: str) -> None:
    live, _, _ = _standing_still(kind)
    desired = {**live, "spec": {}}
    limit_s = Thresholds().progress_deadline_s if kind.startswith("Flink") else Thresholds().workload_deadline_s
    facts, said = Facts(), []
    for now_s in (100.0, 99.0 + limit_s, 100.0 + limit_s):
        found, reason, facts = evaluate(live, facts, now_s, desired=desired)
        said.append((str(found), reason.code))
    assert said == [
        ("Progressing", "SuspendedByHand"),
        ("Progressing", "SuspendedByHand"),
        ("Degraded", "SuspendedByHand"),
    ]
    assert facts.since_s == 100.0


def test_a_job_that_was_suspended_by_hand_and_goes_on_has_not_restarted() -> None:
    live, _, _ = _standing_still("FlinkDeployment")
    _, _, facts = evaluate(RUNNING, Facts(), 0.0, desired=RUNNING)
    _, _, facts = evaluate(live, facts, 10.0, desired=RUNNING)
    found, _, facts = evaluate(_job(generation=2, job_id="b"), facts, 20.0, desired=RUNNING)
    assert (found, facts.restarts) == (Health.HEALTHY, 0)


def test_a_health_function_that_fails_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise KeyError("\x1b[31msecret\nplan")

    monkeypatch.setitem(HEALTH_FUNCTIONS, ("", "Service"), broken)
    facts = Facts("x", 1.0)
    service: Manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    found, reason, after = evaluate(service, facts, 0.0)
    assert (found, reason.code, after) == (Health.UNKNOWN, "HealthError", facts)
    assert reason.message.isprintable()


@pytest.mark.parametrize("kind", sorted(HEALTH_FUNCTIONS))
@pytest.mark.parametrize("junk", [None, "x", 7, [], ["x"], {"conditions": "x"}, {"jobStatus": 1, "error": {"a": 1}}])
def test_junk_in_spec_and_status_is_never_an_error(kind: tuple[str, str], junk: Any) -> None:
    group, name = kind
    version = f"{group}/v1" if group else "v1"
    manifest = {"apiVersion": version, "kind": name, "metadata": {"name": "x"}, "spec": junk, "status": junk}
    _, reason, _ = evaluate(manifest, Facts(), 0.0)
    assert reason.code != "HealthError", reason


# ---- thresholds --------------------------------------------------------------------------------------------------


def test_the_shipped_document_says_what_the_defaults_say() -> None:
    assert thresholds(yaml.safe_load(_POLICY.read_text())["spec"]) == Thresholds()


def test_the_catalogue_s_flat_form_is_read_too() -> None:
    assert thresholds({"flink.unstableTimes": 5.0, "flink.rejectedDegradedAfter": 60.0}) == Thresholds(
        restarts_max=5, rejected_s=60.0
    )


def test_thresholds_can_be_set() -> None:
    assert thresholds({"flink": {"unstableTimes": 5, "rejectedDegradedAfter": "1m"}}) == Thresholds(
        restarts_max=5, rejected_s=60.0
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"flink": {"unknown": "1s"}},
        {"flink": {"rejectedDegradedAfter": "soon"}},
        {"flink": {"unstableTimes": 2.5}},
        {"flink": {"unstableTimes": 0}},
    ],
)
def test_wrong_thresholds_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown|duration|number"):
        thresholds(spec)

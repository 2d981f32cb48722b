"""Golden verdicts: every fixture `<kind>-<state>.yaml`, judged as a file, says exactly this."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.cli.offline_live import health_of_file

FIXTURES = Path(__file__).parent / "fixtures"

#: fixture: (health, reason code)
VERDICTS: dict[str, tuple[str, str]] = {
    "configmap-present": ("Healthy", "Present"),
    "custom-not-observed": ("Progressing", "GenerationPending"),
    "custom-strange-status": ("Progressing", "RollingOut"),
    "daemonset-available": ("Healthy", "Available"),
    "daemonset-updating": ("Progressing", "RollingOut"),
    "deployment-available": ("Healthy", "Available"),
    "deployment-deadline": ("Degraded", "ProgressDeadlineExceeded"),
    "deployment-deleting": ("Progressing", "Deleting"),
    "deployment-lost-its-pods": ("Progressing", "Unavailable"),
    "deployment-not-observed": ("Progressing", "GenerationPending"),
    "deployment-old-replicas": ("Progressing", "RollingOut"),
    "deployment-paused": ("Suspended", "Paused"),
    "deployment-quota": ("Progressing", "RollingOut"),
    "deployment-rolling": ("Progressing", "RollingOut"),
    "deployment-scaled-to-zero": ("Healthy", "Available"),
    "flinkdeployment-bounded-by-annotation-finished": ("Healthy", "JobFinished"),
    "flinkdeployment-bounded-finished": ("Healthy", "JobFinished"),
    "flinkdeployment-canary": ("Healthy", "OperatorCanary"),
    "flinkdeployment-canceled-by-hand": ("Progressing", "Stopped"),
    "flinkdeployment-created": ("Progressing", "ComingUp"),
    "flinkdeployment-deleting": ("Progressing", "Deleting"),
    "flinkdeployment-deployed": ("Progressing", "ComingUp"),
    "flinkdeployment-deployed-and-running": ("Progressing", "ComingUp"),
    "flinkdeployment-deployed-late": ("Degraded", "DeadlineExceeded"),
    "flinkdeployment-failed": ("Degraded", "JobFailed"),
    "flinkdeployment-first-spec-rejected": ("Degraded", "Rejected"),
    "flinkdeployment-generation-pending": ("Progressing", "GenerationPending"),
    "flinkdeployment-hostile-error": ("Degraded", "JobFailed"),
    "flinkdeployment-image-pull": ("Progressing", "ImagePull"),
    "flinkdeployment-image-pull-late": ("Degraded", "ImagePull"),
    "flinkdeployment-job-failed-while-stable": ("Degraded", "JobFailed"),
    "flinkdeployment-jobmanager-error": ("Degraded", "JobManagerError"),
    "flinkdeployment-jobmanager-missing": ("Progressing", "Stopped"),
    "flinkdeployment-jobmanager-missing-late": ("Degraded", "Stopped"),
    "flinkdeployment-jobmanager-restarting": ("Progressing", "Restarting"),
    "flinkdeployment-just-rejected": ("Progressing", "MaybeRejected"),
    "flinkdeployment-manual-restore": ("Degraded", "ManualRestoreRequired"),
    "flinkdeployment-no-status": ("Progressing", "NotReconciled"),
    "flinkdeployment-no-status-late": ("Degraded", "NotReconciled"),
    "flinkdeployment-old-operator-failed": ("Degraded", "JobFailed"),
    "flinkdeployment-old-operator-not-yet-stable": ("Progressing", "ComingUp"),
    "flinkdeployment-old-operator-pending": ("Progressing", "GenerationPending"),
    "flinkdeployment-old-operator-running": ("Healthy", "Running"),
    "flinkdeployment-old-operator-suspended": ("Suspended", "Suspended"),
    "flinkdeployment-operator-silent": ("Progressing", "OperatorSilent"),
    "flinkdeployment-rejected": ("Degraded", "Rejected"),
    "flinkdeployment-restarting-late": ("Degraded", "Restarting"),
    "flinkdeployment-restarting-under-stable": ("Progressing", "Restarting"),
    "flinkdeployment-rolled-back": ("Degraded", "RolledBack"),
    "flinkdeployment-rolling-back": ("Progressing", "RollingBack"),
    "flinkdeployment-running": ("Healthy", "Running"),
    "flinkdeployment-running-with-error": ("Progressing", "OperatorError"),
    "flinkdeployment-source-ended": ("Degraded", "SourceEnded"),
    "flinkdeployment-suspended": ("Suspended", "Suspended"),
    "flinkdeployment-suspended-from-the-start": ("Suspended", "Suspended"),
    "flinkdeployment-suspending": ("Progressing", "Suspending"),
    "flinkdeployment-unknown-lifecycle": ("Unknown", "UnknownState"),
    "flinkdeployment-upgrading": ("Progressing", "ComingUp"),
    "flinkdeployment-upgrading-after-stop-with-savepoint": ("Progressing", "ComingUp"),
    "flinkdeployment-upgrading-from-a-broken-jobmanager": ("Progressing", "ComingUp"),
    "flinkdeployment-upgrading-from-a-failed-job": ("Progressing", "ComingUp"),
    "flinksession-deploying": ("Progressing", "ComingUp"),
    "flinksession-jobmanager-missing": ("Progressing", "Stopped"),
    "flinksession-ready": ("Healthy", "Running"),
    "flinksessionjob-failed": ("Degraded", "JobFailed"),
    "flinksessionjob-no-status": ("Progressing", "NotReconciled"),
    "flinksessionjob-restarting": ("Progressing", "Restarting"),
    "flinksessionjob-running": ("Healthy", "Running"),
    "flinksessionjob-running-with-old-error": ("Healthy", "RunningWithOldError"),
    "job-complete": ("Healthy", "Complete"),
    "job-failed": ("Degraded", "BackoffLimitExceeded"),
    "job-running": ("Progressing", "Running"),
    "job-suspended": ("Suspended", "Suspended"),
    "pod-bad-config": ("Degraded", "CreateContainerConfigError"),
    "pod-crash-loop": ("Degraded", "CrashLoopBackOff"),
    "pod-failed": ("Degraded", "Failed"),
    "pod-image-pull": ("Progressing", "ErrImagePull"),
    "pod-node-lost": ("Unknown", "NodeLost"),
    "pod-not-ready": ("Progressing", "NotReady"),
    "pod-ready": ("Healthy", "Ready"),
    "pod-succeeded": ("Healthy", "Succeeded"),
    "pod-unschedulable": ("Progressing", "Unschedulable"),
    "service-cluster-ip": ("Healthy", "Present"),
    "service-load-balancer": ("Healthy", "AddressAssigned"),
    "service-load-balancer-pending": ("Progressing", "NoAddress"),
    "statefulset-on-delete": ("Healthy", "Ready"),
    "statefulset-partition": ("Healthy", "Ready"),
    "statefulset-ready": ("Healthy", "Ready"),
    "statefulset-starting": ("Progressing", "RollingOut"),
    "statefulset-updating": ("Progressing", "RollingOut"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(name: str) -> None:
    path = FIXTURES / f"{name}.yaml"
    found = health_of_file(path.name, path.read_bytes())
    assert found.problems == ()
    [verdict] = found.as_json()
    assert (verdict["health"], verdict["reason"]) == VERDICTS[name], verdict["message"]
    assert verdict["message"]
    assert len(verdict["message"]) <= 300
    assert verdict["message"].isprintable()


def test_every_fixture_has_a_verdict() -> None:
    assert sorted(path.stem for path in FIXTURES.glob("*.yaml")) == sorted(VERDICTS)

"""Operators that report neither lifecycleState nor what they last reconciled: the rest is judged all the same."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.health import health_from_file
from reconciler.core.model import Health, Manifest

READY = {"jobManagerDeploymentStatus": "READY"}
DEPLOYED = {"reconciliationStatus": {"state": "DEPLOYED"}}


def deployment(status: dict[str, Any], **spec: Any) -> Manifest:
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {"name": "orders", "namespace": "orders", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"image": "flink:1.20", "job": {"jarURI": "local:///a.jar"}, **spec},
        "status": status,
    }


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ({**READY, "jobStatus": {"state": "RUNNING"}}, Health.HEALTHY),
        ({**READY, **DEPLOYED, "jobStatus": {"state": "RUNNING"}}, Health.HEALTHY),
        ({**READY, "jobStatus": {"state": "FAILED"}}, Health.DEGRADED),
        ({**READY, **DEPLOYED, "jobStatus": {"state": "FAILED"}}, Health.DEGRADED),
        ({**READY, **DEPLOYED}, Health.PROGRESSING),
        ({**READY, **DEPLOYED, "jobStatus": {"state": "CREATED"}}, Health.PROGRESSING),
        ({**READY, "reconciliationStatus": {"state": "UPGRADING"}}, Health.PROGRESSING),
        ({"reconciliationStatus": {"state": "ROLLED_BACK"}, "jobStatus": {"state": "RUNNING"}}, Health.DEGRADED),
        ({}, Health.PROGRESSING),
    ],
)
def test_what_is_there_is_judged(status: dict[str, Any], health: Health) -> None:
    found, reason = health_from_file(deployment(status))
    assert found is health, reason


@pytest.mark.parametrize(("state", "health"), [("READY", Health.HEALTHY), ("DEPLOYING", Health.PROGRESSING)])
def test_a_session_cluster(state: str, health: Health) -> None:
    manifest = deployment({"jobManagerDeploymentStatus": state, **DEPLOYED})
    del manifest["spec"]["job"]
    found, reason = health_from_file(manifest)
    assert found is health, reason

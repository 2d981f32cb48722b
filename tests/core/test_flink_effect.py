"""What a change does to a Flink job: every row of the table, and every condition of the effects."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core.flink_effect import ChangeClass, FlinkEffect, flink_effect

_ADAPTIVE = {"jobmanager.scheduler": "adaptive"}
_OVERRIDES = "pipeline.jobvertex-parallelism-overrides"


def _spec(**changes: Any) -> dict[str, Any]:
    """A spec with changes by dotted path; `configuration` replaces the whole configuration."""
    spec: dict[str, Any] = {
        "image": "orders:1",
        "flinkVersion": "v1_20",
        "mode": "native",
        "flinkConfiguration": {"a.b": "1"},
        "jobManager": {"resource": {"cpu": 1, "memory": "2g"}},
        "taskManager": {"resource": {"cpu": 1, "memory": "2g"}, "replicas": 1},
        "job": {"jarURI": "local:///a.jar", "parallelism": 4, "upgradeMode": "last-state"},
    }
    return _changed(spec, changes)


def _changed(spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = path.split("__")
        holder = changed
        for name in parents:
            holder = holder.setdefault(name, {})
        if value is None:
            holder.pop(last, None)
        else:
            holder[last] = value
    return changed


def _words(found: FlinkEffect) -> tuple[str | None, str, str]:
    return (None if found.change_class is None else str(found.change_class), str(found.effect), str(found.state))


KEPT = ("upgrade", "restart", "kept")
IGNORED = ("ignore", "none", "none")
UNTOUCHED = (None, "none", "none")
RESCALED_BY_RESTART = ("scale", "restart", "kept")

#: name: (old, new, class, effect, state)
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str | None, str, str]]] = {
    "nothing": ({}, {}, UNTOUCHED),
    "upgradeMode": ({}, {"job__upgradeMode": "stateless"}, IGNORED),
    "allowNonRestoredState": ({}, {"job__allowNonRestoredState": True}, IGNORED),
    "initialSavepointPath": ({}, {"job__initialSavepointPath": "s3://x"}, IGNORED),
    "savepointTriggerNonce": ({}, {"job__savepointTriggerNonce": 2}, IGNORED),
    "checkpointTriggerNonce": ({}, {"job__checkpointTriggerNonce": 2}, IGNORED),
    "autoscalerResetNonce": ({}, {"job__autoscalerResetNonce": 2}, IGNORED),
    "job.autoscaler": ({}, {"flinkConfiguration": {"a.b": "1", "job.autoscaler.enabled": "true"}}, IGNORED),
    "parallelism.default": ({}, {"flinkConfiguration": {"a.b": "1", "parallelism.default": "3"}}, IGNORED),
    "kubernetes.operator": (
        {},
        {"flinkConfiguration": {"a.b": "1", "kubernetes.operator.savepoint.history.max.count": "3"}},
        IGNORED,
    ),
    "nested and flat are one": ({}, {"flinkConfiguration": {"a": {"b": 1}}}, UNTOUCHED),
    "1 and 1.0 are one": ({}, {"jobManager__resource__cpu": 1.0}, UNTOUCHED),
    "a declared default": ({}, {"job__state": "running", "job__args": [], "jobManager__replicas": 1}, UNTOUCHED),
    "native parallelism": ({}, {"job__parallelism": 8}, KEPT),
    "native replicas": ({}, {"taskManager__replicas": 2}, KEPT),
    "standalone parallelism": ({"mode": "standalone"}, {"job__parallelism": 8}, RESCALED_BY_RESTART),
    "standalone replicas, reactive": (
        {"mode": "standalone", "flinkConfiguration": {"scheduler-mode": "reactive"}},
        {"taskManager__replicas": 3},
        ("scale", "in-place", "kept"),
    ),
    "standalone overrides": (
        {"mode": "standalone"},
        {"flinkConfiguration": {"a.b": "1", _OVERRIDES: "v:2"}},
        KEPT,
    ),
    "mode": ({}, {"mode": "standalone"}, KEPT),
    "overrides, not adaptive": ({}, {"flinkConfiguration": {"a.b": "1", _OVERRIDES: "v:2"}}, RESCALED_BY_RESTART),
    "overrides, adaptive": (
        {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:2"}},
        {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:4,w:2"}},
        ("scale", "in-place", "kept"),
    ),
    "overrides, Flink 2": (
        {"flinkVersion": "v2_0", "flinkConfiguration": {**_ADAPTIVE}},
        {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:4"}},
        ("scale", "in-place", "kept"),
    ),
    "overrides, Flink 1.17": (
        {"flinkVersion": "v1_17", "flinkConfiguration": {**_ADAPTIVE}},
        {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:4"}},
        ("scale", "restart", "kept"),
    ),
    "overrides, an override removed": (
        {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:2,w:2"}},
        {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:4"}},
        ("scale", "restart", "kept"),
    ),
    "overrides, in-place disabled": (
        {"flinkConfiguration": {**_ADAPTIVE, "kubernetes.operator.job.upgrade.inplace-scaling.enabled": False}},
        {
            "flinkConfiguration": {
                **_ADAPTIVE,
                "kubernetes.operator.job.upgrade.inplace-scaling.enabled": False,
                _OVERRIDES: "v:4",
            }
        },
        ("scale", "restart", "kept"),
    ),
    "savepointRedeployNonce": ({}, {"job__savepointRedeployNonce": 1}, ("redeploy", "redeploy", "lost")),
    "redeploy outranks upgrade": (
        {},
        {"image": "orders:2", "job__savepointRedeployNonce": 1},
        ("redeploy", "redeploy", "lost"),
    ),
    "savepointRedeployNonce taken away": (
        {"job__savepointRedeployNonce": 1},
        {"job__savepointRedeployNonce": None},
        UNTOUCHED,
    ),
    "restartNonce": ({}, {"restartNonce": 1}, KEPT),
    "restartNonce taken away": ({"restartNonce": 1}, {"restartNonce": None}, UNTOUCHED),
    "image": ({}, {"image": "orders:2"}, KEPT),
    "ingress": ({}, {"ingress": {"template": "x"}}, KEPT),
    "logConfiguration": ({}, {"logConfiguration": {"log4j": "x"}}, KEPT),
    "podTemplate": ({}, {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}, KEPT),
    "any other configuration": ({}, {"flinkConfiguration": {"a.b": "2"}}, KEPT),
    "stateless": ({"job__upgradeMode": "stateless"}, {"image": "orders:2"}, ("upgrade", "restart", "lost")),
    "stateless by default": ({"job__upgradeMode": None}, {"image": "orders:2"}, ("upgrade", "restart", "lost")),
    "from stateless to savepoint": (
        {"job__upgradeMode": "stateless"},
        {"image": "orders:2", "job__upgradeMode": "savepoint"},
        KEPT,
    ),
    "from savepoint to stateless": (
        {"job__upgradeMode": "savepoint"},
        {"image": "orders:2", "job__upgradeMode": "stateless"},
        ("upgrade", "restart", "lost"),
    ),
    "flinkVersion": ({}, {"flinkVersion": "v2_0"}, KEPT),
    "suspend": ({}, {"job__state": "suspended"}, KEPT),
    "suspend stateless": (
        {"job__upgradeMode": "stateless"},
        {"job__state": "suspended"},
        ("upgrade", "restart", "lost"),
    ),
    "while suspended": ({"job__state": "suspended"}, {"image": "orders:2"}, ("upgrade", "none", "none")),
    "resume": ({"job__state": "suspended"}, {"job__state": "running"}, KEPT),
    "resume stateless": (
        {"job__state": "suspended"},
        {"job__state": "running", "job__upgradeMode": "stateless"},
        ("upgrade", "restart", "lost"),
    ),
    "resume what was suspended stateless": (
        {"job__state": "suspended", "job__upgradeMode": "stateless"},
        {"job__state": "running"},
        ("upgrade", "restart", "none"),
    ),
    "application to session cluster": ({}, {"job": None}, ("upgrade", "restart", "lost")),
    "session cluster": ({"job": None}, {"image": "orders:2"}, ("upgrade", "restart", "lost")),
    "session cluster with high availability": (
        {"job": None, "flinkConfiguration": {"high-availability": {"type": "kubernetes"}}},
        {"image": "orders:2"},
        KEPT,
    ),
    "session cluster to another Flink": (
        {"job": None, "flinkConfiguration": {"high-availability.type": "kubernetes"}},
        {"flinkVersion": "v2_0"},
        ("upgrade", "restart", "lost"),
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_class_effect_and_state(name: str) -> None:
    before, change, expected = FIELDS[name]
    old = _spec(**before)
    found = flink_effect(old, _changed(old, change))
    assert _words(found) == expected
    assert bool(found.reasons) == (expected[0] is not None)


@pytest.mark.parametrize(
    ("state", "change", "expected"),
    [
        ("FINISHED", {"image": "orders:2"}, ("upgrade", "runs-again", "none")),
        ("FINISHED", {"job__upgradeMode": "stateless"}, IGNORED),
        ("FAILED", {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:4"}}, RESCALED_BY_RESTART),
        ("RUNNING", {"flinkConfiguration": {**_ADAPTIVE, _OVERRIDES: "v:4"}}, ("scale", "in-place", "kept")),
        ("RESTARTING", {"image": "orders:2"}, KEPT),
    ],
)
def test_the_live_job_counts(state: str, change: dict[str, Any], expected: tuple[str, str, str]) -> None:
    old = _spec(flinkConfiguration=_ADAPTIVE)
    assert _words(flink_effect(old, _changed(old, change), {"jobStatus": {"state": state}})) == expected


def test_a_savepoint_needs_a_running_job() -> None:
    old = _spec(job__upgradeMode="savepoint")
    found = flink_effect(old, _spec(job__upgradeMode="savepoint", image="b"), {"jobStatus": {"state": "FAILING"}})
    assert "no savepoint is taken" in found.reasons[0]


def test_the_first_deployment_ignores_the_upgrade_mode() -> None:
    found = flink_effect(None, _spec(job__upgradeMode="savepoint"))
    assert _words(found) == (None, "none", "none")
    assert found.reasons == ("first deployment: starts with empty state",)
    assert "s3://x" in flink_effect(None, _spec(job__initialSavepointPath="s3://x")).reasons[0]


def test_a_deletion_loses_state_unless_the_job_was_suspended() -> None:
    assert _words(flink_effect(_spec(), None)) == (None, "none", "lost")
    assert _words(flink_effect(_spec(job__state="suspended"), None)) == (None, "none", "kept")
    assert _words(flink_effect(None, None)) == (None, "none", "none")


def test_the_fields_that_decided_are_named() -> None:
    found = flink_effect(_spec(), _spec(image="b", job__upgradeMode="savepoint", flinkConfiguration={"a.b": "2"}))
    assert found.change_class is ChangeClass.UPGRADE
    assert found.fields == ("spec.image", "spec.flinkConfiguration[a.b]")

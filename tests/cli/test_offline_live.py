"""`diff` and `health` of files: what they say, in JSON and in lines."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from reconciler.cli.offline_live import FileDiff, diff_files, health_of_file
from reconciler.core.model import Manifest
from tests.core.field_owners import applied, deployment, flink_deployment


def _bytes(*manifests: Manifest) -> bytes:
    return "\n---\n".join(json.dumps(manifest) for manifest in manifests).encode()


def _diff(desired: Manifest, live: Manifest) -> FileDiff:
    return diff_files("want.yaml", _bytes(desired), "live.yaml", _bytes(live))


def _only(found: FileDiff) -> dict[str, Any]:
    [part] = found.as_json()["objects"]
    assert isinstance(part, dict)
    return part


def test_what_was_applied_is_equal() -> None:
    for manifest in (deployment(), flink_deployment()):
        found = _diff(manifest, applied(manifest))
        part = _only(found)
        assert (part["action"], part["verdict"], part["changes"], found.differs) == ("none", "equal", [], False)


def test_what_a_server_adds_is_no_difference() -> None:
    desired, live = deployment(), deployment()
    pod = desired["spec"]["template"]["spec"]
    del pod["containers"][0]["ports"][0]["protocol"]
    pod["containers"][0]["resources"]["limits"]["cpu"] = "1000m"
    pod["hostPID"] = False
    pod["restartPolicy"] = "Always"
    desired["metadata"]["creationTimestamp"] = None
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    live["spec"]["template"]["spec"]["containers"].insert(0, {"name": "injected", "image": "mesh"})
    live["status"] = {"replicas": 2}
    found = _diff(desired, live)
    assert not found.differs, found.as_json()


@pytest.mark.parametrize(
    ("path", "value", "display"),
    [
        (("spec", "replicas"), 3, "spec.replicas"),
        (
            ("spec", "template", "spec", "containers", 0, "image"),
            "web:2",
            "spec.template.spec.containers[name=main].image",
        ),
        (("spec", "template", "spec", "containers", 0, "args"), ["x"], "spec.template.spec.containers[name=main].args"),
        (("metadata", "labels", "team"), "a", "metadata.labels.team"),
        (("spec", "template", "spec", "hostNetwork"), False, "spec.template.spec.hostNetwork"),
    ],
)
def test_a_difference_names_its_path(path: tuple[Any, ...], value: Any, display: str) -> None:
    desired = deployment()
    holder: Any = desired
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    found = _diff(desired, deployment())
    [change] = _only(found)["changes"]
    assert (change["display"], change["new"]) == (display, value)
    assert change["path"] == "/" + "/".join(str(step) for step in path)
    assert found.differs


def test_a_declared_zero_is_no_default() -> None:
    desired, live = deployment(), deployment()
    desired["spec"]["replicas"] = 0
    del live["spec"]["replicas"]
    assert [change["display"] for change in _only(_diff(desired, live))["changes"]] == ["spec.replicas"]
    desired["spec"]["replicas"] = 1
    assert not _diff(desired, live).differs


def test_a_flink_change_has_its_class_effect_and_state() -> None:
    desired, live = flink_deployment(), applied(flink_deployment())
    desired["spec"]["image"] = "orders:2"
    assert {name: _only(_diff(desired, live))[name] for name in ("action", "class", "effect", "state")} == {
        "action": "update",
        "class": "upgrade",
        "effect": "restart",
        "state": "kept",
    }
    live["status"] = {"jobStatus": {"state": "FINISHED"}}
    assert _only(_diff(desired, live))["effect"] == "runs-again"


def test_a_change_of_operator_settings_is_ignored() -> None:
    """What only live has must not make the class worse."""
    desired, live = flink_deployment(), flink_deployment()
    desired["spec"]["flinkConfiguration"] = {"kubernetes": {"operator": {"savepoint.history.max.count": 3}}}
    live["spec"]["podTemplate"] = {"metadata": {"labels": {"a": "b"}}}
    part = _only(_diff(desired, live))
    assert (part["class"], part["effect"], part["state"]) == ("ignore", "none", "none")
    [change] = part["changes"]
    assert change["display"] == "spec.flinkConfiguration[kubernetes.operator.savepoint.history.max.count]"


def test_what_we_own_and_drop_is_removed() -> None:
    desired, live = flink_deployment(), applied(flink_deployment())
    del desired["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    part = _only(_diff(desired, live))
    assert [(change["op"], change["path"]) for change in part["changes"]] == [
        ("remove", "/spec/flinkConfiguration/taskmanager.numberOfTaskSlots")
    ]
    assert part["class"] == "upgrade"


def test_created_and_deleted() -> None:
    ours = applied({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old", "labels": {"a": "b"}}})
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
    found = diff_files("want.yaml", _bytes(deployment()), "live.yaml", _bytes(ours, theirs))
    assert [(part["action"], part["name"]) for part in found.as_json()["objects"]] == [
        ("create", "web"),
        ("delete", "old"),
    ]
    assert found.differs


def test_a_list_and_a_missing_namespace_are_understood() -> None:
    desired = deployment()
    del desired["metadata"]["namespace"]
    listed = {"apiVersion": "v1", "kind": "List", "items": [deployment()]}
    found = diff_files("want.yaml", _bytes(desired), "live.yaml", _bytes(listed))
    assert not found.differs


def test_being_deleted_is_not_judgeable() -> None:
    live = deployment()
    live["metadata"]["deletionTimestamp"] = "2026-03-01T10:00:00Z"
    assert _only(_diff(deployment(), live))["verdict"] == "not-judgeable"


def test_a_secret_is_shown_nowhere() -> None:
    live = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "b25lb25lb25l"}}
    desired = {**copy.deepcopy(live), "stringData": {"key": "twotwotwo"}}
    desired["data"] = {}
    found = _diff(desired, live)
    shown = json.dumps(found.as_json()) + "\n".join(found.lines())
    assert found.differs
    assert not any(word in shown for word in ("b25lb25l", "twotwotwo", "dHdvdHdv"))
    assert not _diff({**desired, "stringData": {"key": "oneoneone"}}, live).differs


@pytest.mark.parametrize(
    "content",
    [b"a: [", b"apiVersion: v1\nkind: ConfigMap\n", b"- 1\n", b"kind: List\nitems: [1]\n", b"\xff\xfe\x00"],
)
def test_what_is_no_object_is_a_located_problem(content: bytes) -> None:
    found = diff_files("want.yaml", content, "live.yaml", b"")
    assert found.failed
    assert found.objects == ()
    assert all(problem.file == "want.yaml" for problem in found.problems)
    assert health_of_file("live.yaml", content).failed


def test_an_object_that_stands_twice_is_refused() -> None:
    twice = _bytes(deployment(), deployment())
    assert [problem.code for problem in diff_files("w", twice, "l", b"").problems] == ["duplicate-object"]


def test_the_lines_for_people() -> None:
    desired = flink_deployment()
    desired["spec"]["image"] = "orders:2"
    desired["spec"]["job"]["upgradeMode"] = "stateless"
    assert list(_diff(desired, flink_deployment()).lines()) == [
        "~ update FlinkDeployment.flink.apache.org orders/orders  [upgrade: restart, STATE IS LOST]",
        "    upgradeMode is stateless: STATE IS LOST",
        "    ~ spec.image: orders:1 -> orders:2",
        "    ~ spec.job.upgradeMode: savepoint -> stateless",
        "1 of 1 object differs",
    ]


def test_health_says_worse_than_progressing() -> None:
    live = flink_deployment()
    assert not health_of_file("live.yaml", _bytes(live)).unhealthy
    live["status"] = {
        "lifecycleState": "FAILED",
        "jobStatus": {"state": "FAILED"},
        "reconciliationStatus": {"state": "DEPLOYED"},
    }
    found = health_of_file("live.yaml", _bytes(live, deployment()))
    assert found.unhealthy
    assert [part["health"] for part in found.as_json()] == ["Degraded", "Progressing"]
    assert next(found.lines()).startswith("Degraded     FlinkDeployment.flink.apache.org orders/orders  JobFailed:")

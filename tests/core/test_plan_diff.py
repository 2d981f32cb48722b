"""Two releases of one target, and the groups of many targets' diffs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core.model import Manifest, ObjectKey, Target
from reconciler.core.plan_diff import declared_changes, grouped, release_diff, state_problems, summary
from reconciler.core.problems import Severity
from tests.core.field_owners import deployment, flink_deployment

_CONFIG: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
_ACCOUNT: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}


def _with(manifest: Manifest, *path: str | int, value: Any) -> Manifest:
    changed = copy.deepcopy(manifest)
    holder: Any = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return changed


def test_creates_updates_and_deletes_in_their_order() -> None:
    flink = flink_deployment()
    before, after = [_CONFIG, flink], [_with(flink, "spec", "image", value="orders:2"), _ACCOUNT]
    found = release_diff(before, after, target=Target("fleet/orders", "eu-1"))
    assert [(part.action, part.key.kind) for part in found] == [
        ("create", "ServiceAccount"),
        ("update", "FlinkDeployment"),
        ("delete", "ConfigMap"),
    ]
    assert found[1].as_json() == {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "namespace": "orders",
        "name": "orders",
        "application": "fleet/orders",
        "cluster": "eu-1",
        "action": "update",
        "verdict": "differs",
        "class": "upgrade",
        "effect": "restart",
        "state": "kept",
        "message": "",
        "conflicts": [],
        "changes": [
            {"path": "/spec/image", "display": "spec.image", "op": "replace", "old": "orders:1", "new": "orders:2"}
        ],
    }


def test_equal_releases_have_no_diff() -> None:
    assert release_diff([flink_deployment(), _CONFIG], [_CONFIG, flink_deployment()]) == ()


def test_a_finished_job_runs_again_where_it_is_known_to_have_finished() -> None:
    flink = flink_deployment()
    live = {ObjectKey.of(flink): {**flink, "status": {"jobStatus": {"state": "FINISHED"}}}}
    [part] = release_diff([flink], [_with(flink, "spec", "image", value="orders:2")], live=live)
    assert part.effect.as_json() == {"class": "upgrade", "effect": "runs-again", "state": "none"}


_CONTAINERS = ("spec", "template", "spec", "containers")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            deployment(),
            _with(deployment(), *_CONTAINERS, 1, "image", value="side:2"),
            ["~ spec.template.spec.containers[name=side].image: side:1 -> side:2"],
        ),
        (
            deployment(),
            _with(deployment(), *_CONTAINERS, 0, "env", value=[{"name": "B", "value": "2"}]),
            ["- spec.template.spec.containers[name=main].env[name=A]: {'name': 'A', 'value': '1'}"],
        ),
        (deployment(), _with(deployment(), *_CONTAINERS, 0, "args", value=["x"]), ["args: ['--a', '--b'] -> ['x']"]),
        (_CONFIG, _with(_CONFIG, "data", "b.properties", value="x"), ["+ data[b.properties]: x"]),
        (_CONFIG, _with(_CONFIG, "data", value={}), ["- data.a: 1"]),
        (
            flink_deployment(),
            _with(
                flink_deployment(), "spec", "flinkConfiguration", value={"execution": {"checkpointing.interval": "60s"}}
            ),
            ["- spec.flinkConfiguration[taskmanager.numberOfTaskSlots]: 2"],
        ),
        (
            deployment(),
            _with(deployment(), *_CONTAINERS, value=deployment()["spec"]["template"]["spec"]["containers"][::-1]),
            ["~ spec.template.spec.containers: ["],
        ),
    ],
)
def test_declared_changes(old: Manifest, new: Manifest, expected: list[str]) -> None:
    found = [str(change) for change in declared_changes(old, new)]
    assert len(found) == len(expected)
    assert all(word in line for word, line in zip(expected, found, strict=True)), found


def test_a_secret_is_masked() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "b25l"}}
    [change] = declared_changes(secret, _with(secret, "data", "a", value="dHdv"))
    assert (change.path, change.old, change.new) == ("/data/a", "***", "***")
    [change] = declared_changes({**secret, "data": None}, secret)
    assert change.new == {"a": "***"}


def _diffs(**images: str) -> dict[Target, Any]:
    flink = flink_deployment()
    return {
        target: release_diff([flink], [_with(flink, "spec", "image", value=image)], target=target)
        for cluster, image in images.items()
        for target in [Target("fleet/orders", cluster)]
    }


def test_equal_diffs_are_one_group_the_largest_first() -> None:
    groups = grouped(_diffs(c="b", a="x", b="b", d="b"))
    assert [[target.cluster for target in group.targets] for group in groups] == [["b", "c", "d"], ["a"]]
    assert summary(groups) == "3 targets the same, 1 differs"
    assert groups[0].as_json()["targets"] == [["fleet/orders", name] for name in "bcd"]
    assert groups[0].as_json()["diff"][0]["cluster"] == "b"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({}, "nothing changes"),
        ({"a": "x"}, "1 target"),
        ({"a": "x", "b": "x"}, "2 targets, all with the same change"),
        ({"a": "x", "b": "y", "c": "z"}, "1 target the same, 2 differ"),
    ],
)
def test_summary(images: dict[str, str], expected: str) -> None:
    assert summary(grouped(_diffs(**images))) == expected


def test_the_order_of_targets_makes_no_difference() -> None:
    assert grouped(_diffs(a="x", b="y")) == grouped(_diffs(b="y", a="x"))


def test_a_stateless_upgrade_is_a_warning_once_for_all_clusters() -> None:
    old = _with(flink_deployment(), "spec", "job", "upgradeMode", value="stateless")
    new = _with(old, "spec", "image", value="orders:2")
    diffs = {
        target: release_diff([old], [new], target=target)
        for target in (Target("fleet/orders", "a"), Target("fleet/orders", "b"))
    }
    [problem] = state_problems(diffs, {"fleet/orders": "apps/orders/app.yaml"})
    assert (problem.severity, problem.code, problem.file) == (
        Severity.WARNING,
        "stateless-upgrade",
        "apps/orders/app.yaml",
    )
    assert "2 clusters: STATE IS LOST" in problem.message
    assert state_problems(_diffs(a="x"), {}) == ()

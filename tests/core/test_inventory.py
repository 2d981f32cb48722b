"""What may be pruned, in which order, and what never is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.inventory import prunable
from reconciler.core.model import InventoryItem, InventoryPhase, Manifest, ObjectKey, Target

TARGET = Target("fleet/orders", "eu-1")


def _manifest(kind: str, name: str = "x", api_version: str = "v1", **metadata: Any) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "orders", **metadata}}


def _item(manifest: Manifest, **changes: Any) -> InventoryItem:
    item = InventoryItem(TARGET, ObjectKey.of(manifest), manifest["apiVersion"], InventoryPhase.OWNED, "u1", 1)
    return replace(item, **changes)


FLINK = _manifest("FlinkDeployment", api_version="flink.apache.org/v1beta1")
JOB = _manifest("FlinkSessionJob", api_version="flink.apache.org/v1beta1")
SERVICE, CONFIG, ACCOUNT = _manifest("Service"), _manifest("ConfigMap"), _manifest("ServiceAccount")


def test_what_is_declared_stays_and_the_rest_goes_in_reverse_order() -> None:
    items = [_item(each) for each in (ACCOUNT, FLINK, JOB, CONFIG, SERVICE)]
    found = prunable(items, [SERVICE])
    assert [item.key.kind for item in found.items] == [
        "FlinkSessionJob",
        "FlinkDeployment",
        "ConfigMap",
        "ServiceAccount",
    ]
    assert found.refused == ()


def test_another_api_version_is_the_same_object() -> None:
    item = _item(_manifest("Deployment", api_version="apps/v1beta2"))
    assert prunable([item], [_manifest("Deployment", api_version="apps/v1")]).items == ()


@pytest.mark.parametrize(
    ("manifest", "changes", "code"),
    [
        (CONFIG, {"phase": InventoryPhase.INTENDED}, "NotOwned"),
        (CONFIG, {"uid": ""}, "NotOwned"),
        (_manifest("Namespace"), {}, "NeverPruned"),
        (_manifest("PersistentVolumeClaim"), {}, "NeverPruned"),
        (_manifest("CustomResourceDefinition", api_version="apiextensions.k8s.io/v1"), {}, "NeverPruned"),
    ],
)
def test_what_is_refused(manifest: Manifest, changes: dict[str, Any], code: str) -> None:
    found = prunable([_item(manifest, **changes)], [])
    assert found.items == ()
    assert [refusal.reason.code for refusal in found.refused] == [code]


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"uid": "u2"}, "Recreated"),
        ({"uid": "u1", "annotations": {"reconciler.dev/prune": "disabled"}}, "PruneDisabled"),
    ],
)
def test_the_live_object_can_refuse(metadata: dict[str, Any], code: str) -> None:
    live = _manifest("ConfigMap", **metadata)
    [refusal] = prunable([_item(CONFIG)], [], {ObjectKey.of(live): live}).refused
    assert refusal.reason.code == code


def test_a_live_object_without_protection_may_go() -> None:
    live = _manifest("ConfigMap", uid="u1", annotations={"reconciler.dev/prune": "enabled"})
    assert len(prunable([_item(CONFIG)], [], {ObjectKey.of(live): live}).items) == 1


def test_what_is_being_deleted_is_not_deleted_again() -> None:
    found = prunable([_item(CONFIG, phase=InventoryPhase.DELETING)], [])
    assert (found.items, found.refused) == ((), ())

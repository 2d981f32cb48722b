"""What moving a target amounts to: the worst of its objects."""

from __future__ import annotations

from typing import Any

from reconciler.core.change import change_of
from reconciler.core.model import release_of
from tests.core.decisions import APPLICATION, target_of


def job(name: str = "orders", **spec: Any) -> dict[str, Any]:
    base = {"image": "shop:1", "flinkVersion": "v1_20", "job": {"parallelism": 2, "upgradeMode": "savepoint"}}
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {"name": name, "namespace": "orders"},
        "spec": {**base, **spec},
    }


CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "orders"}, "data": {}}
TARGET = target_of("c0")


def test_a_first_install_has_nothing_to_lose() -> None:
    after = release_of(APPLICATION, (job(), CONFIG))
    found = change_of(TARGET, None, after)
    assert (found.from_digest, found.to_digest, found.state, found.deletes) == (None, after.digest, "none", 0)


def test_the_worst_object_counts() -> None:
    before = release_of(APPLICATION, (CONFIG, job(), job("second")))
    stateless = job("second", image="shop:2", job={"parallelism": 2, "upgradeMode": "stateless"})
    found = change_of(TARGET, before, release_of(APPLICATION, (CONFIG, job(image="shop:2"), stateless)))
    assert (found.change_class, found.effect, found.state) == ("upgrade", "restart", "lost")
    found = change_of(TARGET, before, release_of(APPLICATION, ({**CONFIG, "data": {"a": "1"}}, job(), job("second"))))
    assert (found.effect, found.state) == ("none", "none")


def test_only_stateful_objects_count_as_deletes() -> None:
    before = release_of(APPLICATION, (CONFIG, job(), job("second")))
    assert change_of(TARGET, before, release_of(APPLICATION, (job(),))).deletes == 1
    assert change_of(TARGET, before, release_of(APPLICATION, (job(), job("second")))).deletes == 0

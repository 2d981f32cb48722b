"""The models of the built-in controllers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.sim.loop import run
from tests.sim.flink import Watched


def workload(kind: str, image: str = "web:1", **spec: Any) -> dict[str, Any]:
    """A Deployment, StatefulSet or Job."""
    template: dict[str, Any] = {"metadata": {"labels": {"app": "web"}}}
    template["spec"] = {"containers": [{"name": "main", "image": image}]}
    if kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
    else:
        spec = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    if kind == "StatefulSet":
        spec["serviceName"] = "web"
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {**spec, "template": template},
    }


def _status(watched: Watched, kind: str) -> dict[str, Any]:
    value = watched.cluster.read("batch" if kind == "Job" else "apps", kind, "default", "web")
    assert value is not None
    status: dict[str, Any] = value.get("status") or {}
    return status


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_workload_rolls_out_and_becomes_ready(kind: str) -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(workload(kind, replicas=3))
        await asyncio.sleep(2)
        status = _status(watched, kind)
        assert (status["observedGeneration"], status.get("readyReplicas"), status.get("updatedReplicas")) == (
            1,
            None,
            None,
        )
        await asyncio.sleep(10)
        status = _status(watched, kind)
        assert (status["readyReplicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)

        watched.cluster.edit(
            "apps", kind, "default", "web", {"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}}
        )
        assert _status(watched, kind)["observedGeneration"] == 1
        await asyncio.sleep(2)
        status = _status(watched, kind)
        assert (status["observedGeneration"], status.get("updatedReplicas"), status["readyReplicas"]) == (2, None, 3)
        await asyncio.sleep(10)
        assert _status(watched, kind)["updatedReplicas"] == 3

    run(main())


def test_a_change_in_the_middle_of_a_rollout_begins_it_anew() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(workload("Deployment", replicas=3))
        await asyncio.sleep(7)
        watched.cluster.edit("apps", "Deployment", "default", "web", {"spec": {"minReadySeconds": 1}})
        await asyncio.sleep(8)  # the first rollout would have been done
        assert _status(watched, "Deployment")["observedGeneration"] == 2
        assert "updatedReplicas" not in _status(watched, "Deployment")
        await asyncio.sleep(2)
        assert _status(watched, "Deployment")["updatedReplicas"] == 3

    run(main())


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
@pytest.mark.parametrize("marker", ["pull-error", "never-starts", "crash-loop"])
def test_a_workload_whose_pods_never_become_ready(kind: str, marker: str) -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(workload(kind, f"web:1-{marker}"))
        await asyncio.sleep(600)
        assert "readyReplicas" not in _status(watched, kind)
        assert _status(watched, kind)["observedGeneration"] == 1

    run(main())


@pytest.mark.parametrize(("image", "condition"), [("web:1", "Complete"), ("web:1-fails-at-start", "Failed")])
def test_a_job_ends(image: str, condition: str) -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create(workload("Job", image))
        await asyncio.sleep(2)
        assert _status(watched, "Job")["active"] == 1
        await asyncio.sleep(20)
        status = _status(watched, "Job")
        assert [each["type"] for each in status["conditions"]][-1] == condition
        assert "active" not in status
        assert ("completionTime" in status) is (condition == "Complete")

    run(main())


def test_a_namespace_that_is_deleted_is_emptied() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}})
        watched.cluster.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "gone"}}
        )
        watched.cluster.delete("", "Namespace", "", "gone")
        assert watched.cluster.read("", "Namespace", "", "gone") is not None
        await asyncio.sleep(30)
        assert watched.cluster.read("", "Namespace", "", "gone") is None
        assert watched.cluster.read("", "ConfigMap", "gone", "a") is None

    run(main())

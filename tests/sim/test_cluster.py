"""A simulated cluster as a whole: the ways in, what people do, time, copies, and repetition."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys

import aiohttp
import pytest

from reconciler.shell.transport import Request, TransportError
from reconciler.sim.behaviour import Timings
from reconciler.sim.cluster import SimCluster, intercept_all
from reconciler.sim.http import ConnectionDropped, HttpFace
from reconciler.sim.link import LinkState
from reconciler.sim.loop import SimClock, SteppedClock, run
from reconciler.sim.plan import Fault, FaultKind
from tests.sim.flink import GROUP, Watched, deployment, running
from tests.sim.test_controllers import workload

PATH = f"/apis/{GROUP}/v1beta1/namespaces/default/flinkdeployments"
GET = Request("GET", f"{PATH}/orders")
WATCH = Request("GET", PATH, query=(("watch", "true"), ("resourceVersion", "0")))


def test_the_shipped_adapters_requests_reach_the_engine_until_the_cluster_is_cut_off() -> None:
    async def main() -> None:
        watched = await running(Watched())
        transport = watched.cluster.transport()
        assert json.loads((await transport.request(GET)).body)["status"]["lifecycleState"] == "STABLE"
        watched.cluster.set_unreachable(True)
        with pytest.raises(TransportError, match="refused"):
            await transport.request(GET)
        watched.cluster.set_unreachable(True, silent=True)
        with pytest.raises(TransportError, match="no answer within 30 s"):
            await transport.request(GET)
        watched.cluster.set_unreachable(False)
        assert (await transport.request(GET)).status == 200

    run(main())


def test_a_watch_sees_the_operators_steps_and_ends_with_the_link() -> None:
    async def main() -> list[str]:
        watched = Watched()
        watched.cluster.create(deployment())
        seen: list[str] = []
        asyncio.get_running_loop().call_later(30, watched.cluster.set_unreachable, True)
        with pytest.raises(TransportError):
            await _follow(watched.cluster, seen)
        return seen

    async def _follow(cluster: SimCluster, seen: list[str]) -> None:
        async with cluster.transport().stream(WATCH) as stream:
            async for line in stream.lines:
                status = json.loads(line)["object"].get("status", {})
                seen.append(status.get("jobManagerDeploymentStatus", "-"))

    assert run(main()) == ["-", "-", "MISSING", "DEPLOYING", "DEPLOYED_NOT_READY", "READY"]


def test_what_people_do_is_recorded_under_their_name() -> None:
    async def main() -> None:
        watched = await running(Watched())
        watched.edit({"image": "by/hand:1"})
        watched.cluster.delete(GROUP, "FlinkDeployment", "default", "orders")
        managers = [(entry.verb, entry.manager) for entry in watched.cluster.server.log if entry.key.name == "orders"]
        assert managers[0] == ("create", "kubectl-create")
        assert managers[-2:] == [("patch", "kubectl-edit"), ("delete", "kubectl")]
        assert set(managers[1:-2]) == {("patch", "flink-kubernetes-operator")}
        owners = {entry["manager"] for entry in watched.value()["metadata"]["managedFields"]}
        assert owners == {"kubectl-create", "kubectl-edit", "flink-kubernetes-operator"}

    run(main())


def test_a_cluster_on_a_stepped_clock_moves_only_when_stepped() -> None:
    async def main() -> None:
        clock = SteppedClock()
        cluster = SimCluster("eu-1", clock, timings=Timings(jitter_share=0))
        cluster.create(deployment())
        assert cluster.idle()  # the operator looks in a second
        assert cluster.next_due() == 1.0
        await asyncio.sleep(0.01)
        steps = 0
        while (due_s := clock.next_timer()) is not None:
            clock.advance_to(due_s)
            assert cluster.idle()
            steps += 1
        value = cluster.read(GROUP, "FlinkDeployment", "default", "orders")
        assert value is not None
        assert value["status"]["lifecycleState"] == "STABLE"
        assert (steps, clock.now().monotonic, cluster.next_due()) == (5, 38.0, None)

    asyncio.run(main())


def _digest(cluster: SimCluster) -> str:
    """Everything on the cluster, and every write that led there."""
    server = cluster.server
    log = [str(entry) for entry in server.log]
    content = [
        log,
        server.objects("FlinkDeployment"),
        server.objects("Event", ""),
        server.objects("Deployment", "apps"),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


async def _story(watched: Watched) -> None:
    """Half a minute into it the story is in the middle of a deployment."""
    for number in range(3):
        watched.cluster.create(deployment(f"app-{number}", image=f"shop/app:{number}"))
    await asyncio.sleep(20)
    watched.cluster.create(workload("Deployment"))
    await asyncio.sleep(5)


async def _rest(watched: Watched) -> None:
    await asyncio.sleep(60)
    watched.edit({"image": "shop/app:5-crash-loop"}, "app-1")
    await asyncio.sleep(300)


def test_a_copy_goes_on_as_the_original_does_and_may_be_taken_again() -> None:
    timings = Timings()

    async def base() -> tuple[object, str]:
        watched = Watched(timings=timings)
        await _story(watched)
        saved = watched.cluster.snapshot()
        await _rest(watched)
        return saved, _digest(watched.cluster)

    saved, expected = run(base())

    async def resumed() -> str:
        clock = SimClock(asyncio.get_running_loop(), boot_at_s=0.0)
        assert clock.now().monotonic == saved.taken_s  # type: ignore[attr-defined]  # opaque here, for brevity
        cluster = SimCluster.restore(saved, clock, timings=timings)  # type: ignore[arg-type]  # as above
        watched = Watched(cluster=cluster)
        await _rest(watched)
        return _digest(cluster)

    assert [run(resumed(), start_s=25.0) for _ in range(2)] == [expected, expected]


async def _told() -> str:
    watched = Watched(timings=Timings())
    await _story(watched)
    await _rest(watched)
    return _digest(watched.cluster)


SCRIPT = "from tests.sim.test_cluster import _told; from reconciler.sim.loop import run; print(run(_told()))"


def test_the_same_story_is_the_same_log_under_another_hash_seed() -> None:
    def told(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SCRIPT]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert told("1") == told("2") == run(_told()) + "\n"


class _Lose:
    """Loses the answers to patches, after their effect."""

    async def io(self, point: str) -> Fault:
        return Fault(FaultKind.LOST_AFTER if " PATCH " in point else FaultKind.NONE)


def test_links_and_faults_on_real_connections() -> None:
    async def main() -> None:
        cluster = SimCluster("eu-1", SteppedClock())
        face = HttpFace(
            {"eu-1": cluster.server}, intercept=intercept_all({"eu-1": cluster}, ConnectionDropped, _Lose())
        )
        await face.start()
        try:
            async with aiohttp.ClientSession() as session:
                cluster.create(deployment())
                url = face.url("eu-1") + PATH
                async with session.get(url) as listed:
                    assert len((await listed.json())["items"]) == 1
                async with session.get(url, params={"watch": "true", "resourceVersion": "0"}) as stream:
                    assert json.loads(await stream.content.readline())["type"] == "ADDED"
                    cluster.set_unreachable(True)
                    assert await stream.content.read() == b""
                with pytest.raises(aiohttp.ClientError):
                    await session.get(url)
                cluster.set_unreachable(False)
                patch = {"metadata": {"labels": {"a": "b"}}}
                headers = {"content-type": "application/merge-patch+json"}
                with pytest.raises(aiohttp.ClientError):
                    await session.patch(f"{url}/orders", json=patch, headers=headers)
                value = cluster.read(GROUP, "FlinkDeployment", "default", "orders")
                assert value is not None
                assert value["metadata"]["labels"] == {"a": "b"}
        finally:
            await face.stop()
            cluster.stop()

    asyncio.run(main())


def test_a_link_remembers_its_state_in_a_copy() -> None:
    async def main() -> None:
        watched = Watched()
        watched.cluster.set_unreachable(True)
        copy = SimCluster.restore(watched.cluster.snapshot(), watched.clock)
        assert copy.link.state is LinkState.REFUSED
        with pytest.raises(TransportError):
            await copy.transport().request(GET)

    run(main())

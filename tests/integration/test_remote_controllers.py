"""The models of the controllers on a real API server: it takes what they write, to the last field, and shows it so.

What a real server refuses, prunes or changes would be a mistake of the models, and of every test that believes them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from reconciler.demo.control_plane.assets import Assets
from reconciler.demo.control_plane.plane import ControlPlane, start
from reconciler.demo.wire import Wire
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.scope import Scope
from reconciler.shell.transport import Request, Response, Stream, Transport
from reconciler.sim.loop import SteppedClock
from reconciler.sim.remote import RemoteControllers

pytestmark = pytest.mark.controlplane

NAMESPACE = "models"
FLINK = f"/apis/flink.apache.org/v1beta1/namespaces/{NAMESPACE}"
STEPS_MAX = 400


@pytest.fixture(scope="module")
def own_plane(assets: Assets) -> Iterator[ControlPlane]:
    """A control plane of one's own: the models look after all namespaces."""
    with start(assets) as plane:
        yield plane


class Compared:
    """A Transport that notes where the server's answer to a patch is not what was sent."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.differences: list[str] = []
        self.patches = 0

    async def request(self, request: Request) -> Response:
        answer = await self._inner.request(request)
        by_hand = not any(name == "fieldManager" for name, _ in request.query)
        if request.method == "PATCH" and answer.status == 200 and not by_hand:
            self.patches += 1
            sent, stored = json.loads(request.body), json.loads(answer.body)
            self.differences += [f"{request.path}{problem}" for problem in unlike(sent, stored)]
        return answer

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        return self._inner.stream(request)

    async def close(self) -> None:
        await self._inner.close()


def unlike(patch: Any, stored: Any, path: str = "") -> Iterator[str]:
    """Where an object does not hold what a merge patch asked for."""
    if not isinstance(patch, dict):
        if patch != stored:
            yield f"{path}: sent {patch!r}, stored {stored!r}"
        return
    for key, value in patch.items():
        found = stored.get(key) if isinstance(stored, dict) else None
        if value is not None or found is not None:
            yield from unlike(value, found, f"{path}.{key}")


class Stage:
    """The models of one cluster, and the hands of a test."""

    def __init__(self, clock: SteppedClock, wire: Wire, transport: Transport, controllers: RemoteControllers) -> None:
        self.clock = clock
        self.failures: list[BaseException] = []
        self._wire = wire
        self._transport = transport
        self._controllers = controllers

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """One request by hand."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = (("accept", "application/json"), ("content-type", kind))
        content = b"" if body is None else json.dumps(body).encode()
        answer = await self._transport.request(Request(method, path, headers=headers, body=content))
        return answer.status, json.loads(answer.body)

    async def create(self, path: str, api_version: str, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Create an object by hand."""
        body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        status, answer = await self.ask("POST", path, body)
        assert status == 201, answer.get("message")

    async def status(self, path: str) -> dict[str, Any]:
        """An object's status, {} without one."""
        found: dict[str, Any] = (await self.ask("GET", path))[1].get("status") or {}
        return found

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Step the clock until it is so."""
        for _ in range(STEPS_MAX):
            while not (self._wire.still and self._controllers.idle()):
                assert not self.failures, self.failures
                await asyncio.sleep(0.002)
            if await condition():
                return
            due_s = self.clock.next_timer()
            assert due_s is not None, "nothing will happen any more"
            self.clock.advance_to(due_s)
        raise AssertionError(f"not so after {STEPS_MAX} steps")


@asynccontextmanager
async def stage(plane: ControlPlane) -> AsyncIterator[tuple[Stage, Compared]]:
    async with AsyncExitStack() as stack:
        clock = SteppedClock()
        wire = Wire(lambda: clock.now().wall)
        compared = Compared(await transport_from_kubeconfig(plane.kubeconfig, max_connections=16))
        transport = wire.other(compared)
        stack.push_async_callback(transport.close)
        failures: list[BaseException] = []
        scope = Scope("models", lambda _, error: failures.append(error))
        stack.push_async_callback(scope.close, 3.0)
        controllers = RemoteControllers("one", transport, clock, scope, on_change=lambda *_: None)
        played = Stage(clock, wire, transport, controllers)
        played.failures = failures
        status, answer = await played.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        assert status in (201, 409), answer
        await controllers.start()
        stack.callback(controllers.stop)
        yield played, compared
        assert failures == []


def flink(**more: Any) -> dict[str, Any]:
    """A spec that the operator takes."""
    configuration = {"state.checkpoints.dir": "s3://c", "state.savepoints.dir": "s3://s"}
    resource = {"memory": "1024m", "cpu": 1}
    managers = {"jobManager": {"resource": resource}, "taskManager": {"resource": resource}}
    return {"image": "a:1", "flinkVersion": "v1_20", "flinkConfiguration": configuration, **managers, **more}


def job(**more: Any) -> dict[str, Any]:
    return {"jarURI": "local:///job.jar", "parallelism": 2, "upgradeMode": "savepoint", **more}


def test_flink(own_plane: ControlPlane) -> None:
    async def play() -> None:
        async with stage(own_plane) as (played, compared):
            made = (played.create, "flink.apache.org/v1beta1")
            create, version = made
            await create(f"{FLINK}/flinkdeployments", version, "FlinkDeployment", "app", flink(job=job()))
            await create(f"{FLINK}/flinkdeployments", version, "FlinkDeployment", "session", flink())
            refused = flink(image="a:1-rejected-spec", job=job())
            await create(f"{FLINK}/flinkdeployments", version, "FlinkDeployment", "refused", refused)
            session_job = {"deploymentName": "session", "job": job()}
            await create(f"{FLINK}/flinksessionjobs", version, "FlinkSessionJob", "in-session", session_job)
            await played.until(lambda: state(played, "flinkdeployments/app", "RUNNING"))
            await played.until(lambda: state(played, "flinksessionjobs/in-session", "RUNNING"))
            snapshot = {"jobReference": {"kind": "FlinkDeployment", "name": "app"}, "savepoint": {}}
            await create(f"{FLINK}/flinkstatesnapshots", version, "FlinkStateSnapshot", "snap", snapshot)
            await played.until(lambda: has(played, "flinkstatesnapshots/snap", "state", "COMPLETED"))
            # Another image: stopped with a savepoint, and started at it.
            assert (await played.ask("PATCH", f"{FLINK}/flinkdeployments/app", {"spec": {"image": "a:2"}}))[0] == 200
            await played.until(lambda: has(played, "flinkdeployments/app", "lifecycleState", "UPGRADING"))
            await played.until(lambda: has(played, "flinkdeployments/app", "lifecycleState", "STABLE"))
            error = (await played.status(f"{FLINK}/flinkdeployments/refused"))["error"]
            assert "the specification was refused" in error
            events = (await played.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/events"))[1]["items"]
            reasons = {(event["involvedObject"]["name"], event["reason"]) for event in events}
            assert {("refused", "ValidationError"), ("app", "SpecChanged"), ("app", "Suspended")} <= reasons
            # The finalizers hold them until the model has cleaned up; the session cluster waits for its job.
            for name in ("flinkdeployments/session", "flinksessionjobs/in-session", "flinkdeployments/app"):
                assert (await played.ask("DELETE", f"{FLINK}/{name}"))[0] == 200
                await played.ask("GET", f"{FLINK}/{name}")
            for name in ("flinkdeployments/session", "flinksessionjobs/in-session", "flinkdeployments/app"):
                await played.until(lambda name=name: gone(played, name))  # type: ignore[misc]
            assert compared.differences == []
            assert compared.patches > 20

    asyncio.run(play())


async def has(played: Stage, name: str, field: str, value: str) -> bool:
    return bool((await played.status(f"{FLINK}/{name}")).get(field) == value)


async def state(played: Stage, name: str, value: str) -> bool:
    return bool(((await played.status(f"{FLINK}/{name}")).get("jobStatus") or {}).get("state") == value)


async def gone(played: Stage, name: str) -> bool:
    return (await played.ask("GET", f"{FLINK}/{name}"))[0] == 404


def pods(image: str, **more: Any) -> dict[str, Any]:
    labels = {"app": "a"}
    container = {"name": "main", "image": image}
    return {"template": {"metadata": {"labels": labels}, "spec": {"containers": [container], **more}}}


def test_workloads(own_plane: ControlPlane) -> None:
    async def play() -> None:
        async with stage(own_plane) as (played, compared):
            apps, batch = (f"/apis/{group}/v1/namespaces/{NAMESPACE}" for group in ("apps", "batch"))
            selector = {"selector": {"matchLabels": {"app": "a"}}}
            deployment = {"replicas": 2, **selector, **pods("a:1")}
            await played.create(f"{apps}/deployments", "apps/v1", "Deployment", "web", deployment)
            await played.create(
                f"{apps}/statefulsets", "apps/v1", "StatefulSet", "store", {**deployment, "serviceName": "store"}
            )
            for name, image in (("good", "a:1"), ("bad", "a:1-fails-at-start")):
                spec = {**pods(image, restartPolicy="Never")}
                await played.create(f"{batch}/jobs", "batch/v1", "Job", name, spec)

            async def ready() -> bool:
                workloads = [
                    await played.status(f"{apps}/{name}") for name in ("deployments/web", "statefulsets/store")
                ]
                jobs = [await played.status(f"{batch}/jobs/{name}") for name in ("good", "bad")]
                ended = [[one["type"] for one in status.get("conditions", [])] for status in jobs]
                return [status.get("readyReplicas") for status in workloads] == [2, 2] and ended == [
                    ["SuccessCriteriaMet", "Complete"],
                    ["FailureTarget", "Failed"],
                ]

            await played.until(ready)
            patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "a:2"}]}}}}
            assert (await played.ask("PATCH", f"{apps}/deployments/web", patch))[0] == 200

            async def ready_again() -> bool:
                status = await played.status(f"{apps}/deployments/web")
                return (status["observedGeneration"], status.get("updatedReplicas")) == (2, 2)

            await played.until(ready_again)
            assert compared.differences == []
            assert compared.patches > 8

    asyncio.run(play())

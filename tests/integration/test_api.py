"""The HTTP API of a daemon in this process, on simulated clusters: answers, refusals and their one shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler.bootstrap import Assembly, Parts, WallClock, build
from reconciler.core.documents import Cluster
from reconciler.core.model import Reason
from reconciler.settings import Repository, RepositoryCredentials
from reconciler.settings_values import Listen
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.metrics import Metrics
from reconciler.sim.cluster import SimCluster
from reconciler.web.server import Server, serve
from tests.integration.git_repository import GitRepository
from tests.integration.live_fleet import APPLICATION, FAST, FLEET, POLICY, cluster_document

TOKEN = "a-token-of-some-length"  # noqa: S105 - of this test
NOBODY = RepositoryCredentials(None, "x", None, None)


class Serving:
    """What the server needs of the settings."""

    def __init__(self, state_dir: Path, token_file: Path | None) -> None:
        self.state_dir = state_dir
        self.listen: Listen | None = Listen("127.0.0.1", 0)
        self.token_file = token_file


class Api:
    """A client of the daemon's socket, or of its TCP address."""

    def __init__(self, assembly: Assembly, server: Server, session: aiohttp.ClientSession) -> None:
        self.assembly = assembly
        self.server = server
        self._session = session

    async def get(self, path: str, **parameters: str) -> tuple[int, Any]:
        """(status, JSON)."""
        async with self._session.get(f"http://daemon{path}", params=parameters) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: object, kind: str = "application/json") -> tuple[int, Any]:
        """(status, JSON)."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": kind}
        async with self._session.post(f"http://daemon{path}", data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until `condition` holds; a while counts as never."""
        async with asyncio.timeout(30):
            while not await condition():  # noqa: ASYNC110 - what is waited for is behind HTTP
                await asyncio.sleep(0.05)

    async def synced(self) -> bool:
        """Nothing left to do."""
        _, found = await self.get("/api/v1/status")
        return bool(found["targets"]["total"] and found["targets"]["synced"] == found["targets"]["total"])


@asynccontextmanager
async def api(
    directory: Path, *, fleets: int = 1, token_file: Path | None = None, one_name: bool = False
) -> AsyncIterator[Api]:
    """A daemon with so many repositories, each a fleet with the application "orders", on one simulated cluster."""
    loop = asyncio.get_running_loop()
    cluster = SimCluster("a1", WallClock(1, loop), timings=FAST)
    repositories = []
    for number in range(fleets):
        repository = GitRepository(directory / f"repository-{number}")
        name = f"fleet-{number}"
        application = APPLICATION.replace("IMAGE", "orders:1").replace("namespace: orders", f"namespace: {name}")
        files = {
            "fleet.yaml": FLEET.replace("name: test", "name: fleet-0" if one_name else f"name: {name}"),
            "policies/rollout.yaml": POLICY.replace("ON_FAILURE", "halt"),
            "apps/orders/app.yaml": application,
            "clusters/a1.yaml": cluster_document("a1"),
            "clusters/nowhere.yaml": cluster_document("c-nowhere"),
        }
        repository.commit({path: text.encode() for path, text in files.items()})
        repositories.append(Repository(name, repository.url, "main", 0.2, (), NOBODY))

    def connect(document: Cluster, _metrics: Metrics) -> KubeCluster | Reason:
        if document.name != "a1":
            return Reason("NoCredentials", "nobody knows it")
        return KubeCluster("a1", cluster.transport())

    failures: list[BaseException] = []
    parts = Parts(directory / "state", repositories, connect, ("file",), seed=1)
    assembly = build(parts, DaemonSettings(check_interval_s=0.2), lambda _name, error: failures.append(error))
    await assembly.daemon.start()
    server = await serve(assembly.daemon, Serving(directory / "state", token_file), lambda _n, e: failures.append(e))
    path = server.addresses[0].removeprefix("unix:")
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            yield Api(assembly, server, session)
    finally:
        await server.stop()
        assert await assembly.close() == ()
        cluster.stop()
    assert not failures, failures


def test_two_repositories_with_one_fleets_name(tmp_path: Path) -> None:
    """They would take each other's targets for ever: the second one is refused, and says so."""

    async def main() -> None:
        async with api(tmp_path, fleets=2, one_name=True) as found:
            daemon = found.assembly.daemon

            async def refused() -> bool:
                return any(source.failure is not None for source in daemon.sources.values())

            await found.until(refused)
            (loser,) = [source for source in daemon.sources.values() if source.failure is not None]
            assert loser.failure is not None
            assert loser.failure.code == "FleetNameTaken"
            assert loser.snapshot is None

            async def opened() -> bool:
                _, answer = await found.get("/api/v1/rollouts")
                return [row["application"] for row in answer["rollouts"]] == ["fleet-0/orders"]

            await found.until(opened)
            await asyncio.sleep(1.0)  # some polls of either
            assert await opened()

    asyncio.run(main())


def test_answers_and_refusals(tmp_path: Path) -> None:
    async def main() -> None:
        async with api(tmp_path) as client:
            await client.until(lambda: reached(client, "a1"))
            for path, parameters, status, code in (
                ("/api/v1/explain", {}, 400, "missing-parameter"),
                ("/api/v1/explain", {"app": "ordres"}, 404, "unknown-application"),
                ("/api/v1/explain", {"app": "fleet-0/orders", "cluster": "mars"}, 404, "unknown-cluster"),
                ("/api/v1/diff", {"app": "orders", "against": "moon"}, 400, "invalid-value"),
                ("/api/v1/events", {"after": "-1"}, 400, "invalid-value"),
                ("/api/v1/rollouts", {"active": "maybe"}, 400, "invalid-value"),
                ("/api/v1/rollouts/none", {}, 404, "unknown-rollout"),
                ("/api/v1/releases/none", {}, 404, "unknown-release"),
                ("/api/v1/nothing", {}, 404, "http"),
            ):
                found, body = await client.get(path, **parameters)
                assert (found, body["error"]["code"]) == (status, code), path
                assert set(body["error"]) == {"code", "message", "hint"}
            for body, kind, status, code in (
                (b"{}", "text/plain", 400, "invalid-body"),
                (b"[]", "application/json", 400, "invalid-body"),
                (b"{", "application/json", 400, "invalid-body"),
                ({"actor": 1}, "application/json", 400, "invalid-body"),
                ({"unknown": "x"}, "application/json", 400, "invalid-body"),
                (b'"' + b"x" * 70_000 + b'"', "application/json", 413, "http"),
                ({"app": "ordres"}, "application/json", 404, "unknown-application"),
            ):
                found, answer = await client.post("/api/v1/sync", body, kind)
                assert (found, answer["error"]["code"]) == (status, code), body
            assert (await client.get("/api/v1/sync"))[0] == 405

    asyncio.run(main())


async def reached(client: Api, cluster: str) -> bool:
    """The cluster has a lane that was heard of."""
    _, found = await client.get("/api/v1/clusters")
    return any(entry["cluster"] == cluster and entry["state"] == "Reachable" for entry in found["clusters"])


def test_names_may_be_short_unless_they_are_ambiguous(tmp_path: Path) -> None:
    async def main() -> None:
        async with api(tmp_path, fleets=2) as client:
            await client.until(lambda: reached(client, "a1"))
            await client.until(lambda: declared(client, 2))
            status, body = await client.get("/api/v1/explain", app="orders")
            assert (status, body["error"]["code"]) == (400, "ambiguous-application")
            assert "fleet-0/orders" in body["error"]["message"]
            assert "fleet-1/orders" in body["error"]["message"]
            status, body = await client.get("/api/v1/explain", app="fleet-1/orders", cluster="a1")
            assert (status, body["application"]) == (200, "fleet-1/orders")

    asyncio.run(main())


async def declared(client: Api, number: int) -> bool:
    """So many applications are known."""
    _, found = await client.get("/api/v1/apps")
    return len(found["applications"]) == number


def test_what_waits_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with api(tmp_path) as client:
            found: dict[str, Any] = {}

            async def waits_for_the_other() -> bool:
                # Before its rollout is there, and after the canary has baked; in between it waits for the canary.
                _, answer = await client.get("/api/v1/explain", app="orders", cluster="c-nowhere")
                found.update(answer)
                return bool(answer.get("reason") == "ClusterUnreachable" and answer["state"] == "Unreachable")

            await client.until(waits_for_the_other)
            assert set(found) >= {
                "application", "cluster", "revision", "state", "blocked_by", "reason", "message", "recheck_at",
            }  # fmt: skip
            assert found["blocked_by"] == "cluster"
            assert found["message"] == "cluster c-nowhere is out of reach: nobody knows it"
            _, whole = await client.get("/api/v1/explain", app="orders")
            assert len(whole["targets"]) == 2

            async def assigned() -> bool:
                _, found = await client.get("/api/v1/targets", app="fleet-0/orders")
                return bool(found["targets"] and found["targets"][0]["digest"])

            await client.until(assigned)
            _, targets = await client.get("/api/v1/targets", app="fleet-0/orders")
            digest = targets["targets"][0]["digest"]
            _, release = await client.get(f"/api/v1/releases/{digest}")
            assert {item["kind"] for item in release["objects"]} == {"Namespace", "FlinkDeployment"}
            status, body = await client.get("/readyz")
            assert (status, body["status"]) == (200, "ok")
            await client.until(lambda: seen(client))

            _, found = await client.get("/api/v1/rollouts")
            rollout = f"/api/v1/rollouts/{found['rollouts'][0]['id']}"
            _, paused = await client.post(f"{rollout}/pause", {"actor": "tester", "reason": "hold"})
            assert paused["state"] == "Paused"

            async def waits_paused() -> bool:
                _, found = await client.get(rollout)
                return [wait["reason"] for wait in found["waits"]] == ["PausedByUser"]

            await client.until(waits_paused)
            # The answer to an order does not repeat what was waited for before it.
            _, resumed = await client.post(f"{rollout}/resume", {"actor": "tester", "reason": ""})
            assert resumed["state"] == "Active"
            assert "PausedByUser" not in [wait["reason"] for wait in resumed["waits"]]

    async def seen(client: Api) -> bool:
        _, found = await client.get("/api/v1/health", app="orders")
        return {(part["apiVersion"], part["kind"]) for part in found["objects"]} >= {
            ("v1", "Namespace"), ("flink.apache.org/v1beta1", "FlinkDeployment"),
        }  # fmt: skip

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong-token-of-length"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"Bearer {TOKEN}é"}, 401),
    ],
)
def test_a_token_guards_what_listens_on_tcp(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")

    async def main() -> None:
        async with api(tmp_path, token_file=token_file) as client, aiohttp.ClientSession() as outside:
            url = client.server.url
            for path in ("/api/v1/status", "/metrics"):
                async with outside.get(url + path, headers=headers) as answer:
                    assert answer.status == status
            async with outside.get(f"{url}/healthz", headers=headers) as answer:
                assert answer.status == 200
            # On its socket the file system has asked already.
            assert (await client.get("/api/v1/status"))[0] == 200
            token_file.write_text("")
            async with outside.get(f"{url}/api/v1/status", headers={"Authorization": "Bearer "}) as answer:
                assert answer.status == 503  # a daemon without a token lets nobody in

    asyncio.run(main())

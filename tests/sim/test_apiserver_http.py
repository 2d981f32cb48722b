"""The HTTP face: prefixes, tokens, kubeconfig, faults put before the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import orjson
import pytest

from reconciler.shell.transport import Request, Response
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.http import ConnectionDropped, HttpFace, Intercept

MAPS = "/api/v1/namespaces/default/configmaps"


def run(
    story: Callable[[HttpFace, aiohttp.ClientSession], Awaitable[None]],
    *servers: str,
    token: str | None = None,
    intercept: Intercept | None = None,
) -> None:
    """Play a story against a face with clusters of these names."""

    async def play() -> None:
        face = HttpFace({name: SimApiServer(seed=name) for name in servers}, token=token, intercept=intercept)
        await face.start()
        try:
            async with aiohttp.ClientSession() as session:
                await story(face, session)
        finally:
            await face.stop()
            await face.stop()

    asyncio.run(play())


def test_each_cluster_has_a_prefix_of_its_own() -> None:
    async def story(face: HttpFace, session: aiohttp.ClientSession) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
        async with session.post(face.url("a") + MAPS, json=body) as answer:
            assert answer.status == 201
        async with session.get(face.url("a") + f"{MAPS}/x") as answer:
            assert answer.status == 200
        async with session.get(face.url("b") + f"{MAPS}/x") as answer:
            assert answer.status == 404
        async with session.get(face.url("a").replace("/a", "/c") + "/version") as answer:
            assert (answer.status, await answer.text()) == (404, "404 page not found\n")

    run(story, "a", "b")


def test_a_token_is_asked_for_and_stands_in_the_kubeconfig(tmp_path: Path) -> None:
    async def story(face: HttpFace, session: aiohttp.ClientSession) -> None:
        path = tmp_path / "kubeconfig"
        face.write_kubeconfig(path)
        config = orjson.loads(path.read_bytes())
        assert path.stat().st_mode & 0o077 == 0
        assert [one["name"] for one in config["contexts"]] == ["a", "b"]
        url, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
        for given, status in ((token, 200), (token + "x", 401), (token[:-1], 401), ("", 401)):
            headers = {"Authorization": f"Bearer {given}"} if given else {}
            async with session.get(url + "/version", headers=headers) as answer:
                assert answer.status == status

    run(story, "a", "b", token="let-me-in")  # noqa: S106 - not a secret


def test_an_intercept_answers_or_cuts_the_connection() -> None:
    async def intercept(cluster: str, request: Request) -> Response | None:
        if request.path == "/readyz":
            return Response(503, {"retry-after": "7"}, cluster.encode())
        if request.path == "/livez":
            raise ConnectionDropped
        return None

    async def story(face: HttpFace, session: aiohttp.ClientSession) -> None:
        async with session.get(face.url("a") + "/readyz") as answer:
            assert (answer.status, answer.headers["retry-after"], await answer.text()) == (503, "7", "a")
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(face.url("a") + "/livez")
        async with session.get(face.url("a") + "/version") as answer:
            assert answer.status == 200

    run(story, "a", intercept=intercept)


def test_a_watch_ends_with_its_client_and_its_server() -> None:
    async def story(face: HttpFace, session: aiohttp.ClientSession) -> None:
        server = face.servers["a"]
        url = face.url("a") + MAPS + "?watch=true"
        async with session.get(url) as first, session.get(url) as second:
            assert server.open_watches() == 2
            metadata = {"name": "x", "namespace": "default"}
            server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
            for answer in (first, second):
                assert orjson.loads(await answer.content.readline())["type"] == "ADDED"
            while server.pending_events():  # noqa: ASYNC110 - nothing tells when it changes
                await asyncio.sleep(0)
            first.close()
            async with asyncio.timeout(30):
                while server.open_watches() > 1:  # noqa: ASYNC110 - the server notices when it does
                    await asyncio.sleep(0.01)
            server.end_watches()
            assert await second.content.readline() == b""
        assert server.open_watches() == 0

    run(story, "a")

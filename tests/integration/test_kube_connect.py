"""Connections that cannot be made: whatever the way there does, it is "no connection", and in time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler.shell import kubeconfig
from reconciler.shell.kube_connect import LazyTransport
from reconciler.shell.kubeconfig import KubeconfigFiles, SslContexts, load_connection
from reconciler.shell.kubeconfig_refusals import KubeconfigError
from reconciler.shell.transport import Request, Response, Stream, Transport, TransportError
from tests.integration.test_kubeconfig import SECRET, loaded, plugin, written

OIDC = {
    "auth-provider": {
        "name": "oidc",
        "config": {
            "client-id": "a",
            "client-secret": SECRET,
            "refresh-token": SECRET,
            "idp-issuer-url": "http://127.0.0.1:9/",
        },
    }
}


def refused(make: Callable[[], Awaitable[Transport]], timeout_s: float = 5.0) -> TransportError:
    """What a request says over a connection that `make` does not make."""

    async def play() -> TransportError:
        transport = LazyTransport(make)
        with pytest.raises(TransportError) as caught:
            await transport.request(Request("GET", "/version", timeout_s=timeout_s))
        with pytest.raises(TransportError):
            async with transport.stream(Request("GET", "/version", timeout_s=timeout_s)):
                pytest.fail("there is no connection")
        await transport.close()
        return caught.value

    async def bounded() -> TransportError:
        return await asyncio.wait_for(play(), 10)

    return asyncio.run(bounded())


@pytest.mark.parametrize(
    "error",
    [KubeconfigError("no such context"), OSError(13, SECRET), aiohttp.ClientError(SECRET), RuntimeError(SECRET)],
    ids=lambda error: type(error).__name__,
)
def test_whatever_making_a_connection_fails_with_is_not_sent(error: Exception) -> None:
    async def make() -> Transport:
        raise error

    found = refused(make)
    assert not found.sent
    assert found.__cause__ is error
    assert SECRET not in str(found)


def test_a_connection_that_is_not_made_in_time_is_not_sent() -> None:
    async def make() -> Transport:
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits so long")

    found = refused(make, timeout_s=0.1)
    assert not found.sent
    assert "within 0.1 s" in str(found)


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        pytest.param(OIDC, {}, id="the identity provider is down"),
        pytest.param({"auth-provider": {"name": "oidc"}}, {}, id="no configuration"),
        pytest.param({"auth-provider": {"name": "oidc", "config": {"id-token": "a.b.c"}}}, {}, id="no token"),
        pytest.param({"exec": 7}, {}, id="no plugin"),
        pytest.param({"token": 7}, {"server": "https://["}, id="no address"),
        pytest.param({}, {"tls-server-name": 7}, id="no name"),
    ],
)
def test_whatever_the_official_client_fails_with_is_a_kubeconfig_that_cannot_be_used(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any]
) -> None:
    path = written(tmp_path, {"server": "https://c.test", **cluster}, user)
    with pytest.raises(KubeconfigError) as caught:
        loaded(path, allow_exec=True)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_plugin_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kubeconfig, "PLUGIN_TIMEOUT_S", 1.0, raising=False)
    number = tmp_path / "pid"
    body = f"""
import pathlib, subprocess
child = subprocess.Popen(["sleep", "60"])
pathlib.Path({str(number)!r}).write_text(str(child.pid))
child.wait()
"""
    user = plugin(tmp_path, body)
    user["exec"]["args"].append(SECRET)
    path = written(tmp_path, {"server": "https://c.test"}, user)

    async def play() -> None:
        with pytest.raises(KubeconfigError, match="gave no credentials"):
            await asyncio.wait_for(load_connection(path, None, allow_exec=True, ssl_contexts=SslContexts()), 10)

    asyncio.run(play())
    assert "did not answer within 1.0 s" in caplog.text
    assert SECRET not in caplog.text
    assert ended(int(number.read_text())), "the plugin's own child is still running"


def ended(number: int) -> bool:
    """True if the process is gone within two seconds, or waits for nothing but being reaped by its new parent."""
    for _ in range(100):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{number}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def many(path: Path, count: int) -> None:
    """A kubeconfig of many contexts, each with its own user."""
    lines = ["current-context: c0", "clusters:"]
    lines += [f"- {{name: c{index}, cluster: {{server: 'http://127.0.0.1:{index + 1}'}}}}" for index in range(count)]
    lines += ["users:", *(f"- {{name: u{index}, user: {{token: t{index}}}}}" for index in range(count))]
    lines += ["contexts:"]
    lines += [f"- {{name: c{index}, context: {{cluster: c{index}, user: u{index}}}}}" for index in range(count)]
    path.write_text("\n".join(lines))


def test_a_kubeconfig_of_many_contexts_is_parsed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    many(path, 20)
    parses: list[Path] = []
    parse = kubeconfig.parsed_document

    def counted(content: bytes, at: Path) -> dict[str, Any] | KubeconfigError:
        parses.append(at)
        return parse(content, at)

    monkeypatch.setattr(kubeconfig, "parsed_document", counted)
    files = kubeconfig.KubeconfigFiles()

    async def token(index: int) -> str | None:
        _, credentials = await load_connection(path, f"c{index}", ssl_contexts=SslContexts(), files=files)
        return await credentials.authorization()

    async def play() -> list[str | None]:
        return [await token(index) for index in range(20)]

    assert asyncio.run(play()) == [f"Bearer t{index}" for index in range(20)]
    assert len(parses) == 1
    many(path, 21)
    assert asyncio.run(token(20)) == "Bearer t20"
    assert len(parses) == 2
    path.write_text(f"users: [token: {SECRET}")
    for _ in range(2):
        with pytest.raises(KubeconfigError, match="not valid YAML"):
            files.document(path)
    assert len(parses) == 3


def test_the_official_client_gets_the_one_context_and_changes_only_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    many(path, 20)
    given: list[dict[str, Any]] = []
    official = kubeconfig.official_loader

    async def seen(document: dict[str, Any], context: str, at: Path) -> tuple[Any, Any]:
        given.append(document)
        result = await official(document, context, at)
        document["users"][0]["user"]["token"] = "changed"  # noqa: S105 - no token of anybody
        return result

    monkeypatch.setattr(kubeconfig, "official_loader", seen)
    files = kubeconfig.KubeconfigFiles()
    for _ in range(2):
        _, credentials = asyncio.run(load_connection(path, "c3", ssl_contexts=SslContexts(), files=files))
        assert asyncio.run(credentials.authorization()) == "Bearer t3"
    assert [len(given[0][section]) for section in ("contexts", "clusters", "users")] == [1, 1, 1]


def test_a_large_kubeconfig_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    many(path, 2000)
    started_s = time.process_time()
    kubeconfig.KubeconfigFiles().document(path)
    assert time.process_time() - started_s < 1.0


class OneToken:
    """A connection with the token that it was made with; the server accepts one only."""

    def __init__(self, token: str, accepted: list[str], closed: list[str]) -> None:
        self._token, self._accepted, self._closed = token, accepted, closed

    async def request(self, request: Request) -> Response:
        del request
        if self._accepted[0] == "unreachable":
            raise TransportError("connection refused", sent=False)
        return Response(200 if self._token == self._accepted[0] else 401)

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        raise AssertionError(f"nobody watches here: {request}")

    async def close(self) -> None:
        self._closed.append(self._token)


def test_a_kubeconfig_is_read_anew_only_when_the_old_one_is_refused_and_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    accepted, closed, made = ["first"], list[str](), list[str]()

    async def make() -> Transport:
        made.append(path.read_text())
        return OneToken(made[-1], accepted, closed)

    async def play() -> None:
        transport = LazyTransport(make, lambda: KubeconfigFiles.version(path))

        async def status() -> int:
            return (await transport.request(Request("GET", "/version"))).status

        path.write_text("first")
        assert await status() == 200
        path.write_text("the second")
        # What works is left alone, whatever the file says by now.
        assert (await status(), made) == (200, ["first"])
        accepted[0] = "the second"
        assert [await status() for _ in range(3)] == [401, 200, 200]
        assert (made, closed) == (["first", "the second"], ["first"])
        # Refused, and the file is what it was: nothing is made.
        accepted[0] = "the third one"
        assert [await status() for _ in range(3)] == [401, 401, 401]
        # The file is gone for a moment: what there is stays.
        path.unlink()
        assert (await status(), len(made)) == (401, 2)
        path.write_text("the third one")
        assert [await status(), await status()] == [200, 200]
        # No connection comes about: the address or the authority may be another by now.
        accepted[0] = "unreachable"
        with pytest.raises(TransportError):
            await status()
        path.write_text("the fourth of them")
        accepted[0] = "the fourth of them"
        assert await status() == 200
        await transport.close()
        assert closed == made == ["first", "the second", "the third one", "the fourth of them"]

    asyncio.run(play())

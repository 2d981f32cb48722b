"""What an API server, and the way to it, may cost the whole process: bytes of an answer, threads of a name."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from typing import Any

import pytest

from reconciler.bootstrap import ThreadPerCall
from reconciler.shell.kube_cluster import LIST_PAGE_OBJECTS
from reconciler.shell.kube_http import MAX_BODY_BYTES, AiohttpTransport
from reconciler.shell.kubeconfig import Connection, FixedCredentials
from reconciler.shell.transport import Request, Response, TransportError
from tests.integration.test_kube_http import Listener, Peer, answer_ok, failure, played


def test_compression_is_declined_and_a_compressed_answer_is_not_inflated() -> None:
    bomb = gzip.compress(b" " * 50_000_000)

    async def compressed(peer: Peer) -> None:
        await peer.head()
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: GZip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
        await peer.send(head, bomb)

    listener, result = played(compressed, Request("GET", "/x"))
    assert b"accept-encoding: identity" in listener.heads[0].lower()
    assert failure(result).sent
    assert "encoded as 'gzip'" in str(result)

    async def watch() -> None:
        async with (
            Listener(compressed).running() as transport,
            transport.stream(Request("GET", "/x", timeout_s=5)) as stream,
        ):
            with pytest.raises(TransportError, match="encoded as 'gzip'"):
                await anext(aiter(stream.lines))

    asyncio.run(watch())


def test_an_answer_may_be_as_large_as_a_page_of_large_objects_and_no_larger() -> None:
    assert MAX_BODY_BYTES == 64 * 1024 * 1024
    assert MAX_BODY_BYTES / LIST_PAGE_OBJECTS > 600 * 1024


def test_names_that_hang_take_no_thread_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, hanging = threading.Event(), []
    real = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).startswith("gone-"):
            hanging.append(host)
            go_on.wait(20)
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    threads = ThreadPerCall()

    async def ask(url: str, timeout_s: float) -> Response | TransportError:
        transport = AiohttpTransport(Connection(url), FixedCredentials(None), threads=threads)
        try:
            for _ in range(2):
                try:
                    return await transport.request(Request("GET", "/x", timeout_s=timeout_s))
                except TransportError as error:
                    last = error
            return last
        finally:
            await transport.close()

    async def play() -> None:
        listener = Listener(answer_ok)
        async with listener.running():
            names = [f"http://gone-{index}.test:6443" for index in range(40)]
            lost = asyncio.gather(*(ask(name, 0.5) for name in names))
            await asyncio.sleep(0.1)
            started_s = asyncio.get_running_loop().time()
            answer = await ask(listener.url.replace("127.0.0.1", "localhost"), 5)
            assert isinstance(answer, Response)
            assert await asyncio.to_thread(lambda: 7) == 7
            assert asyncio.get_running_loop().time() - started_s < 0.4
            for error in await lost:
                assert not failure(error).sent
            # Each was asked twice, and the second waited for the look-up of the first.
            assert len(hanging) == 40

    try:
        asyncio.run(play())
    finally:
        go_on.set()


def test_a_name_that_does_not_resolve_says_so() -> None:
    async def play() -> TransportError:
        transport = AiohttpTransport(
            Connection("http://no-such-name.invalid:1"), FixedCredentials(None), threads=ThreadPerCall()
        )
        with pytest.raises(TransportError, match="does not resolve") as caught:
            await transport.request(Request("GET", "/x", timeout_s=20))
        await transport.close()
        return caught.value

    assert not asyncio.run(play()).sent


def test_closing_ends_the_wait_for_a_name(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    go_on, ended = threading.Event(), threading.Event()

    def slow(*_arguments: Any, **_options: Any) -> Any:
        go_on.wait(20)
        ended.set()
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def play() -> None:
        transport = AiohttpTransport(Connection("http://gone.test"), FixedCredentials(None), threads=ThreadPerCall())
        asking = asyncio.gather(transport.request(Request("GET", "/x")), return_exceptions=True)
        await asyncio.sleep(0.05)
        await transport.close()
        [error] = await asyncio.wait_for(asking, 2)
        assert isinstance(error, TransportError | asyncio.CancelledError)

    asyncio.run(play())
    go_on.set()
    assert ended.wait(5)
    for thread in [thread for thread in threading.enumerate() if thread.name == "name-lookup"]:
        thread.join(5)
    assert not caplog.records

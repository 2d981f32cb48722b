"""The aiohttp transport against servers that misbehave: what was perhaps sent, and that nothing is sent twice."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.shell.kube_http import AiohttpTransport, transport_from_kubeconfig
from reconciler.shell.kubeconfig import Connection, FixedCredentials
from reconciler.shell.transport import Request, Response, TransportError
from tests.control_plane.server import ControlPlane, free_ports

Script = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(content), content)


@dataclass
class Peer:
    """The server's side of one connection."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        """The next request's lines up to the empty one; empty at the end of the connection."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def send(self, *parts: bytes) -> None:
        """Write and flush."""
        self.writer.writelines(parts)
        await self.writer.drain()

    def reset(self) -> None:
        """Cut the connection without a farewell."""
        self.writer.transport.abort()


@dataclass
class Listener:
    """A scripted server on 127.0.0.1."""

    script: Script
    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(self.connections, reader, writer)
        read = peer.head

        async def recorded() -> bytes:
            head = await read()
            if head:
                self.heads.append(head)
            return head

        peer.head = recorded  # type: ignore[method-assign] # the recording wrapper has the method's signature
        try:
            await self.script(peer)
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[AiohttpTransport]:
        """The listener, and a transport to it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = AiohttpTransport(Connection(self.url), FixedCredentials(None), **options)
        try:
            yield transport
        finally:
            await transport.close()
            server.close()


def played(script: Script, request: Request, **options: int) -> tuple[Listener, Response | TransportError]:
    """One request to a scripted server, and what came of it."""

    async def play() -> tuple[Listener, Response | TransportError]:
        listener = Listener(script)
        async with listener.running(**options) as transport:
            try:
                return listener, await transport.request(request)
            except TransportError as error:
                return listener, error

    return asyncio.run(play())


def failure(result: Response | TransportError) -> TransportError:
    """The error, if it was one."""
    assert isinstance(result, TransportError), result
    return result


async def answer_ok(peer: Peer) -> None:
    """Answer every request with 200."""
    while await peer.head():
        await peer.send(OK)


async def say_nothing(peer: Peer) -> None:
    """Read the request and never answer."""
    await peer.head()
    await peer.reader.read()


async def reset_after_reading(peer: Peer) -> None:
    """Read the request, then cut the connection."""
    await peer.head()
    peer.reset()


async def stop_in_the_body(peer: Peer) -> None:
    """Announce more than is sent."""
    await peer.head()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")


async def talk_nonsense(peer: Peer) -> None:
    """Answer with something that is no HTTP."""
    await peer.head()
    await peer.send(b"SSH-2.0-hello\r\n\r\n")


async def redirect(peer: Peer) -> None:
    """Send the client elsewhere."""
    await peer.head()
    await peer.send(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")


def test_an_answer_arrives_whole_with_lower_case_headers() -> None:
    listener, result = played(answer_ok, Request("GET", "/version", headers=(("Accept", "application/json"),)))
    assert result == Response(200, {"content-length": "2"}, b"ok")
    assert listener.heads[0].startswith(b"GET /version HTTP/1.1\r\n")
    assert b"Accept: application/json\r\n" in listener.heads[0]
    assert b"Authorization" not in listener.heads[0]


def test_names_and_values_are_never_read_as_syntax() -> None:
    query = (("continue", "a+b/c=&d"), ("labelSelector", "x in (a, b)"))
    listener, _ = played(answer_ok, Request("GET", "/api/v1/namespaces/a?b#c/d e", query))
    line = listener.heads[0].split(b"\r\n")[0]
    path = b"/api/v1/namespaces/a%3Fb%23c/d%20e"
    assert line == b"GET " + path + b"?continue=a%2Bb%2Fc%3D%26d&labelSelector=x%20in%20%28a%2C%20b%29 HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "script", [reset_after_reading, stop_in_the_body, talk_nonsense, say_nothing], ids=lambda script: script.__name__
)
def test_a_failure_after_sending_is_ambiguous(script: Script, method: str) -> None:
    listener, result = played(script, Request(method, "/x", body=b"{}", timeout_s=0.3))
    assert failure(result).sent
    assert f"{method} /x" in str(result)
    assert len(listener.heads) == 1


def test_nothing_listens() -> None:
    async def play() -> TransportError:
        transport = AiohttpTransport(Connection(f"http://127.0.0.1:{free_ports(1)[0]}"), FixedCredentials(None))
        with pytest.raises(TransportError) as caught:
            await transport.request(Request("DELETE", "/x"))
        await transport.close()
        return caught.value

    error = asyncio.run(play())
    assert not error.sent
    # Whoever asks why a cluster is away reads the message; the request stands in the log's traceback alone.
    assert (error.message, str(error)) == ("connection refused", "DELETE /x: connection refused")


@pytest.mark.parametrize("server", ["http://no-such-host.invalid", "http://127.0.0.1:99999", "nonsense"])
def test_an_address_that_leads_nowhere(server: str) -> None:
    async def play() -> TransportError:
        transport = AiohttpTransport(Connection(server), FixedCredentials(None))
        with pytest.raises(TransportError) as caught:
            await transport.request(Request("PUT", "/x", body=b"{}", timeout_s=20))
        await transport.close()
        return caught.value

    assert not asyncio.run(play()).sent


def test_a_tls_handshake_that_fails() -> None:
    async def no_tls(peer: Peer) -> None:
        await peer.send(OK)
        await peer.reader.read()

    async def play() -> TransportError:
        listener = Listener(no_tls)
        async with listener.running():
            secure = Connection(listener.url.replace("http:", "https:"), ssl.create_default_context())
            transport = AiohttpTransport(secure, FixedCredentials("Bearer secret"))
            with pytest.raises(TransportError) as caught:
                await transport.request(Request("PUT", "/x", body=b"{}", timeout_s=5))
            await transport.close()
            return caught.value

    assert not asyncio.run(play()).sent


def test_no_free_connection_in_time_is_not_sent() -> None:
    async def play() -> tuple[Listener, TransportError]:
        reading = asyncio.Event()

        async def hang(peer: Peer) -> None:
            await peer.head()
            reading.set()
            await peer.reader.read()

        listener = Listener(hang)
        async with listener.running(max_connections=1) as transport:
            first = asyncio.create_task(transport.request(Request("GET", "/first", timeout_s=20)))
            await reading.wait()
            with pytest.raises(TransportError) as caught:
                await transport.request(Request("DELETE", "/second", timeout_s=0.2))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return listener, caught.value

    listener, error = asyncio.run(play())
    assert not error.sent
    assert [head.split()[1] for head in listener.heads] == [b"/first"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_kept_connection_that_was_closed_is_never_a_second_sending(method: str) -> None:
    async def one_answer_then_cut(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        if peer.number == 1:
            await peer.head()
            peer.reset()
        else:
            await answer_ok(peer)

    async def play() -> tuple[Listener, TransportError]:
        listener = Listener(one_answer_then_cut)
        async with listener.running() as transport:
            await transport.request(Request("GET", "/warm"))
            with pytest.raises(TransportError) as caught:
                await transport.request(Request(method, "/x", timeout_s=5))
            return listener, caught.value

    listener, error = asyncio.run(play())
    assert error.sent
    assert [head.split()[1] for head in listener.heads] == [b"/warm", b"/x"]


def test_redirects_are_answers() -> None:
    _, result = played(redirect, Request("GET", "/x"))
    assert isinstance(result, Response)
    assert result.status == 302


def test_an_answer_over_the_limit() -> None:
    async def endless(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED, *[chunk(b"x" * 1000)] * 20)
        await peer.reader.read()

    _, result = played(endless, Request("GET", "/x"), max_body_bytes=10_000)
    assert failure(result).sent
    assert "over 10000 bytes" in str(result)


def test_a_closed_transport_says_so() -> None:
    async def play() -> None:
        transport = AiohttpTransport(Connection("http://127.0.0.1:1"), FixedCredentials(None))
        await transport.close()
        await transport.close()
        with pytest.raises(TransportError, match="closed") as caught:
            await transport.request(Request("GET", "/x"))
        assert not caught.value.sent

    asyncio.run(play())


def streamed(*parts: bytes, end: bytes = chunk(b""), **options: int) -> tuple[list[bytes], TransportError | None]:
    """The lines of a stream that arrives in these parts."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED)
        for part in parts:
            await peer.send(chunk(part))
            await asyncio.sleep(0.01)
        await peer.send(end)

    async def play() -> tuple[list[bytes], TransportError | None]:
        lines: list[bytes] = []
        async with Listener(script).running(**options) as transport:
            try:
                async with transport.stream(Request("GET", "/x", timeout_s=5)) as stream:
                    assert stream.status == 200
                    async for line in stream.lines:
                        lines.append(line)  # noqa: PERF401 - what came before an error counts
            except TransportError as error:
                return lines, error
        return lines, None

    return asyncio.run(play())


def test_lines_are_split_wherever_they_arrive() -> None:
    assert streamed(b'{"a"', b':1}\n{"b":', b"2}\n\n", b'{"c":3}\n{"d":4}\n') == (
        [b'{"a":1}', b'{"b":2}', b'{"c":3}', b'{"d":4}'],
        None,
    )


def test_a_long_line_arrives_and_a_longer_one_is_refused() -> None:
    line = b"x" * 3_000_000
    assert streamed(line, b"\n") == ([line], None)
    lines, error = streamed(b"a\n", line, max_line_bytes=1_000_000)
    assert lines == [b"a"]
    assert "line over 1000000 bytes" in str(error)


def test_a_stream_that_is_cut_is_no_end() -> None:
    lines, error = streamed(b"a\nb", end=b"")
    assert lines == [b"a"]
    assert error is not None
    assert error.sent
    lines, error = streamed(b"a\nb")
    assert lines == [b"a"]
    assert "within a line" in str(error)


def test_a_refused_stream_carries_its_text() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno-no")

    async def play() -> None:
        async with (
            Listener(refuse).running() as transport,
            transport.stream(Request("GET", "/x", timeout_s=5)) as stream,
        ):
            assert (stream.status, stream.body) == (403, b"no-no")
            assert [line async for line in stream.lines] == []

    asyncio.run(play())


def test_a_stream_whose_headers_do_not_come_times_out_but_an_open_one_does_not() -> None:
    async def play_silent() -> None:
        async with Listener(say_nothing).running() as transport:
            with pytest.raises(TransportError) as caught:
                async with transport.stream(Request("GET", "/x", timeout_s=0.2)):
                    pytest.fail("no headers came")
            assert caught.value.sent

    async def late(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED)
        await asyncio.sleep(0.5)
        await peer.send(chunk(b"late\n"), chunk(b""))

    async def play_late() -> list[bytes]:
        async with (
            Listener(late).running() as transport,
            transport.stream(Request("GET", "/x", timeout_s=0.2)) as stream,
        ):
            return [line async for line in stream.lines]

    asyncio.run(play_silent())
    assert asyncio.run(play_late()) == [b"late"]


def test_leaving_a_stream_closes_its_connection() -> None:
    async def play() -> None:
        ended = asyncio.Event()

        async def watch(peer: Peer) -> None:
            await peer.head()
            await peer.send(CHUNKED, chunk(b"a\n"))
            await peer.reader.read()
            ended.set()

        async with Listener(watch).running() as transport:
            async with transport.stream(Request("GET", "/x", timeout_s=5)) as stream:
                assert await anext(stream.lines) == b"a"
            async with asyncio.timeout(20):
                await ended.wait()

    asyncio.run(play())


def test_importing_the_transport_does_not_import_kubernetes() -> None:
    async def imported() -> str:
        code = "import sys, reconciler.shell.kube_http; print('kubernetes' in sys.modules)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return output.decode().strip()

    assert asyncio.run(imported()) == "False"


@pytest.mark.controlplane
def test_a_certificate_of_another_authority_is_never_spoken_to(control_plane: ControlPlane) -> None:
    async def play() -> TransportError:
        strict = Connection(control_plane.url, ssl.create_default_context())
        transport = AiohttpTransport(strict, FixedCredentials("Bearer secret"))
        with pytest.raises(TransportError) as caught:
            await transport.request(Request("GET", "/version"))
        await transport.close()
        return caught.value

    error = asyncio.run(play())
    assert not error.sent
    assert "secret" not in str(error)


@pytest.mark.controlplane
def test_the_real_server_through_a_kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> None:
    async def who(path: Path) -> int:
        transport = await transport_from_kubeconfig(path)
        try:
            return (await transport.request(Request("GET", "/api/v1/secrets", (("limit", "1"),)))).status
        finally:
            await transport.close()

    assert asyncio.run(who(control_plane.kubeconfig)) == 200
    assert asyncio.run(who(control_plane.kubeconfig_for("stranger"))) == 403
    wrong = tmp_path / "wrong"
    text = control_plane.kubeconfig.read_text()
    wrong.write_text(text.replace(control_plane.tokens["administrator"], "nonsense"))
    assert asyncio.run(who(wrong)) == 401

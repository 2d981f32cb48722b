"""A proxy in front of a real API server that plays faults: by rule, or at random from a seed.

TLS ends here on both sides, so every byte of an answer can be withheld, doubled or replaced, and every request can be
carried out without its client learning of it. It runs in a thread of its own, so that tests of the library and of a
daemon in another process use it alike; all methods may be called from any thread. What was asked and what became of it
stands in the log, in the order in which the requests arrived: that is the API server's side of the story.

    with FaultProxy(plane.url, plane.ca_file) as proxy:
        proxy.write_kubeconfig(path, token=plane.tokens["administrator"])
        rule = proxy.play(ResetAfter(), when=writes, times=1)
        ...
        assert [entry.method for entry in proxy.entries(path="/api/v1/namespaces/a/configmaps/b")] == [...]
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

from tests.faults.certificates import HOST, Certificate, Certificates
from tests.faults.chance import RandomFaults
from tests.faults.exchange import (
    HEADERS_MAX_BYTES,
    Answer,
    Asked,
    ClientGoneError,
    Entry,
    Exchange,
    UpstreamGoneError,
    read_request,
    reset,
)
from tests.faults.faults import Event, EventFault, Fate, Fault

T = TypeVar("T")

LOG_MAX = 50_000
STOP_WITHIN_S = 20.0
LINE_MAX_BYTES = 16 * 1024 * 1024


def everything(_: object) -> bool:
    """Every request, or every event."""
    return True


def writes(asked: Asked) -> bool:
    """Requests that may change something."""
    return asked.writes


def reads(asked: Asked) -> bool:
    """Requests that change nothing, watches included."""
    return not asked.writes


def lists(asked: Asked) -> bool:
    """Lists."""
    return asked.lists


def watches(asked: Asked) -> bool:
    """Watches."""
    return asked.watches


@dataclass(slots=True)
class Rule:
    """A fault for the requests that `when` chooses, `left` times (None: until ended). `played` counts."""

    fault: Fault
    when: Callable[[Asked], bool]
    left: int | None
    played: int = 0

    def end(self) -> None:
        """Play it no more."""
        self.left = 0


@dataclass(slots=True)
class EventRule:
    """As Rule, for the events of watches."""

    fault: EventFault
    when: Callable[[Event], bool]
    left: int | None
    played: int = 0

    def end(self) -> None:
        """Play it no more."""
        self.left = 0


@dataclass(slots=True)
class Book:
    """Rules and log, shared between threads."""

    rules: list[Rule] = field(default_factory=list)
    event_rules: list[EventRule] = field(default_factory=list)
    chance: RandomFaults | None = None
    log: deque[Entry] = field(default_factory=lambda: deque(maxlen=LOG_MAX))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of_request(self, asked: Asked, entry: Entry) -> Fault | None:
        """The first rule's fault that chooses `asked`, else one by chance; noted in `entry`."""
        with self.lock:
            self.log.append(entry)
            rule = next((rule for rule in self.rules if rule.left != 0 and rule.when(asked)), None)
            fault = count(rule) if rule is not None else self.chance.of_request(asked) if self.chance else None
            entry.fault = str(fault) if fault is not None else ""
            return fault

    def of_event(self, event: Event) -> EventFault | None:
        """The same for an event; only those that meet a fault are logged."""
        with self.lock:
            rule = next((rule for rule in self.event_rules if rule.left != 0 and rule.when(event)), None)
            fault = count(rule) if rule is not None else self.chance.of_event(event) if self.chance else None
            if fault is not None:
                asked = event.asked
                what = f"EVENT {event.type} {event.name}".rstrip()
                self.log.append(Entry(asked.number, what, asked.path, {}, str(fault)))
            return fault


def count(rule: Any) -> Any:
    """The rule's fault, played once more."""
    rule.played += 1
    if rule.left is not None:
        rule.left -= 1
    return rule.fault


class FaultProxy:
    """The proxy and its thread. `url` is where clients find it."""

    def __init__(self, upstream_url: str, ca_file: Path) -> None:
        self.url = ""
        self._upstream_url = upstream_url
        self._ca_file = ca_file
        self._certificates = Certificates()
        self._book = Book()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: list[Exception] = []
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    # ---- what tests say ------------------------------------------------------------------------------------------

    def play(self, fault: Fault, *, when: Callable[[Asked], bool] = everything, times: int | None = None) -> Rule:
        """Play `fault` to the requests that `when` chooses, so many times or until the rule is ended. Of several rules
        that choose a request the oldest counts."""
        rule = Rule(fault, when, times)
        with self._book.lock:
            self._book.rules.append(rule)
        return rule

    def play_events(
        self, fault: EventFault, *, when: Callable[[Event], bool] = everything, times: int | None = None
    ) -> EventRule:
        """The same for events of watches, open ones included."""
        rule = EventRule(fault, when, times)
        with self._book.lock:
            self._book.event_rules.append(rule)
        return rule

    def draw(self, chance: RandomFaults | None) -> None:
        """Play faults at random from now on to what no rule chooses; None ends that."""
        with self._book.lock:
            self._book.chance = chance

    def well(self) -> None:
        """End all faults, and break what hangs because of them."""
        with self._book.lock:
            self._book.rules.clear()
            self._book.event_rules.clear()
            self._book.chance = None
        self.present(Certificate.GOOD)

    def present(self, certificate: Certificate) -> None:
        """Show this certificate, also to those who are connected now: they have to come again."""

        async def work() -> None:
            self._certificates.present(certificate)
            self._cut()

        self._on_loop(work())

    def cut(self) -> None:
        """Break all connections, those of watches and of hanging requests included."""

        async def work() -> None:
            self._cut()

        self._on_loop(work())

    def entries(self, *, path: str | None = None, since: int = 0) -> list[Entry]:
        """The log, of one path only or of requests after number `since`, as far as it is kept."""
        with self._book.lock:
            log = list(self._book.log)
        return [entry for entry in log if path in (None, entry.path) and entry.number > since]

    @property
    def last_number(self) -> int:
        """The number of the newest request."""
        return self._count

    def summary(self) -> Counter[str]:
        """How often each fault was played, as far as the log is kept."""
        return Counter(entry.fault for entry in self.entries() if entry.fault)

    def write_kubeconfig(self, path: Path, *, token: str | None = None, token_file: Path | None = None) -> Path:
        """A kubeconfig that leads here, trusting the proxy's authority."""
        user = {"tokenFile": str(token_file)} if token_file is not None else {"token": token}
        authority = base64.b64encode(self._certificates.authority_pem).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        # In one step: a daemon may be reading it.
        draft = path.with_name(path.name + ".new")
        draft.write_text(json.dumps(config))
        draft.replace(path)
        return path

    # ---- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._on_loop(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._on_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_WITHIN_S)
        self._loop.close()
        assert not self._failures, self._failures

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STOP_WITHIN_S)

    async def _start(self) -> None:
        context = ssl.create_default_context(cafile=str(self._ca_file))
        self._upstream = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            read_bufsize=LINE_MAX_BYTES,
        )
        self._server = await asyncio.start_server(
            self._serve, HOST, 0, ssl=self._certificates.context, limit=HEADERS_MAX_BYTES
        )
        self.url = f"https://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.close()
        self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upstream.close()
        # Aborted connections are closed by callbacks of the loop.
        await asyncio.sleep(0.01)

    def _cut(self) -> None:
        for writer in list(self._writers):
            reset(writer)

    # ---- one connection ------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ClientGoneError, OSError, asyncio.CancelledError):
            # Ours to end: the streams library reports a cancelled handler as an error.
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and what becomes of it. True if the connection lives on."""
        asked = await read_request(reader, self._next_number)
        entry = Entry(asked.number, asked.method, asked.path, dict(asked.query))
        fault = self._book.of_request(asked, entry)
        exchange = Exchange(asked, entry, self._upstream, self._upstream_url, writer)
        work = asyncio.create_task(self._play(exchange, fault))
        # A client that leaves must not keep a watch on the API server, or a black hole here, for ever.
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientGoneError("it left")
            await work
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        return not exchange.broken

    def _next_number(self) -> int:
        self._count += 1
        return self._count

    async def _play(self, exchange: Exchange, fault: Fault | None) -> None:
        try:
            if fault is not None:
                await fault.play(exchange)
            elif exchange.asked.watches:
                await self._watch(exchange)
            else:
                await exchange.answer(await exchange.forward())
        except UpstreamGoneError:
            exchange.reset()
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a mistake of the proxy's own fails the test at the end
            self._failures.append(error)
            exchange.reset()

    # ---- watches -------------------------------------------------------------------------------------------------

    async def _watch(self, exchange: Exchange) -> None:
        """Pass a watch on, line by line."""
        async with exchange.opened() as response:
            headers = tuple(response.headers.items())
            if response.status != 200:
                await exchange.answer(Answer(response.status, headers, await response.read()))
                return
            await exchange.write(Answer(200, headers, b"").head(chunked=True))
            late: set[asyncio.Task[None]] = set()
            try:
                await self._lines(exchange, response, late)
            except (aiohttp.ClientError, OSError) as error:
                raise UpstreamGoneError(str(error)) from error
            finally:
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            if not exchange.broken:
                await exchange.write(b"0\r\n\r\n")

    async def _lines(self, exchange: Exchange, response: aiohttp.ClientResponse, late: set[asyncio.Task[None]]) -> None:
        while line := await response.content.readline():
            fate = self._fate(exchange.asked, line.rstrip(b"\n"))
            if fate.delay_s:
                late.add(asyncio.create_task(self._later(exchange, fate)))
                continue
            # What is cut in the middle has no end of line either.
            end = b"" if fate.then == "reset" else b"\n"
            for one in fate.lines:
                await exchange.write(chunk(one + end))
            if fate.then == "reset":
                exchange.reset()
            if fate.then == "silence":
                await asyncio.Event().wait()
            if fate.then != "go on":
                return

    async def _later(self, exchange: Exchange, fate: Fate) -> None:
        await asyncio.sleep(fate.delay_s)
        for line in fate.lines:
            await exchange.write(chunk(line + b"\n"))

    def _fate(self, asked: Asked, line: bytes) -> Fate:
        value = json.loads(line)
        fault = self._book.of_event(Event(asked, str(value.get("type")), value.get("object") or {}))
        return Fate((line,)) if fault is None else fault.fate(line)


def chunk(content: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(content), content)

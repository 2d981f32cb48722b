"""The faults: what may become of a request on its way to an API server, and of an event on its way back.

A request fault gets the exchange and does with it what it is named for; an event fault gets one line of a watch. Each
is a small value that prints as what it does, for logs and for the ids of tests. What a gateway says is HTML, what the
API server says is a Status: clients have to tell the two apart.

    proxy.play(ResetAfter(), when=writes, times=1)       # the write is carried out, its answer is lost
    proxy.play_events(Lost(), when=lambda event: event.type == "MODIFIED")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tests.faults.exchange import Answer, Asked, Exchange


async def within(seconds: float, work: Awaitable[None]) -> None:
    """Let `work` go on for a while, and end it then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


HTML = b"<html><head><title>%d</title></head><body><h1>%d Bad Gateway or worse</h1></body></html>"


class Fault(Protocol):
    """What becomes of a request."""

    async def play(self, exchange: Exchange) -> None:
        """Deal with the whole exchange."""
        ...


@dataclass(frozen=True, slots=True)
class Says:
    """The API server itself refuses: a Status, and nothing is sent on."""

    code: int
    reason: str
    message: str = "played by the fault proxy"
    retry_after_s: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    async def play(self, exchange: Exchange) -> None:
        await exchange.answer(self.as_answer())

    def as_answer(self) -> Answer:
        """The refusal as an answer."""
        headers = [("Content-Type", "application/json")]
        if self.retry_after_s is not None:
            headers.append(("Retry-After", str(self.retry_after_s)))
        return Answer(self.code, tuple(headers), json.dumps(self.status()).encode())

    def status(self) -> dict[str, Any]:
        """The refusal as a Status object."""
        details = {} if self.retry_after_s is None else {"retryAfterSeconds": self.retry_after_s}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(self.metadata),
            "status": "Failure",
            "reason": self.reason,
            "message": self.message,
            "details": details,
            "code": self.code,
        }


TOO_MANY = Says(429, "TooManyRequests", "Too many requests, please try again later.")
CONFLICT = Says(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
EXPIRED = Says(410, "Expired", "The provided continue parameter is too old to display a consistent list result.")
EXPIRED_WITH_TOKEN = replace(
    EXPIRED, metadata=(("continue", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"), ("resourceVersion", ""))
)
TOO_OLD = Says(410, "Expired", "too old resource version: 1 (2)")
INTERNAL = Says(500, "InternalError", "Internal error occurred: etcdserver: request timed out")
UNAUTHORIZED = Says(401, "Unauthorized", "Unauthorized")
FORBIDDEN = Says(403, "Forbidden", "configmaps is forbidden: User cannot list resource at the cluster scope")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Something in front of the API server answers with a page of its own; nothing is sent on."""

    code: int
    retry_after_s: int | None = None

    async def play(self, exchange: Exchange) -> None:
        headers = [("Content-Type", "text/html"), ("Server", "gateway")]
        if self.retry_after_s is not None:
            headers.append(("Retry-After", str(self.retry_after_s)))
        await exchange.answer(Answer(self.code, tuple(headers), HTML % (self.code, self.code)))


@dataclass(frozen=True, slots=True)
class GatewayAfter:
    """The request is carried out, and the gateway loses patience before the answer comes."""

    code: int = 504

    async def play(self, exchange: Exchange) -> None:
        await exchange.forward()
        await exchange.answer(Answer(self.code, (("Content-Type", "text/html"),), HTML % (self.code, self.code)))


@dataclass(frozen=True, slots=True)
class ResetBefore:
    """The connection breaks before the request was sent on. The client cannot tell this from ResetAfter."""

    async def play(self, exchange: Exchange) -> None:
        exchange.reset()


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """The request is carried out, and the connection breaks before a byte of the answer."""

    async def play(self, exchange: Exchange) -> None:
        await exchange.forward()
        exchange.reset()


@dataclass(frozen=True, slots=True)
class ResetInBody:
    """The connection breaks in the middle of the answer's body."""

    async def play(self, exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.write(answer.head(), answer.body[: len(answer.body) // 2])
        exchange.reset()


@dataclass(frozen=True, slots=True)
class EndInBody:
    """The connection ends properly, but before as many bytes as the head had promised."""

    async def play(self, exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.write(answer.head(), answer.body[: len(answer.body) // 2])
        await exchange.end()


@dataclass(frozen=True, slots=True)
class CutJson:
    """A whole answer whose JSON stops in the middle: something cut it and counted anew."""

    async def play(self, exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.answer(replace(answer, body=answer.body[: len(answer.body) // 2]))


@dataclass(frozen=True, slots=True)
class Garbage:
    """A whole answer of status 200 that is no JSON."""

    body: bytes = b"\x00\xff{{{ welcome to the portal"

    async def play(self, exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.answer(Answer(200, answer.headers, self.body))


@dataclass(frozen=True, slots=True)
class ShortList:
    """A list that is right in every formal respect and lacks items: all but the first `keep`."""

    keep: int = 0
    keep_remaining_count: bool = False

    async def play(self, exchange: Exchange) -> None:
        answer = await exchange.forward()
        value = json.loads(answer.body)
        left = len(value["items"]) - self.keep
        value["items"] = value["items"][: self.keep]
        value["metadata"].pop("continue", None)
        if self.keep_remaining_count:
            value["metadata"]["remainingItemCount"] = left
        await exchange.answer(replace(answer, body=json.dumps(value).encode()))


@dataclass(frozen=True, slots=True)
class Drip:
    """The answer's body comes in pieces with pauses: `pieces` of them, `pause_s` before each."""

    pause_s: float
    pieces: int = 20

    async def play(self, exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.write(answer.head())
        size = max(1, -(-len(answer.body) // self.pieces))
        for start in range(0, len(answer.body), size):
            await asyncio.sleep(self.pause_s)
            await exchange.write(answer.body[start : start + size])


@dataclass(frozen=True, slots=True)
class Delay:
    """Everything is right, `delay_s` later."""

    delay_s: float

    async def play(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.delay_s)
        await exchange.answer(await exchange.forward())


@dataclass(frozen=True, slots=True)
class BlackHole:
    """The request is taken and nothing ever comes back, until the client gives up. With `carry_out` the API server
    gets it all the same."""

    carry_out: bool = False

    async def play(self, exchange: Exchange) -> None:
        if self.carry_out:
            await exchange.forward()
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class EndsAtOnce:
    """A watch is accepted and ends before its first event."""

    async def play(self, exchange: Exchange) -> None:
        answer = Answer(200, (("Content-Type", "application/json"),), b"")
        await exchange.write(answer.head(chunked=True), b"0\r\n\r\n")


# ---- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch on its way back. `object` is its object, {} where it has none."""

    asked: Asked
    type: str
    object: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The object's name, "" for a bookmark."""
        return str(self.object.get("metadata", {}).get("name", ""))


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one line: `lines` in its place, now or `delay_s` later, and whether the watch goes on after it.
    What is delayed is overtaken by what comes after it."""

    lines: tuple[bytes, ...] = ()
    delay_s: float = 0.0
    then: str = "go on"  # "go on" | "end" | "reset" | "silence"


class EventFault(Protocol):
    """What becomes of an event."""

    def fate(self, line: bytes) -> Fate:
        """The fate of one line."""
        ...


@dataclass(frozen=True, slots=True)
class Lost:
    """It never arrives."""

    def fate(self, line: bytes) -> Fate:
        del line
        return Fate()


@dataclass(frozen=True, slots=True)
class Doubled:
    """It arrives twice."""

    def fate(self, line: bytes) -> Fate:
        return Fate((line, line))


@dataclass(frozen=True, slots=True)
class Delayed:
    """It arrives later than what comes after it."""

    delay_s: float

    def fate(self, line: bytes) -> Fate:
        return Fate((line,), self.delay_s)


@dataclass(frozen=True, slots=True)
class Mangled:
    """A line arrives that is no JSON."""

    def fate(self, line: bytes) -> Fate:
        return Fate((line[: len(line) // 2] + b"}}",))


@dataclass(frozen=True, slots=True)
class Refused:
    """An ERROR event arrives in its place, and the watch ends, as with a version that is too old."""

    says: Says = TOO_OLD

    def fate(self, line: bytes) -> Fate:
        del line
        return Fate((json.dumps({"type": "ERROR", "object": self.says.status()}).encode(),), then="end")


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks in the middle of it."""

    def fate(self, line: bytes) -> Fate:
        return Fate((line[: len(line) // 2],), then="reset")


@dataclass(frozen=True, slots=True)
class Silence:
    """Neither it nor anything after it arrives, and the watch stays open."""

    def fate(self, line: bytes) -> Fate:
        del line
        return Fate(then="silence")

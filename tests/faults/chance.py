"""Faults at random from a seed: what a request meets depends on the seed, what is asked, and how often it was asked.

So one more request somewhere changes nothing elsewhere, and a printed seed plays the same faults to the same questions
again. Rates are shares of requests (or of events); what hangs does so for a bounded time, for the run has an end.

    RandomFaults(seed=7, rates={"reset-after": 0.02, "too-many": 0.05})
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults import faults
from tests.faults.exchange import Asked, Exchange
from tests.faults.faults import EventFault, Fault


@dataclass(frozen=True, slots=True)
class ShortHole:
    """A black hole that ends with a reset after a while: a run of an hour cannot wait for every client's patience."""

    seconds: float = 3.0
    carry_out: bool = False

    async def play(self, exchange: Exchange) -> None:
        hole = faults.BlackHole(self.carry_out)
        await faults.within(self.seconds, hole.play(exchange))
        exchange.reset()


#: Names are for settings and logs; a fault that fits only some requests is not played to others.
REQUEST_FAULTS: Mapping[str, Fault] = {
    "too-many": faults.Says(429, "TooManyRequests", retry_after_s=1),
    "too-many-without-time": faults.TOO_MANY,
    "conflict": faults.CONFLICT,
    "gone": faults.EXPIRED,
    "internal": faults.INTERNAL,
    "unavailable": faults.Gateway(503, retry_after_s=1),
    "gateway-timeout-after": faults.GatewayAfter(504),
    "forbidden-page": faults.Gateway(403),
    "unauthorized": faults.UNAUTHORIZED,
    "reset-before": faults.ResetBefore(),
    "reset-after": faults.ResetAfter(),
    "reset-in-body": faults.ResetInBody(),
    "end-in-body": faults.EndInBody(),
    "cut-json": faults.CutJson(),
    "short-list": faults.ShortList(),
    "garbage": faults.Garbage(),
    "drip": faults.Drip(pause_s=0.05),
    "delay": faults.Delay(delay_s=1.0),
    "hole": ShortHole(),
    "hole-after": ShortHole(carry_out=True),
    "watch-ends": faults.EndsAtOnce(),
}
EVENT_FAULTS: Mapping[str, EventFault] = {
    "event-lost": faults.Lost(),
    "event-doubled": faults.Doubled(),
    "event-delayed": faults.Delayed(delay_s=2.0),
    "event-mangled": faults.Mangled(),
    "event-gone": faults.Refused(),
    "watch-cut": faults.Cut(),
    "watch-silent": faults.Silence(),
}
#: Each fault about once in two hundred times: a request in ten meets something.
RATES: Mapping[str, float] = dict.fromkeys([*REQUEST_FAULTS, *EVENT_FAULTS], 0.005)


def fits(name: str, asked: Asked) -> bool:
    """Whether a fault makes sense for this request: what only lists or watches can meet, and what a watch cannot."""
    if name in ("gone", "short-list"):
        return asked.lists and "as=" not in dict(asked.headers).get("accept", "")
    if name == "watch-ends":
        return asked.watches
    if name == "conflict":
        return asked.writes
    # A watch has no whole answer to lose a part of: its faults are those of events.
    whole = ("after", "in-body", "cut-json", "garbage", "drip", "delay")
    return not (asked.watches and any(part in name for part in whole))


@dataclass(slots=True)
class RandomFaults:
    """Draws at these rates. `draws` counts how often each question was asked."""

    seed: int
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)
    draws: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rates) - set(REQUEST_FAULTS) - set(EVENT_FAULTS))
        if unknown:
            raise ValueError(f"no such faults: {', '.join(unknown)}")

    def of_request(self, asked: Asked) -> Fault | None:
        """The fault of this request, None for none."""
        names = [name for name in self.rates if name in REQUEST_FAULTS and fits(name, asked)]
        kind = "watch" if asked.watches else "list" if asked.lists else "one"
        drawn = self._draw(f"{kind} {asked.method} {asked.path}", names)
        return REQUEST_FAULTS[drawn] if drawn else None

    def of_event(self, event: faults.Event) -> EventFault | None:
        """The fault of this event, None for none."""
        names = [name for name in self.rates if name in EVENT_FAULTS]
        drawn = self._draw(f"event {event.asked.path} {event.type} {event.name}", names)
        return EVENT_FAULTS[drawn] if drawn else None

    def _draw(self, point: str, names: list[str]) -> str:
        count = self.draws.get(point, 0)
        self.draws[point] = count + 1
        digest = hashlib.sha256(f"{self.seed} {count} {point}".encode()).digest()
        number = int.from_bytes(digest[:7], "big") / 2**56
        for name in sorted(names):
            number -= self.rates[name]
            if number < 0:
                return name
        return ""

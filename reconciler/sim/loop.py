"""Virtual time: an asyncio event loop that never waits, and clocks over it.

The loop's selector adds the timeout to the time instead of sleeping, so a bake of thirty minutes takes as long as its
callbacks do, and the order of events depends on nothing outside the program. Executors run inline. What would let the
outside in (sockets, pipes, subprocesses, signals) is refused. A loop with nothing ready and nothing scheduled would
wait for ever: that is a `Deadlock`; one that goes round and round at one instant is a `Livelock`.

    async def nap() -> float:
        await asyncio.sleep(1800)
        return asyncio.get_running_loop().time()

    run(nap())    # 1800.0, at once
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from reconciler.core.model import Now
from reconciler.shell.ports import Timer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: 2026-01-05T08:00:00Z, a Monday morning: where simulated wall clocks start unless told otherwise.
WALL_START_S = 1_767_600_000.0
#: Rounds of the loop without time going on that are still taken for work.
ROUNDS_AT_ONE_INSTANT_MAX = 1_000_000


class Deadlock(RuntimeError):  # noqa: N818 - the field's word for it, and it is raised as a finding, not as a failure
    """Nothing is ready and nothing is scheduled: what is awaited can never happen."""


class Livelock(RuntimeError):  # noqa: N818 - as above
    """The loop turned a very great number of times without its time going on."""


class _VirtualSelector:
    """Stands where a loop has its I/O selector. `select` moves the loop's time to its next timer."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.move_time(timeout)
        return []

    def close(self) -> None:
        """There is nothing to close."""


class SimLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time. `start_s` is its time() at the start."""

    # What the base class keeps to itself and a loop of one's own has to know.
    _selector: _VirtualSelector
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float

    def __init__(self, start_s: float = 0.0) -> None:
        super().__init__()
        self._selector = _VirtualSelector(self)
        self._set_time(start_s)
        self._rounds = 0
        self._failure: BaseException | None = None
        self.set_exception_handler(lambda _loop, context: self._note(context))

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._time_s

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As the base class's, but a delay, however small, always lets time go on."""
        due_s = self._time_s + delay
        if delay > 0 and due_s <= self._time_s:
            due_s = math.nextafter(self._time_s, math.inf)
        return self.call_at(due_s, callback, *args, context=context)

    def _set_time(self, time_s: float) -> None:
        self._time_s = time_s
        # The base class fires what is due before time + resolution: with this one exactly what is due, nothing early.
        self._clock_resolution = math.ulp(time_s)

    def _note(self, context: dict[str, Any]) -> None:
        """The loop's exception handler. A callback that raised has nobody to tell, so the run ends with its error; a
        task's exception that nobody asked for is the business of whoever discarded the task."""
        if "handle" in context and self._failure is None:
            self._failure = context.get("exception")

    def move_time(self, timeout_s: float | None) -> None:
        """What waiting `timeout_s` for I/O comes to: nothing ever arrives, and the time goes on to the next timer."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if timeout_s is None:
            raise Deadlock(f"nothing is ready and nothing is scheduled at {self._time_s:.3f} s; {self._waiting()}")
        if timeout_s <= 0:
            self._rounds += 1
            if self._rounds > ROUNDS_AT_ONE_INSTANT_MAX:
                raise Livelock(f"{self._rounds} rounds at {self._time_s:.3f} s without time going on")
            return
        self._rounds = 0
        due_s = self._scheduled[0].when()
        # The timer's own time, not the sum: a sum may round to just before it, and the loop would turn for ever.
        self._set_time(due_s if due_s - self._time_s <= timeout_s else self._time_s + timeout_s)

    def _waiting(self) -> str:
        names = sorted(f"{task.get_name()} in {_place(task)}" for task in asyncio.all_tasks(self))
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        return f"waiting tasks: {shown}" if names else "no task is left"

    def _process_events(self, event_list: list[Any]) -> None:
        """Called by the base class with what `select` returned, which is nothing."""

    def _write_to_self(self) -> None:
        """Called by call_soon_threadsafe to wake a sleeping selector; this one never sleeps."""

    def run_in_executor(  # type: ignore[override]  # the base class overloads by executor; here every one is inline
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call `func` at once and return its outcome as a finished future."""
        del executor
        outcome: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a real executor hands every exception to the future, too
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
        return outcome


def _place(task: asyncio.Task[Any]) -> str:
    """Where `task` waits: the innermost frame of its own."""
    frames = task.get_stack(limit=1)
    if not frames:
        return "?"
    code = frames[-1].f_code
    return f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}:{frames[-1].f_lineno}"


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(_loop: SimLoop, *_args: object, **_named: object) -> NoReturn:
        raise RuntimeError(f"{name} reaches outside the simulation; give the code a port to go through")

    return refuse


# Everything of a loop that reaches outside the process, or lets the outside in.
_OUTSIDE = """
    add_reader add_writer remove_reader remove_writer add_signal_handler remove_signal_handler
    sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto
    sock_sendfile sendfile start_tls getaddrinfo getnameinfo
    create_connection create_server create_datagram_endpoint create_unix_connection create_unix_server
    connect_accepted_socket connect_read_pipe connect_write_pipe subprocess_exec subprocess_shell
"""
for _name in _OUTSIDE.split():
    setattr(SimLoop, _name, _refusing(_name))


def run(main: Coroutine[Any, Any, T], *, start_s: float = 0.0) -> T:
    """Run `main` to its end on a loop of its own; tasks it leaves behind are cancelled, as by asyncio.run."""
    with asyncio.Runner(loop_factory=lambda: SimLoop(start_s)) as runner:
        return runner.run(main)


class SimClock:
    """The policy clock over a SimLoop: `monotonic` counts from this boot, and `jump_wall` moves the wall clock alone.

    `boot_at_s` is the loop's time at which the boot counts as begun (now, if not given)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        wall_start_s: float = WALL_START_S,
        boot: int = 1,
        boot_at_s: float | None = None,
    ) -> None:
        self._loop = loop
        self._wall_offset_s = wall_start_s
        self._boot_at_s = loop.time() if boot_at_s is None else boot_at_s
        self.boot = boot

    def now(self) -> Now:
        time_s = self._loop.time()
        return Now(self._wall_offset_s + time_s, time_s - self._boot_at_s, self.boot)

    def call_at(self, monotonic_s: float, callback: Callable[[], None]) -> Timer:
        due_s = self._boot_at_s + monotonic_s
        while due_s - self._boot_at_s < monotonic_s:
            # The sum was rounded down. Seen by this clock a timer is never early, or whoever asks "is it due yet?" and
            # sets the same timer again would do so for ever.
            due_s = math.nextafter(due_s, math.inf)
        return self._loop.call_at(due_s, callback)

    def jump_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock; the monotonic one does not notice."""
        self._wall_offset_s += seconds

    def rebooted(self, boot: int) -> SimClock:
        """The clock of the next boot: the same wall clock, a monotonic one that starts again at zero."""
        return SimClock(self._loop, wall_start_s=self._wall_offset_s, boot=boot)


class _SteppedTimer:
    """A pending call of a SteppedClock. Timers of one moment fire in the order they were set."""

    __slots__ = ("callback", "due_s", "number")

    def __init__(self, due_s: float, number: int, callback: Callable[[], None]) -> None:
        self.due_s = due_s
        self.number = number
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: _SteppedTimer) -> bool:
        return (self.due_s, self.number) < (other.due_s, other.number)

    def cancel(self) -> None:
        self.callback = None


class SteppedClock:
    """A policy clock for a real event loop: its time stands still until `advance_to` moves it.

    The demo lives on it: HTTP and Git take the time they take, while bakes, deadlines and simulated operators go by
    this clock, stepped from timer to timer whenever everything has come to rest. Not for use from several threads."""

    def __init__(self, *, wall_start_s: float = WALL_START_S, boot: int = 1) -> None:
        self._wall_start_s = wall_start_s
        self._monotonic_s = 0.0
        self._timers: list[_SteppedTimer] = []
        self._number = 0
        self.boot = boot

    def now(self) -> Now:
        return Now(self._wall_start_s + self._monotonic_s, self._monotonic_s, self.boot)

    def call_at(self, monotonic_s: float, callback: Callable[[], None]) -> Timer:
        """Set a timer. One that is due already fires in the running loop's next round."""
        self._number += 1
        timer = _SteppedTimer(max(monotonic_s, self._monotonic_s), self._number, callback)
        heapq.heappush(self._timers, timer)
        if timer.due_s <= self._monotonic_s:
            asyncio.get_running_loop().call_soon(self.fire_due)
        return timer

    def next_timer(self) -> float | None:
        """When the earliest pending timer is due (not later than now: something waits to fire), or None."""
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0].due_s if self._timers else None

    def fire_due(self) -> int:
        """Fire what is due at the present moment, and what that makes due; returns how many fired."""
        fired = 0
        while (due_s := self.next_timer()) is not None and due_s <= self._monotonic_s:
            timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
                fired += 1
            if fired > ROUNDS_AT_ONE_INSTANT_MAX:
                raise Livelock(f"{fired} timers fired at {self._monotonic_s:.3f} s without time going on")
        return fired

    def advance_to(self, monotonic_s: float) -> int:
        """Move on to `monotonic_s`, stopping at every timer on the way; returns how many fired. Never goes back."""
        if monotonic_s < self._monotonic_s:
            raise ValueError(f"the clock is at {self._monotonic_s} s and does not go back to {monotonic_s} s")
        fired = self.fire_due()
        while (due_s := self.next_timer()) is not None and due_s <= monotonic_s:
            self._monotonic_s = due_s
            fired += self.fire_due()
        self._monotonic_s = monotonic_s
        return fired

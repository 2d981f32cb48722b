"""A process for what may take for ever, all memory, or its own process with it: expressions from Git.

One function over bytes, named as `module:name`, runs in a child (worker_child.py) that is started when it is first
needed, and again after it had to be ended. A batch of items is one request; each item has its own limits, so that a
hostile one costs itself and not its neighbours:

    workers = Workers("reconciler.core.health_cel:answer", executors, monotonic=time.monotonic)
    await workers.evaluate([request, hostile, another])
    [b'{"rule":0,...}', Reason("EvaluationTimedOut", "..."), b'{"rule":null,...}']

Processor time is what counts, and the kernel sees to it: a machine under load ends nobody. The deadline in real time
is for a child that neither works nor answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import IO

from reconciler.core.model import Reason
from reconciler.core.values import clean_text
from reconciler.shell.worker_child import FAILED, LENGTH, OK, packed

_CHUNK_BYTES = 65536
_FAILED_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What one item may take: seconds of processor time, seconds in all, bytes of memory, of itself and of its answer;
    and how long a child may take to start. After `ended_max` items of a request that had to be ended the
    rest is not tried."""

    cpu_s: float = 1.0
    deadline_s: float = 20.0
    memory_bytes: int = 512 * 1024 * 1024
    item_bytes_max: int = 2 * 1024 * 1024
    answer_bytes_max: int = 64 * 1024
    start_s: float = 60.0
    ended_max: int = 3


DEFAULT_LIMITS = WorkerLimits()

Answer = bytes | Reason


class _EndedError(Exception):
    """The child ended, or has to be ended. `timed_out` is True if the item it was at used up its time."""

    def __init__(self, message: str, *, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(slots=True)
class Worker:
    """One child at a time, and the requests to it, one after the other. Called from one thread; `kill` from any."""

    function: str
    monotonic: Callable[[], float]
    limits: WorkerLimits = DEFAULT_LIMITS
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _received: bytearray = field(default_factory=bytearray, init=False)
    _closed: bool = field(default=False, init=False)

    def run(self, items: Sequence[bytes]) -> list[Answer]:
        """An answer for each item, in their order. What ends the child is the answer of the item it was at; the others
        go on in a new one. A child that dies without having used up its time may have been ended by somebody else, so
        that its item is tried once more."""
        limit = self.limits.item_bytes_max
        answers: list[Answer | None] = [_too_large(len(item), limit) if len(item) > limit else None for item in items]
        waiting = [index for index, known in enumerate(answers) if known is None]
        retried: int | None = None
        ended_count = 0
        while waiting:
            if ended_count >= self.limits.ended_max:
                reason = Reason("EvaluationSuspended", f"{ended_count} items of its request had to be ended")
                for index in waiting:
                    answers[index] = reason
                break
            try:
                process = self._running()
            except (OSError, _EndedError) as error:
                reason = Reason("EvaluatorUnavailable", clean_text(f"the evaluator does not start: {error}"))
                for index in waiting:
                    answers[index] = reason
                break
            try:
                self._send(process, packed([items[index] for index in waiting]))
                while waiting:
                    answers[waiting[0]] = self._answer(process)
                    del waiting[0]
            except _EndedError as ended:
                self.kill()
                index = waiting[0]
                if ended.timed_out or retried == index:
                    code = "EvaluationTimedOut" if ended.timed_out else "EvaluationCrashed"
                    answers[index] = Reason(code, str(ended))
                    ended_count += 1
                    del waiting[0]
                else:
                    retried = index
        return [answer for answer in answers if answer is not None]

    def kill(self) -> None:
        """End the child and all that is left of it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def close(self) -> None:
        """End the child for good. A call that waits for it comes back with EvaluatorUnavailable."""
        self._closed = True
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    # ---- the child ---------------------------------------------------------------------------------------------

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise _EndedError("the daemon is being stopped", timed_out=False)
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        self._received.clear()
        self._process = self._start()
        try:
            self._frame(self._process, self.limits.start_s)
        except _EndedError:
            self.kill()
            raise
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        limits = self.limits
        numbers = map(str, (limits.cpu_s, limits.deadline_s, limits.memory_bytes, limits.answer_bytes_max))
        # Nothing of our environment goes along: tokens may stand in it.
        environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(  # noqa: S603 - our own program with our own arguments
            [sys.executable, "-P", "-m", "reconciler.shell.worker_child", self.function, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        return process

    def _send(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        assert process.stdin is not None
        data = memoryview(content)
        until_s = self.monotonic() + self.limits.deadline_s
        while data:
            self._wait(process.stdin, selectors.EVENT_WRITE, until_s)
            try:
                data = data[os.write(process.stdin.fileno(), data[:_CHUNK_BYTES]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended(process) from None

    def _answer(self, process: subprocess.Popen[bytes]) -> Answer:
        content = self._frame(process, self.limits.deadline_s)
        if content[:1] == OK:
            return content[1:]
        if content[:1] == FAILED:
            return Reason("EvaluationFailed", clean_text(content[1:].decode(errors="replace")))
        return Reason("EvaluationTooLarge", f"it gives more than {self.limits.answer_bytes_max} bytes")

    def _frame(self, process: subprocess.Popen[bytes], within_s: float) -> bytes:
        """The next frame that the child says."""
        until_s = self.monotonic() + within_s
        head = self._bytes(process, LENGTH.size, until_s)
        (length,) = LENGTH.unpack(head)
        if length > max(self.limits.answer_bytes_max, _FAILED_BYTES_MAX) + 1:
            raise _EndedError(f"the evaluator says {length} bytes at once", timed_out=False)
        return self._bytes(process, length, until_s)

    def _bytes(self, process: subprocess.Popen[bytes], count: int, until_s: float) -> bytes:
        assert process.stdout is not None
        while len(self._received) < count:
            self._wait(process.stdout, selectors.EVENT_READ, until_s)
            try:
                part = os.read(process.stdout.fileno(), _CHUNK_BYTES)
            except BlockingIOError:
                continue
            if not part:
                raise self._ended(process)
            self._received += part
        found = bytes(self._received[:count])
        del self._received[:count]
        return found

    def _wait(self, pipe: IO[bytes], what: int, until_s: float) -> None:
        if self._closed:
            raise _EndedError("the daemon is being stopped", timed_out=False)
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, what)
            if not selector.select(max(0.0, until_s - self.monotonic())):
                raise _EndedError(f"no answer within {self.limits.deadline_s:g} s", timed_out=True)

    def _ended(self, process: subprocess.Popen[bytes]) -> _EndedError:
        """Why the child is no more: its output has ended, so that it is ending if it has not yet."""
        try:
            status = process.wait(self.limits.deadline_s)
        except subprocess.TimeoutExpired:
            return _EndedError("the evaluator closed its output", timed_out=False)
        if status == -signal.SIGPROF:
            return _EndedError(f"it takes more than {self.limits.cpu_s:g} s of processor time", timed_out=True)
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return _EndedError(f"the evaluator ended with {how}: too much memory, or a fault in it", timed_out=False)


def _too_large(size: int, limit: int) -> Reason:
    return Reason("EvaluationTooLarge", f"it has {size} bytes: at most {limit} are evaluated")


class Workers:
    """Evaluator of production: one child for each executor, which has one thread."""

    def __init__(
        self,
        function: str,
        executors: Sequence[Executor],
        *,
        monotonic: Callable[[], float],
        limits: WorkerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._workers = [Worker(function, monotonic, limits) for _ in executors]
        self._executors = executors
        self._busy = [0 for _ in executors]

    async def evaluate(self, items: Sequence[bytes]) -> list[Answer]:
        """See Evaluator.evaluate: by the child that has least to do."""
        if not items:
            return []
        index = self._busy.index(min(self._busy))
        self._busy[index] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executors[index], self._workers[index].run, list(items))
        finally:
            self._busy[index] -= 1

    async def close(self) -> None:
        """End all children. What still waits for one comes back without an answer."""
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.close()
        for worker, executor in zip(self._workers, self._executors, strict=True):
            await loop.run_in_executor(executor, worker.kill)

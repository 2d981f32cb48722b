"""The other end of shell/worker.py: the process in which one function runs over what strangers wrote.

It has no secrets in its environment, cannot grow or write files, and the kernel ends it when an item needs more
processor time than it may: code that holds Python's lock cannot be asked to stop. When its parent is gone, whatever of,
it reads the end of its input and ends; the kernel's clock sees to it that it comes to that.

    python -P -m reconciler.shell.worker_child reconciler.core.health_cel:answer 1.0 20.0 536870912 65536

A request is one frame with the items in it, an answer one frame for each; a frame is its length in four bytes and then
its content. The content of an answer begins with OK or FAILED.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

LENGTH = struct.Struct(">I")
OK, FAILED, TOO_LARGE = b"+", b"-", b"#"
#: Files that a worker may open: what Python itself has open, and a few modules more.
_FILES_MAX = 64
_ERROR_LENGTH_MAX = 300

Function = Callable[[bytes], bytes]


class _Limits(NamedTuple):
    cpu_s: float
    deadline_s: float
    answer_bytes_max: int


def packed(items: list[bytes]) -> bytes:
    """A request: the items, each with its length, as one frame."""
    body = b"".join(LENGTH.pack(len(item)) + item for item in items)
    return LENGTH.pack(len(body)) + body


def unpacked(body: bytes) -> Iterator[bytes]:
    """The items of a request without its own length."""
    at = 0
    while at < len(body):
        (length,) = LENGTH.unpack_from(body, at)
        at += LENGTH.size
        yield body[at : at + length]
        at += length


def _read(count: int) -> bytes:
    """Exactly so many bytes of the input; fewer at its end."""
    found = bytearray()
    while len(found) < count:
        part = os.read(0, count - len(found))
        if not part:
            break
        found += part
    return bytes(found)


def _write(out: int, content: bytes) -> None:
    data = memoryview(LENGTH.pack(len(content)) + content)
    while data:
        data = data[os.write(out, data) :]


def _limit(memory_bytes: int) -> None:
    """What this process may use from now on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


def _answer(function: Function, item: bytes, limits: _Limits) -> bytes:
    """What the function gives for one item, under the processor's clock, and the wall's for one that only waits."""
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
    signal.setitimer(signal.ITIMER_REAL, 2 * limits.deadline_s)
    try:
        found = function(item)
    except Exception as error:  # noqa: BLE001 - it is told to whoever asked
        return FAILED + f"{type(error).__name__}: {error}"[:_ERROR_LENGTH_MAX].encode()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return TOO_LARGE if len(found) > limits.answer_bytes_max else OK + found


def main(arguments: list[str]) -> int:
    """Answer requests until the input ends. An empty first frame says that everything is loaded."""
    name, cpu_s, deadline_s, memory_bytes, answer_bytes_max = arguments
    limits = _Limits(float(cpu_s), float(deadline_s), int(answer_bytes_max))
    module, _, attribute = name.partition(":")
    function: Function = getattr(importlib.import_module(module), attribute)
    out = os.dup(1)
    os.dup2(2, 1)  # what the function prints is no answer
    _limit(int(memory_bytes))
    _write(out, b"")
    while len(head := _read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        body = _read(length)
        if len(body) < length:
            break
        for item in unpacked(body):
            _write(out, _answer(function, item, limits))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more

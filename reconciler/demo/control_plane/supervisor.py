"""The supervisor: one process that owns a control plane's programs for as long as somebody holds it.

Demos and tests get killed, workers of one test run share a control plane, and an API server whose etcd is gone does not
end on SIGTERM. So nobody starts the programs directly: `plane.py` starts this supervisor, which starts etcd, then the
API server (and the controller manager when asked), writes `ready.json`, and counts the connections to its socket. A
connection is a hold; the kernel closes it however its owner ends. When the last hold is gone, be it before everything
has started, the programs are stopped, the API server before etcd, and the directory is removed. Should the supervisor
itself be killed, Linux ends the programs with it (PR_SET_PDEATHSIG).

A holder may also say a line, `stop kube-apiserver` say, and gets a line back: tests of outages stop, kill, pause,
resume and start programs, each by its name. A program that was stopped on somebody's word is not one that ended by
itself.

Example: `python supervisor.py DIRECTORY` with `DIRECTORY/plan.json` written by `plane.py`. It imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time  # noqa: TID251 - it looks after real programs
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

READY_WITHIN_S = 120.0
FIRST_HOLD_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
LOOK_EVERY_S = 0.05
PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """A program did not come up; the message has the end of its log."""


def die_with_parent() -> Callable[[], None] | None:
    """A hook for the child of a fork that asks Linux to end it with its parent; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return ask


class Programs:
    """The running programs, in the order they were started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.plan: list[dict[str, Any]] = []

    def order(self, words: str, holds: Holds) -> str:
        """Carry out "VERB PROGRAM" (start, stop, kill, pause, resume); what became of it."""
        verb, _, name = words.strip().partition(" ")
        entry = next((entry for entry in self.plan if entry["name"] == name), None)
        child = next((child for other, child in self.running if other == name), None)
        if entry is None or (child is None) != (verb == "start"):
            return f"cannot {words.strip()!r}"
        if child is None:
            # Beside what was started since: programs are stopped in the reverse order of the plan.
            start_one(entry, self, holds)
            names = [entry["name"] for entry in self.plan]
            self.running.sort(key=lambda pair: names.index(pair[0]))
        elif verb in ("pause", "resume"):
            child.send_signal(signal.SIGSTOP if verb == "pause" else signal.SIGCONT)
        else:
            self.running.remove((name, child))
            child.send_signal(signal.SIGTERM if verb == "stop" else signal.SIGKILL)
            end(child)
        return "done"

    def start(self, name: str, command: list[str]) -> None:
        """Start one program with its log beside it."""
        with (self.directory / f"{name}.log").open("ab") as log:
            # preexec_fn is safe here: this process has one thread.
            child = subprocess.Popen(  # noqa: S603 - plan.json is written by plane.py
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 (this process has a single thread)
            )
        self.running.append((name, child))

    def ended(self) -> str | None:
        """The name of a program that ended by itself."""
        return next((name for name, child in self.running if child.poll() is not None), None)

    def log_tail(self, name: str) -> str:
        """The last lines of a program's log."""
        text = (self.directory / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-15:])

    def stop(self) -> None:
        """Stop in reverse order, each ended before the next is asked: the API server needs its etcd to end in order."""
        for _, child in reversed(self.running):
            # A paused program ends only when it goes on.
            child.send_signal(signal.SIGCONT)
            child.terminate()
            end(child)
        self.running = []


def end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a program that was asked to end, and end it when it does not."""
    try:
        child.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class Holds:
    """The connections to the supervisor's socket."""

    def __init__(self, listener: socket.socket, programs: Programs) -> None:
        self._listener = listener
        self._programs = programs
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._open: set[socket.socket] = set()
        self._had_any = False
        self._give_up_at = time.monotonic() + FIRST_HOLD_WITHIN_S
        self.last: socket.socket | None = None
        """The connection of the last hold, once it is gone: its owner waits for its end, which says that everything
        has stopped."""

    @property
    def gone(self) -> bool:
        """True if the last hold is gone, or none came in time."""
        return not self._open and (self._had_any or time.monotonic() > self._give_up_at)

    def poll(self, timeout_s: float) -> None:
        """Take in who came and who went, waiting at most so long for it."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                connection, _ = self._listener.accept()
                self._selector.register(connection, selectors.EVENT_READ)
                self._open.add(connection)
                self._had_any = True
                continue
            held = key.fileobj
            assert isinstance(held, socket.socket)
            words = held.recv(64)
            if words:
                self._obey(held, words)
            else:
                self._selector.unregister(held)
                self._open.discard(held)
                self.last = held
                if self._open:
                    held.close()

    def _obey(self, held: socket.socket, words: bytes) -> None:
        """Carry out what a holder says, and answer; whoever has gone meanwhile gets no answer."""
        try:
            answer = self._programs.order(words.decode(), self)
        except StartError as problem:
            answer = " ".join(str(problem).split())
        with contextlib.suppress(OSError):
            held.sendall(answer.encode()[:1000] + b"\n")


def wait_until(what: str, answers: Callable[[], bool], programs: Programs, holds: Holds) -> bool:
    """Poll until the question is answered with yes, a program ends or the time is up. False: nobody waits any more."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not answers():
        ended = programs.ended()
        if ended is not None:
            raise StartError(f"{ended} ended:\n{programs.log_tail(ended)}")
        if time.monotonic() > deadline:
            name = programs.running[-1][0]
            raise StartError(f"{what} not ready after {READY_WITHIN_S:.0f} s:\n{programs.log_tail(name)}")
        holds.poll(LOOK_EVERY_S)
        if holds.gone:
            return False
    return True


def answers_ok(url: str, ca_file: Path | None, token: str | None) -> bool:
    """Whether a GET of the address answers 200; an absent certificate file means the server is still starting."""
    address = urlsplit(url)
    connection: http.client.HTTPConnection | None = None
    try:
        if ca_file is None:
            connection = http.client.HTTPConnection(address.netloc, timeout=5)
        else:
            context = ssl.create_default_context(cafile=str(ca_file))
            connection = http.client.HTTPSConnection(address.netloc, timeout=5, context=context)
        connection.request("GET", address.path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        if connection is not None:
            connection.close()


def start_one(entry: dict[str, Any], programs: Programs, holds: Holds) -> bool:
    """Start one program and wait until it answers at its health address. False: nobody waits any more."""
    programs.start(entry["name"], entry["command"])
    ca_file = Path(entry["ca_file"]) if entry["ca_file"] else None
    return wait_until(entry["name"], lambda: answers_ok(entry["ready_url"], ca_file, entry["token"]), programs, holds)


def start_all(plan: dict[str, list[dict[str, Any]]], programs: Programs, holds: Holds) -> None:
    """Start what the plan lists, each program after the one before answers at its health address, as long as somebody
    waits for it."""
    programs.plan = plan["programs"]
    for entry in programs.plan:
        if not start_one(entry, programs, holds):
            return


def serve_holds(holds: Holds, programs: Programs) -> None:
    """Return when the last hold is gone, when none came in time, or when a program ended by itself."""
    while programs.ended() is None and not holds.gone:
        holds.poll(1.0)


def stop_on_signal(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends the supervisor in order: the exception runs `main`'s finally block."""
    raise SystemExit(143)


def tell(directory: Path, problem: str | None) -> None:
    """Write how the start went, whole or not at all."""
    draft = directory / "ready.new"
    draft.write_text(json.dumps({"error": problem}))
    draft.rename(directory / "ready.json")


def detach() -> None:
    """Leave the starter: it must neither wait for us nor leave us a zombie."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()


def main() -> int:
    """Start, tell, hold, stop, clean up."""
    directory = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, stop_on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = json.loads((directory / "plan.json").read_text())
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / "hold"))
    listener.listen(64)
    detach()
    programs = Programs(directory)
    holds = Holds(listener, programs)
    try:
        try:
            start_all(plan, programs, holds)
        except StartError as problem:
            programs.stop()
            tell(directory, str(problem))
        else:
            tell(directory, None)
        serve_holds(holds, programs)
    finally:
        programs.stop()
        listener.close()
        shutil.rmtree(directory, ignore_errors=True)
        if holds.last is not None:
            holds.last.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

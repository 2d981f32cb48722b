"""The supervisor: one process that owns a control plane's programs for as long as somebody holds it.

Tests get killed, workers of one test run share a control plane, and an API server whose etcd is gone does not end on
SIGTERM. So nobody starts the programs directly: `server.py` starts this supervisor, which starts etcd, then the API
server (and the controller manager when asked), writes `ready.json`, and counts the connections to its socket. A
connection is a hold; the kernel closes it however its owner ends. When the last hold is gone the programs are
stopped, the API server before etcd, and the directory is removed. Should the supervisor itself be killed, Linux ends
the programs with it (PR_SET_PDEATHSIG).

A holder may also say a line, `stop kube-apiserver` say, and gets a line back: tests of outages stop, kill, pause,
resume and start programs, each by its name. A program that was stopped on somebody's word is not one that ended by
itself.

Example: `python -m tests.control_plane.supervisor DIRECTORY` with `DIRECTORY/plan.json` written by `server.py`.
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
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

READY_WITHIN_S = 120.0
FIRST_HOLD_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
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

    def order(self, words: str) -> str:
        """Carry out "VERB PROGRAM" (start, stop, kill, pause, resume); what became of it."""
        verb, _, name = words.strip().partition(" ")
        entry = next((entry for entry in self.plan if entry["name"] == name), None)
        child = next((child for other, child in self.running if other == name), None)
        if entry is None or (child is None) != (verb == "start"):
            return f"cannot {words.strip()!r}"
        if child is None:
            # Beside what was started since: programs are stopped in the reverse order of the plan.
            start_one(entry, self)
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
            child = subprocess.Popen(
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


def wait_until(what: str, answers: Callable[[], bool], programs: Programs) -> None:
    """Poll until the question is answered with yes, a program ends or the time is up."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not answers():
        ended = programs.ended()
        if ended is not None:
            raise StartError(f"{ended} ended:\n{programs.log_tail(ended)}")
        if time.monotonic() > deadline:
            name = programs.running[-1][0]
            raise StartError(f"{what} not ready after {READY_WITHIN_S:.0f} s:\n{programs.log_tail(name)}")
        time.sleep(0.05)


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


def start_one(entry: dict[str, Any], programs: Programs) -> None:
    """Start one program and wait until it answers at its health address."""
    programs.start(entry["name"], entry["command"])
    ca_file = Path(entry["ca_file"]) if entry["ca_file"] else None
    wait_until(entry["name"], lambda: answers_ok(entry["ready_url"], ca_file, entry["token"]), programs)


def start_all(plan: dict[str, list[dict[str, Any]]], programs: Programs) -> None:
    """Start what the plan lists, each program after the one before answers at its health address."""
    programs.plan = plan["programs"]
    for entry in programs.plan:
        start_one(entry, programs)


def obey(held: socket.socket, words: bytes, programs: Programs) -> None:
    """Carry out what a holder says, and answer; whoever has gone meanwhile gets no answer."""
    try:
        answer = programs.order(words.decode())
    except StartError as problem:
        answer = " ".join(str(problem).split())
    with contextlib.suppress(OSError):
        held.sendall(answer.encode()[:1000] + b"\n")


def serve_holds(listener: socket.socket, programs: Programs) -> socket.socket | None:
    """Return when the last hold is gone, when none came in time, or when a program ended by itself.

    The last hold's connection is returned open: its owner waits for its end, which says that everything has stopped."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    holds: set[socket.socket] = set()
    give_up_at = time.monotonic() + FIRST_HOLD_WITHIN_S
    had_any = False
    last: socket.socket | None = None
    while programs.ended() is None:
        for key, _ in selector.select(timeout=1.0):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
                holds.add(connection)
                had_any = True
                continue
            held = key.fileobj
            assert isinstance(held, socket.socket)
            words = held.recv(64)
            if words:
                obey(held, words, programs)
            else:
                selector.unregister(held)
                holds.discard(held)
                last = held
                if holds:
                    held.close()
        if not holds and (had_any or time.monotonic() > give_up_at):
            return last
    return None


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
    last: socket.socket | None = None
    try:
        try:
            start_all(plan, programs)
        except StartError as problem:
            programs.stop()
            tell(directory, str(problem))
        else:
            tell(directory, None)
        last = serve_holds(listener, programs)
    finally:
        programs.stop()
        listener.close()
        shutil.rmtree(directory, ignore_errors=True)
        if last is not None:
            last.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

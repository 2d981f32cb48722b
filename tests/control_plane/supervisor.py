"""The supervisor: one process that owns a control plane's programs for as long as somebody holds it.

Tests get killed, workers of one test run share a control plane, and an API server whose etcd is gone does not end on
SIGTERM. So nobody starts the programs directly: `server.py` starts this supervisor, which starts etcd, then the API
server (and the controller manager when asked), writes `ready.json`, and counts the connections to its socket. A
connection is a hold; the kernel closes it however its owner ends. When the last hold is gone the programs are
stopped, the API server before etcd, and the directory is removed. Should the supervisor itself be killed, Linux ends
the programs with it (PR_SET_PDEATHSIG).

Example: `python -m tests.control_plane.supervisor DIRECTORY` with `DIRECTORY/plan.json` written by `server.py`.
"""

from __future__ import annotations

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

    def start(self, name: str, command: list[str]) -> None:
        """Start one program with its log beside it."""
        with (self.directory / f"{name}.log").open("wb") as log:
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
            child.terminate()
            try:
                child.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.running = []


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


def start_all(plan: dict[str, object], programs: Programs) -> None:
    """Start what the plan lists, each program after the one before answers at its health address."""
    entries = plan["programs"]
    assert isinstance(entries, list)
    for entry in entries:
        programs.start(entry["name"], entry["command"])
        ca_file = Path(entry["ca_file"]) if entry["ca_file"] else None

        def ready(url: str = entry["ready_url"], ca: Path | None = ca_file, token: str | None = entry["token"]) -> bool:
            return answers_ok(url, ca, token)

        wait_until(entry["name"], ready, programs)


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
            if not held.recv(64):
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

"""Running git: one isolated environment, a deadline on every call, bounded output, errors in our own words.

GitPython starts the program and keeps arguments away from a shell; nothing else of it is used, for its object database
and its URL handling do more than we want (design/0005-git.md). Every process leads a session of its own, so that a call
that is too slow, too large or no longer wanted is killed together with the transport helpers it started. Credentials
travel in the environment, never in arguments, and are removed from whatever git says.

    git = GitCommand(directory, environment(home, ("https",)), monotonic=time.monotonic)
    git.run(["ls-remote", "--", url, "refs/heads/main"], timeout_s=30, output_bytes_max=65536)
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reconciler.shell.ports import SourceError

if TYPE_CHECKING:
    from git.cmd import Git

#: How often a running call looks whether it was cancelled or grew too large.
TICK_S = 0.25
_CHUNK_BYTES = 65536
_STDERR_BYTES_MAX = 8192
_MESSAGE_LENGTH_MAX = 300
#: GIT_CONFIG_GLOBAL (2.32) is the youngest thing that the isolation depends on.
_GIT_VERSION_MIN = (2, 32)

#: Given to every git process as configuration of the highest rank: no repository's own configuration overrides it.
BASE_CONFIG: tuple[tuple[str, str], ...] = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.bigFileThreshold", "16m"),  # larger blobs are streamed, not held in memory
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("maintenance.auto", "false"),
    ("gc.autoDetach", "false"),
    ("http.followRedirects", "false"),  # a redirect could lead to an address that the allow-list refuses
    ("http.sslVerify", "true"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
    ("advice.detachedHead", "false"),
)

#: Inherited names that would undo the isolation, or that are none of git's business.
_FORGOTTEN_PREFIXES = ("GIT_", "RECONCILER_")
_FORGOTTEN_NAMES = frozenset({"SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "XDG_CONFIG_HOME", "EMAIL"})

#: What git, curl and ssh say, in the order to look for it, and what it means for us.
_ERRORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("RefusedUrl", (r"transport '[^']*' not allowed", r"protocol '?[^']*'? (is )?not (allowed|supported)")),
    ("RefusedRedirect", (r"unable to update url base from redirection", r"returned error: 30[12378]")),
    ("HostKeyRefused", (r"Host key verification failed", r"host key .* has changed")),
    (
        "AuthenticationFailed",
        (
            r"Authentication failed",
            r"could not read (Username|Password)",
            r"Permission denied",
            r"returned error: 40[137]",
            r"access denied",
            r"Invalid username",
        ),
    ),
    ("RefNotFound", (r"couldn't find remote ref",)),
    ("StorageFailed", (r"No space left on device", r"Disk quota exceeded", r"Read-only file system")),
    (
        "CorruptMirror",
        (
            r"bad object",
            r"bad tree",
            r"not a tree object",
            r"not a valid object",
            r"invalid object",
            r"unable to read tree",
            r"missing blob",
            r"object file .* is empty",
            r"inflate: data stream error",
            r"corrupt",
            r"unresolved deltas",
            r"index file .* is too small",
            r"packfile .* cannot be accessed",
            r"not a git repository: '?/",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Output:
    """What a call said. `truncated` is True if it was ended because it said more than it was allowed to."""

    status: int
    stdout: bytes
    stderr: str
    truncated: bool = False


def environment(
    home: Path,
    protocols: Collection[str],
    *,
    config: Sequence[tuple[str, str]] = (),
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The isolated environment of git: no configuration but ours, no prompt, only `protocols`. `home` is an empty
    directory of our own."""
    pairs = (*BASE_CONFIG, *config)
    values = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",  # empty: no program is asked, and SSH_ASKPASS is not looked at either
        "GIT_ALLOW_PROTOCOL": ":".join(sorted(protocols)) or "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_PAGER": "cat",
        "GIT_CONFIG_COUNT": str(len(pairs)),
        "LC_ALL": "C",
    }
    for index, (key, value) in enumerate(pairs):
        values[f"GIT_CONFIG_KEY_{index}"] = key
        values[f"GIT_CONFIG_VALUE_{index}"] = value
    return values | dict(extra or {})


def clean(text: str, secrets: Collection[str] = ()) -> str:
    """`text` of git or a remote, fit for people and logs: no credential, no control character, bounded, one line."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", "", line).strip() for line in text.splitlines()]
    text = "; ".join(line for line in lines if line)
    return text if len(text) <= _MESSAGE_LENGTH_MAX else text[: _MESSAGE_LENGTH_MAX - 1] + "…"


def error_of(
    stderr: str, action: str, secrets: Collection[str] = (), default: str = "RepositoryUnreachable"
) -> SourceError:
    """git's complaint as a SourceError: the first row of the table that fits, else `default`."""
    lines = stderr.splitlines()
    # What the other end says is shown, but decides nothing.
    own = "\n".join(line for line in lines if not line.startswith("remote:"))
    code = next(
        (code for code, patterns in _ERRORS if any(re.search(pattern, own, re.IGNORECASE) for pattern in patterns)),
        default,
    )
    return SourceError(code, f"{action}: {clean(chr(10).join(lines[:6]), secrets) or 'git gave no reason'}")


class GitCommand:
    """Runs git with one environment in one directory; used by one thread at a time. `cancel` may come from another."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        monotonic: Callable[[], float],
        secrets: Collection[str] = (),
    ) -> None:
        self.directory = directory
        self.secrets = tuple(secrets)
        self._environment = dict(environment)
        self._monotonic = monotonic
        self._cancelled = False

    def cancel(self) -> None:
        """End what runs within a tick, and start nothing more: SourceError Closed."""
        self._cancelled = True

    def deadline(self, timeout_s: float) -> float:
        """The moment `timeout_s` from now, for `check`."""
        return self._monotonic() + timeout_s

    def check(self, deadline: float, action: str) -> float:
        """Seconds left; raises SourceError Timeout or Closed."""
        if self._cancelled:
            raise SourceError("Closed", f"{action}: given up, the source is being closed")
        left_s = deadline - self._monotonic()
        if left_s <= 0:
            raise SourceError("Timeout", f"{action}: took too long and was ended")
        return left_s

    def run(
        self,
        arguments: Sequence[str],
        *,
        action: str,
        timeout_s: float,
        output_bytes_max: int = 1 << 20,
        extra: Mapping[str, str] | None = None,
        watch: Callable[[], None] | None = None,
    ) -> Output:
        """Run `git ARGUMENTS` to its end. `action` says for people what is being done; `watch` is called every tick
        and may raise to end it. Output over `output_bytes_max` ends the process. Raises SourceError."""
        deadline = self.deadline(timeout_s)
        self.check(deadline, action)
        with self.start(arguments, extra=extra) as process:
            return self._communicate(process, deadline, output_bytes_max, action, watch)

    def start(
        self, arguments: Sequence[str], *, stdin: bool = False, extra: Mapping[str, str] | None = None
    ) -> Process:
        """Start `git ARGUMENTS` and leave it running. Raises SourceError GitMissing."""
        git = git_class()
        values = self._environment | dict(extra or {})
        forgotten = sorted(
            name
            for name in os.environ
            if name not in values and (name.startswith(_FORGOTTEN_PREFIXES) or name in _FORGOTTEN_NAMES)
        )
        # GitPython adds to the inherited environment and cannot take away from it; env(1) can.
        forget = ["env", *(part for name in forgotten for part in ("-u", name))] if forgotten else []
        program = str(git.GIT_PYTHON_GIT_EXECUTABLE)
        pipe: dict[str, Any] = {"istream": subprocess.PIPE} if stdin else {}
        try:
            handle = git(str(self.directory)).execute(
                [*forget, program, *arguments], as_process=True, env=values, start_new_session=True, **pipe
            )
        except OSError as error:
            raise SourceError("GitMissing", f"git could not be started: {error.strerror}") from error
        return Process(handle)

    def _communicate(
        self, process: Process, deadline: float, bytes_max: int, action: str, watch: Callable[[], None] | None
    ) -> Output:
        stdout, stderr = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, stdout)
            selector.register(process.stderr, selectors.EVENT_READ, stderr)
            while selector.get_map():
                left_s = self.check(deadline, action)
                for key, _ in selector.select(min(left_s, TICK_S)):
                    if chunk := os.read(key.fd, _CHUNK_BYTES):
                        key.data.extend(chunk)
                    else:
                        selector.unregister(key.fileobj)
                if len(stdout) > bytes_max:
                    return Output(-signal.SIGKILL, bytes(stdout[:bytes_max]), "", truncated=True)
                del stderr[:-_STDERR_BYTES_MAX]
                if watch:
                    watch()
        while (status := process.wait(min(self.check(deadline, action), TICK_S))) is None:
            pass
        return Output(status, bytes(stdout), stderr.decode("utf-8", "replace"))


class Process:
    """A running git. Leaving the context kills it, with all it started, if it has not ended."""

    def __init__(self, handle: Git.AutoInterrupt) -> None:
        proc = handle.proc
        if proc is None or proc.stdout is None or proc.stderr is None:
            raise AssertionError("git was started without pipes")
        self._handle = handle
        self._proc = proc
        self.stdout: IO[bytes] = proc.stdout
        self.stderr: IO[bytes] = proc.stderr
        self.stdin: IO[bytes] | None = proc.stdin

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, or None if it still runs after `timeout_s`."""
        try:
            return int(self._proc.wait(timeout_s))
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill the whole session and close the pipes. May be called twice."""
        if self._proc.poll() is None:
            # Not yet reaped, so its number cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._proc.pid, signal.SIGKILL)
            self._proc.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def git_class() -> type[Git]:
    """GitPython's Git, imported late: it looks for the program when imported, and costs a tenth of a second."""
    try:
        from git.cmd import Git  # noqa: PLC0415  # see above
    except ImportError as error:
        raise SourceError("GitMissing", "the program git was not found: install git 2.32 or newer") from error
    return Git


def check_git_version(git: Git) -> None:
    """Raise SourceError GitTooOld if the program does not know the isolation we depend on."""
    version = git.version_info
    if version < _GIT_VERSION_MIN:
        found = ".".join(map(str, version))
        raise SourceError("GitTooOld", f"git {found} cannot be isolated: install git 2.32 or newer")

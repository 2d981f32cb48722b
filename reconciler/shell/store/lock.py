"""The lock that lets one daemon at a time use a state directory.

Two daemons on one store would fence each other off at every start; the lock says so before anything is opened. It is
an advisory lock (flock) on a file of its own, held for the life of the process: the kernel lets go of it however the
process ends, so a stale lock file means nothing and nobody has to remove one. The file holds the owner's pid, for the
message only.

    lock = StateLock.acquire(Path("/var/lib/reconciler"))   # StoreError: ... is in use by process 4711
    lock.release()
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from reconciler.shell.store.errors import StoreError

LOCK_FILE = "lock"


class StateLock:
    """A held lock. `release` may be called more than once."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, directory: Path) -> StateLock:
        """Lock `directory`, which is made (mode 0700) if it is not there. Raises StoreError, naming the process that
        holds it, at once: it never waits."""
        path = directory / LOCK_FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use state directory {directory}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreError(f"state directory {directory} is in use by process {holder}: stop it first") from error
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"cannot lock {path}: {error.strerror}; use a local file system") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(path, descriptor)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two different files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

"""Where the daemon's socket is: in the state directory, or at a short path when that is too long to bind.

Daemon and commands compute the same path from the state directory alone, whatever their environments and users: the
short one is named after the directory and its owner. Anyone may write to /tmp, so the directory there must belong to
that owner and be closed to all others; both sides ask `trusted` first.

    path = socket_path(settings.state_dir)
    make_directory(path)                        # the daemon, before it binds
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

#: A Unix socket's path has to fit into 104 bytes on some systems, with its final zero.
_PATH_BYTES_MAX = 100
_SHORT = Path("/tmp")  # noqa: S108  # the one short directory that exists everywhere; see above


def socket_path(state_dir: Path) -> Path:
    """The socket of the daemon whose state is in `state_dir`."""
    direct = state_dir.absolute() / "reconciler.sock"
    if len(os.fsencode(direct)) <= _PATH_BYTES_MAX:
        return direct
    digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]
    return _SHORT / f"reconciler-{_owner(state_dir)}" / f"{digest}.sock"


def make_directory(socket: Path) -> None:
    """Make the directory of `socket` if there is none. Raises PermissionError if it is not to be trusted."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not trusted(socket):
        raise PermissionError(f"{socket.parent} belongs to somebody else or is open to others: remove it")


def trusted(socket: Path) -> bool:
    """True if nobody but its owner can have put `socket` where it is. A state directory is trusted as it is."""
    if socket.parent.parent != _SHORT or not socket.parent.name.startswith("reconciler-"):
        return True
    found = socket.parent.lstat()
    owner = socket.parent.name.removeprefix("reconciler-")
    return stat.S_ISDIR(found.st_mode) and str(found.st_uid) == owner and not found.st_mode & 0o077


def _owner(state_dir: Path) -> int:
    try:
        return state_dir.stat().st_uid
    except FileNotFoundError:
        return os.getuid()

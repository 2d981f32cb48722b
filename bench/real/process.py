"""What a process uses, read from /proc: CPU to the nanosecond, its children's apart, memory, sockets.

before = usage(process.pid)
...
(usage(process.pid) - before).cpu_s
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_s` is the process's own, `children_cpu_s` that of its git children, ended or not; the rest is as it is now,
    also in a difference."""

    cpu_s: float
    children_cpu_s: float
    resident_bytes: int
    sockets: int

    def __sub__(self, earlier: Self) -> Usage:
        return Usage(
            self.cpu_s - earlier.cpu_s,
            self.children_cpu_s - earlier.children_cpu_s,
            self.resident_bytes,
            self.sockets,
        )


def usage(pid: int) -> Usage:
    """What process `pid` has used so far."""
    own = _PROC / str(pid)
    # Threads that ended are missing; the daemon's last as long as it does.
    cpu_ns = 0
    for task in sorted((own / "task").iterdir()):
        with suppress(FileNotFoundError, ProcessLookupError):
            cpu_ns += int((task / "schedstat").read_text().split()[0])
    fields = _stat(own)
    children_s = (int(fields[13]) + int(fields[14])) * _TICK_S
    children_s += sum(_cpu_s(child) for child in children(pid))
    resident = next(line for line in (own / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return Usage(cpu_ns / 1e9, children_s, int(resident.split()[1]) * 1024, _sockets(own))


def children(pid: int) -> list[Path]:
    """The living children of `pid`."""
    found = []
    for each in sorted(_PROC.glob("[0-9]*")):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(_stat(each)[1]) == pid:
                found.append(each)
    return found


def _stat(process: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _cpu_s(process: Path) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = _stat(process)
        return sum(int(fields[place]) for place in (11, 12, 13, 14)) * _TICK_S
    return 0.0


def _sockets(process: Path) -> int:
    count = 0
    for entry in (process / "fd").iterdir():
        with suppress(FileNotFoundError):
            count += os.readlink(entry).startswith("socket:")
    return count

"""Measuring: repeats after a warm-up, medians and ranges, and a result file that says where it came from.

Times are CPU seconds of this process and its ended children, the wall clock beside them: on a machine that others use,
CPU seconds repeat better. A peer or a floor is measured in the same repeat, one after the other, so that both meet the
same machine.

    sample = timed(lambda: compile_everything())
    summary([sample.cpu_s for sample in samples])      # {"median": 1.2, "min": 1.1, "max": 1.5}
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.real.plane import Plane

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
LIBRARIES = ("PyYAML", "SQLAlchemy", "aiohttp", "deepdiff", "kubernetes", "orjson")


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure. `sizes` and `clusters` replace a benchmark's own where it has some; `quick` is the smallest
    that still shows that everything works, and no figure of it means anything. `plane` is a control plane that runs
    already; without one every benchmark starts its own."""

    repeats: int = 5
    sizes: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()
    quick: bool = False
    plane: Plane | None = None

    def sized(self, usual: Sequence[int], quick: Sequence[int]) -> tuple[int, ...]:
        """The sizes to measure."""
        return self.sizes or tuple(quick if self.quick else usual)

    def over(self, usual: Sequence[int], quick: Sequence[int]) -> tuple[int, ...]:
        """The numbers of clusters to measure with."""
        return self.clusters or tuple(quick if self.quick else usual)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    cpu_s: float
    wall_s: float

    def as_json(self) -> dict[str, float]:
        """For the result file."""
        return {"cpu_s": round(self.cpu_s, 6), "wall_s": round(self.wall_s, 6)}


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(work: Callable[[], object]) -> Sample:
    """Run `work` once; garbage of before is collected first and not counted."""
    gc.collect()
    wall_s, used_s = time.perf_counter(), cpu_s()
    work()
    return Sample(cpu_s() - used_s, time.perf_counter() - wall_s)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine() -> dict[str, Any]:
    """What it ran on, without saying whose it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """The checked out commit, with "+" if the package or the benchmarks differ from it; "" outside a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return ""
    return head + ("+" if _git("status", "--porcelain", "--", "reconciler", "policies", "bench/*.py") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Of the libraries that matter."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def write(name: str, goals: list[dict[str, Any]], measured: dict[str, Any], directory: Path = RESULTS) -> Path:
    """Write the result file of benchmark `name`: goals with whether they were met, and everything measured."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    content = {
        "benchmark": name,
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "goals": goals,
        "results": measured,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def goal(what: str, value: float, limit: float, *, at_most: bool) -> dict[str, Any]:
    """One goal and whether it was met."""
    met = value <= limit if at_most else value >= limit
    return {"what": what, "value": round(value, 4), "at_most" if at_most else "at_least": limit, "met": met}

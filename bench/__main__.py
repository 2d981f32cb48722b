"""Run benchmarks, write bench/results/*.json and the table in bench/README.md.

    python -m bench                                       # all of them
    python -m bench B8 --repeats 5                        # one of them
    python -m bench B1 --sizes 100,500 --clusters 1,16    # at other sizes than its own
    python -m bench --quick --results build/bench         # whether all of them work

Exit status 1 if the simulator found a violation: a figure of a broken build says nothing. A missed goal is reported,
here and in the result file, and is no failure. B1 to B7 need the control plane (`make control-plane`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import compile as compiling
from bench import converge, crash, drift, idle, many_clusters, measure, memory, one_change, report, simulator
from bench.measure import Options
from bench.real.plane import NoControlPlaneError
from tests.control_plane.build import BuildError

Benchmark = Callable[[Options], tuple[list[dict[str, Any]], dict[str, Any]]]

BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "B1": ("converge", converge.run),
    "B2": ("one-change", one_change.run),
    "B3": ("idle", idle.run),
    "B4": ("drift", drift.run),
    "B5": ("memory", memory.run),
    "B6": ("many-clusters", many_clusters.run),
    "B7": ("crash", crash.run),
    "B8": ("compile", compiling.run),
    "B9": ("simulator", simulator.run),
}


def main(arguments: list[str] | None = None) -> int:
    """The command behind `make bench`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, and write bench/results/*.json.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is repeated after a warm-up (default 5)")
    parser.add_argument("--sizes", type=_numbers, default=(), help="sizes to measure, as 100,500 (default: its own)")
    parser.add_argument("--clusters", type=_numbers, default=(), help="numbers of clusters to measure with")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once: only shows that it works")
    parser.add_argument("--results", type=Path, default=measure.RESULTS, help="where the result files go")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown or options.repeats < 1:
        parser.error(f"unknown benchmark {unknown[0]}" if unknown else "--repeats must be at least 1")
    repeats = 1 if options.quick else options.repeats
    asked = Options(repeats, options.sizes, options.clusters, options.quick)
    failed = False
    for name in options.names or sorted(BENCHMARKS):
        title, benchmark = BENCHMARKS[name]
        print(f"{name} {title} ...", flush=True)
        try:
            goals, results = benchmark(asked)
        except (NoControlPlaneError, BuildError) as problem:
            print(f"  {problem}", file=sys.stderr)
            return 1
        path = measure.write(f"{name}-{title}", goals, results, options.results)
        for each in goals:
            limit = f"at most {each['at_most']:,}" if "at_most" in each else f"at least {each['at_least']:,}"
            print(f"  {'met   ' if each['met'] else 'MISSED'} {each['what']}: {each['value']:,} ({limit})")
            failed = failed or (each["what"] == "violations" and not each["met"])
        print(f"  {path.name}")
    if options.results == measure.RESULTS:
        report.update()
    return 1 if failed else 0


def _numbers(text: str) -> tuple[int, ...]:
    """Positive numbers with commas between them."""
    found = tuple(int(part) for part in text.split(","))
    if not all(number > 0 for number in found):
        raise argparse.ArgumentTypeError(f"{text!r} has a number that is not positive")
    return found


if __name__ == "__main__":
    sys.exit(main())

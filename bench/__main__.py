"""Run benchmarks, write bench/results/*.json and the table in bench/README.md.

    python -m bench                  # all of them
    python -m bench B8 --repeats 5   # one of them

Exit status 1 if the simulator found a violation: a figure of a broken build says nothing. A missed goal is reported,
here and in the result file, and is no failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import compile as compiling
from bench import measure, report, simulator

Benchmark = Callable[[int], tuple[list[dict[str, Any]], dict[str, Any]]]

BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "B8": ("compile", compiling.run),
    "B9": ("simulator", simulator.run),
}


def main(arguments: list[str] | None = None) -> int:
    """The command behind `make bench`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, and write bench/results/*.json.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is repeated after a warm-up (default 5)")
    parser.add_argument("--results", type=Path, default=measure.RESULTS, help="where the result files go")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown or options.repeats < 1:
        parser.error(f"unknown benchmark {unknown[0]}" if unknown else "--repeats must be at least 1")
    failed = False
    for name in options.names or sorted(BENCHMARKS):
        title, benchmark = BENCHMARKS[name]
        print(f"{name} {title} ...", flush=True)
        goals, results = benchmark(options.repeats)
        path = measure.write(f"{name}-{title}", goals, results, options.results)
        for each in goals:
            limit = f"at most {each['at_most']:,}" if "at_most" in each else f"at least {each['at_least']:,}"
            print(f"  {'met   ' if each['met'] else 'MISSED'} {each['what']}: {each['value']:,} ({limit})")
            failed = failed or (each["what"] == "violations" and not each["met"])
        print(f"  {path.name}")
    if options.results == measure.RESULTS:
        report.update()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

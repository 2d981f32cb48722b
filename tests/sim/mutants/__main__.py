"""Let the simulator look for mutants: exit status 1 if one survives."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import sys

from tests.sim.mutants.catalogue import MUTANTS
from tests.sim.mutants.hunt import hunt


def main() -> int:
    """Hunt those named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="which (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at a time")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    unknown = sorted(set(options.names) - {mutant.name for mutant in MUTANTS})
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(options.processes) as pool:
        for mutant, finding in zip(chosen, pool.map(hunt, chosen), strict=True):
            survivors += finding is None
            sys.stdout.write(f"{mutant.name}: {finding or f'SURVIVED {mutant.ground}'}\n")
            sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

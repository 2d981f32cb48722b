"""Run seeds of the simulator, and say how fast it was.

python -m reconciler.sim --seeds 200
python -m reconciler.sim --first-seed 4711 --seeds 1      # one seed again, exactly
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import sys
import time  # noqa: TID251 - an entry point, which says how fast it was
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reconciler.sim.scenarios import run_seed


def _one(seed: int) -> dict[str, Any]:
    start_s = time.process_time()
    try:
        found = asdict(run_seed(seed)) | {"violation": None}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this seed's finding, and the others go on
        trace = traceback.format_exc(limit=-6)
        found = {"seed": seed, "violation": f"{type(error).__name__}: {error}", "trace": trace}
    return found | {"cpu_s": round(time.process_time() - start_s, 3)}


def main() -> int:
    """Exit status 1 if any seed found a violation."""
    parser = argparse.ArgumentParser(prog="python -m reconciler.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--output", type=Path, help="write the outcomes as JSON")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    start_s = time.monotonic()
    outcomes: list[dict[str, Any]] = []
    with concurrent.futures.ProcessPoolExecutor(options.processes) as pool:
        for outcome in pool.map(_one, seeds, chunksize=4):
            outcomes.append(outcome)
            if outcome["violation"] is not None:
                sys.stdout.write(f"seed {outcome['seed']}: {outcome['violation']}\n{outcome['trace']}\n")
    wall_s = time.monotonic() - start_s
    cpu_s = sum(outcome["cpu_s"] for outcome in outcomes)
    violations = [outcome for outcome in outcomes if outcome["violation"] is not None]
    transitions = sum(outcome.get("transitions", 0) for outcome in outcomes)
    summary = {
        "seeds": len(outcomes),
        "first_seed": options.first_seed,
        "violations": len(violations),
        "transitions": transitions,
        "deaths": sum(outcome.get("deaths", 0) for outcome in outcomes),
        "target_steps": sum(outcome.get("target_steps", 0) for outcome in outcomes),
        "virtual_s": round(sum(outcome.get("virtual_s", 0.0) for outcome in outcomes)),
        "wall_s": round(wall_s, 1),
        "seeds_per_minute": round(len(outcomes) / wall_s * 60, 1),
        "transitions_per_minute_and_core": round(transitions / cpu_s * 60),
    }
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(summary | {"outcomes": outcomes}, indent=1) + "\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

"""Play chaos for a while on a control plane of its own: `python -m tests.chaos --seed 7 --minutes 60`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.measure import commit, machine
from tests.chaos.run import Chaos, ChaosError, told
from tests.control_plane import build, server


def main() -> int:
    """0 when all held, 1 when something did not, 3 without a control plane."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    assets = build.locate()
    if assets is None:
        print("no control plane: run `make control-plane`", file=sys.stderr)
        return 3
    print(f"chaos with seed {arguments.seed} for {arguments.minutes:g} min", file=sys.stderr)
    with server.start(assets) as plane, tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        chaos = Chaos(plane, Path(directory), arguments.seed, "chaos")
        try:
            result = chaos.run(60 * arguments.minutes)
        except ChaosError as violation:
            print(f"seed {arguments.seed}: {violation}", file=sys.stderr)
            return 1
    result |= {"commit": commit(), "machine": machine()}
    print(told(result), end="")
    if arguments.output is not None:
        arguments.output.write_text(told(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

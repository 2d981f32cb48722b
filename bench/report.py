"""The table of goals in README.md, written from the result files, so that page and results never disagree.

update()     # after a run; tests compare `table()` with what stands in the page
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.measure import RESULTS, ROOT

PAGE = ROOT / "bench" / "README.md"
_PLACE = re.compile(r"(<!-- goals -->\n).*?(<!-- /goals -->)", re.DOTALL)


def table(directory: Path = RESULTS) -> str:
    """One row per goal of every result file, in the order of their names."""
    lines = ["| benchmark | goal | limit | measured | |", "|---|---|---|---|---|"]
    for path in sorted(directory.glob("B*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for goal in result["goals"]:
            limit = (
                f"at most {_number(goal['at_most'])}" if "at_most" in goal else f"at least {_number(goal['at_least'])}"
            )
            met = "met" if goal["met"] else "**missed**"
            name = result["benchmark"].partition("-")[0]
            lines.append(f"| {name} | {goal['what']} | {limit} | {_number(goal['value'])} | {met} |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.2f}"


def update() -> None:
    """Write the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_PLACE.sub(lambda found: found[1] + table() + found[2], text), encoding="utf-8")

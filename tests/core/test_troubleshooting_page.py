"""The guide to troubleshooting speaks of every code that may keep something from happening."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf-8")
#: Where what is refused or waited for gets its code.
FILES = [
    "reconciler/core/admit.py",
    "reconciler/core/advance.py",
    "reconciler/core/decide.py",
    "reconciler/core/decide_source.py",
    "reconciler/core/fleet.py",
    "reconciler/core/fleet_applications.py",
    "reconciler/core/heal.py",
    "reconciler/core/rollout.py",
    "reconciler/shell/board.py",
    "reconciler/shell/gather_source.py",
    "reconciler/shell/source_unit.py",
]
CODE = re.compile(r'(?:Reason|_because)\(\s*"([A-Z][A-Za-z]+)"')
#: Codes that say what has happened, and keep nothing from happening.
SAY_ONLY = {"Returned", "RolloutEnded", "Superseded", "TargetLeft", "TimedOut"}


@pytest.mark.parametrize("file", FILES)
def test_every_code_is_explained(file: str) -> None:
    codes = set(CODE.findall((ROOT / file).read_text(encoding="utf-8")))
    assert codes, f"{file} names no code any more"
    assert {code for code in codes - SAY_ONLY if not re.search(rf"\b{code}\b", PAGE)} == set()

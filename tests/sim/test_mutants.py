"""The simulator finds deliberate bugs. All of them are hunted by `python -m tests.sim.mutants`; a few are here.

Set RECONCILER_TEST_MUTANTS=all to hunt all of them in the tests, too.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tests.sim.mutants.catalogue import MUTANTS, Mutant
from tests.sim.mutants.hunt import changed, hunt

FAST = ("skip-bake", "ignore-max-concurrent", "open-the-next-wave-early", "delete-without-uid", "forget-quarantine")
HUNTED = [mutant for mutant in MUTANTS if mutant.name in FAST or os.environ.get("RECONCILER_TEST_MUTANTS") == "all"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_fits_the_source(mutant: Mutant) -> None:
    found = importlib.util.find_spec(mutant.module)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text()
    compile(changed(mutant, source), found.origin, "exec")


@pytest.mark.parametrize("mutant", HUNTED, ids=lambda mutant: mutant.name)
def test_the_simulator_finds_it(mutant: Mutant) -> None:
    assert hunt(mutant) is not None

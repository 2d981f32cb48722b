"""The simulator finds deliberate bugs. All of them are hunted by `python -m tests.sim.mutants`; a few are here.

Set RECONCILER_TEST_MUTANTS=all to hunt all of them in the tests, too.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from pathlib import Path

import pytest

from tests.sim.mutants.catalogue import MUTANTS, Mutant
from tests.sim.mutants.hunt import changed, hunt

#: One of each sort that is found within seconds: a gate, a limit, a stop, a write and somebody else's health.
FAST = (
    "skip-bake",
    "ignore-max-concurrent",
    "a-halted-rollout-goes-on",
    "delete-without-uid",
    "health-counts-before-our-write-is-seen",
)
HUNTED = [mutant for mutant in MUTANTS if mutant.name in FAST or os.environ.get("RECONCILER_TEST_MUTANTS") == "all"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_fits_the_source(mutant: Mutant) -> None:
    found = importlib.util.find_spec(mutant.module)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text()
    compile(changed(mutant, source), found.origin, "exec")


def test_the_fast_ones_are_in_the_catalogue() -> None:
    assert set(FAST) <= {mutant.name for mutant in MUTANTS}


def test_every_story_that_is_hunted_in_is_a_test_without_arguments() -> None:
    for mutant in MUTANTS:
        if mutant.story:
            module, _, function = mutant.story.partition(":")
            story = getattr(importlib.import_module(f"tests.sim.{module}"), function)
            assert function.startswith("test_")  # it is told without the mutant, too, and passes
            assert not inspect.signature(story).parameters


@pytest.mark.parametrize("mutant", HUNTED, ids=lambda mutant: mutant.name)
def test_the_simulator_finds_it(mutant: Mutant) -> None:
    assert hunt(mutant) is not None

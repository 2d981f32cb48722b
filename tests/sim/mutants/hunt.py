"""Hunt one mutant: a process of its own loads the changed module and tells stories until one goes wrong."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from tests.sim.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[3]
#: A mutant may make a story endless: it is found then, too.
TIMEOUT_S = 240


def hunt(mutant: Mutant) -> str | None:
    """What the simulator found, with its seed; None if nothing was found."""
    command = [sys.executable, "-m", "tests.sim.mutants.hunt", mutant.name]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no end after {TIMEOUT_S} s"
    if done.returncode not in (0, 3):
        raise RuntimeError(f"the hunt for {mutant.name} failed: {done.stderr[-2000:]}")
    return done.stdout.strip() if done.returncode == 3 else None


def changed(mutant: Mutant, source: str) -> str:
    """`source` with the mutant's changes. ValueError if one of them does not fit any more."""
    for old, new in mutant.changes:
        if source.count(old) != 1:
            raise ValueError(f"{mutant.name}: {old!r} stands {source.count(old)} times in {mutant.module}")
        source = source.replace(old, new)
    return source


class _Loader(importlib.abc.SourceLoader):
    """Loads the changed source; without times of its own it is never taken from a cache."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        self._mutant = mutant
        self._path = path

    def get_filename(self, fullname: str) -> str:
        del fullname
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return changed(self._mutant, Path(str(path)).read_text()).encode()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant's module, and no other."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert found is not None
        assert found.origin is not None
        return importlib.util.spec_from_loader(fullname, _Loader(self._mutant, found.origin), origin=found.origin)


def main(name: str) -> int:
    """Tell stories with the mutant in place. Exit status 3 if one goes wrong."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    sys.meta_path.insert(0, _Finder(mutant))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # what a story leaves behind when it goes wrong is not the question here
    for title, tell in _stories(mutant):
        try:
            tell()
        except (NameError, ImportError):
            raise  # the checkout is broken, whatever the mutant does
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what is looked for
            sys.stdout.write(f"{title}: {type(error).__name__}: {_said(error)}\n")
            return 3
    return 0


def _stories(mutant: Mutant) -> Iterator[tuple[str, Callable[[], object]]]:
    """Where the mutant is hunted: its own story, or seeds."""
    if mutant.story:
        module, _, function = mutant.story.partition(":")
        yield function, getattr(importlib.import_module(f"tests.sim.{module}"), function)
        return
    scenarios = importlib.import_module("reconciler.sim.scenarios")
    for seed in range(mutant.seeds):
        yield f"seed {seed}", partial(scenarios.run_seed, seed)


def _said(error: BaseException) -> str:
    """What `error` says; of a bare assertion, the line that does not hold."""
    if str(error):
        return str(error)[:160]
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].line or "" if frames else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""One performance, from curtain to curtain: the stage is set, the steps are played, the summary is returned.

    summary = await perform(Program(clusters=8), view)
    summary.succeeded, summary.as_json()

Everything it makes lives below one temporary directory and in this process; when it ends, or is cancelled at any
moment, nothing of it is left.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.demo.control_plane.assets import Assets
from reconciler.demo.fleet import DemoFleet
from reconciler.demo.outcome import Mark, StepOutcome, Summary, touched_since, waves_since
from reconciler.demo.scene import Scene, StepFailedError
from reconciler.demo.stage import SOURCE, Stage, open_stage
from reconciler.demo.steps import STEPS, Step
from reconciler.resources import sample_directory

CLUSTERS = 8
#: Real control planes: one for each ring. Each takes about 400 MB, and a core of its own while it starts.
REAL_CLUSTERS, REAL_CLUSTERS_MAX = 3, 8
#: While the fleet is kept running, this much policy time passes in one second of real time.
STAY_SPEED = 10.0
STAY_TICK_S = 0.2


@dataclass(frozen=True, slots=True)
class Program:
    """What is played. `last` is the last step, with all before it; `stay` keeps the fleet running afterwards. With
    `assets` the clusters are real control planes, made of these programs."""

    clusters: int = CLUSTERS
    last: str = ""
    stay: bool = False
    seed: int = 1
    assets: Assets | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in order: each begins where the one before left the fleet."""
        names = list(STEPS)
        return tuple(STEPS[name] for name in (names[: names.index(self.last) + 1] if self.last else names))


class View(Protocol):
    """Who watches."""

    def waits(self, line: str) -> None:
        """The stage is being set, and that takes a while."""
        ...

    def opens(self, stage: Stage, program: Program) -> None:
        """The stage is set."""
        ...

    def begins(self, step: Step, scene: Scene) -> None:
        """A step begins."""
        ...

    def says(self, line: str) -> None:
        """Somebody does something to the fleet."""
        ...

    async def ticks(self) -> None:
        """Time went on."""
        ...

    async def ended(self, outcome: StepOutcome) -> None:
        """A step has ended."""
        ...

    def closes(self, summary: Summary) -> None:
        """All steps were played. If the program says `stay`, the fleet now goes on running."""
        ...


async def perform(program: Program, view: View) -> Summary:
    """Play the program."""
    fleet = DemoFleet.of_sample(sample_directory(), program.clusters)
    # Short, for the API's socket lies below it.
    directory = Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if program.assets is not None:
            view.waits(f"{program.clusters} real control planes are started, which takes some seconds ...")
        stage = await stack.enter_async_context(open_stage(fleet, directory, program.seed, program.assets))
        view.opens(stage, program)
        outcomes: list[StepOutcome] = []
        head = await stage.repository.head()
        for step in program.steps:
            outcome, fleet, head = await _played(step, stage, fleet, head, view)
            outcomes.append(outcome)
            if not outcome.wanted:
                break
        summary = _summary(stage, outcomes)
        view.closes(summary)
        if program.stay:
            await _stay(stage, view)
        return summary


async def _played(
    step: Step, stage: Stage, fleet: DemoFleet, head: str, view: View
) -> tuple[StepOutcome, DemoFleet, str]:
    """Play one step; its outcome, and the fleet and commit that it leaves."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    mark = await Mark.of(stage)
    scene = Scene(stage, fleet, head, mark, view.says, view.ticks)
    view.begins(step, scene)
    try:
        result = await step.play(scene)
    except StepFailedError as error:
        result = str(error)
    touched = await touched_since(stage, mark)
    waves = await waves_since(stage, mark)
    outcome = StepOutcome(
        step.name, scene.head, result, result == step.wanted, len(touched), waves, loop.time() - started_s
    )
    await view.ended(outcome)
    return outcome, scene.fleet, scene.head


def _summary(stage: Stage, outcomes: Sequence[StepOutcome]) -> Summary:
    snapshot = stage.daemon.sources[SOURCE].snapshot
    applications = len(snapshot.applications) if snapshot is not None else 0
    targets = snapshot.target_count if snapshot is not None else 0
    return Summary(stage.ground.control_plane, len(stage.clusters), applications, targets, tuple(outcomes))


async def _stay(stage: Stage, view: View) -> None:
    """Keep the fleet running until cancelled, faster than real time."""
    while True:
        passed_s = 0.0
        while passed_s < STAY_SPEED * STAY_TICK_S:
            await stage.drained()
            passed_s += stage.advance()
        await view.ticks()
        await asyncio.sleep(STAY_TICK_S)

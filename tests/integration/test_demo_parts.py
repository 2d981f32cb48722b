"""The demo's parts: fleets of any size, what is on its way, when time may go on, and verification that can fail."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from reconciler.cli.offline import compile_path
from reconciler.core.model import (
    FrozenPlan,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
    Wave,
)
from reconciler.demo import play, verify
from reconciler.demo.cluster import JOB, JOB_API_VERSION
from reconciler.demo.fleet import APPLICATION_FILE, RINGS, DemoFleet, SampleError
from reconciler.demo.play import Program, perform
from reconciler.demo.stage import Stage, StageFailedError, open_stage
from reconciler.demo.traffic import Traffic
from reconciler.demo.view import NoView, TerminalView
from reconciler.resources import sample_directory


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine as a test, on a loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


# ---- fleets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clusters", [3, 4, 7, 8, 9, 40])
def test_a_fleet_of_any_size_compiles_without_problems(clusters: int, tmp_path: Path) -> None:
    fleet = DemoFleet.of_sample(sample_directory(), clusters)
    for path, content in fleet.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    snapshot = compile_path(tmp_path)
    assert list(snapshot.problems) == []
    assert set(snapshot.clusters) == {cluster.name for cluster in fleet.clusters}
    assert len(snapshot.clusters) == clusters
    assert {cluster.ring for cluster in fleet.clusters} == set(RINGS)
    assert set(snapshot.applications["sample/orders"].targets) == set(snapshot.clusters)


def test_the_fleet_of_eight_is_the_sample_itself() -> None:
    root = sample_directory()
    sample = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert DemoFleet.of_sample(root, 8).files == sample


@pytest.mark.parametrize("clusters", [0, 2, 201])
def test_other_sizes_are_refused(clusters: int) -> None:
    with pytest.raises(SampleError, match="3 to 200"):
        DemoFleet.of_sample(sample_directory(), clusters)


def test_a_change_changes_image_and_parallelism_on_every_cluster() -> None:
    fleet = DemoFleet.of_sample(sample_directory(), 8)
    changes = fleet.with_change()
    assert list(changes) == [APPLICATION_FILE]
    before, after = (_numbers(files[APPLICATION_FILE]) for files in (fleet.files, changes))
    assert after["parallelism"] == [-(-number * 3 // 2) for number in before["parallelism"]]
    assert len(after["parallelism"]) == 2  # for all, and the override of one region
    assert after["image"] != before["image"]
    bad = fleet.committed(changes).with_bad_image()
    assert _numbers(bad[APPLICATION_FILE])["parallelism"] == after["parallelism"]
    assert _numbers(bad[APPLICATION_FILE])["image"].endswith("-crash-loop")
    (line,) = fleet.committed(changes).changed_lines(bad)
    assert line.startswith("image: orders:")


def _numbers(content: bytes) -> dict[str, Any]:
    spec = yaml.safe_load(content)["spec"]
    properties = spec["components"][0]["properties"]
    overrides = [policy["properties"]["components"][0] for policy in spec["policies"] if policy["type"] == "override"]
    jobs = [properties["job"], *(override["properties"]["job"] for override in overrides)]
    return {
        "image": properties["image"],
        "parallelism": [job["parallelism"] for job in jobs if "parallelism" in job],
    }


# ---- traffic and time ----------------------------------------------------------------------------------------------


@on_a_loop
async def test_traffic_is_still_only_when_both_ends_agree() -> None:
    written: dict[str, int] = {}
    traffic = Traffic(written)
    assert traffic.still
    async with traffic.request():
        assert not traffic.still
    async with traffic.watch() as one, traffic.watch() as other:
        written[one] = 0
        assert not traffic.still  # the cluster has opened it, and the daemon does not know yet
        traffic.opened(one)
        assert traffic.still
        written[other] = 0
        traffic.opened(other)
        written[one] += 1
        assert not traffic.still  # in the socket, or being dealt with
        traffic.taken_in(other)
        assert not traffic.still  # a line too many here does not make up for one that is missing there
        written[other] += 1
        traffic.taken_in(one)
        assert traffic.still
        del written[other]
        assert not traffic.still  # the cluster has closed it, and the daemon does not know yet
    written.clear()
    assert traffic.still


@asynccontextmanager
async def small_stage(directory: Path) -> AsyncIterator[Stage]:
    async with open_stage(DemoFleet.of_sample(sample_directory(), 3), directory) as stage:
        yield stage


@on_a_loop
async def test_what_was_written_has_been_seen_when_all_is_drained(tmp_path: Path) -> None:
    """However often an object changes: once drained, the daemon has seen its newest version over HTTP."""
    async with small_stage(tmp_path) as stage:
        cluster = stage.clusters["eu-west-1a"]
        for _ in range(60):
            await stage.drained()
            stage.advance()
        lane = stage.daemon.lanes["eu-west-1a"]
        target = Target("sample/orders", "eu-west-1a")
        for number in range(30):
            await cluster.edit(JOB_API_VERSION, JOB, {"metadata": {"labels": {"x": str(number)}}})
            await stage.drained()
            live = await cluster.read(JOB_API_VERSION, JOB)
            assert live is not None
            verdict = stage.daemon.board.verdicts[target]
            (judged,) = [part for part in verdict.objects if part.key.kind == "FlinkDeployment"]
            assert judged.resource_version == live["metadata"]["resourceVersion"]
        assert not lane.observer.busy


@on_a_loop
async def test_time_goes_to_the_next_timer_and_no_further_than_a_check_interval(tmp_path: Path) -> None:
    async with small_stage(tmp_path) as stage:
        for _ in range(40):
            await stage.drained()
            before_s, due_s = stage.clock.now().monotonic, stage.clock.next_timer()
            passed_s = stage.advance()
            assert 0 <= passed_s <= stage.check_interval_s
            assert stage.clock.now().monotonic == before_s + passed_s
            if due_s is not None and due_s < before_s + stage.check_interval_s:
                assert due_s <= before_s + passed_s < due_s + 1.0
        assert stage.clock.now().monotonic > 0


@on_a_loop
async def test_a_failed_unit_ends_the_wait(tmp_path: Path) -> None:
    async with small_stage(tmp_path) as stage:
        await stage.drained()
        stage.failures.append(("the daemon's unit lane:eu-west-1a", RuntimeError("broken")))
        with pytest.raises(StageFailedError, match="the daemon's unit lane:eu-west-1a failed"):
            await stage.drained()


# ---- verification can fail -----------------------------------------------------------------------------------------


@on_a_loop
async def test_a_fleet_that_does_not_come_up_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step looks at the clusters, says what it ended as and why, and is the last one that is played."""
    good = DemoFleet.of_sample(sample_directory(), 3)
    broken = good.committed(good.with_bad_image())
    monkeypatch.setattr(DemoFleet, "of_sample", lambda *_: broken)
    screen = io.StringIO()
    view = TerminalView(Console(file=screen, force_terminal=True, width=100, height=40))
    summary = await perform(Program(clusters=3), view)
    (step,) = summary.steps
    assert step.name == "initial-sync"
    assert step.result.startswith("Halted: rollout orders-")
    assert "1 failed in wave canary (0 allowed)" in step.result
    assert not step.wanted
    assert not summary.succeeded
    # The others came up all the same; of the broken one only the canary was touched.
    assert step.targets_touched == summary.targets - 2
    shown = re.sub("\x1b[^A-Za-z]*[A-Za-z]", "", screen.getvalue())
    for part in ("Step 1 of 4 · initial-sync", "policy clock 08:", "ALERT sample/orders: 1 failed"):
        assert part in shown
    # The view is drawn by the machine's clock: which minutes of the bake it shows depends on the machine.
    assert re.search(r"baked \d+ min of 30 min", shown)
    assert "Step 2 of 4" not in shown
    assert "Step initial-sync did not end as it was to: Halted" in " ".join(shown.split())
    # The cursor that the view had hidden is there again.
    assert screen.getvalue().rfind("\x1b[?25h") > screen.getvalue().rfind("\x1b[?25l")


def test_a_scenario_is_played_with_all_before_it() -> None:
    assert [step.name for step in Program(last="change").steps] == ["initial-sync", "change"]
    assert [step.name for step in Program().steps] == ["initial-sync", "change", "bad-change", "drift"]
    assert play.CLUSTERS == 8


@pytest.mark.parametrize(
    ("declared", "found", "difference"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 2, "d": 3}]}}, None),
        ({"a": 1}, {"a": 2}, ".a"),
        ({"a": {"b": 1}}, {"a": None}, ".a"),
        ({"a": {"b": 1}}, {"a": {}}, ".a.b"),
        ({"a": [1, 2]}, {"a": [1]}, ".a"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, ".a[0].b"),
        ({}, [], "."),
    ],
)
def test_first_difference(declared: Any, found: Any, difference: str | None) -> None:
    assert verify.first_difference(declared, found) == difference


def rows_of_two_waves() -> tuple[Rollout, list[RolloutTarget]]:
    targets = [Target("sample/orders", name) for name in ("a", "b", "c")]
    waves = (
        Wave("canary", (targets[0],), 60.0, 1, 0, 0),
        Wave("rest", (targets[1], targets[2]), 60.0, 2, 0, 1),
    )
    plan = FrozenPlan(waves, 900.0, "rollback", True, "standard", "", 10.0)
    rollout = Rollout("r", "fleet", "sample/orders", RolloutKind.CHANGE, "", plan, RolloutState.SUCCEEDED, None, 0.0)
    rows = [
        RolloutTarget(targets[0], 0, "new", "old", "old", TargetState.SUCCEEDED, baked_wall=100.0),
        RolloutTarget(targets[1], 1, "new", "old", "old", TargetState.SUCCEEDED, baked_wall=200.0),
        RolloutTarget(targets[2], 1, "new", "old", "old", TargetState.UNREACHABLE),
    ]
    return rollout, rows


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"a": 10.0, "b": 100.0}, None),
        ({"a": 10.0, "b": 99.0}, "sample/orders@b of wave rest was written before the wave before it had baked"),
        ({"a": 10.0, "b": 100.0, "c": 50.0}, "sample/orders@c of wave rest was written before"),
        ({"a": 10.0}, "sample/orders@b succeeded and was never written"),
    ],
)
def test_waves_out_of_order_are_found(written: dict[str, float], problem: str | None) -> None:
    rollout, rows = rows_of_two_waves()
    found = verify.in_order(rollout, rows, {Target("sample/orders", name): at for name, at in written.items()})
    assert (found is None) if problem is None else (found is not None and found.startswith(problem))


def test_a_wave_that_baked_late_counts_with_its_last_target() -> None:
    rollout, rows = rows_of_two_waves()
    late = [replace(rows[0], baked_wall=150.0), *rows[1:]]
    written = {Target("sample/orders", "a"): 10.0, Target("sample/orders", "b"): 120.0}
    assert verify.in_order(rollout, late, written) is not None


def test_cancelled_while_the_stage_is_set_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation at each of many moments: the temporary directory is gone, and no task is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    async def cancelled_after(rounds: int) -> None:
        task = asyncio.get_running_loop().create_task(perform(Program(clusters=3), NoView()))
        for _ in range(rounds):
            await asyncio.sleep(0.003)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert os.listdir(tmp_path) == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for rounds in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144):
        asyncio.run(cancelled_after(rounds))

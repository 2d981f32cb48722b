"""The benchmarks measure what they say: the counters of small runs, and a result file with its origin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import compile as compiling
from bench import fleets, measure, report, simulator
from bench.__main__ import main
from reconciler.core.fleet_model import EMPTY_CACHE, FleetSettings
from reconciler.resources import catalogue


def test_one_changed_application_is_the_only_one_read_and_compiled() -> None:
    found = compiling.measure(60, repeats=1)
    assert (found["targets"], found["releases"]) == (240, 60)
    assert found["counters_cold"]["applications_compiled"] == 60
    assert found["counters_one_changed"] == {
        "blobs_read": 1,
        "documents_parsed": 1,
        "applications_compiled": 1,
        "variants_compiled": 1,
    }
    assert found["cold_over_floor"]["median"] > 1  # it parses, too, so it cannot be faster


def test_the_fleet_to_measure_with_has_no_problem_and_changes_where_told() -> None:
    settings = FleetSettings(catalogue())
    before = compiling.compile_commit(fleets.fleet(5), EMPTY_CACHE, settings).snapshot
    after = compiling.compile_commit(fleets.fleet(5, {2: 7}), EMPTY_CACHE, settings).snapshot
    changed = {name for name, each in after.applications.items() if each.targets != before.applications[name].targets}
    assert changed == {"bench/app-00002"}


def test_the_simulator_benchmark_counts_what_was_proven() -> None:
    found = simulator.wide(5)
    assert found["target_steps"] > found["targets"] * 20
    assert found["transitions"] > 50
    assert found["virtual_s"] > 60


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    goals = [measure.goal("a", 1.5, 2, at_most=True), measure.goal("b", 1.0, 2, at_most=False)]
    path = measure.write("B0-nothing", goals, {"x": 1}, tmp_path)
    written = json.loads(path.read_text())
    assert set(written) == {"benchmark", "measured_at", "commit", "machine", "versions", "goals", "results"}
    assert [goal["met"] for goal in written["goals"]] == [True, False]
    assert written["machine"]["cores"] >= 1
    assert "/" not in json.dumps(written["machine"])
    assert report.table(tmp_path).splitlines()[2:] == [
        "| B0 | a | at most 2 | 1.50 | met |",
        "| B0 | b | at least 2 | 1 | **missed** |",
    ]


def test_an_unknown_benchmark_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["B99"])
    assert ended.value.code == 2
    assert "B99" in capsys.readouterr().err

"""From a policy to frozen waves: every target in exactly one, numbers resolved, the same inputs give the same plan."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import resources
from reconciler.core.documents import Cluster, RolloutPolicy
from reconciler.core.model import Target
from reconciler.core.parse import parse
from reconciler.core.waves import Change, UnmatchedTargetsError, as_json, freeze, resolve
from reconciler.core.yaml_kube import load

HEAD = "apiVersion: reconciler.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {name: p}\nspec:\n"


def policy(spec: str) -> RolloutPolicy:
    parsed = parse(load("p.yaml", (HEAD + spec).encode()).documents[0])
    assert isinstance(parsed.value, RolloutPolicy), [str(problem) for problem in parsed.problems]
    return parsed.value


def waves_of(*waves: str, more: str = "") -> RolloutPolicy:
    return policy("  waves:\n" + "".join(f"  - {{{wave}}}\n" for wave in waves) + more)


def clusters(count: int, canaries: int = 0) -> dict[str, Cluster]:
    names = [f"c{index:03}" for index in range(count)]
    return {name: Cluster(name, {"ring": "canary" if i < canaries else "rest"}, name) for i, name in enumerate(names)}


def targets(names: Iterable[str], application: str = "f/a") -> list[Target]:
    return [Target(application, name) for name in names]


CANARY = "name: canary, select: {clusters: {ring: canary}}, bake: 30m, maxConcurrent: 1"
EARLY = "name: early, size: 25%, bake: 10m, maxConcurrent: 20%"
REST = "name: rest, size: 100%, bake: 5m, maxConcurrent: 20%, maxFailures: 2%"


def test_the_example_of_the_docs() -> None:
    fleet = clusters(102, canaries=2)
    resolved = resolve(waves_of(CANARY, EARLY, REST), targets(fleet), fleet, {})
    assert [len(wave.targets) for wave in resolved.waves] == [2, 25, 75]
    assert [wave.max_concurrent for wave in resolved.waves] == [1, 5, 15]
    assert [wave.max_failures for wave in resolved.waves] == [0, 0, 1]
    assert [wave.max_unreachable for wave in resolved.waves] == [0, 2, 7]
    assert [wave.minimum_s for wave in resolved.waves] == [3600, 3000, 1500]
    assert resolved.unmatched == ()


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0, 0]), (1, [1, 0]), (2, [1, 1]), (3, [1, 2]), (4, [1, 3]), (7, [1, 6]), (8, [2, 6])]
)
def test_a_share_is_rounded_down_and_at_least_one(count: int, sizes: list[int]) -> None:
    fleet = clusters(count)
    resolved = resolve(waves_of(EARLY, REST), targets(fleet), fleet, {})
    assert [len(wave.targets) for wave in resolved.waves] == sizes


def test_a_share_is_of_what_no_earlier_wave_took() -> None:
    fleet = clusters(100)
    half = [f"name: w{index}, size: 50%" for index in range(3)]
    resolved = resolve(waves_of(*half, REST), targets(fleet), fleet, {})
    assert [len(wave.targets) for wave in resolved.waves] == [50, 25, 12, 13]


def test_numbers_above_the_wave_are_not_clamped() -> None:
    fleet = clusters(3)
    wave = "name: all, size: 100%, bake: 1m, maxConcurrent: 5, maxFailures: 5, maxUnreachable: 4"
    [resolved] = resolve(waves_of(wave), targets(fleet), fleet, {}).waves
    assert (resolved.max_concurrent, resolved.max_failures, resolved.max_unreachable) == (5, 5, 4)
    assert resolved.minimum_s == 60


def test_unreachable_defaults() -> None:
    fleet = clusters(40, canaries=20)
    for more, expected in (("", [0, 2]), ("  maxUnreachable: 50%\n", [0, 10]), ("  maxUnreachable: 3\n", [0, 3])):
        resolved = resolve(waves_of(CANARY, REST, more=more), targets(fleet), fleet, {})
        assert [wave.max_unreachable for wave in resolved.waves] == expected
    own = resolve(waves_of(CANARY + ", maxUnreachable: 10%", REST), targets(fleet), fleet, {})
    assert own.waves[0].max_unreachable == 2


def test_without_canaries_the_first_wave_that_has_targets_is_the_careful_one() -> None:
    fleet = clusters(40)
    resolved = resolve(waves_of(CANARY, "name: half, size: 50%", REST), targets(fleet), fleet, {})
    assert [(len(wave.targets), wave.max_unreachable) for wave in resolved.waves] == [(0, 0), (20, 0), (20, 2)]


def test_applications_are_selected_by_their_labels() -> None:
    fleet = clusters(2)
    wanted = waves_of("name: tier2, select: {applications: {tier: '2'}}", REST)
    both = targets(fleet, "f/a") + targets(fleet, "f/b")
    resolved = resolve(wanted, both, fleet, {"f/a": {"tier": "1"}, "f/b": {"tier": "2"}})
    assert {target.application for target in resolved.waves[0].targets} == {"f/b"}
    assert {target.application for target in resolved.waves[1].targets} == {"f/a"}


def test_targets_no_wave_takes_are_named() -> None:
    fleet = clusters(3, canaries=1)
    changes = [Change(target, None, "d") for target in targets(fleet)]
    with pytest.raises(UnmatchedTargetsError, match=r"f/a@c001, f/a@c002"):
        freeze(waves_of(CANARY), changes, fleet, {}, check_interval_s=10)


def test_empty_waves_are_left_out_of_a_plan_with_their_waits() -> None:
    fleet = clusters(2)
    changes = [Change(target, None, "d") for target in targets(fleet)]
    plan = freeze(waves_of(CANARY, REST), changes, fleet, {}, check_interval_s=10)
    assert [wave.name for wave in plan.waves] == ["rest"]


def test_the_sick_go_first_in_their_wave() -> None:
    fleet = clusters(4, canaries=2)
    sick = frozenset(targets(["c001", "c003"]))
    resolved = resolve(waves_of(CANARY, REST), targets(fleet), fleet, {}, sick)
    assert [[target.cluster for target in wave.targets] for wave in resolved.waves] == [
        ["c001", "c000"],
        ["c003", "c002"],
    ]


def test_a_plan_carries_the_policy() -> None:
    fleet = clusters(30)
    more = "  progressDeadline: 20m\n  onFailure: rollback\n  mandatory: false\n  maxDeletes: 10%\n"
    changes = [Change(target, None, "d") for target in targets(fleet)]
    plan = freeze(waves_of(REST, more=more), changes, fleet, {}, check_interval_s=10)
    assert (plan.progress_deadline_s, plan.on_failure, plan.mandatory) == (1200, "rollback", False)
    assert (plan.max_deletes, plan.check_interval_s, plan.policy) == (3, 10, "p")


def test_what_is_not_enforced_closes_its_wave_or_all() -> None:
    fleet = clusters(2, canaries=1)
    of_wave = resolve(waves_of(CANARY, REST + ", approval: before"), targets(fleet), fleet, {}).waves
    assert of_wave[0].closed is None
    assert of_wave[1].closed is not None
    assert of_wave[1].closed.code == "NotYetEnforced"
    assert "approval" in of_wave[1].closed.message
    for field in ("windows: [w]", "gates: [g]", "onForeignChange: halt", "supersede: queue", "fleetBatch: 5"):
        of_policy = resolve(waves_of(CANARY, REST, more=f"  {field}\n"), targets(fleet), fleet, {}).waves
        assert all(wave.closed and field.partition(":")[0] in wave.closed.message for wave in of_policy)
    for field in ("windows: []", "onForeignChange: alert", "supersede: restart", "onUntouchedHealthLoss: alert"):
        open_ones = resolve(waves_of(CANARY, REST, more=f"  {field}\n"), targets(fleet), fleet, {}).waves
        assert all(wave.closed is None for wave in open_ones)


def test_a_cluster_with_maintenance_windows_closes_the_waves_it_is_in() -> None:
    fleet = {**clusters(1, canaries=1), "m": Cluster("m", {}, "m", not_enforced=("maintenanceWindows",))}
    first, second = resolve(waves_of(CANARY, REST), targets(fleet), fleet, {}).waves
    assert first.closed is None
    assert second.closed is not None


def test_the_plan_hash() -> None:
    fleet = clusters(4, canaries=1)
    base = [Change(target, "old", "new", "upgrade", "restart", "kept") for target in targets(fleet)]
    chosen = waves_of(CANARY, REST)

    def hash_of(changes: list[Change], wanted: RolloutPolicy = chosen, interval_s: float = 10) -> str:
        return freeze(wanted, changes, fleet, {}, check_interval_s=interval_s).hash

    assert hash_of(base) == hash_of(list(reversed(base))) == hash_of(base, interval_s=20)
    first = base[0]
    worse = [
        Change(first.target, "other", "new", "upgrade", "restart", "kept"),
        Change(first.target, "old", "other", "upgrade", "restart", "kept"),
        Change(first.target, "old", "new", "scale", "restart", "kept"),
        Change(first.target, "old", "new", "upgrade", "none", "kept"),
        Change(first.target, "old", "new", "upgrade", "restart", "lost"),
        Change(first.target, "old", "new", "upgrade", "restart", "kept", deletes=1),
    ]
    hashes = {hash_of([change, *base[1:]]) for change in worse}
    hashes |= {hash_of(base[1:]), hash_of(base, waves_of(CANARY, REST.replace("2%", "50%")))}
    assert len(hashes | {hash_of(base)}) == len(worse) + 3


@given(
    st.integers(0, 40),
    st.integers(0, 5),
    st.lists(st.integers(1, 99), max_size=4),
    st.integers(1, 100),
    st.integers(0, 100),
)
def test_every_target_is_in_exactly_one_wave(
    count: int, canaries: int, shares: list[int], concurrent: int, failures: int
) -> None:
    fleet = clusters(count, min(canaries, count))
    middle = [f"name: w{i}, size: {share}%, maxConcurrent: {concurrent}%" for i, share in enumerate(shares)]
    wanted = waves_of(CANARY, *middle, f"name: rest, size: 100%, maxFailures: {failures}%")
    resolved = resolve(wanted, targets(fleet), fleet, {})
    placed = [target for wave in resolved.waves for target in wave.targets]
    assert sorted(placed) == sorted(targets(fleet))
    assert resolved.unmatched == ()
    for wave in resolved.waves:
        assert wave.max_concurrent >= 1
        assert 0 <= wave.max_failures <= len(wave.targets)
    backwards = dict(reversed(fleet.items()))
    assert resolve(wanted, reversed(targets(fleet)), backwards, {}) == resolved


def test_json() -> None:
    fleet = clusters(3, canaries=1)
    chosen = waves_of(CANARY, REST + ", approval: after")
    assert as_json(chosen, resolve(chosen, targets(fleet), fleet, {}).waves) == [
        {
            "name": "canary", "clusters": ["c000"], "targets": 1, "max_concurrent": 1, "max_failures": 0,
            "max_unreachable": 0, "bake_s": 1800.0, "minimum_s": 1800.0, "approval": None,
        },
        {
            "name": "rest", "clusters": ["c001", "c002"], "targets": 2, "max_concurrent": 1, "max_failures": 0,
            "max_unreachable": 0, "bake_s": 300.0, "minimum_s": 600.0, "approval": "after",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("  waves: []", "waves"),
        ("  waves: [{name: a}]", "size"),
        ("  waves: [{name: a, size: 100%, select: {clusters: {a: b}}}]", "size"),
        ("  waves: [{name: a, select: {}}]", "select"),
        ("  waves: [{name: a, size: 50%}]", "size"),
        ("  waves: [{name: a, size: 100%}, {name: b, size: 100%}]", "size"),
        ("  waves: [{name: a, size: 100%}, {name: a, size: 100%}]", "name"),
        *[
            (f"  waves: [{{name: a, size: {size}}}]", "size")
            for size in ("25", "0%", "101%", "-1%", "ten", "1.5", "true", "100", "'100 %'", "33.333%")
        ],
        *[
            (f"  waves: [{{name: a, size: 100%, maxConcurrent: {value}}}]", "maxConcurrent")
            for value in ("0", "0%", "-1", "120%", "1.5", "'5'", "true", "[1]")
        ],
        *[
            (f"  waves: [{{name: a, size: 100%, {field}: {value}}}]", field)
            for field in ("maxFailures", "maxUnreachable")
            for value in ("-1", "101%", "0.5", "no", "few")
        ],
        *[
            (f"  waves: [{{name: a, size: 100%, bake: {value}}}]", "bake")
            for value in ("30", "30 m", "-5m", "25h", "''")
        ],
        ("  waves: [{name: a, size: 100%}]\n  progressDeadline: 1s", "progressDeadline"),
        ("  waves: [{name: a, size: 100%}]\n  progressDeadline: 15", "progressDeadline"),
        ("  waves: [{name: a, size: 100%}]\n  maxDeletes: 21", "maxDeletes"),
        ("  waves: [{name: a, size: 100%}]\n  maxDeletes: most", "maxDeletes"),
        ("  waves: [{name: a, size: 100%}]\n  onFailure: rolback", "onFailure"),
        ("  waves: [{name: a, size: 100%}]\n  mandatory: maybe", "mandatory"),
        ("  waves: [{name: a, size: 100%}]\n  wave: 1", "wave"),
    ],
)
def test_ambiguous_numbers_are_refused(spec: str, path: str) -> None:
    parsed = parse(load("p.yaml", (HEAD + spec).encode()).documents[0])
    assert parsed.value is None
    assert parsed.problems
    assert all(problem.line >= 5 for problem in parsed.problems)
    assert any(path in problem.message for problem in parsed.problems), [str(p) for p in parsed.problems]


def test_the_shipped_policy_uses_only_what_is_enforced() -> None:
    standard = resources.catalogue().policies["standard"]
    assert not standard.not_enforced
    assert not any(wave.not_enforced for wave in standard.waves)
    assert [wave.bake_s for wave in standard.waves] == [1800, 600, 300]

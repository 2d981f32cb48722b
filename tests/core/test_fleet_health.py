"""Health policies of a fleet: which are in force, and what waits while one is broken."""

from __future__ import annotations

import pytest

from reconciler.core import fleet_health
from reconciler.core.health_rules import HealthPolicies
from reconciler.core.model import Manifest
from tests.core.fleets import application, build, errors, fleet_files, manifests, problem

CONFIG = """\
apiVersion: reconciler.dev/v1alpha1
kind: HealthPolicy
metadata: {name: config}
spec:
  match: [{kind: ConfigMap, name: one}]
  rules: [{health: Healthy, when: "true"}]
"""
BROKEN = CONFIG.replace('"true"', '"tru"')
PATH = "policies/health.yaml"
CONFIG_MAP: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}


def names(policies: HealthPolicies) -> list[str]:
    return [policy.name for policy in policies.policies]


def test_a_fleet_has_the_shipped_policies_and_its_own() -> None:
    result = build(fleet_files(**{PATH: CONFIG}))
    assert not result.snapshot.problems
    assert names(result.snapshot.health) == ["config", "flink-state-snapshot"]
    own = build(fleet_files(**{PATH: CONFIG.replace("name: config", "name: flink-state-snapshot")}))
    assert names(own.snapshot.health) == ["flink-state-snapshot"]
    assert own.snapshot.health.rules_for(CONFIG_MAP) is not None


def test_a_policy_stands_below_policies() -> None:
    result = build(fleet_files(**{"apps/health.yaml": CONFIG}))
    assert ("apps/health.yaml", "misplaced-document") in errors(result)
    assert names(result.snapshot.health) == ["flink-state-snapshot"]


def test_a_broken_policy_keeps_its_last_good_version_and_blocks_what_it_judges() -> None:
    files = fleet_files(**{PATH: CONFIG, "apps/two/app.yaml": application("two", manifests("two"))})
    first = build(files)
    second = build({**files, PATH: BROKEN, "apps/one/app.yaml": application("one", manifests("one", "2"))}, first.cache)
    assert second.snapshot.health == first.snapshot.health
    one, two = second.snapshot.applications["test/one"], second.snapshot.applications["test/two"]
    assert one.blocked is not None
    assert str(one.blocked).startswith(f"BrokenDocument: {PATH}:6:29: 'when' is no expression")
    assert one.targets == first.snapshot.applications["test/one"].targets
    assert two.blocked is None
    third = build({**files, "apps/one/app.yaml": application("one", manifests("one", "2"))}, second.cache)
    assert third.snapshot.applications["test/one"].blocked is None
    assert third.snapshot.applications["test/one"].targets != one.targets


@pytest.mark.parametrize(
    ("broken", "blocked"),
    [
        (BROKEN, ["test/one"]),
        (BROKEN.replace("match: [{kind: ConfigMap, name: one}]", "match: []"), ["test/one", "test/two"]),
        (BROKEN.replace("spec:", "spce:"), ["test/one", "test/two"]),
        (BROKEN.replace("kind: ConfigMap, name: one", "group: example.org, kind: ConfigMap"), []),
    ],
)
def test_a_policy_that_is_broken_from_the_start_blocks_what_it_may_be_about(broken: str, blocked: list[str]) -> None:
    result = build(fleet_files(**{PATH: broken, "apps/two/app.yaml": application("two", manifests("two"))}))
    assert [name for name, found in result.snapshot.applications.items() if found.blocked is not None] == blocked
    assert not result.snapshot.deletions_allowed


def test_a_shipped_policy_does_not_step_in_for_a_broken_one_of_its_name() -> None:
    result = build(fleet_files(**{PATH: BROKEN.replace("name: config", "name: flink-state-snapshot")}))
    assert names(result.snapshot.health) == []


def test_two_policies_of_one_name() -> None:
    result = build(fleet_files(**{PATH: CONFIG, "policies/z.yaml": CONFIG}))
    assert "the first is in policies/health.yaml" in problem(result, "duplicate-name").message
    assert names(result.snapshot.health) == ["config", "flink-state-snapshot"]
    assert result.snapshot.applications["test/one"].blocked is not None


def test_a_fleet_has_so_many_policies_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_health, "POLICIES_MAX", 2)
    files = {f"policies/h{number}.yaml": CONFIG.replace("name: config", f"name: h{number}") for number in range(3)}
    result = build(fleet_files(**files))
    assert problem(result, "too-many").file == "policies/h2.yaml"
    assert names(result.snapshot.health) == ["flink-state-snapshot", "h0", "h1"]

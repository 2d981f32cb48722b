"""Traits: checked before anything is combined, every refusal naming both sides."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import resources
from reconciler.core.compile import Inputs, compile_application
from reconciler.core.documents import Application, Cluster, TraitUse
from reconciler.core.objects import Scope
from reconciler.core.parse import parse
from reconciler.core.problems import Problem
from reconciler.core.traits import (
    Place,
    TraitDefinition,
    check_traits,
    combine,
    flink_duration,
    pointer,
    show,
    writes_of,
)
from reconciler.core.yaml_kube import Document, load
from tests.core.fleets import application, flink

CHECKPOINTING = "    - {type: checkpointing, properties: {interval: 60s, directory: 's3://b/c'}}\n"


def compiled(components: str, policies: str = "") -> tuple[dict[str, Any] | None, list[Problem]]:
    """The FlinkDeployment of an application on one cluster, and its problems."""
    parsed = parse(load("app.yaml", application("job", components, policies).encode()).documents[0])
    assert isinstance(parsed.value, Application), parsed.problems
    catalogue = resources.catalogue()
    inputs = Inputs("test/job", "flink", catalogue.traits, Scope())
    result = compile_application(parsed.value, {"a": Cluster("a", {"region": "eu"}, "a")}, inputs)
    found = [manifest for release in result.releases.values() for manifest in release.objects]
    return (found[0] if found else None), list(result.problems)


def spec(traits: str, more: str = "", policies: str = "") -> dict[str, Any]:
    manifest, problems = compiled(flink("job", more=more, traits=traits), policies)
    assert not problems, [str(problem) for problem in problems]
    assert manifest is not None
    return dict(manifest["spec"])


def refused(traits: str, more: str = "", policies: str = "") -> Problem:
    manifest, [problem] = compiled(flink("job", more=more, traits=traits), policies)
    assert manifest is None
    return problem


def test_checkpointing() -> None:
    traits = """\
    - type: checkpointing
      properties:
        {interval: 1h30m, directory: 's3://b/c', savepointDirectory: 's3://b/s', mode: at-least-once, timeout: 10m,
         minPause: 500ms, tolerableFailures: 3, unaligned: true, incremental: false, backend: rocksdb, retain: false}
"""
    assert spec(traits)["flinkConfiguration"] == {
        "execution.checkpointing.interval": "5400s",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "execution.checkpointing.timeout": "10m",
        "execution.checkpointing.min-pause": "500ms",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
        "execution.checkpointing.unaligned.enabled": "true",
        "execution.checkpointing.incremental": "false",
        "execution.checkpointing.externalized-checkpoint-retention": "DELETE_ON_CANCELLATION",
        "state.backend.type": "rocksdb",
        "state.checkpoints.dir": "s3://b/c",
        "state.savepoints.dir": "s3://b/s",
    }


def test_defaults_are_written() -> None:
    configuration = spec(CHECKPOINTING)["flinkConfiguration"]
    assert configuration["execution.checkpointing.mode"] == "EXACTLY_ONCE"
    assert configuration["execution.checkpointing.externalized-checkpoint-retention"] == "RETAIN_ON_CANCELLATION"


def test_resources() -> None:
    traits = """\
    - type: resources
      properties:
        jobManager: {cpu: 0.5, memory: 1g, replicas: 2}
        taskManager: {cpu: 2, memory: 2048m, replicas: 3, slots: 4}
"""
    found = spec(traits)
    assert found["jobManager"] == {"resource": {"cpu": 0.5, "memory": "1g"}, "replicas": 2}
    assert found["taskManager"] == {"resource": {"cpu": 2, "memory": "2048m"}, "replicas": 3}
    assert found["flinkConfiguration"] == {"taskmanager.numberOfTaskSlots": "4"}


@pytest.mark.parametrize("mode", ["savepoint", "last-state"])
def test_keeping_state_needs_checkpoints(mode: str) -> None:
    strategy = f"    - {{type: upgrade-strategy, properties: {{mode: {mode}}}}}\n"
    problem = refused(strategy)
    assert problem.code == "missing-prerequisite"
    assert problem.line == 13
    assert "checkpointing" in problem.hint
    assert spec(strategy + CHECKPOINTING)["job"]["upgradeMode"] == mode
    configured = "      flinkConfiguration: {state: {checkpoints: {dir: 's3://b/c'}}}\n"
    assert spec(strategy, configured)["job"]["upgradeMode"] == mode


def test_keeping_state_needs_checkpoints_without_the_trait_too() -> None:
    components = flink("job").replace("parallelism: 2", "parallelism: 2, upgradeMode: savepoint")
    _, [problem] = compiled(components)
    assert (problem.code, problem.line) == ("missing-prerequisite", 11)


def test_stateless_needs_nothing() -> None:
    assert spec("    - {type: upgrade-strategy, properties: {mode: stateless}}\n")["job"]["upgradeMode"] == "stateless"


@pytest.mark.parametrize(
    ("traits", "code", "says"),
    [
        ("    - {type: chekpointing}\n", "unknown-trait", "did you mean 'checkpointing'?"),
        (CHECKPOINTING + CHECKPOINTING, "trait-duplicate", "the first is at app.yaml:13"),
        ("    - {type: checkpointing, properties: {interval: 60s}}\n", "missing-field", "'directory' is missing"),
        ("    - {type: checkpointing, properties: {interval: 60, directory: 's3://b'}}\n", "invalid-type", "number 60"),
        ("    - {type: checkpointing, properties: {interval: 1x, directory: 's3://b/c'}}\n", "invalid-value", "1x"),
        ("    - {type: checkpointing, properties: {interval: 1s, directory: nowhere}}\n", "invalid-value", "nowhere"),
        ("    - {type: resources, properties: {taskManager: {memry: 1g}}}\n", "unknown-field", "'memory'"),
        ("    - {type: resources, properties: {taskManager: {cpu: 0}}}\n", "invalid-value", "at least 0.01"),
        ("    - {type: resources, properties: {taskManager: {memory: lots}}}\n", "invalid-value", "lots"),
    ],
)  # fmt: skip
def test_refused(traits: str, code: str, says: str) -> None:
    problem = refused(traits)
    assert problem.code == code
    assert says in f"{problem.message} {problem.hint}"
    assert problem.line >= 11


def test_a_trait_and_the_component_that_differ_are_both_named() -> None:
    more = "      flinkConfiguration:\n        execution:\n          checkpointing.interval: 5s\n"
    problem = refused(CHECKPOINTING, more)
    assert problem.code == "write-conflict"
    assert "app.yaml:14" in problem.message
    assert problem.line == 16
    assert "'60s'" in problem.message
    assert "'5s'" in problem.message


def test_a_trait_and_the_component_that_agree_are_fine() -> None:
    spec(CHECKPOINTING, "      flinkConfiguration: {execution.checkpointing.interval: 60s}\n")
    spec("    - {type: resources, properties: {taskManager: {slots: 2}}}\n",
         "      flinkConfiguration: {taskmanager: {numberOfTaskSlots: 2}}\n")  # fmt: skip


def test_a_trait_does_not_apply_to_manifests() -> None:
    inline = "{objects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}]}"
    component = f"  - name: x\n    type: manifests\n    properties: {inline}\n    traits:\n{CHECKPOINTING}"
    _, [problem] = compiled(component)
    assert problem.code == "trait-applies"


def test_an_override_changes_a_trait_and_is_where_its_problem_is() -> None:
    def policy(properties: str) -> str:
        return (
            "  - type: override\n    properties:\n      clusterLabelSelector: {region: eu}\n      components:\n"
            f"      - name: job\n        traits:\n        - {{type: checkpointing, properties: {properties}}}\n"
        )

    configuration = spec(CHECKPOINTING, policies=policy("{interval: 5s}"))["flinkConfiguration"]
    assert configuration["execution.checkpointing.interval"] == "5s"
    assert configuration["state.checkpoints.dir"] == "s3://b/c"
    assert refused(CHECKPOINTING, policies=policy("{interval: 5 s}")).line == 22


# ---- what the shipped three do not use yet: conflicts, and two traits with one path ----------------------------------


def definition(name: str, value: str, conflicts: tuple[str, ...] = ()) -> TraitDefinition:
    return (
        resources.catalogue()
        .traits["upgrade-strategy"]
        .__class__(
            name=name,
            description="",
            applies_to=("flink-application",),
            conflicts_with=conflicts,
            pod_disruptive=False,
            schema={"type": "object", "properties": {"value": {"type": "string", "default": value}}},
            requires=(),
            patches=(resources.catalogue().traits["upgrade-strategy"].patches[0].__class__(("spec", "x"), "value"),),
        )
    )


def places() -> list[Place]:
    document: Document = load("f.yaml", b"traits:\n- {type: a}\n- {type: b}\n").documents[0]
    return [Place(TraitUse(name, {}, ("traits", index)), document) for index, name in enumerate("ab")]


def test_conflicting_traits_are_both_named() -> None:
    catalogue = {"a": definition("a", "1", ("b",)), "b": definition("b", "1")}
    [problem] = check_traits("flink-application", places(), catalogue)
    assert (problem.code, problem.line) == ("trait-conflict", 2)
    assert "f.yaml:3" in problem.message


def test_two_traits_with_one_path() -> None:
    first, second = places()
    writes = writes_of(first, definition("a", "1")) + writes_of(second, definition("b", "2"))
    combined, [problem] = combine({"spec": {}}, writes, lambda _: "")
    assert (problem.code, problem.line) == ("write-conflict", 3)
    assert "f.yaml:2" in problem.message
    assert combined == {"spec": {"x": "1"}}
    writes = writes_of(first, definition("a", "1")) + writes_of(second, definition("b", "1"))
    assert combine({"spec": {}}, writes, lambda _: "") == ({"spec": {"x": "1"}}, [])


@pytest.mark.parametrize(
    ("text", "expected"), [("60s", "60s"), ("500ms", "500ms"), ("1h30m", "5400s"), ("1s500ms", "1500ms"), ("2d", "2d")]
)
def test_flink_durations_have_one_unit(text: str, expected: str) -> None:
    assert flink_duration(text) == expected


def test_pointers() -> None:
    assert pointer("/a/b~1c/d~0e") == ("a", "b/c", "d~e")
    assert show(("a", "b/c", "d~e")) == "/a/b~1c/d~0e"

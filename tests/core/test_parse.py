"""Documents: every mistake is a located problem with a code and, where there is one, the way out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.documents import Application, Fleet
from reconciler.core.formats import duration_s, parse_amount
from reconciler.core.parse import parse, parse_file
from reconciler.core.problems import Severity
from reconciler.core.schema import check, suggest
from reconciler.core.schemas import SCHEMAS
from reconciler.core.yaml_kube import load

APP = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: orders, labels: {team: payments}}
spec:
  components:
  - name: orders
    type: flink-application
    properties: {image: x}
  policies:
  - {type: topology, properties: {clusterLabelSelector: {env: prod}}}
"""
OWN = "apiVersion: reconciler.dev/v1alpha1\n"


def problems(text: str) -> list[tuple[str, int]]:
    documents, found = parse_file("f.yaml", text.encode())
    return [(p.code, p.line) for p in [*found, *(problem for parsed in documents for problem in parsed.problems)]]


def hints(text: str) -> str:
    documents, _ = parse_file("f.yaml", text.encode())
    return " ".join(problem.hint for parsed in documents for problem in parsed.problems)


def test_an_application() -> None:
    parsed = parse(load("f.yaml", APP.encode()).documents[0])
    assert isinstance(parsed.value, Application)
    assert parsed.value.labels == {"team": "payments"}
    assert parsed.value.rollout is None
    assert not parsed.problems


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("- 1\n", "not-an-object", 1),
        ("hello\n", "not-an-object", 1),
        ("kind: Pod\n", "missing-field", 1),
        ("apiVersion: v1\nkind: ''\n", "missing-field", 2),
        ("apiVersion: v1\nkind: [Pod]\n", "missing-field", 2),
        (OWN + "kind: Clutser\n", "unknown-kind", 2),
        ("apiVersion: reconciler.dev/v1\nkind: Cluster\n", "unknown-kind", 1),
        ("apiVersion: core.oam.dev/v1alpha2\nkind: ApplicationConfiguration\n", "unsupported", 1),
        ("apiVersion: core.oam.dev/v1alpha2\nkind: Component\n", "unsupported", 1),
        ("apiVersion: core.oam.dev/v1beta1\nkind: ComponentDefinition\n", "unsupported", 2),
        (OWN + "kind: TraitDefinition\nmetadata: {name: x}\n", "unsupported", 2),
        *[(OWN + f"kind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n", "not-yet-enforced", 2)
          for kind in ("ChangeWindow", "Gate", "Guardrail", "HealingPolicy")],
        (APP.replace("metadata:", "metdata:"), "missing-field", 1),
        (APP.replace("{name: orders, labels", "{name: '', labels"), "missing-field", 3),
        (APP.replace("{name: orders, labels", "{name: Orders, labels"), "invalid-value", 3),
        (APP.replace("team: payments", "team: 1"), "invalid-type", 3),
        (APP.replace("team: payments", "team: on"), "invalid-type", 3),
        (APP.replace("components:", "component:"), "missing-field", 4),
        (APP + "  workflow: {steps: []}\n", "unsupported", 11),
        (APP.replace("    type: flink-application\n", ""), "missing-field", 6),
        (APP.replace("    type: flink", "    dependsOn: [a]\n    type: flink"), "unsupported", 7),
        (APP.replace("type: topology", "type: topologie"), "unsupported", 10),
        (APP.replace("clusterLabelSelector: {env: prod}", ""), "no-targets", 10),
        (APP.replace("clusterLabelSelector: {env: prod}", "clusterLabelSelector: {env: prod}, clusters: [a]"),
         "invalid-value", 10),
        (APP.replace("clusterLabelSelector:", "clusterSelector:"), "unknown-field", 10),
        (APP.replace("clusterLabelSelector: {env: prod}", "clusters: []"), "missing-field", 10),
        (APP[: APP.index("  policies")], "no-targets", 4),
        (APP + "  - {type: rollout, properties: {policy: a}}\n" * 2, "duplicate-name", 12),
        (APP.replace("{team: payments}", "{reconciler.dev/owner: x}"),
         "unsupported", 3),
        (APP + "  - {type: rollout}\n", "missing-field", 11),
        (APP + "  - {type: override, properties: {components: [{name: oders}]}}\n", "unknown-component", 11),
        (APP + "  - {type: override, properties: {components: [{name: orders}, {name: orders}]}}\n",
         "duplicate-name", 11),
        (APP + "  - {type: override, properties: {components: [{name: orders, traits: [{type: ha}, {type: ha}]}]}}\n",
         "trait-duplicate", 11),
        (APP.replace("  policies", "  - {name: orders, type: manifests}\n  policies"), "duplicate-name", 9),
        (OWN + "kind: Cluster\nmetadata: {name: a}\nspec: {stalAfter: 1m}\n", "unknown-field", 4),
        (OWN + "kind: Cluster\nmetadata: {name: a}\nspec: {staleAfter: 60}\n", "invalid-type", 4),
        (OWN + "kind: Cluster\nmetadata: {name: a}\nspec: {staleAfter: 0s}\n", "invalid-value", 4),
        (OWN + "kind: Cluster\nmetadata: {name: a}\nspec: {flinkRest: proxy}\n", "invalid-value", 4),
        (OWN + "kind: Cluster\nmetadata: {name: a_b}\n", "invalid-value", 3),
        (OWN + "kind: Cluster\nmetadata: {name: a}\nspec: {maintenanceWindows: [x]}\n", "not-yet-enforced", 4),
        (OWN + "kind: Fleet\nmetadata: {name: a}\nspec: {clusters: ../x, applications: a}\n", "invalid-value", 4),
        (OWN + "kind: Fleet\nmetadata: {name: a}\nspec: {clusters: /x, applications: a}\n", "invalid-value", 4),
        (OWN + "kind: Fleet\nmetadata: {name: a}\nspec: {clusters: x, applications: [a, b//c]}\n", "invalid-value", 4),
        (OWN + "kind: Fleet\nmetadata: {name: a}\nspec: {clusters: '*a*b*c*', applications: a}\n", "invalid-value", 4),
        (OWN + "kind: Fleet\nmetadata: {name: a}\nspec: {clusters: x, applications: 1}\n", "invalid-type", 4),
        (OWN + "kind: Fleet\nmetadata: {name: a}\nspec: {clusters: x}\n", "missing-field", 4),
        (APP + "a: [\n", "invalid-yaml", 12),
        (APP.replace("labels:", "annotations: {reconciler.dev/hold: x}, labels:"), "unsupported", 3),
    ],
)  # fmt: skip
def test_a_mistake_is_located(text: str, code: str, line: int) -> None:
    assert (code, line) in problems(text), problems(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OWN + "kind: Clutser\n", "did you mean 'Cluster'?"),
        (APP.replace("metadata:", "metdata:"), "did you mean 'metadata'?"),
        (APP.replace("type: topology", "type: topologie"), "did you mean 'topology'?"),
        (APP.replace("team: payments", "team: 1"), "in quotes"),
        (OWN + "kind: RolloutPolicy\nmetadata: {name: p}\nspec: {fleetBatch: '2'}\n", "write 2 without quotes"),
        ("apiVersion: core.oam.dev/v1alpha2\nkind: Component\n", "core.oam.dev/v1beta1"),
    ],
)
def test_hints(text: str, says: str) -> None:
    assert says in hints(text)


def test_a_warning_keeps_a_document_usable() -> None:
    text = OWN + "kind: Cluster\nmetadata: {name: a}\nspec: {maintenanceWindows: [1]}\n"
    [parsed], _ = parse_file("f.yaml", text.encode())
    assert parsed.value is not None
    assert not parsed.broken
    assert parsed.problems[0].severity is Severity.WARNING


def test_null_is_absent() -> None:
    text = OWN + "kind: Fleet\nmetadata: {name: a, labels: null}\nspec: {clusters: c, applications: a, policies: ~}\n"
    parsed = parse(load("f.yaml", text.encode()).documents[0])
    assert isinstance(parsed.value, Fleet)
    assert parsed.value.policies == ()


def test_unknown_things_are_plain_objects() -> None:
    [parsed], _ = parse_file("f.yaml", b"apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: x}\n")
    assert (parsed.kind, parsed.name) == ("", "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30m", 1800), ("1h30m", 5400), ("1d", 86400), ("90s", 90), ("500ms", 0.5), ("0s", 0),
     ("", None), ("30", None), (30, None), ("m", None), ("1m1h", None), ("-1m", None), ("1.5h", None), (None, None)],
)  # fmt: skip
def test_durations(text: Any, expected: float | None) -> None:
    assert duration_s(text) == expected


@given(st.integers(0, 10_000), st.integers(0, 100_000))
def test_amounts_round_down(points: int, total: int) -> None:
    text = f"{points // 100}.{points % 100:02}%"
    amount = parse_amount(text)
    assert amount is not None
    assert amount.of(total) <= total * points / 10_000 < amount.of(total) + 1
    assert parse_amount(str(amount)) == amount


@given(st.text(max_size=12), st.sets(st.text(min_size=1, max_size=8), max_size=5))
def test_suggestions_never_fail(name: str, known: set[str]) -> None:
    assert isinstance(suggest(name, known), str)


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "30m", "25%", "a/b"])
names = st.sampled_from(
    ["apiVersion", "kind", "metadata", "name", "labels", "spec", "waves", "components", "policies", "type",
     "properties", "traits", "clusters", "select", "size", "bake", "applications", "defaults", "topology",
     "directories", "nope"]
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=15
)


@given(st.sampled_from(sorted(SCHEMAS)), st.dictionaries(names, values, max_size=6), st.booleans())
def test_no_document_makes_the_parser_fail(kind: str, body: Mapping[str, Any], named: bool) -> None:
    version = SCHEMAS[kind]["properties"]["apiVersion"]["enum"][0]
    value = {"apiVersion": version, "kind": kind, **({"metadata": {"name": "x"}} if named else {})}
    value = {**body, **value}
    [parsed], found = parse_file("f.yaml", json.dumps(value).encode())
    assert not found
    assert (parsed.value is None) == parsed.broken
    assert all(problem.line >= 1 for problem in parsed.problems)


@given(values)
def test_a_schema_check_never_fails(value: Any) -> None:
    for schema in SCHEMAS.values():
        for finding in check(schema, value):
            assert finding.message


def test_a_message_is_fit_for_a_terminal() -> None:
    text = 'apiVersion: core.oam.dev/v1beta1\nkind: "A\\e[31m' + "x" * 2000 + '"\n'
    [parsed], _ = parse_file("f.yaml", text.encode())
    [problem] = parsed.problems
    assert problem.message.isprintable()
    assert len(problem.message) <= 500

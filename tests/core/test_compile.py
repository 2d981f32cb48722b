"""Application x clusters -> releases: variants, overrides, cleaning, ownership; and the sample repository's manifests.

The golden files are what `reconciler render` prints for each sample application. After a wanted change:

    UPDATE_GOLDEN=1 python -m pytest tests/core/test_compile.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import resources
from reconciler.cli import offline
from reconciler.core.components.effective import merge
from reconciler.core.components.flink_application import as_text
from reconciler.core.documents import Cluster
from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.objects import Located, Scope, normalise
from reconciler.core.order import STAGES, in_apply_order, order_key, stage_name, stage_of
from reconciler.core.ownership import owner_hash, stamp
from reconciler.core.yaml_dump import dump
from reconciler.core.yaml_kube import load
from tests.core.fleets import application, build, cluster, config_map, errors, fleet_files, flink, manifests

GOLDEN = Path(__file__).parent.parent / "golden/manifests"
SAMPLE = offline.compile_path(resources.sample_directory())


def objects(text: str, namespace: str | None = "flink", scope: Scope | None = None) -> list[Manifest]:
    """The normalised objects of a file."""
    located = [Located(document.value, document) for document in load("f.yaml", text.encode()).documents]
    found, problems = normalise(located, namespace, scope or Scope())
    assert not problems, [str(problem) for problem in problems]
    return found


# ---- the sample ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLE.applications))
def test_golden_manifests(name: str) -> None:
    text = offline.render(resources.sample_directory(), name).text()
    path = GOLDEN / f"{name.partition('/')[2]}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    loaded = load(path.name, path.read_bytes())
    assert [document.value for document in loaded.documents] == offline.render(
        resources.sample_directory(), name
    ).manifests


def test_there_is_no_golden_file_too_many() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {name.partition("/")[2] for name in SAMPLE.applications}


def test_the_sample_is_clean_and_large_enough() -> None:
    assert SAMPLE.problems == ()
    assert SAMPLE.deletions_allowed
    assert len(SAMPLE.clusters) == 8
    assert len({cluster.labels["region"] for cluster in SAMPLE.clusters.values()}) == 3
    assert len(SAMPLE.applications) >= 12
    assert SAMPLE.target_count >= 40
    for compiled in SAMPLE.applications.values():
        rings = [SAMPLE.clusters[name].labels["ring"] for name in compiled.targets]
        assert rings.count("canary") in (1, 2), compiled.name
        assert {"early", "rest"} <= set(rings), compiled.name


# ---- variants and overrides ------------------------------------------------------------------------------------------


def overridden(*changes: str) -> str:
    return "".join(
        f"  - type: override\n    properties: {{{selector}, components: [{{name: job, properties: {properties}}}]}}\n"
        for selector, properties in (change.split("|") for change in changes)
    )


def flink_specs(policies: str, clusters: dict[str, str], more: str = "") -> tuple[dict[str, Any], int]:
    files = {f"clusters/{name}.yaml": text for name, text in clusters.items()}
    files["apps/one/app.yaml"] = application("one", flink("job", more=more), policies)
    result = build(fleet_files(**files))
    assert not errors(result), [str(problem) for problem in result.snapshot.problems]
    one = result.snapshot.applications["test/one"]
    specs = {name: one.releases[digest].objects[-1]["spec"] for name, digest in one.targets.items()}
    return specs, len(one.releases)


def test_clusters_with_the_same_overrides_share_a_release() -> None:
    clusters = {
        name: cluster(name, region=region) for name, region in (("a", "eu"), ("b", "us"), ("c", "us"), ("d", "ap"))
    }
    specs, releases = flink_specs(overridden("clusterLabelSelector: {region: us}|{job: {parallelism: 8}}"), clusters)
    assert {name: spec["job"]["parallelism"] for name, spec in specs.items()} == {"a": 2, "b": 8, "c": 8, "d": 2}
    assert releases == 2


def test_of_two_overrides_the_later_wins() -> None:
    clusters = {"a": cluster("a", region="eu"), "b": cluster("b", region="us")}
    everywhere = "clusterLabelSelector: {}|{image: 'job:2', mode: standalone}"
    policies = overridden(everywhere, "clusters: [b]|{image: 'job:3'}")
    specs, _ = flink_specs(policies, clusters)
    assert {name: spec["image"] for name, spec in specs.items()} == {"a": "job:2", "b": "job:3"}
    assert specs["b"]["mode"] == "standalone"


def test_null_removes_and_lists_are_replaced() -> None:
    assert merge({"a": 1, "b": {"c": [1, 2], "d": 1}}, {"a": None, "b": {"c": [3]}}) == {"b": {"c": [3], "d": 1}}


@given(st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3)))
def test_merging_nothing_or_itself_changes_nothing(value: Any) -> None:
    if isinstance(value, dict):
        assert merge(value, {}) == value
        assert merge(value, value) == value


def test_the_problem_of_an_override_is_where_the_override_is() -> None:
    files = fleet_files()
    files["apps/one/app.yaml"] = application("one", flink("job"), overridden("clusters: [b]|{job: {parallelism: 0}}"))
    result = build(files)
    [problem] = result.snapshot.problems
    assert (problem.line, problem.code) == (15, "invalid-value")
    assert result.snapshot.applications["test/one"].blocked is not None


# ---- flink-application -----------------------------------------------------------------------------------------------


def test_a_flink_deployment() -> None:
    more = """\
      mode: native
      serviceAccount: runner
      flinkConfiguration:
        a: {b: true, c.d: 1.5, e: {f: 07}}
        g: text
        h: null
      logConfiguration: {log4j.properties: "x"}
      podTemplate: {spec: {containers: [{name: flink-main-container, env: [{name: A, value: "1"}]}]}}
      taskManager: {replicas: 2}
      restartNonce: 3
"""
    specs, _ = flink_specs("", {"a": cluster("a")}, more)
    assert specs["a"] == {
        "image": "job:1",
        "flinkVersion": "v1_20",
        "mode": "native",
        "serviceAccount": "runner",
        "flinkConfiguration": {"a.b": "true", "a.c.d": "1.5", "a.e.f": "7", "g": "text"},
        "logConfiguration": {"log4j.properties": "x"},
        "podTemplate": {
            "spec": {"containers": [{"name": "flink-main-container", "env": [{"name": "A", "value": "1"}]}]}
        },
        "taskManager": {"replicas": 2},
        "restartNonce": 3,
        "job": {"jarURI": "local:///job.jar", "parallelism": 2},
    }


def test_the_service_account_is_the_operators() -> None:
    specs, _ = flink_specs("", {"a": cluster("a")})
    assert specs["a"]["serviceAccount"] == "flink"


@pytest.mark.parametrize(
    ("component", "code", "line"),
    [
        (flink("a" * 46), "invalid-value", 6),
        (flink("job", more="      imgae: x\n"), "unknown-field", 12),
        (flink("job").replace("v1_20", "'1.20'"), "invalid-value", 10),
        (flink("job").replace("jarURI: 'local:///job.jar', ", ""), "missing-field", 11),
        (flink("job").replace("parallelism: 2", "parallelism: '2'"), "invalid-type", 11),
        (flink("job").replace("image: job:1", "image: ''"), "missing-field", 9),
        (flink("job", more="      flinkConfiguration: {a: [1]}\n"), "invalid-type", 12),
        (flink("job", more="      flinkConfiguration: {a.b: 1, a: {b: 2}}\n"), "write-conflict", 12),
        (flink("job", more="      flinkConfiguration: {a.b: 1, a: {b: '1'}}\n"), "", 0),
        ("  - {name: m, type: manifests, properties: {}}\n", "invalid-value", 6),
        ("  - {name: m, type: manifests, properties: {path: x, objects: [{a: 1}]}}\n", "invalid-value", 6),
        ("  - {name: m, type: manifests, properties: {path: ../../x}}\n", "invalid-value", 6),
        ("  - {name: m, type: manifests, properties: {path: nothing}}\n", "path-matches-nothing", 6),
        ("  - {name: m, type: manifests, properties: {objects: [{kind: Pod}]}}\n", "missing-field", 6),
    ],
)  # fmt: skip
def test_component_problems(component: str, code: str, line: int) -> None:
    found = build(fleet_files(**{"apps/one/app.yaml": application("one", component)})).snapshot.problems
    assert [(problem.code, problem.line) for problem in found] == ([(code, line)] if code else [])


def test_flink_values_as_text() -> None:
    assert [as_text(value) for value in (True, 1, 1.5, "x", 0.1)] == ["true", "1", "1.5", "x", "0.1"]


# ---- cleaning --------------------------------------------------------------------------------------------------------


def test_what_the_server_sets_is_removed() -> None:
    exported = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: x
  creationTimestamp: null
  resourceVersion: "1"
  uid: abc
  generation: 1
  managedFields: []
  labels: {}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
data: {a: "1", b: null}
status: {x: 1}
"""
    assert objects(exported) == [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "flink"}, "data": {"a": "1"}}
    ]


def test_string_data_becomes_data_and_wins() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: eA==, b: eA==}\nstringData: {b: 'é'}\n"
    [manifest] = objects(text)
    assert manifest["data"] == {"a": "eA==", "b": "w6k="}
    assert "stringData" not in manifest


def test_a_secret_that_is_wrong_does_not_show_its_values() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {b: 12345678}\n"
    [document] = load("f.yaml", text.encode()).documents
    _, [problem] = normalise([Located(document.value, document)], "x", Scope())
    assert "12345678" not in str(problem)


def test_namespaces_are_set_on_what_has_one() -> None:
    scope = Scope(frozenset({"ClusterRole"}))
    role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n"
    own = config_map("own", namespace="other")
    found = objects(config_map("x") + "---\n" + own + "---\n" + role, "flink", scope)
    assert [manifest["metadata"].get("namespace") for manifest in found] == ["flink", "other", None]


def test_lists_are_flattened_and_located() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {kind: Pod}\n"
    )
    [document] = load("f.yaml", text.encode()).documents
    found, [problem] = normalise([Located(document.value, document)], "x", Scope())
    assert [manifest["metadata"]["name"] for manifest in found] == ["a"]
    assert problem.line == 5


def test_without_any_namespace_it_is_refused() -> None:
    [document] = load("f.yaml", config_map("x").encode()).documents
    _, [problem] = normalise([Located(document.value, document)], None, Scope())
    assert problem.code == "no-namespace"


# ---- order, ownership, digest ----------------------------------------------------------------------------------------


def test_order() -> None:
    kinds = ["FlinkDeployment", "Service", "Custom", "ConfigMap", "FlinkSessionJob", "Namespace", "Ingress",
             "ServiceAccount", "CustomResourceDefinition", "Deployment", "ValidatingWebhookConfiguration",
             "Secret"]  # fmt: skip
    made: list[Manifest] = [{"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}} for kind in kinds]
    assert [manifest["kind"] for manifest in in_apply_order(made)] == [
        "Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret", "ConfigMap", "Service", "Deployment",
        "FlinkDeployment", "Custom", "FlinkSessionJob", "Ingress", "ValidatingWebhookConfiguration",
    ]  # fmt: skip


def test_every_kind_stands_in_one_stage() -> None:
    kinds = [kind for _, row in STAGES for kind in row]
    assert len(kinds) == len(set(kinds))
    assert stage_name(stage_of({"kind": "Namespace"})) == "namespaces"


@given(st.permutations([("b", "y"), ("a", "z"), ("a", "y"), ("", "x")]))
def test_the_order_does_not_depend_on_how_they_were_declared(places: list[tuple[str, str]]) -> None:
    made: list[Manifest] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}}
        for namespace, name in places
    ]
    ordered = in_apply_order(made)
    assert [ObjectKey.of(manifest).name for manifest in ordered] == ["x", "y", "z", "y"]
    assert sorted(made, key=order_key) == list(ordered)


def test_the_mark_is_stamped_on_a_copy_and_is_no_part_of_the_digest() -> None:
    [manifest] = objects(config_map("x"))
    marked = stamp(manifest, owner_hash("installation", "source", "fleet/app"), "fleet/app")
    assert marked["metadata"]["annotations"] == {"reconciler.dev/application": "fleet/app"}
    [label] = marked["metadata"]["labels"].values()
    assert len(label) == 32
    assert "labels" not in manifest["metadata"]
    assert owner_hash("a", "b", "c") != owner_hash("a", "bc", "")


def test_the_digest_is_of_the_application_and_its_objects() -> None:
    def digest(name: str, value: str) -> str:
        files = fleet_files(**{"apps/one/app.yaml": application(name, manifests("x", value))})
        return build(files).snapshot.applications[f"test/{name}"].targets["a"]

    assert digest("one", "1") == digest("one", "1")
    assert len({digest("one", "1"), digest("one", "2"), digest("two", "1")}) == 3


def test_create_namespace_is_first_and_refuses_the_clusters_own() -> None:
    def files(namespace: str) -> dict[str, str]:
        topology = f"{{clusterLabelSelector: {{}}, namespace: {namespace}, createNamespace: true}}"
        text = application("one", manifests("x")).replace("{clusterLabelSelector: {}}", topology)
        return fleet_files(**{"apps/one/app.yaml": text})

    [release] = build(files("mine")).snapshot.applications["test/one"].releases.values()
    assert [str(ObjectKey.of(manifest)) for manifest in release.objects] == ["Namespace mine", "ConfigMap mine/x"]
    assert ("apps/one/app.yaml", "scope") in errors(build(files("kube-public")))


def test_only_annotations_that_are_acted_upon_may_be_declared() -> None:
    def files(name: str) -> dict[str, str]:
        text = config_map("other").replace("name: other", f"name: other, annotations: {{{name}: disabled}}")
        return fleet_files(**{"apps/one/app.yaml": application("one", manifests("x")), "apps/two/x.yaml": text})

    assert build(files("reconciler.dev/prune")).snapshot.applications["test/two"].targets
    assert ("apps/two/x.yaml", "scope") in errors(build(files("reconciler.dev/owner")))


def test_clusters_are_typed() -> None:
    text = (
        "apiVersion: reconciler.dev/v1alpha1\nkind: Cluster\nmetadata: {name: a}\n"
        "spec: {credentials: x, suspend: true, staleAfter: 5m, flinkRest: none, maintenanceWindows: [w]}\n"
    )
    result = build(fleet_files(**{"clusters/a.yaml": text}))
    assert result.snapshot.clusters["a"] == Cluster(
        "a", {}, "x", suspend=True, stale_after_s=300, flink_rest="none", not_enforced=("maintenanceWindows",),
        file="clusters/a.yaml",
    )  # fmt: skip
    assert [problem.code for problem in result.snapshot.problems] == ["not-yet-enforced"]


awkward_keys = st.text("abcynot019.-_: #'\"\n", min_size=1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs", "Co", "Cn"], exclude_characters="\ufeff")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(awkward_keys, inner, max_size=3),
        max_leaves=10,
    )
)  # fmt: skip
def test_what_is_printed_is_read_back_as_the_same(value: Any) -> None:
    loaded = load("f.yaml", dump([{"value": value}]).encode())
    assert not loaded.problems, loaded.problems
    assert loaded.documents[0].value == {"value": value}

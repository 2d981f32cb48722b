"""A whole fleet: incremental, and what breaks blocks only what depends on it."""

from __future__ import annotations

import pytest

from reconciler import resources
from reconciler.core.fleet import compile_fleet
from reconciler.core.fleet_files import TooLarge
from reconciler.core.fleet_model import EMPTY_CACHE, Counters, FleetSettings
from reconciler.core.objects import Scope
from reconciler.core.yaml_kube import BYTES_MAX
from tests.core.fleets import (
    FLEET,
    POLICY,
    application,
    build,
    cluster,
    config_map,
    errors,
    fleet_files,
    flink,
    listing_of,
    manifests,
    problem,
)

CLUSTER_ROLE = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: x}\n"


def test_a_fleet() -> None:
    snapshot, _, counters = build(fleet_files())
    assert not snapshot.problems
    assert snapshot.deletions_allowed
    assert list(snapshot.clusters) == ["a", "b"]
    one = snapshot.applications["test/one"]
    assert one.targets.keys() == {"a", "b"}
    assert one.policy is not None
    assert one.policy.name == "two"
    assert counters == Counters(blobs_read=5, documents_parsed=5, applications_compiled=1, variants_compiled=1)


# ---- the cost follows the change -------------------------------------------------------------------------------------


def thousand(value: str = "1") -> dict[str, str]:
    files = {f"apps/app-{i}/app.yaml": application(f"app-{i}", manifests(f"app-{i}")) for i in range(1000)}
    files["apps/app-7/app.yaml"] = application("app-7", manifests("app-7", value))
    return fleet_files(**files)


def test_a_change_of_one_application_of_a_thousand_reads_and_compiles_one() -> None:
    first = build(thousand())
    assert first.counters.applications_compiled == 1001
    second = build(thousand("2"), first.cache)
    assert second.counters == Counters(1, 1, 1, 1)
    before, after = first.snapshot.applications, second.snapshot.applications
    changed = {name for name in before if before[name].targets != after[name].targets}
    assert changed == {"test/app-7"}
    assert after["test/app-8"] is before["test/app-8"]
    assert build(thousand("2"), second.cache).counters == Counters()


def test_the_incremental_result_is_the_result_from_scratch() -> None:
    cache = EMPTY_CACHE
    steps = [
        fleet_files(),
        fleet_files(**{"apps/two/x.yaml": config_map("x")}),
        fleet_files(**{"apps/two/x.yaml": config_map("x", "2"), "clusters/c.yaml": cluster("c", ring="rest")}),
        fleet_files(**{"clusters/b.yaml": cluster("b", ring="canary")}),
        fleet_files(**{"policies/two.yaml": POLICY.replace("30m", "10m")}),
        fleet_files(**{"apps/one/app.yaml": application("one", manifests("one"), selector="{region: eu}")}),
        fleet_files(**{"fleet.yaml": FLEET.replace("flink", "other")}),
    ]
    for files in steps:
        cached = build(files, cache)
        fresh = build(files)
        assert cached.snapshot.applications == fresh.snapshot.applications
        assert cached.snapshot.clusters == fresh.snapshot.clusters
        assert cached.snapshot.problems == fresh.snapshot.problems
        cache = cached.cache


def test_a_new_cluster_compiles_no_variant_again() -> None:
    first = build(thousand())
    second = build({**thousand(), "clusters/c.yaml": cluster("c", ring="rest")}, first.cache)
    assert second.counters == Counters(1, 1, 0, 0)
    assert all("c" in application.targets for application in second.snapshot.applications.values())


def test_a_comment_is_read_and_changes_no_digest() -> None:
    first = build(fleet_files())
    files = fleet_files()
    files["apps/one/app.yaml"] = "# a comment\n" + files["apps/one/app.yaml"]
    second = build(files, first.cache)
    assert second.counters.applications_compiled == 1
    assert second.snapshot.applications["test/one"].targets == first.snapshot.applications["test/one"].targets


# ---- what breaks keeps its last good version -------------------------------------------------------------------------


def test_a_broken_application_keeps_its_releases_and_is_blocked() -> None:
    first = build(fleet_files(**{"apps/two/app.yaml": application("two", manifests("two"))}))
    files = fleet_files(**{"apps/two/app.yaml": application("two", manifests("two", "2"))})
    second = build({**files, "apps/one/app.yaml": "kind: [unclosed\n"}, first.cache)
    one, two = second.snapshot.applications["test/one"], second.snapshot.applications["test/two"]
    assert one.targets == first.snapshot.applications["test/one"].targets
    assert one.blocked is not None
    assert one.blocked.code == "BrokenDocument"
    assert "apps/one/app.yaml:2" in one.blocked.message
    assert two.blocked is None
    assert two.targets != first.snapshot.applications["test/two"].targets
    assert not second.snapshot.deletions_allowed
    third = build(files, second.cache)
    assert third.snapshot.applications["test/one"].blocked is None
    assert third.snapshot.deletions_allowed


def test_one_broken_document_of_a_file_leaves_the_others_alone() -> None:
    both = application("x", manifests("x")) + "---\n" + application("w", manifests("w"))
    first = build(fleet_files(**{"apps/xy/app.yaml": both}))
    broken = application("x", manifests("x", "2")) + "---\n" + application("w", "  - {name: w, typ: manifests}\n")
    second = build(fleet_files(**{"apps/xy/app.yaml": broken}), first.cache)
    x, w = (second.snapshot.applications[f"test/{name}"] for name in "xw")
    assert x.blocked is None
    assert x.targets != first.snapshot.applications["test/x"].targets
    assert w.blocked is not None
    assert w.targets == first.snapshot.applications["test/w"].targets


def test_a_document_that_vanished_from_a_file_with_errors_is_kept() -> None:
    both = application("x", manifests("x")) + "---\n" + application("w", manifests("w"))
    first = build(fleet_files(**{"apps/xy/app.yaml": both}))
    second = build(
        fleet_files(**{"apps/xy/app.yaml": application("x", manifests("x")) + "---\nkind: 1\n"}), first.cache
    )
    w = second.snapshot.applications["test/w"]
    assert w.blocked is not None
    assert w.targets == first.snapshot.applications["test/w"].targets


def test_a_broken_application_without_a_past_has_no_releases() -> None:
    result = build(fleet_files(**{"apps/one/app.yaml": application("one", "  - {name: one, typo: x}\n")}))
    one = result.snapshot.applications["test/one"]
    assert one.blocked is not None
    assert one.targets == {}
    assert not result.snapshot.deletions_allowed


def test_a_broken_cluster_document_blocks_that_cluster() -> None:
    first = build(fleet_files())
    second = build(fleet_files(**{"clusters/b.yaml": cluster("b").replace("spec: {}", "spec: {nope: 1}")}), first.cache)
    assert second.snapshot.clusters == first.snapshot.clusters
    assert second.snapshot.blocked_clusters.keys() == {"b"}
    assert second.snapshot.applications["test/one"].targets.keys() == {"a", "b"}
    assert not second.snapshot.deletions_allowed


def test_a_broken_policy_blocks_what_uses_it() -> None:
    shipped = application("std", manifests("std"), "  - {type: rollout, properties: {policy: standard}}\n")
    first = build(fleet_files(**{"apps/std/app.yaml": shipped}))
    broken = POLICY.replace("bake: 30m", "bake: 30")
    second = build(fleet_files(**{"apps/std/app.yaml": shipped, "policies/two.yaml": broken}), first.cache)
    assert second.snapshot.applications["test/one"].blocked is not None
    assert second.snapshot.applications["test/std"].blocked is None
    assert errors(second) == [("policies/two.yaml", "invalid-value")]


def test_a_broken_policy_does_not_fall_back_to_the_shipped_one_of_its_name() -> None:
    broken = POLICY.replace("name: two", "name: standard").replace("30m", "30")
    fleet = FLEET.replace("two", "standard")
    result = build(fleet_files(**{"policies/two.yaml": broken, "fleet.yaml": fleet}))
    assert result.snapshot.applications["test/one"].blocked is not None


def test_a_fleet_overrides_a_shipped_policy() -> None:
    own = POLICY.replace("name: two", "name: standard")
    result = build(fleet_files(**{"policies/two.yaml": own, "fleet.yaml": FLEET.replace("two", "standard")}))
    policy = result.snapshot.applications["test/one"].policy
    assert policy is not None
    assert [wave.name for wave in policy.waves] == ["canary", "rest"]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "empty-repository"),
        ({"README.md": "x"}, "no-fleet"),
        ({**fleet_files(), "fleet.yaml": "a: ["}, "invalid-yaml"),
        ({**fleet_files(), "fleet.yaml": FLEET.replace("clusters:", "cluster:")}, "missing-field"),
        ({**fleet_files(), "fleet.yaml": "->elsewhere.yaml"}, "no-fleet"),
        ({**fleet_files(), "fleet.yaml": FLEET + "---\n" + FLEET}, "duplicate-name"),
    ],
    ids=["empty", "no-fleet", "syntax", "field", "link", "two"],
)
def test_an_unusable_commit_keeps_the_source_where_it_was(files: dict[str, str], code: str) -> None:
    first = build(fleet_files())
    second = build(files, first.cache)
    assert second.snapshot.kept is not None
    assert second.snapshot.applications == first.snapshot.applications
    assert second.snapshot.clusters == first.snapshot.clusters
    assert not second.snapshot.deletions_allowed
    assert code in {problem.code for problem in second.snapshot.problems}
    assert build(fleet_files(), second.cache).snapshot == first.snapshot
    assert build(files).snapshot.applications == {}


def test_a_path_that_matches_nothing_allows_no_deletions() -> None:
    first = build(fleet_files())
    files = {path: text for path, text in fleet_files().items() if not path.startswith("apps/")}
    second = build(files, first.cache)
    assert problem(second, "path-matches-nothing").line == 4
    assert second.snapshot.removed_applications == ("test/one",)
    assert not second.snapshot.deletions_allowed


def test_removed_documents_are_named() -> None:
    first = build(fleet_files(**{"apps/two/x.yaml": config_map("x")}))
    files = fleet_files()
    del files["clusters/b.yaml"]
    second = build(files, first.cache)
    assert second.snapshot.removed_applications == ("test/two",)
    assert second.snapshot.removed_clusters == ("b",)
    assert second.snapshot.deletions_allowed


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_two_applications_that_claim_one_object_are_both_blocked_and_go_on_when_it_is_solved() -> None:
    first = build(fleet_files())
    files = fleet_files(**{"apps/two/app.yaml": application("two", manifests("one")), "apps/z/x.yaml": config_map("z")})
    second = build(files, first.cache)
    assert errors(second) == [("apps/one/app.yaml", "claimed-twice"), ("apps/two/app.yaml", "claimed-twice")]
    applications = second.snapshot.applications
    assert applications["test/one"].targets == first.snapshot.applications["test/one"].targets
    assert applications["test/two"].targets == {}
    assert applications["test/z"].blocked is None
    assert build(files, second.cache).snapshot.problems == second.snapshot.problems
    solved = build({**files, "apps/two/app.yaml": application("two", manifests("two"))}, second.cache)
    assert not solved.snapshot.problems


def test_the_same_object_on_different_clusters_is_no_conflict() -> None:
    files = fleet_files(
        **{
            "apps/one/app.yaml": application("one", manifests("same"), selector="{region: eu}"),
            "apps/two/app.yaml": application("two", manifests("same"), selector="{region: us}"),
        }
    )
    assert not build(files).snapshot.problems


def test_applications_and_clusters_of_one_name() -> None:
    files = fleet_files(
        **{
            "apps/two/app.yaml": application("one", manifests("two")),
            "clusters/c.yaml": cluster("a", ring="rest"),
        }
    )
    result = build(files)
    assert errors(result) == [
        ("apps/one/app.yaml", "duplicate-name"),
        ("apps/two/app.yaml", "duplicate-name"),
        ("clusters/c.yaml", "duplicate-name"),
    ]
    assert result.snapshot.applications["test/one"].blocked is not None
    assert result.snapshot.blocked_clusters.keys() == {"a"}


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        ("apps/link.yaml", "->/etc/passwd", "bad-path"),
        ("apps/sub", "@commit", "bad-path"),
        ("apps/.git/config.yaml", "x: 1", "bad-path"),
        ("apps/.GIT /config.yaml", "x: 1", "bad-path"),
        ("apps/.g\u200cit/config.yaml", "x: 1", "bad-path"),
        ("apps/a\x1b[31m.yaml", "x: 1", "bad-path"),
        ("apps/ONE/app.yaml", "x: 1", "bad-path"),
        ("apps/loose.yaml", config_map("x"), "stray-object"),
        ("apps/two/app.yaml", application("two", manifests("x"), selector="{ring: none}"), "no-targets"),
        ("apps/Two/x.yaml", config_map("x"), "invalid-value"),
        ("apps/two/x.yaml", "hello\n", "not-an-object"),
        ("apps/two/c.yaml", cluster("c"), "misplaced-document"),
        ("clusters/x.yaml", config_map("x"), "misplaced-document"),
        ("apps/two/kustomization.yaml", "resources: [x.yaml]\n", "unsupported"),
        ("apps/two/Chart.yaml", "name: two\n", "unsupported"),
        (
            "apps/two/app.yaml",
            "apiVersion: core.oam.dev/v1alpha2\nkind: ApplicationConfiguration\nmetadata: {name: x}\n",
            "unsupported",
        ),
        ("apps/two/app.yaml", application("two", "  - {name: x, type: helm-chart}\n"), "unsupported"),
        ("apps/two/app.yaml", application("two", "  - {name: x, type: manifest}\n"), "unknown-component-type"),
        (
            "apps/two/app.yaml",
            application("two", manifests("x"), "  - {type: rollout, properties: {policy: tow}}\n"),
            "unknown-policy",
        ),
        ("apps/two/role.yaml", CLUSTER_ROLE, "scope"),
        ("apps/two/x.yaml", config_map("x", namespace="kube-system"), "scope"),
        ("apps/two/x.yaml", config_map("x", namespace="own"), "scope"),
        ("apps/two/x.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n", "scope"),
        (
            "apps/two/x.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {reconciler.dev/owner: abc}}\n",
            "scope",
        ),
        ("apps/two/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, finalizers: [a/b]}\n", "scope"),
        (
            "apps/two/x.yaml",
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x, annotations: {helm.sh/hook: pre-install}}\n",
            "unsupported",
        ),
        ("apps/two/x.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n", "unsupported"),
        ("apps/two/x.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: ' '}\n", "missing-field"),
        (
            "apps/two/x.yaml",
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]\n",
            "invalid-value",
        ),
        ("apps/two/x.yaml", config_map("x") + "---\n" + config_map("x", "2"), "duplicate-name"),
    ],
)  # fmt: skip
def test_bad_input_is_located_and_leaves_the_others_alone(path: str, text: str, code: str) -> None:
    first = build(fleet_files(), scope=Scope(own_namespace="own"))
    result = build(fleet_files(**{path: text}), first.cache, Scope(own_namespace="own"))
    found = [problem for problem in result.snapshot.problems if problem.code == code]
    assert found, [str(problem) for problem in result.snapshot.problems]
    assert found[0].message
    assert found[0].line > 0 or code in ("bad-path", "unsupported")
    one = result.snapshot.applications["test/one"]
    assert one.blocked is None
    assert one.targets == first.snapshot.applications["test/one"].targets
    others = [app for name, app in result.snapshot.applications.items() if name != "test/one"]
    assert all(app.blocked is not None and not app.targets for app in others)


def test_a_file_that_became_a_link_keeps_what_it_held() -> None:
    first = build(fleet_files())
    second = build(fleet_files(**{"apps/one/app.yaml": "->../secret"}), first.cache)
    one = second.snapshot.applications["test/one"]
    assert one.blocked is not None
    assert one.targets == first.snapshot.applications["test/one"].targets
    assert not second.snapshot.deletions_allowed


def test_cluster_scoped_kinds_need_the_settings() -> None:
    allowed = Scope(frozenset({"ClusterRole.rbac.authorization.k8s.io"}))
    result = build(fleet_files(**{"apps/two/role.yaml": CLUSTER_ROLE}), scope=allowed)
    assert not result.snapshot.problems
    [release] = result.snapshot.applications["test/two"].releases.values()
    assert "namespace" not in release.objects[0]["metadata"]


# ---- directories of plain YAML ---------------------------------------------------------------------------------------


def test_a_plain_directory_is_an_application_with_all_below_it() -> None:
    files = fleet_files(**{"apps/team/legacy/x.yaml": config_map("x"), "apps/team/legacy/sub/y.yaml": config_map("w")})
    result = build(files)
    assert not result.snapshot.problems
    legacy = result.snapshot.applications["test/legacy"]
    assert legacy.targets.keys() == {"a", "b"}
    [release] = legacy.releases.values()
    assert [manifest["metadata"]["name"] for manifest in release.objects] == ["w", "x"]


def test_a_rule_narrows_a_plain_directory() -> None:
    rule = (
        "directories: [{path: apps/legacy, clusterLabelSelector: {region: eu}, namespace: old, createNamespace: true}]"
    )
    files = fleet_files(
        **{"fleet.yaml": FLEET.replace("defaults:", rule + ", defaults:"), "apps/legacy/x.yaml": config_map("x")}
    )
    legacy = build(files).snapshot.applications["test/legacy"]
    assert legacy.targets.keys() == {"a"}
    [release] = legacy.releases.values()
    found = [(manifest["kind"], manifest["metadata"].get("namespace")) for manifest in release.objects]
    assert found == [("Namespace", None), ("ConfigMap", "old")]


def test_a_broken_file_blocks_its_plain_directory() -> None:
    good = fleet_files(**{"apps/legacy/x.yaml": config_map("x"), "apps/legacy/y.yaml": config_map("w")})
    first = build(good)
    for text in ("a: [", "kind: ConfigMap\n"):
        second = build({**good, "apps/legacy/y.yaml": text}, first.cache)
        assert second.snapshot.applications["test/legacy"].blocked is not None
        assert second.snapshot.applications["test/legacy"].targets == first.snapshot.applications["test/legacy"].targets
        fresh = build({**good, "apps/legacy/y.yaml": text})
        assert fresh.snapshot.applications["test/legacy"].blocked is not None
        assert not fresh.snapshot.applications["test/legacy"].targets


def test_a_component_takes_a_directory_and_unused_objects_are_named() -> None:
    component = "  - {name: one, type: manifests, properties: {path: ./objects}}\n"
    files = fleet_files(
        **{
            "apps/one/app.yaml": application("one", component),
            "apps/one/objects/x.yaml": config_map("x"),
            "apps/one/objects/deeper/y.yaml": config_map("w"),
            "apps/one/z.yaml": config_map("z"),
        }
    )
    result = build(files)
    assert problem(result, "unused-object").file == "apps/one/z.yaml"
    assert list(result.snapshot.applications) == ["test/one"]
    [release] = result.snapshot.applications["test/one"].releases.values()
    assert [manifest["metadata"]["name"] for manifest in release.objects] == ["w", "x"]
    changed = build({**files, "apps/one/objects/x.yaml": config_map("x", "2")}, result.cache)
    assert changed.counters.applications_compiled == 1
    assert changed.snapshot.applications["test/one"].targets != result.snapshot.applications["test/one"].targets
    broken = build({**files, "apps/one/objects/x.yaml": "a: ["}, result.cache)
    assert broken.snapshot.applications["test/one"].blocked is not None


def test_a_mistyped_path_does_not_make_an_application_of_the_directory() -> None:
    component = "  - {name: one, type: manifests, properties: {path: objects}}\n"
    files = fleet_files(**{"apps/one/objects/x.yaml": config_map("x")})
    for text in (component.replace("path", "pth"), component.replace("properties", "propertis")):
        result = build({**files, "apps/one/app.yaml": application("one", text)})
        assert list(result.snapshot.applications) == ["test/one"]
        assert problem(result, "unused-object")
    # What the broken file was cannot be told: what is below it waits.
    for broken in ("[", "kind: [Application]", "kind: Aplication"):
        text = application("one", component).replace("kind: Application", broken)
        objects = build({**files, "apps/one/app.yaml": text}).snapshot.applications["test/objects"]
        assert objects.blocked is not None
        assert not objects.targets


def test_globs() -> None:
    fleet = FLEET.replace("applications: apps", "applications: [teams/*/apps]")
    fleet = fleet.replace("clusters: clusters", "clusters: ['**/c-*.yaml']")
    files = {
        "fleet.yaml": fleet,
        "a/b/c-1.yaml": cluster("c-1"),
        "c-2.yaml": cluster("c-2"),
        "policies/two.yaml": POLICY,
        "teams/x/apps/one/app.yaml": application("one", manifests("one")),
        "teams/x/y/apps/two/app.yaml": application("two", manifests("two")),
        "teams/z/apps/legacy/x.yaml": config_map("x"),
    }
    result = build(files)
    assert not result.snapshot.problems
    assert list(result.snapshot.clusters) == ["c-1", "c-2"]
    assert list(result.snapshot.applications) == ["test/legacy", "test/one"]


def test_unmatched_targets_are_named() -> None:
    policy = POLICY[: POLICY.index("  - {name: rest")]
    result = build(fleet_files(**{"policies/two.yaml": policy}))
    assert "test/one@b" in problem(result, "unmatched-targets").message
    assert result.snapshot.applications["test/one"].blocked is not None


def test_an_unsupported_component_blocks_that_application_alone() -> None:
    files = fleet_files(**{"apps/two/app.yaml": application("two", flink("two") + "  - {name: x, type: kustomize}\n")})
    result = build(files)
    two = result.snapshot.applications["test/two"]
    assert two.blocked is not None
    assert two.blocked.code == "Unsupported"
    assert result.snapshot.deletions_allowed


# ---- files that cannot be read whole ---------------------------------------------------------------------------------


def test_an_application_waits_while_an_object_it_names_is_held_back() -> None:
    """The object's file holds a broken Application now: the object is neither there nor gone."""
    path = "  - {name: ref, type: manifests, properties: {path: objects}}\n"
    files = fleet_files(**{"apps/ref/app.yaml": application("ref", path), "apps/ref/objects/x.yaml": config_map("x")})
    broken = application("two", "  - {name: two, typo: x}\n")
    result = build({**files, "apps/ref/objects/x.yaml": broken}, build(files).cache)
    blocked = result.snapshot.applications["test/ref"].blocked
    assert blocked is not None
    assert blocked.code == "BrokenDocument"


def test_a_file_that_is_too_large_to_be_read_is_a_problem_of_that_file() -> None:
    listing, blobs = listing_of(fleet_files())
    contents: dict[str, bytes | TooLarge] = {**blobs, listing["apps/one/app.yaml"][1]: TooLarge(BYTES_MAX + 1)}
    result = compile_fleet(listing, contents, EMPTY_CACHE, FleetSettings(resources.catalogue()))
    assert errors(result) == [("apps/one/app.yaml", "invalid-yaml")]
    assert str(BYTES_MAX + 1) in problem(result, "invalid-yaml").message
    assert not result.snapshot.deletions_allowed

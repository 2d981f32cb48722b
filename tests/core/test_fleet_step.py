"""From one commit to the next: only what differs is looked at, and the result is that of looking at everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from reconciler import resources
from reconciler.core.documents import parts_of
from reconciler.core.fleet import compile_fleet, compile_whole
from reconciler.core.fleet_model import EMPTY_CACHE, FleetCache, FleetSettings
from reconciler.core.fleet_step import Result, step
from tests.core.commits import COMMITS, GROUND, after, of_path, read, renamed
from tests.core.fleets import FLEET, POLICY, application, cluster, config_map, fleet_files, listing_of, manifests

SETTINGS = FleetSettings(resources.catalogue())


def compiled_both_ways(files: Mapping[str, str], cache: FleetCache) -> tuple[Result, bool]:
    """The fleet at `files`, and whether the short way led to it."""
    listing, blobs = listing_of(files)
    contents = read(listing, blobs, cache)
    assert contents == read(listing, blobs, replace(cache, standing=None))
    whole = compile_whole(listing, contents, cache, SETTINGS)
    short = step(listing, contents, cache, SETTINGS)
    if short is not None:
        assert short.snapshot == whole.snapshot
        assert list(short.snapshot.applications) == list(whole.snapshot.applications)
        assert short.counters == whole.counters
        assert short.cache.held_back == whole.cache.held_back
        assert short.cache.standing == whole.cache.standing
        assert short.cache == whole.cache
    assert compile_fleet(listing, contents, cache, SETTINGS) == (short or whole)
    return short or whole, short is not None


# ---- which changes the short way leads to ----------------------------------------------------------------------------

SHORT: dict[str, dict[str, str | None]] = {
    "nothing": {},
    "an application": {"apps/one/app.yaml": application("one", manifests("one", "2"))},
    "a file without a directory": {"apps/flat.yaml": application("flat", manifests("flat", "2"))},
    "several": {
        "apps/one/app.yaml": application("one", manifests("one", "2")),
        "apps/flat.yaml": application("flat", manifests("flat", "2")),
        "apps/plain/x.yaml": config_map("plain", "2"),
    },
    "an added application": {"apps/new/app.yaml": application("new", manifests("new"))},
    "an added file": {"apps/new.yaml": application("new", manifests("new"))},
    "a removed application": {"apps/two/app.yaml": None},
    "a moved application": {"apps/two/app.yaml": None, "apps/new/app.yaml": application("two", manifests("two"))},
    "another name": {"apps/two/app.yaml": application("other", manifests("two"))},
    "a renamed application": {"apps/two/app.yaml": renamed("new", "two")},
    "one renamed from one that is there": {"apps/two/app.yaml": renamed("new", "one")},
    "a plain object": {"apps/plain/x.yaml": config_map("plain", "2")},
    "one more plain object": {"apps/plain/below/y.yaml": config_map("more")},
    "an object of a directory": {"apps/ref/objects/x.yaml": config_map("ref", "2")},
    "a broken application": {"apps/one/app.yaml": "kind: [unclosed\n"},
    "a document that is refused": {"apps/one/app.yaml": application("one", "  - {name: one, typo: x}\n")},
    "a misplaced object in the root": {"apps/stray.yaml": config_map("stray")},
    "an object of another application": {"apps/one/app.yaml": application("one", manifests("two"))},
    "a rollout policy that is not there": {
        "apps/one/app.yaml": application("one", manifests("one"), "  - {type: rollout, properties: {policy: no}}\n")
    },
    "a file beside": {"apps/README.md": "read it", "docs/x.md": "x"},
}
WHOLE: dict[str, dict[str, str | None]] = {
    "the fleet": {"fleet.yaml": FLEET.replace("flink", "other")},
    "a cluster": {"clusters/b.yaml": cluster("b", ring="canary")},
    "an added cluster": {"clusters/c.yaml": cluster("c", ring="rest")},
    "a policy": {"policies/two.yaml": POLICY.replace("30m", "10m")},
    "a link": {"apps/one/app.yaml": "->elsewhere"},
    "a path that differs in case": {"apps/ONE/app.yaml": application("one", manifests("x"))},
    "a second application of a name": {"apps/new/app.yaml": application("two", manifests("x"))},
    "a kustomization": {"apps/two/kustomization.yaml": "resources: []"},
    "a chart": {"apps/two/Chart.yaml": "name: x"},
    "a directory of another application": {"apps/two/app.yaml": of_path("two", "../ref/objects")},
    "a broken file in the root": {"apps/flat.yaml": "kind: [unclosed\n"},
    "the last cluster": {"clusters/a.yaml": None, "clusters/b.yaml": None},
}


@pytest.mark.parametrize("changes", SHORT.values(), ids=SHORT)
def test_a_change_of_one_application_is_compiled_the_short_way_and_back(changes: dict[str, str | None]) -> None:
    first, _ = compiled_both_ways(GROUND, EMPTY_CACHE)
    second, short = compiled_both_ways(after(GROUND, changes), first.cache)
    assert short
    third, short = compiled_both_ways(GROUND, second.cache)
    assert short
    assert third.snapshot.problems == first.snapshot.problems
    fresh, _ = compiled_both_ways(GROUND, EMPTY_CACHE)
    assert third.snapshot.applications == fresh.snapshot.applications


@pytest.mark.parametrize("changes", WHOLE.values(), ids=WHOLE)
def test_what_may_concern_all_applications_is_looked_at_as_a_whole(changes: dict[str, str | None]) -> None:
    first, _ = compiled_both_ways(GROUND, EMPTY_CACHE)
    second, short = compiled_both_ways(after(GROUND, changes), first.cache)
    assert not short
    third, _ = compiled_both_ways(GROUND, second.cache)
    assert third.snapshot.applications == first.snapshot.applications


SWITCH = """\
  - name: one
    type: manifests
    properties:
      objects:
      - apiVersion: example.com/v1
        kind: Switch
        metadata: {name: one}
        spec:
          enabled: %s
          more: x
"""


@pytest.mark.parametrize(("before", "now"), [("1", "true"), ("true", "1"), ("0", "false")])
def test_a_value_that_python_calls_equal_is_another_one(before: str, now: str) -> None:
    """It stands in the same place and `1 == True`: the document is another one all the same."""

    def digests(value: str, cache: FleetCache) -> tuple[list[str], FleetCache]:
        result, _ = compiled_both_ways({**GROUND, "apps/one/app.yaml": application("one", SWITCH % value)}, cache)
        return list(result.snapshot.applications["test/one"].releases), result.cache

    parts_of.cache_clear()
    first, cache = digests(before, EMPTY_CACHE)
    second, _ = digests(now, cache)
    parts_of.cache_clear()
    assert second == digests(now, EMPTY_CACHE)[0]
    assert second != first


def test_a_directory_of_applications_that_appears_above_another_is_looked_at_as_a_whole() -> None:
    fleet = {path: text for path, text in fleet_files().items() if not path.startswith("apps/")}
    fleet["fleet.yaml"] = FLEET.replace("applications: apps", "applications: ['apps/**/live']")
    fleet["apps/live/x/live/q/obj.yaml"] = config_map("q", "1")
    cache, broken = EMPTY_CACHE, {"apps/live/x/f.yaml": "kind: [unclosed\n"}
    fine = {"apps/live/x/f.yaml": application("fine", manifests("fine"))}
    for changes in ({}, fine, broken, {**broken, "apps/live/x/live/q/obj.yaml": config_map("q", "2")}):
        result, _ = compiled_both_ways({**fleet, **changes}, cache)
        cache = result.cache
    assert result.snapshot.applications["test/q"].blocked is not None


@pytest.mark.parametrize("path", ["apps/new/app.yaml", "apps/two/kustomization.yaml"])
def test_a_renamed_application_that_is_held_back_while_its_former_name_returns(path: str) -> None:
    ground = {name: text for name, text in GROUND.items() if not name.startswith(("apps/one/", "apps/two/"))}
    first, _ = compiled_both_ways({**ground, "apps/two/app.yaml": renamed("two", "one")}, EMPTY_CACHE)
    one = {"apps/one/app.yaml": application("one", manifests("one"))}
    bad = application("two", "  - {name: two, typo: x}\n") if path.endswith("app.yaml") else "resources: []"
    second, _ = compiled_both_ways({**ground, **one, path: bad}, first.cache)
    assert second.snapshot.applications["test/two"].blocked is not None


def test_two_that_claim_one_object_are_both_found_though_one_changed() -> None:
    first, _ = compiled_both_ways(GROUND, EMPTY_CACHE)
    second, short = compiled_both_ways(
        after(GROUND, {"apps/one/app.yaml": application("one", manifests("two"))}), first.cache
    )
    assert short
    assert {name for name, each in second.snapshot.applications.items() if each.blocked} == {"test/one", "test/two"}
    # The other one moves to another file: what is said of the first names that file now.
    moved = {
        "apps/one/app.yaml": application("one", manifests("two")),
        "apps/two/app.yaml": None,
        "apps/new/app.yaml": application("two", manifests("two")),
    }
    third, short = compiled_both_ways(after(GROUND, moved), second.cache)
    assert short
    assert "apps/new/app.yaml" in third.snapshot.applications["test/one"].problems[0].message


def test_other_settings_are_looked_at_as_a_whole() -> None:
    listing, blobs = listing_of(GROUND)
    first = compile_fleet(listing, blobs, EMPTY_CACHE, SETTINGS)
    other = replace(SETTINGS, scope=replace(SETTINGS.scope, cluster_scoped=frozenset({"ClusterRole"})))
    assert step(listing, blobs, first.cache, other) is None
    assert step(listing, blobs, first.cache, SETTINGS) is not None


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(COMMITS)
def test_any_commits_give_the_same_both_ways(commits: list[list[tuple[str, str | None]]]) -> None:
    files = GROUND
    result, _ = compiled_both_ways(files, EMPTY_CACHE)
    for edits in commits:
        files = after(files, dict(edits))
        result, _ = compiled_both_ways(files, result.cache)

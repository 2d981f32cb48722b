"""After a restart all that was held is held as before: whatever the commits were, the snapshot is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from reconciler import resources
from reconciler.core.apply_rules import DEFAULT_RULES
from reconciler.core.compile import NO_RELEASES
from reconciler.core.fleet import compile_fleet
from reconciler.core.fleet_files import parse_blob
from reconciler.core.fleet_held import NOTHING_HELD, HeldApplication, HeldBack, HeldDocument
from reconciler.core.fleet_model import EMPTY_CACHE, FleetCache, FleetSettings, FleetSnapshot
from reconciler.core.fleet_recall import recall
from reconciler.core.fleet_step import Result
from tests.core.commits import COMMITS, COMMITS_OF_APPLICATIONS, GROUND, after, read
from tests.core.fleets import application, build, fleet_files, flink, listing_of, manifests

SETTINGS = FleetSettings(resources.catalogue())


class Repository:
    """Commits one after the other, and every blob that one of them had."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def compiled(self, files: Mapping[str, str], cache: FleetCache) -> Result:
        """The fleet at `files`, after the commit that left `cache`."""
        listing, blobs = listing_of(files)
        self.blobs |= blobs
        return compile_fleet(listing, read(listing, self.blobs, cache), cache, SETTINGS)

    def restarted(self, files: Mapping[str, str], held: str) -> Result:
        """What a new process makes of the commit `files`, at which the last one noted `held`."""
        listing, _ = listing_of(files)
        back = HeldBack.of_text(held)
        versions = {(path, blob): parse_blob(path, blob, self.blobs[blob]) for path, blob in back.blobs()}
        cache = recall(listing, read(listing, self.blobs, EMPTY_CACHE), back, versions, SETTINGS)
        return self.compiled(files, cache)


def seen(snapshot: FleetSnapshot) -> FleetSnapshot:
    """What a snapshot says of its own commit."""
    return replace(snapshot, removed_applications=(), removed_clusters=())


def decided(snapshot: FleetSnapshot) -> FleetSnapshot:
    """The same without what a blocked application had when it was not: nothing is decided by that."""
    applications = {
        name: replace(each, labels={}, targets={}, releases=NO_RELEASES, policy=None, apply=DEFAULT_RULES)
        if each.blocked is not None
        else each
        for name, each in snapshot.applications.items()
    }
    return replace(seen(snapshot), applications=applications)


def restarts(commits: list[list[tuple[str, str | None]]]) -> Iterator[tuple[Result, Result]]:
    """What each commit is to a process that goes on, and to one that starts after it."""
    repository, files = Repository(), GROUND
    usable = files
    going = restarted = repository.compiled(files, EMPTY_CACHE)
    for edits in commits:
        files = after(files, dict(edits))
        going = repository.compiled(files, going.cache)
        yield going, repository.compiled(files, restarted.cache)
        if going.snapshot.kept is None:
            usable = files
        restarted = repository.restarted(usable, going.cache.held_back.as_text())
        if going.snapshot.kept is not None:
            restarted = repository.compiled(files, restarted.cache)
        yield going, restarted


def blocked(result: Result) -> dict[str, str]:
    """The reason code of each application that is blocked."""
    return {name: each.blocked.code for name, each in result.snapshot.applications.items() if each.blocked is not None}


NO_APPLICATIONS: dict[str, str | None] = dict.fromkeys(path for path in GROUND if path.startswith("apps/"))
ONE, TWO = application("one", manifests("one")), application("two", manifests("two"))
STORIES: dict[str, tuple[list[dict[str, str | None]], dict[str, str]]] = {
    "a file that is refused for its letter case": (
        [
            {**NO_APPLICATIONS, "apps/x/A.yaml": ONE},
            {"apps/x/a.yaml": TWO, "apps/z/b.yaml": application("one", manifests("other"))},
        ],
        {"test/one": "DuplicateName"},
    ),
    "an object of an application that has a second one of its name": (
        [
            {**NO_APPLICATIONS, "apps/one.yaml": ONE},
            {
                "apps/second.yaml": application("one", manifests("p")),
                "apps/two.yaml": application("two", manifests("one")),
            },
        ],
        {"test/one": "DuplicateName", "test/two": "ClaimedTwice"},
    ),
    "an object that two declare, one of them before the other": (
        [{**NO_APPLICATIONS, "apps/one.yaml": ONE}, {"apps/two.yaml": application("two", manifests("one"))}],
        {"test/one": "ClaimedTwice", "test/two": "ClaimedTwice"},
    ),
    "a file that broke piece by piece": (
        [
            {**NO_APPLICATIONS, "apps/x.yaml": f"{ONE}---\n{TWO}"},
            {"apps/x.yaml": f"{application('one', manifests('one', '2'))}---\n{application('two', '  - {typo: x}')}"},
            {"apps/x.yaml": "kind: [unclosed\n"},
        ],
        {"test/one": "BrokenDocument", "test/two": "BrokenDocument"},
    ),
    "a file that moved and broke": (
        [
            {**NO_APPLICATIONS, "apps/one.yaml": ONE},
            {"apps/one.yaml": None, "apps/x.yaml": application("one", "  - {name: one, typo: x}\n")},
        ],
        {"test/one": "BrokenDocument"},
    ),
}


@pytest.mark.parametrize(("commits", "held"), STORIES.values(), ids=STORIES)
def test_what_was_held_is_held_as_before(commits: list[dict[str, str | None]], held: dict[str, str]) -> None:
    for going, restarted in restarts([list(edits.items()) for edits in commits]):
        assert seen(restarted.snapshot) == seen(going.snapshot)
    assert blocked(going) == held
    assert restarted.snapshot.applications["test/one"].targets


def test_what_is_held_back_is_noted_with_the_blobs_it_was_read_from() -> None:
    broken = fleet_files(
        **{"clusters/a.yaml": "kind: [\n", "apps/one/app.yaml": application("one", flink("one", more="      x: 1\n"))}
    )
    good = build(fleet_files())
    assert good.cache.held_back == NOTHING_HELD
    held = build(broken, good.cache)
    listing, _ = listing_of(fleet_files())
    now, _ = listing_of(broken)
    path = "apps/one/app.yaml"
    one = HeldApplication(((path, listing[path][1]),), ((path, now[path][1]),))
    cluster_a = HeldDocument("Cluster", "a", listing["clusters/a.yaml"][1])
    assert held.cache.held_back == HeldBack({"clusters/a.yaml": (cluster_a,)}, {"test/one": one})
    assert HeldBack.of_text(held.cache.held_back.as_text()) == held.cache.held_back
    assert build(broken, held.cache).cache.held_back == held.cache.held_back
    assert build(fleet_files(), held.cache).cache.held_back == NOTHING_HELD
    assert build(broken).cache.held_back.documents == {}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(COMMITS_OF_APPLICATIONS)
def test_a_restart_after_any_commit_of_applications_changes_nothing(
    commits: list[list[tuple[str, str | None]]],
) -> None:
    for going, restarted in restarts(commits):
        assert seen(restarted.snapshot) == seen(going.snapshot)
        assert restarted.cache.held_back == going.cache.held_back
        assert restarted.cache.claims == going.cache.claims


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(COMMITS)
def test_a_restart_after_any_commit_changes_nothing_that_is_decided(
    commits: list[list[tuple[str, str | None]]],
) -> None:
    for going, restarted in restarts(commits):
        assert decided(restarted.snapshot) == decided(going.snapshot)
        assert restarted.cache.held_back == going.cache.held_back

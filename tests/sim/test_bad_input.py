"""Bad input, told through the whole daemon: it is named with its place, it stops what depends on it and nothing else,
nothing is deleted because of it, and a restart in the middle changes none of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.core.model import RolloutState, TargetState
from reconciler.core.yaml_kube import BYTES_MAX
from reconciler.shell.explain import explain
from reconciler.sim.scenarios import FLEET_FILE, application_file, cluster_file, policy_file
from reconciler.sim.world import SOURCE
from tests.sim.stories import Stage, fleet_files, installed, path_of, tell

APP = path_of("app0")
GOOD = application_file("app0", "1.1")


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad commit. `problem` is the file, line and code that name it; `code` is why app0 waits ("" if it does not:
    a change of app0 in the same commit is taken); `whole` says that nothing of the commit is taken."""

    files: Mapping[str, str | bytes | None]
    problem: tuple[str, int, str]
    code: str = ""
    whole: bool = False
    how: Mapping[str, Any] = field(default_factory=dict)


def without(text: str, old: str, new: str) -> str:
    """`text` with its one `old` replaced."""
    assert text.count(old) == 1, (old, text)
    return text.replace(old, new)


FLEET = "fleet.yaml"
POLICY = "policies/quick.yaml"
JOB = '      job: {jarURI: "local:///opt/flink/usrlib/job.jar", parallelism: 2}\n'
TRAIT = "    traits: [{type: sparkle}]\n"
OTHER = GOOD.replace("metadata: {name: app0}\n", "metadata: {name: other}\n")
SUBMODULE = {"submodules": ["fleet.yaml"]}
CASES = {
    "broken-yaml": Bad({APP: "kind: [\n"}, (APP, 2, "invalid-yaml"), "BrokenDocument"),
    "unknown-kind": Bad({APP: without(GOOD, "Application", "Gizmo")}, (APP, 2, "unsupported"), "Unsupported"),
    "unknown-field": Bad({APP: without(GOOD, "flinkVersion", "flinkversion")}, (APP, 10, "unknown-field"), "Invalid"),
    "unknown-trait": Bad({APP: without(GOOD, JOB, JOB + TRAIT)}, (APP, 12, "unknown-trait"), "Invalid"),
    "no-targets": Bad({APP: without(GOOD, "env: prod", "env: moon")}, (APP, 18, "no-targets"), "Invalid"),
    "one-object-twice": Bad({APP: GOOD, path_of("other"): OTHER}, (APP, 3, "claimed-twice"), "ClaimedTwice"),
    "huge": Bad({APP: GOOD + "#" * BYTES_MAX}, (APP, 0, "invalid-yaml"), "BrokenDocument"),
    "link": Bad({APP: "../../etc/passwd"}, (APP, 0, "bad-path"), "BrokenDocument", how={"links": [APP]}),
    "submodule": Bad({APP: "elsewhere"}, (APP, 0, "bad-path"), "BrokenDocument", how={"submodules": [APP]}),
    "broken-policy": Bad({APP: GOOD, POLICY: "kind: RolloutPolicy\n"}, (POLICY, 1, "missing-field"), "BrokenDocument"),
    "broken-fleet": Bad({APP: GOOD, FLEET: "kind: Fleet\nspec: {}\n"}, (FLEET, 1, "missing-field"), whole=True),
    "huge-fleet": Bad({APP: GOOD, FLEET: FLEET_FILE + "#" * BYTES_MAX}, (FLEET, 0, "invalid-yaml"), whole=True),
    "no-fleet": Bad({APP: GOOD, FLEET: None}, (FLEET, 0, "no-fleet"), whole=True),
    "fleet-is-a-submodule": Bad({APP: GOOD, FLEET: "x"}, (FLEET, 0, "no-fleet"), whole=True, how=SUBMODULE),
    "everything-deleted": Bad({}, (FLEET, 0, "empty-repository"), whole=True, how={"replace": True}),
    "applications-deleted": Bad({APP: None, path_of("app1"): None}, (FLEET, 4, "path-matches-nothing"), whole=True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_commit_stops_what_depends_on_it_and_nothing_else(name: str) -> None:
    case = CASES[name]

    async def story(stage: Stage) -> None:
        await installed(stage)
        good = stage.world.repository.refs["main"]
        more = {} if case.whole else {path_of("app1"): application_file("app1", "1.1")}
        bad = stage.commit({**more, **case.files}, name, **case.how)
        await stage.settle()
        assert case.problem in stage.problems()
        assert stage.source().last_attempted == bad
        assert stage.waits("app0").get("", "") == case.code
        assert stage.tags("app0") == {"1.0"}
        goes_on = not case.whole and name != "broken-policy"  # every application names the policy
        assert stage.tags("app1") == ({"1.1"} if goes_on else {"1.0"})
        if case.code:
            assert case.problem[0] in stage.why("app0")

        await still_looked_after(stage)
        assert not stage.deletes()

        stage.world.repository.force_push(good)
        await stage.looked()
        assert stage.problems() == []
        stage.push("app0", "2.0")
        stage.push("app1", "2.0")
        await stage.settle()
        assert stage.tags("app0") == stage.tags("app1") == {"2.0"}
        assert not stage.deletes()
        assert stage.source().last_baked == stage.world.repository.refs["main"]
        stage.checkers.at_rest()

    tell(story, applications=2)


async def still_looked_after(stage: Stage) -> None:
    """The daemon dies and boots on what is there now: it writes nothing, and repairs what somebody changes."""
    before, tags = len(stage.writes()), [stage.tags("app0"), stage.tags("app1")]
    rollouts = [len(stage.rollouts("app0")), len(stage.rollouts("app1"))]
    await stage.restart()
    await stage.world.sleep(300)
    assert len(stage.writes()) == before
    assert [len(stage.rollouts("app0")), len(stage.rollouts("app1"))] == rollouts
    stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
    stage.edit("app1", "c2", {"spec": {"image": "by/hand:wrong"}})
    assert "wrong" in stage.tags("app0") & stage.tags("app1")
    await stage.world.sleep(60)
    assert [stage.tags("app0"), stage.tags("app1")] == tags


@pytest.mark.parametrize("name", CASES)
def test_a_rollout_that_runs_goes_on_with_its_frozen_plan(name: str) -> None:
    case = CASES[name]

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.5")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.5")
        stage.commit(case.files, name, **case.how)
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.tags("app0") == {"1.5"}
        assert case.problem in stage.problems()
        assert not stage.deletes()

    tell(story, applications=2)


@pytest.mark.parametrize("name", ["broken-yaml", "broken-fleet", "broken-policy", "everything-deleted"])
def test_a_restart_in_the_middle_of_both_changes_nothing(name: str) -> None:
    case = CASES[name]

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.5")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.5")
        stage.commit(case.files, name, **case.how)
        await stage.looked()
        assert case.problem in stage.problems()
        await stage.restart()
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.tags("app0") == {"1.5"}
        assert not stage.deletes()
        stage.checkers.at_rest()

    tell(story, applications=2)


def test_what_broke_one_commit_after_the_other_is_still_known_after_a_restart() -> None:
    """The last version of each file that could be read is in force, whichever commit it came from."""

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({"clusters/c1.yaml": "kind: [\n"}, "c1 breaks")
        await stage.looked()
        stage.push("app0", "1.1")
        stage.commit({"clusters/c2.yaml": cluster_file("c2", "eu", "other")}, "c2 moves")
        await stage.settle()
        stage.commit({"clusters/c2.yaml": "kind: [\n", APP: "kind: [\n"}, "c2 and app0 break")
        await stage.looked()
        await stage.restart()
        declared = stage.daemon.sources[SOURCE].snapshot
        assert declared is not None
        assert sorted(declared.clusters) == ["c0", "c1", "c2"]
        assert dict(declared.clusters["c2"].labels)["ring"] == "other"
        assert sorted(declared.blocked_clusters) == ["c1", "c2"]
        assert set(declared.applications["sim/app0"].targets) == {"c0", "c1", "c2"}
        stage.commit({"fleet.yaml": "kind: [\n"}, "the fleet breaks, too")
        await stage.looked()
        await stage.restart()
        kept = stage.daemon.sources[SOURCE].snapshot
        assert kept is not None
        assert kept.kept is not None
        assert kept.clusters == declared.clusters
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
        await stage.world.sleep(60)
        assert stage.tag("app0", "c1") == "1.0"  # its document was broken when 1.1 came
        assert stage.tag("app0", "c2") == "1.1"
        assert not stage.deletes()

    tell(story)


def test_a_broken_cluster_document_keeps_new_releases_off_that_cluster_only() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({"clusters/c1.yaml": "kind: [\n", APP: GOOD})
        await stage.settle()
        assert stage.problems() == [("clusters/c1.yaml", 2, "invalid-yaml")]
        assert stage.waits("app0") == {"sim/app0@c1": "BrokenDocument"}
        assert "clusters/c1.yaml:2" in stage.why("app0")
        assert [stage.tag("app0", name) for name in ("c0", "c1", "c2")] == ["1.1", "1.0", "1.1"]
        await stage.restart()
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
        await stage.world.sleep(60)
        assert stage.tag("app0", "c1") == "1.0"
        stage.commit({"clusters/c1.yaml": cluster_file("c1", "eu", "rest")})
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}
        assert not stage.deletes()

    tell(story)


def test_a_cluster_without_credentials_is_named_and_the_others_go_on() -> None:
    async def story(stage: Stage) -> None:
        stage.commit({"clusters/c9.yaml": cluster_file("c9", "eu", "rest"), "policies/quick.yaml": lenient()})
        await stage.settle()
        assert stage.last("app0").state is RolloutState.SUCCEEDED
        assert stage.states("app0") == {**dict.fromkeys(("c0", "c1", "c2"), "Succeeded"), "c9": "Unreachable"}
        assert stage.waits("app0") == {"sim/app0@c9": "ClusterUnreachable"}
        assert "credentials" in stage.why("app0")
        assert stage.alerts() == []
        stage.push("app0", "1.1")
        await stage.settle()
        assert [stage.tag("app0", name) for name in ("c0", "c1", "c2")] == ["1.1"] * 3

    tell(story)


def lenient() -> str:
    """The policy, with one cluster in two that may be out of reach."""
    return policy_file().replace("  onFailure", "  maxUnreachable: 50%\n  onFailure")


def test_an_empty_repository_at_the_start_waits_for_its_first_commit() -> None:
    async def story(stage: Stage) -> None:
        await stage.world.sleep(120)
        failure = stage.daemon.sources[SOURCE].failure
        assert failure is not None
        assert failure.code == "RefNotFound"
        stage.world.repository.commit({})
        await stage.looked()
        assert stage.problems() == [("fleet.yaml", 0, "empty-repository")]
        assert stage.daemon.sources[SOURCE].failure is None
        await stage.restart()
        assert stage.writes() == []
        stage.commit(first)
        await stage.settle()
        assert stage.tags("app0") == {"1.0"}

    first = fleet_files(3, 1)
    tell(story, files=dict.fromkeys(first))


@pytest.mark.parametrize("gone", ["repository", "branch"])
def test_a_repository_that_vanished_leaves_everything_as_it_is(gone: str) -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1")
        repository = stage.world.repository
        head = repository.refs["main"]
        if gone == "repository":
            repository.vanish()
        else:
            repository.delete_ref()
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}
        failure = stage.daemon.sources[SOURCE].failure
        assert failure is not None
        assert failure.code == ("RepositoryUnreachable" if gone == "repository" else "RefNotFound")
        await still_looked_after(stage)
        assert stage.daemon.sources[SOURCE].failure is not None
        repository.come_back()
        repository.force_push(head)
        stage.push("app0", "1.2")
        await stage.world.sleep(600)  # it was asked for ever less often
        await stage.settle()
        assert stage.tags("app0") == {"1.2"}
        assert stage.daemon.sources[SOURCE].failure is None
        assert not stage.deletes()

    tell(story, applications=2)


def test_a_force_pushed_branch_is_a_change_like_another() -> None:
    """Back to an older commit goes through waves; what the other history had is neither kept nor deleted in haste."""

    async def story(stage: Stage) -> None:
        await installed(stage)
        first = stage.world.repository.refs["main"]
        stage.push("app0", "1.1", objects=2)
        await stage.settle()
        assert stage.config("app0", "c2", 1) is not None
        stage.world.repository.force_push(first)
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.0")
        assert stage.tag("app0", "c2") == "1.1"
        assert stage.config("app0", "c0", 1) is not None
        await stage.settle()
        assert stage.tags("app0") == {"1.0"}
        assert stage.last("app0").revision == first
        assert stage.config("app0", "c2", 1) is None
        assert {entry.key.name for entry in stage.deletes()} == {"app0-1"}

    tell(story)


def test_a_broken_commit_in_the_middle_of_a_takeover_keeps_the_takeover() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.reach(lambda: stage.tag("app0", "c0") == "1.1")
        stage.push("app0", "1.2")
        await stage.looked()
        stage.commit({APP: "kind: [\n"})
        await stage.settle()
        assert stage.tags("app0") == {"1.2"}
        assert [str(rollout.state) for rollout in stage.rollouts("app0")] == ["Succeeded", "Superseded", "Succeeded"]
        assert all(row.state is TargetState.SUCCEEDED for row in stage.rows(stage.last("app0")).values())

    tell(story, files={POLICY: policy_file().replace("20s", "60s")})


@pytest.mark.parametrize("name", ["broken-yaml", "unknown-field", "unknown-trait", "no-targets", "broken-policy"])
def test_an_application_that_is_held_back_is_still_known_after_a_restart(name: str) -> None:
    case = CASES[name]

    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit(case.files, name, **case.how)
        await stage.looked()
        before = await explain(stage.daemon, "app0")
        await stage.restart()
        assert await explain(stage.daemon, "app0") == before
        assert before["reason"] == case.code
        assert {each["cluster"]: each["state"] for each in before["targets"]} == dict.fromkeys(
            stage.world.clusters, "Synced"
        )
        stage.commit({"README.md": "another commit"})
        await stage.looked()
        await stage.restart()
        assert (await explain(stage.daemon, "app0"))["targets"][0]["state"] == "Synced"

    tell(story)


def test_what_a_blocked_application_had_said_of_writing_still_holds_after_a_restart() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        rules = "\n  - {type: apply, properties: {selfHeal: false}}\n"
        stage.commit({APP: application_file("app0", "1.0").rstrip("\n") + rules})
        await stage.looked()
        stage.commit({"policies/quick.yaml": policy_file().replace("name: quick", "name: other")})
        await stage.looked()
        await stage.restart()
        stage.edit("app0", "c1", {"spec": {"image": "by/hand:wrong"}})
        await stage.world.sleep(120)
        assert stage.tag("app0", "c1") == "wrong"

    tell(story)

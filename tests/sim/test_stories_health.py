"""Stories of health policies: a fleet's own rules judge its objects, from the first moment on, and follow commits."""

from __future__ import annotations

import pytest

from reconciler.core.model import RolloutState, Target
from tests.sim.stories import Stage, installed, tell

PATH = "policies/health.yaml"
POLICY = """\
apiVersion: reconciler.dev/v1alpha1
kind: HealthPolicy
metadata: {name: settings}
spec:
  match: [{kind: ConfigMap}]
  rules:
  - health: Degraded
    when: "has(object.metadata.annotations) && 'example.org/wrong' in object.metadata.annotations"
    reason: SettingsWrong
    messageExpression: "'wrong: ' + object.metadata.annotations['example.org/wrong']"
  otherwise: Healthy
"""
BROKEN = POLICY.replace("has(", "hasnt(")


def annotate(stage: Stage, cluster: str, value: str | None) -> None:
    """Somebody says of the ConfigMap that it is wrong, in a field that nobody declares."""
    patch = {"metadata": {"annotations": {"example.org/wrong": value}}}
    stage.world.clusters[cluster].edit("", "ConfigMap", "app0", "app0-0", patch)


def health(stage: Stage, cluster: str) -> tuple[str, str]:
    """Health and message of the target."""
    verdict = stage.daemon.board.verdicts[Target("sim/app0", cluster)]
    return str(verdict.health), verdict.reason.message


def test_a_policy_of_the_fleet_judges_its_objects() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        assert health(stage, "c1")[0] == "Healthy"
        annotate(stage, "c1", "no such table")
        await stage.world.sleep(5)
        assert health(stage, "c1") == ("Degraded", "ConfigMap app0-0: wrong: no such table")
        assert health(stage, "c0")[0] == "Healthy"
        annotate(stage, "c1", None)
        await stage.world.sleep(5)
        assert health(stage, "c1")[0] == "Healthy"
        assert len(stage.rollouts("app0")) == 1

    tell(story, files={PATH: POLICY})


def test_a_policy_counts_as_soon_as_its_commit_is_read_and_moves_nothing() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        policy = POLICY.replace("otherwise: Healthy", "otherwise: Degraded")
        stage.commit({PATH: policy}, "a stricter policy")
        await stage.looked()
        assert len(stage.rollouts("app0")) == 1, "a policy changes no release"
        assert {health(stage, cluster)[0] for cluster in ("c0", "c1", "c2")} == {"Degraded"}
        stage.commit({PATH: None}, "without it")
        await stage.looked()
        assert {health(stage, cluster)[0] for cluster in ("c0", "c1", "c2")} == {"Healthy"}

    tell(story, files={PATH: POLICY})


def test_a_release_that_a_policy_calls_degraded_goes_back() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await stage.settle()
        assert stage.last("app0").state is RolloutState.ROLLED_BACK
        assert stage.states("app0") == {"c0": "RolledBack", "c1": "Skipped", "c2": "Skipped"}
        assert stage.tags("app0") == {"1.0"}

    policy = POLICY.replace(
        "  otherwise", "  - {health: Degraded, when: object.data.tag == '1.1', reason: Old}\n  otherwise"
    )
    tell(story, files={PATH: policy})


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed"])
def test_a_broken_policy_keeps_its_last_good_version_and_lets_nothing_new_out(killed: bool) -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.commit({PATH: BROKEN}, "a typing mistake")
        stage.push("app0", "1.1")
        await stage.settle()
        assert (PATH, 8, "invalid-expression") in stage.problems()
        if killed:
            await stage.restart()
        assert stage.tags("app0") == {"1.0"}
        assert "no function 'hasnt'" in stage.why("app0")
        annotate(stage, "c1", "still judged")
        await stage.world.sleep(5)
        assert health(stage, "c1")[0] == "Degraded"
        annotate(stage, "c1", None)
        stage.commit({PATH: POLICY}, "without the mistake")
        await stage.settle()
        assert stage.tags("app0") == {"1.1"}

    tell(story, files={PATH: POLICY})


def test_after_a_start_objects_are_judged_by_what_was_in_force_before_git_is_read() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        annotate(stage, "c1", "before")
        await stage.world.sleep(5)
        stage.world.repository.vanish()
        await stage.restart()
        assert health(stage, "c1") == ("Degraded", "ConfigMap app0-0: wrong: before")

    tell(story, files={PATH: POLICY})

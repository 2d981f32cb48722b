"""Stories of the history of drift: what stays as it is is told once, and what happens anew is told anew."""

from __future__ import annotations

from reconciler.sim.scenarios import application_file
from tests.sim.stories import Stage, installed, path_of, tell

REPORT_ONLY = application_file("app0", "1.0").rstrip("\n") + "\n  - {type: apply, properties: {selfHeal: false}}\n"


def told(stage: Stage) -> list[tuple[str, str]]:
    """Cluster, and what is said first, of each line."""
    return [(row.cluster, row.message.split(" was ")[1].split(" by ")[0]) for row in stage.audit("Drift")]


def replicas(stage: Stage, number: int, manager: str = "kubectl-edit") -> None:
    key = ("flink.apache.org", "FlinkDeployment", "app0", "app0")
    stage.world.clusters["c1"].edit(*key, {"spec": {"job": {"parallelism": number}}}, manager=manager)


def test_drift_that_stays_is_told_once_through_restarts_and_silences() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        replicas(stage, 7)
        stage.world.clusters["c2"].delete("", "ConfigMap", "app0", "app0-0")
        await stage.world.sleep(120)
        expected = [("c1", "changed"), ("c2", "deleted")]
        assert sorted(told(stage)) == expected
        for _ in range(2):
            await stage.restart()
        assert sorted(told(stage)) == expected
        for silent in (False, True):
            for cluster in ("c1", "c2"):
                stage.world.cut(cluster, silent=silent)
            await stage.world.sleep(600)
            for cluster in ("c1", "c2"):
                stage.world.mend(cluster)
            await stage.world.sleep(300)
        assert sorted(told(stage)) == expected
        # The same again, a little later, and by the same hand, is no news; another value is.
        replicas(stage, 7)
        await stage.restart()
        assert sorted(told(stage)) == expected
        stage.world.kill()
        replicas(stage, 8)
        await stage.restart()
        assert len(told(stage)) == 3
        assert "is 8, declared 2" in stage.audit("Drift")[-1].message

    tell(story, files={path_of("app0"): REPORT_ONLY})


def test_what_was_repaired_and_happens_again_while_nobody_looks_is_told_again() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        for number in (1, 2, 3):
            stage.world.kill()
            stage.world.clusters["c2"].delete("", "ConfigMap", "app0", "app0-0")
            await stage.restart()
            assert stage.config("app0", "c2") is not None
            assert told(stage) == [("c2", "deleted")] * number

    tell(story)


def test_what_a_rollout_mended_and_happens_again_is_told_again() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.world.clusters["c2"].delete("", "ConfigMap", "app0", "app0-0")
        await stage.world.sleep(60)
        stage.commit({path_of("app0"): REPORT_ONLY.replace("app0:1.0", "app0:1.1")}, "1.1")
        await stage.settle()
        assert stage.config("app0", "c2") is not None
        stage.world.kill()
        stage.world.clusters["c2"].delete("", "ConfigMap", "app0", "app0-0")
        await stage.restart()
        assert told(stage) == [("c2", "deleted")] * 2

    tell(story, files={path_of("app0"): REPORT_ONLY})

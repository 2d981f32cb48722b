"""Stories of `diff --against git`: clusters say what a release would do to them, one for all that are alike."""

from __future__ import annotations

from typing import Any

from reconciler.shell.live_view import diff
from tests.sim.stories import Stage, installed, path_of, tell


async def asked(stage: Stage) -> dict[tuple[str, str], dict[str, Any]]:
    """What `diff app0 --against git` says, by cluster and kind."""
    found = await diff(stage.daemon, "app0", None, "git")
    return {(part["cluster"], part["kind"]): part for part in found["objects"]}


def dry_runs(stage: Stage, *clusters: str) -> int:
    """How many dry-runs these clusters have answered."""
    logs = [stage.world.clusters[name].server.log for name in clusters]
    return sum(entry.dry_run for log in logs for entry in log)


async def until_the_canary_moves(stage: Stage) -> None:
    """c0 has the new release; Git asks for it on c1 and c2, which have the old one."""
    await stage.arrives("app0", "c0", "1.1")


def test_one_cluster_is_asked_for_all_that_are_alike() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await until_the_canary_moves(stage)
        before = dry_runs(stage, "c1", "c2")
        found = await asked(stage)
        for kind in ("FlinkDeployment", "ConfigMap"):
            told = [found[cluster, kind] for cluster in ("c1", "c2")]
            assert [part["verdict"] for part in told] == ["differs", "predicted"]
            assert told[0]["changes"] == told[1]["changes"] != []
        assert dry_runs(stage, "c1", "c2") - before == 2
        # An edit by hand puts c2 in a position of its own.
        stage.edit("app0", "c2", {"metadata": {"labels": {"by": "hand"}}})
        await stage.world.sleep(2)
        found = await asked(stage)
        assert [found[cluster, "FlinkDeployment"]["verdict"] for cluster in ("c1", "c2")] == ["differs"] * 2
        await stage.settle()
        stage.checkers.at_rest()

    tell(story)


def test_an_object_of_somebody_else_is_named_before_anything_is_written() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app0-1", "namespace": "app0"}}
        for name in ("c1", "c2"):
            stage.world.clusters[name].create({**theirs, "data": {"tag": "theirs"}}, manager="kubectl-create")
        stage.push("app0", "1.1", objects=2)
        await until_the_canary_moves(stage)
        found = await diff(stage.daemon, "app0", "c1", "git")
        (part,) = [part for part in found["objects"] if part["name"] == "app0-1"]
        assert (part["action"], part["verdict"], part["conflicts"]) == ("create", "differs", ["kubectl-create"])
        assert part["message"].startswith("NotOwned: ")

    tell(story, files={path_of("app1"): None})


def test_a_cluster_that_does_not_answer_is_not_asked() -> None:
    async def story(stage: Stage) -> None:
        await installed(stage)
        stage.push("app0", "1.1")
        await until_the_canary_moves(stage)
        stage.world.clusters["c1"].set_unreachable(True)
        await stage.world.sleep(90)
        found = await asked(stage)
        assert found["c1", "FlinkDeployment"]["verdict"] == "not-judgeable"
        assert found["c2", "FlinkDeployment"]["verdict"] == "differs"

    tell(story)

"""`plan`: two commits compared target by target, for people, programs and pull requests."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import main
from tests.integration.git_repository import GitRepository
from tests.integration.live_fleet import APPLICATION, FLEET, POLICY, cluster_document

CLUSTERS = ("a1", "b1", "c1", "c2")


class Fleet:
    """A repository with commits of one fleet."""

    def __init__(self, directory: Path) -> None:
        self.repository = GitRepository(directory / "fleet.git")

    def commit(self, application: str = APPLICATION, prefix: str = "", **more: str) -> str:
        """Commit the fleet with this application; `more` adds files, an empty text removes one."""
        files = {
            "fleet.yaml": FLEET,
            "policies/rollout.yaml": POLICY.replace("ON_FAILURE", "rollback"),
            "apps/orders/app.yaml": application.replace("IMAGE", "orders:1"),
            **{f"clusters/{name}.yaml": cluster_document(name) for name in CLUSTERS},
            **more,
        }
        return self.repository.commit({prefix + path: text.encode() for path, text in files.items() if text})

    def plan(self, before: str, after: str, *arguments: str, path: Path | None = None) -> tuple[int, str]:
        """(exit status, standard output)."""
        out = io.StringIO()
        where = str(path or self.repository.path)
        with contextlib.redirect_stdout(out):
            status = main(["plan", where, "--from", before, "--to", after, *arguments])
        return status, out.getvalue()

    def json(self, before: str, after: str) -> Any:
        """The plan as a document."""
        status, out = self.plan(before, after, "-o", "json")
        assert status == 0, out
        return json.loads(out)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_an_upgrade_in_waves(fleet: Fleet) -> None:
    before = fleet.commit()
    after = fleet.commit(APPLICATION.replace("IMAGE", "orders:2"))
    found = fleet.json(before, after)
    assert (found["from"], found["to"], found["applications"]) == (before, after, ["test/orders"])
    assert [(wave["name"], wave["clusters"]) for wave in found["waves"]] == [
        ("canary", ["a1"]),
        ("rest", ["b1", "c1", "c2"]),
    ]
    assert found["expected_s"] == 1.0  # two waves of half a second, all of the second one at a time
    (group,) = found["groups"]
    assert [target[1] for target in group["targets"]] == list(CLUSTERS)
    (part,) = group["diff"]
    assert (part["action"], part["class"], part["effect"], part["state"]) == ("update", "upgrade", "restart", "kept")
    assert part["changes"] == [
        {"path": "/spec/image", "display": "spec.image", "op": "replace", "old": "orders:1", "new": "orders:2"}
    ]
    assert found["problems"] == []
    # The same question has the same answer, and other commits with the same content are the same plan.
    assert fleet.json(before, after) == found
    assert fleet.json(before, fleet.commit(APPLICATION.replace("IMAGE", "orders:2")))["hash"] == found["hash"]
    assert fleet.json(before, fleet.commit(APPLICATION.replace("IMAGE", "orders:3")))["hash"] != found["hash"]


def test_nothing_changes(fleet: Fleet) -> None:
    before, after = fleet.commit(), fleet.commit(**{"README.md": "hello"})
    found = fleet.json(before, after)
    assert (found["applications"], found["waves"], found["groups"], found["expected_s"]) == ([], [], [], 0.0)
    assert fleet.plan(before, after)[1].splitlines()[1] == "No target changes."


def test_another_policy_is_said_even_if_no_target_changes(fleet: Fleet) -> None:
    policy = POLICY.replace("ON_FAILURE", "halt").replace(
        "bake: 500ms, maxConcurrent: 1,", "bake: 1h30m, maxConcurrent: 1,"
    )
    extra = "  - {name: late, size: 100%, bake: 1m, maxConcurrent: 1, maxFailures: 0}\n  progressDeadline"
    policy = policy.replace("size: 100%", "size: 50%").replace("  progressDeadline", extra)
    before, after = fleet.commit(), fleet.commit(**{"policies/rollout.yaml": policy})
    found = fleet.json(before, after)
    assert (found["applications"], found["waves"], found["groups"]) == ([], [], [])
    (change,) = found["policies"]
    assert (change["from"], change["to"], change["applications"]) == ("quick", "quick", ["test/orders"])
    assert change["changes"] == [
        "~ waves: canary, rest -> canary, rest, late",
        "~ waves[name=canary].bake: 500ms -> 1h30m",
        "~ waves[name=rest].size: 100% -> 50%",
        "+ waves[name=late].bake: 1m",
        "+ waves[name=late].maxConcurrent: 1",
        "+ waves[name=late].maxFailures: 0",
        "+ waves[name=late].size: 100%",
        "~ onFailure: rollback -> halt",
    ]
    for form in ("text", "markdown"):
        _, shown = fleet.plan(before, after, "-o", form)
        assert "No target changes." in shown
        assert "counts from the next rollout of test/orders on" in shown
        assert "~ waves[name=canary].bake: 500ms -> 1h30m" in shown
    # Back again, and under another name.
    renamed = POLICY.replace("ON_FAILURE", "rollback").replace("name: quick", "name: slow")
    defaults = FLEET.replace("rollout: quick", "rollout: slow")
    last = fleet.commit(**{"policies/rollout.yaml": renamed, "fleet.yaml": defaults})
    assert fleet.json(before, last)["policies"] == [
        {"from": "quick", "to": "slow", "applications": ["test/orders"], "changes": []}
    ]
    assert "policy quick -> slow: counts" in fleet.plan(before, last)[1]


def test_a_job_that_is_deleted_is_not_called_a_creation(fleet: Fleet) -> None:
    before = fleet.commit()
    after = fleet.commit(APPLICATION.replace("IMAGE", "orders:1").replace("  - name: orders\n", "  - name: renamed\n"))
    for form in ("text", "markdown"):
        shown = fleet.plan(before, after, "-o", form)[1]
        head = next(line for line in shown.splitlines() if line.startswith(("test/orders: ", "| `test/orders`")))
        assert "a job is deleted" in head
        assert "STATE IS LOST" in head


def test_what_differs_between_clusters_is_grouped(fleet: Fleet) -> None:
    override = (
        "  - type: override\n    properties:\n      clusters: [c2]\n"
        "      components: [{name: orders, properties: {job: {parallelism: 9}}}]\n"
    )
    before = fleet.commit()
    after = fleet.commit(APPLICATION.replace("IMAGE", "orders:2") + override)
    found = fleet.json(before, after)
    assert [len(group["targets"]) for group in found["groups"]] == [3, 1]
    assert "3 targets the same, 1 differs" in fleet.plan(before, after)[1]


def test_lost_state_is_a_warning_that_nobody_misses(fleet: Fleet) -> None:
    stateless = APPLICATION.replace("mode: last-state", "mode: stateless")
    before, after = fleet.commit(stateless), fleet.commit(stateless.replace("IMAGE", "orders:2"))
    found = fleet.json(before, after)
    assert found["changes"][0]["state"] == "lost"
    assert "stateless-upgrade" in [problem["code"] for problem in found["problems"]]
    for form in ("text", "markdown"):
        assert "STATE IS LOST" in fleet.plan(before, after, "-o", form)[1]


def test_a_broken_document_is_an_error_of_the_plan(fleet: Fleet) -> None:
    before = fleet.commit()
    after = fleet.commit(**{"apps/broken/app.yaml": "kind: [\n"})
    status, out = fleet.plan(before, after, "-o", "json")
    assert status == 1
    assert json.loads(out)["problems"][0]["file"] == "apps/broken/app.yaml"


def test_what_is_removed_is_said_to_stay(fleet: Fleet) -> None:
    more = APPLICATION.replace("name: orders", "name: more").replace("namespace: orders", "namespace: more")
    before = fleet.commit(**{"apps/more/app.yaml": more})
    after = fleet.commit(**{"clusters/c2.yaml": ""})
    codes = [(problem["code"], problem["message"].split(":")[0]) for problem in fleet.json(before, after)["problems"]]
    assert ("orphaned", "test/more leaves 4 clusters") in codes
    assert ("orphaned", "test/orders leaves c2") in codes


def test_markdown_is_bounded_and_nothing_in_it_becomes_markup(fleet: Fleet) -> None:
    before = fleet.commit()
    hostile = APPLICATION.replace("IMAGE", "orders:2").replace(
        "s3://bucket/orders", "s3://```</details><script>alert(1)</script>" + "x" * 100_000
    )
    status, out = fleet.plan(before, fleet.commit(hostile), "-o", "markdown")
    assert status == 0
    assert len(out) < 65_536
    assert out.count("```") == 2
    assert out.count("</details>") - out.count("```</details>") >= 1
    assert "\n</details><script>" not in out


def test_a_fleet_may_be_a_directory_of_a_repository(fleet: Fleet, tmp_path: Path) -> None:
    before = fleet.commit(prefix="deploy/fleet/")
    after = fleet.commit(APPLICATION.replace("IMAGE", "orders:2"), prefix="deploy/fleet/")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(fleet.repository.path), str(clone)], check=True)
    status, out = fleet.plan(before, after, "-o", "json", path=clone / "deploy" / "fleet")
    assert status == 0
    assert json.loads(out)["applications"] == ["test/orders"]


@pytest.mark.parametrize("revision", ["nope", "--upload-pack=x", "a..b", ""])
def test_a_revision_that_is_none_is_wrong_use(fleet: Fleet, revision: str) -> None:
    head = fleet.commit()
    status, out = fleet.plan(f"{head}", revision, "-o", "json")
    assert status == 2
    assert json.loads(out)["error"]["code"] in ("ref-not-found", "refused-ref", "usage")


def test_a_job_that_would_change_its_namespace_is_an_error_of_the_plan(fleet: Fleet) -> None:
    before = fleet.commit()
    status, out = fleet.plan(before, fleet.commit(APPLICATION.replace("namespace: orders", "namespace: other")))
    assert status == 1
    assert "FlinkDeployment orders from namespace orders to other: two copies would run" in out


def test_a_renamed_application_is_no_new_one(fleet: Fleet) -> None:
    before = fleet.commit()
    text = APPLICATION.replace("IMAGE", "orders:1")
    named = "metadata: {name: shop, annotations: {reconciler.dev/renamed-from: orders}}"
    after = fleet.commit(text.replace("metadata: {name: orders}", named, 1))
    found = fleet.json(before, after)
    assert [problem["code"] for problem in found["problems"]] == []
    (change,) = found["changes"]
    assert (change["application"], change["new"], change["effect"], change["deletes"]) == ("test/shop", 0, "none", 0)
    assert "was test/orders" in fleet.plan(before, after)[1]

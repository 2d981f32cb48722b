"""Going back applies what baked, unless that would set a job back to an older savepoint."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.actions import Alert
from reconciler.core.model import Health, Manifest, Reason, RolloutState, TargetState
from reconciler.core.observation import Observation
from reconciler.core.way_back import no_way_back
from tests.core.decisions import NEW, NEWER, OLD, Fleet, actions_of, applies, flown, target_of, wave


def job(kind: str = "FlinkDeployment", **fields: Any) -> Manifest:
    return {
        "apiVersion": "flink.apache.org/v1beta1" if kind.startswith("Flink") else "apps/v1",
        "kind": kind,
        "metadata": {"name": "orders", "namespace": "orders"},
        "spec": {"job": fields},
    }


@pytest.mark.parametrize(
    ("baked", "release", "closed"),
    [
        (job(savepointRedeployNonce=1), job(savepointRedeployNonce=2), True),
        (job(savepointRedeployNonce=1), job(), True),
        (job("FlinkSessionJob", savepointRedeployNonce=1), job("FlinkSessionJob", savepointRedeployNonce=2), True),
        (job(savepointRedeployNonce=2), job(savepointRedeployNonce=2), False),
        (job(), job(savepointRedeployNonce=2), False),  # taken away, it orders nothing
        (job(initialSavepointPath="a"), job(initialSavepointPath="b"), False),  # read at a redeploy only
        (job("Deployment", savepointRedeployNonce=1), job("Deployment", savepointRedeployNonce=2), False),
    ],
)
def test_which_changes_have_no_way_back(baked: Manifest, release: Manifest, closed: bool) -> None:
    found = no_way_back([release], [baked])
    assert bool(found) is closed
    assert not closed or found.startswith("spec.job.savepointRedeployNonce of Flink")


class OneWay(Fleet):
    """There is no way back from NEW to OLD."""

    def seen(self) -> Observation:
        found = super().seen()
        return Observation(
            found.verdicts, found.clusters, found.assignments, found.intents, found.held, {}, {(NEW, OLD): "the nonce"}
        )


def test_a_rollout_without_a_way_back_halts() -> None:
    fleet = OneWay([wave("all", ["c0", "c1"])])
    flown(fleet, "c0", state=TargetState.FAILED, reason=Reason("CrashLoop", "3 restarts"))
    decision = fleet.decide()
    assert (fleet.stands(), applies(decision)) == (RolloutState.HALTED, [])
    assert [action.level for action in actions_of(decision) if isinstance(action, Alert)] == ["alert"]


def test_where_others_go_back_it_halts_afterwards_and_says_why() -> None:
    fleet = OneWay([wave("all", ["c0", "c1"], max_concurrent=2)])
    flown(fleet, "c0", state=TargetState.FAILED, reason=Reason("CrashLoop", "3 restarts"))
    flown(fleet, "c1", state=TargetState.SUCCEEDED, to_digest=NEWER)
    assert applies(fleet.decide()) == [f"rollback c1 {OLD}"]
    fleet.well("c1")
    fleet.decide()
    assert fleet.stands() is RolloutState.HALTED
    assert fleet.rollout.reason is not None
    assert fleet.rollout.reason.code == "NeedsRestore"
    assert "the nonce" in fleet.rollout.reason.message


def test_what_an_older_rollout_baked_meanwhile_is_where_a_target_goes_back() -> None:
    fleet = Fleet([wave("all", ["c0"])], row_fields={"to_digest": NEWER})
    fleet.held[target_of("c0")] = "r0"
    fleet.decide()
    fleet.held.clear()
    fleet.assign("c0", NEW, baked=NEW)
    fleet.decide()
    assert (fleet.row("c0").from_digest, fleet.row("c0").baked_digest) == (NEW, NEW)
    fleet.written("c0")
    fleet.look("c0", Health.DEGRADED)
    assert applies(fleet.decide()) == [f"rollback c0 {NEW}"]


def test_a_rollout_goes_back_once_also_when_it_is_tried_again() -> None:
    fleet = Fleet([wave("all", ["c0"])])
    flown(fleet, "c0", state=TargetState.FAILED)
    fleet.decide()
    assert (fleet.stands(), fleet.rollout.went_back) == (RolloutState.ROLLING_BACK, True)
    fleet.put("c0", state=TargetState.FAILED, rolling=False)
    fleet.rollout = fleet.tried_again()
    first = fleet.decide()
    assert (fleet.stands(), applies(first)) == (RolloutState.HALTED, [])
    (told,) = [action.key for action in first.actions if isinstance(action, Alert)]
    assert told != "r1/stopped/0"  # people are told again

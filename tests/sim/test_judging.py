"""Judging: what is asked of the server, how often, and what stands when it does not answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.core import health_cel
from reconciler.core.apply_rules import ApplyRules
from reconciler.core.health import Thresholds
from reconciler.core.health_rules import NO_POLICIES
from reconciler.core.model import Manifest, Now, ObjectKey, Reason, Sync, Target, TargetVerdict
from reconciler.shell.evaluation import HealthEvaluations, InlineEvaluator
from reconciler.shell.judging import ANSWER_LIFETIME_S, FORBIDDEN_LIFETIME_S, JUDGED_AT_ONCE, Judged, Judging
from reconciler.shell.kube_errors import (
    BusyError,
    DryRunRefusedError,
    ForbiddenError,
    KubeError,
    NotFoundError,
    Outcome,
    UnreachableError,
)
from reconciler.shell.limiter import Limiter, WriteLimits
from reconciler.shell.live import GroupKind, LiveCache
from reconciler.shell.releases import SentRelease
from tests.core.field_owners import applied, flink_deployment
from tests.writes import FakeWrites

TARGET = Target("fleet/orders", "c0")
JOB, CONFIG = ObjectKey.of(flink_deployment()), ObjectKey("", "ConfigMap", "orders", "orders")


@dataclass
class Server:
    """What a cluster answers to dry-runs, and what an observer knows of it."""

    answer: Manifest | KubeError
    cache: LiveCache = field(default_factory=LiveCache)
    kinds: dict[GroupKind, float] = field(default_factory=dict)
    asked: int = 0
    failures: int = 0

    reason: Reason | None = None

    def acting_for(self, source: str) -> Server:
        """As KubeCluster.acting_for: whoever asks gets the same answer."""
        assert source == "fleet"
        return self

    async def apply(self, manifest: Manifest, **how: Any) -> Manifest:
        """One dry-run."""
        assert how["dry_run"], manifest
        self.asked += 1
        if isinstance(self.answer, KubeError):
            raise self.answer
        return self.answer

    async def schema_digest(self) -> str:
        """As KubeCluster.schema_digest."""
        return "s1"

    def live(self, key: ObjectKey) -> Any:
        """As Observer.live."""
        return self.cache.live(key)

    def observed_at(self, kind: GroupKind) -> float | None:
        """As Observer.observed_at."""
        return self.kinds.get(kind)

    def failed(self, error: KubeError) -> None:
        """As Observer.failed."""
        del error
        self.failures += 1


def _doubtful(version: str = "7", cpu: Any = 1) -> Manifest:
    """Live, and only the server can tell whether it is what is declared."""
    live = applied(flink_deployment())
    live["metadata"]["resourceVersion"] = version
    live["spec"]["jobManager"]["resource"]["cpu"] = cpu
    nested = {"taskmanager": {"numberOfTaskSlots": "2"}, "execution": {"checkpointing": {"interval": "60s"}}}
    live["spec"]["flinkConfiguration"] = nested
    return live


class Bench:
    """One target of one job, judged as often as wanted."""

    def __init__(self, answer: Manifest | KubeError, live: Manifest | None = None, tokens: float = 100.0) -> None:
        self.server = Server(answer)
        self.server.cache.offer(live or _doubtful(), 5.0)
        self.judging = Judging(Thresholds(), 10.0, HealthEvaluations(InlineEvaluator(health_cel.answer)))
        self.assign(SentRelease("d1", "fleet/orders", "abc", {JOB: flink_deployment()}, "fleet"))
        self.writes = FakeWrites(WriteLimits(Limiter(0.001, tokens), Limiter(1000.0, 1000.0)))
        self.at_s = 10.0

    def assign(self, sent: SentRelease) -> None:
        """It is to have `sent`; nothing is in the inventory."""
        self.judging.assign(TARGET, sent, {}, NO_POLICIES)

    def look(self) -> TargetVerdict:
        """Judge it once more, a check interval later."""
        self.at_s += 10.0
        self.judging.mark_target(TARGET)
        (verdict,) = self.round().verdicts
        return verdict

    def round(self) -> Judged:
        """Judge what is due now."""
        now = Now(1e9 + self.at_s, self.at_s, 1)
        return asyncio.run(
            self.judging.judge(self.server, self.server, self.writes, now)  # type: ignore[arg-type]  # stands for both
        )


REFUSED = DryRunRefusedError(Reason("DryRunRefused", "the webhook does not support dry run"), status=400)


def test_a_webhook_that_refuses_dry_run_leaves_the_judgement_to_the_client_and_is_not_asked_again() -> None:
    bench = Bench(REFUSED)
    verdicts = [bench.look() for _ in range(3)]
    assert [verdict.sync for verdict in verdicts] == [Sync.IN_SYNC] * 3
    assert "the client's comparison" in verdicts[0].objects[0].message
    assert (bench.server.asked, bench.server.failures) == (1, 1)
    # Another version with the same content, as after a report of its status: nothing is asked anew.
    bench.server.cache.offer(_doubtful("8"), 30.0)
    assert bench.look().sync is Sync.IN_SYNC
    assert bench.server.asked == 1
    changed = _doubtful("9")
    changed["metadata"]["annotations"] = {"example.org/by-hand": "yes"}
    bench.server.cache.offer(changed, 40.0)
    assert bench.look().sync is Sync.IN_SYNC
    assert bench.server.asked == 2


def test_an_answer_is_not_believed_for_ever() -> None:
    bench = Bench(REFUSED)
    bench.look()
    bench.at_s += 0.8 * ANSWER_LIFETIME_S
    bench.look()
    assert bench.server.asked == 1
    bench.at_s += 0.4 * ANSWER_LIFETIME_S
    bench.look()
    assert bench.server.asked == 2


def test_a_missing_right_may_be_granted_at_any_time_and_is_asked_for_again_soon() -> None:
    bench = Bench(ForbiddenError(Reason("Forbidden", "no right to patch"), status=403))
    bench.look()
    bench.at_s += 0.8 * FORBIDDEN_LIFETIME_S
    bench.look()
    assert bench.server.asked == 1
    bench.server.answer = bench.server.cache.live(JOB)  # type: ignore[assignment]  # it is there
    bench.at_s += 0.4 * FORBIDDEN_LIFETIME_S
    assert bench.look().sync is Sync.IN_SYNC
    assert bench.server.asked == 2


def test_other_rules_ask_anew() -> None:
    bench = Bench(REFUSED)
    bench.look()
    rules = ApplyRules(conflicts="fail")
    bench.assign(SentRelease("d1", "fleet/orders", "abc", {JOB: flink_deployment()}, "fleet", rules))
    bench.look()
    assert bench.server.asked == 2


def test_without_the_server_s_answer_other_values_differ() -> None:
    live = _doubtful(cpu=2)
    live["metadata"]["managedFields"][0]["manager"] = "somebody-else"
    bench = Bench(REFUSED, live)
    assert [bench.look().sync for _ in range(2)] == [Sync.DIFFERS] * 2
    assert bench.server.asked == 1


@pytest.mark.parametrize(
    "error",
    [
        BusyError(Reason("TooManyRequests", "slow down"), outcome=Outcome.TEMPORARY, status=429),
        UnreachableError(Reason("NoAnswer", "no answer"), outcome=Outcome.TEMPORARY, answered=False),
        KubeError(Reason("UnexpectedAnswer", "a proxy's page"), status=502, answered=False),
        NotFoundError(Reason("NotFound", "it is gone"), status=404),
    ],
)
def test_what_passes_is_asked_again(error: KubeError) -> None:
    bench = Bench(error)
    assert [bench.look().sync for _ in range(3)] == [Sync.ASK] * 3
    assert bench.server.asked == 3
    bench.server.answer = _doubtful()
    assert [bench.look().sync for _ in range(2)] == [Sync.IN_SYNC] * 2
    assert bench.server.asked == 4


def test_without_a_token_nobody_is_asked() -> None:
    bench = Bench(REFUSED, tokens=1.0)
    bench.writes.limits.cluster.take(0.0)
    assert bench.look().sync is Sync.ASK
    assert bench.server.asked == 0


def test_a_target_is_as_fresh_as_its_oldest_kind_and_bad_news_as_its_newest() -> None:
    live = applied(flink_deployment())
    live["status"] = {
        "lifecycleState": "STABLE",
        "jobManagerDeploymentStatus": "READY",
        "jobStatus": {"state": "RUNNING", "jobId": "9b1c"},
        "observedGeneration": 1,
        "reconciliationStatus": {"state": "DEPLOYED"},
    }
    config: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "orders", "namespace": "orders"},
        "data": {"a": "b"},
    }
    bench = Bench(REFUSED, live)
    objects = {JOB: flink_deployment(), CONFIG: config}
    bench.assign(SentRelease("d2", "fleet/orders", "abc", objects, "fleet"))
    bench.server.cache.offer(applied(config), 5.0)
    bench.server.kinds = {GroupKind.of(JOB): 30.0, GroupKind.of(CONFIG): 8.0}
    verdict = bench.look()
    assert (str(verdict.health), verdict.sync, verdict.observed_at) == ("Healthy", Sync.IN_SYNC, 8.0)
    live["metadata"]["resourceVersion"] = "9"
    live["status"]["jobStatus"]["state"] = "FAILED"
    bench.server.cache.offer(live, 33.0)
    verdict = bench.look()
    assert (str(verdict.health), verdict.observed_at) == ("Degraded", 33.0)
    # Of a kind that was never seen whole, what was read by itself was seen then, and not since.
    live["metadata"]["resourceVersion"] = "10"
    live["status"]["jobStatus"]["state"] = "RUNNING"
    bench.server.cache.offer(live, 40.0)
    del bench.server.kinds[GroupKind.of(CONFIG)]
    assert bench.look().observed_at == 5.0


def test_what_is_being_written_is_judged_once_that_has_ended_and_keeps_nobody_awake_meanwhile() -> None:
    bench = Bench(REFUSED)
    bench.writes.unsettled.add(TARGET)
    assert bench.round().verdicts == []
    assert bench.round().rechecks == []
    bench.writes.unsettled.clear()
    assert [verdict.target for verdict in bench.round().verdicts] == [TARGET]


def test_of_many_some_are_judged_and_the_others_at_once_afterwards() -> None:
    bench = Bench(REFUSED)
    others = [Target(f"fleet/app{number:03}", "c0") for number in range(JUDGED_AT_ONCE)]
    for target in others:
        bench.judging.assign(target, SentRelease("d3", target.application, "abc", {}, "fleet"), {}, NO_POLICIES)
    first = bench.round()
    assert (len(first.verdicts), bench.at_s in first.rechecks) == (JUDGED_AT_ONCE, True)
    second = bench.round()
    assert (len(second.verdicts), bench.at_s in second.rechecks) == (1, False)
    assert {verdict.target for verdict in [*first.verdicts, *second.verdicts]} == {TARGET, *others}


def test_each_of_many_has_its_turn_however_often_those_before_it_are_due() -> None:
    bench = Bench(REFUSED)
    others = [Target(f"fleet/app{number:03}", "c0") for number in range(3 * JUDGED_AT_ONCE)]
    for target in others:
        bench.judging.assign(target, SentRelease("d3", target.application, "abc", {}, "fleet"), {}, NO_POLICIES)
    judged: set[Target] = set()
    for _ in range(5):
        judged.update(verdict.target for verdict in bench.round().verdicts)
        for target in others[: 2 * JUDGED_AT_ONCE]:
            bench.judging.mark_target(target)
    assert judged >= set(others)

"""The shipped adapter, `perform` and the judgement under admission webhooks: which error, what becomes of a write, and
whether an object whose fields a webhook changes is in sync."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.core import health_cel
from reconciler.core.health import Thresholds
from reconciler.core.health_rules import NO_POLICIES
from reconciler.core.model import IntentResult, Manifest, Now, ObjectKey, ObjectVerdict, Sync
from reconciler.core.ownership import stamp
from reconciler.shell import kube_errors as errors
from reconciler.shell.evaluation import HealthEvaluations, InlineEvaluator
from reconciler.shell.judging import Judging
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError, Outcome
from reconciler.shell.live import GroupKind, LiveCache
from reconciler.shell.perform import Later
from reconciler.shell.releases import SentRelease
from reconciler.sim.admission import Answer, Fault, Review
from tests.contract.api import Api
from tests.contract.test_admission import mirror, put, refuse
from tests.contract.test_perform import OWNER, TARGET, Hand, config_map, said
from tests.writes import FakeWrites

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"key": "aHVudGVyMg=="}}


@pytest.fixture
def hand(api: Api) -> Hand:
    """Our hand on one backend."""
    return Hand(api, KubeCluster("c0", api.transport, now_s=lambda: 0.0))


def flink(image: str = "orders:1") -> Manifest:
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {"name": "a"},
        "spec": {"image": image, "flinkVersion": "v1_20"},
    }


@dataclass
class Eyes:
    """A lane's judgement of one object, with what an observer would know of it."""

    hand: Hand
    manifest: Manifest
    cache: LiveCache = field(default_factory=LiveCache)
    failures: list[KubeError] = field(default_factory=list)
    judging: Judging = field(
        default_factory=lambda: Judging(Thresholds(), 10.0, HealthEvaluations(InlineEvaluator(health_cel.answer)))
    )
    writes: FakeWrites = field(default_factory=FakeWrites)
    at_s: float = 10.0

    def live(self, key: ObjectKey) -> Any:
        return self.cache.live(key)

    def observed_at(self, kind: GroupKind) -> float | None:
        del kind
        return self.at_s

    def failed(self, error: KubeError) -> None:
        self.failures.append(error)

    def look(self) -> ObjectVerdict:
        """Read the object and judge it."""
        api = self.hand.api
        declared = {**self.manifest, "metadata": {**self.manifest["metadata"], "namespace": api.namespace}}
        stamped = stamp(declared, OWNER, TARGET.application)
        key = ObjectKey.of(stamped)
        self.at_s += 20.0
        self.cache.offer(api.get(f"{key.kind.lower()}s", key.name).expect(200), self.at_s)
        items = {item.key: item for item in self.hand.items.values() if item.target == TARGET}
        sent = SentRelease("d1", TARGET.application, OWNER, {key: stamped}, "fleet")
        self.judging.assign(TARGET, sent, items, NO_POLICIES)
        self.judging.mark_target(TARGET)
        now = Now(1e9 + self.at_s, self.at_s, 1)
        # `self` stands for the observer: it has what judging asks of one.
        judged = api.run(self.judging.judge(self, self.hand.kube, self.writes, now))  # type: ignore[arg-type]
        (verdict,) = judged.verdicts
        return verdict.objects[0]


# ---- which error -------------------------------------------------------------------------------------------------


def attempt(api: Api, manifest: Manifest, *, dry_run: bool = False) -> KubeError:
    """The error of a create."""
    kube = KubeCluster("c0", api.transport, now_s=lambda: 0.0)
    whole = {**manifest, "metadata": {**manifest["metadata"], "namespace": api.namespace}}
    with pytest.raises(KubeError) as caught:
        api.run(kube.apply(whole, uid=None, force=False, dry_run=dry_run))
    return caught.value


@pytest.mark.parametrize("dry_run", [False, True], ids=["write", "dry-run"])
@pytest.mark.parametrize("code", [0, 400, 403, 409, 422, 429, 500, 503])
def test_a_refusal_is_permanent_whatever_code_the_webhook_gives_it(api: Api, code: int, dry_run: bool) -> None:
    with api.webhook("deny", refuse("only signed images", code)):
        error = attempt(api, config_map(a="1"), dry_run=dry_run)
    assert type(error) is errors.DeniedError
    assert (error.permanent, error.answered, error.reason.code) == (True, True, "Denied")
    assert error.reason.message.endswith("denied the request: only signed images")


@pytest.mark.parametrize("dry_run", [False, True], ids=["write", "dry-run"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
def test_a_webhook_that_does_not_answer_is_temporary_and_nothing_happened(
    api: Api, fault: Fault, dry_run: bool
) -> None:
    with api.webhook("broken", fault, timeout_s=1):
        error = attempt(api, config_map(a="1"), dry_run=dry_run)
    assert type(error) is errors.ServerError
    assert (error.outcome, error.reason.code) == (Outcome.TEMPORARY, "WebhookFailed")
    assert error.answered, "the API server spoke: the cluster counts as heard"
    assert f'"broken.{api.namespace}.admission.test"' in error.reason.message


@pytest.mark.parametrize("side_effects", ["Some", "Unknown"])
def test_a_refused_dry_run_is_an_error_of_its_own(api: Api, side_effects: str) -> None:
    with api.webhook("effects", lambda _: Answer(), side_effects=side_effects, mutating=True):
        error = attempt(api, config_map(a="1"), dry_run=True)
    assert type(error) is errors.DryRunRefusedError
    assert (error.permanent, error.reason.code) == (True, "DryRunRefused")


def test_of_a_secret_no_word_of_the_webhook_is_told(api: Api) -> None:
    with api.webhook("deny", refuse("aHVudGVyMg== is not a good password", 403)):
        error = attempt(api, SECRET)
    assert type(error) is errors.DeniedError
    assert "aHVudGVyMg" not in str(error)
    with api.webhook("broken", Fault.SLOW, timeout_s=1):
        assert attempt(api, SECRET).outcome is Outcome.TEMPORARY


# ---- what becomes of a write ---------------------------------------------------------------------------------------


def test_a_refusal_fails_the_intent_with_the_webhook_s_words(hand: Hand) -> None:
    with hand.api.webhook("deny", refuse("only signed images", 403)):
        found = hand.apply(config_map(a="1"))
    assert said(found) == ("failed", "Denied")
    assert found.reason is not None
    assert found.reason.message.endswith("denied the request: only signed images")
    assert f"ConfigMap {hand.api.namespace}/a" in found.reason.message


def test_a_refusal_fails_the_intent_for_a_secret_without_its_words(hand: Hand) -> None:
    with hand.api.webhook("deny", refuse("aHVudGVyMg== is not a good password", 403)):
        found = hand.apply(SECRET)
    assert said(found) == ("failed", "Denied")
    assert found.reason is not None
    assert "aHVudGVyMg" not in found.reason.message
    assert "password" not in found.reason.message


def test_a_webhook_that_does_not_answer_puts_the_intent_off(hand: Hand) -> None:
    with hand.api.webhook("broken", Fault.HANG_UP):
        found = hand.apply(config_map(a="1"))
        assert said(found) == ("later", "WebhookFailed")
        assert isinstance(found, Later)
        assert not found.unreachable
    assert said(hand.apply(config_map(a="1"))) == ("done", None)


def test_a_deletion_that_a_webhook_refuses_fails_and_the_object_stays_ours(hand: Hand) -> None:
    hand.apply(config_map(a="1"))
    with hand.api.webhook("keep", refuse("keep it", 403), operations=("DELETE",)):
        refused = hand.delete("ConfigMap", "a")
    assert said(refused) == ("failed", "Denied")
    gone = hand.delete("ConfigMap", "a")
    assert isinstance(gone, IntentResult)
    assert gone.gone


def test_what_a_webhook_adds_costs_no_second_write(hand: Hand) -> None:
    with hand.api.webhook("label", put("/metadata/labels/injected", "yes"), mutating=True):
        assert said(hand.apply(config_map(a="1"))) == ("done", None)
        assert said(hand.apply(config_map(a="1"))) == ("unchanged", None)
        assert hand.writes == 0
    assert Eyes(hand, config_map(a="1")).look().sync is Sync.IN_SYNC


# ---- no perpetual difference ---------------------------------------------------------------------------------------


def test_a_field_of_ours_that_a_webhook_changes_is_in_sync_by_the_server_s_word(hand: Hand) -> None:
    dry_runs: list[Review] = []

    def counted(review: Review) -> Answer:
        dry_runs.extend([review] if review.dry_run else [])
        return mirror(review)

    eyes = Eyes(hand, flink())
    with hand.api.webhook("mirror", counted, mutating=True, resources=("flinkdeployments",)):
        assert said(hand.apply(flink())) == ("done", None)
        live = hand.api.get("flinkdeployments", "a").expect(200)
        assert live["spec"]["image"] == "mirror/orders:1"
        verdicts = [eyes.look() for _ in range(3)]
        assert [verdict.sync for verdict in verdicts] == [Sync.IN_SYNC] * 3
        assert len(dry_runs) == 1, "its answer is remembered"
        # A report of its status is no reason to ask anew, an edit of a field of ours is: and that one is drift.
        hand.api.merge("flinkdeployments", "a", {"status": {"error": "x"}}, sub="status").expect(200)
        assert eyes.look().sync is Sync.IN_SYNC
        assert len(dry_runs) == 1
        hand.api.merge("flinkdeployments", "a", {"spec": {"flinkVersion": "v1_19"}}).expect(200)
        drifted = eyes.look()
        assert (drifted.sync, drifted.drifted_by) == (Sync.DIFFERS, ("kubectl-edit",))
        assert "spec.flinkVersion" in drifted.drifted
        assert len(dry_runs) == 1, "somebody else holds the field now: that is certain"
        assert said(hand.apply(flink())) == ("done", None)
        assert eyes.look().sync is Sync.IN_SYNC


def test_a_field_that_a_webhook_takes_away_is_in_sync_by_the_server_s_word(hand: Hand) -> None:
    def drop(review: Review) -> Answer:
        assert review.object is not None
        present = "b" in review.object.get("data", {})
        return Answer(patch=[{"op": "remove", "path": "/data/b"}] if present else ())

    with hand.api.webhook("drop", drop, mutating=True, resources=("configmaps",)):
        assert said(hand.apply(config_map(a="1", b="2"))) == ("done", None)
        assert hand.api.get("configmaps", "a").expect(200)["data"] == {"a": "1"}
        assert Eyes(hand, config_map(a="1", b="2")).look().sync is Sync.IN_SYNC


def test_when_the_webhook_is_gone_what_it_changed_differs_and_is_repaired(hand: Hand) -> None:
    with hand.api.webhook("mirror", mirror, mutating=True, resources=("flinkdeployments",)):
        hand.apply(flink())
    eyes = Eyes(hand, flink())
    verdict = eyes.look()
    assert (verdict.sync, verdict.drifted) == (Sync.DIFFERS, ("spec.image",))
    assert said(hand.apply(flink())) == ("done", None)
    assert hand.api.get("flinkdeployments", "a").expect(200)["spec"]["image"] == "orders:1"
    assert eyes.look().sync is Sync.IN_SYNC


def test_what_is_not_written_yet_is_not_asked_about(hand: Hand) -> None:
    """A release that was assigned and waits for its turn differs, and everybody knows why."""
    asked: list[Review] = []

    def observe(review: Review) -> Answer:
        asked.append(review)
        return Answer()

    hand.apply(config_map(a="1"))
    eyes = Eyes(hand, config_map(a="2"))
    with hand.api.webhook("observe", observe):
        eyes.writes.pending = {TARGET}
        assert eyes.look().sync is Sync.DIFFERS
        assert asked == []
        eyes.writes.pending = set()
        assert eyes.look().sync is Sync.DIFFERS
        assert [review.dry_run for review in asked] == [True]


# ---- not judgeable -------------------------------------------------------------------------------------------------


def test_under_a_webhook_that_refuses_dry_run_the_client_judges_and_says_so(hand: Hand) -> None:
    """The record of owners is gone, so only the server could tell; it refuses, and that is shown and is no failure."""
    with hand.api.webhook("effects", lambda _: Answer(), side_effects="Some"):
        assert said(hand.apply(config_map(a="1"))) == ("done", None)
        hand.api.merge("configmaps", "a", {"metadata": {"managedFields": [{}]}}).expect(200)
        eyes = Eyes(hand, config_map(a="1"))
        verdicts = [eyes.look() for _ in range(2)]
        assert [verdict.sync for verdict in verdicts] == [Sync.IN_SYNC] * 2
        assert verdicts[0].by_client
        assert "does not support dry run" in verdicts[0].message
        assert [type(error) for error in eyes.failures] == [errors.DryRunRefusedError], "asked once"
        hand.api.merge("configmaps", "a", {"data": {"a": "9"}}).expect(200)
        assert eyes.look().sync is Sync.DIFFERS


def test_a_webhook_that_changes_our_field_and_refuses_dry_run_makes_a_difference_that_is_shown(hand: Hand) -> None:
    with hand.api.webhook("a", put("/data/a", "theirs"), side_effects="Unknown", mutating=True):
        assert said(hand.apply(config_map(a="1"))) == ("done", None)
        verdict = Eyes(hand, config_map(a="1")).look()
        assert (verdict.sync, verdict.drifted) == (Sync.DIFFERS, ("data.a",))

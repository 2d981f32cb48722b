"""What one write of ours makes of an object that others write too: the shipped `perform` on every backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from reconciler.core.apply_rules import ApplyRules, Match, ObjectRule
from reconciler.core.field_paths import parse_field_path
from reconciler.core.health_common import newest_time_s
from reconciler.core.model import (
    Intent,
    IntentResult,
    IntentState,
    InventoryItem,
    InventoryPhase,
    Manifest,
    ObjectKey,
    Target,
    Verb,
)
from reconciler.core.ownership import stamp
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.perform import Later, Wanted, perform
from reconciler.sim.admission import Answer, Review
from tests.contract.api import MERGE, Api
from tests.races import NotThereYet

OWNER = "0123456789abcdef0123456789abcdef"
TARGET = Target("sample/orders", "c0")


@dataclass
class Hand:
    """Intents carried out one at a time on one object of `api`'s namespace, with its row in an inventory."""

    api: Api
    kube: KubeCluster
    rules: ApplyRules = field(default_factory=ApplyRules)
    rule: ObjectRule | None = None
    items: dict[ObjectKey, InventoryItem] = field(default_factory=dict)
    writes: int = 0
    later_s: float = 0.0

    def observed(self, manifest: Manifest) -> None: ...

    def gone(self, key: ObjectKey) -> None: ...

    def failed(self, error: KubeError) -> None: ...

    async def permit(self) -> Later | None:
        self.writes += 1
        return None

    def apply(self, manifest: Manifest, known: Manifest | None = None) -> IntentResult | Later:
        """Apply `manifest`, and take what is known afterwards into the inventory."""
        declared = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.api.namespace}}
        stamped = stamp(declared, OWNER, TARGET.application)
        key = ObjectKey.of(stamped)
        self.items.setdefault(key, InventoryItem(TARGET, key, str(manifest["apiVersion"]), InventoryPhase.INTENDED))
        found = self._perform(Verb.APPLY, key, str(manifest["apiVersion"]), stamped, known)
        if isinstance(found, IntentResult) and found.uid:
            version = str(manifest["apiVersion"])
            self.items[key] = InventoryItem(TARGET, key, version, InventoryPhase.OWNED, found.uid, found.generation)
        return found

    def delete(self, kind: str, name: str, version: str = "v1") -> IntentResult | Later:
        group = version.rpartition("/")[0]
        return self._perform(Verb.DELETE, ObjectKey(group, kind, self.api.namespace, name), version, None, None)

    def _perform(
        self, verb: Verb, key: ObjectKey, version: str, manifest: Manifest | None, known: Manifest | None
    ) -> IntentResult | Later:
        intent = Intent("i1", "rollout:r1", "start", TARGET, verb, key, version, "d1", 1, 0)
        wanted = Wanted(manifest, self.items.get(key), OWNER, self.rules, self.rule, known)
        self.writes = 0
        # The simulated server has a time of its own: what is there says when it is.
        live = self.api.send("GET", self.api.path(f"{key.kind.lower()}s", key.name)).body
        now_wall = newest_time_s(live) + self.later_s
        return self.api.run(perform(intent, wanted, self.kube, self, self.permit, now_wall))


@pytest.fixture
def hand(api: Api) -> Hand:
    """Our hand on one backend."""
    return Hand(api, KubeCluster("c0", api.transport, now_s=lambda: 0.0))


def said(outcome: IntentResult | Later) -> tuple[str, str | None]:
    """The state (or "later") and the reason's code."""
    state = "later" if isinstance(outcome, Later) else str(outcome.state)
    return state, outcome.reason.code if outcome.reason is not None else None


def config_map(**data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def ignoring(*paths: str, handover: tuple[str, ...] = (), replace: bool = False) -> ObjectRule:
    return ObjectRule(Match(), tuple(parse_field_path(path) for path in paths), handover, replace)


def by_hand(api: Api, body: Any, manager: str = "kubectl-edit", plural: str = "configmaps") -> Manifest:
    """A merge patch of somebody else's."""
    path, query = api.path(plural, "a"), {"fieldManager": manager}
    found: Manifest = api.send("PATCH", path, body, content_type=MERGE, query=query).expect(200)
    return found


def made_by(api: Api, manager: str, **data: str) -> Manifest:
    """A ConfigMap that another tool has made."""
    metadata = {"name": "a", "namespace": api.namespace}
    body = {**config_map(**data), "metadata": metadata}
    found: Manifest = api.send("POST", api.path("configmaps"), body, query={"fieldManager": manager}).expect(201)
    return found


def managers(live: Manifest) -> list[tuple[str, str]]:
    return sorted((entry["manager"], entry["operation"]) for entry in live["metadata"]["managedFields"])


def read(api: Api, plural: str = "configmaps") -> Manifest:
    found: Manifest = api.get(plural, "a").expect(200)
    return found


# ---- adoption ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [{"mine": "1"}, {"a": "1"}, {"a": "2"}], ids=["beside", "equal", "conflict"])
def test_what_somebody_made_at_the_same_moment_stays_theirs(hand: Hand, ours: dict[str, str]) -> None:
    """A create of ours changes nothing of what is there: no mark of ours would make it ours next time."""
    made = made_by(hand.api, "kubectl-create", a="1")
    kube, hand.kube = hand.kube, cast(KubeCluster, NotThereYet(hand.kube))
    refused = hand.apply(config_map(**ours))
    assert said(refused) == ("failed", "NotOwned")
    assert refused.reason is not None
    assert "kubectl-create" in refused.reason.message
    assert read(hand.api) == made
    hand.kube = kube
    assert said(hand.apply(config_map(**ours))) == ("failed", "NotOwned")
    assert said(hand.delete("ConfigMap", "a")) == ("failed", "NotOwned")
    assert read(hand.api) == made


def test_what_somebody_made_at_the_same_moment_is_adopted_where_it_may_be(hand: Hand) -> None:
    made = made_by(hand.api, "kubectl-create", a="1", left="over")
    hand.kube = cast(KubeCluster, NotThereYet(hand.kube))
    hand.rules = ApplyRules(adopt="ifUnowned")
    assert said(hand.apply(config_map(a="2"))) == ("done", None)
    live = read(hand.api)
    assert (live["data"], live["metadata"]["uid"]) == ({"a": "2"}, made["metadata"]["uid"])


@pytest.mark.parametrize("manager", ["kubectl-client-side-apply", "kubectl-create", "helm", "argocd-controller"])
def test_what_a_tool_made_is_adopted_whole(hand: Hand, manager: str) -> None:
    made = made_by(hand.api, manager, a="1", left="over")
    refused = hand.apply(config_map(a="2"))
    assert said(refused) == ("failed", "NotOwned")
    assert refused.reason is not None
    assert manager in refused.reason.message
    assert read(hand.api) == made
    hand.rules = ApplyRules(adopt="ifUnowned")
    assert said(hand.apply(config_map(a="2"))) == ("done", None)
    live = read(hand.api)
    # It is the same object, what the tool had set beyond Git is gone, and nobody but us owns anything of it.
    assert live["metadata"]["uid"] == made["metadata"]["uid"]
    assert live["data"] == {"a": "2"}
    assert managers(live) == [("reconciler", "Apply")]
    assert said(hand.apply(config_map(a="2"))) == ("unchanged", None)
    assert hand.writes == 0


def test_an_adoption_that_was_cut_short_goes_on(hand: Hand) -> None:
    """A crash after the record of owners was written, before anything was applied: the object has no mark yet."""
    made_by(hand.api, "kubectl-client-side-apply", a="1", left="over")
    hand.rules = ApplyRules(adopt="ifUnowned")
    live = read(hand.api)
    fields = [{**live["metadata"]["managedFields"][0], "manager": "reconciler", "operation": "Apply"}]
    metadata = {"resourceVersion": live["metadata"]["resourceVersion"], "managedFields": fields}
    by_hand(hand.api, {"metadata": metadata}, "reconciler")
    assert said(hand.apply(config_map(a="2"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "2"}
    assert managers(read(hand.api)) == [("reconciler", "Apply")]


def test_a_manager_that_holds_our_fields_is_named_and_not_overruled(hand: Hand) -> None:
    made_by(hand.api, "billing-operator", a="1")
    hand.rules = ApplyRules(adopt="ifUnowned")
    refused = hand.apply(config_map(a="2"))
    assert said(refused) == ("failed", "FieldConflict")
    assert refused.reason is not None
    assert "billing-operator" in refused.reason.message
    assert read(hand.api)["data"] == {"a": "1"}
    hand.rules = ApplyRules(adopt="force")
    assert said(hand.apply(config_map(a="2"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "2"}


def test_nothing_changes_of_what_another_manager_keeps_from_being_adopted(hand: Hand) -> None:
    """kubectl made it and a controller holds one of our fields: kubectl's record is not taken without the rest."""
    made_by(hand.api, "kubectl-create", a="1", left="over")
    before = by_hand(hand.api, {"data": {"a": "9"}}, "tuner")
    hand.rules = ApplyRules(adopt="ifUnowned")
    for _ in range(2):
        refused = hand.apply(config_map(a="2", left="out"))
        assert said(refused) == ("failed", "FieldConflict")
        assert refused.reason is not None
        assert refused.reason.message.endswith("fields that we declare are owned by tuner: .data.a")
        assert read(hand.api) == before
    # What the controller holds is not declared any more, and what kubectl holds was never in the way.
    assert said(hand.apply(config_map(left="out"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "9", "left": "out"}


def test_nothing_changes_of_what_cannot_become_what_git_declares(hand: Hand) -> None:
    made = hand.api.create(
        "configmaps", "a", {"data": {"a": "1"}, "immutable": True}, fieldManager="kubectl-create"
    ).expect(201)
    hand.rules = ApplyRules(adopt="ifUnowned")
    assert said(hand.apply({**config_map(a="2"), "immutable": True})) == ("failed", "NeedsReplace")
    assert read(hand.api) == made


def test_the_record_is_put_back_where_only_the_write_tells_that_it_is_refused(hand: Hand) -> None:
    """A webhook asks for what Git does not declare: it was the tool's, and goes with its record only."""

    def asks_for_more(review: Review) -> Answer:
        return Answer(allowed="left" in (review.object or {}).get("data", {}), message="left is asked for")

    made = made_by(hand.api, "kubectl-create", a="1", left="over")
    hand.rules = ApplyRules(adopt="ifUnowned")
    with hand.api.webhook("more", asks_for_more):
        assert said(hand.apply(config_map(a="2"))) == ("failed", "Denied")
    live = read(hand.api)
    assert live["metadata"].pop("resourceVersion") != made["metadata"].pop("resourceVersion")
    assert live == made


def test_a_helm_release_is_taken_over_by_force_only(hand: Hand) -> None:
    made_by(hand.api, "helm", a="1")
    by_hand(hand.api, {"metadata": {"annotations": {"meta.helm.sh/release-name": "web"}}}, "helm")
    hand.rules = ApplyRules(adopt="ifUnowned")
    assert said(hand.apply(config_map(a="2"))) == ("failed", "OwnedByOther")
    hand.rules = ApplyRules(adopt="force")
    assert said(hand.apply(config_map(a="2"))) == ("done", None)
    # Helm's mark was Helm's field: it became ours, and Git does not declare it.
    assert "meta.helm.sh/release-name" not in read(hand.api)["metadata"]["annotations"]


def test_an_object_of_another_application_is_left_to_it(hand: Hand) -> None:
    made_by(hand.api, "kubectl", a="1")
    by_hand(hand.api, {"metadata": {"labels": {"reconciler.dev/owner": "f" * 32}}}, "reconciler")
    for rule in ("never", "ifUnowned", "force"):
        hand.rules = ApplyRules(adopt=rule)
        assert said(hand.apply(config_map(a="2")))[0] == "failed"
    assert read(hand.api)["data"] == {"a": "1"}


# ---- fields that others write --------------------------------------------------------------------------------------


def test_an_ignored_field_is_declared_once_and_then_left_alone(hand: Hand) -> None:
    hand.rule = ignoring("data.a")
    assert said(hand.apply(config_map(a="1", b="1"))) == ("done", None)
    assert said(hand.apply(config_map(a="5", b="1"))) == ("unchanged", None)  # Git changed it: that is ignored as well
    by_hand(hand.api, {"data": {"a": "9"}})
    assert said(hand.apply(config_map(a="1", b="1"))) == ("unchanged", None)
    assert hand.writes == 0
    assert said(hand.apply(config_map(a="1", b="2"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "9", "b": "2"}
    # Whoever wrote it owns it alone: its removal by them is theirs, too.
    by_hand(hand.api, {"data": {"a": None}})
    assert said(hand.apply(config_map(a="1", b="2"))) == ("unchanged", None)
    assert read(hand.api)["data"] == {"b": "2"}


def test_a_sole_owner_does_not_delete_what_it_ignores(hand: Hand) -> None:
    assert said(hand.apply(config_map(a="1", b="1"))) == ("done", None)
    hand.rule = ignoring("data.a")
    assert said(hand.apply(config_map(a="2", b="2"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "1", "b": "2"}
    assert said(hand.apply(config_map(a="3", b="2"))) == ("unchanged", None)


def test_an_ignored_field_stays_when_git_drops_it(hand: Hand) -> None:
    """In the commit that ignores it, or in a later one: it is somebody else's, and we are still its only owner."""
    assert said(hand.apply(config_map(a="1", b="1"))) == ("done", None)
    hand.rule = ignoring("data.a")
    assert said(hand.apply(config_map(b="2"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "1", "b": "2"}
    assert said(hand.apply(config_map(b="2"))) == ("unchanged", None)
    by_hand(hand.api, {"data": {"a": "9"}})
    assert said(hand.apply(config_map(b="3"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "9", "b": "3"}
    hand.rule = None
    assert said(hand.apply(config_map(b="3"))) == ("unchanged", None)  # it is not ours any more


def test_replicas_stay_when_an_autoscaler_comes_in_their_place(hand: Hand) -> None:
    """Before it has written anything they are still ours, and would fall to one."""
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "main", "image": "a:1"}]}}
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": template}
    web: Manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}
    assert said(hand.apply({**web, "spec": {**spec, "replicas": 5}})) == ("done", None)
    hand.rule = ignoring("/spec/replicas")
    assert said(hand.apply(web))[0] in ("done", "unchanged")
    assert read(hand.api, "deployments")["spec"]["replicas"] == 5


def test_a_write_made_of_live_values_fits_that_version_only(hand: Hand) -> None:
    """Somebody changes the ignored field between our read and our write: it is not set back."""
    hand.rule = ignoring("data.a")
    hand.apply(config_map(a="1", b="1"))
    known = read(hand.api)
    by_hand(hand.api, {"data": {"a": "9"}})
    assert said(hand.apply(config_map(a="1", b="2"), known)) == ("done", None)
    assert read(hand.api)["data"] == {"a": "9", "b": "2"}


def test_replicas_are_left_to_an_autoscaler(hand: Hand) -> None:
    container = {"name": "main", "image": "a:1"}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    web: Manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}
    hand.rule = ignoring("/spec/replicas")
    assert said(hand.apply(web)) == ("done", None)
    if hand.api.backend == "real":
        scale = hand.api.send("GET", hand.api.path("deployments", "a", sub="scale")).expect(200)
        scale["spec"]["replicas"] = 7
        path = hand.api.path("deployments", "a", sub="scale")
        hand.api.send("PUT", path, scale, query={"fieldManager": "kube-controller-manager"}).expect(200)
    else:
        by_hand(hand.api, {"spec": {"replicas": 7}}, "kube-controller-manager", "deployments")
    assert said(hand.apply(web)) == ("unchanged", None)
    container["image"] = "a:2"
    assert said(hand.apply(web)) == ("done", None)
    live = read(hand.api, "deployments")
    assert live["spec"]["replicas"] == 7
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "a:2"


def test_fields_of_a_manager_that_was_handed_over_to_are_its_own(hand: Hand) -> None:
    hand.apply(config_map(a="1", b="1"))
    by_hand(hand.api, {"data": {"a": "9"}}, "tuner")
    by_hand(hand.api, {"data": {"b": "9"}}, "kubectl-edit")
    hand.rule = ignoring(handover=("tuner",))
    assert said(hand.apply(config_map(a="1", b="1"))) == ("done", None)
    assert read(hand.api)["data"] == {"a": "9", "b": "1"}
    assert said(hand.apply(config_map(a="1", b="1"))) == ("unchanged", None)


def test_with_conflicts_fail_nobody_is_overruled(hand: Hand) -> None:
    hand.rules = ApplyRules(conflicts="fail")
    assert said(hand.apply(config_map(a="1"))) == ("done", None)
    assert said(hand.apply(config_map(a="2"))) == ("done", None)
    by_hand(hand.api, {"data": {"a": "9"}})
    refused = hand.apply(config_map(a="2"))
    assert said(refused) == ("failed", "FieldConflict")
    assert refused.reason is not None
    assert "kubectl-edit" in refused.reason.message
    assert read(hand.api)["data"] == {"a": "9"}


# ---- what cannot be changed, what does not go ----------------------------------------------------------------------


def test_what_cannot_change_is_made_anew_where_git_allows_it(hand: Hand) -> None:
    first = {**config_map(a="1"), "immutable": True}
    hand.apply(first)
    before = read(hand.api)
    refused = hand.apply({**first, "data": {"a": "2"}})
    assert said(refused) == ("failed", "NeedsReplace")
    hand.rule = ignoring(replace=True)
    assert said(hand.apply({**first, "data": {"a": "2"}})) == ("done", None)
    live = read(hand.api)
    assert live["data"] == {"a": "2"}
    assert live["metadata"]["uid"] != before["metadata"]["uid"]


def test_what_finalizers_hold_is_told_and_never_forced(hand: Hand) -> None:
    hand.apply(config_map(a="1"))
    by_hand(hand.api, {"metadata": {"finalizers": ["example.org/hold"]}})
    assert said(hand.delete("ConfigMap", "a")) == ("later", "Terminating")
    assert said(hand.delete("ConfigMap", "a")) == ("later", "Terminating")
    hand.later_s = 700.0
    told = hand.delete("ConfigMap", "a")
    assert said(told) == ("failed", "FinalizersHold")
    assert told.reason is not None
    assert "example.org/hold" in told.reason.message
    assert read(hand.api)["metadata"]["finalizers"] == ["example.org/hold"]
    by_hand(hand.api, {"metadata": {"finalizers": None}})
    gone = hand.delete("ConfigMap", "a")
    assert isinstance(gone, IntentResult)
    assert (gone.state, gone.gone) == (IntentState.DONE, True)

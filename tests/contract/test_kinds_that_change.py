"""Kinds that change under us: a definition that grows narrower or stricter, has two versions, or is deleted while its
objects exist; and a quota that is used up.

On the real API server alone: the simulated one has no definitions and no quotas. Each test installs a definition of its
own, for a definition is the whole cluster's.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from reconciler.core.diff import compare
from reconciler.core.model import Sync
from reconciler.shell import kube_errors as errors
from reconciler.shell.kube_cluster import KubeCluster
from tests.contract.api import APPLY, MERGE, Answer, Api, Object, managers, owned
from tests.control_plane.server import CRDS_PATH, ControlPlane, call, install_crd
from tests.control_plane.specimen import SPECIMEN_CRD

pytestmark = [pytest.mark.controlplane, pytest.mark.parametrize("connected", ["real"], indirect=True)]

WITHIN_S = 60.0


@dataclass(slots=True)
class Definition:
    """A definition of a test's own, like the specimen's, with the versions v1 (stored) and v2."""

    plane: ControlPlane
    api: Api
    group: str

    @property
    def path(self) -> str:
        return f"{CRDS_PATH}/specimens.{self.group}"

    def install(self) -> None:
        crd = copy.deepcopy(SPECIMEN_CRD)
        crd["metadata"]["name"] = f"specimens.{self.group}"
        crd["spec"]["group"] = self.group
        second = {**copy.deepcopy(crd["spec"]["versions"][0]), "name": "v2", "storage": False}
        crd["spec"]["versions"].append(second)
        install_crd(self.plane, crd)

    def change(self, edit: Callable[[Object], None]) -> None:
        """Edit each version, as somebody who upgrades the operator does."""
        status, crd = call(self.plane, "GET", self.path)
        assert status == 200
        for version in crd["spec"]["versions"]:
            edit(version)
        status, answer = call(self.plane, "PUT", self.path, crd)
        assert status == 200, answer

    def whole(self, name: str, spec: Object, version: str = "v1") -> Object:
        metadata = {"name": name, "namespace": self.api.namespace}
        return {"apiVersion": f"{self.group}/{version}", "kind": "Specimen", "metadata": metadata, "spec": spec}

    def at(self, name: str, version: str = "v1") -> str:
        return f"/apis/{self.group}/{version}/namespaces/{self.api.namespace}/specimens/{name}"

    def apply(self, name: str, spec: Object, version: str = "v1", **query: str) -> Answer:
        query = {"fieldManager": "reconciler", **query}
        body = self.whole(name, spec, version)
        return self.api.send("PATCH", self.at(name, version), body, content_type=APPLY, query=query)

    def get(self, name: str, version: str = "v1") -> Answer:
        return self.api.send("GET", self.at(name, version))

    def merge(self, name: str, body: Object, version: str = "v1") -> Answer:
        query = {"fieldManager": "kubectl-edit"}
        return self.api.send("PATCH", self.at(name, version), body, content_type=MERGE, query=query)

    def attempt(self, name: str, spec: Object) -> errors.KubeError:
        """What the shipped client makes of an apply that is refused."""
        kube = KubeCluster("c0", self.api.transport, now_s=time.monotonic)
        with pytest.raises(errors.KubeError) as caught:
            self.api.run(kube.apply(self.whole(name, spec), uid=None, force=False, dry_run=False))
        return caught.value


def eventually(ask: Callable[[], Answer], status: int) -> Answer:
    """Ask until the answer has this status: a changed definition is served some time after it was written."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        answer = ask()
        if answer.status == status:
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


@pytest.fixture
def definition(control_plane: ControlPlane, api: Api) -> Iterator[Definition]:
    """A definition in force."""
    found = Definition(control_plane, api, f"g{api.namespace[-8:]}.contract.reconciler.dev")
    found.install()
    yield found
    call(control_plane, "DELETE", found.path)


def fields_of(version: Object) -> Any:
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


# ---- narrower, stricter ------------------------------------------------------------------------------------------


def test_a_field_that_a_definition_loses(definition: Definition) -> None:
    wide: Object = {"title": "a", "labels": {"k": "v"}, "words": ["x"]}
    definition.apply("a", wide).expect(201)
    definition.change(lambda version: fields_of(version)["properties"].pop("labels"))
    refused = eventually(lambda: definition.apply("a", wide, dryRun="All"), 500)
    assert refused.body["message"].endswith(".spec.labels: field not declared in schema")
    assert type(definition.attempt("a", wide)) is errors.SchemaMismatchError
    live = definition.get("a").expect(200)
    assert "labels" not in live["spec"], "what is stored is shown without it"
    assert "f:labels" in owned(live, "reconciler")["f:spec"], "the record still names it"
    narrow = {"title": "a", "words": ["x"]}
    assert compare(definition.whole("a", narrow), live).sync is Sync.DIFFERS
    after = definition.apply("a", narrow).expect(200)
    assert owned(after, "reconciler") == {"f:spec": {"f:title": {}, "f:words": {}}}
    assert after["metadata"]["generation"] == 1, "nobody sees a change"
    assert compare(definition.whole("a", narrow), after).sync is Sync.IN_SYNC


def test_a_field_that_becomes_required(definition: Definition) -> None:
    definition.apply("a", {"title": "a"}).expect(201)

    def require(version: Object) -> None:
        fields_of(version)["required"] = ["title", "amount"]

    definition.change(require)
    error = eventually(lambda: definition.apply("b", {"title": "b"}, dryRun="All"), 422).body
    assert [cause["field"] for cause in error["details"]["causes"]] == ["spec.amount"]
    # What is there and does not change stays, and its status can be written; any change has to be valid.
    definition.apply("a", {"title": "a"}).expect(200)
    path = definition.at("a") + "/status"
    definition.api.send("PATCH", path, {"status": {"phase": "x"}}, content_type=MERGE).expect(200)
    definition.apply("a", {"title": "other"}).expect_error(422, "Invalid")
    definition.apply("a", {"title": "other", "amount": 1}).expect(200)


def test_a_pattern_that_becomes_stricter_is_asked_of_what_changes_only(definition: Definition) -> None:
    definition.apply("a", {"title": "a long title"}).expect(201)

    def shorten(version: Object) -> None:
        fields_of(version)["properties"]["title"]["maxLength"] = 3

    definition.change(shorten)
    eventually(lambda: definition.apply("b", {"title": "long"}, dryRun="All"), 422)
    changed = definition.apply("a", {"title": "a long title", "size": 4}).expect(200)
    assert changed["spec"] == {"title": "a long title", "size": 4}, "an old value that is not touched is tolerated"
    definition.apply("a", {"title": "another title"}).expect_error(422, "Invalid")


# ---- two versions ------------------------------------------------------------------------------------------------


def test_an_apply_at_another_version_takes_the_record_along(definition: Definition) -> None:
    first = definition.apply("a", {"title": "a", "labels": {"k": "v"}, "size": 4}).expect(201)
    assert first["metadata"]["managedFields"][0]["apiVersion"] == f"{definition.group}/v1"
    shown = definition.get("a", "v2").expect(200)
    assert shown["apiVersion"] == f"{definition.group}/v2"
    assert shown["metadata"]["managedFields"] == first["metadata"]["managedFields"], "reading converts no record"
    same = {"title": "a", "labels": {"k": "v"}, "size": 4}
    assert compare(definition.whole("a", same, "v2"), shown).sync is Sync.ASK
    second = definition.apply("a", {"title": "a"}, "v2").expect(200)
    assert managers(second) == [("reconciler", "Apply", "")], "one entry, and not one a version"
    assert second["metadata"]["managedFields"][0]["apiVersion"] == f"{definition.group}/v2"
    assert second["spec"] == {"title": "a", "size": 3}, "what the other version's apply had declared goes"


def test_updates_have_a_record_a_version(definition: Definition) -> None:
    definition.apply("a", {"title": "a"}).expect(201)
    definition.merge("a", {"spec": {"size": 5}}).expect(200)
    after = definition.merge("a", {"spec": {"words": ["x"]}}, "v2").expect(200)
    versions = [entry["apiVersion"].rpartition("/")[2] for entry in after["metadata"]["managedFields"]]
    assert sorted(versions) == ["v1", "v1", "v2"]


def test_a_version_that_is_no_longer_served(definition: Definition) -> None:
    definition.apply("a", {"title": "a"}, "v2").expect(201)

    def unserve(version: Object) -> None:
        version["served"] = version["name"] != "v2"

    definition.change(unserve)
    gone = eventually(lambda: definition.get("a", "v2"), 404)
    assert gone.body == "404 page not found\n"
    eventually(lambda: definition.get("a"), 200)
    after = definition.apply("a", {"title": "b"}).expect(200)
    assert [entry["apiVersion"] for entry in after["metadata"]["managedFields"]] == [f"{definition.group}/v1"]


# ---- deleted -----------------------------------------------------------------------------------------------------


def test_a_definition_that_is_deleted_takes_its_objects_along(definition: Definition) -> None:
    definition.apply("a", {"title": "a"}).expect(201)
    definition.apply("held", {"title": "a"}).expect(201)
    held = definition.merge("held", {"metadata": {"finalizers": ["x.test/y"]}}).expect(200)
    status, answer = call(definition.plane, "DELETE", definition.path)
    assert (status, answer["metadata"]["finalizers"]) == (200, ["customresourcecleanup.apiextensions.k8s.io"])
    error = eventually(lambda: definition.apply("new", {"title": "a"}, dryRun="All"), 403).body
    assert error["message"].endswith("create not allowed while custom resource definition is terminating")
    refused = definition.attempt("new", {"title": "a"})
    assert type(refused) is errors.ForbiddenError
    eventually(lambda: definition.get("a"), 404)
    # Who has a finalizer holds it all: it is served, and marked as going, until the last one is let go.
    live = definition.get("held").expect(200)
    assert live["metadata"]["uid"] == held["metadata"]["uid"]
    assert compare(definition.whole("held", {"title": "a"}), live).sync is Sync.UNKNOWN
    definition.merge("held", {"metadata": {"finalizers": None}}).expect(200)
    assert eventually(lambda: call_of_kind(definition), 404).body == "404 page not found\n"
    assert type(definition.attempt("a", {"title": "a"})) is errors.KindMissingError


def call_of_kind(definition: Definition) -> Answer:
    """The list of its kind, which an object that is gone does not answer for."""
    return definition.api.send("GET", f"/apis/{definition.group}/v1/specimens")


# ---- quota -------------------------------------------------------------------------------------------------------


def test_a_quota_that_is_used_up_is_forbidden_in_a_write_and_in_a_dry_run(api: Api) -> None:
    """Its status is written here, as the controller that counts is not part of this control plane."""
    root = f"/api/v1/namespaces/{api.namespace}/resourcequotas"
    hard = {"configmaps": "1"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": hard}}
    api.send("POST", root, quota).expect(201)
    status = {"status": {"hard": hard, "used": {"configmaps": "1"}}}
    api.send("PATCH", f"{root}/few/status", status, content_type=MERGE).expect(200)
    error = eventually(lambda: api.apply("configmaps", "a", {}, dryRun="All"), 403).body
    assert error["reason"] == "Forbidden"
    assert error["message"] == (
        'configmaps "a" is forbidden: exceeded quota: few, requested: configmaps=1, used: configmaps=1, '
        "limited: configmaps=1"
    )
    kube = KubeCluster("c0", api.transport, now_s=time.monotonic)
    with pytest.raises(errors.ForbiddenError) as caught:
        api.run(kube.apply(api.whole("configmaps", "a", {}), uid=None, force=False, dry_run=False))
    assert re.search(r"exceeded quota: few\b", caught.value.reason.message)
    assert caught.value.permanent

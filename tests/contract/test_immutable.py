"""What cannot be changed in place, what a namespace that goes lets in, defaults inside what is owned as a whole.

The shipped client must tell "needs replace" (another object of the same name would be taken) from "invalid".
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.model import Sync
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import InvalidError, TerminatingError
from tests.contract.api import APPLY, Api, Object, owned

_POD: Object = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "main", "image": "i:1"}], "restartPolicy": "Never"},
}
_FOREVER = {"metadata": _POD["metadata"], "spec": {"containers": _POD["spec"]["containers"]}}
_SET = {"serviceName": "x", "selector": {"matchLabels": {"a": "b"}}, "template": _FOREVER}
_CLAIM = {
    "accessModes": ["ReadWriteOnce"],
    "resources": {"requests": {"storage": "1Gi"}},
    "storageClassName": "x",
}
_ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
_BINDING = {"subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}], "roleRef": _ROLE}

#: plural, what is there, what changes, the field that the refusal names, what it says of it
CHANGES: dict[str, tuple[str, Object, tuple[str, ...], Any, str, str]] = {
    "service address": (
        "services",
        {"spec": {"ports": [{"port": 80}]}},
        ("spec", "clusterIP"),
        "10.96.254.254",
        "spec.clusterIPs[0]",
        "may not change once set",
    ),
    "service made headless": (
        "services",
        {"spec": {"ports": [{"port": 80}]}},
        ("spec", "clusterIP"),
        "None",
        "spec.clusterIPs[0]",
        "may not change once set",
    ),
    "job template": (
        "jobs",
        {"spec": {"template": _POD}},
        ("spec", "template", "spec", "containers"),
        [{"name": "main", "image": "i:2"}],
        "spec.template",
        "field is immutable",
    ),
    "service of a stateful set": (
        "statefulsets",
        {"spec": _SET},
        ("spec", "serviceName"),
        "y",
        "spec",
        "updates to statefulset spec for fields other than",
    ),
    "storage class": (
        "persistentvolumeclaims",
        {"spec": _CLAIM},
        ("spec", "storageClassName"),
        "y",
        "spec",
        "spec is immutable after creation",
    ),
    "size of an unbound claim": (
        "persistentvolumeclaims",
        {"spec": _CLAIM},
        ("spec", "resources", "requests", "storage"),
        "2Gi",
        "spec",
        "spec is immutable after creation",
    ),
    "type of a secret": ("secrets", {"type": "a.test/x"}, ("type",), "a.test/y", "type", "field is immutable"),
    "role of a binding": ("rolebindings", _BINDING, ("roleRef", "name"), "q", "roleRef", "cannot change roleRef"),
    "selector": (
        "deployments",
        {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": _FOREVER}},
        ("spec", "selector"),
        {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]},
        "spec.selector",
        "field is immutable",
    ),
}


def changed(body: Object, path: tuple[str, ...], value: Any) -> Object:
    """A copy with another value in one place."""
    result = copy.deepcopy(body)
    inner = result
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return result


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("query", [{}, {"dryRun": "All"}], ids=["write", "dry-run"])
def test_what_cannot_be_changed_in_place(api: Api, change: str, query: dict[str, str]) -> None:
    plural, body, path, value, field, why = CHANGES[change]
    made = api.apply(plural, "a", body).expect(201)
    error = api.apply(plural, "a", changed(body, path, value), force="true", **query).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == [field]
    assert why in error["message"]
    assert api.get(plural, "a").expect(200) == made


@pytest.mark.parametrize("change", CHANGES)
def test_the_client_calls_it_needs_replace(api: Api, change: str) -> None:
    plural, body, path, value, *_ = CHANGES[change]
    api.apply(plural, "a", body).expect(201)
    kube = KubeCluster("c0", api.transport, now_s=lambda: 0.0)
    uid = api.get(plural, "a").expect(200)["metadata"]["uid"]
    with pytest.raises(InvalidError) as caught:
        api.run(kube.apply(api.whole(plural, "a", changed(body, path, value)), uid=uid, force=True, dry_run=False))
    assert (caught.value.immutable, caught.value.reason.code) == (True, "NeedsReplace")
    assert caught.value.permanent


def test_keys_of_config_maps_and_secrets(api: Api) -> None:
    for plural, field, value in (("configmaps", "data", "v"), ("secrets", "data", "dg==")):
        error = api.apply(plural, "a", {field: {"a/b": value}}).expect_error(422, "Invalid")
        assert [cause["field"] for cause in error["details"]["causes"]] == [f"{field}[a/b]"]


# ---- namespaces that go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{}, {"dryRun": "All"}], ids=["write", "dry-run"])
def test_an_apply_into_a_terminating_namespace_is_forbidden(api: Api, query: dict[str, str]) -> None:
    path = api.path("configmaps", "a", namespace=api.spare_namespace)
    body = api.whole("configmaps", "a", {"metadata": {"finalizers": ["x.test/y"]}}, namespace=api.spare_namespace)
    send = {"content_type": APPLY, "query": {"fieldManager": "reconciler", **query}}
    api.send("PATCH", path, body, content_type=APPLY, query={"fieldManager": "reconciler"}).expect(201)
    api.send("DELETE", f"/api/v1/namespaces/{api.spare_namespace}").expect(200)
    other = {**body, "metadata": {**body["metadata"], "name": "b"}}
    error = api.send("PATCH", path[:-1] + "b", other, **send).expect_error(403, "Forbidden")  # type: ignore[arg-type]
    assert error["message"] == (
        f'configmaps "b" is forbidden: unable to create new content in namespace {api.spare_namespace} '
        "because it is being terminated"
    )
    assert [cause["reason"] for cause in error["details"]["causes"]] == ["NamespaceTerminating"]
    # What is there can still be changed, which is how finalizers are let go.
    api.send("PATCH", path, {**body, "data": {"k": "v"}}, **send).expect(200)  # type: ignore[arg-type]
    kube = KubeCluster("c0", api.transport, now_s=lambda: 0.0)
    with pytest.raises(TerminatingError) as caught:
        api.run(kube.apply(other, uid=None, force=False, dry_run=bool(query)))
    assert not caught.value.permanent


# ---- defaults inside what is owned as a whole ---------------------------------------------------------------------


def test_a_default_inside_an_atomic_list_makes_no_difference(api: Api) -> None:
    """The list is ours as a whole and live holds more than we declared: the client may know the default, or it asks."""
    declared: Object = {
        "metadata": {"labels": {"l": "x"}},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]},
    }
    live = api.apply("networkpolicies", "a", declared).expect(201)
    assert live["spec"] == {
        "podSelector": {},
        "ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}],
        "policyTypes": ["Ingress"],
    }
    assert owned(live, "reconciler")["f:spec"] == {"f:ingress": {}, "f:podSelector": {}}
    assert compare(api.whole("networkpolicies", "a", declared), live).sync in (Sync.IN_SYNC, Sync.ASK)
    shown = api.apply("networkpolicies", "a", declared, dryRun="All", force="true").expect(200)
    assert same_after_dry_run(live, shown)


def test_an_object_that_we_posted_is_never_in_sync(api: Api) -> None:
    """A create is recorded as an update: the next apply owns beside it, and what we drop later would stay."""
    body: Object = {"data": {"k": "v", "l": "w"}}
    posted = api.create("configmaps", "a", body, fieldManager="reconciler").expect(201)
    desired = api.whole("configmaps", "a", body)
    assert compare(desired, posted).sync is Sync.ASK
    applied = api.apply("configmaps", "a", body).expect(200)
    assert owned(applied, "reconciler", "Update") == {"f:data": {".": {}, "f:k": {}, "f:l": {}}}
    assert api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(200)["data"] == {"k": "v", "l": "w"}


def test_an_object_that_appears_between_a_read_and_an_apply_without_force(api: Api) -> None:
    api.create("configmaps", "a", {"data": {"k": "theirs"}}, fieldManager="helm").expect(201)
    error = api.apply("configmaps", "a", {"data": {"k": "ours"}}).expect_error(409, "Conflict")
    assert [cause["message"] for cause in error["details"]["causes"]] == ['conflict with "helm" using v1']
    api.create("configmaps", "b", {"data": {"k": "same"}}, fieldManager="helm").expect(201)
    both = api.apply("configmaps", "b", {"data": {"k": "same"}}).expect(200)
    assert owned(both, "reconciler") == {"f:data": {"f:k": {}}}, "equal values conflict with nobody"

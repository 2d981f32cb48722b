"""The schemas a server publishes, and whether the check against them says what the server itself says of an object.

Objects of many kinds are changed at every place in turn, and each is rehearsed on the server. The check may miss what
the server refuses; it may never find fault with what it takes, for that would hold up a good release.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from reconciler.core.cluster_schema import VersionSchema, compact
from reconciler.core.schema_check import mismatches
from reconciler.shell.kube_answers import SchemaIndex, schema_index
from reconciler.shell.transport import Request
from tests.contract.api import GROUPS, KINDS, Api

POD = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "terminationGracePeriodSeconds": 5,
        "nodeSelector": {"disk": "fast"},
        "volumes": [
            {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}], "defaultMode": 420}},
            {"name": "e", "emptyDir": {"sizeLimit": 1}},
        ],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "args": ["a"],
                "env": [
                    {"name": "E", "value": "v"},
                    {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "ports": [{"containerPort": 80, "name": "http"}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 0.5}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
                "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}],
            }
        ],
    },
}
VALID: dict[str, dict[str, Any]] = {
    "configmaps": {"data": {"a": "b"}, "binaryData": {"c": "aGk="}, "immutable": True},
    "secrets": {"type": "Opaque", "data": {"a": "aGk="}, "stringData": {"b": "c"}},
    "serviceaccounts": {"automountServiceAccountToken": False, "imagePullSecrets": [{"name": "p"}]},
    "services": {
        "spec": {
            "selector": {"app": "a"},
            "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 81}],
        }
    },
    "deployments": {
        "metadata": {"annotations": {"note": "n"}, "creationTimestamp": None},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": POD,
        },
    },
    "flinkdeployments": {
        "spec": {
            "image": "i",
            "flinkVersion": "v1_19",
            "flinkConfiguration": {"a.b": "1"},
            "jobManager": {"resource": {"memory": "1g", "cpu": 1}},
            "taskManager": {"replicas": 2, "resource": {"memory": "1g", "cpu": 0.5}},
            "podTemplate": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "args": ["a"]}]},
            },
            "job": {"jarURI": "x", "args": ["a"], "parallelism": 2, "upgradeMode": "savepoint", "state": "running"},
            "restartNonce": 1,
        }
    },
    "specimens": {
        "spec": {
            "title": "a",
            "size": 3,
            "amount": "5%",
            "labels": {"a": "b"},
            "tags": ["a"],
            "words": ["b"],
            "ports": [{"port": 1, "protocol": "UDP", "name": "n"}],
            "whole": {"a": "b"},
            "free": {"x": {"y": [1]}},
            "nothing": None,
        }
    },
}
Path = tuple[str | int, ...]
OTHERS: tuple[Any, ...] = ("text", "7", 7, 1.5, True, {"a": "b"}, ["a"], None)


def changes(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every place with other values: of every other type, and with a field that nobody knows."""
    if len(path) > 1:
        yield from ((path, other) for other in OTHERS if type(other) is not type(value))
    if isinstance(value, dict):
        yield path, {**value, "unheardOf": "x"}
        yield path, {**value, "unheardOf": {"a": 1}}
        for name, below in value.items():
            yield from changes(below, (*path, name))
    elif isinstance(value, list) and value:
        yield from changes(value[0], (*path, 0))


def changed(value: Any, path: Path, other: Any) -> Any:
    if not path:
        return other
    twin = copy.copy(value)
    twin[path[0]] = changed(value[path[0]], path[1:], other)
    return twin


def is_identity(path: Path) -> bool:
    return path[:1] in (("apiVersion",), ("kind",)) or path[:2] in (("metadata", "name"), ("metadata", "namespace"))


def index_of(api: Api) -> SchemaIndex:
    answer = api.send("GET", "/openapi/v3")
    assert answer.status == 200
    body = answer.body if isinstance(answer.body, dict) else orjson.loads(answer.body)
    return schema_index(body, 0.0)


def path_of(plural: str) -> str:
    return GROUPS[plural].removeprefix("/")


def document_of(api: Api, plural: str) -> bytes:
    path = path_of(plural)
    request = Request(
        "GET", f"/openapi/v3/{path}", (("hash", index_of(api).hashes[path]),), (("Accept", "application/json"),)
    )
    response = api.run(api.transport.request(request))
    assert response.status == 200
    return response.body


def served(api: Api, plural: str) -> VersionSchema:
    group, _, version = path_of(plural).partition("/")[2].rpartition("/")
    return compact(orjson.loads(document_of(api, plural)), group, version)


@pytest.mark.parametrize("plural", ["configmaps", "deployments", "flinkdeployments", "specimens"])
def test_a_document_is_named_by_its_bytes_and_holds_its_kinds(api: Api, plural: str) -> None:
    body = document_of(api, plural)
    assert index_of(api).hashes[path_of(plural)] == hashlib.sha512(body).hexdigest().upper()
    assert KINDS[plural] in served(api, plural).kinds


@pytest.mark.parametrize("plural", VALID)
def test_the_check_never_finds_fault_with_what_the_server_takes(api: Api, plural: str) -> None:
    schema = served(api, plural)
    whole = api.whole(plural, "a", VALID[plural])
    assert mismatches(whole, schema) == ()
    api.apply(plural, "a", VALID[plural], dryRun="All", fieldValidation="Strict").expect(201)
    taken = refused = 0
    for path, other in changes(whole):
        if is_identity(path):
            continue
        body = changed(whole, path, other)
        found = mismatches(body, schema)
        answer = api.apply(plural, "a", body, dryRun="All", fieldValidation="Strict")
        said = answer.body["message"] if answer.status >= 400 else ""
        if answer.status < 300:
            taken += 1
            assert not found, (path, other, str(found[0]))
        if said.startswith("failed to create typed patch object") and other is not None:
            refused += 1
            assert found, (path, other, said)
    assert taken > 0
    assert refused > 10

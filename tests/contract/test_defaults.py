"""What the server adds to a built-in object, and what it refuses in one."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.contract.api import Api, Object, owned, stable

POD_DEFAULTS: Object = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
CONTAINER_DEFAULTS: Object = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
    "resources": {},
}


def deployment(container: Object, **pod: Any) -> Object:
    """A Deployment's spec with one container."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", **container}], **pod}}
    return {"selector": {"matchLabels": {"a": "b"}}, "template": template}


def test_a_deployment(api: Api) -> None:
    container = {"image": "i:1", "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}
    body = api.apply("deployments", "a", {"spec": deployment(container)}).expect(201)
    main = {
        **CONTAINER_DEFAULTS,
        "name": "main",
        "image": "i:1",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    }
    assert stable(body) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": api.namespace, "generation": 1},
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {**POD_DEFAULTS, "containers": [main]}},
        },
        "status": {},
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("i", "Always"),
        ("i:latest", "Always"),
        ("i:1", "IfNotPresent"),
        ("host:5000/i", "Always"),
        ("i@sha256:" + "0" * 64, "IfNotPresent"),
    ],
    ids=["no-tag", "latest", "tag", "port-no-tag", "digest"],
)
def test_the_image_pull_policy_follows_the_tag(api: Api, image: str, policy: str) -> None:
    body = api.apply("deployments", "a", {"spec": deployment({"image": image})}).expect(201)
    assert body["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("2000Mi", "2000Mi"),
        ("1e3", "1e3"),
        ("1000k", "1M"),
        (2, "2"),
        ("0", "0"),
    ],
)
def test_quantities_are_written_in_their_canonical_form(api: Api, given: object, canonical: str) -> None:
    container = {"image": "i:1", "resources": {"limits": {"memory": given}}}
    body = api.apply("deployments", "a", {"spec": deployment(container)}).expect(201)
    resources = body["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"memory": canonical}
    again = api.apply("deployments", "a", {"spec": deployment(container)}).expect(200)
    assert again["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"], "and applying again is no write"


def test_probes_and_volumes(api: Api) -> None:
    container = {
        "image": "i:1",
        "livenessProbe": {"httpGet": {"port": 80}},
        "volumeMounts": [{"name": "c", "mountPath": "/c"}],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }
    volumes = [
        {"name": "c", "configMap": {"name": "x"}},
        {"name": "s", "secret": {"secretName": "x"}},
        {"name": "e", "emptyDir": {}},
    ]
    spec = api.apply("deployments", "a", {"spec": deployment(container, volumes=volumes)}).expect(201)["spec"]
    pod = spec["template"]["spec"]
    assert pod["volumes"] == [
        {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
        {"name": "e", "emptyDir": {}},
    ]
    main = pod["containers"][0]
    assert main["livenessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert main["env"] == [
        {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
    ]


def test_a_recreate_strategy_has_no_rolling_update(api: Api) -> None:
    spec = {**deployment({"image": "i:1"}), "strategy": {"type": "Recreate"}}
    assert api.apply("deployments", "a", {"spec": spec}).expect(201)["spec"]["strategy"] == {"type": "Recreate"}


def test_a_service(api: Api) -> None:
    body = api.apply("services", "a", {"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}).expect(201)
    address = body["spec"].pop("clusterIP")
    assert ipaddress.ip_address(address).version == 4
    assert body["spec"].pop("clusterIPs") == [address]
    assert body["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "selector": {"a": "b"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }
    assert body["status"] == {"loadBalancer": {}}
    assert "generation" not in body["metadata"]
    assert owned(body, "reconciler") == {
        "f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}, "f:selector": {}}
    }
    again = api.apply("services", "a", {"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}).expect(200)
    assert again["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
    assert again["spec"]["clusterIP"] == address


def test_a_headless_service(api: Api) -> None:
    ports = [{"name": "web", "port": 80, "targetPort": "http"}]
    body = api.apply("services", "a", {"spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": ports}}).expect(
        201
    )
    assert (body["spec"]["clusterIP"], body["spec"]["clusterIPs"]) == ("None", ["None"])
    assert body["spec"]["ports"] == [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": "http"}]


def test_a_service_account_and_a_secret(api: Api) -> None:
    account = api.apply("serviceaccounts", "a", {"metadata": {"labels": {"l": "x"}}}).expect(201)
    assert stable(account) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "a", "namespace": api.namespace, "labels": {"l": "x"}},
    }
    secret = api.apply("secrets", "a", {"data": {"k": "dg=="}}).expect(201)
    assert secret["type"] == "Opaque"
    broken = {"data": {"k": "aGVs\nbG8=\n"}}
    assert api.apply("secrets", "c", broken).expect(201)["data"] == {"k": "aGVsbG8="}, "line breaks do not last"
    config = api.apply("configmaps", "c", {"binaryData": {"k": "aGVs\r\nbG8="}}).expect(201)
    assert config["binaryData"] == {"k": "aGVsbG8="}
    error = api.apply("secrets", "b", {"data": {"k": "not base64!"}}).expect_error(500, None)
    assert error["message"].startswith("failed to convert new object (")
    api.create("secrets", "b", {"data": {"k": "not base64!"}}).expect_error(400, "BadRequest")


def test_a_pod(api: Api) -> None:
    body = api.apply("pods", "a", {"spec": {"containers": [{"name": "main", "image": "i:1"}]}}).expect(201)
    spec = body["spec"]
    assert {key: spec[key] for key in POD_DEFAULTS} == POD_DEFAULTS
    assert spec["containers"] == [{**CONTAINER_DEFAULTS, "name": "main", "image": "i:1"}]
    assert body["status"]["phase"] == "Pending"
    assert body["metadata"]["generation"] == 1


def test_a_session_job_is_kept_as_given(api: Api) -> None:
    spec = {"deploymentName": "s", "job": {"jarURI": "local:///x.jar", "parallelism": 2, "args": ["a", "b"]}}
    body = api.apply("flinksessionjobs", "a", {"spec": spec}).expect(201)
    assert body["spec"] == spec
    assert owned(body, "reconciler") == {
        "f:spec": {"f:deploymentName": {}, "f:job": {"f:args": {}, "f:jarURI": {}, "f:parallelism": {}}}
    }


def test_a_flink_pod_template_is_owned_as_an_atomic_list(api: Api) -> None:
    container = {"name": "flink-main-container", "env": [{"name": "A", "value": "b"}]}
    body = api.apply("flinkdeployments", "a", {"spec": {"podTemplate": {"spec": {"containers": [container]}}}}).expect(
        201
    )
    assert body["spec"]["podTemplate"]["spec"]["containers"] == [container]
    assert owned(body, "reconciler") == {"f:spec": {"f:podTemplate": {"f:spec": {"f:containers": {}}}}}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (
            {"selector": {"matchLabels": {"a": "c"}}, "template": deployment({"image": "i"})["template"]},
            ["spec.template.metadata.labels"],
        ),
        (deployment({}), ["spec.template.spec.containers[0].image"]),
        ({**deployment({"image": "i"}), "replicas": -1}, ["spec.replicas"]),
    ],
    ids=["selector", "no-image", "negative"],
)
def test_a_deployment_that_is_refused(api: Api, spec: Object, fields: list[str]) -> None:
    error = api.apply("deployments", "a", {"spec": spec}).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == fields


def test_a_pods_spec_is_mostly_immutable(api: Api) -> None:
    api.apply("pods", "a", {"spec": {"containers": [{"name": "main", "image": "i:1"}]}}).expect(201)
    image = api.apply("pods", "a", {"spec": {"containers": [{"name": "main", "image": "i:2"}]}}).expect(200)
    assert image["spec"]["containers"][0]["image"] == "i:2"
    command = {"spec": {"containers": [{"name": "main", "image": "i:2", "command": ["x"]}]}}
    error = api.apply("pods", "a", command).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["spec"]

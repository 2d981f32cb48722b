"""Discovery, versions, health addresses, and paths, methods and media types that do not exist."""

from __future__ import annotations

import pytest

from tests.contract.api import MERGE, STRATEGIC, Api


def test_the_version_is_told(api: Api) -> None:
    body = api.send("GET", "/version").expect(200)
    assert body["major"] == "1"
    assert body["gitVersion"].startswith(f"v1.{body['minor'].rstrip('+')}.")


def test_the_core_versions(api: Api) -> None:
    body = api.send("GET", "/api").expect(200)
    assert (body["kind"], body["versions"]) == ("APIVersions", ["v1"])


def test_the_groups(api: Api) -> None:
    body = api.send("GET", "/apis").expect(200)
    assert (body["kind"], body["apiVersion"]) == ("APIGroupList", "v1")
    groups = {group["name"]: group for group in body["groups"]}
    for name, version in (("apps", "v1"), ("batch", "v1"), ("flink.apache.org", "v1beta1")):
        expected = {"groupVersion": f"{name}/{version}", "version": version}
        assert expected in groups[name]["versions"]
        assert groups[name]["preferredVersion"] == expected


def test_one_group(api: Api) -> None:
    version = {"groupVersion": "flink.apache.org/v1beta1", "version": "v1beta1"}
    assert api.send("GET", "/apis/flink.apache.org").expect(200) == {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": "flink.apache.org",
        "versions": [version],
        "preferredVersion": version,
    }


@pytest.mark.parametrize(
    ("path", "group_version", "name", "expected"),
    [
        ("/api/v1", "v1", "configmaps", ("ConfigMap", "configmap", True, ["cm"])),
        ("/api/v1", "v1", "namespaces", ("Namespace", "namespace", False, ["ns"])),
        ("/apis/apps/v1", "apps/v1", "deployments", ("Deployment", "deployment", True, ["deploy"])),
        (
            "/apis/flink.apache.org/v1beta1",
            "flink.apache.org/v1beta1",
            "flinkdeployments",
            ("FlinkDeployment", "flinkdeployment", True, ["flinkdep"]),
        ),
    ],
)
def test_the_resources_of_a_version(
    api: Api, path: str, group_version: str, name: str, expected: tuple[str, str, bool, list[str]]
) -> None:
    body = api.send("GET", path).expect(200)
    assert (body["kind"], body["groupVersion"]) == ("APIResourceList", group_version)
    (row,) = [row for row in body["resources"] if row["name"] == name]
    assert (row["kind"], row["singularName"], row["namespaced"], row["shortNames"]) == expected
    assert {"get", "list", "watch", "create", "update", "patch", "delete"} <= set(row["verbs"])


def test_subresources_are_listed(api: Api) -> None:
    body = api.send("GET", "/apis/flink.apache.org/v1beta1").expect(200)
    names = [row["name"] for row in body["resources"]]
    assert "flinkdeployments/status" in names
    assert "flinksessionjobs/status" in names


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health(api: Api, path: str) -> None:
    assert api.send("GET", path).expect(200) == "ok"


@pytest.mark.parametrize(
    "path",
    [
        "/apis/absent.test/v1",
        "/apis/absent.test/v1/things",
        "/apis/flink.apache.org/v9",
        "/apis/flink.apache.org/v1beta1/things",
    ],
)
def test_a_group_version_or_custom_kind_that_is_not_served_is_plain_text(api: Api, path: str) -> None:
    assert api.send("GET", path).expect(404) == "404 page not found\n"


def test_a_built_in_kind_that_is_not_served_is_a_status(api: Api) -> None:
    error = api.send("GET", f"/api/v1/namespaces/{api.namespace}/things").expect_error(404, "NotFound")
    assert error["message"] == "the server could not find the requested resource"
    assert error["details"] == {}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_collection_is_neither_replaced_nor_patched(api: Api, method: str) -> None:
    error = api.send(method, api.path("configmaps"), {}, content_type=MERGE).expect_error(405, "MethodNotAllowed")
    assert error["message"] == "the server does not allow this method on the requested resource"


def test_unsupported_media_types(api: Api) -> None:
    api.create("configmaps", "a", {}).expect(201)
    api.create("flinkdeployments", "a", {"spec": {}}).expect(201)
    api.send("POST", api.path("configmaps"), b"x", content_type="text/plain").expect_error(415, "UnsupportedMediaType")
    text = api.send("PATCH", api.path("configmaps", "a"), b"x", content_type="text/plain")
    text.expect_error(415, "UnsupportedMediaType")
    strategic = api.send("PATCH", api.path("flinkdeployments", "a"), {}, content_type=STRATEGIC)
    strategic.expect_error(415, "UnsupportedMediaType")
    api.send("GET", api.path("configmaps"), accept="text/html").expect_error(406, "NotAcceptable")

"""Create, read and replace single objects: identity, refusals, dry-run, validation of unknown fields."""

from __future__ import annotations

import re

import pytest

from tests.contract.api import MERGE, Api, Object, managers, owned, stable

TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


def test_create_answers_the_whole_object(api: Api) -> None:
    body = api.create("configmaps", "a", {"data": {"k": "v"}}, fieldManager="kubectl").expect(201)
    metadata = body["metadata"]
    assert (body["kind"], body["apiVersion"]) == ("ConfigMap", "v1")
    assert (metadata["name"], metadata["namespace"]) == ("a", api.namespace)
    assert TIMESTAMP.match(metadata["creationTimestamp"])
    assert len(metadata["uid"]) == 36
    assert int(metadata["resourceVersion"]) > 0
    assert "generation" not in metadata, "kinds without a spec have no generation"
    assert body["data"] == {"k": "v"}
    assert api.get("configmaps", "a").expect(200) == body


def test_generation_starts_at_one_where_there_is_a_spec(api: Api) -> None:
    body = api.create("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    assert body["metadata"]["generation"] == 1


def test_create_twice_is_already_exists(api: Api) -> None:
    api.create("configmaps", "a", {}).expect(201)
    error = api.create("configmaps", "a", {}).expect_error(409, "AlreadyExists")
    assert error["message"] == 'configmaps "a" already exists'
    assert error["details"] == {"name": "a", "kind": "configmaps"}


def test_create_with_a_generated_name(api: Api) -> None:
    names = set()
    for _ in range(3):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "part-"}}
        made = api.send("POST", api.path("configmaps"), body).expect(201)
        assert re.match(r"^part-[a-z0-9]{5}$", made["metadata"]["name"])
        assert made["metadata"]["generateName"] == "part-"
        names.add(made["metadata"]["name"])
    assert len(names) == 3


@pytest.mark.parametrize(
    ("body", "status", "reason", "field"),
    [
        ({"metadata": {}}, 422, "Invalid", "metadata.name"),
        ({"metadata": {"name": "Bad_Name"}}, 422, "Invalid", "metadata.name"),
        ({"metadata": {"name": "a", "labels": {"l": "two words"}}}, 422, "Invalid", "metadata.labels"),
        ({"metadata": {"name": "a", "namespace": "elsewhere"}}, 400, "BadRequest", None),
        ({"metadata": {"name": "a"}, "kind": "Secret"}, 400, "BadRequest", None),
        ({"metadata": {"name": "a"}, "apiVersion": "v9"}, 400, "BadRequest", None),
        ({"metadata": {"name": "a", "resourceVersion": "7"}}, 500, None, None),
    ],
    ids=["no-name", "bad-name", "bad-label", "other-namespace", "other-kind", "other-version", "with-resource-version"],
)
def test_create_refuses(api: Api, body: Object, status: int, reason: str | None, field: str | None) -> None:
    whole = {"apiVersion": "v1", "kind": "ConfigMap", **body}
    error = api.send("POST", api.path("configmaps"), whole).expect_error(status, reason)
    if field is not None:
        assert [cause["field"] for cause in error["details"]["causes"]] == [field]


def test_an_absent_object_is_not_found(api: Api) -> None:
    error = api.get("flinkdeployments", "gone").expect_error(404, "NotFound")
    assert error["message"] == 'flinkdeployments.flink.apache.org "gone" not found'
    assert error["details"] == {"name": "gone", "group": "flink.apache.org", "kind": "flinkdeployments"}


@pytest.mark.parametrize("dry_run", [{}, {"dryRun": "All"}], ids=["write", "dry-run"])
def test_an_absent_namespace_is_not_found_for_writes_and_empty_for_lists(api: Api, dry_run: dict[str, str]) -> None:
    body = api.whole("configmaps", "a", {}, namespace="absent-" + api.namespace[-8:])
    namespace = body["metadata"]["namespace"]
    path = api.path("configmaps", namespace=namespace)
    for answer in (
        api.send("POST", path, body, query=dry_run),
        api.send(
            "PATCH",
            f"{path}/a",
            body,
            content_type="application/apply-patch+yaml",
            query={"fieldManager": "x", **dry_run},
        ),
    ):
        error = answer.expect_error(404, "NotFound")
        assert error["details"] == {"name": namespace, "kind": "namespaces"}
    assert api.send("GET", path).expect(200)["items"] == []


def test_a_dry_run_create_persists_nothing(api: Api) -> None:
    body = api.create("configmaps", "a", {"data": {"k": "v"}}, dryRun="All").expect(201)
    assert body["data"] == {"k": "v"}
    assert "uid" in body["metadata"]
    assert "resourceVersion" not in body["metadata"]
    api.get("configmaps", "a").expect(404)


@pytest.mark.parametrize("plural", ["configmaps", "flinkdeployments"])
def test_unknown_fields_by_field_validation(api: Api, plural: str) -> None:
    body = {"dato": {"k": "v"}} if plural == "configmaps" else {"spec": {"joob": {"k": "v"}}}
    name = "dato" if plural == "configmaps" else "spec.joob"
    error = api.create(plural, "strict", body, fieldValidation="Strict").expect_error(400, "BadRequest")
    assert error["message"].endswith(f'strict decoding error: unknown field "{name}"')
    for mode in ("Warn", ""):
        answer = api.create(plural, f"warn{mode.lower()}", body, **({"fieldValidation": mode} if mode else {}))
        assert answer.headers["warning"] == f'299 - "unknown field \\"{name}\\""'
        assert "dato" not in answer.expect(201)
        assert "joob" not in answer.expect(201).get("spec", {})
    ignored = api.create(plural, "ignore", body, fieldValidation="Ignore")
    ignored.expect(201)
    assert "warning" not in ignored.headers


def test_wrong_types_are_refused_by_create(api: Api) -> None:
    api.create("configmaps", "a", {"data": {"k": 1}}).expect_error(400, "BadRequest")
    error = api.create("flinkdeployments", "a", {"spec": {"job": {"parallelism": "x"}}}).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["spec.job.parallelism"]
    assert error["details"]["causes"][0]["reason"] == "FieldValueTypeInvalid"


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.title", "FieldValueRequired"),
        ({"title": "Wrong!"}, "spec.title", "FieldValueInvalid"),
        ({"title": "a" * 30}, "spec.title", "FieldValueTooLong"),
        ({"title": "a", "size": 11}, "spec.size", "FieldValueInvalid"),
        (
            {"title": "a", "ports": [{"port": 1, "protocol": "SCTP"}]},
            "spec.ports[0].protocol",
            "FieldValueNotSupported",
        ),
        ({"title": "a", "ports": [{"port": 1}, {"port": 1}]}, "spec.ports[1]", "FieldValueDuplicate"),
        ({"title": "a", "tags": ["x", "x"]}, "spec.tags[1]", "FieldValueDuplicate"),
    ],
    ids=["required", "pattern", "too-long", "maximum", "enum", "duplicate-key", "duplicate-item"],
)
def test_values_outside_the_schema_are_invalid(api: Api, spec: Object, field: str, reason: str) -> None:
    error = api.create("specimens", "a", {"spec": spec}).expect_error(422, "Invalid")
    causes = error["details"]["causes"]
    assert [(cause["field"], cause["reason"]) for cause in causes] == [(field, reason)]
    assert error["details"]["name"] == "a"


def test_put_replaces_and_follows_the_resource_version(api: Api) -> None:
    first = api.create("configmaps", "a", {"data": {"k": "v", "l": "w"}}, fieldManager="one").expect(201)
    changed = {**first, "data": {"k": "x"}}
    second = api.put("configmaps", "a", changed, fieldManager="two").expect(200)
    assert second["data"] == {"k": "x"}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    error = api.put("configmaps", "a", changed).expect_error(409, "Conflict")
    assert error["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert error["details"] == {"name": "a", "kind": "configmaps"}


def test_put_that_changes_nothing_writes_nothing(api: Api) -> None:
    first = api.create("configmaps", "a", {"data": {"k": "v"}}, fieldManager="one").expect(201)
    second = api.put("configmaps", "a", first, fieldManager="one").expect(200)
    assert second == first


def test_put_without_a_resource_version(api: Api) -> None:
    built_in = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    del built_in["metadata"]["resourceVersion"]
    api.put("configmaps", "a", {**built_in, "data": {"k": "w"}}).expect(200)
    custom = api.create("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    del custom["metadata"]["resourceVersion"]
    error = api.put("flinkdeployments", "a", custom).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["metadata.resourceVersion"]


def test_put_with_another_uid_or_of_an_absent_object(api: Api) -> None:
    body = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    other = {**body, "metadata": {**body["metadata"], "uid": "0000"}, "data": {"k": "w"}}
    api.put("configmaps", "a", other).expect_error(409, "Conflict")
    api.put("configmaps", "absent", api.whole("configmaps", "absent", {})).expect_error(404, "NotFound")
    api.put("configmaps", "a", api.whole("configmaps", "b", {})).expect_error(400, "BadRequest")


def test_put_takes_ownership_of_what_it_changes(api: Api) -> None:
    body = api.apply("configmaps", "a", {"data": {"k": "v", "l": "w"}}).expect(201)
    body["data"]["k"] = "x"
    after = api.put("configmaps", "a", body, fieldManager="editor").expect(200)
    assert managers(after) == [("reconciler", "Apply", ""), ("editor", "Update", "")]
    assert owned(after, "reconciler") == {"f:data": {"f:l": {}}}
    assert owned(after, "editor", "Update") == {"f:data": {"f:k": {}}}


def test_merge_patch_sets_and_removes(api: Api) -> None:
    api.create("configmaps", "a", {"data": {"k": "v", "l": "w"}}).expect(201)
    after = api.merge("configmaps", "a", {"data": {"k": None, "m": "x"}}).expect(200)
    assert after["data"] == {"l": "w", "m": "x"}
    assert api.get("configmaps", "a").expect(200) == after


def test_merge_patch_that_changes_nothing_writes_nothing(api: Api) -> None:
    first = api.create("configmaps", "a", {"data": {"k": "v"}}, fieldManager="one").expect(201)
    assert api.merge("configmaps", "a", {"data": {"k": "v"}}, manager="two").expect(200) == first


def test_merge_patch_with_a_stale_resource_version_or_of_an_absent_object(api: Api) -> None:
    first = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    version = {"resourceVersion": first["metadata"]["resourceVersion"]}
    api.merge("configmaps", "a", {"metadata": version, "data": {"k": "w"}}).expect(200)
    api.merge("configmaps", "a", {"metadata": version, "data": {"k": "x"}}).expect_error(409, "Conflict")
    api.merge("configmaps", "absent", {"data": {}}).expect_error(404, "NotFound")


def test_merge_patch_dry_run_persists_nothing(api: Api) -> None:
    first = api.create("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    answer = api.merge("flinkdeployments", "a", {"spec": {"image": "y"}}, dryRun="All").expect(200)
    assert answer["spec"] == {"image": "y"}
    assert answer["metadata"]["generation"] == 2
    assert answer["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert api.get("flinkdeployments", "a").expect(200) == first


def test_merge_patch_of_identity_is_refused(api: Api) -> None:
    api.create("configmaps", "a", {}).expect(201)
    api.merge("configmaps", "a", {"metadata": {"name": "b"}}).expect_error(400, "BadRequest")
    error = api.merge("configmaps", "a", {"metadata": {"uid": "x"}}).expect_error(422, "Invalid")
    assert {cause["field"] for cause in error["details"]["causes"]} == {"metadata.uid"}


def test_a_body_that_is_no_json_object(api: Api) -> None:
    api.create("configmaps", "a", {}).expect(201)
    api.send("POST", api.path("configmaps"), b"{oops").expect_error(400, "BadRequest")
    api.send("PATCH", api.path("configmaps", "a"), b"{oops", content_type=MERGE).expect_error(400, "BadRequest")


def test_secrets_take_string_data_and_default_their_type(api: Api) -> None:
    body = api.create("secrets", "a", {"stringData": {"k": "hello"}}).expect(201)
    assert stable(body) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": api.namespace},
        "data": {"k": "aGVsbG8="},
        "type": "Opaque",
    }


def test_immutable_objects_refuse_changes(api: Api) -> None:
    api.apply("configmaps", "a", {"data": {"k": "v"}, "immutable": True}).expect(201)
    error = api.apply("configmaps", "a", {"data": {"k": "w"}, "immutable": True}).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["data"]


def test_namespaces_are_active_and_labelled(api: Api) -> None:
    body = api.send("GET", f"/api/v1/namespaces/{api.namespace}").expect(200)
    assert body["metadata"]["labels"] == {"kubernetes.io/metadata.name": api.namespace}
    assert body["status"] == {"phase": "Active"}
    assert body["spec"] == {"finalizers": ["kubernetes"]}


def test_a_namespace_that_is_being_deleted_takes_nothing_new(api: Api) -> None:
    body = api.send("DELETE", f"/api/v1/namespaces/{api.spare_namespace}").expect(200)
    assert body["status"] == {"phase": "Terminating"}
    assert "deletionTimestamp" in body["metadata"]
    whole = api.whole("configmaps", "a", {}, namespace=api.spare_namespace)
    error = api.send("POST", api.path("configmaps", namespace=api.spare_namespace), whole).expect_error(
        403, "Forbidden"
    )
    assert [cause["reason"] for cause in error["details"]["causes"]] == ["NamespaceTerminating"]

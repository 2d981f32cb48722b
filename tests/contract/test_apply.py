"""Server-side apply: what it answers, creates, refuses and leaves alone."""

from __future__ import annotations

import pytest

from tests.contract.api import APPLY, Api, Object, managers, owned

DEPLOYMENT: Object = {
    "selector": {"matchLabels": {"a": "b"}},
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "i:1"}]}},
}


def test_apply_creates_then_changes_then_changes_nothing(api: Api) -> None:
    first = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    assert first["metadata"]["generation"] == 1
    second = api.apply("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    assert second["metadata"]["generation"] == 2
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    third = api.apply("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    assert third == second, "resourceVersion and managedFields times are unchanged, too"


def test_apply_with_the_right_uid(api: Api) -> None:
    made = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    mine = {"metadata": {"uid": made["metadata"]["uid"]}, "data": {"k": "w"}}
    assert api.apply("configmaps", "a", mine).expect(200)["data"] == {"k": "w"}


@pytest.mark.parametrize("plural", ["configmaps", "specimens"])
def test_apply_with_another_uid_is_invalid(api: Api, plural: str) -> None:
    body: Object = {"data": {"k": "v"}} if plural == "configmaps" else {"spec": {"title": "a"}}
    api.apply(plural, "a", body).expect(201)
    error = api.apply(plural, "a", {**body, "metadata": {"uid": "other"}}).expect_error(422, "Invalid")
    assert {cause["field"] for cause in error["details"]["causes"]} == {"metadata.uid"}
    assert "field is immutable" in error["message"]


@pytest.mark.parametrize("plural", ["configmaps", "specimens"])
def test_apply_with_a_uid_on_an_absent_object_is_a_conflict(api: Api, plural: str) -> None:
    body = {"metadata": {"uid": "other"}}
    error = api.apply(plural, "a", body).expect_error(409, "Conflict")
    assert error["message"].endswith(
        "uid mismatch: the provided object specified uid other, and no existing object was found"
    )
    api.get(plural, "a").expect(404)


def test_apply_with_a_stale_resource_version_is_a_conflict(api: Api) -> None:
    first = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    version = {"resourceVersion": first["metadata"]["resourceVersion"]}
    api.apply("configmaps", "a", {"metadata": version, "data": {"k": "w"}}).expect(200)
    error = api.apply("configmaps", "a", {"metadata": version, "data": {"k": "x"}}).expect_error(409, "Conflict")
    assert "the object has been modified" in error["message"]


def test_apply_with_a_resource_version_on_an_absent_object_creates_it(api: Api) -> None:
    first = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    api.delete("configmaps", "a").expect(200)
    version = {"resourceVersion": first["metadata"]["resourceVersion"]}
    again = api.apply("configmaps", "a", {"metadata": version, "data": {"k": "v"}}).expect(201)
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


CREATED: dict[str, Object] = {
    "configmaps": {"data": {"k": "v"}},
    "secrets": {"data": {"k": "dg=="}},
    "services": {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
    "serviceaccounts": {},
    "deployments": {"spec": DEPLOYMENT},
    "networkpolicies": {"spec": {"podSelector": {}}},
    "flinkdeployments": {"spec": {"image": "x"}},
    "specimens": {"spec": {"title": "a"}},
}


@pytest.mark.parametrize("plural", CREATED)
@pytest.mark.parametrize("dry_run", [{}, {"dryRun": "All"}], ids=["write", "dry-run"])
def test_apply_with_the_version_of_the_empty_store_creates_and_never_changes(
    api: Api, plural: str, dry_run: dict[str, str]
) -> None:
    """No object has that version. So an apply with it is what a POST is, and its record is that of an apply."""
    body = {"metadata": {"labels": {"made": "by-us"}}, **CREATED[plural]}
    first = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
    made = api.apply(plural, "a", first, **dry_run).expect(201)
    assert managers(made) == [("reconciler", "Apply", "")]
    if dry_run:
        api.get(plural, "a").expect(404)
        api.apply(plural, "a", body).expect(201)
    there = api.get(plural, "a").expect(200)
    assert there["metadata"]["resourceVersion"] != "1"
    other = {**first, "metadata": {**first["metadata"], "labels": {"made": "by-us", "and": "changed"}}}
    for again in (first, other):
        error = api.apply(plural, "a", again, **dry_run).expect_error(409, "Conflict")
        assert "the object has been modified" in error["message"]
    assert api.get(plural, "a").expect(200) == there


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore"])
@pytest.mark.parametrize(
    ("plural", "body", "problem"),
    [
        ("configmaps", {"dato": {"k": "v"}}, ".dato: field not declared in schema"),
        ("configmaps", {"data": {"k": 1}}, ".data.k: expected string, got &value.valueUnstructured{Value:1}"),
        ("flinkdeployments", {"spec": {"joob": {}}}, ".spec.joob: field not declared in schema"),
        (
            "flinkdeployments",
            {"spec": {"job": {"parallelism": "4"}}},
            ".spec.job.parallelism: expected numeric (int or float), got string",
        ),
    ],
    ids=["unknown", "type", "custom-unknown", "custom-type"],
)
def test_what_the_schema_does_not_know_is_a_500(
    api: Api, plural: str, body: Object, problem: str, validation: str
) -> None:
    error = api.apply(plural, "a", body, fieldValidation=validation).expect_error(500, None)
    assert error["message"].startswith(f"failed to create typed patch object ({api.namespace}/a; ")
    assert error["message"].endswith(problem)
    api.get(plural, "a").expect(404)


def test_a_value_outside_an_enum_is_invalid(api: Api) -> None:
    error = api.apply("flinkdeployments", "a", {"spec": {"mode": "turbo"}}).expect_error(422, "Invalid")
    assert error["message"] == (
        'FlinkDeployment.flink.apache.org "a" is invalid: spec.mode: Unsupported value: "turbo": '
        'supported values: "native", "standalone"'
    )
    assert error["details"] == {
        "name": "a",
        "group": "flink.apache.org",
        "kind": "FlinkDeployment",
        "causes": [
            {
                "reason": "FieldValueNotSupported",
                "message": 'Unsupported value: "turbo": supported values: "native", "standalone"',
                "field": "spec.mode",
            }
        ],
    }


def test_a_changed_immutable_field_is_invalid(api: Api) -> None:
    api.apply("deployments", "a", {"spec": DEPLOYMENT}).expect(201)
    template = {"metadata": {"labels": {"a": "c"}}, "spec": DEPLOYMENT["template"]["spec"]}
    changed = {"selector": {"matchLabels": {"a": "c"}}, "template": template}
    error = api.apply("deployments", "a", {"spec": changed}).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["spec.selector"]
    assert "field is immutable" in error["message"]


def test_dry_run_answers_the_result_and_persists_nothing(api: Api) -> None:
    first = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    answer = api.apply("flinkdeployments", "a", {"spec": {"image": "y"}}, dryRun="All").expect(200)
    assert answer["spec"] == {"image": "y"}
    assert answer["metadata"]["generation"] == 2
    assert answer["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert api.get("flinkdeployments", "a").expect(200) == first
    absent = api.apply("flinkdeployments", "b", {"spec": {"image": "y"}}, dryRun="All").expect(201)
    assert "resourceVersion" not in absent["metadata"]
    api.get("flinkdeployments", "b").expect(404)


def test_dry_run_refuses_what_a_write_would_refuse(api: Api) -> None:
    api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    api.merge("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}, dryRun="All").expect_error(409, "Conflict")
    api.apply("flinkdeployments", "a", {"spec": {"mode": "turbo"}}, dryRun="All").expect_error(422, "Invalid")
    api.apply("flinkdeployments", "a", {"spec": {"joob": 1}}, dryRun="All").expect_error(500, None)
    api.send(
        "PATCH",
        api.path("configmaps", "a"),
        api.whole("configmaps", "a", {}),
        query={"dryRun": "Some"},
        content_type=APPLY,
    ).expect_error(422, "Invalid")


def test_a_foreign_edit_of_our_field_is_a_conflict_until_forced(api: Api) -> None:
    api.apply("flinkdeployments", "a", {"spec": {"image": "x", "mode": "native"}}).expect(201)
    api.merge("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    error = api.apply("flinkdeployments", "a", {"spec": {"image": "x", "mode": "native"}}).expect_error(409, "Conflict")
    assert error["message"] == (
        'Apply failed with 1 conflict: conflict with "kubectl-edit" using flink.apache.org/v1beta1: .spec.image'
    )
    assert error["details"] == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-edit" using flink.apache.org/v1beta1',
                "field": ".spec.image",
            }
        ]
    }
    forced = api.apply("flinkdeployments", "a", {"spec": {"image": "x", "mode": "native"}}, force="true").expect(200)
    assert forced["spec"] == {"image": "x", "mode": "native"}
    assert managers(forced) == [("reconciler", "Apply", "")], "a manager that owns nothing any more is gone"


def test_several_conflicts_are_named_one_by_one(api: Api) -> None:
    body = {"spec": {"title": "a", "ports": [{"port": 80, "name": "web"}], "labels": {"k": "v"}}}
    api.apply("specimens", "a", body, manager="one").expect(201)
    api.apply("specimens", "a", {"spec": {"labels": {"k": "w"}}}, manager="two", force="true").expect(200)
    mine = {"spec": {"title": "b", "ports": [{"port": 80, "name": "other"}], "labels": {"k": "x"}}}
    error = api.apply("specimens", "a", mine).expect_error(409, "Conflict")
    assert error["message"] == (
        "Apply failed with 3 conflicts: "
        'conflicts with "one":\n- .spec.title\n- .spec.ports[port=80,protocol="TCP"].name\n'
        'conflicts with "two":\n- .spec.labels.k'
    )
    # The message is sorted; the causes come manager by manager, in any order of managers.
    causes = [(cause["message"], cause["field"]) for cause in error["details"]["causes"]]
    assert sorted(causes) == [
        ('conflict with "one"', '.spec.ports[port=80,protocol="TCP"].name'),
        ('conflict with "one"', ".spec.title"),
        ('conflict with "two"', ".spec.labels.k"),
    ]


def test_equal_values_are_shared_not_contested(api: Api) -> None:
    api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="one").expect(201)
    both = api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="two").expect(200)
    assert owned(both, "one") == owned(both, "two") == {"f:data": {"f:k": {}}}
    error = api.apply("configmaps", "a", {"data": {"k": "w"}}, manager="two").expect_error(409, "Conflict")
    assert [cause["field"] for cause in error["details"]["causes"]] == [".data.k"]


def test_edited_and_put_back_is_no_longer_ours(api: Api) -> None:
    mine = {"spec": {"image": "x", "mode": "native"}}
    api.apply("flinkdeployments", "a", mine).expect(201)
    api.merge("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    back = api.merge("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(200)
    assert back["spec"] == mine["spec"]
    assert owned(back, "reconciler") == {"f:spec": {"f:mode": {}}}
    assert owned(back, "kubectl-edit", "Update") == {"f:spec": {"f:image": {}}}
    both = api.apply("flinkdeployments", "a", mine).expect(200)
    assert owned(both, "reconciler") == {"f:spec": {"f:image": {}, "f:mode": {}}}
    assert owned(both, "kubectl-edit", "Update") == {"f:spec": {"f:image": {}}}
    dropped = api.apply("flinkdeployments", "a", {"spec": {"mode": "native"}}).expect(200)
    assert dropped["spec"] == mine["spec"], "a co-owner keeps it in place"


def test_a_dropped_field_that_nobody_else_owns_is_removed(api: Api) -> None:
    api.apply("configmaps", "a", {"data": {"k": "v", "l": "w"}}).expect(201)
    after = api.apply("configmaps", "a", {"data": {"l": "w"}}).expect(200)
    assert after["data"] == {"l": "w"}
    last = api.apply("configmaps", "a", {"metadata": {"labels": {"x": "y"}}}).expect(200)
    assert "data" not in last


def test_a_dropped_key_of_a_preserved_map_is_removed(api: Api) -> None:
    api.apply("specimens", "a", {"spec": {"title": "a", "free": {"k": {"l": 1, "m": 2}}}}).expect(201)
    after = api.apply("specimens", "a", {"spec": {"title": "a", "free": {"k": {"m": 2}}}}).expect(200)
    assert after["spec"]["free"] == {"k": {"m": 2}}


def test_a_dropped_field_falls_to_its_default(api: Api) -> None:
    api.apply("deployments", "a", {"spec": {**DEPLOYMENT, "replicas": 3}}).expect(201)
    assert api.apply("deployments", "a", {"spec": DEPLOYMENT}).expect(200)["spec"]["replicas"] == 1
    api.apply("specimens", "a", {"spec": {"title": "a", "size": 5}}).expect(201)
    assert api.apply("specimens", "a", {"spec": {"title": "a"}}).expect(200)["spec"]["size"] == 3


def test_a_field_handed_over_to_another_manager_stays(api: Api) -> None:
    api.apply("deployments", "a", {"spec": {**DEPLOYMENT, "replicas": 3}}).expect(201)
    api.apply("deployments", "a", {"spec": {"replicas": 5}}, manager="scaler", force="true").expect(200)
    after = api.apply("deployments", "a", {"spec": DEPLOYMENT}).expect(200)
    assert after["spec"]["replicas"] == 5
    assert owned(after, "scaler") == {"f:spec": {"f:replicas": {}}}


def test_apply_to_an_object_that_is_being_deleted_succeeds(api: Api) -> None:
    api.apply("flinkdeployments", "a", {"metadata": {"finalizers": ["x.test/y"]}, "spec": {"image": "x"}}).expect(201)
    api.delete("flinkdeployments", "a").expect(200)
    body = {"metadata": {"finalizers": ["x.test/y"]}, "spec": {"image": "y"}}
    after = api.apply("flinkdeployments", "a", body).expect(200)
    assert after["spec"]["image"] == "y"
    assert "deletionTimestamp" in after["metadata"]
    api.apply("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    api.get("flinkdeployments", "a").expect(404)


def test_a_container_port_is_keyed_by_its_defaulted_protocol(api: Api) -> None:
    containers = [{"name": "main", "image": "i:1", "ports": [{"containerPort": 8081}]}]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}
    body = api.apply("deployments", "a", {"spec": {**DEPLOYMENT, "template": template}}).expect(201)
    made = body["spec"]["template"]["spec"]["containers"][0]
    assert made["ports"] == [{"containerPort": 8081, "protocol": "TCP"}]
    fields = owned(body, "reconciler")["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"main"}']
    assert fields["f:ports"] == {'k:{"containerPort":8081,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}


def test_apply_needs_a_manager(api: Api) -> None:
    whole = api.whole("configmaps", "a", {})
    error = api.send("PATCH", api.path("configmaps", "a"), whole, content_type=APPLY).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["fieldManager"]


@pytest.mark.parametrize(
    "body",
    [
        b"a: [",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}},
        {"metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [{"manager": "x"}]}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "elsewhere"}},
    ],
    ids=["not-yaml", "other-name", "no-kind", "managed-fields", "other-namespace"],
)
def test_apply_of_a_wrong_body_is_a_bad_request(api: Api, body: object) -> None:
    answer = api.send("PATCH", api.path("configmaps", "a"), body, content_type=APPLY, query={"fieldManager": "x"})
    answer.expect_error(400, "BadRequest")
    api.get("configmaps", "a").expect(404)


def test_apply_takes_yaml(api: Api) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: |\n    two\n    lines\n"
    body = api.send("PATCH", api.path("configmaps", "a"), text, content_type=APPLY, query={"fieldManager": "x"}).expect(
        201
    )
    assert body["data"] == {"k": "two\nlines\n"}


def test_null_is_a_value_and_not_an_absence(api: Api) -> None:
    text = api.apply("configmaps", "a", {"data": {"k": None}}).expect(201)
    assert text["data"] == {"k": ""}
    assert owned(text, "reconciler") == {"f:data": {"f:k": {}}}
    error = api.apply("flinkdeployments", "a", {"spec": {"image": None}}).expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["spec.image"]
    nullable = api.apply("specimens", "a", {"spec": {"title": "a", "nothing": None, "size": None}}).expect(201)
    assert nullable["spec"] == {"title": "a", "nothing": None, "size": 3}
    assert owned(nullable, "reconciler") == {"f:spec": {"f:nothing": {}, "f:size": {}, "f:title": {}}}

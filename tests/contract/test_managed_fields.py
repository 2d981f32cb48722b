"""Writing managedFields: how the record of a tool that is gone becomes ours, by which requests, and what it does.

A merge patch, a JSON patch and a PUT may replace the list; an apply may not. Guarded by a resourceVersion it changes
exactly the record that was read. Nothing else of the object changes; what follows is an ordinary apply, which removes
what the record says is ours and is no longer declared.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.api import Api, Object, managers, owned

TOOLS = ("kubectl-client-side-apply", "kubectl-create", "helm")


def entry(fields: Object, manager: str = "reconciler", operation: str = "Apply", **more: Any) -> Object:
    """One entry of managedFields of a ConfigMap."""
    whole = {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1"}
    return {**whole, "time": "2020-01-01T00:00:00Z", "fieldsV1": fields, **more}


def made_by_a_tool(api: Api, tool: str = "kubectl-create") -> Object:
    """A ConfigMap `a` that a tool created and edited, with more in it than we will declare."""
    metadata = {"labels": {"l": "x"}}
    api.create("configmaps", "a", {"metadata": metadata, "data": {"k": "v", "left": "over"}}, fieldManager=tool)
    body: Object = api.merge("configmaps", "a", {"data": {"m": "w"}}, manager="kubectl-edit").expect(200)
    return body


UNION: Object = {
    "f:data": {".": {}, "f:k": {}, "f:left": {}, "f:m": {}},
    "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
}


def by_merge(api: Api, live: Object, entries: list[Object]) -> Object:
    """The record replaced by a merge patch, guarded by the version that was read."""
    version = live["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version, "managedFields": entries}}
    after: Object = api.merge("configmaps", "a", body, manager="reconciler").expect(200)
    return after


def by_json_patch(api: Api, live: Object, entries: list[Object]) -> Object:
    """The same by a JSON patch that tests the version."""
    version = live["metadata"]["resourceVersion"]
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
    ]
    after: Object = api.patch("configmaps", "a", operations, manager="reconciler").expect(200)
    return after


def by_put(api: Api, live: Object, entries: list[Object]) -> Object:
    """The same by a PUT of the whole object."""
    body = {**live, "metadata": {**live["metadata"], "managedFields": entries}}
    after: Object = api.put("configmaps", "a", body, fieldManager="reconciler").expect(200)
    return after


@pytest.mark.parametrize("surgery", [by_merge, by_json_patch, by_put])
@pytest.mark.parametrize("tool", TOOLS)
def test_the_records_of_tools_become_ours_and_the_next_apply_removes_what_is_not_declared(
    api: Api, tool: str, surgery: Any
) -> None:
    live = made_by_a_tool(api, tool)
    assert managers(live) == sorted([(tool, "Update", ""), ("kubectl-edit", "Update", "")])
    after = surgery(api, live, [entry(UNION)])
    assert managers(after) == [("reconciler", "Apply", "")], "the request itself leaves no entry"
    assert owned(after, "reconciler") == UNION
    assert after["metadata"]["managedFields"][0]["time"] == "2020-01-01T00:00:00Z", "as it was sent"
    assert after["data"] == live["data"], "nothing but the record changed"
    assert after["metadata"]["uid"] == live["metadata"]["uid"]
    assert int(after["metadata"]["resourceVersion"]) > int(live["metadata"]["resourceVersion"])
    applied = api.apply("configmaps", "a", {"data": {"k": "w"}}).expect(200)
    assert applied["data"] == {"k": "w"}
    assert "labels" not in applied["metadata"]
    assert managers(applied) == [("reconciler", "Apply", "")]
    assert owned(applied, "reconciler") == {"f:data": {"f:k": {}}}


def test_without_it_what_a_tool_set_stays_for_ever(api: Api) -> None:
    made_by_a_tool(api)
    applied = api.apply("configmaps", "a", {"data": {"k": "w"}}, force="true").expect(200)
    assert applied["data"] == {"k": "w", "left": "over", "m": "w"}
    assert [manager for manager, _, _ in managers(applied)] == ["reconciler", "kubectl-create", "kubectl-edit"]


def test_a_custom_object_keeps_its_generation(api: Api) -> None:
    live = api.create("specimens", "a", {"spec": {"title": "a", "free": {"x": 1}}}, fieldManager="helm").expect(201)
    (record,) = live["metadata"]["managedFields"]
    ours = {**record, "manager": "reconciler", "operation": "Apply"}
    version = live["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version, "managedFields": [ours]}}
    after = api.merge("specimens", "a", body, manager="reconciler").expect(200)
    assert after["metadata"]["generation"] == 1
    applied = api.apply("specimens", "a", {"spec": {"title": "a"}}).expect(200)
    assert applied["spec"] == {"title": "a", "size": 3}, "a default that had an owner falls back to being one"
    assert owned(applied, "reconciler") == {"f:spec": {"f:title": {}}}


def test_a_record_that_changed_meanwhile_is_not_overwritten(api: Api) -> None:
    live = made_by_a_tool(api)
    api.merge("configmaps", "a", {"data": {"n": "x"}}).expect(200)
    version = live["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version, "managedFields": [entry(UNION)]}}
    api.merge("configmaps", "a", body).expect_error(409, "Conflict")
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry(UNION)]},
    ]
    # A failed test is the same answer as any patch that does not fit: it cannot be told from a mistake.
    error = api.patch("configmaps", "a", operations).expect_error(422, "Invalid")
    assert error["message"] == "the server rejected our request due to an error in our request"
    assert error["details"] == {}
    operations[0] = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
    api.patch("configmaps", "a", operations).expect_error(409, "Conflict")
    other = {"metadata": {"uid": "other", "managedFields": [entry(UNION)]}}
    error = api.merge("configmaps", "a", other).expect_error(422, "Invalid")
    assert {cause["field"] for cause in error["details"]["causes"]} == {"metadata.uid"}
    assert managers(api.get("configmaps", "a").expect(200)) != [("reconciler", "Apply", "")]


def test_a_dry_run_of_it_changes_nothing(api: Api) -> None:
    live = made_by_a_tool(api)
    body = {"metadata": {"managedFields": [entry(UNION)]}}
    shown = api.merge("configmaps", "a", body, dryRun="All").expect(200)
    assert managers(shown) == [("reconciler", "Apply", "")]
    assert api.get("configmaps", "a").expect(200) == live


def test_a_value_that_is_changed_with_it_is_the_writer_s(api: Api) -> None:
    made_by_a_tool(api)
    body = {"metadata": {"managedFields": [entry(UNION)]}, "data": {"new": "x"}}
    after = api.merge("configmaps", "a", body, manager="surgeon").expect(200)
    assert managers(after) == [("reconciler", "Apply", ""), ("surgeon", "Update", "")]
    assert owned(after, "surgeon", "Update") == {"f:data": {"f:new": {}}}


@pytest.mark.parametrize("empty", [[], [{}], None], ids=["list", "list-of-nothing", "null"])
def test_a_record_can_be_thrown_away_and_the_next_apply_finds_an_owner_for_what_was_there(api: Api, empty: Any) -> None:
    live = made_by_a_tool(api)
    body: Object = {"metadata": {"managedFields": empty}}
    if empty is None:
        operations = [{"op": "remove", "path": "/metadata/managedFields"}]
        after = api.patch("configmaps", "a", operations).expect(200)
        assert after == live, "a record that is left out is a record that is kept"
        return
    after = api.merge("configmaps", "a", body).expect(200)
    assert "managedFields" not in after["metadata"]
    applied = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(200)
    assert sorted(managers(applied)) == [("before-first-apply", "Update", ""), ("reconciler", "Apply", "")]
    assert owned(applied, "before-first-apply", "Update") == UNION, "so an apply alone removes nothing of it"


@pytest.mark.parametrize(
    "broken",
    [{"operation": "Bogus"}, {"fieldsType": "FieldsV9"}, {"fieldsV1": "junk"}],
    ids=["operation", "fields-type", "fields"],
)
def test_a_record_that_cannot_be_read_is_ignored_in_silence(api: Api, broken: Object) -> None:
    live = made_by_a_tool(api)
    body = {"metadata": {"managedFields": [entry(UNION, **broken)]}}
    assert api.merge("configmaps", "a", body).expect(200) == live


def test_a_record_of_a_version_that_is_not_served_counts_for_nothing(api: Api) -> None:
    made_by_a_tool(api)
    body = {"metadata": {"managedFields": [entry(UNION, apiVersion="v7")]}}
    after = api.merge("configmaps", "a", body).expect(200)
    assert "managedFields" not in after["metadata"]


def test_a_record_may_name_what_is_not_there(api: Api) -> None:
    made_by_a_tool(api)
    fields: Object = {"f:data": {"f:absent": {}}}
    after = api.merge("configmaps", "a", {"metadata": {"managedFields": [entry(fields)]}}).expect(200)
    assert owned(after, "reconciler") == fields
    applied = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(200)
    assert owned(applied, "reconciler") == {"f:data": {"f:k": {}}}


def test_an_apply_cannot_carry_a_record(api: Api) -> None:
    made_by_a_tool(api)
    body: Object = {"metadata": {"managedFields": [entry(UNION)]}}
    error = api.apply("configmaps", "a", body).expect_error(400, "BadRequest")
    assert error["message"] == "metadata.managedFields must be nil"


# ---- JSON patches ------------------------------------------------------------------------------------------------


def test_a_json_patch_owns_what_it_changes(api: Api) -> None:
    api.apply("configmaps", "a", {"data": {"k": "v", "l": "w"}}).expect(201)
    operations = [
        {"op": "test", "path": "/data/k", "value": "v"},
        {"op": "replace", "path": "/data/k", "value": "x"},
        {"op": "remove", "path": "/data/l"},
        {"op": "copy", "from": "/data/k", "path": "/data/m"},
        {"op": "move", "from": "/data/m", "path": "/data/n"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a.test/b": "y"}},
        {"op": "add", "path": "/metadata/annotations/c.test~1d", "value": "z"},
    ]
    after = api.patch("configmaps", "a", operations).expect(200)
    assert after["data"] == {"k": "x", "n": "x"}
    assert after["metadata"]["annotations"] == {"a.test/b": "y", "c.test/d": "z"}
    assert managers(after) == [("kubectl-patch", "Update", "")], "of ours nothing is left"
    fields = owned(after, "kubectl-patch", "Update")
    assert fields["f:data"] == {"f:k": {}, "f:n": {}}
    assert fields["f:metadata"] == {"f:annotations": {".": {}, "f:a.test/b": {}, "f:c.test/d": {}}}
    assert api.patch("configmaps", "a", operations[:1], dryRun="All").status == 422
    assert api.get("configmaps", "a").expect(200) == after


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/data/absent"},
        {"op": "add", "path": "/metadata/annotations/absent", "value": "x"},
        {"op": "test", "path": "/data/k", "value": "other"},
        {"op": "frob", "path": "/data/k"},
        {"op": "copy", "from": "/absent/absent", "path": "/data/l"},
        {"op": "move", "from": "/data/absent", "path": "/data/l"},
    ],
    ids=lambda operation: operation["op"],
)
def test_a_json_patch_that_does_not_fit_says_nothing_about_why(api: Api, operation: Object) -> None:
    made = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    error = api.patch("configmaps", "a", [operation]).expect_error(422, "Invalid")
    assert error["message"] == "the server rejected our request due to an error in our request"
    assert api.get("configmaps", "a").expect(200) == made


def test_json_patches_that_are_refused(api: Api) -> None:
    api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    api.patch("configmaps", "a", {"op": "add"}).expect_error(400, "BadRequest")
    api.patch("configmaps", "absent", []).expect_error(404, "NotFound")
    api.patch("configmaps", "a", [{"op": "replace", "path": "/metadata/name", "value": "b"}]).expect_error(
        400, "BadRequest"
    )
    replaced = api.patch("configmaps", "a", [{"op": "replace", "path": "/data/new", "value": "x"}]).expect(200)
    assert replaced["data"] == {"k": "v", "new": "x"}, "a replacement of what is not there adds it"
    copied = api.patch("configmaps", "a", [{"op": "copy", "from": "/data/absent", "path": "/data/l"}]).expect(200)
    assert copied["data"]["l"] == "", "and a copy of what is not there is null, which in this map is empty"


@pytest.mark.parametrize("kind", ["merge", "json"])
def test_a_patch_whose_result_is_no_object_of_its_kind_is_invalid(api: Api, kind: str) -> None:
    def changed(plural: str, path: tuple[str, str], value: Any, **query: str) -> Object:
        if kind == "merge":
            answer = api.merge(plural, "a", {path[0]: {path[1]: value}}, **query)
        else:
            answer = api.patch(plural, "a", [{"op": "add", "path": "/" + "/".join(path), "value": value}], **query)
        error: Object = answer.expect_error(422, "Invalid")
        return error

    api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    api.create("specimens", "a", {"spec": {"title": "a"}}).expect(201)
    error = changed("configmaps", ("data", "k"), 1)
    assert [cause["field"] for cause in error["details"]["causes"]] == ["patch"]
    assert error["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    error = changed("specimens", ("spec", "surprise"), 1, fieldValidation="Strict")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["patch"]
    assert error["message"].endswith('strict decoding error: unknown field "spec.surprise"')
    error = changed("specimens", ("spec", "title"), 1)
    assert [cause["field"] for cause in error["details"]["causes"]] == ["spec.title"]

"""managedFields: who owns what, in the shapes the real server writes."""

from __future__ import annotations

import re

from tests.contract.api import Api, managers, owned


def test_an_entry_is_complete(api: Api) -> None:
    body = api.apply("flinkdeployments", "a", {"spec": {"image": "x", "flinkConfiguration": {"a.b": "c"}}}).expect(201)
    (entry,) = body["metadata"]["managedFields"]
    assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", entry.pop("time"))
    assert entry == {
        "manager": "reconciler",
        "operation": "Apply",
        "apiVersion": "flink.apache.org/v1beta1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:flinkConfiguration": {"f:a.b": {}}, "f:image": {}}},
    }


def test_labels_annotations_and_finalizers(api: Api) -> None:
    metadata = {"labels": {"l": "x"}, "annotations": {"a.test/b": "y"}, "finalizers": ["x.test/y"]}
    body = api.apply("configmaps", "a", {"metadata": metadata}).expect(201)
    assert owned(body, "reconciler") == {
        "f:metadata": {
            "f:annotations": {"f:a.test/b": {}},
            "f:finalizers": {'v:"x.test/y"': {}},
            "f:labels": {"f:l": {}},
        }
    }


def test_identity_is_never_owned_and_nothing_owned_is_no_entry(api: Api) -> None:
    body = api.apply("serviceaccounts", "a", {}).expect(201)
    assert "managedFields" not in body["metadata"]
    again = api.apply("serviceaccounts", "a", {"metadata": {"uid": body["metadata"]["uid"]}}).expect(200)
    assert again == body


def test_an_update_also_owns_the_containers_it_made(api: Api) -> None:
    body = api.create("configmaps", "a", {"metadata": {"labels": {"l": "x"}}, "data": {"k": "v"}}, fieldManager="one")
    made = body.expect(201)
    assert managers(made) == [("one", "Update", "")]
    assert owned(made, "one", "Update") == {
        "f:data": {".": {}, "f:k": {}},
        "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
    }
    after = api.merge("configmaps", "a", {"data": {"l": "w"}}, manager="two").expect(200)
    assert owned(after, "two", "Update") == {"f:data": {"f:l": {}}}


def test_a_container_whose_items_others_took_is_still_owned(api: Api) -> None:
    api.create("configmaps", "a", {"data": {"k": "v"}}, fieldManager="one").expect(201)
    after = api.merge("configmaps", "a", {"data": {"k": "w"}}, manager="two").expect(200)
    assert owned(after, "one", "Update") == {"f:data": {}}
    assert owned(after, "two", "Update") == {"f:data": {"f:k": {}}}


def test_the_manager_of_a_request_that_names_none_is_its_user_agent(api: Api) -> None:
    body = api.create("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    assert managers(body) == [("contract-tests", "Update", "")]


def test_empty_maps_and_atomic_lists_are_owned_as_leaves_but_empty_sets_and_list_maps_not(api: Api) -> None:
    spec = {"title": "a", "labels": {}, "tags": [], "ports": [], "words": [], "whole": {}, "free": {}}
    body = api.apply("specimens", "a", {"spec": spec}).expect(201)
    names = ("free", "labels", "title", "whole", "words")
    assert owned(body, "reconciler") == {"f:spec": {f"f:{name}": {} for name in names}}
    assert body["spec"] == {**spec, "size": 3}, "they are written all the same"


def test_a_set_is_owned_by_value(api: Api) -> None:
    api.apply("specimens", "a", {"spec": {"title": "a", "tags": ["x", "y"]}}, manager="one").expect(201)
    both = api.apply("specimens", "a", {"spec": {"tags": ["z", "y"]}}, manager="two").expect(200)
    assert both["spec"]["tags"] == ["x", "z", "y"]
    assert owned(both, "one")["f:spec"]["f:tags"] == {'v:"x"': {}, 'v:"y"': {}}
    assert owned(both, "two") == {"f:spec": {"f:tags": {'v:"y"': {}, 'v:"z"': {}}}}
    less = api.apply("specimens", "a", {"spec": {"title": "a"}}, manager="one").expect(200)
    assert less["spec"]["tags"] == ["z", "y"]


def test_a_list_map_is_owned_by_key(api: Api) -> None:
    one = {"spec": {"title": "a", "ports": [{"port": 80, "name": "web"}, {"port": 90, "protocol": "UDP"}]}}
    api.apply("specimens", "a", one, manager="one").expect(201)
    two = {"spec": {"ports": [{"port": 70, "name": "x"}, {"port": 80}]}}
    both = api.apply("specimens", "a", two, manager="two").expect(200)
    assert both["spec"]["ports"] == [
        {"port": 70, "name": "x", "protocol": "TCP"},
        {"port": 80, "name": "web", "protocol": "TCP"},
        {"port": 90, "protocol": "UDP"},
    ]
    assert owned(both, "one")["f:spec"]["f:ports"] == {
        'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}},
        'k:{"port":90,"protocol":"UDP"}': {".": {}, "f:port": {}, "f:protocol": {}},
    }
    assert owned(both, "two")["f:spec"]["f:ports"] == {
        'k:{"port":70,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}},
        'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}},
    }
    less = api.apply("specimens", "a", {"spec": {"title": "a"}}, manager="one").expect(200)
    assert less["spec"]["ports"] == [
        {"port": 70, "name": "x", "protocol": "TCP"},
        {"port": 80, "protocol": "TCP"},
    ], "of the shared item the other's fields went, the item stays"


def test_an_atomic_list_and_map_have_one_owner(api: Api) -> None:
    spec = {"title": "a", "words": ["x", "y"], "whole": {"k": "v"}}
    made = api.apply("specimens", "a", {"spec": spec}, manager="one").expect(201)
    assert owned(made, "one") == {"f:spec": {"f:title": {}, "f:whole": {}, "f:words": {}}}
    error = api.apply("specimens", "a", {"spec": {"words": ["x"], "whole": {"l": "w"}}}).expect_error(409, "Conflict")
    assert [cause["field"] for cause in error["details"]["causes"]] == [".spec.whole", ".spec.words"]
    forced = api.apply("specimens", "a", {"spec": {"words": ["z"], "whole": {"l": "w"}}}, force="true").expect(200)
    assert (forced["spec"]["words"], forced["spec"]["whole"]) == (["z"], {"l": "w"})
    assert owned(forced, "one") == {"f:spec": {"f:title": {}}}


def test_preserved_unknown_fields_are_owned_by_path(api: Api) -> None:
    free = {"text": "x", "number": 1.5, "flag": True, "list": [{"a": 1}], "map": {"k": {"l": "m"}}, "none": None}
    body = api.apply("specimens", "a", {"spec": {"title": "a", "free": free}}).expect(201)
    assert owned(body, "reconciler")["f:spec"]["f:free"] == {
        "f:flag": {},
        "f:list": {},
        "f:map": {".": {}, "f:k": {".": {}, "f:l": {}}},
        "f:none": {},
        "f:number": {},
        "f:text": {},
    }
    assert body["spec"]["free"] == free


def test_defaults_have_no_owner_after_an_apply_but_one_after_an_update(api: Api) -> None:
    applied = api.apply("specimens", "a", {"spec": {"title": "a"}}).expect(201)
    assert applied["spec"] == {"title": "a", "size": 3}
    assert owned(applied, "reconciler") == {"f:spec": {"f:title": {}}}
    created = api.create("specimens", "b", {"spec": {"title": "a"}}, fieldManager="one").expect(201)
    assert owned(created, "one", "Update") == {"f:spec": {".": {}, "f:size": {}, "f:title": {}}}


def test_the_order_of_managers(api: Api) -> None:
    api.create("flinkdeployments", "a", {"spec": {"image": "x"}}, fieldManager="zebra").expect(201)
    api.merge("flinkdeployments", "a", {"status": {"error": "x"}}, manager="zebra", sub="status").expect(200)
    api.merge("flinkdeployments", "a", {"status": {"lifecycleState": "STABLE"}}, manager="ant", sub="status").expect(
        200
    )
    api.apply("flinkdeployments", "a", {"spec": {"mode": "native"}}, manager="wolf").expect(200)
    body = api.apply("flinkdeployments", "a", {"spec": {"serviceAccount": "s"}}, manager="bear").expect(200)
    entries = body["metadata"]["managedFields"]
    order = [(e["operation"], e.get("time", ""), e["manager"], e.get("subresource", "")) for e in entries]
    assert order == sorted(order), "applied ones first, then by time, by name, by subresource"
    assert len(order) == 5


def test_one_manager_may_have_an_apply_and_an_update_entry(api: Api) -> None:
    api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    body = api.merge("configmaps", "a", {"data": {"l": "w"}}, manager="reconciler").expect(200)
    assert managers(body) == [("reconciler", "Apply", ""), ("reconciler", "Update", "")]
    again = api.apply("configmaps", "a", {"data": {"k": "v", "l": "x"}})
    error = again.expect_error(409, "Conflict")
    assert error["details"]["causes"][0]["message"] == 'conflict with "reconciler" using v1'


def test_a_co_owner_that_changes_no_value_has_no_time(api: Api) -> None:
    first = api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="one").expect(201)
    shown = api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="two", dryRun="All").expect(200)
    assert api.get("configmaps", "a").expect(200) == first
    after = api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="two").expect(200)
    for body in (shown, after):
        assert managers(body) == [("two", "Apply", ""), ("one", "Apply", "")], "no time sorts as the oldest"
        entries = body["metadata"]["managedFields"]
        assert "time" not in entries[0]
        assert entries[1] == first["metadata"]["managedFields"][0]
    again = api.apply("configmaps", "a", {"data": {"k": "v"}}, manager="two").expect(200)
    assert again == after


def test_ownership_alone_is_a_write(api: Api) -> None:
    first = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}, manager="one").expect(201)
    second = api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}, manager="two").expect(200)
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    assert second["metadata"]["generation"] == 1


def test_managed_fields_can_be_cleared(api: Api) -> None:
    api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(201)
    cleared = api.merge("configmaps", "a", {"metadata": {"managedFields": [{}]}}).expect(200)
    assert "managedFields" not in cleared["metadata"]
    after = api.apply("configmaps", "a", {"data": {"k": "v"}}).expect(200)
    assert ("reconciler", "Apply", "") in managers(after)


def test_secret_string_data_stays_owned_although_it_is_not_kept(api: Api) -> None:
    body = api.apply("secrets", "a", {"stringData": {"k": "v"}}).expect(201)
    assert "stringData" not in body
    assert owned(body, "reconciler") == {"f:stringData": {"f:k": {}}}

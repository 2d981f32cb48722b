"""Lists: selectors, pages, tables and metadata only."""

from __future__ import annotations

import pytest

from tests.contract.api import METADATA, METADATA_LIST, TABLE, Api, Object


def names(body: Object) -> list[str]:
    """The names of a list's objects, in its order."""
    return [item["metadata"]["name"] for item in body["items"]]


@pytest.fixture
def five(api: Api) -> Api:
    """Five config maps c0 to c4 with labels app=x and n=0 to 4."""
    for number in range(5):
        labels = {"app": "x", "n": str(number)}
        api.create("configmaps", f"c{number}", {"metadata": {"labels": labels}, "data": {"k": "v"}}).expect(201)
    return api


def test_a_list_is_ordered_and_its_items_name_no_kind(five: Api) -> None:
    body = five.list("configmaps").expect(200)
    assert (body["kind"], body["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(body) == ["c0", "c1", "c2", "c3", "c4"]
    assert all("kind" not in item and "apiVersion" not in item for item in body["items"])
    newest = max(int(item["metadata"]["resourceVersion"]) for item in body["items"])
    assert int(body["metadata"]["resourceVersion"]) >= newest


def test_items_of_a_custom_list_name_their_kind(api: Api) -> None:
    api.create("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    body = api.list("flinkdeployments").expect(200)
    assert (body["kind"], body["apiVersion"]) == ("FlinkDeploymentList", "flink.apache.org/v1beta1")
    assert [(item["kind"], item["apiVersion"]) for item in body["items"]] == [
        ("FlinkDeployment", "flink.apache.org/v1beta1")
    ]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=x", "01234"),
        ("app==x,n=3", "3"),
        ("app!=x", ""),
        ("n in (1,2)", "12"),
        ("n notin (1,2)", "034"),
        ("n", "01234"),
        ("!n", ""),
        ("absent!=x", "01234"),
        ("", "01234"),
    ],
)
def test_label_selectors(five: Api, selector: str, expected: str) -> None:
    body = five.list("configmaps", labelSelector=selector).expect(200)
    assert names(body) == [f"c{digit}" for digit in expected]


@pytest.mark.parametrize(
    ("selector", "expected"), [("metadata.name=c1", "1"), ("metadata.name!=c1", "0234"), ("metadata.name==c9", "")]
)
def test_field_selectors(five: Api, selector: str, expected: str) -> None:
    body = five.list("configmaps", fieldSelector=selector).expect(200)
    assert names(body) == [f"c{digit}" for digit in expected]


def test_selectors_that_cannot_be_read(api: Api) -> None:
    api.list("configmaps", labelSelector="a b").expect_error(400, "BadRequest")
    api.list("configmaps", fieldSelector="data.k=v").expect_error(400, "BadRequest")
    api.list("flinkdeployments", fieldSelector="spec.image=x").expect_error(400, "BadRequest")


def test_a_list_over_all_namespaces(api: Api) -> None:
    mark = {"metadata": {"labels": {"mark": api.namespace}}}
    api.create("configmaps", "a", mark).expect(201)
    other = api.whole("configmaps", "a", mark, namespace=api.spare_namespace)
    api.send("POST", api.path("configmaps", namespace=api.spare_namespace), other).expect(201)
    body = api.list("configmaps", namespace=None, labelSelector=f"mark={api.namespace}").expect(200)
    assert sorted(item["metadata"]["namespace"] for item in body["items"]) == sorted(
        [api.namespace, api.spare_namespace]
    )


def test_pages_are_of_one_version(five: Api) -> None:
    first = five.list("configmaps", limit="2").expect(200)
    assert names(first) == ["c0", "c1"]
    assert first["metadata"]["remainingItemCount"] == 3
    five.create("configmaps", "c1a", {}).expect(201)
    five.delete("configmaps", "c3").expect(200)
    second = five.list("configmaps", limit="2", **{"continue": first["metadata"]["continue"]}).expect(200)
    assert names(second) == ["c2", "c3"]
    third = five.list("configmaps", limit="2", **{"continue": second["metadata"]["continue"]}).expect(200)
    assert names(third) == ["c4"]
    assert "continue" not in third["metadata"]
    assert "remainingItemCount" not in third["metadata"]
    assert {page["metadata"]["resourceVersion"] for page in (second, third)} == {first["metadata"]["resourceVersion"]}


def test_pages_with_a_selector_do_not_count_what_remains(five: Api) -> None:
    first = five.list("configmaps", limit="1", labelSelector="n in (1,3)").expect(200)
    assert names(first) == ["c1"]
    assert "remainingItemCount" not in first["metadata"]
    rest = {"labelSelector": "n in (1,3)", "continue": first["metadata"]["continue"]}
    second = five.list("configmaps", limit="5", **rest).expect(200)
    assert names(second) == ["c3"]


def test_continue_tokens_that_cannot_be_used(five: Api) -> None:
    token = five.list("configmaps", limit="2").expect(200)["metadata"]["continue"]
    five.list("configmaps", **{"continue": "nonsense"}).expect_error(400, "BadRequest")
    five.list("configmaps", resourceVersion="1", **{"continue": token}).expect_error(400, "BadRequest")


def test_resource_versions_in_lists(five: Api) -> None:
    before = five.list("configmaps").expect(200)["metadata"]["resourceVersion"]
    five.delete("configmaps", "c0").expect(200)
    exact = five.list("configmaps", resourceVersion=before, resourceVersionMatch="Exact").expect(200)
    assert names(exact) == ["c0", "c1", "c2", "c3", "c4"]
    assert exact["metadata"]["resourceVersion"] == before
    newer = five.list("configmaps", resourceVersion=before).expect(200)
    assert int(newer["metadata"]["resourceVersion"]) >= int(before)
    five.list("configmaps", resourceVersion="abc").expect_error(400, "BadRequest")
    error = five.list("configmaps", resourceVersion="99999999", timeoutSeconds="1").expect_error(504, "Timeout")
    assert [cause["reason"] for cause in error["details"]["causes"]] == ["ResourceVersionTooLarge"]


def test_a_table_without_objects_is_names_and_cells(five: Api) -> None:
    body = five.list("configmaps", accept=TABLE, includeObject="None", limit="2").expect(200)
    assert (body["kind"], body["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in body["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert [row["cells"][:2] for row in body["rows"]] == [["c0", 1], ["c1", 1]]
    assert [row["object"] for row in body["rows"]] == [None, None]
    assert body["metadata"]["remainingItemCount"] == 3
    assert "continue" in body["metadata"]


@pytest.mark.parametrize("include", [{}, {"includeObject": "Metadata"}], ids=["default", "metadata"])
def test_a_table_with_metadata(api: Api, include: dict[str, str]) -> None:
    made = api.create("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    api.merge("flinkdeployments", "a", {"status": {"jobStatus": {"state": "RUNNING"}}}, sub="status").expect(200)
    body = api.list("flinkdeployments", accept=TABLE, **include).expect(200)
    assert [column["name"] for column in body["columnDefinitions"]] == ["Name", "Job Status", "Lifecycle State"]
    assert [row["cells"] for row in body["rows"]] == [["a", "RUNNING", None]]
    part = body["rows"][0]["object"]
    assert (part["kind"], part["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert sorted(part) == ["apiVersion", "kind", "metadata"]
    assert part["metadata"]["uid"] == made["metadata"]["uid"]
    assert part["metadata"]["generation"] == 1
    assert "managedFields" in part["metadata"]


def test_an_empty_table_has_its_columns(api: Api) -> None:
    body = api.list("specimens", accept=TABLE, includeObject="None").expect(200)
    assert body["rows"] == []
    columns = [(column["name"], column["type"], column["priority"]) for column in body["columnDefinitions"]]
    assert columns == [("Name", "string", 0), ("Title", "string", 0), ("Size", "integer", 1)]


def test_metadata_only(five: Api) -> None:
    body = five.list("configmaps", accept=METADATA_LIST, labelSelector="n=1").expect(200)
    assert (body["kind"], body["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    whole = five.get("configmaps", "c1").expect(200)
    expected = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]}
    assert body["items"] == [expected]
    one = five.send("GET", five.path("configmaps", "c1"), accept=METADATA).expect(200)
    assert one == expected

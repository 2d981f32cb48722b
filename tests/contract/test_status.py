"""The status subresource, and what counts as a new generation."""

from __future__ import annotations

import pytest

from tests.contract.api import Api, managers, owned


@pytest.fixture
def deployed(api: Api) -> Api:
    """A FlinkDeployment `a` at generation 1."""
    api.apply("flinkdeployments", "a", {"spec": {"image": "x"}}).expect(201)
    return api


def test_a_status_patch_changes_status_only_and_no_generation(deployed: Api) -> None:
    body = {"status": {"lifecycleState": "STABLE"}, "spec": {"image": "y"}, "metadata": {"labels": {"l": "x"}}}
    after = deployed.merge("flinkdeployments", "a", body, manager="operator", sub="status").expect(200)
    assert after["spec"] == {"image": "x"}
    assert after["status"] == {"lifecycleState": "STABLE"}
    assert "labels" not in after["metadata"]
    assert after["metadata"]["generation"] == 1
    assert managers(after) == [("reconciler", "Apply", ""), ("operator", "Update", "status")]
    assert owned(after, "operator", "Update", "status") == {"f:status": {".": {}, "f:lifecycleState": {}}}


def test_a_write_to_the_object_ignores_status(deployed: Api) -> None:
    deployed.merge("flinkdeployments", "a", {"status": {"lifecycleState": "STABLE"}}, sub="status").expect(200)
    patched = deployed.merge("flinkdeployments", "a", {"status": {"lifecycleState": "FAILED"}}).expect(200)
    assert patched["status"] == {"lifecycleState": "STABLE"}
    applied = deployed.apply(
        "flinkdeployments", "a", {"spec": {"image": "x"}, "status": {"lifecycleState": "FAILED"}}
    ).expect(200)
    assert applied["status"] == {"lifecycleState": "STABLE"}
    assert owned(applied, "reconciler") == {"f:spec": {"f:image": {}}}


def test_create_drops_status(api: Api) -> None:
    body = api.create("flinkdeployments", "a", {"spec": {"image": "x"}, "status": {"lifecycleState": "STABLE"}})
    assert "status" not in body.expect(201)


def test_apply_to_status_has_an_entry_of_its_own(deployed: Api) -> None:
    status = {"status": {"lifecycleState": "STABLE"}}
    after = deployed.apply("flinkdeployments", "a", status, sub="status").expect(200)
    assert managers(after) == [("reconciler", "Apply", ""), ("reconciler", "Apply", "status")]
    assert owned(after, "reconciler", "Apply", "status") == {"f:status": {"f:lifecycleState": {}}}
    assert after["metadata"]["generation"] == 1
    changed = {"status": {"lifecycleState": "FAILED"}}
    error = deployed.apply("flinkdeployments", "a", changed, manager="operator", sub="status")
    message = error.expect_error(409, "Conflict")["details"]["causes"][0]["message"]
    assert message == 'conflict with "reconciler" with subresource "status"'


def test_put_of_status(deployed: Api) -> None:
    body = deployed.get("flinkdeployments", "a").expect(200)
    changed = {**body, "spec": {"image": "y"}, "status": {"lifecycleState": "STABLE"}}
    after = deployed.put("flinkdeployments", "a", changed, sub="status", fieldManager="operator").expect(200)
    assert (after["spec"], after["status"]) == ({"image": "x"}, {"lifecycleState": "STABLE"})
    deployed.put("flinkdeployments", "a", changed, sub="status").expect_error(409, "Conflict")


def test_status_is_read_with_the_object(deployed: Api) -> None:
    whole = deployed.get("flinkdeployments", "a").expect(200)
    assert deployed.get("flinkdeployments", "a", sub="status").expect(200) == whole


def test_status_of_an_absent_object_or_of_a_kind_without(api: Api) -> None:
    api.merge("flinkdeployments", "a", {"status": {}}, sub="status").expect_error(404, "NotFound")
    api.create("configmaps", "a", {}).expect(201)
    api.merge("configmaps", "a", {"status": {}}, sub="status").expect_error(404, "NotFound")


def test_status_is_validated(deployed: Api) -> None:
    answer = deployed.merge("flinkdeployments", "a", {"status": {"lifecycleState": "GREAT"}}, sub="status")
    error = answer.expect_error(422, "Invalid")
    assert [cause["field"] for cause in error["details"]["causes"]] == ["status.lifecycleState"]


def test_what_counts_as_a_generation(deployed: Api) -> None:
    labelled = deployed.merge("flinkdeployments", "a", {"metadata": {"labels": {"l": "x"}}}).expect(200)
    assert labelled["metadata"]["generation"] == 1
    changed = deployed.merge("flinkdeployments", "a", {"spec": {"image": "y"}}).expect(200)
    assert changed["metadata"]["generation"] == 2
    deployed.merge("flinkdeployments", "a", {"metadata": {"finalizers": ["x.test/y"]}}).expect(200)
    deleting = deployed.delete("flinkdeployments", "a").expect(200)
    assert deleting["metadata"]["generation"] == 3, "asking for deletion counts, too"


def test_status_of_a_built_in_kind(api: Api) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "m", "image": "i:1"}]}}
    api.apply("deployments", "a", {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}).expect(201)
    status = {"status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}}
    after = api.merge("deployments", "a", status, manager="controller", sub="status").expect(200)
    assert after["status"] == {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}
    assert after["metadata"]["generation"] == 1
    assert managers(after)[-1] == ("controller", "Update", "status")

"""The scale subresource, through which autoscalers write: on the real API server alone, the simulated one has none."""

from __future__ import annotations

import pytest

from reconciler.core.diff import compare
from reconciler.core.model import Sync
from tests.contract.api import Api, Object, managers, owned

pytestmark = [pytest.mark.controlplane, pytest.mark.parametrize("connected", ["real"], indirect=True)]

DEPLOYMENT: Object = {
    "metadata": {"labels": {"l": "x"}},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "i:1"}]},
        },
    },
}


def scaled(api: Api, replicas: int) -> Object:
    """The Deployment `a` after an autoscaler's write."""
    scale = api.get("deployments", "a", sub="scale").expect(200)
    scale["spec"]["replicas"] = replicas
    api.put("deployments", "a", scale, sub="scale", fieldManager="autoscaler").expect(200)
    body: Object = api.get("deployments", "a").expect(200)
    return body


def test_a_scale_that_nobody_declared_is_nobody_s_after_it_was_written(api: Api) -> None:
    api.apply("deployments", "a", DEPLOYMENT).expect(201)
    after = scaled(api, 7)
    assert after["spec"]["replicas"] == 7
    assert managers(after) == [("reconciler", "Apply", "")]
    assert after["metadata"]["generation"] == 2
    assert compare(api.whole("deployments", "a", DEPLOYMENT), after).sync is Sync.IN_SYNC
    assert api.apply("deployments", "a", DEPLOYMENT).expect(200)["spec"]["replicas"] == 7
    declared = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 2}}
    assert api.apply("deployments", "a", declared).expect(200)["spec"]["replicas"] == 2, "it conflicts with nobody"


def test_a_scale_takes_the_replicas_from_who_declares_them(api: Api) -> None:
    declared = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 2}}
    api.apply("deployments", "a", declared).expect(201)
    after = scaled(api, 7)
    assert managers(after) == [("reconciler", "Apply", ""), ("autoscaler", "Update", "scale")]
    assert owned(after, "autoscaler", "Update", "scale") == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in owned(after, "reconciler")["f:spec"]
    error = api.apply("deployments", "a", declared).expect_error(409, "Conflict")
    assert error["details"]["causes"][0]["message"].startswith('conflict with "autoscaler" with subresource "scale"')
    assert api.apply("deployments", "a", declared, force="true").expect(200)["spec"]["replicas"] == 2

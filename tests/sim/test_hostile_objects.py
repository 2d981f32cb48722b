"""Objects that no honest API server stores, and one that it does: none of them ends the daemon."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell.kube_answers import Resource, list_parts, watch_event
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.live import LiveCache

RESOURCE = Resource("example.com", "v1", "specimens", "Specimen", True)


def specimen(metadata: dict[str, Any], **more: Any) -> Manifest:
    identity = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"}
    return {"apiVersion": "example.com/v1", "kind": "Specimen", "metadata": {**identity, **metadata}, **more}


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": ["reconciler.dev/owner"]},
        {"annotations": "x"},
        {"managedFields": [None]},
        {"managedFields": {}},
        {"generation": "abc"},
        {"uid": None},
    ],
)
def test_metadata_of_another_shape_is_refused_wherever_it_comes_from(metadata: dict[str, Any]) -> None:
    manifest = specimen(metadata)
    with pytest.raises(KubeError):
        list_parts({"kind": "SpecimenList", "metadata": {"resourceVersion": "8"}, "items": [manifest]})
    with pytest.raises(KubeError):
        watch_event(orjson.dumps({"type": "ADDED", "object": manifest}), RESOURCE)


def test_an_object_nested_too_deep_is_not_kept() -> None:
    """A real API server stores 300 levels in a preserve-unknown field; anybody may label such an object."""
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    cache = LiveCache()
    manifest = specimen({"labels": {"reconciler.dev/owner": "me"}}, spec=deep)
    assert cache.offer(manifest, 1.0) is False
    assert cache.entry(ObjectKey.of(manifest)) is None
    assert cache.offer(specimen({}), 2.0) is True

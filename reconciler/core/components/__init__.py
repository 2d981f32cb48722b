"""Component types: how the properties of a component become objects.

A type is a function from an `Effective` component (overrides merged in) to located objects. What a type has in common
with the others (namespaces, forbidden kinds, order) is done after it, in `objects` and `compile`.

    flink-application  one FlinkDeployment, with the traits written into it
    manifests          Kubernetes objects as they are, inline or from a directory
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.core.components import flink_application, manifests
from reconciler.core.components.effective import Context, Effective
from reconciler.core.objects import Located
from reconciler.core.problems import Problem

__all__ = ["COMPONENT_TYPES", "LATER_TYPES", "Context", "Effective", "Rendered"]

Rendered = tuple[list[Located], list[Problem]]


@dataclass(frozen=True, slots=True)
class ComponentType:
    """What a type does, and how its properties are checked."""

    render: Callable[[Effective, Context], Rendered]


COMPONENT_TYPES: Mapping[str, ComponentType] = {
    "flink-application": ComponentType(flink_application.render),
    "manifests": ComponentType(manifests.render),
}
#: Known, and not supported by this version: an error for the application that uses one, and for no other.
LATER_TYPES = ("flink-session-cluster", "flink-session-job", "helm-chart", "kustomize")

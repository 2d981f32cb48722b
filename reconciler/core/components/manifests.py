"""The component type `manifests`: Kubernetes objects as they are, inline or from a directory beside the application.

properties: {objects: [{apiVersion: v1, kind: ConfigMap, ...}]}
properties: {path: manifests/}
"""

from __future__ import annotations

import posixpath

from reconciler.core.components.effective import Context, Effective
from reconciler.core.objects import Located
from reconciler.core.problems import Problem
from reconciler.core.schema import check
from reconciler.core.schemas import MANIFESTS_PROPERTIES


def directory_of(document_file: str, path: str) -> str:
    """The directory that `path` of an application in `document_file` means, from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(document_file), path))


def render(component: Effective, context: Context) -> tuple[list[Located], list[Problem]]:
    """The declared objects."""
    problems = [component.problem_of(finding) for finding in check(MANIFESTS_PROPERTIES, component.properties)]
    if component.traits:
        trait = component.traits[0]
        says = f"the trait {trait.use.type!r} does not apply to components of type 'manifests'"
        problems.append(trait.problem(("type",), "trait-applies", says, "remove it"))
    objects, path = component.properties.get("objects"), component.properties.get("path")
    if not problems and (objects is None) == (path is None):
        says = "objects and path are alternatives" if path else "objects or path is missing"
        problems.append(component.problem((), "invalid-value", says))
    if problems:
        return [], problems
    if path is not None:
        directory = directory_of(context.document.file, path)
        documents = context.directory.get(directory, ())
        if not documents:
            says = f"no Kubernetes objects in {directory!r}"
            return [], [component.problem(("path",), "path-matches-nothing", says, "the path is relative to this file")]
        return [Located(document.value, document) for document in documents], []
    return [
        Located(manifest, context.document, component.place_of(("objects", index)))
        for index, manifest in enumerate(objects or ())
    ], []

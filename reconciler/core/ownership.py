"""Whose an object is: the mark that says so.

The mark is stamped on what is sent to a cluster. It is no part of a release or its digest, so that the same content
under another installation is still the same release.

    label      reconciler.dev/owner: hash of installation, source and application
    annotation reconciler.dev/application: fleet/name
"""

from __future__ import annotations

from reconciler.core.digest import digest_of
from reconciler.core.model import Manifest

OWNER_LABEL = "reconciler.dev/owner"
APPLICATION_ANNOTATION = "reconciler.dev/application"
#: Labels and annotations that start so are ours: on live objects they mean something, in Git only these may stand.
OWN_PREFIX = "reconciler.dev/"
#: On an Application: the name it had before. What is there of that one is looked after under the new name.
RENAMED_FROM = "reconciler.dev/renamed-from"
DECLARABLE_ANNOTATIONS = frozenset({"reconciler.dev/bounded", "reconciler.dev/prune"})


def owner_hash(installation_id: str, source: str, application: str) -> str:
    """The value of the owner label: short enough for a label, and the same at every start."""
    return digest_of([installation_id, source, application], length=32)


def stamp(manifest: Manifest, owner: str, application: str) -> Manifest:
    """`manifest` with the mark; the argument is not changed."""
    metadata = dict(manifest.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), OWNER_LABEL: owner}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), APPLICATION_ANNOTATION: application}
    return {**manifest, "metadata": metadata}

"""What is in force of a fleet although its commit does not say so any more, in a form that outlives the process.

A document that broke stays at its last good version; an application that is blocked stays at the release it had, and
what it claims stays claimed. Which versions these are is history, which no commit tells. Their blob ids are noted, and
a new process makes the same of them (`fleet_recall`).

    held = HeldBack({"clusters/a.yaml": (HeldDocument("Cluster", "a", blob),)}, {})
    assert HeldBack.of_text(held.as_text()) == held
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.core.fleet_files import Held

#: The files that something was made of, each with its blob id, sorted.
Blobs = tuple[tuple[str, str], ...]


class HeldDocument(NamedTuple):
    """A document in force that the file does not hold any more, and the blob that did."""

    kind: str
    name: str
    blob: str


class HeldApplication(NamedTuple):
    """A blocked application: the files it was made of when it was last not blocked (none: never), and those of its
    newest compilation, which says what it claims."""

    last: Blobs
    newest: Blobs


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The documents by their files, and the applications by their names."""

    documents: Mapping[str, tuple[HeldDocument, ...]] = field(default_factory=dict)
    applications: Mapping[str, HeldApplication] = field(default_factory=dict)

    def as_text(self) -> str:
        """As JSON, which is the same text for the same value; "{}" for nothing."""
        parts = {"documents": self.documents, "applications": self.applications}
        return json.dumps({name: part for name, part in parts.items() if part}, sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> HeldBack:
        """What `as_text` gave. Raises ValueError for what is no JSON."""
        value = json.loads(text)
        return cls(
            {path: tuple(HeldDocument(*each) for each in some) for path, some in value.get("documents", {}).items()},
            {
                name: HeldApplication(*(tuple((path, blob) for path, blob in blobs) for blobs in both))
                for name, both in value.get("applications", {}).items()
            },
        )

    def blobs(self) -> list[tuple[str, str]]:
        """All files and blob ids that are needed to recall it, sorted."""
        found = {(path, document.blob) for path, some in self.documents.items() for document in some}
        for application in self.applications.values():
            found.update(application.last, application.newest)
        return sorted(found)


NOTHING_HELD = HeldBack()


def held_documents(held: Mapping[str, tuple[Held, ...]], paths: Collection[str]) -> dict[str, tuple[HeldDocument, ...]]:
    """Those in force, of the files `paths`, that their files do not hold any more."""
    found = {}
    for path in sorted(paths):
        broken = [entry for entry in held.get(path, ()) if entry.broken is not None]
        if broken:
            # Documents of one file that have the same name were read from the same blob.
            named = [HeldDocument(entry.parsed.kind, entry.parsed.name, entry.blob) for entry in broken]
            found[path] = tuple(dict.fromkeys(named))
    return found

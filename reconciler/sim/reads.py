"""Reads: get, list and watch of the simulated API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from reconciler.shell.transport import Response, Stream
from reconciler.sim import problems
from reconciler.sim.answers import Page, list_body, metadata_list_body, metadata_only, select, table_body
from reconciler.sim.problems import Cause
from reconciler.sim.requests import Call, representation
from reconciler.sim.schema import Catalog, Resource
from reconciler.sim.selectors import parse_fields, parse_labels
from reconciler.sim.store import Event, Store, Stored
from reconciler.sim.watch import Pace, View, Watch, error_line, watch_line

JSON_HEADERS = {"content-type": "application/json"}
BOOKMARK_BEFORE_END_S = 2.0
#: The real server draws the end of a watch without timeoutSeconds between 30 and 60 minutes.
WATCH_TIMEOUT_S = 2700.0


def whole(stored: Stored) -> bytes:
    """The object as it is stored."""
    return stored.raw


def only_metadata(stored: Stored) -> bytes:
    """The object's metadata."""
    return orjson.dumps(metadata_only(stored))


class Reads:
    """Answers reads from one store and keeps its open watches. `clock` is what watches go by."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        now: Callable[[], float],
        clock: Callable[[], float],
        bookmark_interval_s: float,
    ) -> None:
        self.catalog = catalog
        self.watches: dict[Watch, str] = {}
        self._store = store
        self._now = now
        self._clock = clock
        self._bookmark_interval_s = bookmark_interval_s

    def get(self, call: Call, resource: Resource, stored: Stored) -> Response:
        """One object, whole, as metadata or as a table of one row."""
        form = representation(call.headers.get("accept", ""))
        if form == "Table":
            raise problems.not_simulated(f"a table of one {resource.kind}")
        return Response(200, JSON_HEADERS, whole(stored) if form == "object" else only_metadata(stored))

    def list(self, call: Call, resource: Resource, namespace: str) -> Response:
        """A collection, or a page of it."""
        form = representation(call.headers.get("accept", ""))
        view = self._view(call, namespace, whole)
        page = Page(self._store, resource.storage, view, call.number("limit"), *self._version(call))
        if call.query.get("labelSelector") or call.query.get("fieldSelector"):
            # With a selector the server does not know how many are left.
            page.metadata.pop("remainingItemCount", None)
        if form == "Table":
            return Response(
                200, JSON_HEADERS, table_body(resource, page, call.query.get("includeObject", ""), self._now())
            )
        body = list_body(resource, page) if form == "object" else metadata_list_body(page)
        return Response(200, JSON_HEADERS, body)

    def _version(self, call: Call) -> tuple[str, int | None]:
        """(continue token, exact revision) of a list. Anything not older than asked is served from the newest state."""
        token = call.query.get("continue", "")
        text, match = call.query.get("resourceVersion", ""), call.query.get("resourceVersionMatch", "")
        if match and not text:
            message = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise problems.invalid_options("ListOptions", [problems.forbidden_value("resourceVersionMatch", message)])
        if match not in ("", "Exact", "NotOlderThan"):
            allowed = ["", "Exact", "NotOlderThan"]
            cause = problems.unsupported_value("resourceVersionMatch", match, allowed)
            raise problems.invalid_options("ListOptions", [cause])
        if token and text not in ("", "0"):
            raise problems.bad_request("specifying resource version is not allowed when using continue")
        revision = self._revision(text)
        if revision > self._store.revision:
            message = f"Timeout: Too large resource version: {revision}, current: {self._store.revision}"
            causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
            details = {"causes": causes, "retryAfterSeconds": 1}
            raise problems.ApiError(problems.status(504, message, details=details))
        return token, revision if match == "Exact" and revision else None

    def _revision(self, text: str) -> int:
        if text and not text.isdigit():
            raise problems.bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
        return int(text or 0)

    def _view(self, call: Call, namespace: str, render: Callable[[Stored], bytes]) -> View:
        labels = parse_labels(call.query.get("labelSelector", ""))
        return View(namespace, labels, parse_fields(call.query.get("fieldSelector", "")), render)

    # ---------------------------------------------------------------------------------------------------- watches

    def watch(self, call: Call, resource: Resource, namespace: str) -> Stream:
        """An open watch."""
        form = representation(call.headers.get("accept", ""))
        if form == "Table":
            raise problems.not_simulated("a watch of tables")
        initial = self._initial_events(call)
        view = self._view(call, namespace, whole if form == "object" else only_metadata)
        revision = self._revision(call.query.get("resourceVersion", ""))
        watch = Watch(view, self._pace(call), lambda: self._bookmark(resource, form), self._closed)
        self.watches[watch] = resource.storage
        shelf = self._store.shelf(resource.storage)
        if initial or revision == 0:
            for _, stored in select(shelf.objects, view):
                watch.push(watch_line("ADDED", view.render(stored)))
            if initial:
                watch.push(self._bookmark(resource, form, initial_end=True))
        elif revision < shelf.horizon:
            message = f"too old resource version: {revision} ({shelf.horizon})"
            watch.push(error_line(problems.status(410, message)))
            watch.end()
        else:
            for event in self._store.since(resource.storage, revision):
                watch.offer(event)
        return Stream(200, JSON_HEADERS, b"", watch)

    def _initial_events(self, call: Call) -> bool:
        """Whether the watch is to begin with what is there (sendInitialEvents). Contradictory options are 422."""
        asked, match = call.query.get("sendInitialEvents"), call.query.get("resourceVersionMatch", "")
        causes: list[Cause] = []
        if asked is None and match:
            message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            causes.append(problems.forbidden_value("resourceVersionMatch", message))
        if asked is not None and match != "NotOlderThan":
            message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            causes.append(problems.forbidden_value("resourceVersionMatch", message))
        if causes:
            raise problems.invalid_options("ListOptions", causes)
        return call.flag("sendInitialEvents")

    def _pace(self, call: Call) -> Pace:
        now = self._clock()
        ends_at = now + (call.number("timeoutSeconds") or WATCH_TIMEOUT_S)
        if not call.flag("allowWatchBookmarks"):
            return Pace(self._clock, ends_at)
        first = min(now + self._bookmark_interval_s, max(now, ends_at - BOOKMARK_BEFORE_END_S))
        return Pace(self._clock, ends_at, self._bookmark_interval_s, first)

    def _bookmark(self, resource: Resource, form: str, *, initial_end: bool = False) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(self._store.revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        shown = {"kind": resource.kind, "apiVersion": resource.api_version}
        if form != "object":
            shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        return watch_line("BOOKMARK", orjson.dumps({**shown, "metadata": metadata}))

    def _closed(self, watch: Watch) -> None:
        self.watches.pop(watch, None)

    def changed(self, storage: str, event: Event) -> None:
        """Queue a change for the watches of its kind."""
        for watch, watched in list(self.watches.items()):
            if watched == storage:
                watch.offer(event)

    def tick(self) -> None:
        """Send due bookmarks, end watches that ran out."""
        for watch in list(self.watches):
            watch.tick()

    def end_watches(self) -> None:
        """End them all."""
        for watch in list(self.watches):
            watch.end()

    def pending_events(self) -> int:
        """Queued lines of open watches."""
        return sum(watch.pending for watch in self.watches)

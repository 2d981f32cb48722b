"""Somebody else at work on the clusters, and somebody who only watches: the disturbance of B4 and its floor.

with Watcher(plane.control) as watcher, Editor(plane.control) as editor:
    editor.edit("c0000", "app-00001", 7)
    watcher.seen("c0000", "app-00001")      # when, in wall-clock seconds, events of it came
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import defaultdict
from contextlib import suppress
from types import TracebackType
from typing import Self

import orjson

from tests.control_plane.server import ADMINISTRATOR, ControlPlane

AGENT = "bench-editor"
STARTED_WITHIN_S = 30.0


def _connection(control: ControlPlane) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(control.ca_file))
    return http.client.HTTPSConnection(control.url.removeprefix("https://"), timeout=300, context=context)


def _headers(control: ControlPlane) -> dict[str, str]:
    return {"Authorization": f"Bearer {control.tokens[ADMINISTRATOR]}", "User-Agent": AGENT}


class Editor:
    """Changes and deletes ConfigMaps over one kept connection."""

    def __init__(self, control: ControlPlane) -> None:
        self._connection = _connection(control)
        self._headers = _headers(control)

    def edit(self, namespace: str, name: str, number: int) -> None:
        """Set a field that Git declares to something else."""
        self._send("PATCH", namespace, name, {"data": {"level": f"edited-{number}"}})

    def delete(self, namespace: str, name: str) -> None:
        """Delete it."""
        self._send("DELETE", namespace, name, None)

    def _send(self, method: str, namespace: str, name: str, body: object) -> None:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        content = json.dumps(body) if body is not None else None
        self._connection.request(method, f"/api/v1/namespaces/{namespace}/configmaps/{name}", content, headers)
        with self._connection.getresponse() as answer:
            answer.read()
        assert answer.status == 200, f"{method} {namespace}/{name}: {answer.status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


class Watcher:
    """Watches all ConfigMaps on the API server itself and notes when each event came, in a thread of its own."""

    def __init__(self, control: ControlPlane) -> None:
        self._connection = _connection(control)
        self._headers = _headers(control)
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def seen(self, namespace: str, name: str) -> list[float]:
        """When events of this object came, in wall-clock seconds."""
        return list(self._times[namespace, name])

    def _watch(self) -> None:
        self._connection.request("GET", "/api/v1/configmaps?limit=1", headers=self._headers)
        with self._connection.getresponse() as answer:
            version = json.loads(answer.read())["metadata"]["resourceVersion"]
        self._connection.request("GET", f"/api/v1/configmaps?watch=1&resourceVersion={version}", headers=self._headers)
        # The connection is closed under it at the end.
        closing = suppress(OSError, http.client.HTTPException, ValueError, AttributeError)
        with closing, self._connection.getresponse() as answer:
            self._opened.set()
            while line := answer.readline():
                came_s = time.time()
                metadata = orjson.loads(line)["object"]["metadata"]
                self._times[metadata["namespace"], metadata["name"]].append(came_s)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._opened.wait(STARTED_WITHIN_S):
            raise RuntimeError("the bare watcher did not begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.shutdown(2)
        self._thread.join(10)
        self._connection.close()

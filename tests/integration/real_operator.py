"""The model of the Flink operator as a controller of a real API server: there is no Flink behind it, only its statuses.

It polls (tests have a handful of objects) in a thread of its own and writes what the model says: finalizers and
status, with merge patches, as the operator does.

    with RealOperator(plane): ...
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from reconciler.bootstrap import WallClock
from reconciler.sim.machine import Ref
from reconciler.sim.operator import FlinkOperator
from tests.control_plane.server import ADMINISTRATOR, ControlPlane
from tests.integration.live_fleet import FAST

GROUP = "/apis/flink.apache.org/v1beta1"
PLURALS = {
    "FlinkDeployment": "flinkdeployments",
    "FlinkSessionJob": "flinksessionjobs",
    "FlinkStateSnapshot": "flinkstatesnapshots",
}
POLL_S = 0.1
#: How often a request is repeated that the server is too busy for.
BUSY_MAX = 60


class RealAccess:
    """sim.work.Access over HTTPS, one kept connection. Used by one thread. `namespace` is the only one looked at."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._namespace = namespace
        self._token = plane.tokens[ADMINISTRATOR]
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._connection = http.client.HTTPSConnection(plane.url.removeprefix("https://"), timeout=30, context=context)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, ref: Ref) -> dict[str, Any] | None:
        status, found = self._call("GET", self._path(ref))
        return None if status == 404 else found

    def objects(self, kind: str) -> list[dict[str, Any]]:
        _, found = self._call("GET", f"{GROUP}/namespaces/{self._namespace}/{PLURALS[kind]}")
        return list(found.get("items", []))

    def patch_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        self._call("PATCH", f"{self._path(ref)}/status", {"status": dict(status)})

    def set_finalizers(self, ref: Ref, finalizers: list[str]) -> None:
        self._call("PATCH", self._path(ref), {"metadata": {"finalizers": finalizers or None}})

    def event(self, ref: Ref, value: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        """Nobody reads events in these tests."""
        del ref, value, kind, reason, message

    def allows(self, kind: str, field: str, value: str) -> bool:
        """The CRD of these tests knows the states of a good life; it is not asked for others."""
        del kind, field
        return value not in ("DELETING", "DELETED")

    def _path(self, ref: Ref) -> str:
        return f"{GROUP}/namespaces/{ref.namespace}/{PLURALS[ref.kind]}/{ref.name}"

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        query = "?fieldManager=flink-kubernetes-operator" if method == "PATCH" else ""
        for _ in range(BUSY_MAX):
            self._connection.request(method, path + query, json.dumps(body) if body is not None else None, headers)
            with self._connection.getresponse() as answer:
                content = answer.read()
            if answer.status != 429:
                break
            time.sleep(1)  # while a definition is replaced, its objects cannot be had
        assert answer.status in (200, 404), f"{method} {path}: {answer.status} {content[:400]!r}"
        return answer.status, json.loads(content)


class RealOperator:
    """The controller and its thread."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._access = RealAccess(plane, namespace)
        self._loop = asyncio.new_event_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)
        self._access.close()
        assert not self.failures, self.failures

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._control())
        except Exception as error:  # noqa: BLE001 - raised at the end, in the thread of the test
            self.failures.append(error)
        finally:
            self._loop.close()

    async def _control(self) -> None:
        operator = FlinkOperator(self._access, WallClock(1, self._loop), seed="real", timings=FAST)
        seen: dict[Ref, dict[str, Any]] = {}
        while not self._stopped.is_set():
            now: dict[Ref, dict[str, Any]] = {}
            for value in self._access.objects("FlinkDeployment"):
                # Items of a list carry neither kind nor version.
                value |= {"kind": "FlinkDeployment", "apiVersion": "flink.apache.org/v1beta1"}
                ref = Ref("FlinkDeployment", value["metadata"]["namespace"], value["metadata"]["name"])
                now[ref] = value
            for ref in sorted(now.keys() | seen.keys()):
                operator.notice(ref, seen.get(ref), now.get(ref))
            seen = now
            await asyncio.sleep(POLL_S)
        operator.agenda.stop()

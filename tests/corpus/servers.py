"""One API server of the corpus: the requests of the daemon, of kubectl and of controllers, and nothing else.

server.apply(resource, manifest, uid="", force=True, dry_run=True)      # Answer(200, {...})
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from reconciler.core.managed_fields import FIELD_MANAGER
from reconciler.shell.transport import Request, Transport
from reconciler.sim.schema import Resource

Object = dict[str, Any]
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a parsed body."""

    status: int
    body: Any

    @property
    def is_object(self) -> bool:
        """Whether it was done, or would be."""
        return self.status in (200, 201)

    @property
    def says(self) -> str:
        """Why not."""
        return str(self.body.get("message", "") if isinstance(self.body, dict) else self.body)[:600]


@dataclass(slots=True)
class Server:
    """One backend and the namespace in it that the corpus uses."""

    name: str
    transport: Transport
    loop: asyncio.AbstractEventLoop
    namespace: str

    def send(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Answer:
        """One request."""
        headers = (("Accept", "application/json"), ("Content-Type", content_type))
        content = b"" if body is None else json.dumps(body).encode()
        request = Request(method, path, tuple(query.items()), headers, content)
        response = self.loop.run_until_complete(self.transport.request(request))
        is_json = response.body.startswith((b"{", b"["))
        return Answer(response.status, json.loads(response.body) if is_json else response.body.decode())

    def path(self, resource: Resource, name: str = "", sub: str = "") -> str:
        """Where an object of the namespace is."""
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        parts = [f"{root}/namespaces/{self.namespace}/{resource.plural}", name, sub]
        return "/".join(part for part in parts if part)

    def apply(
        self,
        resource: Resource,
        manifest: Object,
        *,
        uid: str = "",
        manager: str = FIELD_MANAGER,
        force: bool = True,
        dry_run: bool = False,
    ) -> Answer:
        """Server-side apply, as the daemon sends it."""
        metadata = {**manifest["metadata"], **({"uid": uid} if uid else {})}
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        query |= {"force": "true"} if force else {}
        query |= {"dryRun": "All"} if dry_run else {}
        body = {**manifest, "metadata": metadata}
        return self.send("PATCH", self.path(resource, manifest["metadata"]["name"]), body, _APPLY, **query)

    def put(self, resource: Resource, body: Object, manager: str) -> Answer:
        """Replace the whole object, as `kubectl replace` does."""
        return self.send("PUT", self.path(resource, body["metadata"]["name"]), body, fieldManager=manager)

    def merge(self, resource: Resource, name: str, body: Object, manager: str, sub: str = "") -> Answer:
        """A merge patch, of a subresource where one is named."""
        return self.send("PATCH", self.path(resource, name, sub), body, _MERGE, fieldManager=manager)

    def get(self, resource: Resource, name: str) -> Answer:
        """Read it."""
        return self.send("GET", self.path(resource, name))

    def delete(self, resource: Resource, name: str) -> None:
        """Delete it and let go of its finalizers."""
        self.merge(resource, name, {"metadata": {"finalizers": None}}, "cleaning")
        self.send("DELETE", self.path(resource, name), {"propagationPolicy": "Background"})

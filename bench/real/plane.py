"""The API server that is measured on, and its own record of what it was asked.

A real kube-apiserver on an etcd that syncs its disk, with an audit log. Who asked for what, when the request came and
when it was answered is read there and nowhere else: it is the server's word, on the machine's one clock, and says the
same of the measured daemon and of the bare loop beside it.

    with Plane(directory) as plane:
        mark = plane.audit.mark()
        ...
        writes = [each for each in plane.audit.since(mark) if each.is_write and each.agent.startswith("reconciler/")]
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from tests.control_plane import build, server

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:apiserver"]}
- {level: Metadata}
"""
#: As kubeadm, k3s and the large providers run it. By default etcd tells an API server only every ten minutes how far it
#: is; until then a kind in which nothing happens has no bookmarks that say anything new, and watches get none.
ETCD_FLAGS = ("--watch-progress-notify-interval=5s",)
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class NoControlPlaneError(Exception):
    """The programs of the control plane are not built."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as the API server noted it. Times are wall-clock seconds; `agent` is the client's User-Agent."""

    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    dry_run: bool
    status: int
    agent: str
    received_s: float
    answered_s: float

    @property
    def is_write(self) -> bool:
        """It was carried out and meant to change something."""
        return self.verb in WRITES and not self.dry_run and 200 <= self.status < 300

    @property
    def place(self) -> tuple[str, str, str]:
        """Which object: resource, namespace, name."""
        return (self.resource, self.namespace, self.name)


def exchange_of(event: dict[str, Any]) -> Exchange:
    """An Exchange from an event of the audit log."""
    found, uri = event.get("objectRef") or {}, str(event.get("requestURI", ""))
    return Exchange(
        verb=str(event.get("verb", "")),
        resource=str(found.get("resource", "")) or uri.partition("?")[0],
        namespace=str(found.get("namespace", "")),
        name=str(found.get("name", "")),
        subresource=str(found.get("subresource", "")),
        dry_run="dryRun=All" in uri,
        status=int((event.get("responseStatus") or {}).get("code", 0)),
        agent=str(event.get("userAgent", "")),
        received_s=_seconds(event["requestReceivedTimestamp"]),
        answered_s=_seconds(event["stageTimestamp"]),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class AuditLog:
    """The audit log of a running API server, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""
        self._seen: list[Exchange] = []

    def mark(self) -> int:
        """A place in the log: what is asked from now on comes after it."""
        self._read()
        return len(self._seen)

    def since(self, mark: int, agent: str = "") -> list[Exchange]:
        """What was answered, or begun to be, after `mark` by clients whose name begins with `agent`."""
        self._read()
        return [each for each in self._seen[mark:] if each.agent.startswith(agent)]

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._position)
            content = log.read()
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        self._seen.extend(exchange_of(orjson.loads(line)) for line in lines if line)


class Plane:
    """The control plane, started and stopped as a context."""

    def __init__(self, directory: Path) -> None:
        assets = build.locate()
        if assets is None:
            raise NoControlPlaneError("no control plane: run `make control-plane`")
        policy, log = directory / "audit-policy.yaml", directory / "audit.log"
        policy.write_text(POLICY)
        flags = (f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-maxsize=100000")
        self.control = server.start(assets, durable=True, apiserver_flags=flags, etcd_flags=ETCD_FLAGS)
        self.audit = AuditLog(log)
        self._setups = 0

    def next_setup(self) -> int:
        """A number for what is set up on it next: it makes names that nobody else has."""
        self._setups += 1
        return self._setups

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.close()

"""What a kubeconfig may not do by itself.

A kubeconfig often comes from whoever owns the cluster. It can start programs in the daemon's name, send any file of the
daemon's to a server of its choice, or speak to a server that nobody verifies. So each of that is refused where it
stands, until the settings say that kubeconfigs may. Nothing allows one that impersonates: whom writes are made as is
the settings' to say, and the official client would ignore it and use the real user's rights.

    KubeconfigRefusedError: eu.kubeconfig: users['admin'].user.exec runs a program: give a token, or set
    allow.kubeconfigExec: true
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

EXECS, FILES, INSECURE = "allow.kubeconfigExec", "allow.kubeconfigFiles", "allow.kubeconfigInsecure"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class KubeconfigError(Exception):
    """The kubeconfig cannot be used; one line that says what and what to change. Never quotes a credential. `code` is
    its reason code."""

    code = "KubeconfigInvalid"


class KubeconfigRefusedError(KubeconfigError):
    """It asks for something that the settings do not allow. `place` is where in the file it does, `setting` the one
    that would allow it, "" if none does."""

    code = "KubeconfigRefused"

    def __init__(self, path: Path, place: str, what: str, instead: str, setting: str = "") -> None:
        allow = f", or set {setting}: true" if setting else ""
        super().__init__(f"{path}: {place} {what}: {instead}{allow}")
        self.place = place
        self.setting = setting


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field that is refused where it has a value, unless `setting` allows it ("": nothing does). `data` is the field
    that counts in its stead where both are given."""

    kind: str
    field: str
    what: str
    instead: str
    setting: str = ""
    data: str = ""


def _file(kind: str, field: str) -> Refusal:
    return Refusal(kind, field, "names a file", f"give `{field}-data`", FILES, f"{field}-data")


_IMPERSONATES = ("impersonates", "leave it out, and name whom writes are made as in repositories[].impersonate")
REFUSALS = (
    Refusal("user", "exec", "runs a program", "give a token", EXECS),
    Refusal("user", "auth-provider", "asks a plugin for credentials", "give a token", EXECS),
    Refusal("user", "tokenFile", "names a file", "give its content as `token`", FILES),
    _file("user", "client-certificate"),
    _file("user", "client-key"),
    _file("cluster", "certificate-authority"),
    Refusal("cluster", "insecure-skip-tls-verify", "leaves the server unverified", "give its authority", INSECURE),
    *(Refusal("user", field, *_IMPERSONATES) for field in ("as", "as-uid", "as-groups", "as-user-extra")),
)


def refuse(
    context: Mapping[str, Any],
    cluster: Mapping[str, Any],
    user: Mapping[str, Any],
    path: Path,
    allowed: Collection[str],
) -> None:
    """Raise KubeconfigRefusedError for what needs a setting that is not in `allowed`, and KubeconfigError for what is
    no address. `context` names the cluster and the user."""
    for row in REFUSALS:
        entry = cluster if row.kind == "cluster" else user
        if entry.get(row.field) and not entry.get(row.data) and row.setting not in allowed:
            raise KubeconfigRefusedError(path, _place(context, row.kind, row.field), row.what, row.instead, row.setting)
    server = _address(context, cluster, "server", path)
    if server.username or server.query:
        raise KubeconfigError(f"{path}: {_place(context, 'cluster', 'server')} has a user or a query: leave them out")
    if cluster.get("proxy-url"):
        _address(context, cluster, "proxy-url", path)
    if not isinstance(cluster.get("tls-server-name", ""), str):
        raise KubeconfigError(f"{path}: {_place(context, 'cluster', 'tls-server-name')} is not a text")
    # Through a proxy even this machine's own address is spoken to elsewhere.
    beyond = server.hostname not in LOOPBACK or cluster.get("proxy-url")
    if server.scheme == "http" and beyond and INSECURE not in allowed:
        place = _place(context, "cluster", "server")
        raise KubeconfigRefusedError(path, place, "uses plain http beyond this machine", "use https", INSECURE)


def _address(context: Mapping[str, Any], cluster: Mapping[str, Any], field: str, path: Path) -> SplitResult:
    """The address in `field`. It is not quoted: it may hold a password."""
    try:
        found = urlsplit(str(cluster.get(field, "")))
    except ValueError:
        found = SplitResult("", "", "", "", "")
    if found.scheme not in ("http", "https") or not found.hostname:
        raise KubeconfigError(f"{path}: {_place(context, 'cluster', field)} is not an http or https address")
    return found


def _place(context: Mapping[str, Any], kind: str, field: str) -> str:
    """Where in the file."""
    return f"{kind}s[{context.get(kind)!r}].{kind}.{field}"

"""Every setting of the daemon as a row: where it stands, its kind, its default, what it is for.

The rows are the whole truth: `settings.py` reads files and environment by them, and `docs/guides/settings.md` is tested
against them. `[]` stands for each item of a list, `<name>` for each key of a map.

    Setting("checkInterval", "duration", "10s", "how often a target has to be observed")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final


class _Required:
    """The default of a setting that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `kind` names a reader of `settings_values.KINDS`; `default` is as it would be written in the file."""

    path: str
    kind: str
    default: Any
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that overrides it, "" for lists and what stands inside lists and maps."""
        if self.kind in ("protocols", "kinds", "groups") or "[]" in self.path or "<" in self.path:
            return ""
        words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", self.path.replace(".", "_"))
        return f"RECONCILER_{words.upper()}"


SETTINGS: tuple[Setting, ...] = (
    Setting("stateDir", "path", "/var/lib/reconciler", "directory of the store, the Git mirrors and the socket"),
    Setting("listen", "listen", "127.0.0.1:8080", "address of API and metrics; `none`: only the socket in `stateDir`"),
    Setting("tokenFile", "path", "", "file with the token that API calls need; required when `listen` is not loopback"),
    Setting("checkInterval", "duration", "10s", "a target counts as observed if it was heard of within this time"),
    Setting("resyncInterval", "duration", "5m", "how often everything is compared anew, for wake-ups may be lost"),
    Setting("shutdownTimeout", "duration", "4s", "how long a stop may take before it is forced"),
    Setting("logFormat", "log-format", "text", "`text` or `json`"),
    Setting("logLevel", "log-level", "info", "`debug`, `info`, `warning` or `error`"),
    Setting("repositories[].name", "label", REQUIRED, "key of the repository in this daemon; never change it"),
    Setting("repositories[].url", "text", REQUIRED, "URL without credentials, of a protocol in `allow.protocols`"),
    Setting("repositories[].ref", "ref", "main", "branch or tag; a full name (refs/heads/main) if both exist"),
    Setting("repositories[].poll", "duration", "30s", "how often the remote is asked for the ref"),
    Setting("repositories[].clusterScoped", "kinds", (), "cluster-scoped kinds its applications may have"),
    Setting("repositories[].credentials.tokenFile", "path", "", "file with the token for https; read for every call"),
    Setting("repositories[].credentials.username", "user", "x-access-token", "user that goes with the token"),
    Setting("repositories[].credentials.sshKeyFile", "path", "", "private key for ssh"),
    Setting("repositories[].credentials.knownHostsFile", "path", "", "host keys, besides /etc/ssh/ssh_known_hosts"),
    Setting("repositories[].impersonate.user", "tenant", "", "who writes; by default `reconciler:tenant:<its name>`"),
    Setting("repositories[].impersonate.groups", "groups", (), "groups of that user"),
    Setting("clusters.<name>.kubeconfig", "path", REQUIRED, "kubeconfig; <name> is a Cluster's `spec.credentials`"),
    Setting("clusters.<name>.context", "text", "", "context in it; by default its current one"),
    Setting("allow.protocols", "protocols", ("https", "ssh"), "of `https`, `ssh`, `http`, `file`: what Git may use"),
    Setting("allow.kubeconfigExec", "boolean", False, "let a kubeconfig start a program (exec, auth-provider)"),
    Setting("allow.kubeconfigFiles", "boolean", False, "let a kubeconfig name files (tokens, certificates, keys)"),
    Setting("allow.kubeconfigInsecure", "boolean", False, "let a kubeconfig leave the server unverified (TLS off)"),
    Setting("limits.writesPerSecond", "rate", 50, "writes per second to all clusters together"),
    Setting("limits.perCluster", "rate", 10, "writes per second to one cluster"),
)

#: Variables with a meaning of their own: they say where the daemon is found, not what it does.
RESERVED_VARIABLES: tuple[str, ...] = (
    "RECONCILER_SERVER",
    "RECONCILER_TOKEN",
    "RECONCILER_CONFIG",
    "RECONCILER_STATE_DIR",
)


def rows_below(prefix: str) -> dict[str, Setting]:
    """The rows whose path starts with `prefix`, by what remains of the path."""
    return {row.path.removeprefix(prefix): row for row in SETTINGS if row.path.startswith(prefix)}

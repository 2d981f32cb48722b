"""Settings of the daemon: one YAML file, environment variables over it, defaults below.

All problems are found in one go, each with its place; unknown keys are errors, for a misspelt limit would be no limit.
Relative paths start at the settings file's directory, those in variables at the current one.

    settings, problems = load_settings(Path("reconciler.yaml"), os.environ)
    settings.limits.writes_per_second
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.core.formats import is_dns_subdomain
from reconciler.core.problems import Problem, Severity, has_errors
from reconciler.core.schema import suggest
from reconciler.core.yaml_kube import Document, load
from reconciler.core.yaml_kube import Path as DocumentPath
from reconciler.settings_table import REQUIRED, RESERVED_VARIABLES, SETTINGS, Setting, rows_below
from reconciler.settings_values import KINDS, OWN_IDENTITY, BadValueError, Listen, from_text
from reconciler.shell.git_urls import KNOWN_PROTOCOLS, parse_url
from reconciler.shell.identity import Identity, default_identity
from reconciler.shell.ports import SourceError

DEFAULT_STATE_DIR = Path("/var/lib/reconciler")
#: Kubernetes gives these to every pod beside a Service named "reconciler".
_SERVICE_VARIABLE = re.compile(r"RECONCILER_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


@dataclass(frozen=True, slots=True)
class RepositoryCredentials:
    """Files are None where none is named."""

    token_file: Path | None
    username: str
    ssh_key_file: Path | None
    known_hosts_file: Path | None


@dataclass(frozen=True, slots=True)
class Repository:
    """One row of `repositories`. `tenant` is whom its writes are made as; None: as the kubeconfig's own user."""

    name: str
    url: str
    ref: str
    poll_s: float
    cluster_scoped: tuple[str, ...]
    credentials: RepositoryCredentials
    tenant: Identity | None = None


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How to reach a cluster. `context` is "" for the kubeconfig's current one."""

    name: str
    kubeconfig: Path
    context: str


@dataclass(frozen=True, slots=True)
class Allow:
    """What is off unless a setting says otherwise."""

    protocols: tuple[str, ...]
    kubeconfig_exec: bool
    kubeconfig_files: bool = False
    kubeconfig_insecure: bool = False


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Writes per second, to all clusters together and to one."""

    writes_per_second: float
    per_cluster: float


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them. `listen` is None when only the socket is served; `clusters` by the name that a Cluster's
    `spec.credentials` uses, in name order."""

    state_dir: Path
    listen: Listen | None
    token_file: Path | None
    check_interval_s: float
    resync_interval_s: float
    shutdown_timeout_s: float
    log_format: str
    log_level: str
    repositories: tuple[Repository, ...]
    clusters: Mapping[str, ClusterAccess]
    allow: Allow
    limits: WriteLimits


def load_settings(path: Path, environ: Mapping[str, str]) -> tuple[Settings | None, tuple[Problem, ...]]:
    """The settings in `path` under the variables in `environ`. None if any problem is an error."""
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = Problem(str(path), 0, 0, Severity.ERROR, "unreadable", f"cannot be read: {error.strerror}")
        return None, (problem,)
    return parse_settings(str(path), content, environ, base=path.absolute().parent)


def parse_settings(
    file: str, content: bytes, environ: Mapping[str, str], *, base: Path
) -> tuple[Settings | None, tuple[Problem, ...]]:
    """As load_settings, of a file's content. Relative paths in it start at `base`."""
    loaded = load(file, content)
    if loaded.problems:
        return None, loaded.problems
    if len(loaded.documents) > 1:
        second = loaded.documents[1]
        return None, (second.problem((), "several-documents", "settings are one document, not several"),)
    reader = _Reader(file, loaded.documents[0] if loaded.documents else None, environ, base)
    settings = reader.settings()
    problems = tuple(sorted(reader.problems))
    return (None if has_errors(problems) else settings), problems


class _Reader:
    """Reads one document by the table and gathers problems. A value that cannot be read becomes None meanwhile: what
    is built from it is thrown away, for there is an error."""

    def __init__(self, file: str, document: Document | None, environ: Mapping[str, str], base: Path) -> None:
        self.problems: list[Problem] = []
        self._file, self._document, self._environ, self._base = file, document, environ, base
        self._root = document.value if document else {}

    def settings(self) -> Settings:
        """Read everything."""
        if not isinstance(self._root, dict):
            self._error((), "invalid-type", "settings must be a map")
            self._root = {}
        self._check_keys((), self._root, {re.split(r"[.\[]", row.path)[0] for row in SETTINGS})
        self._check_variables()
        scalar = self._scalars("", ())
        allow, limits = self._group("allow"), self._group("limits")
        settings = Settings(
            state_dir=scalar["stateDir"],
            listen=scalar["listen"],
            token_file=scalar["tokenFile"],
            check_interval_s=scalar["checkInterval"],
            resync_interval_s=scalar["resyncInterval"],
            shutdown_timeout_s=scalar["shutdownTimeout"],
            log_format=scalar["logFormat"],
            log_level=scalar["logLevel"],
            repositories=tuple(self._repositories(allow["protocols"])),
            clusters={access.name: access for access in self._clusters()},
            allow=Allow(
                allow["protocols"], allow["kubeconfigExec"], allow["kubeconfigFiles"], allow["kubeconfigInsecure"]
            ),
            limits=WriteLimits(limits["writesPerSecond"], limits["perCluster"]),
        )
        if settings.listen and not settings.listen.loopback and settings.token_file is None:
            self._error(
                ("listen",), "token-needed", f"{settings.listen.host} is not loopback: a token is needed",
                "set tokenFile, or listen on 127.0.0.1",
            )  # fmt: skip
        return settings

    def _group(self, name: str) -> dict[str, Any]:
        rows = rows_below(f"{name}.")
        self._check_keys((name,), self._map((name,)), set(rows))
        return self._scalars(f"{name}.", (name,))

    def _scalars(self, prefix: str, path: DocumentPath) -> dict[str, Any]:
        """Values of the rows directly below `prefix`, read at `path`."""
        return {
            name: self._value(row, (*path, name))
            for name, row in rows_below(prefix).items()
            if not re.search(r"[.\[<]", name)
        }

    def _value(self, row: Setting, path: DocumentPath) -> Any:
        """The value of `row`: its variable, else what stands at `path`, else its default."""
        if row.variable and row.variable in self._environ:
            written = from_text(row.kind, self._environ[row.variable])
            return self._read(row, written, path, Path.cwd(), row.variable)
        written = self._at(path)
        if written is None and row.default is REQUIRED:
            self._error(path, "missing-field", f"{path[-1]} is missing")
            return None
        return self._read(row, row.default if written is None else written, path, self._base, "")

    def _read(self, row: Setting, written: Any, path: DocumentPath, base: Path, variable: str) -> Any:
        try:
            value = KINDS[row.kind](written, base)
            empty = value is None or value == ""
            if empty and written == "" and (row.default is REQUIRED or row.path == "stateDir"):
                raise BadValueError("must not be empty")
        except BadValueError as error:
            if variable:
                self._add(Problem(variable, 0, 0, Severity.ERROR, "invalid-value", str(error), error.hint))
            else:
                self._error(path, "invalid-value", f"{path[-1]}: {error}", error.hint)
            return None
        return value

    def _repositories(self, protocols: tuple[str, ...] | None) -> Iterator[Repository]:
        written = self._at(("repositories",)) or []
        if not isinstance(written, list):
            self._error(("repositories",), "invalid-type", "repositories must be a list")
            return
        names: set[str] = set()
        for index in range(len(written)):
            path: DocumentPath = ("repositories", index)
            value = self._map(path)
            if written[index] is not None and not isinstance(written[index], dict):
                continue
            known = {name.partition(".")[0] for name in rows_below("repositories[].")}
            self._check_keys(path, value, known)
            repository = self._scalars("repositories[].", path)
            secret, tenant = (self._within("repositories[].", path, name) for name in ("credentials", "impersonate"))
            if repository["name"] is not None and repository["name"] in names:
                self._error((*path, "name"), "duplicate-name", f"two repositories are named {repository['name']!r}")
            names.add(repository["name"])
            self._check_url(repository["url"], protocols, (*path, "url"))
            yield Repository(
                name=repository["name"],
                url=repository["url"],
                ref=repository["ref"],
                poll_s=repository["poll"],
                cluster_scoped=repository["clusterScoped"],
                credentials=RepositoryCredentials(
                    secret["tokenFile"], secret["username"], secret["sshKeyFile"], secret["knownHostsFile"]
                ),
                tenant=self._tenant(repository["name"], tenant["user"], tenant["groups"], path),
            )

    def _within(self, prefix: str, path: DocumentPath, name: str) -> dict[str, Any]:
        """The values of the map `name` below `path`."""
        self._check_keys((*path, name), self._map((*path, name)), set(rows_below(f"{prefix}{name}.")))
        return self._scalars(f"{prefix}{name}.", (*path, name))

    def _tenant(
        self, name: str | None, user: str | None, groups: tuple[str, ...] | None, path: DocumentPath
    ) -> Identity | None:
        if name is None or user is None or groups is None:
            return None  # that is an error already
        if user == OWN_IDENTITY:
            if groups:
                says = f"groups without a user: `user: {OWN_IDENTITY}` writes with the kubeconfig's own"
                self._error((*path, "impersonate", "groups"), "invalid-value", says, "leave the groups out")
            return None
        return Identity(user or default_identity(name).user, groups)

    def _check_url(self, url: str | None, protocols: tuple[str, ...] | None, path: DocumentPath) -> None:
        if url is None:
            return
        try:
            # Protocols that could not be read are a problem already; the rest of the URL is looked at all the same.
            parse_url(url, KNOWN_PROTOCOLS if protocols is None else protocols)
        except SourceError as error:
            self._error(path, "refused-url", f"url: {error.reason.message}")

    def _clusters(self) -> Iterator[ClusterAccess]:
        for name in sorted(self._map(("clusters",))):
            path = ("clusters", name)
            if wrong := is_dns_subdomain(name):
                self._error(path, "invalid-name", f"{name!r}: {wrong}")
            self._check_keys(path, self._map(path), set(rows_below("clusters.<name>.")))
            value = self._scalars("clusters.<name>.", path)
            yield ClusterAccess(name, value["kubeconfig"], value["context"])

    def _check_keys(self, path: DocumentPath, value: Mapping[str, Any], known: set[str]) -> None:
        for key in value:
            if key not in known:
                self._error((*path, key), "unknown-key", f"there is no setting {key!r} here", suggest(key, known))

    def _check_variables(self) -> None:
        known = {row.variable for row in SETTINGS if row.variable} | set(RESERVED_VARIABLES)
        for name in sorted(self._environ):
            if name.startswith("RECONCILER_") and name not in known and not _SERVICE_VARIABLE.fullmatch(name):
                # A warning only: variables may come from other software with that prefix.
                hint = suggest(name, known)
                message = "no setting has this variable; lists and what stands inside them are set in the file only"
                self._add(Problem(name, 0, 0, Severity.WARNING, "unknown-variable", message, hint))

    def _map(self, path: DocumentPath) -> dict[str, Any]:
        value = self._at(path)
        if value is None:
            return {}
        if not isinstance(value, dict):
            what = "each item of the list" if isinstance(path[-1], int) else path[-1]
            self._error(path, "invalid-type", f"{what} must be a map")
            return {}
        return value

    def _at(self, path: DocumentPath) -> Any:
        value: Any = self._root
        for step in path:
            if isinstance(value, dict):
                value = value.get(str(step))
            elif isinstance(value, list) and isinstance(step, int):
                value = value[step]
            else:
                return None
        return value

    def _error(self, path: DocumentPath, code: str, message: str, hint: str = "") -> None:
        if self._document is None:
            self._add(Problem(self._file, 0, 0, Severity.ERROR, code, message, hint))
        else:
            self._add(self._document.problem(path, code, message, hint))

    def _add(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

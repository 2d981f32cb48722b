"""Credentials and TLS of one cluster, out of a kubeconfig, with what a stranger's kubeconfig could do to us refused.

The official client reads the file: contexts, tokens, exec plugins, auth providers, proxy. A kubeconfig is
configuration that can run programs (`exec`, `auth-provider`), read any file of ours and send it away as a token
(`tokenFile`, paths of certificates), and switch the verification of the server off; each of these needs a setting
that allows it (`kubeconfig_refusals.py`).

Certificates and keys given as data never stay on disk: the certificate authority goes to the SSL library as text, a
client certificate through a private file that is removed at once. Contexts with equal certificates share one SSL
context. Tokens are read anew every minute and after a 401, wherever they come from, since they are short-lived:
whoever renews them in the kubeconfig, beside it or through a plugin has nothing to restart. A client certificate is
read once: who sees it expire makes a new transport.

Many clusters are often many contexts of one file: it is parsed once and again when it changes, and the official client
is given a copy of the one context. What that client fails with, whatever it is, is one KubeconfigError: a broken
plugin or an identity provider that is down makes one cluster unreachable and nothing else. A plugin that hangs is
killed after PLUGIN_TIMEOUT_S.

Example: `connection, credentials = await load_connection(path, None, ssl_contexts=SslContexts())`; then
`await credentials.authorization()` is `"Bearer ..."`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import hashlib
import os
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from reconciler.shell.kubeconfig_refusals import EXECS, FILES, INSECURE, KubeconfigError, refuse

TOKEN_MAX_AGE_S = 60.0
MAX_KUBECONFIG_BYTES = 4 * 1024 * 1024
#: Shorter than any request waits, so that a plugin that hangs is gone before it is started again.
PLUGIN_TIMEOUT_S = 15.0
#: A plugin is run under this, for the official client would wait for it for ever and leave it behind when cancelled.
#: What it started itself is killed with it, and its arguments are never printed: they may be credentials.
PLUGIN_RUNNER = """
import os, signal, subprocess, sys
try:
    process = subprocess.Popen(sys.argv[2:], start_new_session=True)
except OSError as error:
    sys.exit(f"it cannot be started: {error.strerror}")
try:
    sys.exit(process.wait(float(sys.argv[1])))
except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    sys.exit(f"it did not answer within {sys.argv[1]} s")
"""
#: libyaml where it is there: a file that takes it 50 ms holds up the event loop for seconds in pure Python.
YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is and how it is trusted. `ssl_context` is None for plain HTTP."""

    server: str
    ssl_context: ssl.SSLContext | None = None
    tls_server_name: str | None = None
    proxy: str | None = None


@dataclass(slots=True)
class SslContexts:
    """One SSL context per distinct set of certificates: a context costs a megabyte and milliseconds."""

    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def context(
        self, authority: str | None, certificate: bytes | None, key: bytes | None, *, verify: bool
    ) -> ssl.SSLContext:
        """The context for these PEM texts, made at the first request for it."""
        parts = [authority or "", (certificate or b"").decode("latin-1"), (key or b"").decode("latin-1"), str(verify)]
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        if name not in self._contexts:
            self._contexts[name] = make_context(authority, certificate, key, verify=verify)
        return self._contexts[name]


def make_context(
    authority: str | None, certificate: bytes | None, key: bytes | None, *, verify: bool
) -> ssl.SSLContext:
    """A client context that trusts the authority given, or the system's where none is."""
    context = ssl.create_default_context(cadata=authority)
    # Newer Pythons also ask for key identifiers that many cluster-made certificate authorities do not write.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None and key is not None:
        with tempfile.TemporaryDirectory(prefix="reconciler-") as directory:
            certificate_file, key_file = Path(directory) / "certificate", Path(directory) / "key"
            for target, content in ((certificate_file, certificate), (key_file, key)):
                target.touch(mode=0o600)
                target.write_bytes(content)
            context.load_cert_chain(certificate_file, key_file)
    return context


@dataclass(slots=True)
class FixedCredentials:
    """A header value that does not change; None where a client certificate says who we are."""

    value: str | None

    async def authorization(self) -> str | None:
        """The value."""
        return self.value

    def rejected(self) -> None:
        """A fixed value stays what it is; the 401 goes to the caller."""


@dataclass(slots=True)
class RenewedCredentials:
    """A token that somebody else renews where `read` finds it: in the kubeconfig, or in a file of its own."""

    read: Callable[[], str]
    _value: str | None = field(default=None, init=False)
    _read_at: float = field(default=0.0, init=False)

    async def authorization(self) -> str | None:
        """The token, read anew when it is a minute old. What `read` fails with is raised before anything is sent."""
        now = asyncio.get_running_loop().time()
        if self._value is None or now - self._read_at >= TOKEN_MAX_AGE_S:
            self._value = "Bearer " + self.read().strip()
            self._read_at = now
        return self._value

    def rejected(self) -> None:
        """Read it again before the next request."""
        self._value = None


@dataclass(slots=True)
class PluginCredentials:
    """A token from an exec plugin or auth provider, through the official loader, which knows when it expires."""

    loader: Any
    configuration: Any
    _asked_at: float = field(default=0.0, init=False)
    _value: str | None = field(default=None, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def authorization(self) -> str | None:
        """The token; the plugin is asked at most once a minute, one caller at a time."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._value is None or now - self._asked_at >= TOKEN_MAX_AGE_S:
                await run_loader(self.loader, self.configuration, "the kubeconfig's credential plugin")
                self._value = self.configuration.api_key.get("BearerToken")
                self._asked_at = now
                if self._value is None:
                    raise KubeconfigError("the kubeconfig's credential plugin returned no token")
            return self._value

    def rejected(self) -> None:
        """Ask the plugin before the next request, its own idea of the expiry notwithstanding."""
        self._value = None
        # The loader logs a plugin that fails and keeps what it had; after a rejection only a new token counts.
        self.configuration.api_key.pop("BearerToken", None)
        for name in ("token", "exec_plugin_expiry"):
            self.loader.__dict__.pop(name, None)


Credentials = FixedCredentials | RenewedCredentials | PluginCredentials


@dataclass(slots=True)
class KubeconfigFiles:
    """Kubeconfigs as parsed, one version of each: read again when the file's identity, size or time changed."""

    _parsed: dict[Path, tuple[tuple[int, ...], dict[str, Any] | KubeconfigError]] = field(default_factory=dict)

    def document(self, path: Path) -> dict[str, Any]:
        """The kubeconfig as a mapping, shared: not to be changed. A file that is wrong is not parsed again either."""
        try:
            # Opened first: what is read is what was looked at, even if another file takes the name meanwhile.
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
                known = self._parsed.get(path)
                if known is None or known[0] != version:
                    known = version, parsed_document(file.read(MAX_KUBECONFIG_BYTES + 1), path)
                    self._parsed[path] = known
        except OSError as error:
            raise KubeconfigError(f"{path}: {error.strerror}") from error
        if isinstance(known[1], KubeconfigError):
            raise KubeconfigError(str(known[1])) from known[1]
        return known[1]


def parsed_document(content: bytes, path: Path) -> dict[str, Any] | KubeconfigError:
    """A kubeconfig's content as a mapping, or why it is none."""
    if len(content) > MAX_KUBECONFIG_BYTES:
        return KubeconfigError(f"{path}: larger than {MAX_KUBECONFIG_BYTES} bytes")
    try:
        document = yaml.load(content.decode(), YAML_LOADER)  # noqa: S506 - a safe loader, see YAML_LOADER
    except (yaml.YAMLError, ValueError, RecursionError):
        # The parser's own text quotes the line, which may hold a token.
        return KubeconfigError(f"{path}: not valid YAML")
    if not isinstance(document, dict):
        return KubeconfigError(f"{path}: not a kubeconfig: a mapping is expected")
    return document


def named(document: dict[str, Any], section: str, key: str, name: object, path: Path) -> dict[str, Any]:
    """The entry of that name in one of the kubeconfig's lists."""
    entries = document.get(section)
    found = (
        [entry.get(key) for entry in entries or () if isinstance(entry, dict) and entry.get("name") == name]
        if isinstance(entries, list)
        else []
    )
    if len(found) != 1 or not isinstance(found[0], dict):
        raise KubeconfigError(f"{path}: no single entry named {name!r} in {section}")
    return found[0]


def pem(entry: dict[str, Any], name: str, path: Path) -> bytes | None:
    """A certificate or key, given as data or as a file (relative to the kubeconfig)."""
    if entry.get(f"{name}-data"):
        try:
            return base64.b64decode(str(entry[f"{name}-data"]), validate=True)
        except (binascii.Error, ValueError) as error:
            raise KubeconfigError(f"{path}: `{name}-data` is not base64") from error
    if entry.get(name):
        try:
            return (path.parent / str(entry[name])).read_bytes()
        except OSError as error:
            raise KubeconfigError(f"{path}: `{name}`: {error.strerror}") from error
    return None


def for_official_client(
    name: str, chosen: dict[str, Any], cluster: dict[str, Any], user: dict[str, Any]
) -> dict[str, Any]:
    """A kubeconfig of one context, copied (the client writes into it), without what we read ourselves: certificates,
    keys and token files. Its plugin is run under PLUGIN_RUNNER."""
    ours = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    left_out = {*ours, *(f"{one}-data" for one in ours)}
    cluster, user = (
        copy.deepcopy({key: value for key, value in entry.items() if key not in left_out}) for entry in (cluster, user)
    )
    plugin = user.get("exec")
    if isinstance(plugin, dict) and "command" in plugin:
        runner = ["-I", "-S", "-c", PLUGIN_RUNNER, str(PLUGIN_TIMEOUT_S)]
        plugin["args"] = [*runner, plugin["command"], *(plugin.get("args") or ())]
        plugin["command"] = sys.executable
    return {
        "contexts": [{"name": name, "context": dict(chosen)}],
        "clusters": [{"name": chosen["cluster"], "cluster": cluster}],
        "users": [{"name": chosen["user"], "user": user}] if chosen.get("user") else [],
    }


async def run_loader(loader: Any, configuration: Any, what: str) -> None:
    """Let the official client read or renew credentials; whatever it fails with becomes one error that quotes nothing.
    It waits as long as it likes: the caller's timeout ends it."""
    try:
        await loader.load_and_set(configuration)
    except Exception as error:
        raise KubeconfigError(f"{what} cannot be loaded ({type(error).__name__})") from error


async def official_loader(document: dict[str, Any], context: str, path: Path) -> tuple[Any, Any]:
    """The official client's reading of users and clusters, from a document of this one context that it may change.

    Imported here: the library costs a third of a second, and commands that speak to no cluster must not pay it."""
    from kubernetes.aio.client import Configuration  # noqa: PLC0415 - see above
    from kubernetes.aio.config.kube_config import KubeConfigLoader  # noqa: PLC0415 - see above

    make_loader: Any = KubeConfigLoader
    configuration = Configuration()
    try:
        loader = make_loader(document, active_context=context, config_base_path=str(path.parent))
    except Exception as error:
        raise KubeconfigError(f"{path}: context {context!r} cannot be loaded ({type(error).__name__})") from error
    await run_loader(loader, configuration, f"{path}: context {context!r}")
    return loader, configuration


def tls_of(
    cluster: dict[str, Any], user: dict[str, Any], configuration: Any, path: Path, ssl_contexts: SslContexts
) -> ssl.SSLContext:
    """The SSL context of one context: authority, client certificate, verification."""
    authority = pem(cluster, "certificate-authority", path)
    certificate, key = pem(user, "client-certificate", path), pem(user, "client-key", path)
    if configuration.cert_file and configuration.key_file:
        # An exec plugin answered with a client certificate instead of a token.
        certificate, key = Path(configuration.cert_file).read_bytes(), Path(configuration.key_file).read_bytes()
    if (certificate is None) != (key is None):
        raise KubeconfigError(f"{path}: a client certificate and its key must be given together")
    verify = not cluster.get("insecure-skip-tls-verify")
    try:
        text = authority.decode("ascii") if authority is not None else None
        return ssl_contexts.context(text, certificate, key, verify=verify)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"{path}: the certificates cannot be read") from error


def token_of(files: KubeconfigFiles, path: Path, context: str) -> str:
    """The token that the kubeconfig has for `context` now. Raises KubeconfigError."""
    document = files.document(path)
    chosen = named(document, "contexts", "context", context, path)
    token = named(document, "users", "user", chosen.get("user"), path).get("token")
    if not isinstance(token, str) or not token:
        raise KubeconfigError(f"{path}: users[{chosen.get('user')!r}].user.token is gone: put it back")
    return token


async def load_connection(
    path: Path,
    context: str | None,
    *,
    allow_exec: bool = False,
    allow_files: bool = False,
    allow_insecure: bool = False,
    ssl_contexts: SslContexts,
    files: KubeconfigFiles | None = None,
) -> tuple[Connection, Credentials]:
    """Read one context of a kubeconfig. Raises KubeconfigError, or OSError for a file that it names. `files` is shared
    by all who read the same kubeconfig. May wait for a plugin or an identity provider: the timeout is the caller's."""
    files = files or KubeconfigFiles()
    document = files.document(path)
    name = context or document.get("current-context")
    if not isinstance(name, str) or not name:
        raise KubeconfigError(f"{path}: no current-context; name one in the settings")
    chosen = named(document, "contexts", "context", name, path)
    cluster = named(document, "clusters", "cluster", chosen.get("cluster"), path)
    user = named(document, "users", "user", chosen["user"], path) if chosen.get("user") else {}
    settings = ((EXECS, allow_exec), (FILES, allow_files), (INSECURE, allow_insecure))
    refuse(chosen, cluster, user, path, {setting for setting, allowed in settings if allowed})
    loader, configuration = await official_loader(for_official_client(name, chosen, cluster, user), name, path)

    server = str(cluster["server"]).rstrip("/")
    ssl_context = tls_of(cluster, user, configuration, path, ssl_contexts) if server.startswith("https") else None
    connection = Connection(server, ssl_context, cluster.get("tls-server-name"), cluster.get("proxy-url"))

    token = configuration.api_key.get("BearerToken")
    if user.get("exec") or user.get("auth-provider"):
        if token is None and not configuration.cert_file:
            raise KubeconfigError(f"{path}: the credential plugin of context {name!r} gave no credentials")
        return connection, PluginCredentials(loader, configuration) if token else FixedCredentials(None)
    if user.get("tokenFile"):
        # Where both are given the file counts, as for kubectl: it is the one that is renewed.
        return connection, RenewedCredentials((path.parent / str(user["tokenFile"])).read_text)
    if user.get("token"):
        return connection, RenewedCredentials(partial(token_of, files, path, name))
    return connection, FixedCredentials(token)

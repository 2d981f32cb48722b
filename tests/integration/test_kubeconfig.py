"""Kubeconfigs: what is read, what is refused, and that no error quotes a credential."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.shell import kubeconfig
from reconciler.shell.kubeconfig import Connection, Credentials, KubeconfigFiles, SslContexts, load_connection
from reconciler.shell.kubeconfig_refusals import REFUSALS, KubeconfigError, KubeconfigRefusedError
from tests.control_plane.server import ControlPlane

SECRET = "hunter2-the-token"  # noqa: S105 - a word to look for in error texts


def written(directory: Path, cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> Path:
    """A kubeconfig with one context."""
    path = directory / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
        **more,
    }
    path.write_text(json.dumps(config))
    return path


def loaded(path: Path, context: str | None = None, **allowed: Any) -> tuple[Connection, Credentials]:
    """The connection and credentials of one context."""
    return asyncio.run(load_connection(path, context, ssl_contexts=SslContexts(), **allowed))


def authorization(credentials: Credentials) -> str | None:
    """The header now."""
    return asyncio.run(credentials.authorization())


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": SECRET}, f"Bearer {SECRET}"),
        ({"username": "a", "password": "b"}, "Basic " + base64.b64encode(b"a:b").decode()),
        ({}, None),
    ],
    ids=["token", "password", "nobody"],
)
def test_who_we_are(tmp_path: Path, user: dict[str, Any], header: str | None) -> None:
    connection, credentials = loaded(written(tmp_path, {"server": "https://c.test:6443/"}, user))
    assert connection.server == "https://c.test:6443"
    assert connection.ssl_context is not None
    assert connection.ssl_context.check_hostname
    assert authorization(credentials) == header


def test_proxy_and_server_name(tmp_path: Path) -> None:
    cluster = {"server": "https://c.test", "proxy-url": "http://p.test:3128", "tls-server-name": "other.test"}
    connection, _ = loaded(written(tmp_path, cluster, {}))
    assert (connection.proxy, connection.tls_server_name) == ("http://p.test:3128", "other.test")


def test_a_context_by_name(tmp_path: Path) -> None:
    contexts = [{"name": name, "context": {"cluster": name, "user": "u"}} for name in ("x", "y")]
    clusters = [{"name": name, "cluster": {"server": f"https://{name}.test"}} for name in ("x", "y")]
    path = written(tmp_path, {}, {"token": SECRET}, contexts=contexts, clusters=clusters)
    assert loaded(path)[0].server == "https://x.test"
    assert loaded(path, "y")[0].server == "https://y.test"
    with pytest.raises(KubeconfigError, match="no single entry named 'z' in contexts"):
        loaded(path, "z")


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"server": "file:///etc/passwd"}, {}, "not an http or https address"),
        ({"server": "https://["}, {}, "not an http or https address"),
        ({"server": None}, {}, "not an http or https address"),
        ({"server": f"https://user:{SECRET}@c.test"}, {}, "has a user or a query"),
        ({"server": f"https://c.test?token={SECRET}"}, {}, "has a user or a query"),
        ({"proxy-url": f"socks5://u:{SECRET}@p.test"}, {}, "clusters['c'].cluster.proxy-url"),
        ({"proxy-url": "http://["}, {}, "clusters['c'].cluster.proxy-url"),
        ({"tls-server-name": 7}, {}, "clusters['c'].cluster.tls-server-name"),
        ({"certificate-authority-data": "%%%"}, {}, "not base64"),
        ({"certificate-authority-data": base64.b64encode(SECRET.encode()).decode()}, {}, "cannot be read"),
        ({}, {"client-certificate-data": "eA=="}, "must be given together"),
        ({}, {"client-certificate-data": "eA==", "client-key-data": "eA=="}, "cannot be read"),
    ],
)
def test_what_cannot_be_used_names_the_reason_and_no_secret(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, {"server": "https://c.test", **cluster}, {**user, "password": SECRET})
    with pytest.raises(KubeconfigError) as caught:
        loaded(path)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    assert str(path) in str(caught.value)


EXECS, FILES, INSECURE = "kubeconfigExec", "kubeconfigFiles", "kubeconfigInsecure"
#: A kubeconfig's cluster and user; the field that is refused, and the setting below `allow` that would allow it.
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {"exec": {"command": "/bin/true"}}, "users['u'].user.exec", EXECS),
    ({}, {"exec": {"command": "/bin/true"}, "exec-data": "x"}, "users['u'].user.exec", EXECS),
    ({}, {"auth-provider": {"name": "gcp"}}, "users['u'].user.auth-provider", EXECS),
    ({}, {"tokenFile": "/etc/passwd"}, "users['u'].user.tokenFile", FILES),
    ({}, {"tokenFile": "/etc/passwd", "token": SECRET}, "users['u'].user.tokenFile", FILES),
    ({}, {"tokenFile": "/etc/passwd", "tokenFile-data": "x"}, "users['u'].user.tokenFile", FILES),
    ({}, {"client-certificate": "/a", "client-key": "/b"}, "users['u'].user.client-certificate", FILES),
    ({}, {"client-certificate-data": "eA==", "client-key": "/b"}, "users['u'].user.client-key", FILES),
    ({"certificate-authority": "/a"}, {}, "clusters['c'].cluster.certificate-authority", FILES),
    (
        {"certificate-authority": "/a", "certificate-authority-data": ""},
        {},
        "clusters['c'].cluster.certificate-authority",
        FILES,
    ),
    ({"insecure-skip-tls-verify": True}, {}, "clusters['c'].cluster.insecure-skip-tls-verify", INSECURE),
    ({"insecure-skip-tls-verify": "false"}, {}, "clusters['c'].cluster.insecure-skip-tls-verify", INSECURE),
    ({"server": "http://elsewhere.test"}, {}, "clusters['c'].cluster.server", INSECURE),
    (
        {"server": "http://127.0.0.1:8080", "proxy-url": "http://p.test"},
        {},
        "clusters['c'].cluster.server",
        INSECURE,
    ),
    ({}, {"as": "system:admin"}, "users['u'].user.as", ""),
    ({}, {"as-uid": "1"}, "users['u'].user.as-uid", ""),
    ({}, {"as-groups": ["system:masters"]}, "users['u'].user.as-groups", ""),
    ({}, {"as-user-extra": {"scopes": ["all"]}}, "users['u'].user.as-user-extra", ""),
]


@pytest.mark.parametrize(("cluster", "user", "place", "setting"), REFUSED)
def test_what_needs_a_setting_is_refused_where_it_stands(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], place: str, setting: str
) -> None:
    path = written(tmp_path, {"server": "https://c.test", **cluster}, {**user, "password": SECRET})
    names = {name: f"allow_{name.removeprefix('kubeconfig').lower()}" for name in (EXECS, FILES, INSECURE)}
    others: dict[str, Any] = {argument: True for name, argument in names.items() if name != setting}
    with pytest.raises(KubeconfigRefusedError) as caught:
        loaded(path, **others)
    assert caught.value.code == "KubeconfigRefused"
    assert (caught.value.place, caught.value.setting) == (place, f"allow.{setting}" if setting else "")
    text = str(caught.value)
    assert text.startswith(f"{path}: {place} ")
    assert (f"allow.{setting}: true" in text) if setting else "repositories[].impersonate" in text
    assert SECRET not in text


def test_every_refusal_has_its_row() -> None:
    assert {row.field for row in REFUSALS} | {"server"} == {place.rpartition(".")[2] for _, _, place, _ in REFUSED}


def test_what_is_empty_asks_for_nothing(tmp_path: Path) -> None:
    cluster = {"server": "https://c.test", "certificate-authority": "", "insecure-skip-tls-verify": False}
    user: dict[str, Any] = {"exec": None, "tokenFile": "", "as": "", "as-groups": [], "token": SECRET}
    assert authorization(loaded(written(tmp_path, cluster, user))[1]) == f"Bearer {SECRET}"


def test_what_is_allowed_is_done(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    path = written(
        tmp_path, {"server": "https://c.test", "insecure-skip-tls-verify": True}, {"tokenFile": "token", "token": "old"}
    )
    connection, credentials = loaded(path, allow_files=True, allow_insecure=True)
    assert connection.ssl_context is not None
    assert connection.ssl_context.verify_mode is ssl.CERT_NONE
    assert authorization(credentials) == "Bearer from-a-file"
    plain, _ = loaded(written(tmp_path, {"server": "http://elsewhere.test"}, {}), allow_insecure=True)
    assert (plain.server, plain.ssl_context) == ("http://elsewhere.test", None)


def test_a_token_in_the_kubeconfig_is_read_anew_after_a_rejection(tmp_path: Path) -> None:
    """A token that ends is renewed by writing the file anew; nothing has to be started again."""
    path = written(tmp_path, {"server": "https://c.test"}, {"token": "one"})

    async def play() -> list[str | None]:
        _, credentials = await load_connection(path, None, ssl_contexts=SslContexts(), files=KubeconfigFiles())
        found = [await credentials.authorization()]
        written(tmp_path, {"server": "https://c.test"}, {"token": "second"})
        found.append(await credentials.authorization())
        credentials.rejected()
        found.append(await credentials.authorization())
        written(tmp_path, {"server": "https://c.test"}, {})
        credentials.rejected()
        with pytest.raises(KubeconfigError, match=r"users\['u'\].user.token is gone"):
            await credentials.authorization()
        return found

    assert asyncio.run(play()) == ["Bearer one", "Bearer one", "Bearer second"]


@pytest.mark.parametrize(
    "text", ["", "[]", f"users: [token: {SECRET}", "a: b", "current-context: x\ncontexts: 7", "current-context: [x]"]
)
def test_what_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(KubeconfigError) as caught:
        loaded(path)
    assert SECRET not in str(caught.value)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="No such file"):
        loaded(tmp_path / "absent")


def test_plain_http_on_this_machine_needs_no_certificate(tmp_path: Path) -> None:
    connection, _ = loaded(written(tmp_path, {"server": "http://127.0.0.1:8080"}, {"token": SECRET}))
    assert connection.ssl_context is None


def test_a_token_file_is_read_anew_after_a_rejection_or_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("one\n")
    path = written(tmp_path, {"server": "https://c.test"}, {"tokenFile": "token"})
    _, credentials = loaded(path, allow_files=True)
    assert authorization(credentials) == "Bearer one"
    (tmp_path / "token").write_text("two\n")
    assert authorization(credentials) == "Bearer one"
    credentials.rejected()
    assert authorization(credentials) == "Bearer two"
    (tmp_path / "token").write_text("three\n")
    monkeypatch.setattr(kubeconfig, "TOKEN_MAX_AGE_S", 0.0)
    assert authorization(credentials) == "Bearer three"
    (tmp_path / "token").unlink()
    with pytest.raises(OSError, match="No such file"):
        authorization(credentials)


def plugin(directory: Path, body: str) -> dict[str, Any]:
    """An exec section that runs a Python script of ours."""
    script = directory / "plugin.py"
    script.write_text(body)
    version = "client.authentication.k8s.io/v1"
    return {
        "exec": {"apiVersion": version, "command": sys.executable, "args": [str(script)], "interactiveMode": "Never"}
    }


def test_an_exec_plugin_runs_when_allowed_and_again_after_a_rejection(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    body = f"""
import json, pathlib
counter = pathlib.Path({str(counter)!r})
number = int(counter.read_text()) + 1
counter.write_text(str(number))
status = {{"token": f"token-{{number}}", "expirationTimestamp": "2999-01-01T00:00:00Z"}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""
    path = written(tmp_path, {"server": "https://c.test"}, plugin(tmp_path, body))

    async def play() -> list[str | None]:
        _, credentials = await load_connection(path, None, allow_exec=True, ssl_contexts=SslContexts())
        first = [await credentials.authorization(), await credentials.authorization()]
        credentials.rejected()
        return [*first, await credentials.authorization()]

    first, second, third = asyncio.run(play())
    assert first == second
    assert third != first
    assert int(counter.read_text()) <= 3


def test_an_exec_plugin_that_fails(tmp_path: Path) -> None:
    path = written(tmp_path, {"server": "https://c.test"}, plugin(tmp_path, "raise SystemExit(3)"))
    with pytest.raises(KubeconfigError, match="gave no credentials"):
        loaded(path, allow_exec=True)


@pytest.mark.controlplane
def test_certificates_are_read_and_contexts_shared(tmp_path: Path, control_plane: ControlPlane) -> None:
    certificate = control_plane.ca_file.read_bytes()
    key = control_plane.ca_file.with_name("apiserver.key").read_bytes()
    encoded = {"client-certificate-data": certificate, "client-key-data": key}
    user = {name: base64.b64encode(content).decode() for name, content in encoded.items()}
    authority = {"certificate-authority-data": base64.b64encode(certificate).decode()}
    inline = written(tmp_path, {"server": "https://c.test", **authority}, user)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "ca.crt").write_bytes(certificate)
    by_name = written(tmp_path / "files", {"server": "https://d.test", "certificate-authority": "ca.crt"}, {})

    async def play() -> list[Connection]:
        contexts = SslContexts()
        return [
            (await load_connection(path, None, allow_files=True, ssl_contexts=contexts))[0]
            for path in (inline, inline, by_name)
        ]

    first, second, third = asyncio.run(play())
    assert first.ssl_context is second.ssl_context
    assert third.ssl_context is not first.ssl_context
    for connection in (first, third):
        assert connection.ssl_context is not None
        assert connection.ssl_context.get_ca_certs()

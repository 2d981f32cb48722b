"""Settings: what is read, what is refused, and that the guide's table is the code's."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.problems import Severity
from reconciler.settings import Settings, load_settings, parse_settings
from reconciler.settings_table import REQUIRED, SETTINGS, Setting
from reconciler.settings_values import KINDS, Listen
from reconciler.shell.identity import Identity
from reconciler.socket_path import make_directory, socket_path, trusted

BASE = Path("/etc/reconciler")
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "settings.md"


def parse(text: str, environ: dict[str, str] | None = None) -> Settings:
    settings, problems = parse_settings("reconciler.yaml", text.encode(), environ or {}, base=BASE)
    assert problems == ()
    assert settings is not None
    return settings


def problems_of(text: str, environ: dict[str, str] | None = None) -> list[tuple[int, int, str, str, str]]:
    settings, problems = parse_settings("reconciler.yaml", text.encode(), environ or {}, base=BASE)
    assert settings is None
    return [(it.line, it.column, it.code, it.message, it.hint) for it in problems]


def test_everything_that_can_be_said() -> None:
    settings = parse(
        """
stateDir: state
listen: 0.0.0.0:8080
tokenFile: token
checkInterval: 20s
resyncInterval: 1h30m
shutdownTimeout: 500ms
logFormat: json
logLevel: debug
repositories:
- name: fleet
  url: https://git.example.com/fleet.git
  ref: release/1
  poll: 2m
  clusterScoped: [ClusterRole.rbac.authorization.k8s.io]
  credentials: {tokenFile: /run/token, username: ada, sshKeyFile: key, knownHostsFile: hosts}
  impersonate: {user: "oidc:fleet@example.com", groups: [fleet-writers, "system:serviceaccounts:fleet"]}
- {name: other, url: "git@git.example.com:team/other.git"}
clusters:
  us-1: {kubeconfig: us}
  eu-1: {kubeconfig: /kube/eu, context: admin}
allow: {protocols: [https, ssh, file], kubeconfigExec: true, kubeconfigFiles: true, kubeconfigInsecure: true}
limits: {writesPerSecond: 5, perCluster: 0.5}
"""
    )
    assert settings.state_dir == BASE / "state"
    assert settings.listen == Listen("0.0.0.0", 8080)  # noqa: S104  # as written
    assert settings.token_file == BASE / "token"
    assert (settings.check_interval_s, settings.resync_interval_s, settings.shutdown_timeout_s) == (20, 5400, 0.5)
    assert (settings.log_format, settings.log_level) == ("json", "debug")
    fleet, other = settings.repositories
    assert dataclasses.asdict(fleet) == {
        "name": "fleet",
        "url": "https://git.example.com/fleet.git",
        "ref": "release/1",
        "poll_s": 120.0,
        "cluster_scoped": ("ClusterRole.rbac.authorization.k8s.io",),
        "credentials": {
            "token_file": Path("/run/token"),
            "username": "ada",
            "ssh_key_file": BASE / "key",
            "known_hosts_file": BASE / "hosts",
        },
        "tenant": {"user": "oidc:fleet@example.com", "groups": ("fleet-writers", "system:serviceaccounts:fleet")},
    }
    assert other.tenant == Identity("reconciler:tenant:other")
    assert (other.ref, other.poll_s, other.credentials.token_file) == ("main", 30.0, None)
    assert list(settings.clusters) == ["eu-1", "us-1"]
    assert settings.clusters["eu-1"].kubeconfig == Path("/kube/eu")
    assert (settings.clusters["us-1"].kubeconfig, settings.clusters["us-1"].context) == (BASE / "us", "")
    assert dataclasses.astuple(settings.allow) == (("https", "ssh", "file"), True, True, True)
    assert (settings.limits.writes_per_second, settings.limits.per_cluster) == (5.0, 0.5)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n", "allow:\nlimits:\nrepositories:\nclusters:\nlisten:\n"])
def test_nothing_said_means_the_defaults(text: str) -> None:
    settings = parse(text)
    assert settings.state_dir == Path("/var/lib/reconciler")
    assert settings.listen == Listen("127.0.0.1", 8080)
    assert (settings.check_interval_s, settings.resync_interval_s) == (10.0, 300.0)
    assert dataclasses.astuple(settings.allow) == (("https", "ssh"), False, False, False)
    assert (settings.limits.writes_per_second, settings.limits.per_cluster) == (50.0, 10.0)
    assert settings.repositories == ()
    assert settings.clusters == {}


def test_variables_override_scalars() -> None:
    environ = {
        "RECONCILER_CHECK_INTERVAL": "1m",
        "RECONCILER_LIMITS_WRITES_PER_SECOND": "7",
        "RECONCILER_ALLOW_KUBECONFIG_EXEC": "true",
        "RECONCILER_LOG_FORMAT": "json",
        "RECONCILER_LISTEN": "none",
        "RECONCILER_STATE_DIR": "/state",
        "RECONCILER_SERVER": "http://127.0.0.1:1",
        "RECONCILER_TOKEN": "t",
        "RECONCILER_CONFIG": "x",
        "RECONCILER_SERVICE_HOST": "10.0.0.1",
        "RECONCILER_PORT_8080_TCP_ADDR": "10.0.0.1",
        "OTHER": "x",
    }
    settings = parse("checkInterval: 5s\nlimits: {writesPerSecond: 1}\n", environ)
    assert (settings.check_interval_s, settings.limits.writes_per_second) == (60.0, 7.0)
    assert settings.allow.kubeconfig_exec is True
    assert (settings.log_format, settings.listen, settings.state_dir) == ("json", None, Path("/state"))


def test_every_scalar_has_a_variable_of_its_own() -> None:
    variables = [row.variable for row in SETTINGS if row.variable]
    assert len(variables) == len(set(variables)) == 13
    assert {row.kind for row in SETTINGS} <= set(KINDS)


def test_a_variable_that_nothing_reads_is_a_warning() -> None:
    settings, problems = parse_settings("f", b"", {"RECONCILER_CHECK_INTERVALL": "1m"}, base=BASE)
    assert settings is not None
    [problem] = problems
    assert (problem.severity, problem.code) == (Severity.WARNING, "unknown-variable")
    assert "RECONCILER_CHECK_INTERVAL" in problem.hint


def test_a_bad_variable_is_named() -> None:
    _, problems = parse_settings("f", b"", {"RECONCILER_CHECK_INTERVAL": "10"}, base=BASE)
    assert [(it.file, it.code) for it in problems] == [("RECONCILER_CHECK_INTERVAL", "invalid-value")]


def test_all_problems_are_found_at_once_each_with_its_place() -> None:
    found = problems_of(
        """stateDir: ""
chekInterval: 5s
checkInterval: 30
limits: {writesPerSecond: 0, perClusters: 3}
repositories:
- name: Fleet
  url: https://ada:secret@example.com/x
  pol: 1m
- {name: b, url: "http://example.com/x", ref: -h, poll: 1ms}
- {name: b, url: "ssh://git@example.com/x", credentials: {token: abc}}
- 7
clusters:
  eu_1: {kubeconfig: ""}
  us-1: {}
allow: {protocols: [https, gopher]}
"""
    )
    assert [(line, column, code) for line, column, code, _, _ in found] == [
        (1, 1, "invalid-value"),
        (2, 1, "unknown-key"),
        (3, 1, "invalid-value"),
        (4, 10, "invalid-value"),
        (4, 30, "unknown-key"),
        (6, 3, "invalid-value"),
        (7, 3, "refused-url"),
        (8, 3, "unknown-key"),
        (9, 42, "invalid-value"),
        (9, 51, "invalid-value"),
        (10, 4, "duplicate-name"),
        (10, 59, "unknown-key"),
        (11, 3, "invalid-type"),
        (13, 3, "invalid-name"),
        (13, 10, "invalid-value"),
        (14, 3, "missing-field"),
        (15, 9, "invalid-value"),
    ]
    assert found[1][4] == "did you mean 'checkInterval'?"
    assert "30s" in found[2][4]
    assert not any("secret" in part for row in found for part in map(str, row))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("listen: 0.0.0.0:8080\n", "token-needed"),
        ("listen: '[::]:8080'\n", "token-needed"),
        ("listen: example.com:80\n", "token-needed"),
        ("listen: 8080\n", "invalid-value"),
        ("listen: 127.0.0.1:70000\n", "invalid-value"),
        ("repositories: [{name: a, url: 'https://u:secret@h/x'}]\n", "refused-url"),
        ("repositories: [{name: a, url: 'file:///srv/x'}]\n", "refused-url"),
        ("repositories: {name: a}\n", "invalid-type"),
        ("clusters: [a]\n", "invalid-type"),
        ("[]\n", "invalid-type"),
        ("logFormat: xml\n", "invalid-value"),
        ("logLevel: INFO\n", "invalid-value"),
        ("allow: {kubeconfigExec: 'yes'}\n", "invalid-value"),
        ("allow: {protocols: [ssh, ssh]}\n", "invalid-value"),
        ("limits: {perCluster: true}\n", "invalid-value"),
        ("limits: {perCluster: .inf}\n", "invalid-yaml"),
        ("checkInterval: 8d\n", "invalid-value"),
        ("a: 1\na: 2\n", "invalid-yaml"),
        ("a: [\n", "invalid-yaml"),
        ("stateDir: /a\n---\nstateDir: /b\n", "several-documents"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    found = problems_of(text)
    assert code in [row[2] for row in found]
    assert "secret" not in str(found)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:80", "[::1]:80", "127.1.2.3:80"])
def test_loopback_needs_no_token(listen: str) -> None:
    found = parse(f"listen: '{listen}'\n").listen
    assert found is not None
    assert found.loopback


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "reconciler.yaml"
    file.write_text("stateDir: state\n")
    settings, problems = load_settings(file, {})
    assert problems == ()
    assert settings is not None
    assert settings.state_dir == tmp_path / "state"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    settings, problems = load_settings(tmp_path / "none.yaml", {})
    assert settings is None
    assert [problem.code for problem in problems] == ["unreadable"]


# ---- whom writes are made as ---------------------------------------------------------------------------------------


def tenant_of(written: str) -> Identity | None:
    [repository] = parse(f"repositories: [{{name: a, url: 'https://h/x', impersonate: {written}}}]\n").repositories
    return repository.tenant


@pytest.mark.parametrize(
    ("written", "tenant"),
    [
        ("{}", Identity("reconciler:tenant:a")),
        ("null", Identity("reconciler:tenant:a")),
        ("{groups: [team-a]}", Identity("reconciler:tenant:a", ("team-a",))),
        ("{user: 'system:serviceaccount:a:writer'}", Identity("system:serviceaccount:a:writer")),
        ("{user: none}", None),
    ],
)
def test_whom_a_repository_writes_as(written: str, tenant: Identity | None) -> None:
    assert tenant_of(written) == tenant


@pytest.mark.parametrize(
    "written",
    [
        "{user: 'system:admin'}",
        "{user: 'system:kube-controller-manager'}",
        "{user: 'system:serviceaccount:a'}",
        "{user: 'system:serviceaccount:a:b:c'}",
        "{user: 'system:serviceaccounts:a'}",
        "{user: 'a b'}",
        "{user: 'a,b'}",
        '{user: "a\\r\\nImpersonate-Group: system:masters"}',
        "{user: 'é'}",
        f"{{user: {'a' * 254}}}",
        "{groups: ['system:masters']}",
        "{groups: ['system:authenticated']}",
        "{groups: ['system:nodes']}",
        "{groups: ['']}",
        "{groups: ['a, system:masters']}",
        "{groups: team-a}",
        "{user: none, groups: [team-a]}",
        "{users: a}",
    ],
)
def test_nobody_is_impersonated_who_is_no_tenant(written: str) -> None:
    [problem] = problems_of(f"repositories: [{{name: a, url: 'https://h/x', impersonate: {written}}}]\n")
    assert problem[2] == ("unknown-key" if "users" in written else "invalid-value")


@pytest.mark.parametrize(
    ("user", "groups"), [("", ()), ("system:masters", ()), ("a\nb", ()), ("a", ("system:masters",))]
)
def test_an_identity_that_must_not_be_sent_cannot_be_made(user: str, groups: tuple[str, ...]) -> None:
    """An empty header would make the request the daemon's own."""
    with pytest.raises(ValueError, match=r"name|own|plain"):
        Identity(user, groups)


# ---- the socket --------------------------------------------------------------------------------------------------


def test_the_socket_is_in_the_state_directory_if_it_fits(tmp_path: Path) -> None:
    assert socket_path(Path("/var/lib/reconciler")) == Path("/var/lib/reconciler/reconciler.sock")
    long = tmp_path / ("x" * 120)
    long.mkdir()
    short = socket_path(long)
    assert short == socket_path(long)
    assert short != socket_path(tmp_path / ("y" * 120))
    assert len(os.fsencode(short)) < 60
    make_directory(short)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short))
    short.unlink()


def test_a_socket_directory_open_to_others_is_not_trusted() -> None:
    assert trusted(Path("/var/lib/reconciler/reconciler.sock"))
    strange = socket_path(Path("/" + "x" * 120)).parent.with_name("reconciler-99999999")  # nobody's
    strange.mkdir(mode=0o700, exist_ok=True)
    try:
        assert not trusted(strange / "x.sock")
        with pytest.raises(PermissionError):
            make_directory(strange / "x.sock")
    finally:
        strange.rmdir()


# ---- the guide ---------------------------------------------------------------------------------------------------


def _written(row: Setting) -> str:
    def plain(value: Any) -> str:
        if value is REQUIRED:
            return "required"
        if isinstance(value, tuple):
            return f"`[{', '.join(value)}]`"
        if isinstance(value, bool):
            return f"`{str(value).lower()}`"
        return f"`{value}`" if value != "" else ""

    variable = f"`{row.variable}`" if row.variable else ""
    cells = (f"`{row.path}`", plain(row.default), row.help, variable)
    return " ".join(["|", " | ".join(cells), "|"]).replace("|  |", "| |")


def test_the_guide_has_every_setting_as_it_is() -> None:
    lines = GUIDE.read_text().splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == [_written(row) for row in SETTINGS]


def test_the_guides_example_is_valid() -> None:
    _, _, rest = GUIDE.read_text().partition("```yaml\n")
    settings = parse(rest.partition("```")[0])
    assert settings.repositories
    assert settings.clusters

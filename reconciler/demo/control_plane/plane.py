"""A running control plane: etcd, kube-apiserver and, when asked, kube-controller-manager on 127.0.0.1.

RBAC decides, users come from a token file (an administrator in system:masters and a few named users without any
right), the Flink CRDs are installed and listable, and a kubeconfig stands beside. The programs belong to a supervisor
that stops them when the last holder is gone, so that no killed holder leaves a process behind; `attach` joins a
control plane that runs already.

    with start(find()) as plane:
        subprocess.run(["kubectl", "--kubeconfig", plane.kubeconfig, "get", "namespaces"])

`start` waits; who has something else to do meanwhile takes its parts: `launch`, `is_ready` until it says so,
`introduce`, `install_crds`.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time  # noqa: TID251 - real programs are waited for by the machine's own time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.demo.control_plane.assets import Assets

ADMINISTRATOR = "administrator"
NAMED_USERS = ("reconciler", "tenant-a", "tenant-b", "viewer", "stranger")
START_ATTEMPTS = 3
LOOK_EVERY_S = 0.05
MANAGER_KUBECONFIG = "kubeconfig-of-controller-manager.yaml"
CRDS_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FLINK_RESOURCES = ("flinkdeployments", "flinksessionjobs", "flinkstatesnapshots")
SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")


class ControlPlaneError(Exception):
    """The control plane did not start or did not answer as expected."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: somebody else may take one before its program does, so starts are retried."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass(slots=True)
class ControlPlane:
    """One running control plane that this process holds."""

    directory: Path
    url: str
    tokens: dict[str, str]
    hold: socket.socket = field(repr=False)

    @property
    def ca_file(self) -> Path:
        """The certificate of the API server, which made it itself."""
        return self.directory / "certificates" / "apiserver.crt"

    @property
    def etcd_url(self) -> str:
        """etcd's client address, without TLS."""
        plan = json.loads((self.directory / "plan.json").read_text())
        return str(plan["programs"][0]["ready_url"]).removesuffix("/health")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.kubeconfig_for(ADMINISTRATOR)

    def kubeconfig_for(self, user: str) -> Path:
        """The kubeconfig of a user of the token file."""
        return self.directory / f"kubeconfig-{user}.yaml"

    def service_account_token(self, namespace: str, name: str) -> str:
        """Create a service account where it is absent and mint a token for it: a user of a test's own."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        created = call(self, "POST", path, {"metadata": {"name": name}})
        if created[0] not in (201, 409):
            raise ControlPlaneError(f"creating service account {namespace}/{name}: {created}")
        status, answer = call(self, "POST", f"{path}/{name}/token", {"spec": {"expirationSeconds": 3600}})
        if status != 201:
            raise ControlPlaneError(f"minting a token for {namespace}/{name}: {status} {answer}")
        return str(answer["status"]["token"])

    def order(self, verb: str, program: str) -> None:
        """Stop, kill, pause, resume or start one of the programs ("etcd", "kube-apiserver"), and wait until that is
        done; one that is started answers then. For a control plane of one's own: nobody else's work would go on."""
        self.hold.settimeout(150)
        self.hold.sendall(f"{verb} {program}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            part = self.hold.recv(1024)
            if not part:
                raise ControlPlaneError("the supervisor has ended")
            answer += part
        if answer != b"done\n":
            raise ControlPlaneError(answer.decode().strip())

    def close(self) -> None:
        """Let go. The supervisor stops the programs when nobody else holds them, and only then does this return."""
        if self.hold.fileno() == -1:
            return
        self.hold.shutdown(socket.SHUT_WR)
        self.hold.settimeout(90)
        while self.hold.recv(64):
            pass
        self.hold.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def call(plane: ControlPlane, method: str, path: str, body: object = None, yaml: bytes = b"") -> tuple[int, Any]:
    """One request as the administrator, for setting things up; tests speak through a Transport."""
    host = plane.url.removeprefix("https://")
    connection = http.client.HTTPSConnection(
        host, timeout=60, context=ssl.create_default_context(cafile=str(plane.ca_file))
    )
    headers = {"Authorization": f"Bearer {plane.tokens[ADMINISTRATOR]}", "Accept": "application/json"}
    headers["Content-Type"] = "application/yaml" if yaml else "application/json"
    content = yaml or (json.dumps(body).encode() if body is not None else None)
    try:
        connection.request(method, path, body=content, headers=headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    # The index of /openapi/v3 is JSON that calls itself text/plain, so the body decides.
    return response.status, json.loads(text) if text.startswith(b"{") else text.decode()


def etcd_program(
    assets: Assets, directory: Path, ports: list[int], durable: bool, flags: tuple[str, ...]
) -> dict[str, object]:
    """etcd's command line; without fsync unless somebody measures."""
    client, peer = (f"http://127.0.0.1:{port}" for port in ports[:2])
    command = [
        str(assets.etcd),
        "--name=test",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--log-level=warn",
        *flags,
    ]
    if not durable:
        command.append("--unsafe-no-fsync")
    return {"name": "etcd", "command": command, "ready_url": f"{client}/health", "ca_file": "", "token": ""}


def apiserver_program(
    assets: Assets, directory: Path, ports: list[int], tokens: dict[str, str], flags: tuple[str, ...]
) -> dict[str, object]:
    """kube-apiserver's command line. Its own serving key signs service account tokens, which spares us making one."""
    certificates = directory / "certificates"
    key = certificates / "apiserver.key"
    url = f"https://127.0.0.1:{ports[2]}"
    command = [
        str(assets.apiserver),
        f"--etcd-servers=http://127.0.0.1:{ports[0]}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports[2]}",
        f"--cert-dir={certificates}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--enable-priority-and-fairness=false",
        *flags,
    ]
    ready = {
        "ready_url": f"{url}/readyz",
        "ca_file": str(certificates / "apiserver.crt"),
        "token": tokens[ADMINISTRATOR],
    }
    return {"name": "kube-apiserver", "command": command, **ready}


def controller_manager_program(
    assets: Assets, directory: Path, ports: list[int], tokens: dict[str, str]
) -> dict[str, object]:
    """kube-controller-manager's command line; it is ready when its own health address answers."""
    if assets.controller_manager is None:
        raise ControlPlaneError("this control plane has no kube-controller-manager (KUBEBUILDER_ASSETS without one)")
    certificates = directory / "manager-certificates"
    config = directory / MANAGER_KUBECONFIG
    command = [
        str(assets.controller_manager),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports[3]}",
        f"--cert-dir={certificates}",
        "--leader-elect=false",
        f"--service-account-private-key-file={directory / 'certificates' / 'apiserver.key'}",
    ]
    ready = {"ready_url": f"https://127.0.0.1:{ports[3]}/healthz", "ca_file": ""}
    ready["ca_file"] = str(certificates / "kube-controller-manager.crt")
    return {"name": "kube-controller-manager", "command": command, **ready, "token": tokens[ADMINISTRATOR]}


def write_users(directory: Path) -> dict[str, str]:
    """Make a token per user and the token file."""
    tokens = {user: secrets.token_hex(16) for user in (ADMINISTRATOR, *NAMED_USERS)}
    lines = [
        f"{token},{user},{user}{',system:masters' if user == ADMINISTRATOR else ''}" for user, token in tokens.items()
    ]
    (directory / "tokens.csv").write_text("\n".join(lines) + "\n")
    return tokens


def write_kubeconfig(path: Path, url: str, user: str, token: str, authority: dict[str, str]) -> None:
    """One context with one user; `authority` names the certificate as data or as a file."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, **authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(config, indent=1))


def is_ready(plane: ControlPlane) -> bool:
    """Whether the supervisor has said that everything answers. Raises ControlPlaneError if something did not start, or
    if the supervisor died without a word, which the end of our hold tells."""
    ready = plane.directory / "ready.json"
    if ready.exists():
        problem = json.loads(ready.read_text())["error"]
        if problem:
            raise ControlPlaneError(problem)
        return True
    try:
        ended = not plane.hold.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    if ended and not ready.exists():
        raise ControlPlaneError("the supervisor ended before the control plane was ready")
    return False


def introduce(plane: ControlPlane) -> None:
    """Write a kubeconfig for each user, and what others need to `attach`: the server has made its certificate."""
    data = {"certificate-authority-data": base64.b64encode(plane.ca_file.read_bytes()).decode()}
    for user, token in plane.tokens.items():
        write_kubeconfig(plane.kubeconfig_for(user), plane.url, user, token, data)
    (plane.directory / "facts.json").write_text(json.dumps({"url": plane.url, "tokens": plane.tokens}))


def connect(directory: Path) -> socket.socket:
    """Take a hold; OSError when nobody listens."""
    hold = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        hold.connect(str(directory / "hold"))
    except OSError:
        hold.close()
        raise
    return hold


def launch(
    assets: Assets,
    *,
    controller_manager: bool = False,
    durable: bool = False,
    apiserver_flags: tuple[str, ...] = (),
    etcd_flags: tuple[str, ...] = (),
) -> ControlPlane:
    """Have the programs started on free ports, and hold them; nothing answers yet."""
    directory = Path(tempfile.mkdtemp(prefix="control-plane-"))
    try:
        ports = free_ports(4)
        url = f"https://127.0.0.1:{ports[2]}"
        tokens = write_users(directory)
        programs = [
            etcd_program(assets, directory, ports, durable, etcd_flags),
            apiserver_program(assets, directory, ports, tokens, apiserver_flags),
        ]
        if controller_manager:
            # Written before the API server has made its certificate, hence by name.
            authority = {"certificate-authority": str(directory / "certificates" / "apiserver.crt")}
            config = directory / MANAGER_KUBECONFIG
            write_kubeconfig(config, url, ADMINISTRATOR, tokens[ADMINISTRATOR], authority)
            programs.append(controller_manager_program(assets, directory, ports, tokens))
        (directory / "plan.json").write_text(json.dumps({"programs": programs}))
        # It detaches itself as soon as its socket listens, and is in no group that Ctrl-C reaches: it ends when we let
        # go. It needs the standard library alone, and is not to find anything else.
        command = [sys.executable, "-I", str(SUPERVISOR), str(directory)]
        subprocess.run(command, check=True, start_new_session=True)  # noqa: S603 - our own program
        return ControlPlane(directory, url, tokens, connect(directory))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def lost_its_ports(problem: ControlPlaneError) -> bool:
    """Whether a start failed only because somebody else took a port first: the next one gets others."""
    return "address already in use" in str(problem)


def start(
    assets: Assets,
    *,
    controller_manager: bool = False,
    durable: bool = False,
    flink_crds: bool = True,
    apiserver_flags: tuple[str, ...] = (),
    etcd_flags: tuple[str, ...] = (),
) -> ControlPlane:
    """Start a control plane of one's own; closing it (or ending) stops it."""
    for attempt in range(1, START_ATTEMPTS + 1):
        plane = launch(
            assets,
            controller_manager=controller_manager,
            durable=durable,
            apiserver_flags=apiserver_flags,
            etcd_flags=etcd_flags,
        )
        try:
            while not is_ready(plane):
                time.sleep(LOOK_EVERY_S)
            if flink_crds:
                install_crds(plane, assets)
            introduce(plane)
        except BaseException as problem:
            plane.close()
            if isinstance(problem, ControlPlaneError) and lost_its_ports(problem) and attempt < START_ATTEMPTS:
                continue
            raise
        return plane
    raise AssertionError("the last attempt returns or raises")


def attach(directory: Path) -> ControlPlane | None:
    """Hold a control plane that another process started; None when it is gone or going."""
    try:
        facts = json.loads((directory / "facts.json").read_text())
        hold = connect(directory)
    except OSError:
        return None
    return ControlPlane(directory, facts["url"], facts["tokens"], hold)


def wait_until_listable(plane: ControlPlane, path: str) -> None:
    """A CRD is served some time after it was created, a large one after seconds."""
    deadline = time.monotonic() + 60
    while True:
        status, answer = call(plane, "GET", path)
        if status == 200:
            return
        if time.monotonic() > deadline:
            raise ControlPlaneError(f"{path} not listable after 60 s: {status} {answer}")
        time.sleep(0.05)


def install_crd(plane: ControlPlane, crd: dict[str, Any]) -> None:
    """Create one CRD where it is absent and wait until its objects can be listed."""
    status, answer = call(plane, "POST", CRDS_PATH, crd)
    if status not in (201, 409):
        raise ControlPlaneError(f"installing {crd['metadata']['name']}: {status} {answer}")
    spec = crd["spec"]
    wait_until_listable(plane, f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}")


def install_crds(plane: ControlPlane, assets: Assets) -> None:
    """Create the Flink operator's CRDs and wait until their objects can be listed."""
    for path in assets.crds:
        status, answer = call(plane, "POST", CRDS_PATH, yaml=path.read_bytes())
        if status not in (201, 409):
            raise ControlPlaneError(f"installing {path.name}: {status} {answer}")
    for plural in FLINK_RESOURCES:
        wait_until_listable(plane, f"/apis/flink.apache.org/v1beta1/{plural}")

"""Admission webhooks of a test's own on a real control plane: Python callables behind HTTPS on 127.0.0.1.

The same `Webhook` values drive the simulated API server (`reconciler/sim/admission.py`), so that a contract test shows
on both what a webhook does to a write. Each is a configuration of its own that matches one namespace only, so tests
that run side by side do not meet.

    deny = Webhook("deny.shop.admission.test", lambda review: Answer(allowed=False), namespace="shop")
    with webhooks.serve() as server, webhooks.registered(plane, server, deny):
        ...
"""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

from reconciler.sim.admission import Answer, Fault, Review, Webhook
from tests.control_plane.server import ControlPlane, ControlPlaneError, call, free_ports

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
#: Each registration has a number. An entry of its configuration refuses the objects that carry it as this label, which
#: shows that the configuration is in force, and later that it no longer is.
PROBE_LABEL = "admission.test/probe"
PROBE_PATH = "/probe"
IN_FORCE_WITHIN_S = 60


class WebhookServer(ThreadingHTTPServer):
    """Answers reviews by the webhooks it was given, each at a path of its name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        # The handshake is left to the thread of the connection, so that a slow one holds up nobody else.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.webhooks: dict[str, Webhook] = {}
        self.registrations = itertools.count(1)
        self.closing = threading.Event()
        self.bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
        self.url = f"https://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One review. HTTP/1.0: every connection ends with its answer, so none is left when the server closes."""

    server: WebhookServer
    timeout = 60

    def do_POST(self) -> None:
        """Answer the review."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        if path == PROBE_PATH:
            self._send(reviewed(body, Answer(allowed=False)))
            return
        webhook = self.server.webhooks[path.removeprefix("/")]
        if isinstance(webhook.respond, Fault):
            self._fail(webhook)
        else:
            self._send(reviewed(body, webhook.respond(review_of(body["request"]))))

    def _fail(self, webhook: Webhook) -> None:
        if webhook.respond is Fault.MALFORMED:
            self._send({"apiVersion": "v1", "kind": "ConfigMap"})
        elif webhook.respond is Fault.ERROR:
            self.send_error(500, "out of order")
        elif webhook.respond is Fault.SLOW:
            # The API server gives up and hangs up long before.
            self.server.closing.wait(webhook.timeout_s + 5)

    def _send(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Nobody reads an access log of tests."""


def review_of(request: dict[str, Any]) -> Review:
    """The request of an AdmissionReview as the simulator's webhooks see it."""
    return Review(
        operation=request["operation"],
        resource=request["resource"]["resource"],
        subresource=request.get("subResource", ""),
        namespace=request.get("namespace", ""),
        name=request.get("name", ""),
        object=request["object"],
        old_object=request["oldObject"],
        dry_run=request["dryRun"],
    )


def reviewed(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The AdmissionReview that carries an answer."""
    response: dict[str, Any] = {"uid": body["request"]["uid"], "allowed": answer.allowed}
    status = {"message": answer.message, "reason": answer.reason, "code": answer.code}
    if not answer.allowed and any(status.values()):
        response["status"] = {key: value for key, value in status.items() if value}
    if answer.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(list(answer.patch)).encode()).decode()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


@contextmanager
def serve() -> Iterator[WebhookServer]:
    """A server of webhooks, until the block ends."""
    with WebhookServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="webhooks")
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def configuration(server: WebhookServer, webhook: Webhook, number: str) -> dict[str, Any]:
    """The configuration that registers one webhook, with an entry that shows that it is in force."""
    url = f"{server.url}/{webhook.name}"
    if webhook.respond is Fault.DOWN:
        url = f"https://127.0.0.1:{free_ports(1)[0]}/{webhook.name}"
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": webhook.namespace}}

    def entry(
        name: str, url: str, operations: tuple[str, ...], resources: tuple[str, ...], objects: dict[str, Any]
    ) -> dict[str, Any]:
        rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": resources}
        # A namespaceSelector does not hold back what belongs to no namespace.
        rule["scope"] = "Namespaced"
        return {
            "name": name,
            "clientConfig": {"url": url, "caBundle": server.bundle},
            "rules": [rule],
            "namespaceSelector": namespace,
            "objectSelector": objects,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }

    no_probes = {"matchExpressions": [{"key": PROBE_LABEL, "operator": "DoesNotExist"}]}
    own = entry(webhook.name, url, webhook.operations, webhook.resources, no_probes)
    own |= {"sideEffects": webhook.side_effects, "failurePolicy": webhook.failure_policy}
    own["timeoutSeconds"] = webhook.timeout_s
    if webhook.mutating:
        own["reinvocationPolicy"] = webhook.reinvocation
    this_probe = {"matchLabels": {PROBE_LABEL: number}}
    probe = entry(f"probe.{webhook.name}", server.url + PROBE_PATH, ("CREATE",), ("configmaps",), this_probe)
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{'Mutating' if webhook.mutating else 'Validating'}WebhookConfiguration",
        "metadata": {"name": webhook.name},
        "webhooks": [own, probe],
    }


@contextmanager
def registered(plane: ControlPlane, server: WebhookServer, webhook: Webhook) -> Iterator[None]:
    """The webhook in force, until the block ends. Its namespace must exist."""
    if not webhook.namespace:
        raise ValueError("a webhook of a shared control plane is bound to one namespace")
    number = str(next(server.registrations))
    body = configuration(server, webhook, number)
    path = f"{CONFIGURATIONS}/{body['kind'].lower()}s"
    server.webhooks[webhook.name] = webhook
    if webhook.side_effects in ("None", "NoneOnDryRun"):
        status, answer = call(plane, "POST", path, body)
        if status != 201:
            raise ControlPlaneError(f"registering {webhook.name}: {status} {answer}")
    else:
        put_into_etcd(plane, body)
    try:
        wait_until(plane, webhook, number, in_force=True)
        yield
    finally:
        call(plane, "DELETE", f"{path}/{webhook.name}")
        wait_until(plane, webhook, number, in_force=False)


def put_into_etcd(plane: ControlPlane, body: dict[str, Any]) -> None:
    """Store a configuration as clusters of before Kubernetes 1.22 may still hold it: the API takes no new one whose
    side effects are Some or Unknown, but obeys what is there."""
    metadata = {**body["metadata"], "uid": str(uuid.uuid4()), "creationTimestamp": "2020-01-01T00:00:00Z"}
    always = {"matchPolicy": "Equivalent", "failurePolicy": "Fail", "timeoutSeconds": 10}
    body = {**body, "metadata": metadata, "webhooks": [{**always, **entry} for entry in body["webhooks"]]}
    key = f"/registry/{body['kind'].lower()}s/{metadata['name']}"
    content = {"key": base64.b64encode(key.encode()), "value": base64.b64encode(json.dumps(body).encode())}
    text = json.dumps({name: value.decode() for name, value in content.items()}).encode()
    url = f"{plane.etcd_url}/v3/kv/put"
    with urllib.request.urlopen(url, text, timeout=60) as answer:  # noqa: S310 - an address of our own on 127.0.0.1
        answer.read()


def wait_until(plane: ControlPlane, webhook: Webhook, number: str, *, in_force: bool) -> None:
    """A configuration counts, or no longer counts, some time after the write. The probe is a dry-run: nothing is left
    of it."""
    metadata = {"name": "probe", "labels": {PROBE_LABEL: number}}
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    path = f"/api/v1/namespaces/{webhook.namespace}/configmaps?dryRun=All"
    deadline = time.monotonic() + IN_FORCE_WITHIN_S
    while True:
        status, answer = call(plane, "POST", path, probe)
        if (f'"probe.{webhook.name}" denied' in answer.get("message", "")) is in_force:
            return
        if time.monotonic() > deadline:
            wanted = "in force" if in_force else "gone"
            raise ControlPlaneError(f"{webhook.name} not {wanted} after {IN_FORCE_WITHIN_S} s: {status} {answer}")
        time.sleep(0.05)

"""What answers mean: a table of bodies as kube-apiserver 1.36 sends them, and of what stands in front of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.core.model import ObjectKey
from reconciler.shell import kube_errors as errors
from reconciler.shell.identity import Identity
from reconciler.shell.kube_errors import Attempt, KubeError, Outcome, from_response, from_status, from_transport
from reconciler.shell.transport import Response, TransportError

CONFIG_MAP = ObjectKey("", "ConfigMap", "p", "a")
WRITE = Attempt(writes=True, key=CONFIG_MAP)
READ = Attempt(writes=False, key=CONFIG_MAP)


def status(code: int, message: str, reason: str | None = None, **details: Any) -> Response:
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    body |= {"message": message}
    body |= {"reason": reason} if reason else {}
    body |= {"details": details} if details else {}
    return Response(code, {}, json.dumps(body).encode())


def cause(reason: str, message: str, field: str) -> dict[str, str]:
    return {"reason": reason, "message": message, "field": field}


NOT_OBJECT = 'configmaps "a" not found'
IMMUTABLE = (
    'Deployment.apps "d" is invalid: spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable'
)
STATEFUL_SET = (
    "StatefulSet.apps \"d\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas', "
    "'ordinals', 'template', 'updateStrategy' and 'minReadySeconds' are forbidden"
)
TERMINATING = 'configmaps "a" is forbidden: unable to create new content in namespace p because it is being terminated'
TYPED = "failed to create typed patch object (p/f; flink.apache.org/v1beta1, Kind=FlinkDeployment): .spec.nope: field"
CONVERT = "failed to convert new object (p/s; /v1, Kind=Secret) to proper version: illegal base64 data at input byte 7"
STRICT = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "foo"'
WEBHOOK = 'Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: connection refused'
POLICY = "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no latest"
DENIED = 'admission webhook "flinkoperator.flink.apache.org" denied the request: spec.job.state is wrong'

# name, answer, attempt, class, reason code, outcome
TABLE: list[tuple[str, Response, Attempt, type[KubeError], str, Outcome]] = [
    (
        "no object",
        status(404, NOT_OBJECT, "NotFound", name="a", kind="configmaps"),
        READ,
        errors.NotFoundError,
        "NotFound",
        Outcome.PERMANENT,
    ),
    (
        "no namespace",
        status(404, 'namespaces "p" not found', "NotFound", name="p", kind="namespaces"),
        WRITE,
        errors.NamespaceMissingError,
        "NamespaceMissing",
        Outcome.PERMANENT,
    ),
    (
        "a namespace itself is not there",
        status(404, 'namespaces "p" not found', "NotFound", name="p", kind="namespaces"),
        Attempt(writes=False, key=ObjectKey("", "Namespace", "", "p")),
        errors.NotFoundError,
        "NotFound",
        Outcome.PERMANENT,
    ),
    (
        "no kind",
        Response(404, {}, status(404, "the server could not find the requested resource", "NotFound").body),
        READ,
        errors.KindMissingError,
        "KindMissing",
        Outcome.PERMANENT,
    ),
    (
        "no API group",
        Response(404, {"content-type": "text/plain"}, b"404 page not found\n"),
        READ,
        errors.KindMissingError,
        "KindMissing",
        Outcome.PERMANENT,
    ),
    (
        "somebody's own 404 page is not the API server's",
        Response(404, {}, b"<html>no such host</html>"),
        WRITE,
        errors.ServerError,
        "UnexpectedAnswer",
        Outcome.AMBIGUOUS,
    ),
    (
        "apply with the uid of another object",
        status(
            422,
            'ConfigMap "a" is invalid: metadata.uid: Invalid value: "0": field is immutable',
            "Invalid",
            causes=[cause("FieldValueInvalid", 'Invalid value: "0": field is immutable', "metadata.uid")] * 2,
        ),
        WRITE,
        errors.ObjectConflictError,
        "Recreated",
        Outcome.TEMPORARY,
    ),
    (
        "apply with a uid on an absent object",
        status(409, 'Operation cannot be fulfilled on configmaps "b": uid mismatch: the provided', "Conflict"),
        WRITE,
        errors.ObjectConflictError,
        "Conflict",
        Outcome.TEMPORARY,
    ),
    (
        "POST of an existing object",
        status(409, 'configmaps "a" already exists', "AlreadyExists"),
        WRITE,
        errors.ObjectConflictError,
        "AlreadyExists",
        Outcome.TEMPORARY,
    ),
    (
        "value outside an enum",
        status(422, 'spec.flinkVersion: Unsupported value: "v9_0"', "Invalid"),
        WRITE,
        errors.InvalidError,
        "Invalid",
        Outcome.PERMANENT,
    ),
    (
        "immutable field",
        status(422, IMMUTABLE, "Invalid"),
        WRITE,
        errors.InvalidError,
        "NeedsReplace",
        Outcome.PERMANENT,
    ),
    (
        "immutable spec of a StatefulSet",
        status(422, STATEFUL_SET, "Invalid"),
        WRITE,
        errors.InvalidError,
        "NeedsReplace",
        Outcome.PERMANENT,
    ),
    (
        "a field the schema lacks is a 500",
        status(500, TYPED),
        WRITE,
        errors.SchemaMismatchError,
        "SchemaMismatch",
        Outcome.PERMANENT,
    ),
    (
        "a value that cannot be converted is a 500",
        status(500, CONVERT),
        WRITE,
        errors.SchemaMismatchError,
        "SchemaMismatch",
        Outcome.PERMANENT,
    ),
    (
        "strict decoding",
        status(400, STRICT, "BadRequest"),
        WRITE,
        errors.SchemaMismatchError,
        "SchemaMismatch",
        Outcome.PERMANENT,
    ),
    (
        "bad request",
        status(400, "the name of the object (a) does not match the name on the URL (c)", "BadRequest"),
        WRITE,
        errors.InvalidError,
        "BadRequest",
        Outcome.PERMANENT,
    ),
    (
        "forbidden",
        status(403, 'configmaps "a" is forbidden: User "stranger" cannot get resource', "Forbidden"),
        READ,
        errors.ForbiddenError,
        "Forbidden",
        Outcome.PERMANENT,
    ),
    (
        "namespace is being deleted",
        status(403, TERMINATING, "Forbidden", causes=[cause("NamespaceTerminating", "namespace p", "metadata")]),
        WRITE,
        errors.TerminatingError,
        "NamespaceTerminating",
        Outcome.TEMPORARY,
    ),
    (
        "unauthorized",
        status(401, "Unauthorized", "Unauthorized"),
        READ,
        errors.UnauthorizedError,
        "Unauthorized",
        Outcome.TEMPORARY,
    ),
    (
        "webhook refuses dry-run",
        status(400, 'admission webhook "v.example.com" does not support dry run', "BadRequest"),
        Attempt(writes=False, key=CONFIG_MAP),
        errors.DryRunRefusedError,
        "DryRunRefused",
        Outcome.PERMANENT,
    ),
    ("denied", status(403, DENIED, "Forbidden"), WRITE, errors.DeniedError, "Denied", Outcome.PERMANENT),
    ("denied by a policy", status(422, POLICY, "Invalid"), WRITE, errors.DeniedError, "Denied", Outcome.PERMANENT),
    ("denied as a 500", status(500, DENIED), WRITE, errors.DeniedError, "Denied", Outcome.PERMANENT),
    (
        "webhook does not answer: before storage, so nothing happened",
        status(500, WEBHOOK, "InternalError"),
        WRITE,
        errors.ServerError,
        "WebhookFailed",
        Outcome.TEMPORARY,
    ),
    (
        "expired",
        status(410, "The resourceVersion for the provided watch is too old.", "Expired"),
        READ,
        errors.GoneError,
        "Gone",
        Outcome.TEMPORARY,
    ),
    (
        "version of the future, as after a restore",
        status(
            504,
            "Timeout: Too large resource version: 99999999, current: 217",
            "Timeout",
            causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            retryAfterSeconds=1,
        ),
        READ,
        errors.GoneError,
        "Gone",
        Outcome.TEMPORARY,
    ),
    (
        "too many requests",
        status(429, "Too many requests, please try again later.", "TooManyRequests"),
        WRITE,
        errors.BusyError,
        "TooManyRequests",
        Outcome.TEMPORARY,
    ),
    (
        "server failed in a write",
        status(500, "etcdserver: request timed out", "InternalError"),
        WRITE,
        errors.ServerError,
        "InternalError",
        Outcome.AMBIGUOUS,
    ),
    (
        "server failed in a read",
        status(500, "etcdserver: request timed out", "InternalError"),
        READ,
        errors.ServerError,
        "InternalError",
        Outcome.TEMPORARY,
    ),
    (
        "a load balancer's page in a write",
        Response(502, {}, b"<html>bad gateway</html>"),
        WRITE,
        errors.ServerError,
        "UnexpectedAnswer",
        Outcome.AMBIGUOUS,
    ),
    (
        "a gateway's 401 page",
        Response(401, {}, b"<html>log in</html>"),
        WRITE,
        errors.UnauthorizedError,
        "Unauthorized",
        Outcome.TEMPORARY,
    ),
    (
        "a gateway's 403 page",
        Response(403, {}, b"<html>Access denied: the identity provider does not answer</html>"),
        WRITE,
        errors.ForbiddenError,
        "Forbidden",
        Outcome.TEMPORARY,
    ),
    (
        "redirects are not followed",
        Response(302, {"location": "http://169.254.169.254/"}, b""),
        READ,
        errors.ServerError,
        "UnexpectedAnswer",
        Outcome.TEMPORARY,
    ),
    (
        "no method",
        status(405, "the server does not allow this method", "MethodNotAllowed"),
        WRITE,
        KubeError,
        "MethodNotAllowed",
        Outcome.PERMANENT,
    ),
]


@pytest.mark.parametrize(
    ("answer", "attempt", "kind", "code", "outcome"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_an_answer_means(
    answer: Response, attempt: Attempt, kind: type[KubeError], code: str, outcome: Outcome
) -> None:
    error = from_response(answer, attempt)
    assert (type(error), error.reason.code, error.outcome) == (kind, code, outcome)
    assert error.status == answer.status
    assert error.reason.message


@pytest.mark.parametrize("code", [401, 403, 502])
def test_a_page_from_something_in_front_of_the_api_server_is_no_answer_of_it(code: int) -> None:
    error = from_response(Response(code, {"retry-after": "7"}, b"<html>"), WRITE)
    assert not error.answered
    assert not error.permanent
    assert error.retry_after_s == 7
    assert from_response(status(403, "no", "Forbidden"), WRITE).answered


RIGHT = 'cannot patch resource "secrets" in API group "" in the namespace "p"'
TENANT = Identity("reconciler:tenant:payments", ("team-a",))


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_a_missing_right_is_named_with_who_lacks_it(kind: str) -> None:
    answer = status(403, f'secrets "a" is forbidden: User "reconciler:tenant:payments" {RIGHT}', "Forbidden")
    error = from_response(answer, Attempt(writes=True, key=ObjectKey("", kind, "p", "a"), identity=TENANT))
    assert error.permanent
    assert error.reason.code == "Forbidden"
    assert error.reason.message.endswith(f'User "reconciler:tenant:payments" {RIGHT}')


@pytest.mark.parametrize(
    "right",
    [
        'cannot impersonate resource "users" in API group "" at the cluster scope',
        'cannot impersonate resource "serviceaccounts" in API group "" in the namespace "p"',
        'cannot impersonate-on:user-info:patch resource "configmaps" in API group "" in the namespace "p"',
    ],
)
@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_whom_the_daemon_may_not_write_as_is_named_with_where_to_grant_it(right: str, kind: str) -> None:
    answer = status(403, f'users "x" is forbidden: User "reconciler" {right}', "Forbidden")
    error = from_response(answer, Attempt(writes=True, key=ObjectKey("", kind, "p", "a"), identity=TENANT))
    assert isinstance(error, errors.ForbiddenError)
    assert error.permanent
    assert error.reason.code == "ImpersonationForbidden"
    assert "as user reconciler:tenant:payments (groups team-a)" in error.reason.message
    assert "deploy/README.md" in error.reason.message
    assert error.reason.message.endswith(f'User "reconciler" {right}')


def test_of_a_secret_nothing_but_the_missing_right_is_quoted() -> None:
    answer = status(403, 'secrets "a" is forbidden: exceeded quota: hunter2', "Forbidden")
    error = from_response(answer, Attempt(writes=True, key=ObjectKey("", "Secret", "p", "a"), identity=TENANT))
    assert error.reason.code == "Forbidden"
    assert "hunter2" not in error.reason.message


def test_conflicting_fields_are_named_with_their_managers() -> None:
    answer = status(
        409,
        "Apply failed with 2 conflicts",
        "Conflict",
        causes=[
            cause("FieldManagerConflict", 'conflict with "kubectl-edit"', ".data.k"),
            cause(
                "FieldManagerConflict", 'conflict with "other \\"man\\"" using v1 at 2026-01-01T00:00:00Z', ".data.m"
            ),
        ],
    )
    error = from_response(answer, WRITE)
    assert isinstance(error, errors.FieldConflictError)
    assert error.fields == (("kubectl-edit", ".data.k"), ('other "man"', ".data.m"))
    assert error.permanent
    assert "kubectl-edit" in error.reason.message


def test_an_immutable_field_asks_for_a_replacement_and_an_enum_does_not() -> None:
    immutable, enum = from_response(status(422, IMMUTABLE), WRITE), from_response(status(422, "Unsupported"), WRITE)
    assert isinstance(immutable, errors.InvalidError)
    assert isinstance(enum, errors.InvalidError)
    assert (immutable.immutable, enum.immutable) == (True, False)


@pytest.mark.parametrize(
    ("headers", "details", "expected"),
    [
        ({"retry-after": "7"}, {}, 7.0),
        ({"retry-after": "0"}, {}, None),
        ({"retry-after": "-3"}, {}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),
        ({"retry-after": "999999"}, {}, errors.RETRY_AFTER_MAX_S),
        ({"retry-after": "9" * 5000}, {}, None),
        ({}, {"retryAfterSeconds": 2}, 2.0),
        ({}, {"retryAfterSeconds": "2"}, None),
        ({}, {}, None),
    ],
)
def test_retry_after_is_read_and_bounded(
    headers: dict[str, str], details: dict[str, Any], expected: float | None
) -> None:
    answer = status(429, "slow down", "TooManyRequests", **details)
    error = from_response(Response(429, headers, answer.body), WRITE)
    assert error.retry_after_s == expected


def test_no_answer_is_ambiguous_only_for_a_write_that_was_sent() -> None:
    cases = [
        (TransportError("refused", sent=False), WRITE, Outcome.NOT_SENT),
        (TransportError("reset", sent=True), WRITE, Outcome.AMBIGUOUS),
        (TransportError("reset", sent=True), READ, Outcome.TEMPORARY),
        (TransportError("refused", sent=False), READ, Outcome.NOT_SENT),
    ]
    for transport_error, attempt, outcome in cases:
        error = from_transport(transport_error, attempt)
        assert (error.outcome, error.answered) == (outcome, False)


def test_a_secrets_content_is_never_quoted() -> None:
    key = ObjectKey("", "Secret", "p", "s")
    answer = status(
        422,
        'Secret "s" is invalid: data[password]: Invalid value: "hunter2": too short',
        "Invalid",
        causes=[cause("FieldValueInvalid", 'Invalid value: "hunter2"', "data[password]")],
    )
    error = from_response(answer, Attempt(writes=True, key=key))
    assert "hunter2" not in str(error)
    assert "data[password]" in str(error)


@pytest.mark.parametrize(
    ("text", "kept", "dropped"),
    [
        ("\x1b[31mred\x07 text\r\nnext", "next", "\x1b"),
        ("line\u202eeman\u2066", "line", "\u202e"),
        ("Authorization: Bearer abcdef0123456789", "Authorization", "abcdef0123456789"),
        ("https://user:pa55@example.com/x", "example.com", "pa55"),
        ("token=s3cr3t-value, code 5", "code 5", "s3cr3t-value"),
        ("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln in a header", "in a header", "eyJzdWIi"),
    ],
)
def test_messages_are_cleaned(text: str, kept: str, dropped: str) -> None:
    cleaned = errors.clean(text)
    assert kept in cleaned
    assert dropped not in cleaned


def test_messages_are_cut() -> None:
    error = from_response(status(403, "x" * 100_000, "Forbidden"), READ)
    assert len(error.reason.message) == errors.MESSAGE_MAX_CHARACTERS


@pytest.mark.parametrize(
    "hostile",
    [
        {"kind": "Status", "code": "410", "reason": ["Expired"], "details": [], "message": None},
        {"kind": "Status", "code": 409, "details": {"causes": "many"}},
        {"kind": "Status", "code": 409, "details": {"causes": [None, 5, {"reason": "FieldManagerConflict"}]}},
        {"kind": "Status", "code": True, "details": {"kind": [], "name": {}}},
    ],
)
def test_a_malformed_status_is_still_an_error_and_no_crash(hostile: dict[str, Any]) -> None:
    assert from_status(hostile, WRITE).reason.message
    assert from_response(Response(409, {}, json.dumps(hostile).encode()), WRITE).status == 409

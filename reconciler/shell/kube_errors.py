"""What an API server's "no" means for the caller.

An API server answers errors as `Status` objects, proxies answer pages, networks answer nothing. All become one
`KubeError` with a Reason fit for people and with the answer to the caller's only question, `outcome`: is the same
request refused for ever (PERMANENT), worth another try after `retry_after_s` (TEMPORARY), possibly done, so that it
must be read first (AMBIGUOUS), or certainly not done because it never left (NOT_SENT)? Subclasses exist where the lane
acts differently; nothing here retries anything.

    try:
        await cluster.apply(manifest, uid=uid, force=True, dry_run=False)
    except FieldConflictError as error:
        error.fields       # (("kubectl-edit", ".spec.image"),)
    except KubeError as error:
        error.outcome      # Outcome.AMBIGUOUS: read again before anything is repeated

Messages are cut, free of control characters and of what looks like a credential; of a Secret only the paths are quoted.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from reconciler.core.model import ObjectKey, Reason
from reconciler.shell.identity import Identity
from reconciler.shell.transport import Response, TransportError

MESSAGE_MAX_CHARACTERS = 600
CAUSES_MAX = 20
#: A server that asks for more than this is asked again anyway: nothing may be put to sleep from outside for a day.
RETRY_AFTER_MAX_S = 300.0


class Outcome(enum.StrEnum):
    """What is known of the request that failed."""

    PERMANENT = "permanent"  # refused, and the same request will be refused again
    TEMPORARY = "temporary"  # not done; the same request may succeed later
    AMBIGUOUS = "ambiguous"  # a write that may have happened: read before anything is repeated
    NOT_SENT = "not-sent"  # it never reached the server


class KubeError(Exception):
    """A request that failed. `status` is the HTTP status (0: none). `answered` says that an API server spoke, which is
    not so for silence and for a proxy's error page: it decides whether the cluster counts as heard."""

    def __init__(
        self,
        reason: Reason,
        *,
        outcome: Outcome = Outcome.PERMANENT,
        retry_after_s: float | None = None,
        status: int = 0,
        answered: bool = True,
    ) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.outcome = outcome
        self.retry_after_s = retry_after_s
        self.status = status
        self.answered = answered

    @property
    def permanent(self) -> bool:
        """The same request will be refused again."""
        return self.outcome is Outcome.PERMANENT

    @property
    def ambiguous(self) -> bool:
        """The write may have happened: re-read first."""
        return self.outcome is Outcome.AMBIGUOUS


class NotFoundError(KubeError):
    """The object is not there."""


class NamespaceMissingError(KubeError):
    """The object's namespace is not there."""


class KindMissingError(KubeError):
    """The cluster does not serve this kind at this version."""


class ObjectConflictError(KubeError):
    """409, or 422 on the uid: the object is not the one we read (changed, recreated, vanished, or there already).
    Read it again and judge it again."""


class FieldConflictError(KubeError):
    """Other managers own fields we apply without force: `fields` is (manager, field path) of each."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        managers, paths = sorted({manager for manager, _ in fields}), [path for _, path in fields]
        message = f"fields that we declare are owned by {', '.join(managers)}: {', '.join(paths)}"
        super().__init__(Reason("FieldConflict", clean(message)), status=409)
        self.fields = tuple(fields)


class InvalidError(KubeError):
    """The server refuses the content. `fields` are the paths it names; `immutable` says that one of them cannot be
    changed in place, so the object "needs replace"."""

    def __init__(
        self, reason: Reason, *, fields: tuple[str, ...] = (), immutable: bool = False, status: int = 422
    ) -> None:
        super().__init__(reason, status=status)
        self.fields = fields
        self.immutable = immutable


class SchemaMismatchError(KubeError):
    """This cluster's schema lacks a field we send, or types it differently. The server says 500 or 400; it is permanent
    all the same."""


class ForbiddenError(KubeError):
    """Our credentials do not permit it (or a quota or admission plugin refuses it). Permanent if the API server says
    so; if it is somebody's in front of it, temporary, and the cluster counts as one that does not answer."""


class DeniedError(KubeError):
    """An admission webhook or policy refused the content."""


class UnauthorizedError(KubeError):
    """Our credentials are not accepted at all. That is about the way to the cluster and not about what was sent: it
    passes when the token is renewed, and until then the cluster counts as one that does not answer."""


class GoneError(KubeError):
    """The resourceVersion or continue token is too old, or a list cannot be trusted to be whole: list again."""


class TerminatingError(KubeError):
    """The object's namespace is being deleted: wait."""


class DryRunRefusedError(KubeError):
    """An admission webhook does not support dry-run, so the server cannot tell what the write would do."""


class BusyError(KubeError):
    """429: the server asks us to slow down."""


class ServerError(KubeError):
    """The server, or something in front of it, failed."""


class UnreachableError(KubeError):
    """No answer."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was asked, as far as the meaning of the answer depends on it. `writes` is False for reads and dry-runs;
    `identity` is who was impersonated, None for nobody."""

    writes: bool
    key: ObjectKey | None = None
    identity: Identity | None = None

    @property
    def interrupted(self) -> Outcome:
        """The outcome of an attempt that broke off without a decision."""
        return Outcome.AMBIGUOUS if self.writes else Outcome.TEMPORARY

    @property
    def secret(self) -> bool:
        """True if the content must not be quoted."""
        return self.key is not None and self.key.group == "" and self.key.kind == "Secret"


READ = Attempt(writes=False)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_CREDENTIALS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 [redacted]"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?"), "[redacted]"),
    (re.compile(r"(?<=://)[^/\s@]+@"), "[redacted]@"),
    (re.compile(r"(?i)\b(token|password|secret|api[_-]?key)(\"?\s*[=:]\s*\"?)[^\s\",;&]+"), r"\1\2[redacted]"),
)
#: Refusals for ever that the server calls 500: a field its schema does not have, a value it cannot convert.
_SCHEMA_REFUSALS = ("failed to create typed patch object", "failed to convert new object")
#: How the API server's authorizer says which right is missing.
_MISSING_RIGHT = re.compile(
    r'User "[^"]{1,300}" cannot (?P<verb>[\w:-]{1,80}) resource "[^"]{1,300}" in API group "[^"]{0,300}"'
    r'( in the namespace "[^"]{1,300}"| at the cluster scope)?'
)
#: "field is immutable" is the general wording; StatefulSet says what may be updated, Service and Pod what "may not
#: change", a role binding that we "cannot change roleRef".
_FIXED = re.compile(r"immutable|updates to |(may not|cannot) (be )?change")
_CONFLICT_MANAGER = re.compile(r'conflict with ("(?:[^"\\]|\\.)*")')


def clean(text: str) -> str:
    """`text` on one line, without control characters and credentials, cut to MESSAGE_MAX_CHARACTERS."""
    # Cut before matching (a hostile body may be huge) with room for what redaction and folding take away.
    text = _CONTROL.sub(" ", text[: 4 * MESSAGE_MAX_CHARACTERS]).strip()
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text if len(text) <= MESSAGE_MAX_CHARACTERS else text[: MESSAGE_MAX_CHARACTERS - 1] + "…"


def from_transport(error: TransportError, attempt: Attempt) -> UnreachableError:
    """The meaning of "no answer". Raise it `from error`."""
    if not error.sent:
        reason = Reason(error.code or "Unreachable", clean(error.message) or "no connection")
        return UnreachableError(reason, outcome=Outcome.NOT_SENT, answered=False)
    reason = Reason("NoAnswer", clean(error.message) or "the connection ended before the answer")
    return UnreachableError(reason, outcome=attempt.interrupted, answered=False)


def from_response(response: Response, attempt: Attempt) -> KubeError:
    """The meaning of an answer that is not a success."""
    status = parse_status(response.body)
    if status is None:
        return _not_kubernetes(response, attempt)
    retry_after_s = _retry_after_s(response.headers, status)
    return from_status(status, attempt, code=response.status, retry_after_s=retry_after_s)


def parse_status(body: bytes) -> dict[str, Any] | None:
    """`body` as a Status object, None if it is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.get("kind") == "Status" else None


def from_status(
    status: Mapping[str, Any], attempt: Attempt, *, code: int = 0, retry_after_s: float | None = None
) -> KubeError:
    """The meaning of a Status object; `code` is the HTTP status where there is one (an ERROR event has none)."""
    code = code if code >= 400 else _integer(status.get("code"))
    refusal = _Refusal(
        code=code,
        name=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        details=status["details"] if isinstance(status.get("details"), dict) else {},
        attempt=attempt,
        retry_after_s=_retry_after_s({}, status) if retry_after_s is None else retry_after_s,
    )
    if _denied(refusal.message):
        return DeniedError(refusal.reason("Denied"), status=code)
    if code == 404:
        return _not_found(refusal)
    if code in (409, 422):
        return _conflict_or_invalid(refusal)
    if code == 410 or refusal.name in ("Expired", "Gone") or refusal.has_cause("ResourceVersionTooLarge"):
        return GoneError(refusal.reason("Gone"), outcome=Outcome.TEMPORARY, status=code)
    if code in (401, 403, 400):
        return _refused(refusal)
    if code == 429:
        return BusyError(
            refusal.reason("TooManyRequests"),
            outcome=Outcome.TEMPORARY,
            retry_after_s=refusal.retry_after_s,
            status=code,
        )
    if code >= 500:
        return _failed(refusal)
    return KubeError(refusal.reason(refusal.name or "UnexpectedAnswer"), status=code)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The parts of a Status that decide its meaning."""

    code: int
    name: str
    message: str
    details: Mapping[str, Any]
    attempt: Attempt
    retry_after_s: float | None

    @property
    def causes(self) -> list[Mapping[str, Any]]:
        causes = self.details.get("causes")
        found: list[Mapping[str, Any]] = causes if isinstance(causes, list) else []
        return [cause for cause in found[:CAUSES_MAX] if isinstance(cause, dict)]

    def has_cause(self, name: str) -> bool:
        return any(cause.get("reason") == name for cause in self.causes)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(clean(str(cause["field"])) for cause in self.causes if cause.get("field")))

    def reason(self, code: str) -> Reason:
        """`code` with the server's words; of a Secret only where, never what."""
        if not self.attempt.secret:
            return Reason(code, clean(self.message) or f"HTTP status {self.code}")
        where = ", ".join(self.fields)
        words = f"the server refused the Secret (HTTP status {self.code}, {clean(self.name) or 'no reason given'})"
        return Reason(code, clean(f"{words}: {where}") if where else words)


def _not_found(refusal: _Refusal) -> KubeError:
    """404 is three things: no such object, no such namespace, no such kind."""
    kind, name = str(refusal.details.get("kind") or ""), str(refusal.details.get("name") or "")
    key = refusal.attempt.key
    if kind == "namespaces" and not refusal.details.get("group") and (key is None or key.kind != "Namespace"):
        return NamespaceMissingError(refusal.reason("NamespaceMissing"), status=404)
    if not name:
        return KindMissingError(refusal.reason("KindMissing"), status=404)
    return NotFoundError(refusal.reason("NotFound"), status=404)


def _conflict_or_invalid(refusal: _Refusal) -> KubeError:
    """409 and 422: somebody else was first, or the content is wrong."""
    conflicts = [cause for cause in refusal.causes if cause.get("reason") == "FieldManagerConflict"]
    if conflicts:
        return FieldConflictError(
            [(_manager(str(cause.get("message"))), clean(str(cause.get("field")))) for cause in conflicts]
        )
    if refusal.code == 409:
        code = "AlreadyExists" if refusal.name == "AlreadyExists" else "Conflict"
        return ObjectConflictError(refusal.reason(code), outcome=Outcome.TEMPORARY, status=409)
    if "metadata.uid" in refusal.fields:
        return ObjectConflictError(refusal.reason("Recreated"), outcome=Outcome.TEMPORARY, status=422)
    immutable = _FIXED.search(refusal.message) is not None
    return InvalidError(
        refusal.reason("NeedsReplace" if immutable else "Invalid"), fields=refusal.fields, immutable=immutable
    )


def _refused(refusal: _Refusal) -> KubeError:
    """400, 401 and 403."""
    if "does not support dry run" in refusal.message:
        return DryRunRefusedError(refusal.reason("DryRunRefused"), status=refusal.code)
    if refusal.code == 401:
        return UnauthorizedError(refusal.reason("Unauthorized"), outcome=Outcome.TEMPORARY, status=401, answered=False)
    if refusal.code == 403:
        if refusal.has_cause("NamespaceTerminating"):
            return TerminatingError(refusal.reason("NamespaceTerminating"), outcome=Outcome.TEMPORARY, status=403)
        return ForbiddenError(_forbidden(refusal), status=403)
    if "strict decoding error" in refusal.message:
        return SchemaMismatchError(refusal.reason("SchemaMismatch"), status=400)
    return InvalidError(refusal.reason("BadRequest"), status=400)


def _forbidden(refusal: _Refusal) -> Reason:
    """Who may not do what. The authorizer's own sentence holds nothing of the object, so it is quoted of a Secret, too;
    quota and admission plugins say 403 in other words."""
    reason = refusal.reason("Forbidden")
    right = _MISSING_RIGHT.search(refusal.message[: 4 * MESSAGE_MAX_CHARACTERS])
    if right is None:
        return reason
    if refusal.attempt.secret:
        reason = Reason(reason.code, clean(f"{reason.message}: {right[0]}"))
    if right["verb"].startswith("impersonate"):
        who = f"the daemon may not write as {refusal.attempt.identity} on this cluster"
        return Reason("ImpersonationForbidden", clean(f"{who}, grant it (deploy/README.md): {right[0]}"))
    return reason


def _failed(refusal: _Refusal) -> KubeError:
    """5xx: most of it passes, some of it never does, and of a write nobody knows whether it happened."""
    if refusal.message.startswith(_SCHEMA_REFUSALS):
        return SchemaMismatchError(refusal.reason("SchemaMismatch"), status=refusal.code)
    # Admission runs before anything is stored, so an unreachable webhook means that nothing happened.
    before_storage = "failed calling webhook" in refusal.message
    outcome = Outcome.TEMPORARY if before_storage else refusal.attempt.interrupted
    code = "WebhookFailed" if before_storage else (clean(refusal.name) or "ServerError")
    return ServerError(refusal.reason(code), outcome=outcome, retry_after_s=refusal.retry_after_s, status=refusal.code)


def _not_kubernetes(response: Response, attempt: Attempt) -> KubeError:
    """An answer without a Status: the API server's own "404 page not found", or something in front of it."""
    if response.status == 404 and response.body.strip() == b"404 page not found":
        return KindMissingError(Reason("KindMissing", "the server does not serve this path"), status=404)
    retry_after_s = _retry_after_s(response.headers, {})
    if response.status == 429:
        reason = Reason("TooManyRequests", "too many requests")
        return BusyError(reason, outcome=Outcome.TEMPORARY, retry_after_s=retry_after_s, status=429)
    if response.status in (401, 403):
        # A gateway turns everybody away while its identity provider is down: that is about the way to the cluster and
        # says nothing of what we sent.
        kind = UnauthorizedError if response.status == 401 else ForbiddenError
        words = f"HTTP status {response.status} that is not the API server's: is something in front of it?"
        reason = Reason(kind.__name__.removesuffix("Error"), words)
        return kind(
            reason,
            outcome=Outcome.TEMPORARY,
            retry_after_s=retry_after_s,
            status=response.status,
            answered=False,
        )
    return unexpected_answer(
        f"HTTP status {response.status} and no Kubernetes status in it", attempt, response.status, retry_after_s
    )


def unexpected_answer(what: str, attempt: Attempt, status: int = 0, retry_after_s: float | None = None) -> ServerError:
    """Something answered, but not as an API server does: a proxy's page, a body cut short."""
    return ServerError(
        Reason("UnexpectedAnswer", clean(what)),
        outcome=attempt.interrupted,
        retry_after_s=retry_after_s,
        status=status,
        answered=False,
    )


def _denied(message: str) -> bool:
    """A webhook may give its refusal any code, 500 included; the wording around it is the server's own."""
    by_webhook = "admission webhook" in message and "denied the request" in message
    return by_webhook or ("ValidatingAdmissionPolicy" in message and "denied request" in message)


def _manager(message: str) -> str:
    """The manager in `conflict with "kubectl-edit" using apps/v1 at ...`."""
    match = _CONFLICT_MANAGER.search(message)
    if match is None:
        return "another manager"
    try:
        return clean(str(orjson.loads(match.group(1))))
    except orjson.JSONDecodeError:
        return clean(match.group(1).strip('"'))


def _retry_after_s(headers: Mapping[str, str], status: Mapping[str, Any]) -> float | None:
    """Seconds to wait, from the header or the Status; a date is not read, for it needs a clock we share."""
    header = headers.get("retry-after", "").strip()
    details = status.get("details")
    in_body = _integer(details.get("retryAfterSeconds")) if isinstance(details, dict) else 0
    seconds = int(header) if header.isascii() and header.isdigit() and len(header) < 10 else in_body
    return min(float(seconds), RETRY_AFTER_MAX_S) if seconds > 0 else None


def _integer(value: object) -> int:
    """`value` if it is an integer, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

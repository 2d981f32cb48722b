"""Admission webhooks: who else has a say in a write, and what the API server makes of their answers.

A mutating webhook may change an object after the request was merged into it and before it is validated; a validating
one may refuse the result. Neither is a field manager: what it adds has no owner, and what it changes stays its
applier's. So a webhook that corrects a field of ours at every write makes a difference that no apply ends: only a
dry-run tells that an apply would leave the object as it is.

    def sidecar(review: Review) -> Answer:
        return Answer(patch=[{"op": "add", "path": "/metadata/labels/injected", "value": "yes"}])

    server.webhooks.append(Webhook("sidecar.shop.example.com", sidecar, mutating=True, namespace="shop"))
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.sim import problems
from reconciler.sim.json_patch import PatchError, json_patch
from reconciler.sim.problems import ApiError

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Review:
    """What a webhook is asked: may this be done? `operation` is CREATE, UPDATE or DELETE (an apply is one of the first
    two); `object` is None for a DELETE and `old_object` for a CREATE. Neither may be modified."""

    operation: str
    resource: str
    subresource: str
    namespace: str
    name: str
    object: Object | None
    old_object: Object | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What it says: allowed as it is, allowed with a JSON patch, or refused with a Status of its own choice (a code
    below 400 becomes 400)."""

    allowed: bool = True
    patch: Sequence[Object] = ()
    message: str = ""
    reason: str = ""
    code: int = 0


class Fault(enum.Enum):
    """How a webhook fails to answer; the value is how the API server words it."""

    DOWN = 'Post "{url}": dial tcp 127.0.0.1:443: connect: connection refused'
    SLOW = 'Post "{url}": context deadline exceeded'
    HANG_UP = 'Post "{url}": EOF'
    ERROR = 'an error on the server ("out of order") has prevented the request from succeeding'
    MALFORMED = 'no kind "ConfigMap" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111"'


Respond = Callable[[Review], Answer]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook. `name` has at least three parts; webhooks are called in the order of their names. `namespace` is the
    only one whose objects it sees, "" for all; `resources` are plurals, with a subresource where one is meant. Of
    `side_effects` "Some" and "Unknown" a dry-run is refused. `failure_policy` says whether a fault refuses the write
    (Fail) or is overlooked (Ignore). `reinvocation` IfNeeded: it is asked again when a later one changed the object."""

    name: str
    respond: Respond | Fault
    mutating: bool = False
    namespace: str = ""
    operations: tuple[str, ...] = ("CREATE", "UPDATE")
    resources: tuple[str, ...] = ("*",)
    side_effects: str = "None"
    failure_policy: str = "Fail"
    timeout_s: int = 10
    reinvocation: str = "Never"

    def concerns(self, review: Review) -> bool:
        """Whether it is called for this review."""
        path = f"{review.resource}/{review.subresource}" if review.subresource else review.resource
        return (
            self.namespace in ("", review.namespace)
            and review.operation in self.operations
            and (path in self.resources or ("*" in self.resources and not review.subresource))
        )


def mutated(webhooks: Sequence[Webhook], review: Review) -> Review:
    """The review after all mutating webhooks it concerns. ApiError when one of them refuses."""
    called = sorted((one for one in webhooks if one.mutating and one.concerns(review)), key=lambda one: one.name)
    changed_by = -1
    for position, webhook in enumerate(called):
        after = _patched(webhook, review)
        changed_by = position if after is not review else changed_by
        review = after
    for webhook in called[: max(changed_by, 0)]:
        if webhook.reinvocation == "IfNeeded":
            review = _patched(webhook, review)
    return review


def validated(webhooks: Sequence[Webhook], review: Review) -> None:
    """Ask all validating webhooks that the review concerns. ApiError when one of them refuses."""
    for webhook in sorted(webhooks, key=lambda one: one.name):
        if not webhook.mutating and webhook.concerns(review):
            answer = _ask(webhook, review)
            if answer.patch and answer.allowed:
                why = "received invalid webhook response: validating webhook may not return response.patch"
                _failed(webhook, why)


def _patched(webhook: Webhook, review: Review) -> Review:
    answer = _ask(webhook, review)
    if not answer.patch:
        return review
    try:
        return replace(review, object=json_patch(review.object, answer.patch))
    except PatchError as error:
        raise problems.internal_error(str(error)) from error


def _ask(webhook: Webhook, review: Review) -> Answer:
    """The answer of one webhook; a fault that its policy overlooks counts as an allowance."""
    if review.dry_run and webhook.side_effects not in ("None", "NoneOnDryRun"):
        raise problems.bad_request(f'admission webhook "{webhook.name}" does not support dry run')
    if isinstance(webhook.respond, Fault):
        url = f"https://127.0.0.1:443/{webhook.name}?timeout={webhook.timeout_s}s"
        _failed(webhook, f"failed to call webhook: {webhook.respond.value.format(url=url)}")
        return Answer()
    answer = webhook.respond(review)
    if not answer.allowed:
        raise ApiError(_refusal(webhook, answer))
    return answer


def _refusal(webhook: Webhook, answer: Answer) -> problems.Status:
    denied = f'admission webhook "{webhook.name}" denied the request'
    why = answer.message or answer.reason
    return problems.status(
        max(answer.code, 400), f"{denied}: {why}" if why else f"{denied} without explanation", reason=answer.reason
    )


def _failed(webhook: Webhook, why: str) -> None:
    if webhook.failure_policy == "Fail":
        raise problems.internal_error(f'failed calling webhook "{webhook.name}": {why}')

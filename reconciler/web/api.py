"""The HTTP API: `/api/v1/...`, one handler per question or order.

Handlers read parameters, ask `shell/queries.py` and friends, and answer JSON. Errors have one shape,
`{"error": {"code", "message", "hint"}}`: 400 and 404 for what was asked wrongly, 409 for an order that does not fit,
401 and 403 for who may not, 500 for what nobody expected (logged, and without details).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from reconciler.core.model import Rollout
from reconciler.shell import live_view, queries, steer
from reconciler.shell.asking import ANSWERS_MAX, AskError, RefusedError
from reconciler.shell.daemon import Daemon
from reconciler.shell.explain import explain
from reconciler.shell.logs import clean_text, event
from reconciler.shell.store.errors import StoreError
from reconciler.web.access import ForbiddenError

_LOG = logging.getLogger(__name__)

BODY_BYTES_MAX = 64 * 1024
ACTOR_LENGTH_MAX = 100
NOT_FOUND_PREFIX = "unknown-"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[Daemon, web.Request], Awaitable[Any]]


# ---- answers -------------------------------------------------------------------------------------------------------


def answer(value: Any, status: int = 200) -> web.Response:
    """`value` as JSON."""
    body = json.dumps(value, ensure_ascii=False).encode()
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def refusal(status: int, code: str, message: str, hint: str = "") -> web.Response:
    """An error in the one shape there is."""
    return answer({"error": {"code": code, "message": message, "hint": hint}}, status)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as JSON; what nobody expected is logged and hidden."""
    try:
        return await handler(request)
    except ForbiddenError as error:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        response = refusal(error.status, error.code, error.message, error.hint)
        response.headers.update(headers)
        return response
    except RefusedError as error:
        return refusal(409, error.code, error.message, error.hint)
    except AskError as error:
        status = 404 if error.code.startswith(NOT_FOUND_PREFIX) else 400
        return refusal(status, error.code, error.message, error.hint)
    except web.HTTPException as error:
        return refusal(
            error.status,
            "http",
            f"{request.method} {request.path}: {error.reason}",
            "docs/design/0006-http-api.md lists what there is",
        )
    except StoreError as error:
        event(_LOG, logging.ERROR, "api.store_failed", path=request.path, error=str(error))
        return refusal(503, "store", "the daemon's store does not answer", "see its log")
    except Exception:  # noqa: BLE001 - one request's mistake must not end the daemon; it is logged with its traceback
        event(_LOG, logging.ERROR, "api.failed", path=request.path, exc_info=True)
        return refusal(500, "internal", "the daemon made a mistake", "see its log")


# ---- parameters ----------------------------------------------------------------------------------------------------


def _text(request: web.Request, name: str) -> str | None:
    return request.query.get(name) or None


def _needed(request: web.Request, name: str) -> str:
    value = _text(request, name)
    if value is None:
        raise AskError("missing-parameter", f"the parameter {name!r} is missing")
    return value


def _number(request: web.Request, name: str, default: int) -> int:
    text = _text(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise AskError("invalid-value", f"{name}={clean_text(text, 40)!r} is no whole number")
    return int(text)


def _flag(request: web.Request, name: str) -> bool | None:
    text = _text(request, name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise AskError("invalid-value", f"{name}={clean_text(text, 40)!r} is neither true nor false")
    return text == "true"


async def _order(request: web.Request) -> tuple[steer.Order, dict[str, Any]]:
    """Who orders and why, from the body; the rest of the body as well. JSON only: a form of another site is not."""
    if request.content_type != "application/json":
        raise AskError("invalid-body", "orders are JSON", "send Content-Type: application/json")
    try:
        body = json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise AskError("invalid-body", "the body is not valid JSON") from error
    if not isinstance(body, dict):
        raise AskError("invalid-body", "the body is not a JSON object")
    for name in body:
        if name not in ("actor", "reason", "app") or not isinstance(body[name], str):
            raise AskError(
                "invalid-body", f"unexpected {clean_text(str(name), 40)!r}", "actor, reason and app are strings"
            )
    actor = clean_text(body.get("actor", ""), ACTOR_LENGTH_MAX).strip() or "unknown"
    return steer.Order(actor, clean_text(body.get("reason", ""), steer.REASON_LENGTH_MAX).strip()), body


# ---- questions -----------------------------------------------------------------------------------------------------


async def _status(daemon: Daemon, _: web.Request) -> Any:
    return await queries.status(daemon)


async def _apps(daemon: Daemon, _: web.Request) -> Any:
    return await queries.apps(daemon)


async def _clusters(daemon: Daemon, _: web.Request) -> Any:
    return queries.clusters(daemon)


async def _rollouts(daemon: Daemon, request: web.Request) -> Any:
    return await queries.rollouts(
        daemon,
        application=_text(request, "app"),
        active=_flag(request, "active"),
        limit=_number(request, "limit", 50),
    )


async def _rollout(daemon: Daemon, request: web.Request) -> Any:
    return await queries.rollout(daemon, request.match_info["id"])


async def _explain(daemon: Daemon, request: web.Request) -> Any:
    return await explain(daemon, _needed(request, "app"), _text(request, "cluster"))


async def _diff(daemon: Daemon, request: web.Request) -> Any:
    against = _text(request, "against") or "assigned"
    return await live_view.diff(daemon, _text(request, "app"), _text(request, "cluster"), against)


async def _health(daemon: Daemon, request: web.Request) -> Any:
    return await live_view.health(daemon, _needed(request, "app"), _text(request, "cluster"))


async def _events(daemon: Daemon, request: web.Request) -> Any:
    return await queries.events(
        daemon,
        application=_text(request, "app"),
        rollout_id=_text(request, "rollout"),
        after=_number(request, "after", 0),
        limit=_number(request, "limit", 50),
    )


async def _problems(daemon: Daemon, _: web.Request) -> Any:
    return await queries.problems(daemon)


async def _targets(daemon: Daemon, request: web.Request) -> Any:
    names = request.query.getall("app", [])[:ANSWERS_MAX]
    found = await queries.targets(daemon, names)
    return {**found, **await live_view.flink_status(daemon, names)}


async def _release(daemon: Daemon, request: web.Request) -> Any:
    return await live_view.release(daemon, request.match_info["digest"])


# ---- orders --------------------------------------------------------------------------------------------------------


async def _sync(daemon: Daemon, request: web.Request) -> Any:
    order, body = await _order(request)
    return {"sources": await steer.sync(daemon, body.get("app") or _text(request, "app"), order)}


def _steering(verb: Callable[[Daemon, str, steer.Order], Awaitable[Rollout]]) -> Answer:
    async def carry_out(daemon: Daemon, request: web.Request) -> Any:
        order, _ = await _order(request)
        done = await verb(daemon, request.match_info["id"], order)
        return await queries.rollout(daemon, done.id)

    return carry_out


QUESTIONS: dict[str, Answer] = {
    "/api/v1/status": _status,
    "/api/v1/apps": _apps,
    "/api/v1/clusters": _clusters,
    "/api/v1/rollouts": _rollouts,
    "/api/v1/rollouts/{id}": _rollout,
    "/api/v1/explain": _explain,
    "/api/v1/diff": _diff,
    "/api/v1/health": _health,
    "/api/v1/events": _events,
    "/api/v1/problems": _problems,
    "/api/v1/targets": _targets,
    "/api/v1/releases/{digest}": _release,
}
ORDERS: dict[str, Answer] = {
    "/api/v1/sync": _sync,
    "/api/v1/rollouts/{id}/pause": _steering(steer.pause),
    "/api/v1/rollouts/{id}/resume": _steering(steer.resume),
    "/api/v1/rollouts/{id}/abort": _steering(steer.abort),
    "/api/v1/rollouts/{id}/retry": _steering(steer.retry),
}


def add_routes(application: web.Application, daemon: Daemon) -> None:
    """All of them."""

    def handler(ask: Answer) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return answer(await ask(daemon, request))

        return handle

    for path, ask in QUESTIONS.items():
        application.router.add_get(path, handler(ask))
    for path, ask in ORDERS.items():
        application.router.add_post(path, handler(ask))

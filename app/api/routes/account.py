"""The routes about the caller: signing in and out, and what is left of its shares."""

from __future__ import annotations

import json
import time

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.api import schemas
from app.api.auth.authentication import Authentication
from app.api.auth.caller import Caller
from app.api.auth.sessions import COOKIE_NAME, SESSION_SECONDS
from app.api.dependencies import AppContext, get_caller, get_context
from app.api.fair_use import usage_view
from app.api.middleware.access_control import SESSION_PATH, client_address
from app.errors import BadRequest

router = APIRouter(tags=["account"])


@router.get(
    "/api/v1/me",
    summary="Who you are, and what is left",
    responses={200: {"model": schemas.MeShape}, **schemas.problems(401, 429)},
)
async def me(request: Request) -> Response:
    """Name, role, owner, and of each limit what is used and left; null where there is none."""
    context, caller = get_context(request), get_caller(request)
    shares = await context.run(usage_view, request, context)
    return JSONResponse(
        {
            "name": caller.name,
            "role": caller.role.value,
            "owner": caller.owner,
            "expires_at": caller.expires_at,
            **shares,
        },
    )


@router.post(SESSION_PATH, summary="Sign in", responses=schemas.problems(400, 401, 403, 429, 503))
async def sign_in(request: Request) -> Response:
    """Exchange the key or token (in its header, or as JSON `{"key": "..."}` or `{"token": "..."}`) for a cookie.

    The session of a token ends with it. With nothing but the cookie of a session it stays that session, with its end.
    """
    context = get_context(request)
    authentication = context.authentication
    if not authentication.required:
        return JSONResponse({"signed_in": True, "key_required": False})
    caller = await _caller_of_body(request, context)
    if caller is None and request.scope["state"]["session_id"] is not None:
        cookie, life_seconds = _kept_session(request, authentication)
    else:
        cookie, life_seconds = authentication.sessions.open(caller or get_caller(request))
    answer = JSONResponse({"signed_in": True, "key_required": True})
    answer.set_cookie(
        COOKIE_NAME,
        cookie,
        max_age=life_seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.delete(SESSION_PATH, summary="Sign out", status_code=204, response_class=Response)
async def sign_out(request: Request) -> Response:
    """End the session, wherever its cookie was copied to, and take the cookie out of the browser."""
    context = get_context(request)
    authentication = context.authentication
    session = authentication.session_of(request.headers)
    if session is not None:
        authentication.sessions.forget([session.id])
        context.job_events.wake_all()  # who waits in this session ends now
        await context.run(context.store.accounts.end_session, session.id, context.wall() + SESSION_SECONDS)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE_NAME, path="/", httponly=True, samesite="strict")
    return answer


def _kept_session(request: Request, authentication: Authentication) -> tuple[str, int]:
    """The request's own cookie, and what is left of its life in seconds: who copied one cannot make another of it."""
    session = authentication.session_of(request.headers)
    if session is None:  # signed out meanwhile
        raise _no_key()
    return request.cookies[COOKIE_NAME], int(session.ends_at - time.time())


def _no_key() -> BadRequest:
    return BadRequest("bad_request", 'Send the key as JSON: {"key": "..."}.')


async def _caller_of_body(request: Request, context: AppContext) -> Caller | None:
    """The caller behind the key or token in the JSON body; a wrong one counts against the address, as in a header.

    None for a body without either, where the request brought a key, a token or a session otherwise.
    """
    try:
        body = json.loads(await request.body())
        kind = "token" if "token" in body else "key"
        presented = body[kind]
    except (ValueError, KeyError, TypeError, RecursionError):
        presented = None
    if presented is None and request.scope["state"]["caller"] is not None:
        return None
    if not isinstance(presented, str):
        raise _no_key()
    authentication = context.authentication
    check = authentication.check_token if kind == "token" else authentication.check_key
    return await check(presented.encode(errors="surrogatepass"), client_address(request.scope))

"""What a submission leaves in its rows beside the options: its request's id, its trace, and whom to tell at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping

from starlette.requests import Request

from app.api.dependencies import AppContext, get_context
from app.api.problems import get_request_id
from app.errors import Conflict, Unprocessable
from app.store import JobOrigin

WEBHOOK_FIELD = "webhook_url"


def origin_of(request: Request) -> JobOrigin:
    """What is known before the body was read."""
    return JobOrigin(get_request_id(request), get_context(request).tracer.traceparent())


def with_webhook(context: AppContext, origin: JobOrigin, fields: MutableMapping[str, object]) -> JobOrigin:
    """The same with the form's `webhook_url`, which is taken out, so that options are left.

    Raises `Conflict` `webhooks_off` where there are none, or `Unprocessable` `webhook_refused`.
    """
    url = fields.pop(WEBHOOK_FIELD, "")
    if url == "":
        return origin
    if context.webhook_addresses is None:
        raise Conflict("webhooks_off", "This service sends no webhooks (WEBHOOK_SECRET is not set); leave it out.")
    if not isinstance(url, str):
        raise Unprocessable("webhook_refused", "webhook_url must be a text.")
    context.webhook_addresses.check(url)
    return dataclasses.replace(origin, webhook_url=url)

"""Webhooks as the settings describe them: the rule for addresses, and what delivers where there is a secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from app.api import views
from app.metrics import Metrics
from app.settings import Settings
from app.store import Job, Store
from app.webhooks.addresses import WebhookAddresses

if TYPE_CHECKING:
    from app.webhooks.delivery import WebhookDelivery


def webhook_addresses_of(settings: Settings) -> WebhookAddresses | None:
    """Which addresses may be told; None without a secret, and then no webhooks are sent."""
    return WebhookAddresses(settings.webhook_hosts) if settings.webhook_secrets else None


def open_webhook_delivery(settings: Settings, store: Store, metrics: Metrics) -> WebhookDelivery | None:
    """What delivers, not started yet; None without a secret."""
    addresses = webhook_addresses_of(settings)
    if addresses is None:
        return None
    from app.outbound.ssrf_safe_transport import GuardedNetwork  # with it comes an HTTP client
    from app.webhooks.delivery import WebhookDelivery
    from app.webhooks.sender import WebhookSender
    from app.webhooks.signing import read_secret

    retention_seconds = settings.retention_minutes * 60

    def render(job: Job) -> bytes:
        return json.dumps(views.job_view(job, 0, retention_seconds)).encode()

    return WebhookDelivery(
        store,
        metrics,
        addresses=addresses,
        keys=[read_secret(secret.get_secret_value()) for secret in settings.webhook_secrets],
        render=render,
        send=WebhookSender(GuardedNetwork()).send,
    )

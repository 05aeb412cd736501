"""Photos, jobs and attempts as rows, which are the truth: the `Store` protocol, and `SqlStore` over SQLite."""

from app.store.accounts import Accounts, OwnerUsage, Shares, next_day
from app.store.changes import Revision
from app.store.database import may_be_committed
from app.store.idempotency import HeldKey
from app.store.leases import LeaseSweep
from app.store.protocol import LEASE_SECONDS, MAX_LAPSES, MAX_TRIES, Library, Store
from app.store.queries import Counts
from app.store.records import (
    NO_ORIGIN,
    Attempt,
    AttemptStatus,
    Job,
    JobOrigin,
    JobSummary,
    NewPhoto,
    NewVersion,
    Photo,
    PhotoStatus,
    Result,
    SentMask,
    WebhookState,
    WebhookStatus,
)
from app.store.removal import Removal
from app.store.schema import LIVE_SECONDS
from app.store.sql_store import SqlStore
from app.store.webhooks import DueWebhook, Webhooks
from app.store.workers import LiveWorker, Workers

__all__ = [
    "LEASE_SECONDS",
    "LIVE_SECONDS",
    "MAX_LAPSES",
    "MAX_TRIES",
    "NO_ORIGIN",
    "Accounts",
    "Attempt",
    "AttemptStatus",
    "Counts",
    "DueWebhook",
    "HeldKey",
    "Job",
    "JobOrigin",
    "JobSummary",
    "LeaseSweep",
    "Library",
    "LiveWorker",
    "NewPhoto",
    "NewVersion",
    "OwnerUsage",
    "Photo",
    "PhotoStatus",
    "Removal",
    "Result",
    "Revision",
    "SentMask",
    "Shares",
    "SqlStore",
    "Store",
    "WebhookState",
    "WebhookStatus",
    "Webhooks",
    "Workers",
    "may_be_committed",
    "next_day",
]

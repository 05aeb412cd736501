"""Photos, jobs and attempts as rows, which are the truth: the `Store` protocol, and `SqlStore` over SQLite."""

from app.store.accounts import Accounts, OwnerUsage, next_day
from app.store.changes import Revision
from app.store.leases import LeaseSweep
from app.store.protocol import LEASE_SECONDS, MAX_LAPSES, MAX_TRIES, Library, Store
from app.store.queries import Counts
from app.store.records import (
    Attempt,
    AttemptStatus,
    Job,
    JobSummary,
    NewPhoto,
    NewVersion,
    Photo,
    PhotoStatus,
    Result,
)
from app.store.removal import Removal
from app.store.sql_store import SqlStore
from app.store.workers import LIVE_SECONDS, LiveWorker, Workers

__all__ = [
    "LEASE_SECONDS",
    "LIVE_SECONDS",
    "MAX_LAPSES",
    "MAX_TRIES",
    "Accounts",
    "Attempt",
    "AttemptStatus",
    "Counts",
    "Job",
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
    "SqlStore",
    "Store",
    "Workers",
    "next_day",
]

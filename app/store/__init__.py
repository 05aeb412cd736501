"""Photos, jobs and attempts in SQL: the rows are the truth. It knows nothing of HTTP, pictures or files."""

from app.store.library import Library
from app.store.queries import Counts
from app.store.records import Attempt, AttemptStatus, Job, NewPhoto, NewVersion, Photo, PhotoStatus, Result
from app.store.removal import Removal
from app.store.store import MAX_TRIES, Store

__all__ = [
    "MAX_TRIES",
    "Attempt",
    "AttemptStatus",
    "Counts",
    "Job",
    "Library",
    "NewPhoto",
    "NewVersion",
    "Photo",
    "PhotoStatus",
    "Removal",
    "Result",
    "Store",
]

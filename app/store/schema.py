"""The tables, their indexes, and how a row becomes a record. Portable SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    select,
    text,
)

from app.notices import Notice
from app.stages import Stage
from app.store.records import Attempt, AttemptStatus, PhotoStatus

VERSION = 3
ACTIVE = (AttemptStatus.QUEUED.value, AttemptStatus.PROCESSING.value)
ENDED = tuple(status.value for status in AttemptStatus if status.ended)

metadata = MetaData()


def _one_of(column: str, words: type[AttemptStatus] | type[PhotoStatus]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(word.value) for word in words)})")


photos = Table(
    "photos",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("mime", String(40), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("status", String(12), nullable=False),
    Column("status_before", String(12)),  # what a failed or cancelled attempt puts back
    Column("selected_attempt_id", String(32)),  # the result that its owner keeps
    Column("created_at", Float, nullable=False),
    _one_of("status", PhotoStatus),
)

# Photos that were uploaded by themselves, to be restored again and again; the uploads of jobs are not among them. Here
# equal bytes of one owner are one photo, and a photo lives on after its jobs, until it was not used for long enough.
library = Table(
    "library",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("photo_id", String(32), ForeignKey("photos.id"), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("used_at", Float, nullable=False),
    UniqueConstraint("owner", "sha256"),
    Index("library_by_owner", "owner", "number"),
    sqlite_autoincrement=True,
)

# `number` is the order of submission: clocks jump, counters do not, and a number is never given twice.
jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("options_json", Text, nullable=False),
    Index("jobs_by_owner", "owner", "number"),
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("job_id", String(32), ForeignKey("jobs.id"), nullable=False),
    Column("photo_id", String(32), ForeignKey("photos.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", String(12), nullable=False),
    Column("backend", String(20), nullable=False),
    Column("options_json", Text, nullable=False),
    Column("progress", Float, nullable=False, default=0.0),
    Column("stage", String(20), nullable=False, default=Stage.WAITING.value),
    Column("tries", Integer, nullable=False, default=0),
    Column("claim", String(32)),
    Column("worker", Text),  # host and process of the run, for people
    Column("lease_until", Float),  # of the claim, by the database's clock; None: of a version without leases
    Column("notified_at", Float),  # when a sweep last saw it wait, by the database's clock
    Column("sent", Boolean, nullable=False, default=False, server_default=false()),  # money may be spent: never rerun
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("version", Integer, nullable=False, default=1, server_default=text("1")),  # of the result
    Column("result_name", String(64)),
    Column("result_mime", String(40)),
    Column("result_width", Integer),
    Column("result_height", Integer),
    Column("result_bytes", Integer),
    Column("model", String(100)),
    Column("seconds", Float),
    Column("faces_json", Text, nullable=False, default="[]"),
    Column("warnings_json", Text, nullable=False, default="[]"),
    Column("params_json", Text, nullable=False, default="{}"),
    Column("error_code", String(60)),
    Column("error_message", Text),
    _one_of("status", AttemptStatus),
    Index("attempts_by_status", "status", "number"),
    Index("attempts_by_job", "job_id", "position"),
    Index("attempts_by_photo", "photo_id"),
    sqlite_autoincrement=True,
)

_active = attempts.c.status.in_(ACTIVE)
Index("one_active_attempt_per_photo", attempts.c.photo_id, unique=True, sqlite_where=_active, postgresql_where=_active)

_FACTS_AS_JSON = {"faces_json": "faces", "warnings_json": "warnings", "params_json": "params"}


def select_attempts() -> Select[Any]:
    """Attempts joined with what `Attempt` needs of the photo, in the order of submission."""
    return (
        select(
            attempts,
            photos.c.name.label("original_filename"),
            photos.c.bytes.label("photo_bytes"),
            photos.c.width.label("photo_width"),
            photos.c.height.label("photo_height"),
        )
        .join_from(attempts, photos, attempts.c.photo_id == photos.c.id)
        .order_by(attempts.c.number)
    )


def attempt_of(row: Row[Any]) -> Attempt:
    """One row of `select_attempts` as a record."""
    values: dict[str, Any] = dict(row._mapping)
    del values["number"], values["notified_at"]
    for column, field in _FACTS_AS_JSON.items():
        facts = json.loads(values.pop(column))
        values[field] = tuple(facts) if isinstance(facts, list) else facts
    values["warnings"] = tuple(Notice(**row) for row in values["warnings"])
    values["status"] = AttemptStatus(values["status"])
    return Attempt(**values)


def as_json(value: Mapping[str, Any] | tuple[Mapping[str, Any], ...]) -> str:
    """Facts for a JSON column."""
    return json.dumps(value, ensure_ascii=False)

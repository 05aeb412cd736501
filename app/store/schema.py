"""The tables, their indexes, and how a row becomes a record. Portable SQL."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
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
    TypeDecorator,
    UniqueConstraint,
    false,
    select,
    text,
)
from sqlalchemy.types import TypeEngine

from app.notices import Notice
from app.stages import Stage
from app.store.records import Attempt, AttemptStatus, PhotoStatus

log = logging.getLogger(__name__)

VERSION = 9
ACTIVE = (AttemptStatus.QUEUED.value, AttemptStatus.PROCESSING.value)
ENDED = tuple(status.value for status in AttemptStatus if status.ended)

metadata = MetaData()

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


class PlainText(TypeDecorator[str]):
    """Text of any origin, of bounded length or not.

    PostgreSQL takes neither NUL nor half a surrogate pair; both become the mark for an unreadable character, so that a
    label with them can be stored, and an id with them names nothing.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self._text = Text() if length is None else String(length)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type of the column."""
        return dialect.type_descriptor(self._text)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What is stored, or looked for."""
        return None if value is None else _NOT_STORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


_Number = BigInteger().with_variant(Integer, "sqlite")  # where a key that counts must be of this very type


def _one_of(column: str, words: type[AttemptStatus] | type[PhotoStatus]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(word.value) for word in words)})")


photos = Table(
    "photos",
    metadata,
    Column("id", PlainText(32), primary_key=True),
    Column("owner", PlainText(64), nullable=False),
    Column("sha256", PlainText(64), nullable=False),
    Column("name", PlainText(), nullable=False),
    Column("mime", PlainText(40), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("status", PlainText(12), nullable=False),
    Column("status_before", PlainText(12)),  # what a failed or cancelled attempt puts back
    Column("selected_attempt_id", PlainText(32)),  # the result that its owner keeps
    Column("created_at", Float, nullable=False),
    _one_of("status", PhotoStatus),
    Index("photos_by_owner", "owner", "bytes"),  # to add up bytes without the rows
)

# Photos that were uploaded by themselves, to be restored again and again; the uploads of jobs are not among them. Here
# equal bytes of one owner are one photo, and a photo lives on after its jobs, until it was not used for long enough.
library = Table(
    "library",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("photo_id", PlainText(32), ForeignKey("photos.id"), nullable=False, unique=True),
    Column("owner", PlainText(64), nullable=False),
    Column("sha256", PlainText(64), nullable=False),
    Column("used_at", Float, nullable=False),
    UniqueConstraint("owner", "sha256"),
    Index("library_by_owner", "owner", "number"),
    sqlite_autoincrement=True,
)

# `number` is the order of submission: clocks jump, counters do not, and a number is never given twice.
jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", PlainText(32), nullable=False, unique=True),
    Column("owner", PlainText(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("options_json", PlainText(), nullable=False),
    Column("kept_at", Float),  # its owner keeps it: it does not expire
    Column("let_go_at", Float),  # and when that ended, from which its retention counts
    Index("jobs_by_owner", "owner", "number"),
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", PlainText(32), nullable=False, unique=True),
    Column("job_id", PlainText(32), ForeignKey("jobs.id"), nullable=False),
    Column("photo_id", PlainText(32), ForeignKey("photos.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", PlainText(12), nullable=False),
    Column("backend", PlainText(20), nullable=False),
    Column("options_json", PlainText(), nullable=False),
    Column("mask_bytes", BigInteger),  # see `Attempt`
    Column("progress", Float, nullable=False, default=0.0),
    Column("stage", PlainText(20), nullable=False, default=Stage.WAITING.value),
    Column("worked_seconds", Float),  # of restoring, when `progress` was written
    Column("tries", Integer, nullable=False, default=0),
    Column("lapses", Integer, nullable=False, default=0, server_default=text("0")),  # tries whose lease ran out
    Column("revision", BigInteger, nullable=False, default=0, server_default=text("0")),  # raised by every transition
    Column("claim", PlainText(32)),
    Column("worker", PlainText()),  # host and process of the run, for people
    Column("lease_until", Float),  # of the claim, by the database's clock; None: of a version without leases
    Column("claimed_at", Float),  # when its run began, by the database's clock; earlier versions order turns by it
    Column("notified_at", Float),  # when a sweep last saw it wait, by the database's clock
    Column("sent", Boolean, nullable=False, default=False, server_default=false()),  # money may be spent: never rerun
    Column("receipts_json", PlainText(), nullable=False, default="[]", server_default="[]"),  # see `receipts`
    Column("request_id", PlainText(64)),  # of the submission, for logs
    Column("trace", PlainText(55)),  # the `traceparent` of the submission, where it was traced
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("version", Integer, nullable=False, default=1, server_default=text("1")),  # of the result
    Column("result_name", PlainText(64)),
    Column("result_mime", PlainText(40)),
    Column("result_width", Integer),
    Column("result_height", Integer),
    Column("result_bytes", BigInteger),
    Column("beside_bytes", BigInteger),  # see `Attempt`
    Column("model", PlainText()),
    Column("seconds", Float),
    Column("faces_json", PlainText(), nullable=False, default="[]"),
    Column("warnings_json", PlainText(), nullable=False, default="[]"),
    Column("params_json", PlainText(), nullable=False, default="{}"),
    Column("cache_key", PlainText(64)),  # of a result that an equal job may be given
    Column("from_cache", Boolean, nullable=False, default=False, server_default=false()),  # says nothing of the pace
    Column("error_code", PlainText(60)),
    Column("error_message", PlainText()),
    _one_of("status", AttemptStatus),
    Index("attempts_by_status", "status", "number"),
    Index("attempts_by_job", "job_id", "position"),
    Index("attempts_by_photo", "photo_id"),
    Index("attempts_by_cache_key", "cache_key"),
    sqlite_autoincrement=True,
)

# Sign-ins that were ended before their time; a row may go once its cookie is too old anyway.
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("until", Float, nullable=False),
)

# What clients call their submissions, for a day; `position` is empty until the job is accepted. See `idempotency`.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", PlainText(64), primary_key=True),
    Column("key", PlainText(255), primary_key=True),
    Column("digest", PlainText(64), nullable=False),
    Column("job_id", PlainText(32), nullable=False),
    Column("attempt_id", PlainText(32)),
    Column("position", Integer),
    Column("created_at", Float, nullable=False),
    Column("begun_at", Float, nullable=False),
    Index("idempotency_keys_by_age", "created_at"),
)

# Processes that restore, as they say of themselves every few seconds; alive are those that did so within
# `LIVE_SECONDS`, four reports. Times are of the database's clock.
LIVE_SECONDS = 20.0
workers = Table(
    "workers",
    metadata,
    Column("name", PlainText(200), primary_key=True),  # host and process
    Column("host", PlainText(), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("warm_up_asked_at", Float),
    Column("report_json", PlainText(), nullable=False),
)

# Whom to tell when a job ends. `waiting` until it has; from then on `next_at` says when the next try is due, by the
# database's clock, and while a try is under way, when another process may believe that it was lost.
webhooks = Table(
    "webhooks",
    metadata,
    Column("job_id", PlainText(32), primary_key=True),
    Column("id", PlainText(32), nullable=False, unique=True),  # the receiver knows a repetition by it
    Column("url", PlainText(), nullable=False),
    Column("status", PlainText(12), nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_at", Float, nullable=False, default=0.0),
    Column("response_status", Integer),
    Column("error", PlainText(40)),
    Index("webhooks_by_time", "status", "next_at"),
)

# When an attempt of each owner was claimed last, by the database's clock: whose turn it is next. To read it from the
# attempts would be to read all of them at every claim.
turns = Table(
    "turns",
    metadata,
    Column("owner", PlainText(64), primary_key=True),
    Column("served_at", Float, nullable=False),
)

# Photos accepted from each owner on each day (UTC), where a day's are limited.
usage = Table(
    "usage",
    metadata,
    Column("owner", PlainText(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("photos", Integer, nullable=False),
)

_active = attempts.c.status.in_(ACTIVE)
Index("one_active_attempt_per_photo", attempts.c.photo_id, unique=True, sqlite_where=_active, postgresql_where=_active)

_FACTS_AS_JSON: dict[str, tuple[str, type[list[Any]] | type[dict[str, Any]]]] = {
    "faces_json": ("faces", list),
    "warnings_json": ("warnings", list),
    "params_json": ("params", dict),
    "receipts_json": ("receipts", list),
}


OF_PHOTO = (  # what `Attempt` needs of the photo
    photos.c.owner,
    photos.c.name.label("original_filename"),
    photos.c.mime.label("photo_mime"),
    photos.c.bytes.label("photo_bytes"),
    photos.c.width.label("photo_width"),
    photos.c.height.label("photo_height"),
)


@functools.cache
def select_attempts() -> Select[Any]:
    """Attempts joined with what `Attempt` needs of the photo, in the order of submission."""
    return (
        select(attempts, *OF_PHOTO)
        .join_from(attempts, photos, attempts.c.photo_id == photos.c.id)
        .order_by(attempts.c.number)
    )


def attempt_of(*rows: Row[Any]) -> Attempt:
    """One row of `select_attempts` as a record; or a row of attempts and one of `OF_PHOTO`."""
    values: dict[str, Any] = {name: value for row in rows for name, value in row._mapping.items()}
    del (
        values["number"],
        values["notified_at"],
        values["claimed_at"],
        values["revision"],
        values["cache_key"],
        values["from_cache"],
    )
    for column, (field, kind) in _FACTS_AS_JSON.items():
        facts = _facts(values.pop(column), kind, values["id"])
        values[field] = tuple(facts) if isinstance(facts, list) else facts
    values["warnings"] = tuple(filter(None, map(Notice.from_facts, values["warnings"])))
    values["status"] = AttemptStatus(values["status"])
    return Attempt(**values)


def _facts(text: str, kind: type[list[Any]] | type[dict[str, Any]], attempt_id: str) -> Any:
    """A JSON column; one that cannot be read is empty, so that it costs its own facts and not the whole list."""
    try:
        facts = json.loads(text, parse_constant=lambda _: None)  # NaN and Infinity cannot be sent on
    except ValueError:
        facts = None
    if isinstance(facts, kind) and (kind is dict or all(isinstance(row, dict) for row in facts)):
        return facts
    log.warning("facts of attempt %s cannot be read and are left out", attempt_id)
    return kind()


def as_json(value: Mapping[str, Any] | tuple[Mapping[str, Any], ...]) -> str:
    """Facts for a JSON column."""
    return storable(json.dumps(value, ensure_ascii=False))


def storable(text: str) -> str:
    """A text that every database takes and every answer can carry: without NUL and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()

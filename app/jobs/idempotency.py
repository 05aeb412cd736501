"""The use case of a submission that may be sent again: the second time it gives the first one's job, and makes none.

What was refused is not remembered: the same request may be tried again under its key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence

from app.errors import BadRequest, RestoreError, Unprocessable
from app.jobs.keys_in_work import KeysInWork
from app.jobs.submission import Upload
from app.store import HeldKey, Job, Store

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
LONGEST_KEY_CHARACTERS = 255


@dataclasses.dataclass(frozen=True)
class AcceptedJob:
    """What a client hears of an accepted job: its id, that of its first attempt, and its place when it was accepted."""

    job_id: str
    attempt_id: str
    position: int


Submit = Callable[[str | None], tuple[Job, int]]


def submit_once(
    store: Store,
    owner: str,
    key: str | None,
    digest: Callable[[], str],
    now: float,
    submit: Submit,
    in_work: KeysInWork,
) -> AcceptedJob:
    """Submit, unless this owner did so with this key in the last 24 hours; without a key always.

    Args:
        key: what the client calls this request, or None.
        digest: of everything that was asked; see `digest_of`.
        submit: makes the job, with the given id where there is one; gives the one that has this id already.
        in_work: holds the key meanwhile, for whoever renews it.

    Raises:
        Unprocessable: `idempotency_key_reused`, for another request.
        Conflict: `idempotency_key_in_use`, while the first request is still being taken.
        RestoreError: what `submit` raises.
    """
    if key is None:
        return _accepted(*submit(None))
    asked = digest()
    known = store.idempotency.begin(owner, key, asked, now)
    if known.digest != asked:
        raise Unprocessable(
            "idempotency_key_reused",
            "This Idempotency-Key was sent with another request in the last 24 hours; make a new one for each request.",
        )
    if known.accepted:
        return AcceptedJob(known.job_id, known.attempt_id, known.position)
    held = HeldKey(owner, key, known.job_id)
    with in_work.holding(held):
        return _submit_held(store, held, submit)


def _submit_held(store: Store, held: HeldKey, submit: Submit) -> AcceptedJob:
    try:
        done = _accepted(*submit(held.job_id))
    except BaseException:
        with contextlib.suppress(RestoreError):  # then it counts as crashed, and may be sent again a little later
            store.idempotency.forget(held)
        raise
    try:
        store.idempotency.accept(held, done.attempt_id, done.position)
    except RestoreError as error:  # the job is found by its id all the same
        log.warning("an idempotency key could not be completed: %s", error.detail)
    return done


def check_key(key: str | None) -> str | None:
    """The value of the header, if there is one. Raises `BadRequest` `bad_idempotency_key`."""
    if key is None:
        return None
    if not 0 < len(key) <= LONGEST_KEY_CHARACTERS or any(not " " < character <= "~" for character in key):
        raise BadRequest(
            "bad_idempotency_key", f"An Idempotency-Key is one word of at most {LONGEST_KEY_CHARACTERS} ASCII signs."
        )
    return key


def digest_of(target: str, fields: Mapping[str, object], uploads: Sequence[Upload] = ()) -> str:
    """SHA-256 in hex over what a request asks: its path, its fields in any order, names and bytes of its files."""
    files = [(upload.label, _sha256(upload)) for upload in uploads]
    return hashlib.sha256(json.dumps([target, sorted(fields.items()), files]).encode()).hexdigest()


def _sha256(upload: Upload) -> str:
    if upload.writer is None:
        return ""
    with upload.writer.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _accepted(job: Job, position: int) -> AcceptedJob:
    return AcceptedJob(job.id, job.attempts[0].id, position)

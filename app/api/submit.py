"""From a received form to an accepted job: options, headers of the photos, sizes, rows, bell.

Runs in one thread from start to end, so that a submission costs one hop away from the event loop. It knows nothing of
requests and answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus

from app import errors
from app.api.parts import Parts
from app.api.problems import Refusal
from app.api.upload import Form, Received
from app.errors import RestoreError, TooLarge, Unprocessable
from app.images import Header, read_header
from app.options import FIELDS, RestoreOptions
from app.storage import StoredUpload, UploadWriter, new_id
from app.store import Job, NewPhoto


def open_upload(parts: Parts) -> Callable[[], UploadWriter]:
    """What a form calls for each file: a writer under a fresh id."""
    return lambda: parts.storage.open_upload(new_id())


def accept(parts: Parts, owner: str, form: Form) -> tuple[Job, int]:
    """Turn a whole form into a job; gives the job and its place in the queue. On any error nothing is kept.

    Raises:
        RestoreError: what is wrong with the options, the photos, or the state of the service; for several photos the
            answer's `errors` member names each refused one.
    """
    stored: list[StoredUpload] = []
    try:
        options = _read_options(form)
        parts.catalog.check(options)
        form.flush()
        files = _photos_of(form)
        headers = _check_all(parts, files, options)
        for file in files:
            assert file.writer is not None
            stored.append(file.writer.commit())
        photos = [_new_photo(*found) for found in zip(files, headers, stored, strict=True)]
        job, position = _add(parts, owner, photos, options)
    except BaseException:
        form.abort()
        for upload in stored:
            parts.storage.remove_upload(upload.id)
        raise
    for attempt in job.attempts:
        parts.worker.ring(attempt.id)
    return job, position


def _add(parts: Parts, owner: str, photos: list[NewPhoto], options: RestoreOptions) -> tuple[Job, int]:
    limit = parts.limits.queue_limit
    try:
        return parts.store.submit(owner, photos, options.to_json(), options.backend, limit, parts.wall())
    except RestoreError as error:
        parts.admission.learn(error)
        raise


def _read_options(form: Form) -> RestoreOptions:
    """The text fields as options; a field that only a path or a page could have made is named without its text."""
    unknown = next((name for name in form.fields if name not in FIELDS), None)
    if unknown is not None and not unknown.isidentifier():
        raise Unprocessable("unknown_option", f"There is no such option; known options are {', '.join(FIELDS)}.")
    return RestoreOptions.from_fields(form.fields)


def _photos_of(form: Form) -> list[Received]:
    """The files that were really chosen; a browser sends one empty nameless part for an untouched file field."""
    files = [file for file in form.files if file.bytes or file.named]
    if not files:
        raise Unprocessable("no_file", "No photo was sent; put it into the form field 'file' (or 'files').")
    return files


def _check_all(parts: Parts, files: list[Received], options: RestoreOptions) -> list[Header]:
    """Headers of all photos. One bad photo refuses the whole submission, and every bad one is named."""
    headers, refused = [], []
    for file in files:
        try:
            headers.append(_check_one(parts, file, options))
        except RestoreError as error:
            refused.append((file, error))
    if refused:
        raise refused[0][1] if len(files) == 1 else _refuse_batch(refused)
    return headers


def _check_one(parts: Parts, file: Received, options: RestoreOptions) -> Header:
    if file.writer is None:
        raise Unprocessable("empty_file", f"'{file.label}' is empty; choose another photo.")
    header = read_header(file.writer.path, parts.limits.image)
    _check_output(header, options.scale, parts.limits.max_output_megapixels)
    return header


def _check_output(header: Header, scale: float, max_megapixels: float) -> None:
    pixels = header.width * header.height
    if pixels * scale * scale <= max_megapixels * 1e6:
        return
    fits = math.floor(10 * math.sqrt(max_megapixels * 1e6 / pixels)) / 10
    remedy = f"the largest scale that fits is {fits:g}" if fits >= 1 else "make the photo smaller first"
    raise TooLarge(
        "output_too_large",
        f"At scale {scale:g} the result would have {pixels * scale * scale / 1e6:.0f} megapixels and "
        f"{max_megapixels:g} are allowed; {remedy}.",
    )


def _refuse_batch(refused: list[tuple[Received, RestoreError]]) -> Refusal:
    """One status when all refused photos agree on it, else 422; each photo with its own code."""
    statuses = {error.status for _, error in refused}
    status = statuses.pop() if len(statuses) == 1 else errors.Unprocessable.status
    rows = [
        {"original_filename": file.label, "status": error.status, "code": error.code, "message": error.detail}
        for file, error in refused
    ]
    codes = {error.code for _, error in refused}
    names = ", ".join(f"'{file.label}'" for file, _ in refused[:3])
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    return Refusal(
        HTTPStatus(status),
        codes.pop() if len(codes) == 1 else "several_errors",
        f"Nothing was accepted, because of {names}{more}; leave them out or mend them, and send the rest again.",
        errors=rows,
    )


def _new_photo(file: Received, header: Header, upload: StoredUpload) -> NewPhoto:
    return NewPhoto(upload.id, upload.sha256, file.label, header.mime, header.width, header.height, upload.bytes)

"""From a received form to an accepted job or photo: options, headers of the photos, sizes, rows, bell.

Runs in one thread from start to end, so that a submission costs one hop away from the event loop. It knows nothing of
requests and answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from app import errors
from app.api.dependencies import AppContext
from app.api.json_bodies import options_of
from app.api.multipart_form import MultipartForm, UploadedFile
from app.api.problems import Refusal
from app.errors import NotFound, RestoreError, TooLarge, Unprocessable
from app.images import Header, read_header
from app.options import RestoreOptions
from app.storage import StoredUpload, UploadWriter, new_id
from app.store import Job, NewPhoto, Photo


def open_upload(context: AppContext) -> Callable[[], UploadWriter]:
    """What a form calls for each file: a writer under a fresh id."""
    return lambda: context.storage.open_upload(new_id())


def accept(context: AppContext, owner: str, form: MultipartForm) -> tuple[Job, int]:
    """Turn a whole form into a job; gives the job and its place in the queue. On any error nothing is kept.

    Raises:
        RestoreError: what is wrong with the options, the photos, or the state of the service; for several photos the
            answer's `errors` member names each refused one.
    """
    stored: list[StoredUpload] = []
    try:
        options = options_of(form.fields)
        context.catalog.check(options)
        form.flush()
        files = _photos_of(form)
        headers = _check_all(context, files, options)
        for file in files:
            assert file.writer is not None
            stored.append(file.writer.commit())
        photos = [_new_photo(*found) for found in zip(files, headers, stored, strict=True)]
        job, position = _add(context, owner, photos, options)
    except BaseException:
        form.abort()
        for upload in stored:
            context.storage.remove_upload(upload.id)
        raise
    for attempt in job.attempts:
        context.worker.notify(attempt.id)
    return job, position


def accept_photo(context: AppContext, owner: str, form: MultipartForm) -> tuple[Photo, bool]:
    """Turn a form into a photo of the library, and say whether it is new; on any error nothing is kept.

    Raises:
        RestoreError: what is wrong with the photo or the state of the service.
    """
    upload: StoredUpload | None = None
    try:
        if form.fields:
            raise Unprocessable("unknown_option", "A photo is uploaded without options; give them when it is restored.")
        form.flush()
        (file,) = _photos_of(form)
        header = read_header(_path_of(file), context.limits.image)
        assert file.writer is not None
        upload = file.writer.commit()
        photo, created = context.store.library.add(owner, _new_photo(file, header, upload), context.wall())
    except BaseException:
        form.abort()
        if upload is not None:
            context.storage.remove_upload(upload.id)
        raise
    if not created:
        _drop_second(context, photo, upload)
    return photo, created


def _drop_second(context: AppContext, photo: Photo, upload: StoredUpload) -> None:
    """The same bytes are here already, so the new file goes; or it heals a photo whose file was lost."""
    if context.storage.upload_path(photo.id).is_file():
        context.storage.remove_upload(upload.id)
    else:
        context.storage.replace_upload(photo.id, by=upload.id)


def restore_again(context: AppContext, owner: str, photo_id: str, options: RestoreOptions) -> tuple[Job, int]:
    """One attempt more at a photo that is here; the job and its place in the queue.

    Raises:
        RestoreError: what is wrong with the options, the photo's state, or the state of the service.
    """
    context.catalog.check(options)
    photo = context.store.library.photo(owner, photo_id)
    _check_output(photo.width * photo.height, options.scale, context.limits.max_output_megapixels)
    if not context.storage.upload_path(photo_id).is_file():
        raise NotFound("photo_missing", "The uploaded photo is gone; upload it again.")
    limit, now = context.limits.queue_limit, context.wall()
    try:
        job, position = context.store.restore_photo(owner, photo_id, options.to_json(), options.backend, limit, now)
    except RestoreError as error:
        context.admission.update_retry_after(error)
        raise
    for attempt in job.attempts:
        context.worker.notify(attempt.id)
    return job, position


def _add(context: AppContext, owner: str, photos: list[NewPhoto], options: RestoreOptions) -> tuple[Job, int]:
    limit = context.limits.queue_limit
    try:
        return context.store.submit(owner, photos, options.to_json(), options.backend, limit, context.wall())
    except RestoreError as error:
        context.admission.update_retry_after(error)
        raise


def _photos_of(form: MultipartForm) -> list[UploadedFile]:
    """The files that were really chosen; a browser sends one empty nameless part for an untouched file field."""
    files = [file for file in form.files if file.bytes or file.named]
    if not files:
        raise Unprocessable("no_file", "No photo was sent; put it into the form field 'file' (or 'files').")
    return files


def _check_all(context: AppContext, files: list[UploadedFile], options: RestoreOptions) -> list[Header]:
    """Headers of all photos. One bad photo refuses the whole submission, and every bad one is named."""
    headers, refused = [], []
    for index, file in enumerate(files):
        try:
            headers.append(_check_one(context, file, options))
        except RestoreError as error:
            refused.append((index, file, error))
    if refused:
        raise refused[0][2] if len(files) == 1 else _refuse_batch(refused)
    return headers


def _check_one(context: AppContext, file: UploadedFile, options: RestoreOptions) -> Header:
    header = read_header(_path_of(file), context.limits.image)
    _check_output(header.width * header.height, options.scale, context.limits.max_output_megapixels)
    return header


def _path_of(file: UploadedFile) -> Path:
    if file.writer is None:
        raise Unprocessable("empty_file", f"'{file.label}' is empty; choose another photo.")
    return file.writer.path


def _check_output(pixels: int, scale: float, max_megapixels: float) -> None:
    if pixels * scale * scale <= max_megapixels * 1e6:
        return
    fits = math.floor(10 * math.sqrt(max_megapixels * 1e6 / pixels)) / 10
    remedy = f"the largest scale that fits is {fits:g}" if fits >= 1 else "make the photo smaller first"
    raise TooLarge(
        "output_too_large",
        f"At scale {scale:g} the result would have {pixels * scale * scale / 1e6:.0f} megapixels and "
        f"{max_megapixels:g} are allowed; {remedy}.",
    )


def _refuse_batch(refused: list[tuple[int, UploadedFile, RestoreError]]) -> Refusal:
    """One status when all refused photos agree on it, else 422; each photo with its own code and its place (from 0)."""
    statuses = {error.status for _, _, error in refused}
    status = statuses.pop() if len(statuses) == 1 else errors.Unprocessable.status
    rows = [
        {
            "index": index,
            "original_filename": file.label,
            "status": error.status,
            "code": error.code,
            "message": error.detail,
        }
        for index, file, error in refused
    ]
    codes = {error.code for _, _, error in refused}
    names = ", ".join(f"'{file.label}'" for _, file, _ in refused[:3])
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    return Refusal(
        HTTPStatus(status),
        codes.pop() if len(codes) == 1 else "several_errors",
        f"Nothing was accepted, because of {names}{more}; leave them out or mend them, and send the rest again.",
        errors=rows,
    )


def _new_photo(file: UploadedFile, header: Header, upload: StoredUpload) -> NewPhoto:
    return NewPhoto(upload.id, upload.sha256, file.label, header.mime, header.width, header.height, upload.bytes)

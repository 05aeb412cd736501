"""From a multipart body to the use cases of submission: the form is received, its photos chosen, its options read."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from app.api.dependencies import AppContext, get_context
from app.api.json_bodies import options_of
from app.api.multipart_form import MultipartForm, UploadedFile, UploadLimits, receive_form
from app.errors import RestoreError, Unprocessable
from app.jobs.idempotency import AcceptedJob, Submit, digest_of, submit_once
from app.jobs.submission import Upload
from app.options import RestoreOptions
from app.storage import UploadWriter, new_id
from app.store import Job, Photo


async def receive(request: Request, most: int) -> MultipartForm:
    """Read a whole upload form of at most `most` files; on any error nothing is kept."""
    context = get_context(request)
    limits = UploadLimits(most, context.limits.max_file_bytes)

    def open_upload() -> UploadWriter:
        return context.storage.open_upload(new_id())

    form = MultipartForm(request.headers["content-type"], limits, open_upload)
    await receive_form(form, request.stream(), context.run)
    return form


def submit_form(context: AppContext, owner: str, form: MultipartForm, target: str, key: str | None) -> AcceptedJob:
    """Turn a whole form into a job, in one thread from start to end; see `Submission.submit` and `submit_once`.

    `target` is the address that was asked, `key` its Idempotency-Key.
    """
    try:
        options = options_of(form.fields)
        if key is None:  # else the job may be there already
            context.submission.check_options(options)  # before anything more is written
        form.flush()
        photos, now = [_upload_of(file) for file in _photos_of(form)], context.wall()

        def submit(job_id: str | None) -> tuple[Job, int]:
            return context.submission.submit(owner, photos, options, now, job_id)

        return _submit_once(context, owner, key, lambda: digest_of(target, form.fields, photos), submit)
    finally:
        form.abort()  # what was not committed


def add_photo(context: AppContext, owner: str, form: MultipartForm) -> tuple[Photo, bool]:
    """Turn a form into a photo of the library; see `Submission.add_photo`."""
    try:
        if form.fields:
            raise Unprocessable("unknown_option", "A photo is uploaded without options; give them when it is restored.")
        form.flush()
        (file,) = _photos_of(form)
        return context.submission.add_photo(owner, _upload_of(file), context.wall())
    except BaseException:
        form.abort()
        raise


def restore_photo(
    context: AppContext, owner: str, photo_id: str, options: RestoreOptions, target: str, key: str | None
) -> AcceptedJob:
    """One attempt more at a photo; see `Submission.restore_photo` and `submit_once`."""

    def submit(job_id: str | None) -> tuple[Job, int]:
        return context.submission.restore_photo(owner, photo_id, options, context.wall(), job_id)

    return _submit_once(context, owner, key, lambda: digest_of(target, {"options": options.to_json()}), submit)


def _submit_once(
    context: AppContext, owner: str, key: str | None, digest: Callable[[], str], submit: Submit
) -> AcceptedJob:
    try:
        return submit_once(context.store, owner, key, digest, context.wall(), submit)
    except RestoreError as error:
        context.admission.update_retry_after(error)
        raise


def _photos_of(form: MultipartForm) -> list[UploadedFile]:
    """The files that were really chosen; a browser sends one empty nameless part for an untouched file field."""
    files = [file for file in form.files if file.bytes or file.named]
    if not files:
        raise Unprocessable("no_file", "No photo was sent; put it into the form field 'file' (or 'files').")
    return files


def _upload_of(file: UploadedFile) -> Upload:
    return Upload(file.label, file.writer)

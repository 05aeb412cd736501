"""From a multipart body to the use cases of submission: the form is received, its photos chosen, its options read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request

from app.api import photo_options
from app.api.dependencies import AppContext, get_context, get_owner
from app.api.fair_use import note_accepted
from app.api.job_origin import with_webhook
from app.api.json_bodies import PRESET_FIELD, options_of
from app.api.middleware.request_context import close_after_answer
from app.api.multipart_form import FILE_FIELDS, MultipartForm, UploadedFile, UploadLimits, receive_form
from app.errors import RestoreError, TooManyRequests, Unprocessable
from app.jobs.idempotency import AcceptedJob, Submit, digest_of, submit_once
from app.jobs.submission import Upload
from app.options import RestoreOptions
from app.storage import UploadWriter, new_id
from app.store import Job, JobOrigin, Photo

UPLOAD_RETRY_SECONDS = 2


async def receive(request: Request, most: int, file_fields: frozenset[str] = FILE_FIELDS) -> MultipartForm:
    """Read a whole upload form of at most `most` files, in these fields; on any error nothing is kept.

    Raises `TooManyRequests` `too_many_uploads` before a byte is read, when the owner sends too many at once.
    """
    context = get_context(request)
    with context.uploads.acquire(get_owner(request)) as has_place:
        if not has_place:
            close_after_answer(request.scope)
            raise TooManyRequests(
                "too_many_uploads",
                f"{context.limits.uploads_limit} of your uploads are under way; send this again when one has ended.",
                retry_after_seconds=UPLOAD_RETRY_SECONDS,
            )
        return await _receive(request, context, UploadLimits(most, context.limits.max_file_bytes, file_fields))


async def _receive(request: Request, context: AppContext, limits: UploadLimits) -> MultipartForm:
    def open_upload() -> UploadWriter:
        return context.storage.open_upload(new_id())

    form = MultipartForm(request.headers["content-type"], limits, open_upload)
    await receive_form(form, request.stream(), context.run)
    return form


def submit_form(
    context: AppContext, owner: str, form: MultipartForm, target: str, key: str | None, origin: JobOrigin
) -> AcceptedJob:
    """Turn a whole form into a job, in one thread from start to end; see `Submission.submit` and `submit_once`.

    `target` is the address that was asked, `key` its Idempotency-Key.
    """
    try:
        fields: dict[str, object] = dict(form.fields)
        origin = with_webhook(context, origin, fields)
        each = photo_options.taken_from(fields, context.catalog)
        options = options_of(fields, context.catalog)
        if key is None:  # else the job may be there already
            context.submission.check_options(options)  # before anything more is written
        form.flush()
        photos, now = _uploads_of(form, each), context.wall()

        def submit(job_id: str | None) -> tuple[Job, int]:
            job, position = context.submission.submit(owner, photos, options, now, job_id, origin)
            note_accepted(context, job)
            return job, position

        return submit_under_key(context, owner, key, lambda: digest_of(target, form.fields, photos), submit)
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
    context: AppContext,
    owner: str,
    photo_id: str,
    fields: Mapping[str, object],
    target: str,
    key: str | None,
    origin: JobOrigin,
) -> AcceptedJob:
    """One attempt more at a photo, with these fields as options; see `Submission.restore_photo` and `submit_once`."""
    options = options_of(fields, context.catalog)

    def submit(job_id: str | None) -> tuple[Job, int]:
        job, position = context.submission.restore_photo(owner, photo_id, options, context.wall(), job_id, origin)
        note_accepted(context, job)
        return job, position

    return submit_under_key(context, owner, key, lambda: digest_of(target, _asked_of(fields, origin)), submit)


def _asked_of(fields: Mapping[str, object], origin: JobOrigin) -> dict[str, str]:
    """What tells one request from another: a preset by its name, since what it sets changes with what is installed."""
    given = RestoreOptions.from_fields({name: value for name, value in fields.items() if name != PRESET_FIELD})
    asked = {"options": given.to_json(), "webhook_url": origin.webhook_url or ""}
    return {**asked, PRESET_FIELD: str(fields[PRESET_FIELD])} if fields.get(PRESET_FIELD) else asked


def only_upload(form: MultipartForm) -> Upload:
    """The one file of a form that is not kept. Raises `Unprocessable` `no_file` or `empty_file`."""
    (file,) = _photos_of(form)
    return _upload_of(file)


def submit_under_key(
    context: AppContext, owner: str, key: str | None, digest: Callable[[], str], submit: Submit
) -> AcceptedJob:
    """See `submit_once`; a refusal says when to come back."""
    in_work = context.lease_keeper.keys_in_work
    try:
        return submit_once(context.store, owner, key, digest, context.wall(), submit, in_work)
    except RestoreError as error:
        context.admission.update_retry_after(error)
        raise


def has_files(form: MultipartForm) -> bool:
    """Whether any was really chosen; a browser sends one empty nameless part for an untouched file field."""
    return any(file.bytes or file.named for file in form.files)


def _photos_of(form: MultipartForm) -> list[UploadedFile]:
    """The files that were really chosen."""
    files = [file for file in form.files if file.bytes or file.named]
    if not files:
        raise Unprocessable("no_file", f"No file was sent; put it into the form field {form.wanted}.")
    return files


def _uploads_of(form: MultipartForm, each: Sequence[RestoreOptions] | None) -> list[Upload]:
    files = _photos_of(form)
    if each is None:
        return [_upload_of(file) for file in files]
    photo_options.check_count(each, len(files))
    return [_upload_of(file, own) for file, own in zip(files, each, strict=True)]


def _upload_of(file: UploadedFile, options: RestoreOptions | None = None) -> Upload:
    return Upload(file.label, file.writer, options)

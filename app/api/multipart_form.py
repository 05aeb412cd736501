"""Multipart bodies, read as they come: files go straight into storage writers, text fields into a small dict.

There is no spooling and no second copy. Nothing here looks into a photo or knows an option; on any refusal every file
written so far is removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import BadRequest, TooLarge, Unprocessable
from app.storage import UploadWriter, clean_label

FILE_FIELDS = frozenset(("file", "files", "files[]", "image", "images"))
MAX_FIELDS = 40
MAX_FIELD_BYTES = 64 * 1024
FLUSH_BYTES = 256 * 1024  # a small photo is written in one go, together with everything else that touches the disk
_MAX_BOUNDARY_CHARACTERS = 70  # RFC 2046
_MAX_PART_HEADERS = 10
_MAX_PART_HEADER_BYTES = 4096
_MEGABYTE = 1024 * 1024

Answer = TypeVar("Answer")
RunInThread = Callable[[Callable[[], None]], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class UploadLimits:
    """How many files a request may carry, how large each may be, and in which fields they come."""

    max_files: int
    max_file_bytes: int
    file_fields: frozenset[str] = FILE_FIELDS


@dataclasses.dataclass
class UploadedFile:
    """One file of the request: its label, whether it had a name, its bytes so far, and its writer once it has any."""

    label: str
    named: bool = True
    writer: UploadWriter | None = None
    bytes: int = 0


class MultipartForm:
    """One multipart body on its way in. `feed` runs in the event loop, `flush` in a thread, never both at once."""

    def __init__(self, content_type: str, limits: UploadLimits, open_upload: Callable[[], UploadWriter]) -> None:
        self.fields: dict[str, str] = {}
        self.files: list[UploadedFile] = []
        self.waiting_bytes = 0
        self._limits, self._open_upload = limits, open_upload
        self._chunks: list[tuple[UploadedFile, bytes]] = []
        self._header = [b"", b""]
        self._disposition = b""
        self._file: UploadedFile | None = None
        self._name = ""
        self._value = bytearray()
        self._ended = False
        self._parser = self._new_parser(content_type)

    @property
    def wanted(self) -> str:
        """The fields for files, in words."""
        names = ("file", "files") if self._limits.file_fields is FILE_FIELDS else sorted(self._limits.file_fields)
        return " or ".join(f"'{name}'" for name in names)

    def _new_parser(self, content_type: str) -> MultipartParser:
        _, parameters = parse_options_header(content_type)
        boundary = parameters.get(b"boundary", b"")
        if not 1 <= len(boundary) <= _MAX_BOUNDARY_CHARACTERS:
            raise _bad("its boundary is missing or too long")
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=_MAX_PART_HEADERS,
            max_header_size=_MAX_PART_HEADER_BYTES,
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body. Raises our errors for anything over a limit or out of form."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _bad("its parts are not well formed") from None

    def close(self) -> None:
        """The body has ended; it must have said so itself."""
        if not self._ended:
            raise _bad("it breaks off before its end")

    def flush(self) -> None:
        """Write what waits to disk."""
        for file, data in self._chunks:
            if file.writer is None:
                file.writer = self._open_upload()
            file.writer.write(data)
        self._chunks.clear()
        self.waiting_bytes = 0

    def abort(self) -> None:
        """Remove everything that was written and not committed."""
        self._chunks.clear()
        for file in self.files:
            if file.writer is not None:
                file.writer.abort()

    # What the parser calls.

    def _begin_part(self) -> None:
        self._disposition, self._file, self._name = b"", None, ""
        self._value = bytearray()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._name = _text(parameters.get(b"name", b""))
        if not self._name:
            raise _bad("a part has no name")
        if self._name in self._limits.file_fields:
            self._begin_file(parameters.get(b"filename", b""))
        elif b"filename" in parameters:
            name = clean_label(self._name)[:40]
            raise Unprocessable("unknown_file_field", f"Send files in the field {self.wanted}, not '{name}'.")
        else:
            self._begin_field()

    def _begin_file(self, name: bytes) -> None:
        if len(self.files) >= self._limits.max_files:
            most = self._limits.max_files
            raise TooLarge("too_many_files", f"At most {most} photo{'s' * (most > 1)} may be sent in this request.")
        self._file = UploadedFile(clean_label(_text(name)), named=bool(name))
        self.files.append(self._file)

    def _begin_field(self) -> None:
        if len(self.fields) >= MAX_FIELDS:
            raise BadRequest("too_many_fields", f"A request may carry at most {MAX_FIELDS} text fields.")
        if self._name in self.fields:
            raise Unprocessable(
                "repeated_option", f"Option '{clean_label(self._name)[:40]}' is given twice; give it once."
            )
        self.fields[self._name] = ""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            if len(self._value) + end - start > MAX_FIELD_BYTES:
                raise TooLarge("field_too_large", f"A text field may have at most {MAX_FIELD_BYTES // 1024} KB.")
            self._value += data[start:end]
            return
        self._file.bytes += end - start
        if self._file.bytes > self._limits.max_file_bytes:
            megabytes = self._limits.max_file_bytes / _MEGABYTE
            raise TooLarge(
                "file_too_large",
                f"Photo {len(self.files)} ('{self._file.label}') is larger than the limit of {megabytes:.3g} MB; "
                "save it as JPEG or smaller, or raise MAX_FILE_SIZE_MB.",
            )
        self._chunks.append((self._file, data[start:end]))
        self.waiting_bytes += end - start

    def _end_part(self) -> None:
        if self._file is None:
            self.fields[self._name] = _text(bytes(self._value))

    def _end(self) -> None:
        self._ended = True


async def receive_form(form: MultipartForm, chunks: AsyncIterator[bytes], in_thread: RunInThread) -> None:
    """Feed a whole body into a form, writing in a thread whenever enough has come together.

    What is left when it returns is written by the caller's own `flush`. On any error everything is removed.
    """
    try:
        async for chunk in chunks:
            form.feed(chunk)
            if form.waiting_bytes >= FLUSH_BYTES:
                await in_thread(form.flush)
        form.close()
    except BaseException:
        form.abort()
        raise


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _bad(reason: str) -> BadRequest:
    return BadRequest("bad_multipart", f"The form could not be read: {reason}.")

"""Where the bytes of photos and results are kept: the `Storage` protocol, the names in it, and `DiskStorage`."""

from app.storage.disk import DiskStorage
from app.storage.disk_upload import translate_disk_full
from app.storage.names import (
    ID_PATTERN,
    LABEL_LIMIT_CHARACTERS,
    RESULT_PATTERN,
    Beside,
    clean_label,
    first_version,
    new_id,
    next_version,
    public_name,
    related_files,
)
from app.storage.protocol import FoundFile, OpenedFile, Storage, StoredUpload, UploadWriter

__all__ = [
    "ID_PATTERN",
    "LABEL_LIMIT_CHARACTERS",
    "RESULT_PATTERN",
    "Beside",
    "DiskStorage",
    "FoundFile",
    "OpenedFile",
    "Storage",
    "StoredUpload",
    "UploadWriter",
    "clean_label",
    "first_version",
    "new_id",
    "next_version",
    "public_name",
    "related_files",
    "translate_disk_full",
]

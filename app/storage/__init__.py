"""Where the bytes of photos and results are kept, under names that are checked by pattern."""

from app.storage.disk import FoundFile, Storage, StoredUpload, UploadWriter, full_disk_told, sync_folder
from app.storage.names import (
    ID_PATTERN,
    LABEL_LIMIT_CHARACTERS,
    RESULT_PATTERN,
    clean_label,
    family,
    first_version,
    new_id,
    next_version,
)

__all__ = [
    "ID_PATTERN",
    "LABEL_LIMIT_CHARACTERS",
    "RESULT_PATTERN",
    "FoundFile",
    "Storage",
    "StoredUpload",
    "UploadWriter",
    "clean_label",
    "family",
    "first_version",
    "full_disk_told",
    "new_id",
    "next_version",
    "sync_folder",
]

"""Where the bytes of photos and results are kept, under names that are checked by pattern."""

from app.storage.disk import FoundFile, Storage, StoredUpload, UploadWriter, sync_folder, translate_disk_full
from app.storage.names import (
    ID_PATTERN,
    LABEL_LIMIT_CHARACTERS,
    RESULT_PATTERN,
    clean_label,
    first_version,
    new_id,
    next_version,
    related_files,
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
    "first_version",
    "new_id",
    "next_version",
    "related_files",
    "sync_folder",
    "translate_disk_full",
]

"""The names under which results are saved: the originals', made safe for every file system and unique in an archive."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from app.api.views import options_of
from app.store import Attempt

LONGEST_FILE_NAME_BYTES = 255  # of nearly every file system
_LONGEST_ENDING_CHARACTERS = 6  # with its dot
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069<>:"/\\|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3])(\..*)?", re.IGNORECASE)


def download_name(attempt: Attempt) -> str:
    """The name of a result for saving beside the original: its stem, the scale, and the result's own ending."""
    scale = options_of(attempt.options_json).scale
    return _fitted(_stem(attempt.original_filename), f"_x{scale:g}{_ending(attempt)}")


class ArchiveNames:
    """Names for the files of one archive: the originals' with the results' own endings, a number behind equal ones.

    Names that differ only in case, or in how their accents are written, are equal: some file systems see one name.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def add(self, attempt: Attempt) -> str:
        """The name of this result."""
        stem, ending = _safe(_stem(attempt.original_filename)), _ending(attempt)
        name = _fitted(stem, ending)
        wanted = _folded(name)
        while _folded(name) in self._taken:
            self._next[wanted] = self._next.get(wanted, 1) + 1
            name = _fitted(stem, f" ({self._next[wanted]}){ending}")
        self._taken.add(_folded(name))
        return name


def _ending(attempt: Attempt) -> str:
    return PurePosixPath(attempt.result_name or "result.png").suffix


def _stem(name: str) -> str:
    dot = name.rfind(".")
    return name[:dot] if dot > 0 and len(name) - dot <= _LONGEST_ENDING_CHARACTERS else name


def _safe(stem: str) -> str:
    """A stem that every file system takes as one name of a file."""
    plain = _UNSAFE.sub("_", stem).strip(" .") or "photo"
    return f"_{plain}" if _DEVICES.fullmatch(plain) else plain


def _fitted(stem: str, ending: str) -> str:
    room = LONGEST_FILE_NAME_BYTES - len(ending.encode())
    return stem.encode(errors="replace")[:room].decode(errors="ignore") + ending


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())

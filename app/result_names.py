"""Names of results: unique in their folder whatever format each gets, as long as a file system takes, and printable.

Names only; nothing here looks into a file.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

NAME_BYTES = 255  # what common file systems hold
_LONGEST_EXTENSION_BYTES = len(".webp")
_JOINER = "\u200d"


class Stems:
    """One stem for each photo, in `chosen`; no two of one folder are the same, also where case does not count.

    A photo whose name without its ending is its own keeps it. Those that share one get their endings into it, and a
    number where that is taken too. The choice depends on the names alone, so that a second run finds the same.

    Args:
        photos: (folder of the result, stem, ending with its dot) of every photo of the run, in order.
    """

    def __init__(self, photos: Sequence[tuple[Path, str, str]]) -> None:
        self._folders = {folder: os.path.realpath(folder) for folder, _, _ in photos}
        keys = [self._key(folder, stem) for folder, stem, _ in photos]
        sharing = Counter(keys)
        self._taken = {key for key in keys if sharing[key] == 1}
        self.chosen = [
            stem if sharing[key] == 1 else self._free(folder, stem, f"_{suffix[1:]}" if suffix[1:] else "")
            for key, (folder, stem, suffix) in zip(keys, photos, strict=True)
        ]

    def _free(self, folder: Path, stem: str, ending: str) -> str:
        number = 1
        while True:
            mark = ending if number == 1 else f"{ending}_{number}"
            room = NAME_BYTES - _LONGEST_EXTENSION_BYTES - len(os.fsencode(mark))
            candidate = shortened(stem, room) + mark
            key = self._key(folder, candidate)
            if key not in self._taken:
                self._taken.add(key)
                return candidate
            number += 1

    def _key(self, folder: Path, stem: str) -> tuple[str, str]:
        """Equal for stems that could give one file, on a file system that ignores case and kinds of accents too."""
        kept = shortened(stem, NAME_BYTES - _LONGEST_EXTENSION_BYTES)
        return _folded(self._folders[folder]), _folded(kept)


def place_of(folder: Path, stem: str, extension: str) -> Path:
    """`folder/stem.extension`; a stem too long for that is shortened."""
    return folder / f"{shortened(stem, NAME_BYTES - 1 - len(extension))}.{extension}"


def shortened(stem: str, most_bytes: int) -> str:
    """The stem's first bytes, cut between characters and not between a letter and its accent."""
    if len(os.fsencode(stem)) <= most_bytes:
        return stem
    end = len(stem)
    size = len(os.fsencode(stem))
    while end > 1 and (size > most_bytes or unicodedata.combining(stem[end]) or _JOINER in stem[end - 1 : end + 1]):
        end -= 1
        size -= len(os.fsencode(stem[end]))
    return stem[:end]


def printable(name: str) -> str:
    """A file's name for people: bytes that are no UTF-8 and control characters are shown as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())

"""What the user should know of a result: a stable code and a plain sentence. A fallback or a loss is never silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

PHOTO_CHANGED = "photo_changed"  # given up while the photo was decoded
RESULT_CHANGED = "result_changed"  # given up while the result was encoded


@dataclasses.dataclass(frozen=True)
class Notice:
    """One warning. `code` is stable and never renamed once released; `message` is one plain sentence."""

    code: str
    message: str


def notices_of(code: str, sentences: Iterable[str]) -> tuple[Notice, ...]:
    """One notice a sentence, all with the same code."""
    return tuple(Notice(code, sentence) for sentence in sentences)

"""What a cut-off or damaged file lacks of its pixels, and the words for it."""

from __future__ import annotations

import dataclasses
import enum

from app.errors import Unprocessable
from app.notices import NoticeKind, Sentence, say

WHOLE_WITHOUT_END = say(NoticeKind.END_MARK_MISSING, "The file lacks its end mark; all pixels of the photo are there.")


class MissingPixels(Exception):
    """A part of a photo (a strip or tile, say) is not in the file, or not whole."""


class Fault(enum.StrEnum):
    """Why pixels are missing."""

    CUT_OFF = "cut off"
    DAMAGED = "damaged"


_KINDS = {
    Fault.CUT_OFF: (NoticeKind.CUT_OFF, NoticeKind.CUT_OFF_DETAIL, NoticeKind.CUT_OFF_ROWS),
    Fault.DAMAGED: (NoticeKind.DAMAGED, NoticeKind.DAMAGED_DETAIL, NoticeKind.DAMAGED_ROWS),
}


@dataclasses.dataclass(frozen=True)
class Missing:
    """What is missing.

    Attributes:
        height: rows of the photo as stored.
        first_row: the first of the rows, down to the last, that are missing; None: which ones is not known.
        fault: why.
        only_detail: these rows are there, but coarser than they were (a progressive photo).
        from_bottom: rows are counted from the lowest one upwards, as the file holds them.
    """

    height: int
    first_row: int | None
    fault: Fault = Fault.CUT_OFF
    only_detail: bool = False
    from_bottom: bool = False

    def note(self) -> Sentence:
        """The sentence for a photo that is restored as far as it is there."""
        plain, detail, rows = _KINDS[self.fault]
        if self.first_row is None:
            return Sentence(plain, f"{self._sentence()}.")
        share = {"share": self._share()}
        if self.only_detail:
            return Sentence(detail, f"{self._sentence()}.", share)
        return Sentence(rows, f"{self._sentence()} and stay grey.", share)

    def refusal(self) -> Unprocessable:
        """The error for a photo that must be whole."""
        better = "the whole file" if self.fault is Fault.CUT_OFF else "an intact copy of the file"
        return Unprocessable(
            "undecodable_image",
            f"{self._sentence()}. Send {better}, or ask with partial=keep for what is there.",
        )

    def _sentence(self) -> str:
        if self.first_row is None:
            return f"The file is {self.fault}: some pixels of the photo are missing or wrong"
        what = f"the fine detail of {self._share()} of the photo's rows is" if self.only_detail else ""
        return f"The file is {self.fault}: {what or f'{self._share()} of the photo{chr(39)}s rows are'} missing"

    def _share(self) -> str:
        assert self.first_row is not None
        percent = 100 * (self.height - self.first_row) / self.height
        return "less than 1 %" if percent < 1 else f"{percent:.0f} %" if percent < 99.5 else "all"


@dataclasses.dataclass(frozen=True)
class Completed:
    """A file made whole for its plugin: the bytes, what is missing in them, and what else should be known."""

    data: bytes
    missing: Missing | None = None
    notes: tuple[str, ...] = ()

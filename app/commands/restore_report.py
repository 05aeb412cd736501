"""How the photos of a restore run fared, and what is said of it at the end."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from app.commands.console import console, say
from app.errors import DeviceLost, RestoreError, file_error

log = logging.getLogger(__name__)

_NAMES_TOLD = 20  # of files left out for one reason


@dataclasses.dataclass
class Tally:
    """How the photos fared. `failed` holds (label, code, sentence); `notices` counts warnings by their sentence."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    notices: Counter[str] = dataclasses.field(default_factory=Counter)
    interrupted: bool = False

    def fail(self, label: str, error: Exception) -> None:
        """Count a photo as failed; what nobody foresaw goes to the log with its trace."""
        if isinstance(error, OSError):
            error = file_error(error)
        if isinstance(error, RestoreError):
            code, sentence = error.code, error.detail
        elif isinstance(error, DeviceLost):
            code = "device_lost"
            sentence = "The graphics card failed, so the run ended here; start it again to go on, or with --device cpu."
        elif isinstance(error, MemoryError):
            code = "out_of_memory"
            sentence = "There was not enough memory for this photo; try a smaller scale or a smaller photo."
        else:
            log.error("restoring %s failed", label, exc_info=error)
            code = "internal_error"
            sentence = f"Something unforeseen went wrong ({type(error).__name__}); the log above says more."
        self.failed.append((label, code, sentence))


def report_left_out(left_out: Sequence[tuple[str, str]]) -> None:
    """One line that counts, and one for each reason with its files."""
    if not left_out:
        return
    folders = sum(name.endswith("/") for name, _ in left_out)
    counts = ((len(left_out) - folders, "file"), (folders, "folder"))
    said = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count]
    say(f"{' and '.join(said)} left out:")
    for reason in dict.fromkeys(reason for _, reason in left_out):
        names = [name for name, each in left_out if each == reason]
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        say(f"  {reason}: {', '.join(names[:_NAMES_TOLD])}{more}")


def report(tally: Tally) -> None:
    """The warnings, a table of what failed, and one line that counts."""
    parts = [f"{tally.done} restored", f"{tally.skipped} already done", f"{len(tally.failed)} failed"]
    for sentence, count in tally.notices.items():
        say(f"Note ({count} photo{'s' if count > 1 else ''}): {sentence}")
    if tally.failed:
        table = Table("photo", "code", "what happened, and what to do", box=None, pad_edge=False)
        for row in tally.failed:
            table.add_row(*(escape(cell) for cell in row))
        console().print(table)
    say(f"{', '.join(parts)}.{' Interrupted; start again to go on.' if tally.interrupted else ''}")

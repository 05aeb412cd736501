"""One line of the doctor: a word for how it is, what was looked at, and what to do. It knows nothing of the checks."""

from __future__ import annotations

import dataclasses

FINE, WARNING, BAD = "ok", "warning", "FAILED"


@dataclasses.dataclass(frozen=True)
class Finding:
    """`word` is one of FINE, WARNING, BAD; only BAD makes the doctor's exit code 1. `text` ends with the remedy."""

    word: str
    what: str
    text: str

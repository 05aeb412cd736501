"""What the user must know about a restoration. Plain data; it knows nothing of what went on."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Caution:
    """Something the user must know: a stable code and a plain sentence."""

    code: str
    message: str

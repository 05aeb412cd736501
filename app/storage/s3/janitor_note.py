"""Since when objects are without a row, noted in the bucket itself.

Any process may make the janitor's next pass, and may live for one pass only, so none of them could remember it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from app.storage.s3.bucket import MEGABYTE, Bucket
from app.storage.s3.failures import KeyMissing

log = logging.getLogger(__name__)

NOTE_KEY = "janitor/unnamed.json"
_MOST_BYTES = 64 * MEGABYTE


class JanitorNote:
    """One small object. Of two passes at once the later note stays: what it lacks is noted again, and goes later."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def read(self) -> dict[str, float]:
        """Epoch seconds by name; empty where nothing is noted. Raises `Unavailable`."""
        try:
            return _parsed(self._bucket.start(NOTE_KEY, _MOST_BYTES).first)
        except KeyMissing:
            return {}
        except (ValueError, TypeError):
            log.warning("the janitor's note cannot be read and is begun anew")
            return {}

    def write(self, since: Mapping[str, float]) -> None:
        """Put this in the place of what was noted; nothing is kept of an empty one. Raises `Unavailable`."""
        if since:
            self._bucket.put_bytes(json.dumps(dict(since)).encode(), NOTE_KEY)
        else:
            self._bucket.delete(NOTE_KEY)


def _parsed(content: bytes) -> dict[str, float]:
    noted = json.loads(content)
    if not isinstance(noted, dict):
        raise ValueError("no object")
    return {name: float(moment) for name, moment in noted.items()}

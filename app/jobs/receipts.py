"""The receipts of one run: what earlier runs of the attempt were answered, and what this one is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from app.errors import RestoreError
from app.store import Attempt, Store

log = logging.getLogger(__name__)


class AttemptReceipts:
    """See `Receipts`. Calls of one attempt always come in the same order, that of its pages."""

    def __init__(self, store: Store, attempt: Attempt, token: str) -> None:
        self._store, self._attempt_id, self._token = store, attempt.id, token
        self._left = list(attempt.receipts)
        self._all = list(attempt.receipts)
        self._unkept = False

    @property
    def are_kept(self) -> bool:
        """Whether there are receipts, and all are on record."""
        return bool(self._all) and not self._unkept

    def take(self) -> Mapping[str, Any] | None:
        """See `Receipts`."""
        return self._left.pop(0) if self._left else None

    def keep(self, receipt: Mapping[str, Any]) -> None:
        """See `Receipts`. What the store does not take costs the result only if this run dies, too."""
        self._all.append(receipt)
        try:
            self._unkept = not self._store.receipts.keep(self._attempt_id, self._token, self._all)
        except RestoreError as error:
            self._unkept = True
            log.warning("the receipt of attempt %s could not be kept: %s", self._attempt_id, error.detail)

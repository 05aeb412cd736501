"""The use case of removing: rows first, then files, so that from the commit on no request reaches a file that goes.

What a user removes goes at once, from a bucket too, even if that cuts a download: the wish counts more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable

from app.errors import RestoreError
from app.storage import Storage
from app.store import Removal, Store

log = logging.getLogger(__name__)


Forget = Callable[[Collection[str]], None]


def forget_nothing(_: Collection[str]) -> None:
    """Nothing was made of the files here."""


class Deletion:
    """Removes jobs and photos with their files. A file that resists is logged; the janitor finds it as an orphan.

    `forget` is told in any thread the ids that the names of removed files begin with, for what was made of them.
    """

    def __init__(self, store: Store, storage: Storage, forget: Forget = forget_nothing) -> None:
        self._store, self._storage, self._forget = store, storage, forget

    def cancel_or_remove(self, owner: str, job_id: str, now: float, attempt_id: str | None = None) -> str:
        """Cancel a job that is active (`cancelled`: its rows stay), else remove it with its files (`removed`).

        With `attempt_id` only that photo of it. Raises `NotFound` `job_not_found` or `attempt_not_found`, or
        `Unavailable` when the store cannot be asked.
        """
        gone = self._told(self._store.cancel_or_remove(owner, job_id, now, attempt_id))
        self._remove_files(gone)
        return gone.outcome

    def remove_photo(self, owner: str, photo_id: str) -> None:
        """Remove a photo, its attempts and all their files.

        Raises `NotFound` `photo_not_found` or `Conflict` `photo_busy`, or `Unavailable`.
        """
        self._remove_files(self._told(self._store.library.remove(owner, photo_id)))

    def expire(self, before: float) -> tuple[Removal, int, int]:
        """Remove one batch of what ended before a time (epoch seconds): the rows, and the numbers of files that went.

        The numbers are of uploads and of results. Files that need a grace for their readers stay, for the janitor to
        remove once that is over. Raises `Unavailable` when the store cannot be asked.
        """
        gone = self._told(self._store.expire(before))
        if self._storage.grace_seconds() > 0:
            return gone, 0, 0
        return gone, *self._remove_files(gone)

    def _told(self, gone: Removal) -> Removal:
        ids = {name[:32] for name in (*gone.uploads, *gone.results)}
        if ids:
            self._forget(ids)
        return gone

    def _remove_files(self, gone: Removal) -> tuple[int, int]:
        uploads = _remove_each(gone.uploads, self._storage.remove_upload)
        _remove_each(gone.masks, self._storage.remove_mask)
        return uploads, _remove_each(gone.results, self._storage.remove_result)


def _remove_each(names: Iterable[str], remove: Callable[[str], bool]) -> int:
    removed = 0
    for name in names:
        try:
            removed += remove(name)
        except (OSError, RestoreError):
            log.exception("the file %s could not be removed", name)
    return removed

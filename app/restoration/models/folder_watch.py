"""What changes in the weights folder while the service runs: files that came, went or were replaced."""

from __future__ import annotations

from pathlib import Path

from app.restoration.models import weights

_State = frozenset[tuple[str, int, int]]  # name, size and time of change of each file


class FolderWatch:
    """Compares the folder with what it was. Use it from one thread.

    Args:
        folder: the weights folder; it may come later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: _State | None = self._state()
        self._seen = self._known

    def has_changed(self) -> bool:
        """Whether files came, went or changed since the last True, and nothing moved between this look and the last.

        A file that is still being copied changes from look to look, so it is not judged before it is whole.
        """
        state = self._state()
        is_settled, self._seen = state == self._seen, state
        if not is_settled or state == self._known:
            return False
        self._known = state
        return True

    def compare_again(self) -> None:
        """After a change was acted upon: what changed meanwhile was seen or not, so it counts as a change."""
        if self._state() != self._known:
            self._known = None

    def _state(self) -> _State:
        found = set()
        for path in weights.files_in(self._folder):
            try:
                facts = path.stat()
            except FileNotFoundError:  # it went between two looks
                continue
            found.add((path.name, facts.st_size, facts.st_mtime_ns))
        return frozenset(found)

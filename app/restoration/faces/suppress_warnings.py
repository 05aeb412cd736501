"""Silences old packages while they build a network. It knows nothing of what they build."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of Python meanwhile; used only while a network is loaded, never while photos are restored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

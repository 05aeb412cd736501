"""A photo's holes window by window, so that memory stays flat and time goes by the area around the holes.

What windows need not know of each other is computed on several cores at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from app.restoration.repair.diffusion_inpainting import Mask

WINDOW_PIXELS, MARGIN_PIXELS = 384, 64

MOST_THREADS = 4  # each needs some 50 MB for its window

Window = tuple[slice, slice]  # rows, columns
Result = TypeVar("Result")


def windows_of(mask: Mask) -> Iterator[tuple[Window, Window]]:
    """(the part with holes, the same with a margin) of every window of a mask, (H, W) bool, that has a hole."""
    height, width = mask.shape
    for top in range(0, height, WINDOW_PIXELS):
        for left in range(0, width, WINDOW_PIXELS):
            part = mask[top : top + WINDOW_PIXELS, left : left + WINDOW_PIXELS]
            rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            if len(rows):
                y, x = (
                    (top + int(rows[0]), top + int(rows[-1]) + 1),
                    (left + int(columns[0]), left + int(columns[-1]) + 1),
                )
                yield (slice(*y), slice(*x)), (_grown(*y, height), _grown(*x, width))


def of_each(
    windows: Iterable[tuple[Window, Window]], compute: Callable[[Window, Window], Result]
) -> Generator[tuple[tuple[Window, Window], Result], None, None]:
    """Each window with what was computed of it, in their order; few are under way at once, so memory stays flat."""
    threads = min(MOST_THREADS, torch.get_num_threads())
    with ThreadPoolExecutor(threads, thread_name_prefix="repair") as pool:
        begun: deque[tuple[tuple[Window, Window], Future[Result]]] = deque()
        for window in windows:
            begun.append((window, pool.submit(compute, *window)))
            if len(begun) > threads:
                first, future = begun.popleft()
                yield first, future.result()
        for first, future in begun:
            yield first, future.result()


def _grown(begin: int, end: int, limit: int) -> slice:
    return slice(max(0, begin - MARGIN_PIXELS), min(limit, end + MARGIN_PIXELS))

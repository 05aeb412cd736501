"""Which directories of a TIFF are photos: pages at full size, without reduced copies, masks and a camera's raw data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from app.images.metadata import exif_tags
from app.images.orientation import MAX_PACKET_BYTES, UPRIGHT, stands_on_its_side, stated_orientation
from app.images.sniffing import raw_photo
from app.images.tiff_directories import Directory, TiffReader

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 259, 262
ORIENTATION, PAGE_NUMBER, TILE_WIDTH = 274, 297, 322
_DNG_VERSION = 50706
_MASK_PHOTOMETRIC, _DEPTH_PHOTOMETRIC, _SEMANTIC_MASK_PHOTOMETRIC = 4, 51177, 52527
_RAW_PHOTOMETRICS = {32803, 34892}  # a colour filter array, and linear raw
_RAW_COMPRESSIONS = {34713, 32767, 65535, 32770, 65000, 34316}  # of Nikon, Sony, Pentax, Samsung, Kodak, Panasonic
_REDUCED, _PAGE, _MASK, _DEPTH = 1, 2, 4, 8
_OLD_REDUCED, _OLD_PAGE = 2, 3
# A directory that does not say what it is counts as a copy when its sides are so much shorter than another one's.
_COPY_RATIO, _PYRAMID_RATIO = 4, 2
_SAME_SHAPE = 0.04
_LARGEST_SIZES = 16


@dataclasses.dataclass(frozen=True)
class TiffPage:
    """One photo of a TIFF: its directory, its size in pixels as it is stored, and its EXIF orientation, 1 to 8."""

    directory: Directory
    width: int
    height: int
    orientation: int = UPRIGHT

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once upright."""
        return (self.height, self.width) if stands_on_its_side(self.orientation) else (self.width, self.height)


@dataclasses.dataclass(frozen=True)
class TiffPages:
    """The photos of a TIFF in their order; `complete` is False where the file has more directories than are read."""

    photos: tuple[TiffPage, ...]
    complete: bool


def read_pages(file: BinaryIO) -> TiffPages:
    """Find the photos of a TIFF file.

    Raises:
        UnsupportedFormat: `raw_photo`.
        ValueError: the file is no TIFF that can be read, or holds no photo.
    """
    reader = TiffReader(file)
    found: list[TiffPage] = []
    for directory in reader.chain():
        found += (_page(each) for each in _family(directory))
    pages = [page for page in found if page.width and page.height]
    photos = [page for page in pages if not _says_copy(page.directory)]
    largest = sorted({(page.width, page.height) for page in photos}, key=math.prod)[-_LARGEST_SIZES:]
    photos = [page for page in photos if not _looks_like_copy(page, largest)]
    if not photos and pages:  # everything claims to be a reduced copy: the largest is what there is
        photos = [max(pages, key=lambda page: page.width * page.height)]
    if not photos:
        raise ValueError("the TIFF holds no photo")
    return TiffPages(tuple(_with_orientations(photos)), reader.complete)


def _with_orientations(photos: Sequence[TiffPage]) -> Iterator[TiffPage]:
    """Of a page without the tag its XMP says it; all pages together may have no more of it than one large packet."""
    left = MAX_PACKET_BYTES
    for page in photos:
        value = page.directory.number(ORIENTATION, UPRIGHT)
        orientation = value if 1 <= value <= 8 else UPRIGHT
        entry = None if ORIENTATION in page.directory.entries else page.directory.entries.get(exif_tags.XMP)
        if entry is not None and entry.size <= left:
            left -= entry.size
            orientation = stated_orientation([], [page.directory.block(exif_tags.XMP)])
        yield dataclasses.replace(page, orientation=orientation)


def _family(directory: Directory) -> Iterator[Directory]:
    """A directory and those that belong to it."""
    _refuse_raw(directory)
    yield directory
    for child in directory.children():
        _refuse_raw(child)
        yield child


def _refuse_raw(directory: Directory) -> None:
    is_raw = (
        _DNG_VERSION in directory.entries
        or directory.number(PHOTOMETRIC, 0) in _RAW_PHOTOMETRICS
        or directory.number(COMPRESSION, 1) in _RAW_COMPRESSIONS
    )
    if is_raw:
        raise raw_photo()


def _page(directory: Directory) -> TiffPage:
    return TiffPage(directory, max(directory.number(WIDTH, 0), 0), max(directory.number(HEIGHT, 0), 0))


def _says_copy(directory: Directory) -> bool:
    """Whether a directory says that it is a reduced copy, a mask or a depth map."""
    kind = directory.number(NEW_SUBFILE_TYPE, 0)
    return (
        bool(kind & (_REDUCED | _MASK | _DEPTH))
        or directory.number(SUBFILE_TYPE, 0) == _OLD_REDUCED
        or directory.number(PHOTOMETRIC, 0) in (_MASK_PHOTOMETRIC, _DEPTH_PHOTOMETRIC, _SEMANTIC_MASK_PHOTOMETRIC)
    )


def _says_page(directory: Directory) -> bool:
    return (
        bool(directory.number(NEW_SUBFILE_TYPE, 0) & _PAGE)
        or directory.number(SUBFILE_TYPE, 0) == _OLD_PAGE
        or PAGE_NUMBER in directory.entries
    )


def _looks_like_copy(page: TiffPage, sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether a page that does not say what it is has the shape of a much larger one: a thumbnail, or a pyramid."""
    if _says_page(page.directory):
        return False
    ratio = _PYRAMID_RATIO if TILE_WIDTH in page.directory.entries else _COPY_RATIO
    slack = _SAME_SHAPE + 1 / min(page.width, page.height)  # sides are rounded to whole pixels
    return any(
        ratio * page.width <= width * (1 + slack)
        and ratio * page.height <= height * (1 + slack)
        and abs(page.width * height / (page.height * width) - 1) <= slack
        for width, height in sizes
    )

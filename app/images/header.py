"""The cheap look at a file: is it a picture we open, how large is it, is it a bomb; no pixel is decoded here.

The real bytes decide, never a name or a MIME type, and only the one Pillow plugin that belongs to those bytes is let
near the file.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import mmap
import re
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from app.errors import RestoreError, TooLarge, Unprocessable, UnsupportedFormat
from app.images.metadata import exif

MIME_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
}
_HEAD_BYTES = 64
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
# A marker in a JPEG: FF and a code. FF00 is a stuffed data byte, D0..D7 and 01 stand alone and have no length.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9


@dataclasses.dataclass(frozen=True)
class ImageLimits:
    """What a photo may cost. Megapixels are millions of pixels; memory is what the decoding child may add."""

    max_input_megapixels: float = 40.0
    decode_timeout_seconds: float = 20.0
    decode_memory_mb: int = 2048
    max_side_pixels: int = 16384
    max_jpeg_scans: int = 100


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header says: Pillow's format name, its MIME type, and the size in pixels once upright."""

    format: str
    mime: str
    width: int
    height: int


def read_header(path: Path, limits: ImageLimits) -> Header:
    """Judge a file by its header, in milliseconds and without decoding pixels.

    Raises:
        TooLarge: `image_too_large` (megapixels) or `image_side_too_large` (one side).
        UnsupportedFormat: `unsupported_format`, with the formats that we open.
        Unprocessable: `empty_file`, `too_many_scans` or `undecodable_image`.
    """
    with path.open("rb") as file, open_picture(file, limits) as image:
        name = format_name(image)
        width, height = image.size
        if _orientation(image) in _SWAPPING_ORIENTATIONS:
            width, height = height, width
        return Header(name, MIME_TYPES[name], width, height)


def open_picture(file: BinaryIO, limits: ImageLimits) -> Image.Image:
    """Open a file with the one plugin its first bytes name, and check its size; the caller closes the image.

    Raises the same errors as `read_header`. Whatever a plugin throws at a broken file becomes `undecodable_image`.
    """
    head = file.read(_HEAD_BYTES)
    name = _sniff(head)
    try:
        if name == "JPEG":
            _check_scans(file, limits)
        if name == "WEBP":
            _check_size(*webp_size(head), limits)
        image = _open(file, name)
    except RestoreError:
        raise
    except Exception as error:  # broken files raise nearly every class there is
        raise undecodable(name) from error
    try:
        _check_size(*image.size, limits)
    except RestoreError:
        image.close()
        raise
    return image


def format_name(image: Image.Image) -> str:
    """Pillow's format name; a multi-picture JPEG counts as the JPEG that its first picture is."""
    return "JPEG" if image.format in ("JPEG", "MPO") else str(image.format)


def undecodable(name: str = "") -> Unprocessable:
    """The error for a file that starts like a picture and is not a whole one."""
    kind = f"{name} picture" if name else "picture"
    return Unprocessable(
        "undecodable_image",
        f"The file is not a readable {kind}; it may be damaged or cut off. Save it again and retry.",
    )


def accepted_formats() -> list[str]:
    """The formats opened on this machine, by Pillow's names."""
    return [name for name in MIME_TYPES if name != "HEIF" or _heif_installed()]


def _open(file: BinaryIO, name: str) -> Image.Image:
    """`Image.open` limited to one plugin. Pillow's own pixel limit is off: `_check_size` is stricter and says why."""
    quiet_pillow()
    if name == "HEIF":
        _register_heif()
    Image.MAX_IMAGE_PIXELS = None
    file.seek(0)
    try:
        return Image.open(file, formats=(name,))
    except UnidentifiedImageError:
        raise undecodable(name) from None


def quiet_pillow() -> None:
    """Keep Pillow's remarks about broken tags out of the log: a file could write thousands of them."""
    for module in (r"PIL\.", r"pillow_heif\."):
        warnings.filterwarnings("ignore", category=UserWarning, module=module)


@functools.cache
def _heif_installed() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


@functools.cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=2)


def _sniff(head: bytes) -> str:
    """The format that the first bytes claim; raises 422 for nothing and 415 for anything that we do not open."""
    if not head:
        raise Unprocessable("empty_file", "The file is empty; choose a photo and send it again.")
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in _TIFF_MAGICS:
        return "TIFF"
    if head[:2] == b"BM" and len(head) > 18:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _sniff_boxes(head)
    raise _unsupported()


def _sniff_boxes(head: bytes) -> str:
    """AVIF and HEIF share a container; its major brand, then the compatible ones, tell them apart."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, size - 3, 4))]
    if brands[0] in _AVIF_BRANDS or (brands[0] in _HEIF_BRANDS and _AVIF_BRANDS & set(brands)):
        return "AVIF"
    if brands[0] not in _HEIF_BRANDS:
        raise _unsupported()
    if not _heif_installed():
        raise UnsupportedFormat(
            "unsupported_format",
            "HEIC photos need the optional HEIC support, which is not installed here; send the photo as JPEG.",
        )
    return "HEIF"


def _unsupported() -> UnsupportedFormat:
    names = ", ".join(accepted_formats())
    return UnsupportedFormat(
        "unsupported_format", f"This is not a picture format that can be opened; accepted are {names}."
    )


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise undecodable()
    megapixels = width * height / 1e6
    if megapixels > limits.max_input_megapixels:
        raise TooLarge(
            "image_too_large",
            f"The photo has {megapixels:.1f} megapixels; at most {limits.max_input_megapixels:g} are accepted. "
            "Make it smaller and send it again.",
        )
    if max(width, height) > limits.max_side_pixels:
        raise TooLarge(
            "image_side_too_large",
            f"The photo is {width} x {height} pixels; a side may have at most {limits.max_side_pixels}. "
            "Cut or shrink it and send it again.",
        )


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height of a WebP, read by ourselves: Pillow's plugin allocates the whole canvas as it opens."""
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise undecodable("WEBP")


def _check_scans(file: BinaryIO, limits: ImageLimits) -> None:
    """Refuse a JPEG of very many scans: each costs a pass over all pixels, and libjpeg leaves the limit to us."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if _count_scans(data, limits.max_jpeg_scans) > limits.max_jpeg_scans:
            raise Unprocessable(
                "too_many_scans",
                f"This JPEG has more than {limits.max_jpeg_scans} scans; save it as an ordinary JPEG and retry.",
            )


def _count_scans(data: mmap.mmap | bytes, stop_above: int) -> int:
    """Count start-of-scan markers of the first picture.

    Marker segments are stepped over by their length, so that a thumbnail inside one is not counted; scan data is
    searched for the next real marker.
    """
    scans, position = 0, 2
    while scans <= stop_above:
        found = _JPEG_MARKER.search(data, position)
        if found is None or found[1][0] == _END_OF_IMAGE or found.end() + 2 > len(data):
            break
        scans += found[1][0] == _START_OF_SCAN
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(length, 2)
    return scans


def _orientation(image: Image.Image) -> int:
    """EXIF orientation without decoding pixels (Pillow's `getexif` would decode a PNG to look behind its data).

    TIFF and HEIC need none: Pillow and libheif already give their size as it is when upright.
    """
    block = image.info.get("exif")
    return exif.orientation(block) if isinstance(block, bytes) else 1

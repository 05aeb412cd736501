"""Which format a file has, told by its first bytes: never by a name or a MIME type."""

from __future__ import annotations

import functools
import importlib.util

from app.errors import Unprocessable, UnsupportedFormat

MIME_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
}
HEAD_BYTES = 64
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Raw files that are no plain TIFF: ORF (three), RW2, RAF, X3F, MRW, CRW; the others say it in their directories,
# save CR2 and IIQ, which have a mark behind the header of the TIFF.
_RAW_MAGICS = (
    b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR"
)  # fmt: skip
_RAW_TIFF_MARKS = (b"CR", b"IIII", b"MMMM")
_CANON_RAW_BRAND = b"crx "


def accepted_formats() -> list[str]:
    """The formats opened on this machine, by Pillow's names."""
    return [name for name in MIME_TYPES if name != "HEIF" or heif_installed()]


def sniff(head: bytes) -> str:
    """The format that the first bytes claim; raises 422 for nothing and 415 for anything that we do not open."""
    if not head:
        raise Unprocessable("empty_file", "The file is empty; choose a photo and send it again.")
    if head.startswith(_RAW_MAGICS) or (head[:4] in _TIFF_MAGICS and head[8:].startswith(_RAW_TIFF_MARKS)):
        raise raw_photo()
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


def raw_photo() -> UnsupportedFormat:
    """The error for a camera's raw file."""
    return UnsupportedFormat(
        "raw_photo",
        "This is a camera's raw file (DNG, NEF, CR2, CR3, ARW, ORF, RW2 and the like), which cannot be opened here; "
        "develop it with a raw converter and send the photo as TIFF or JPEG.",
    )


def _sniff_boxes(head: bytes) -> str:
    """AVIF and HEIF share a container; its major brand, then the compatible ones, tell them apart."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, size - 3, 4))]
    if brands[0] in _AVIF_BRANDS or (brands[0] in _HEIF_BRANDS and _AVIF_BRANDS & set(brands)):
        return "AVIF"
    if brands[0] == _CANON_RAW_BRAND:
        raise raw_photo()
    if brands[0] not in _HEIF_BRANDS:
        raise _unsupported()
    if not heif_installed():
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


@functools.cache
def heif_installed() -> bool:
    """Whether the optional package for HEIC photos is there."""
    return importlib.util.find_spec("pillow_heif") is not None

"""The text chunks of a PNG, and what other programs hide in them: EXIF, XMP and IPTC as "raw profiles".

Chunks are bounded in number and in what they inflate to; a large or broken one costs itself.
"""

from __future__ import annotations

import binascii
import dataclasses
import struct
import zlib

from app.images import deflate
from app.images.metadata.exif import Buffer
from app.images.png_chunks import MIN_CHUNK_BYTES, chunks

MAX_TEXT_BYTES = 1024 * 1024 - 1  # Pillow opens no PNG whose text inflates to more
_MAX_TOTAL_BYTES = 4 * 1024 * 1024
_MAX_TEXTS = 1000
XMP_KEYWORD = "XML:com.adobe.xmp"
_RAW_PROFILE = "Raw profile type "
_MAX_KEYWORD_BYTES = 79
_PER_METRE = struct.Struct(">IIB")
_INCH_IN_METRES = 0.0254
_READ = frozenset({b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
# A longer text is deflated.
_PLAIN_BYTES = 1024


@dataclasses.dataclass
class PngBlocks:
    """What a PNG carries beside its picture.

    Attributes:
        exif: each eXIf chunk, from its TIFF header on. xmp: each packet.
        exif_profiles: likewise each raw profile of EXIF, which counts after the chunks that are made for it.
        photoshop: Photoshop resources, or a bare IPTC block.
        texts: (keyword, text). too_large: keywords of texts that are larger than is read.
        dpi: pixels per inch in x and y.
        signed: whether there are content credentials (C2PA), a signature of the file.
        complete: False when something was broken or there were more chunks than are read.
    """

    exif: list[bytes] = dataclasses.field(default_factory=list)
    exif_profiles: list[bytes] = dataclasses.field(default_factory=list)
    xmp: list[bytes] = dataclasses.field(default_factory=list)
    photoshop: bytes = b""
    texts: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    too_large: list[str] = dataclasses.field(default_factory=list)
    dpi: tuple[float, float] | None = None
    signed: bool = False
    complete: bool = True

    @property
    def exif_blocks(self) -> list[bytes]:
        """All EXIF, what counts more first."""
        return self.exif + self.exif_profiles


def read_chunks(data: Buffer) -> PngBlocks:
    """Gather what stands in chunks before and behind the pixels; one with a wrong checksum is passed over."""
    found = PngBlocks()
    left = _MAX_TOTAL_BYTES
    for chunk in chunks(data):
        name, length = chunk.name, chunk.end - chunk.start - MIN_CHUNK_BYTES
        found.signed |= name == b"caBX"
        if name not in _READ:
            continue
        if length > left or len(found.texts) >= _MAX_TEXTS:
            found.complete = False
            continue
        left -= length
        if not chunk.is_intact(data):
            continue
        body = chunk.body(data)
        if name == b"pHYs":
            found.dpi = found.dpi or _density(body)
        elif name == b"eXIf":
            found.exif.append(body)
        else:
            left -= _add_text(found, name, body)
    return found


def _density(body: bytes) -> tuple[float, float] | None:
    if len(body) != _PER_METRE.size:
        return None
    x, y, unit = _PER_METRE.unpack(body)
    return (x * _INCH_IN_METRES, y * _INCH_IN_METRES) if unit == 1 else None


def _add_text(found: PngBlocks, name: bytes, body: bytes) -> int:
    """Read one text chunk; returns how many bytes it inflated to."""
    try:
        keyword, text = _text(name, body)
    except _TooLarge as error:
        found.too_large.append(str(error))
        return MAX_TEXT_BYTES
    except (ValueError, zlib.error):
        found.complete = False
        return 0
    _sort(found, keyword, text)
    return len(text)


class _TooLarge(ValueError):
    """A text that inflates to more than is read; its message is the keyword."""


def _text(name: bytes, body: bytes) -> tuple[str, bytes]:
    """Keyword and bytes of a text chunk (UTF-8 for iTXt, as found for the others)."""
    keyword, separator, rest = body.partition(b"\0")
    if not separator:
        raise ValueError("a text without a keyword")
    label = keyword[:_MAX_KEYWORD_BYTES].decode("latin-1")
    if name == b"tEXt":
        return label, _as_utf8(rest)
    if name == b"zTXt":
        return label, _as_utf8(_inflated(rest[1:], label))
    compressed, rest = rest[:1] == b"\1", rest[2:]
    _, _, rest = rest.partition(b"\0")  # language
    _, _, text = rest.partition(b"\0")  # translated keyword
    return label, _inflated(text, label) if compressed else text


def _as_utf8(data: bytes) -> bytes:
    """Latin-1 is the standard's; many programs write UTF-8, which is told by its form."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1").encode("utf-8")
    return data


def _inflated(data: bytes, label: str) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, MAX_TEXT_BYTES)
    if inflater.unconsumed_tail:
        raise _TooLarge(label)
    return text


def _sort(found: PngBlocks, keyword: str, text: bytes) -> None:
    if keyword == XMP_KEYWORD:
        found.xmp.append(text)
    elif keyword.startswith(_RAW_PROFILE):
        _sort_profile(found, keyword.removeprefix(_RAW_PROFILE).lower(), text)
    elif len(text) > MAX_TEXT_BYTES:
        found.too_large.append(keyword)
    else:
        found.texts.append((keyword, text.decode("utf-8", "replace")))


def _sort_profile(found: PngBlocks, kind: str, text: bytes) -> None:
    """ImageMagick's way: a line that names the kind, one with the size, then hexadecimal lines."""
    try:
        block = binascii.unhexlify(b"".join(text.strip().split(b"\n", 2)[2].split()))
    except (ValueError, IndexError):
        found.complete = False
        return
    if kind in ("exif", "app1") and block.startswith(b"Exif\0\0"):
        found.exif_profiles.append(block.removeprefix(b"Exif\0\0"))
    elif kind == "app1" and block.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        found.xmp.append(block.partition(b"\0")[2])
    elif kind == "xmp":
        found.xmp.append(block)
    elif kind == "exif":
        found.exif_profiles.append(block)
    elif kind in ("iptc", "8bim"):
        found.photoshop = found.photoshop or block


def text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """Name and contents of a text chunk: tEXt where Latin-1 and short, else iTXt, deflated where long."""
    label = keyword.encode("latin-1", "replace")[:_MAX_KEYWORD_BYTES]
    if text.isascii() and len(text) <= _PLAIN_BYTES:
        return b"tEXt", label + b"\0" + text.encode("ascii").replace(b"\0", b"")
    data = text.encode("utf-8", "replace").replace(b"\0", b"")
    if len(data) <= _PLAIN_BYTES:
        return b"iTXt", label + b"\0\0\0\0\0" + data
    return b"iTXt", label + b"\0\1\0\0\0" + deflate.compress(data)


def raw_profile_chunk(kind: str, block: bytes) -> tuple[bytes, bytes]:
    """Name and contents of a chunk that holds a block as ImageMagick and ExifTool write and read it."""
    lines = "\n".join(block.hex()[start : start + 72] for start in range(0, 2 * len(block), 72))
    text = f"\n{kind}\n{len(block):8d}\n{lines}\n".encode("ascii")
    label = (_RAW_PROFILE + kind).encode("ascii")
    return b"zTXt", label + b"\0\0" + zlib.compress(text)

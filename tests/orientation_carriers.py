"""One small picture in each format, with its orientation in each place that a file may have for it."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile

from app.images.metadata.png_text import raw_profile_chunk
from tests import picture_factory as make

_PNG_HEAD, _PNG_END = 33, -12
_ORIENTATION = 0x0112
EXIF_FLAG, XMP_FLAG = 0x08, 0x04


@dataclasses.dataclass(frozen=True)
class Carrier:
    """A way to state an orientation.

    Attributes:
        file: the bytes of a file that states it. counts: whether the picture is turned by it.
        pillow: whether Pillow says the same.
    """

    file: Callable[[int], bytes]
    counts: bool = True
    pillow: bool = True


def packet(orientation: int, *, element: bool = False, wide: bool = False) -> bytes:
    """An XMP packet that says nothing else; `wide` in UTF-16."""
    value = f'tiff:Orientation="{orientation}"/>'
    if element:
        value = f"><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>"
    text = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {value}</rdf:RDF></x:xmpmeta>'
    )
    return text.encode("utf-16" if wide else "utf-8")


def silent_block() -> bytes:
    """EXIF that says nothing of an orientation."""
    return make.exif_of({0x010F: "Camera Works"})


def jpeg(*bodies: bytes) -> bytes:
    """A JPEG with APP1 segments."""
    data = make.jpeg()
    segments = (struct.pack(">BBH", 0xFF, 0xE1, len(body) + 2) + body for body in bodies)
    return data[:2] + b"".join(segments) + data[2:]


def exif_segment(block: bytes) -> bytes:
    """The body of a JPEG's EXIF segment."""
    return b"Exif\0\0" + block


def xmp_segment(data: bytes) -> bytes:
    """The body of a JPEG's XMP segment."""
    return b"http://ns.adobe.com/xap/1.0/\0" + data


def png(before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG with chunks before and behind its pixels."""
    data = make.saved(make.rgb_image(), "PNG")
    return data[:_PNG_HEAD] + before + data[_PNG_HEAD:_PNG_END] + behind + data[_PNG_END:]


def exif_chunk(orientation: int) -> bytes:
    """A PNG's own chunk of EXIF."""
    return make.chunk(b"eXIf", make.exif_block(orientation))


def raw_profile(orientation: int, kind: str = "exif") -> bytes:
    """EXIF as ImageMagick writes it into a PNG."""
    return make.chunk(*raw_profile_chunk(kind, exif_segment(make.exif_block(orientation))))


def plain_profile(orientation: int) -> bytes:
    """The same without compression."""
    block = exif_segment(make.exif_block(orientation))
    text = f"\nexif\n{len(block):8d}\n{block.hex()}\n".encode("ascii")
    return make.chunk(b"tEXt", b"Raw profile type exif\0" + text)


def xmp_chunk(orientation: int) -> bytes:
    """A PNG's chunk of XMP."""
    return make.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet(orientation))


def webp(flags: int | None, *chunks: tuple[bytes, bytes], lossless: bool = False) -> bytes:
    """A WebP with chunks behind its pixels; without `flags` it has no header that could speak of them."""
    body = make.saved(make.rgb_image(), "WEBP", lossless=lossless)[12:]
    if flags is not None:
        size = (make.WIDTH - 1).to_bytes(3, "little") + (make.HEIGHT - 1).to_bytes(3, "little")
        body = b"VP8X" + struct.pack("<IB3x", 10, flags) + size + body
    for name, data in chunks:
        body += name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def avif(**options: Any) -> bytes:
    """An AVIF; Pillow makes boxes of the orientation that its EXIF has."""
    return make.saved(make.rgb_image(), "AVIF", quality=95, **options)


def avif_without_boxes(orientation: int) -> bytes:
    """An AVIF whose EXIF speaks of an orientation of which its boxes know nothing."""
    silent, loud = make.exif_of({0x0128: orientation}), make.exif_of({_ORIENTATION: orientation})
    return avif(exif=silent).replace(silent, loud)


def avif_turned_by_nothing(orientation: int) -> bytes:
    """An AVIF with a box that turns it by 0 degrees, and XMP that says something else."""
    data = avif(exif=make.exif_of({_ORIENTATION: 6}), xmp=packet(orientation))
    place = data.index(b"irot") + 4
    return data[:place] + b"\0" + data[place + 1 :]


def heic(orientation: int, *, xmp_only: bool = False) -> bytes:
    """A HEIC that its encoder turns by boxes; needs the optional package."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    said = {"xmp": packet(orientation)} if xmp_only else {"exif": make.exif_block(orientation)}
    return make.saved(make.rgb_image(), "HEIF", quality=95, **said)


def tiff(*pages: Sequence[Any], copy: bool = False) -> bytes:
    """A TIFF of one page for each sequence of tags; if asked, a small copy of the photo stands before them."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        if copy:
            writer.write(make.photo(12, 8), photometric="rgb", metadata=None, subfiletype=1)
        for tags in pages:
            writer.write(make.photo(), photometric="rgb", metadata=None, extratags=tags)
    return buffer.getvalue()


def orientation_tag(orientation: int, kind: str = "H") -> tuple[Any, ...]:
    """The tag of a TIFF, in a type."""
    return (_ORIENTATION, kind, 1, orientation, True)


def xmp_tag(data: bytes) -> tuple[Any, ...]:
    """XMP in a TIFF."""
    return (700, "B", len(data), np.frombuffer(data, np.uint8), True)


CARRIERS: dict[str, Carrier] = {
    "jpeg exif": Carrier(lambda o: jpeg(exif_segment(make.exif_block(o)))),
    "jpeg second exif": Carrier(
        lambda o: jpeg(exif_segment(silent_block()), exif_segment(make.exif_block(o))), pillow=False
    ),
    "jpeg xmp": Carrier(lambda o: jpeg(xmp_segment(packet(o)))),
    "jpeg xmp element": Carrier(lambda o: jpeg(xmp_segment(packet(o, element=True)))),
    "jpeg xmp utf-16": Carrier(lambda o: jpeg(xmp_segment(packet(o, wide=True))), pillow=False),
    "jpeg xmp beside silent exif": Carrier(lambda o: jpeg(exif_segment(silent_block()), xmp_segment(packet(o)))),
    "jpeg xmp beside exif": Carrier(
        lambda o: jpeg(exif_segment(make.exif_block(1)), xmp_segment(packet(o))), counts=False
    ),
    "jpeg xmp beside exif that means nothing": Carrier(
        lambda o: jpeg(exif_segment(make.exif_of({_ORIENTATION: 0})), xmp_segment(packet(o))), counts=False
    ),
    "jpeg xmp beside broken exif": Carrier(
        lambda o: jpeg(exif_segment(b"XXXX" + make.exif_block(3)[4:]), xmp_segment(packet(o))), pillow=False
    ),
    "jpeg second xmp": Carrier(
        lambda o: jpeg(xmp_segment(make.XMP.replace(b"tiff:Orientation", b"tiff:Nothing")), xmp_segment(packet(o))),
        counts=False,
        pillow=False,
    ),
    "png exif": Carrier(lambda o: png(exif_chunk(o))),
    "png exif behind": Carrier(lambda o: png(b"", exif_chunk(o))),
    "png raw profile": Carrier(lambda o: png(raw_profile(o))),
    "png raw profile behind": Carrier(lambda o: png(b"", raw_profile(o))),
    "png plain profile": Carrier(lambda o: png(plain_profile(o))),
    "png raw profile app1": Carrier(lambda o: png(raw_profile(o, "APP1")), pillow=False),
    "png exif goes before a profile": Carrier(lambda o: png(raw_profile(9 - o), exif_chunk(o))),
    "png xmp": Carrier(lambda o: png(xmp_chunk(o))),
    "png xmp behind": Carrier(lambda o: png(b"", xmp_chunk(o))),
    "webp exif": Carrier(lambda o: webp(EXIF_FLAG, (b"EXIF", make.exif_block(o)))),
    "webp exif lossless": Carrier(lambda o: webp(EXIF_FLAG, (b"EXIF", make.exif_block(o)), lossless=True)),
    "webp exif not spoken of": Carrier(lambda o: webp(XMP_FLAG, (b"EXIF", make.exif_block(o))), counts=False),
    "webp exif without a header": Carrier(lambda o: webp(None, (b"EXIF", make.exif_block(o))), counts=False),
    "webp xmp": Carrier(lambda o: webp(XMP_FLAG, (b"XMP ", packet(o)))),
    "webp xmp not spoken of": Carrier(lambda o: webp(0, (b"XMP ", packet(o))), counts=False),
    "webp xmp beside exif not spoken of": Carrier(
        lambda o: webp(XMP_FLAG, (b"EXIF", make.exif_block(9 - o)), (b"XMP ", packet(o)))
    ),
    "webp exif behind the end": Carrier(
        lambda o: webp(EXIF_FLAG) + b"EXIF" + struct.pack("<I", len(make.exif_block(o))) + make.exif_block(o),
        counts=False,
    ),
    "avif boxes": Carrier(lambda o: avif(exif=make.exif_block(o))),
    "avif exif without boxes": Carrier(avif_without_boxes, counts=False),
    "avif xmp": Carrier(lambda o: avif(xmp=packet(o))),
    "avif xmp beside a box": Carrier(avif_turned_by_nothing, counts=False, pillow=False),
    "heif boxes": Carrier(heic, pillow=False),
    "heif boxes and xmp": Carrier(lambda o: heic(o, xmp_only=True), pillow=False),
    "tiff tag": Carrier(lambda o: tiff([orientation_tag(o)])),
    "tiff tag as a byte": Carrier(lambda o: tiff([orientation_tag(o, "B")]), pillow=False),
    "tiff tag as a float": Carrier(lambda o: tiff([orientation_tag(o, "f")]), pillow=False),
    "tiff xmp": Carrier(lambda o: tiff([xmp_tag(packet(o))])),
    "tiff xmp beside the tag": Carrier(lambda o: tiff([orientation_tag(1), xmp_tag(packet(o))]), counts=False),
    "tiff photo behind a copy": Carrier(lambda o: tiff([orientation_tag(o)], copy=True), pillow=False),
    "tiff photo with xmp behind a copy": Carrier(lambda o: tiff([xmp_tag(packet(o))], copy=True), pillow=False),
    "bmp": Carrier(lambda _: make.saved(make.rgb_image(), "BMP"), counts=False),
}

"""Files that must be refused: each with its name, the status and code it must get, and where that shows.

`stage` is "submit" when the header check refuses the file, "decode" when only the decoder can know.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests import picture_factory as make
from tests.tiff_writer import TiffWriter


@dataclasses.dataclass(frozen=True)
class HostileCase:
    """Bytes and what they must meet."""

    bytes: make.Maker
    filename: str
    status: int
    code: str
    stage: str = "submit"


def png_claiming(width: int, height: int) -> bytes:
    """A header and nothing else: 57 bytes that claim any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return make.PNG_SIGNATURE + make.chunk(b"IHDR", header) + make.chunk(b"IDAT", b"") + make.chunk(b"IEND", b"")


def scan_bomb(scans: int, width: int = make.WIDTH, height: int = make.HEIGHT) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    image = Image.fromarray(make.photo(width, height))
    data = make.saved(image, "JPEG", progressive=True, quality=50)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def png_with_bad_sum() -> bytes:
    """A PNG whose header's checksum is changed."""
    data = bytearray(make.KINDS["png rgb"]())
    data[32] ^= 0xFF
    return bytes(data)


def png_with_impossible_header() -> bytes:
    """A PNG whose header says 3 bits a channel, which the checksum contradicts too."""
    data = bytearray(make.KINDS["png rgb"]())
    data[24] = 3
    return bytes(data)


def png_with_bad_pixels() -> bytes:
    """A PNG whose packed pixels are overwritten in the middle."""
    data = bytearray(make.KINDS["png rgb"]())
    middle = data.index(b"IDAT") + 300
    data[middle : middle + 40] = b"\xff" * 40
    return bytes(data)


def png_lying() -> bytes:
    """A PNG whose header claims more rows than there are."""
    rows = b"".join(b"\0" + row.tobytes() for row in make.photo())
    return make.png(make.WIDTH, make.HEIGHT * 4, 8, 2, rows)


def png_with_bomb(name: bytes, prefix: bytes) -> bytes:
    """A PNG with a chunk that unpacks to 100 MB."""
    rows = b"".join(b"\0" + row.tobytes() for row in make.photo())
    packed = zlib.compress(bytes(100_000_000), 9)
    return make.png(make.WIDTH, make.HEIGHT, 8, 2, rows, make.chunk(name, prefix + packed))


def half(kind: str, share: float = 0.6) -> bytes:
    """The first part of a good file."""
    data = make.KINDS[kind]()
    return data[: int(len(data) * share)]


def bmp(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    """A BMP header and a little data."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 12, 0, 0, 54) + info + bytes(12)


def tiff_claiming(width: int, height: int) -> bytes:
    """A TIFF directory without pixels."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 8)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4)


def _tiff_tagged(tag: int, value: int) -> bytes:
    """A good TIFF, save that one tag says something else."""
    writer = TiffWriter()
    writer.page(make.photo(), 2, 8, tags={tag: ("H", [value])})
    return writer.content()


def webp_claiming(width: int, height: int) -> bytes:
    """An extended WebP header."""
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(20)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg_claiming(width: int, height: int) -> bytes:
    """A JPEG whose frame header says any size."""
    data = bytearray(make.jpeg())
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, height, width)
    return bytes(data)


def _float_rgb() -> bytes:
    return make.tiff(make.photo().astype(np.float32), photometric="rgb")


def _wide_grey(kind: type) -> bytes:
    values: Any = make.photo()[..., 1].astype(kind) * (1 << 20 if kind is np.uint32 else 1)
    return make.tiff(values, photometric="minisblack")


def _refused(content: bytes, filename: str) -> HostileCase:
    return HostileCase(lambda: content, filename, 415, "unsupported_format")


def _broken(maker: make.Maker, filename: str, stage: str = "submit") -> HostileCase:
    return HostileCase(maker, filename, 422, "undecodable_image", stage)


_HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
_SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'

HOSTILE: dict[str, HostileCase] = {
    "empty file": HostileCase(lambda: b"", "empty.jpg", 422, "empty_file"),
    "one byte": _refused(b"\xff", "one.jpg"),
    "two bytes of a jpeg": _refused(b"\xff\xd8", "two.jpg"),
    "only zeros": _refused(bytes(4096), "zeros.png"),
    "html named jpg": _refused(_HTML, "page.jpg"),
    "svg": _refused(_SVG, "drawing.svg"),
    "svg named png": _refused(_SVG, "drawing.png"),
    "pdf": _refused(b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "paper.pdf"),
    "eps": _refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "drawing.eps"),
    "gif": HostileCase(lambda: make.saved(make.rgb_image(), "GIF"), "dance.gif", 415, "unsupported_format"),
    "jpeg 2000": HostileCase(lambda: make.saved(make.rgb_image(), "JPEG2000"), "a.jp2", 415, "unsupported_format"),
    "ico": HostileCase(lambda: make.saved(make.rgb_image(), "ICO"), "icon.ico", 415, "unsupported_format"),
    "tga": HostileCase(lambda: make.saved(make.rgb_image(), "TGA"), "a.tga", 415, "unsupported_format"),
    "ppm": HostileCase(lambda: make.saved(make.rgb_image(), "PPM"), "a.ppm", 415, "unsupported_format"),
    "psd": _refused(b"8BPS\0\1" + bytes(60), "layers.psd"),
    "zip": _refused(b"PK\3\4" + bytes(60), "photos.jpg"),
    "program": _refused(b"\x7fELF\2\1\1" + bytes(60), "photo.png"),
    "film": _refused(b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(60), "film.jpg"),
    "jpeg xl": _refused(b"\xff\x0a" + bytes(60), "a.jxl"),
    "sound in riff": _refused(b"RIFF\x24\0\0\0WAVEfmt " + bytes(60), "song.webp"),
    "png bomb": HostileCase(lambda: png_claiming(50_000, 50_000), "bomb.png", 413, "image_too_large"),
    "png thread": HostileCase(lambda: png_claiming(20_000, 1), "thread.png", 413, "image_side_too_large"),
    "png without width": _broken(lambda: png_claiming(0, 10), "flat.png"),
    "png without pixels": _broken(lambda: png_claiming(10, 10), "none.png", "decode"),
    "png signature only": _broken(lambda: make.PNG_SIGNATURE, "sig.png"),
    "png header cut": _broken(lambda: make.KINDS["png rgb"]()[:25], "cut.png"),
    "png cut": _broken(lambda: half("png rgb"), "cut.png", "decode"),
    "png 16 bit cut": _broken(lambda: half("png16 rgb"), "cut16.png", "decode"),
    "png header impossible": _broken(png_with_impossible_header, "header.png"),
    "png with rows missing": _broken(png_lying, "rows.png", "decode"),
    "png pixels overwritten": _broken(png_with_bad_pixels, "holes.png", "decode"),
    "jpeg scan bomb": HostileCase(lambda: scan_bomb(500), "scans.jpg", 422, "too_many_scans"),
    "jpeg bomb": HostileCase(lambda: jpeg_claiming(65_535, 65_535), "bomb.jpg", 413, "image_too_large"),
    "jpeg without size": _broken(lambda: jpeg_claiming(0, 0), "zero.jpg"),
    "jpeg start only": _broken(lambda: b"\xff\xd8\xff\xe0", "start.jpg"),
    "jpeg cut": _broken(lambda: half("jpeg", 0.9), "cut.jpg", "decode"),
    "jpeg noise": _broken(lambda: b"\xff\xd8\xff" + np.random.default_rng(3).bytes(5000), "noise.jpg"),
    "webp bomb": HostileCase(lambda: webp_claiming(16_384, 16_384), "bomb.webp", 413, "image_too_large"),
    "webp cut": _broken(lambda: half("webp lossy"), "cut.webp", "decode"),
    "webp header only": _broken(lambda: b"RIFF\x04\0\0\0WEBP", "head.webp"),
    "tiff bomb": HostileCase(lambda: tiff_claiming(60_000, 60_000), "bomb.tif", 413, "image_too_large"),
    "tiff cut": _broken(lambda: half("tiff lzw"), "cut.tif"),
    "tiff pixels missing": _broken(lambda: tiff_claiming(64, 64), "none.tif", "decode"),
    "tiff magic only": _broken(lambda: b"II*\0", "magic.tif"),
    "tiff float colours": HostileCase(_float_rgb, "float.tif", 422, "unsupported_depth", "decode"),
    "tiff lerc": HostileCase(lambda: _tiff_tagged(259, 34887), "lerc.tif", 422, "unsupported_compression", "decode"),
    "tiff of itu lab": HostileCase(lambda: _tiff_tagged(262, 10), "lab.tif", 422, "unsupported_depth", "decode"),
    "tiff of raw data": HostileCase(lambda: _tiff_tagged(262, 32803), "raw.tif", 415, "raw_photo"),
    "canon raw": HostileCase(lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "IMG_1.CR3", 415, "raw_photo"),
    "fuji raw": HostileCase(lambda: b"FUJIFILMCCD-RAW 0201" + bytes(100), "DSCF1.RAF", 415, "raw_photo"),
    "bmp with a png inside": HostileCase(lambda: bmp(4, 4, 32, 5), "png.bmp", 422, "unsupported_compression"),
    "tiff float range": HostileCase(lambda: _wide_grey(np.float32), "hdr.tif", 422, "unsupported_depth", "decode"),
    "bmp bomb": HostileCase(lambda: bmp(100_000, 100_000), "bomb.bmp", 413, "image_too_large"),
    "bmp of 40 bits": HostileCase(lambda: bmp(4, 4, 40), "forty.bmp", 422, "unsupported_depth"),
    "bmp cut": _broken(lambda: half("bmp"), "cut.bmp", "decode"),
    "avif cut": _broken(lambda: half("avif", 0.9), "cut.avif", "decode"),
    "avif head only": _broken(lambda: make.KINDS["avif"]()[:40], "head.avif"),
}

# Odd, and yet whole: these must be decoded.
ODD_BUT_GOOD: dict[str, make.Maker] = {
    "jpeg with a zip behind it": lambda: make.jpeg() + b"PK\3\4" + bytes(100),
    "jpeg with html in a comment": lambda: make.jpeg(comment=_HTML),
    "jpeg with broken exif": lambda: make.jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(20)),
    "jpeg with an endless exif": lambda: make.jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(200)),
    "jpeg with a broken profile": lambda: make.jpeg(icc_profile=b"no profile" * 30),
    "jpeg with a profile for cmyk": lambda: make.jpeg(icc_profile=make.matrix_profile(make.P3, 2.2, b"CMYK")),
    "png with a broken profile": lambda: make.saved(make.rgb_image(), "PNG", icc_profile=b"no profile" * 30),
    "png with a wrong sum of its header": png_with_bad_sum,
    "png with a text bomb": lambda: png_with_bomb(b"zTXt", b"Comment\0\0"),
    "png with a profile bomb": lambda: png_with_bomb(b"iCCP", b"icc\0\0"),
    "png frames without end": lambda: make.saved(
        make.rgb_image(), "PNG", save_all=True, append_images=[make.rgb_image().rotate(n) for n in range(1, 60)]
    ),
    "png of one pixel": lambda: make.png(1, 1, 8, 2, b"\0abc"),
}

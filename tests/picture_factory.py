"""Pictures for tests, made in memory: `KINDS` maps the name of a kind to a maker of good bytes."""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from app.images import Picture, colour
from app.images.metadata import exif, exif_writing

WIDTH, HEIGHT = 24, 16
P3 = [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Maker = Callable[[], bytes]


def photo(width: int = WIDTH, height: int = HEIGHT, seed: int = 1) -> NDArray[np.uint8]:
    """A smooth colourful picture with some grain, (H, W, 3) RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / width * 3 + k) * np.cos(y / height * 2 + 2 * k) for k in range(3)]
    grain = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return np.clip(np.stack(waves, axis=2) * 90 + 128 + grain, 0, 255).astype(np.uint8)


def deep(array: NDArray[np.uint8], seed: int = 2) -> NDArray[np.uint16]:
    """The same picture with 16 bits, the low byte random, so that a loss of depth shows."""
    low = np.random.default_rng(seed).integers(0, 256, array.shape)
    return (array.astype(np.uint16) * 256 + low).astype(np.uint16)


def vivid() -> NDArray[np.uint8]:
    """Full primaries from dark to bright, which only a wide space can hold, (12, 24, 3) RGB."""
    ramp = np.linspace(0, 255, 24).astype(np.uint8)
    rows = [np.stack([ramp if k == c else np.zeros_like(ramp) for k in range(3)], axis=1) for c in range(3)]
    return np.repeat(np.stack(rows), 4, axis=0)


def muted() -> NDArray[np.uint8]:
    """The photo with colours that every space holds."""
    return (photo() // 3 + 80).astype(np.uint8)


def soft_alpha(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Transparent on the left, opaque on the right, a ramp between."""
    ramp = np.clip((np.arange(width) - width / 4) / (width / 2), 0, 1) * 255
    return np.repeat(ramp.astype(np.uint8)[None], height, axis=0)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of a Pillow image saved in a format."""
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def rgb_image() -> Image.Image:
    """The photo as a Pillow image."""
    return Image.fromarray(photo())


def rgba_image() -> Image.Image:
    """The photo with a soft alpha channel."""
    return Image.fromarray(np.dstack([photo(), soft_alpha()]))


def jpeg(**options: Any) -> bytes:
    """A JPEG of the photo."""
    return saved(rgb_image(), "JPEG", **{"quality": 95, **options})


def chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk with a right checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG from filtered rows; `extra` chunks stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(array: NDArray[np.uint16], extra: bytes = b"") -> bytes:
    """A 16-bit PNG of (H, W), (H, W, 2), (H, W, 3) or (H, W, 4) samples."""
    samples = array[..., None] if array.ndim == 2 else array
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(samples.shape[1], samples.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2]], rows, extra)


def physical_size(x: float, y: float) -> bytes:
    """A PNG's chunk of pixels per inch."""
    return chunk(b"pHYs", struct.pack(">IIB", round(x / 0.0254), round(y / 0.0254), 1))


def small_grey_png(depth: int, extra: bytes = b"") -> bytes:
    """A grey PNG of 1, 2 or 4 bits, its values counting up."""
    values = (np.arange(WIDTH * HEIGHT) % (1 << depth)).reshape(HEIGHT, WIDTH)
    bits = ((values[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(HEIGHT, -1)
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits)
    return png(WIDTH, HEIGHT, depth, 0, rows, extra)


def palette_png(**options: Any) -> bytes:
    """A palette PNG."""
    return saved(rgb_image().quantize(32), "PNG", **options)


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    """A TIFF written by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def exif_block(orientation: int = 1, *, gps: bool = False, order: str = "<", thumbnail: bytes = b"") -> bytes:
    """An EXIF block with maker, orientation, pixel sizes, and if asked GPS and a thumbnail."""
    block = Image.Exif()
    block.endian = order
    block[0x010F] = "Camera Works"
    block[0x0112] = orientation
    block[0x8769] = {0x9003: "2020:01:02 03:04:05", 0xA002: WIDTH, 0xA003: HEIGHT, 0x927C: b"maker note"}
    if gps:
        block[0x8825] = {1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.0)}
    data = block.tobytes()
    data = data.removeprefix(b"Exif\0\0")
    return _with_thumbnail(data, thumbnail, order) if thumbnail else data


def exif_of(main: dict[int, int | str], photo: dict[int, int] | None = None, index: str = "") -> bytes:
    """An EXIF block of IFD0 and, if they are given, of the Exif directory and the interoperability index."""
    block = exif.Exif()
    for tag, value in main.items():
        block.main[tag] = (
            exif.Value(exif.ASCII, value.encode() + b"\0") if isinstance(value, str) else block.shorts(value)
        )
    block.photo |= {tag: block.shorts(number) for tag, number in (photo or {}).items()}
    if index:
        block.interop |= {1: exif.Value(exif.ASCII, index.encode() + b"\0"), 2: exif.Value(exif.UNDEFINED, b"0100")}
    return exif_writing.serialized(block) or b""


def _with_thumbnail(block: bytes, thumbnail: bytes, order: str) -> bytes:
    directory = struct.unpack_from(order + "I", block, 4)[0]
    count = struct.unpack_from(order + "H", block, directory)[0]
    pointer = directory + 2 + 12 * count
    block = block + b"\0" * (len(block) % 2)
    second = len(block)
    start = second + 2 + 2 * 12 + 4
    table = struct.pack(order + "H", 2)
    table += struct.pack(order + "HHII", 0x0201, 4, 1, start) + struct.pack(
        order + "HHII", 0x0202, 4, 1, len(thumbnail)
    )
    joined = bytearray(block + table + bytes(4) + thumbnail)
    struct.pack_into(order + "I", joined, pointer, second)
    return bytes(joined)


def iptc_block(texts: dict[int, str]) -> bytes:
    """IPTC data sets of the application record, in UTF-8."""
    sets = [(1, 90, b"\x1b%G"), *((2, number, text.encode()) for number, text in texts.items())]
    return b"".join(struct.pack(">BBBH", 0x1C, record, number, len(value)) + value for record, number, value in sets)


def iptc_segment(texts: dict[int, str]) -> bytes:
    """An APP13 segment as Photoshop and photo agencies write it."""
    block = iptc_block(texts)
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block + bytes(len(block) % 2)
    return struct.pack(">BBH", 0xFF, 0xED, len(body) + 2) + body


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    b'tiff:Orientation="6" exif:GPSLatitude="48,51.5N" photoshop:City="Paris" dc:format="image/jpeg">'
    b"<exif:GPSLongitude>2,17.6E</exif:GPSLongitude><dc:title>Grandmother</dc:title>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def matrix_profile(primaries: list[tuple[float, float]], gamma: float, space: bytes = b"RGB ") -> bytes:
    """A small ICC profile: three primaries (xy), white D65 adapted to D50, one gamma."""
    white = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    to_xyz = columns * np.linalg.solve(columns, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    pcs = np.array([0.9642, 1.0, 0.8249])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ pcs) / (bradford @ white)) @ bradford
    adapted = adapt @ to_xyz

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": xyz_tag(pcs), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name: xyz_tag(adapted[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return icc_of(tags, space)


def xyz_tag(values: NDArray[Any]) -> bytes:
    """An ICC tag of one colour in XYZ."""
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def icc_of(tags: dict[bytes, bytes], space: bytes = b"RGB ", device: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 from its tags."""
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    head = struct.pack(">I", size) + b"test" + bytes.fromhex("02400000") + device + space + pcs
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def tagged(picture: Picture, profile: bytes) -> Picture:
    """A picture whose numbers are those of a profile, as the decoder's child gives it."""
    table = colour.srgb_table(profile, grey=picture.grey)
    return dataclasses.replace(picture, icc_profile=profile, srgb_table=table)


@functools.cache
def display_p3() -> bytes:
    """Display P3's primaries with a plain gamma."""
    return matrix_profile(P3, 2.2)


@functools.cache
def adobe_rgb() -> bytes:
    """Adobe RGB's primaries and gamma."""
    return matrix_profile([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], 2.2)


@functools.cache
def grey_gamma_18() -> bytes:
    """A grey profile of gamma 1.8."""
    return matrix_profile([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)], 1.8, b"GRAY")


@functools.cache
def srgb() -> bytes:
    """Pillow's own sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk_image() -> Image.Image:
    """A CMYK picture."""
    return rgb_image().convert("CMYK")


def mpo() -> bytes:
    """A multi-picture JPEG."""
    return saved(rgb_image(), "MPO", save_all=True, append_images=[rgb_image().rotate(180)], quality=95)


def heic() -> bytes:
    """A HEIC photo; needs the optional package."""
    import pillow_heif

    return bytes(saved_heif(pillow_heif))


def saved_heif(package: Any) -> bytes:
    """The photo as HEIC, by the given package."""
    buffer = io.BytesIO()
    package.from_pillow(rgb_image()).save(buffer, quality=90)
    return buffer.getvalue()


def _deep_alpha() -> NDArray[np.uint16]:
    return soft_alpha().astype(np.uint16) * 257


def _trns(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


KINDS: dict[str, Maker] = {
    "jpeg": jpeg,
    "jpeg grey": lambda: saved(rgb_image().convert("L"), "JPEG", quality=95),
    "jpeg progressive": lambda: jpeg(progressive=True),
    "jpeg cmyk": lambda: saved(cmyk_image(), "JPEG", quality=95),
    "jpeg mpo": mpo,
    "png rgb": lambda: saved(rgb_image(), "PNG"),
    "png rgba": lambda: saved(rgba_image(), "PNG"),
    "png grey": lambda: saved(rgb_image().convert("L"), "PNG"),
    "png grey alpha": lambda: saved(rgba_image().convert("LA"), "PNG"),
    "png 1 bit": lambda: small_grey_png(1),
    "png 2 bit": lambda: small_grey_png(2),
    "png 4 bit": lambda: small_grey_png(4),
    "png palette": palette_png,
    "png palette transparent": lambda: palette_png(transparency=3),
    "png rgb transparent colour": lambda: saved(rgb_image(), "PNG", transparency=tuple(int(v) for v in photo()[3, 4])),
    "png grey transparent": lambda: saved(rgb_image().convert("L"), "PNG", transparency=100),
    "png 1 bit transparent": lambda: small_grey_png(1, _trns(0)),
    "png16 rgb": lambda: deep_png(deep(photo())),
    "png16 rgba": lambda: deep_png(np.dstack([deep(photo()), _deep_alpha()])),
    "png16 grey": lambda: deep_png(deep(photo())[..., 1]),
    "png16 grey alpha": lambda: deep_png(np.dstack([deep(photo())[..., 1], _deep_alpha()])),
    "png16 rgb transparent colour": lambda: deep_png(deep(photo()), _trns(*(int(v) for v in deep(photo())[3, 4]))),
    "png16 grey transparent": lambda: deep_png(deep(photo())[..., 1], _trns(int(deep(photo())[3, 4, 1]))),
    "webp lossy": lambda: saved(rgb_image(), "WEBP", quality=90),
    "webp lossless": lambda: saved(rgb_image(), "WEBP", lossless=True),
    "webp alpha": lambda: saved(rgba_image(), "WEBP", lossless=True),
    "webp animated": lambda: saved(rgb_image(), "WEBP", save_all=True, append_images=[rgb_image().rotate(180)]),
    "tiff": lambda: saved(rgb_image(), "TIFF"),
    "tiff lzw": lambda: saved(rgb_image(), "TIFF", compression="tiff_lzw"),
    "tiff rgba": lambda: saved(rgba_image(), "TIFF"),
    "tiff cmyk": lambda: saved(cmyk_image(), "TIFF"),
    "tiff lab": lambda: saved(_lab_image(), "TIFF"),
    "tiff grey": lambda: saved(rgb_image().convert("L"), "TIFF"),
    "tiff pages": lambda: saved(rgb_image(), "TIFF", save_all=True, append_images=[rgb_image().rotate(180)]),
    "tiff16 rgb": lambda: tiff(deep(photo()), photometric="rgb"),
    "tiff16 rgb deflate": lambda: tiff(deep(photo()), photometric="rgb", compression="zlib", predictor=True),
    "tiff16 rgb big endian": lambda: tiff(deep(photo()), photometric="rgb", byteorder=">"),
    "tiff16 rgb planes": lambda: tiff(_planes(), photometric="rgb", planarconfig="separate"),
    "tiff16 rgba": lambda: tiff(_deep_rgba(), photometric="rgb", extrasamples=["unassalpha"]),
    "tiff16 grey": lambda: tiff(deep(photo())[..., 1], photometric="minisblack"),
    "tiff float grey": lambda: tiff(deep(photo())[..., 1].astype(np.float32) / 65535, photometric="minisblack"),
    "bmp": lambda: saved(rgb_image(), "BMP"),
    "bmp palette": lambda: saved(rgb_image().quantize(16), "BMP"),
    "avif": lambda: saved(rgb_image(), "AVIF", quality=95),
    "avif alpha": lambda: saved(rgba_image(), "AVIF", quality=95),
}


def _planes() -> NDArray[np.uint16]:
    return np.ascontiguousarray(deep(photo()).transpose(2, 0, 1))


def _deep_rgba() -> NDArray[np.uint16]:
    return np.dstack([deep(photo()), _deep_alpha()])


def _lab_image() -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(rgb_image(), rgb, lab, outputMode="LAB")
    assert converted is not None
    return converted


def iccp(profile: bytes) -> bytes:
    """The PNG chunk that holds a profile."""
    return chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))


@functools.cache
def cmyk_profile() -> bytes:
    """A small CMYK profile: a 2-point table of Lab colours, made by plain ink arithmetic."""
    grid = np.indices((2, 2, 2, 2)).reshape(4, -1).T
    light = (1 - grid[:, :3]) * (1 - grid[:, 3:])
    swatches = Image.fromarray((light * 255).astype(np.uint8)[None])
    converted = ImageCms.profileToProfile(
        swatches, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert converted is not None
    lab = (np.asarray(converted)[0].astype(np.int16) ^ np.array([0, 128, 128], np.int16)).astype(np.uint8)
    curve = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table += curve * 4 + lab.tobytes() + curve * 3
    tags = {b"A2B0": table, b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)}
    return icc_of(tags, b"CMYK", b"prtr", b"Lab ")

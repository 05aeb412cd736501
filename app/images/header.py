"""The cheap look at a file: is it a picture we open, how large is it, is it a bomb; no pixel is decoded here.

The real bytes decide, never a name or a MIME type, and only the one Pillow plugin that belongs to those bytes is let
near the file.
"""

from __future__ import annotations

import dataclasses
import functools
import mmap
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from app.errors import RestoreError, TooLarge, Unprocessable
from app.images import riff_chunks
from app.images.address_space import lacks_memory
from app.images.bmp_header import embedded_profile, read_masked, without_masks
from app.images.container import Container, inspect
from app.images.isobmff import BoxFile
from app.images.jpeg_segments import JpegFile, Scans
from app.images.orientation import photo_orientation, stands_on_its_side, webp_orientation
from app.images.png_chunks import MAX_PROFILE_BYTES
from app.images.sniffing import HEAD_BYTES, MIME_TYPES, sniff
from app.images.tiff_metadata import metadata_image
from app.images.tiff_pages import TiffPages, read_pages

# Pillow brings greys of 2 and 4 bits to the full range, but leaves the transparent one as it stands in the file.
_STEPS_OF_RAW_MODE = {"L;2": 85, "L;4": 17}


@dataclasses.dataclass(frozen=True)
class ImageLimits:
    """What a photo may cost. Megapixels are millions of pixels; memory is what the decoding child may add."""

    max_input_megapixels: float = 40.0
    decode_timeout_seconds: float = 20.0
    decode_memory_mb: int = 2048
    max_side_pixels: int = 16384
    max_jpeg_scans: int = 100
    max_pages: int = 100


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header says: Pillow's format name, its MIME type, and the size in pixels once upright.

    `page_sizes` are those of all pages of a TIFF, width and height; of another format that of the picture alone.
    """

    format: str
    mime: str
    width: int
    height: int
    page_sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.page_sizes:
            object.__setattr__(self, "page_sizes", ((self.width, self.height),))


@dataclasses.dataclass(frozen=True)
class OpenedPhoto:
    """A photo opened by its plugin, nothing decoded yet: leave the `with` block to close it."""

    image: Image.Image
    container: Container

    def __enter__(self) -> OpenedPhoto:
        return self

    def __exit__(self, *_: object) -> None:
        self.image.close()
        self.container.close()


def read_header(path: Path, limits: ImageLimits) -> Header:
    """Judge a file by its header, in milliseconds and without decoding pixels.

    Raises:
        TooLarge: `image_too_large` (megapixels) or `image_side_too_large` (one side).
        UnsupportedFormat: `unsupported_format`, with the formats that we open.
        Unprocessable: `empty_file`, `too_many_scans`, `unsupported_depth` or `undecodable_image`.
    """
    with path.open("rb") as file:
        name = sniff(file.read(HEAD_BYTES))
        if name == "TIFF":
            return _tiff_header(file, limits)
        if name == "WEBP":
            return _webp_header(file, limits)
        file.seek(0)
        return _picture_header(file, limits)


def _picture_header(file: BinaryIO, limits: ImageLimits) -> Header:
    with open_picture(file, limits, whole=False) as photo:
        name = format_name(photo.image)
        width, height = _shown_size(photo)
        if stands_on_its_side(photo_orientation(photo.image, photo.container)):
            width, height = height, width
        return Header(name, MIME_TYPES[name], width, height)


def _shown_size(photo: OpenedPhoto) -> tuple[int, int]:
    part = shown_part(photo)
    return (part[1].stop - part[1].start, part[0].stop - part[0].start) if part else photo.image.size


def shown_part(photo: OpenedPhoto) -> tuple[slice, slice] | None:
    """The rows and columns of an AVIF that are shown; None for all. Of a HEIC the plugin gives no others."""
    parts = photo.container.parts
    return parts.shown(*photo.image.size) if photo.image.format == "AVIF" and isinstance(parts, BoxFile) else None


def _webp_header(file: BinaryIO, limits: ImageLimits) -> Header:
    """Without the plugin, which makes room for the whole canvas twice as it opens."""
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            width, height = riff_chunks.webp_size(data)
            _check_size(width, height, limits)
            found = riff_chunks.inspect(data)
            orientation = webp_orientation(found, data)
    except RestoreError:
        raise
    except Exception as error:  # what does not hold together
        raise undecodable("WEBP") from error
    if not found.has_picture:
        raise undecodable("WEBP")
    if stands_on_its_side(orientation):
        width, height = height, width
    return Header("WEBP", MIME_TYPES["WEBP"], width, height)


def _tiff_header(file: BinaryIO, limits: ImageLimits) -> Header:
    sizes = tuple(page.upright_size for page in open_pages(file, limits).photos)
    return Header("TIFF", MIME_TYPES["TIFF"], *sizes[0], sizes)


def check_pages(header: Header, limits: ImageLimits) -> None:
    """Judge the pages of a photo before all of them are restored.

    Raises:
        TooLarge: `too_many_pages`, or one of `read_header` for a page.
    """
    _check_count(len(header.page_sizes), limits)
    for width, height in header.page_sizes:
        _check_size(width, height, limits)


def _check_count(pages: int, limits: ImageLimits) -> None:
    if pages > limits.max_pages:
        raise TooLarge(
            "too_many_pages",
            f"The TIFF has {pages} pages and at most {limits.max_pages} are restored together; split it, or restore "
            "the first page alone.",
        )


def open_pages(file: BinaryIO, limits: ImageLimits, page: int | None = None) -> TiffPages:
    """The photos of a TIFF file, the size of the asked one checked; None asks for the first, and for no other later.

    Raises the same errors as `read_header`, and `too_many_pages` where a page is asked for.
    """
    try:
        pages = read_pages(file)
        asked = pages.photos[page or 0]
    except RestoreError:
        raise
    except Exception as error:
        raise undecodable("TIFF") from error
    if page is not None:
        _check_count(len(pages.photos), limits)
    _check_size(asked.width, asked.height, limits)
    return pages


def open_picture(file: BinaryIO, limits: ImageLimits, *, page: int | None = None, whole: bool = True) -> OpenedPhoto:
    """Open a file with the one plugin its first bytes name, and check its size; the caller closes what it gets.

    Of a TIFF the image holds what is said of a page, and none of its pixels: those come from `decode.tiff`. `whole`
    also looks through what stands behind the pixels. Raises the same errors as `read_header`. Whatever a plugin throws
    at a broken file becomes `undecodable_image`.
    """
    head = file.read(HEAD_BYTES)
    name = sniff(head)
    if name == "TIFF":
        return OpenedPhoto(metadata_image(open_pages(file, limits, page).photos[page or 0]), Container(None, file))
    container, pixels = None, 0
    try:
        container = inspect(file, name, max_scans=limits.max_jpeg_scans, whole=whole)
        if isinstance(container.parts, JpegFile):
            _check_scans(container.parts.scans, limits)
        if name == "WEBP":
            width, height = riff_chunks.webp_size(head)
            _check_size(width, height, limits)
            pixels = width * height
        photo = _open(container, name)
    except RestoreError:
        _close(container)
        raise
    except Exception as error:  # broken files raise nearly every class there is
        _close(container)
        if pixels and lacks_memory(pixels):  # this plugin takes it as it opens
            raise MemoryError from error
        raise undecodable(name) from error
    try:
        _check_size(*photo.image.size, limits)
    except RestoreError:
        photo.__exit__()
        raise
    return photo


def _close(container: Container | None) -> None:
    if container is not None:
        container.close()


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


def _open(container: Container, name: str) -> OpenedPhoto:
    """Open with one plugin; where that fails, once more without anything but what the pixels need."""
    try:
        return OpenedPhoto(open_plugin(container.file, name), container)
    except Exception:
        bare = container.bare()
        if bare is None:
            raise
        return OpenedPhoto(open_plugin(bare.file, name), bare)


def open_plugin(file: BinaryIO, name: str) -> Image.Image:
    """`Image.open` limited to one plugin. Pillow's own pixel limit is off: `_check_size` is stricter and says why."""
    quiet_pillow()
    if name == "HEIF":
        _register_heif()
    profile = embedded_profile(file, MAX_PROFILE_BYTES) if name == "BMP" else None
    if name == "BMP" and read_masked(file) is not None:
        file = without_masks(file)
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES  # it bounds profiles too; texts are bounded by `png_chunks`
    file.seek(0)
    try:
        image = Image.open(file, formats=(name,))
    except UnidentifiedImageError:
        raise undecodable(name) from None
    if profile:
        image.info["icc_profile"] = profile
    steps = _STEPS_OF_RAW_MODE.get(str(image.tile[0].args)) if name == "PNG" and image.tile else None
    if steps and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= steps
    return image


def quiet_pillow() -> None:
    """Keep Pillow's remarks about broken tags out of the log: a file could write thousands of them."""
    for module in (r"PIL\.", r"pillow_heif\."):
        warnings.filterwarnings("ignore", category=UserWarning, module=module)


@functools.cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=2)


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


def _check_scans(scans: Scans, limits: ImageLimits) -> None:
    """Refuse a JPEG of very many scans: each costs a pass over all pixels, and libjpeg leaves the limit to us."""
    if scans.count > limits.max_jpeg_scans:
        raise Unprocessable(
            "too_many_scans",
            f"This JPEG has more than {limits.max_jpeg_scans} scans; save it as an ordinary JPEG and retry.",
        )

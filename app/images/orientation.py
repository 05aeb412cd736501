"""Which way up a photo is stored, as EXIF numbers it: one answer, which the header check and the decoder both take.

EXIF counts, and where none of it says anything, the first XMP packet. Of HEIC and AVIF the boxes count, by which their
plugins have turned the picture or say how it is turned.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from app.images import riff_chunks
from app.images.container import Container
from app.images.isobmff import BoxFile
from app.images.metadata import exif, jpeg_metadata, png_text, xmp, xmp_parsing
from app.images.riff_chunks import Data, WebpFile

UPRIGHT = 1
_FIRST_TURNED = 5  # from here on width and height change places
MAX_PACKET_BYTES = 256 * 1024  # of one packet, and of all that the pages of a TIFF have together
_MAX_NODES = 20_000  # several times what any program writes; the header check shall be quick
_PROPERTY: xmp.Name = (xmp.TIFF, "Orientation")


def stands_on_its_side(orientation: int) -> bool:
    """Whether width and height change places once the photo is upright."""
    return orientation >= _FIRST_TURNED


def photo_orientation(image: Image.Image, container: Container) -> int:
    """The orientation, 1 to 8, of an opened photo other than a TIFF, whose pages say it themselves."""
    try:
        return _orientation(image, container)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - metadata never fails a photo, whatever a reader of it throws
        return UPRIGHT


def webp_orientation(webp: WebpFile, data: Data) -> int:
    """The same of a WebP; its plugin is not needed."""
    block, packet = webp.shown_metadata(data, b"EXIF"), webp.shown_metadata(data, b"XMP ")
    return stated_orientation([block] if block else [], [packet] if packet else [])


def stated_orientation(blocks: Sequence[bytes], packets: Sequence[bytes]) -> int:
    """What the first EXIF block that states an orientation says, else the first XMP packet; 1 where none does."""
    for block in blocks:
        stated = exif.stated_orientation(block)
        if stated is not None:
            return stated
    return _of_packet(packets[0]) if packets else UPRIGHT


def _orientation(image: Image.Image, container: Container) -> int:
    data = container.data
    if data is None or image.format in ("HEIF", "BMP"):
        return UPRIGHT
    if image.format == "PNG":
        chunks = png_text.read_chunks(data)
        return stated_orientation(chunks.exif_blocks, chunks.xmp)
    if image.format == "WEBP":
        return webp_orientation(riff_chunks.inspect(data), data)
    if image.format == "AVIF":
        return _of_boxes(image, container)
    segments = jpeg_metadata.read_segments(data)
    return stated_orientation(segments.exif, segments.xmp)


def _of_boxes(image: Image.Image, container: Container) -> int:
    """Pillow puts what boxes of an AVIF say into its EXIF, and takes out of it what they do not say."""
    block, packet = image.info.get("exif"), image.info.get("xmp")
    is_turned = isinstance(container.parts, BoxFile) and container.parts.is_turned
    packets = [packet] if isinstance(packet, bytes) and not is_turned else []
    return stated_orientation([block] if isinstance(block, bytes) else [], packets)


def _of_packet(packet: bytes) -> int:
    if len(packet) > MAX_PACKET_BYTES or b"Orientation" not in packet.replace(b"\0", b""):  # or UTF-16
        return UPRIGHT
    try:
        value = xmp_parsing.parse(packet, _MAX_NODES).properties.get(_PROPERTY)
    except ValueError:
        return UPRIGHT
    text = value.first_text().strip() if value else ""
    return int(text) if text in ("2", "3", "4", "5", "6", "7", "8") else UPRIGHT

"""The metadata of a photo gathered from its file: EXIF, XMP, IPTC, texts and resolution, wherever they stand.

Each kind is parsed here, in the decoder's process, freed of what describes the source file, and written anew upright.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image

from app.images import riff_chunks
from app.images.metadata import (
    exif,
    exif_colour,
    exif_rules,
    exif_writing,
    iptc,
    jpeg_metadata,
    png_text,
    xmp,
    xmp_parsing,
    xmp_rules,
    xmp_writing,
)
from app.images.metadata import exif_tags as tags
from app.images.metadata.rewriting import Metadata
from app.notices import NoticeKind, Sentence, say

_MAX_DPI = 1e8  # what PNG's field of pixels per metre holds
_MAX_BLOCKS = 8
_MAX_COMMENT_CHARACTERS = 64_000
_NAMED_IN_A_NOTE = 6
_QUARTER_TURN = {1: 6, 6: 3, 3: 8, 8: 1, 2: 7, 7: 4, 4: 5, 5: 2}  # EXIF orientations, by one more turn clockwise
_SIGNED = say(
    NoticeKind.CREDENTIALS_LEFT_OUT, "The photo's content credentials (C2PA) sign its own file, so they were left out."
)
_CAMERA_DATA = "What a camera or program keeps for itself in the file ({names}) was left out."
_MAKER_NOTE = "The camera maker's own notes in the EXIF data cannot be moved and were left out."
_TOO_MANY_PARTS = "The photo's metadata has more parts than are read; the last were left out."
_TEXT_TOO_LARGE = "The photo's text {names} is larger than 1 MiB and was left out."
_TIFF_TAGS = "The TIFF tags {tags} are for programs that know this file; they were left out."
_XMP_BROKEN = "The photo's XMP data is broken or too large and was left out."
_EXTENDED_XMP_BROKEN = "The photo's extended XMP data is broken or too large and was left out."
_FILM = "The film of the photo (a motion photo) was left out; its picture was restored."


@dataclasses.dataclass
class _Raw:
    """What the containers give: blocks as they are, and notes."""

    blocks: list[exif.Exif] = dataclasses.field(default_factory=list)
    packets: list[bytes] = dataclasses.field(default_factory=list)
    iptc: bytes = b""
    texts: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    segments: jpeg_metadata.Segments | None = None
    more: dict[xmp.Name, xmp.Value] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    directories: tuple[int | None, ...] = (None,)
    dpi: tuple[float, float] | None = None


def collect(
    image: Image.Image,
    file: BinaryIO,
    size: tuple[int, int],
    directories: tuple[int | None, ...] = (None,),
    *,
    orientation: int = 1,
    rotate: int = 0,
) -> Metadata:
    """Gather the metadata of a photo.

    Args:
        image: the opened photo.
        file: the file that it was opened from.
        size: width and height in pixels of what was decoded, before `orientation` is applied to it.
        directories: of a TIFF, offsets of the directories that describe the photo (None: the file's first one); a later
            one says what the ones before it do not.
        orientation: of the stored pixels, 1 to 8, as the header check found it (`orientation.photo_orientation`).
        rotate: degrees clockwise that the upright picture is turned; the orientation that is returned includes them.
    """
    raw = _Raw(directories=directories)
    try:
        _read(raw, image, file)
    except Exception:  # noqa: BLE001 - metadata never fails a photo, whatever a reader of it throws
        raw.notes.append(_partly_broken("metadata"))
    drawn = turned_orientation(_drawn_orientation(image, orientation), rotate)
    orientation = turned_orientation(orientation, rotate)
    block = _joined_exif(raw)
    turned = size if orientation < 5 else size[::-1]
    packet = _upright_xmp(raw, drawn, turned)
    resolution = _dpi(raw, block)
    if block:
        exif_rules.drop_odd_resolution(block)
        exif_rules.make_upright(block, drawn, *turned)
        if exif_rules.drop_unmovable_note(block):
            raw.notes.append(say(NoticeKind.MAKER_NOTE_LEFT_OUT, _MAKER_NOTE))
    data_sets = _iptc(raw)
    return Metadata(
        exif=exif_writing.serialized(block) if block else None,
        xmp=packet,
        dpi=resolution,
        orientation=orientation,
        notes=tuple(dict.fromkeys(raw.notes)),
        iptc=data_sets,
        texts=tuple(raw.texts),
        adobe_rgb=block is not None and exif_colour.is_adobe_rgb(block),
    )


def _partly_broken(part: str) -> Sentence:
    words = "Part of the photo's {part} data is broken and was left out."
    return say(NoticeKind.METADATA_PARTLY_BROKEN, words, part=part)


def _read(raw: _Raw, image: Image.Image, file: BinaryIO) -> None:
    reader = _READERS.get(image.format or "")
    if reader is None:
        _read_info(raw, image)
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader(raw, data)


def turned_orientation(orientation: int, rotate: int) -> int:
    """The EXIF orientation that also turns the upright picture by `rotate` degrees clockwise."""
    for _ in range(rotate // 90):
        orientation = _QUARTER_TURN[orientation]
    return orientation


def _drawn_orientation(image: Image.Image, orientation: int) -> int:
    """The orientation of the picture that regions were drawn on: HEIC's reader has turned the pixels already."""
    value = image.info.get("original_orientation")
    return value if isinstance(value, int) and 1 <= value <= 8 and orientation == 1 else orientation


def _add_exif(raw: _Raw, data: exif.Buffer, first_directory: int | None = None) -> None:
    try:
        raw.blocks.append(exif.parse(data, first_directory=first_directory))
    except ValueError:
        raw.notes.append(
            _partly_broken("EXIF")
            if raw.blocks
            else say(NoticeKind.METADATA_BROKEN, "The photo's {part} data is broken and was left out.", part="EXIF")
        )


def _add_blocks(raw: _Raw, blocks: list[bytes]) -> None:
    for block in blocks[:_MAX_BLOCKS]:
        _add_exif(raw, block)


def _read_jpeg(raw: _Raw, data: exif.Buffer) -> None:
    segments = jpeg_metadata.read_segments(data)
    _add_blocks(raw, segments.exif)
    raw.packets += segments.xmp[:_MAX_BLOCKS]
    raw.segments = segments
    raw.dpi = segments.dpi
    raw.notes += [_SIGNED] if segments.signed else []
    if segments.others:
        names = ", ".join(list(dict.fromkeys(segments.others))[:_NAMED_IN_A_NOTE])
        raw.notes.append(say(NoticeKind.CAMERA_DATA_LEFT_OUT, _CAMERA_DATA, names=names))
    _read_resources(raw, segments.photoshop)
    comments = [comment.rstrip(b"\0") for comment in segments.comments]
    raw.texts += [("Comment", _decoded(comment)) for comment in comments if comment.strip()][:_MAX_BLOCKS]
    if not segments.complete or max(map(len, (segments.exif, segments.xmp, comments))) > _MAX_BLOCKS:
        raw.notes.append(say(NoticeKind.METADATA_PARTS_LEFT_OUT, _TOO_MANY_PARTS))


def _read_png(raw: _Raw, data: exif.Buffer) -> None:
    blocks = png_text.read_chunks(data)
    _add_blocks(raw, blocks.exif_blocks)
    raw.packets += blocks.xmp[:_MAX_BLOCKS]
    if blocks.photoshop.startswith(b"8BIM"):
        _read_resources(raw, blocks.photoshop)
    else:
        raw.iptc = blocks.photoshop
    raw.texts += blocks.texts
    raw.dpi = blocks.dpi
    raw.notes += [_SIGNED] if blocks.signed else []
    if blocks.too_large:
        names = ", ".join(f"'{name[:40]}'" for name in blocks.too_large[:_NAMED_IN_A_NOTE])
        raw.notes.append(say(NoticeKind.TEXT_TOO_LARGE, _TEXT_TOO_LARGE, names=names))
    if not blocks.complete:
        raw.notes.append(_partly_broken("text"))


def _read_tiff(raw: _Raw, data: exif.Buffer) -> None:
    for offset in dict.fromkeys(exif.first_directory(data) if one is None else one for one in raw.directories):
        _add_exif(raw, data, offset)
    for block in raw.blocks:
        _read_embedded(raw, block)
        # Its width and height are of this file's pixels; other numbers that are not known describe its kind of file.
        unknown = sorted(block.main.keys() - tags.MAIN)
        for tag in (*unknown, tags.IMAGE_WIDTH, tags.IMAGE_HEIGHT):
            block.main.pop(tag, None)
        if unknown:
            names = ", ".join(map(str, unknown[:_NAMED_IN_A_NOTE]))
            more = " and others" if len(unknown) > _NAMED_IN_A_NOTE else ""
            raw.notes.append(say(NoticeKind.TIFF_TAGS_LEFT_OUT, _TIFF_TAGS, tags=names + more))


def _read_webp(raw: _Raw, data: exif.Buffer) -> None:
    """Also what the file's header does not speak of; its plugin would pass that over in silence."""
    webp = riff_chunks.inspect(data)
    block, packet = (webp.metadata(data, name) for name in (b"EXIF", b"XMP "))
    _add_blocks(raw, [block] if block else [])
    raw.packets += [packet] if packet else []


def _read_info(raw: _Raw, image: Image.Image) -> None:
    """AVIF and HEIC: their readers give the blocks; of a BMP the resolution."""
    block, packet = image.info.get("exif"), image.info.get("xmp")
    if isinstance(block, bytes) and block:
        _add_blocks(raw, [block])
    if isinstance(packet, bytes) and packet:
        raw.packets.append(packet)
    stated = image.info.get("dpi")
    if isinstance(stated, tuple) and len(stated) == 2:
        raw.dpi = (float(stated[0]), float(stated[1]))


_READERS: dict[str, Callable[[_Raw, exif.Buffer], None]] = {
    "JPEG": _read_jpeg,
    "MPO": _read_jpeg,
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "WEBP": _read_webp,
}


def _read_embedded(raw: _Raw, block: exif.Exif) -> None:
    """XMP, IPTC and Photoshop resources that stand in IFD0."""
    if tags.XMP in block.embedded and not raw.packets:
        raw.packets.append(block.embedded[tags.XMP].data)
    if tags.IPTC in block.embedded and not raw.iptc:
        data = block.embedded[tags.IPTC].data
        if data[:1] != b"\x1c":  # written as 32-bit numbers, in the other byte order
            data = b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
        raw.iptc = data
    if tags.PHOTOSHOP in block.embedded:
        _read_resources(raw, block.embedded[tags.PHOTOSHOP].data)


def _read_resources(raw: _Raw, data: bytes) -> None:
    for number, contents in iptc.resources(data):
        if iptc.is_iptc(number) and not raw.iptc:
            raw.iptc = contents
        elif number == iptc.XMP_RESOURCE and not raw.packets:
            raw.packets.append(contents)
        elif number == iptc.EXIF_RESOURCE and not raw.blocks:
            _add_exif(raw, contents)
        elif number == iptc.COPYRIGHT_FLAG_RESOURCE and contents[:1] == b"\1":
            raw.more[xmp.RIGHTS, "Marked"] = xmp.Value("True")
        elif number == iptc.URL_RESOURCE and contents:
            raw.more[xmp.RIGHTS, "WebStatement"] = xmp.Value(_decoded(contents))


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text[:_MAX_COMMENT_CHARACTERS]


def _joined_exif(raw: _Raw) -> exif.Exif | None:
    if not raw.blocks:
        return None
    first, *others = raw.blocks
    for other in others:
        first.merge(other)
    _read_embedded(raw, first)
    if first.damaged:
        raw.notes.append(_partly_broken("EXIF"))
    return first


def _upright_xmp(raw: _Raw, orientation: int, upright_size: tuple[int, int]) -> bytes | None:
    packet = xmp.Packet()
    for data in raw.packets:
        if not data.strip(b"\0 \r\n\t"):
            continue
        try:
            packet.merge(xmp_parsing.parse(data))
        except ValueError:
            raw.notes.append(say(NoticeKind.XMP_LEFT_OUT, _XMP_BROKEN))
    _add_extended(raw, packet)
    packet.merge(xmp.Packet(raw.more))
    stored = upright_size[::-1] if orientation >= 5 else upright_size
    if xmp_rules.make_upright(packet, orientation, stored):
        raw.notes.append(say(NoticeKind.FILM_LEFT_OUT, _FILM))
    return xmp_writing.serialized(packet)


def _add_extended(raw: _Raw, packet: xmp.Packet) -> None:
    """Extended XMP belongs to the packet that names its checksum."""
    guid = packet.properties.get(("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"))
    if raw.segments is None or (guid is None and not raw.segments.extended):
        return
    data = jpeg_metadata.extended_packet(raw.segments, guid.text, xmp_parsing.MAX_PACKET_BYTES) if guid else None
    try:
        if data is None:
            raise ValueError("no such packet")
        packet.merge(xmp_parsing.parse(data))
    except ValueError:
        raw.notes.append(say(NoticeKind.EXTENDED_XMP_LEFT_OUT, _EXTENDED_XMP_BROKEN))


def _iptc(raw: _Raw) -> bytes | None:
    if not raw.iptc:
        return None
    data_sets, whole = iptc.parse(raw.iptc[: iptc.MAX_BLOCK_BYTES])
    if not whole or len(raw.iptc) > iptc.MAX_BLOCK_BYTES:
        raw.notes.append(_partly_broken("IPTC"))
    return iptc.serialized(data_sets)


def _dpi(raw: _Raw, block: exif.Exif | None) -> tuple[float, float] | None:
    """The container's own resolution, else that of EXIF (for a TIFF, its directory)."""
    x, y = raw.dpi or (block and exif_rules.dpi(block)) or (0.0, 0.0)
    return (x, y) if all(0 < part <= _MAX_DPI for part in (x, y)) else None

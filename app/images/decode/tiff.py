"""One page of a TIFF to `Channels`: which of its samples are colour, which transparency, and which neither."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.images import alpha as alpha_channel
from app.images import samples
from app.images.decode.channels import DEPTH_LOST, Channels
from app.images.decode.missing import Completed, Fault, Missing, MissingPixels
from app.images.decode.tiff_layout import (
    CIELAB,
    CMYK,
    FAX,
    ICCLAB,
    JPEG,
    OLD_JPEG,
    PALETTE,
    UNSIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
    read_layout,
    unsupported,
)
from app.images.decode.tiff_old_jpeg import whole_jpeg
from app.images.decode.tiff_samples import scale_band, storage, to_whole, unpack
from app.images.decode.tiff_segments import Segments
from app.images.decode.tiff_ycbcr import block_layout, to_rgb
from app.images.header import ImageLimits
from app.images.tiff_directories import Directory
from app.images.tiff_pages import TiffPage
from app.notices import NoticeKind, say

_ASSOCIATED, _UNASSOCIATED = 1, 2
_COLOUR_MAP, _INK_SET = 320, 332
_CMYK_INKS = 1
_MEBIBYTE = 1 << 20
_MEMORY_SHARE = 3  # the samples as stored, as scaled, and as a picture stand in memory at once
_CHANNEL_LEFT_OUT = "The photo has a channel that is not transparency (infrared, say); it was left out."
_CHANNELS_LEFT_OUT = "The photo has {channels} channels that are not transparency (infrared, say); they were left out."


def read_channels(
    page: TiffPage, limits: ImageLimits, icc_profile: bytes | None, *, keep_partial: bool = False
) -> Channels:
    """The colours and the transparency of a page, as stored: not yet upright.

    With `keep_partial` strips and tiles that are not in the file stay grey, and a note says how much is missing.

    Raises:
        Unprocessable: `unsupported_depth` or `unsupported_compression` with the name of the kind, `decode_memory` or
            `undecodable_image`.
    """
    layout = read_layout(page)
    _check_memory(layout, limits)
    if layout.compression == OLD_JPEG:
        first = Segments(page.directory, layout).first_bytes()
        inside = whole_jpeg(page.directory, layout, first, limits.max_jpeg_scans)
        if inside is not None:
            return _of_whole_jpeg(inside, layout, keep_partial=keep_partial)
        layout = dataclasses.replace(layout, bits=8)  # it holds no other depth, and some writers do not say it
    keep_partial = keep_partial and layout.format == UNSIGNED  # the range of others hangs on all of their values
    if layout.photometric == YCBCR and layout.compression not in (JPEG, OLD_JPEG):
        blocks, missing = _gather(page.directory, block_layout(page.directory, layout), keep_partial=keep_partial)
        channels = Channels(to_rgb(blocks, page.directory, layout), "RGB")
    else:
        values, missing = _gather(page.directory, layout, keep_partial=keep_partial)
        channels = _channels(to_whole(values, layout), page.directory, layout, icc_profile)
    if missing is None:
        return channels
    return dataclasses.replace(channels, notes=(*channels.notes, missing.note()))


def _check_memory(layout: Layout, limits: ImageLimits) -> None:
    """Refuse before anything is allocated; width and height are within their limits already."""
    stored = layout.width * layout.height * layout.samples * storage(layout).itemsize
    if stored * _MEMORY_SHARE > limits.decode_memory_mb * _MEBIBYTE:
        raise MemoryError


def _gather(tags: Directory, layout: Layout, *, keep_partial: bool) -> tuple[NDArray[Any], Missing | None]:
    """(H, W, C) all samples of a page, in the type of `storage`, and what is missing, where that may be."""
    segments = Segments(tags, layout)
    page: NDArray[Any] = np.zeros((layout.height, layout.width, layout.samples), storage(layout))
    is_there = np.ones(layout.height, np.bool_)
    for batch in segments.batches():
        try:
            _place(page, _samples_of(segments, batch, tags), batch, layout)
        except MissingPixels:
            if not keep_partial:
                raise Missing(layout.height, None, segments.fault()).refusal() from None
            for index in batch:
                _place_what_is_there(page, segments, index, tags, is_there)
    page = to_rgb(page, tags, layout, (1, 1)) if segments.give_ycbcr else page
    return page, None if is_there.all() else _missing(is_there, segments)


def _samples_of(segments: Segments, batch: range, tags: Directory) -> NDArray[Any]:
    """(rows, W, C) the samples of a batch, scaled. Raises `MissingPixels`."""
    layout = segments.layout
    if layout.compression in (JPEG, OLD_JPEG, *FAX):
        return scale_band(segments.samples_of(batch), layout)
    return scale_band(unpack(segments.bytes_of(batch), layout, tags.reader.order), layout)


def _place_what_is_there(
    page: NDArray[Any], segments: Segments, index: int, tags: Directory, is_there: NDArray[np.bool_]
) -> None:
    """Put one segment, or its first rows, on the page (H, W, C); rows (H,) that it lacks are marked and become grey."""
    layout = segments.layout
    one = range(index, index + 1)
    with contextlib.suppress(MissingPixels):
        _place(page, _samples_of(segments, one, tags), one, layout)
        return
    found = segments.rows_there(index)
    plane, within = divmod(index, layout.across * layout.down)
    top, left = (n * size for n, size in zip(divmod(within, layout.across), _sizes(layout), strict=True))
    target = page[top : top + layout.segment_rows(index), left : left + layout.segment_width]
    target = target[..., plane : plane + 1] if layout.separate else target
    target[...] = 0 if layout.photometric == PALETTE else np.iinfo(page.dtype).max // 2 + 1
    if len(found):
        part = scale_band(unpack(found, layout, tags.reader.order), layout)[: len(target), : target.shape[1]]
        target[: len(part)] = part
    is_there[top + len(found) : top + len(target)] = False


def _missing(is_there: NDArray[np.bool_], segments: Segments) -> Missing:
    """Of (H,) rows, some not there: the first that is not, where all behind it are not too and those before are right.

    Damage to a JPEG spoils rows that have bits of their own as well.
    """
    first, fault = int(is_there.argmin()), segments.fault()
    is_known = not is_there[first:].any()
    if fault is Fault.DAMAGED and segments.layout.compression in (JPEG, OLD_JPEG):
        is_known = False
    return Missing(len(is_there), first if is_known else None, fault)


def _place(page: NDArray[Any], values: NDArray[Any], batch: range, layout: Layout) -> None:
    """Put the segments of a batch, which stand below each other in `values`, where they belong on the page."""
    row = 0
    for index in batch:
        plane, within = divmod(index, layout.across * layout.down)
        top, left = (n * size for n, size in zip(divmod(within, layout.across), _sizes(layout), strict=True))
        rows = layout.segment_rows(index)
        target = page[top : top + rows, left : left + layout.segment_width]
        part = values[row : row + target.shape[0], : target.shape[1]]
        if layout.separate:
            target[..., plane] = part[..., 0]
        else:
            target[...] = part
        row += rows


def _sizes(layout: Layout) -> tuple[int, int]:
    return layout.segment_height, layout.segment_width


def _channels(values: NDArray[Any], tags: Directory, layout: Layout, icc_profile: bytes | None) -> Channels:
    """Colours, transparency and what is neither, from (H, W, C) uint8 or uint16 (palette indexes: as stored)."""
    extras, note = _extras(layout)
    colours = values[..., : layout.colours]
    alpha = values[..., extras[0]].copy() if extras else None
    notes = (note,) if note else ()
    mode = {CMYK: "CMYK", CIELAB: "LAB", ICCLAB: "LAB"}.get(layout.photometric, "RGB" if layout.colours == 3 else "L")
    if layout.photometric == PALETTE:
        colours, mode = _palette(colours[..., 0], tags, layout), "RGB"
        alpha = _eight_bit_index_alpha(alpha, layout)
    elif layout.photometric == WHITE_IS_ZERO:
        colours = np.iinfo(values.dtype).max - colours
    if mode == "L":
        colours = colours[..., 0]
    colours = np.ascontiguousarray(colours)
    if alpha is not None and layout.extras[extras[0] - layout.colours] == _ASSOCIATED and mode in ("L", "RGB"):
        alpha_channel.unmultiply(colours if mode == "RGB" else colours[..., None], alpha)
    if mode == "LAB":
        return _lab(colours, layout, alpha, notes)
    if mode == "CMYK":
        return _cmyk(colours, tags, alpha, notes, icc_profile)
    return Channels(colours, mode, alpha, notes)


def _extras(layout: Layout) -> tuple[list[int], str | None]:
    """The channel that is transparency, if there is one, and a note on those that are left out."""
    surplus = range(layout.colours, layout.samples)
    kinds = {index: layout.extras[n] if n < len(layout.extras) else 0 for n, index in enumerate(surplus)}
    alphas = [index for index, kind in kinds.items() if kind in (_ASSOCIATED, _UNASSOCIATED)][:1]
    others = len(surplus) - len(alphas)
    if not others:
        return alphas, None
    if others == 1:
        return alphas, say(NoticeKind.CHANNEL_LEFT_OUT, _CHANNEL_LEFT_OUT)
    return alphas, say(NoticeKind.CHANNELS_LEFT_OUT, _CHANNELS_LEFT_OUT, channels=others)


def _palette(indexes: NDArray[Any], tags: Directory, layout: Layout) -> NDArray[np.uint8]:
    """(H, W) indexes to (H, W, 3) uint8."""
    colours = tags.array(_COLOUR_MAP)
    entries = 1 << layout.bits
    if layout.bits > 16 or colours.size < 3 * entries or colours.dtype != np.uint16:
        raise unsupported("a palette that does not fit its samples")
    table: NDArray[Any] = colours[: 3 * entries].reshape(3, entries).T
    # Some writers put 8-bit numbers into the 16-bit table.
    table = table if table.max() < 256 else table >> 8
    result: NDArray[np.uint8] = table.astype(np.uint8)[indexes]
    return result


def _eight_bit_index_alpha(alpha: Any, layout: Layout) -> Any:
    """The transparency beside palette indexes, which was not scaled with them, in 8 bits."""
    if alpha is None:
        return None
    return (alpha.astype(np.uint32) * 255 // ((1 << layout.bits) - 1)).astype(np.uint8)


def _lab(colours: NDArray[Any], layout: Layout, alpha: Any, notes: tuple[str, ...]) -> Channels:
    """Lab in 8 bits, a and b signed, as the colour management takes it."""
    is_icc = layout.photometric == ICCLAB
    if colours.dtype == np.uint16:
        lightness = colours[..., 0].astype(np.uint32)
        lightness = np.minimum(lightness * 255 // 0xFF00, 255) if is_icc else (lightness + 128) // 257
        colours = np.dstack([lightness, colours[..., 1:] >> 8]).astype(np.uint8)
        notes = (*notes, DEPTH_LOST)
        alpha = None if alpha is None else samples.eight_bit(alpha)
    if is_icc:
        colours = colours ^ np.array([0, 128, 128], np.uint8)
    return Channels(colours, "LAB", alpha, notes)


def _cmyk(
    colours: NDArray[Any], tags: Directory, alpha: Any, notes: tuple[str, ...], icc_profile: bytes | None
) -> Channels:
    """CMYK in 8 bits for a profile to convert; 16 bits without one become 16-bit RGB by the light each ink takes."""
    if tags.number(_INK_SET, _CMYK_INKS) != _CMYK_INKS:
        raise unsupported("inks other than cyan, magenta, yellow and black")
    if colours.dtype == np.uint8:
        return Channels(colours, "CMYK", alpha, notes)
    if icc_profile:
        alpha = None if alpha is None else samples.eight_bit(alpha)
        return Channels(samples.eight_bit(colours), "CMYK", alpha, (*notes, DEPTH_LOST))
    rgb = np.empty((*colours.shape[:2], 3), np.uint16)
    for row, out in zip(colours, rgb, strict=True):
        light = 65535 - row.astype(np.uint32)
        out[...] = (light[:, :3] * light[:, 3:] + 32767) // 65535
    return Channels(rgb, "RGB", alpha, notes)


def _of_whole_jpeg(inside: Completed, layout: Layout, *, keep_partial: bool) -> Channels:
    """The pixels of a JPEG that is the page; one that lacks some is refused, unless `keep_partial`."""
    notes = inside.notes
    if inside.missing is not None:
        if not keep_partial:
            raise inside.missing.refusal()
        notes = (*notes, inside.missing.note())
    mode = "RGB" if layout.colours == 3 else "L"
    with Image.open(io.BytesIO(inside.data), formats=("JPEG",)) as image:
        return Channels(np.asarray(image.convert(mode)).copy(), mode, notes=notes)

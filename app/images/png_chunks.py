"""The chunks of a PNG, looked through before any plugin sees them, and what the colour chunks say.

What is damaged, odd or too much beside the pixels is left out with a note, so that it cannot fail the photo.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator

from app.images.colour_encoding import ColourEncoding, Transfer, from_code_points
from app.images.primaries import SRGB_PRIMARIES, Primaries
from app.notices import NoticeKind, say

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 4 * 1024 * 1024
_MAX_TEXT_BYTES = 1024 * 1024 - 1  # of one text, inflated; metadata reads no larger one
_MAX_TEXTS_BYTES = 4 * 1024 * 1024  # of all texts together
_MAX_CHUNKS = 100_000
_MAX_ANCILLARY = 200
_MAX_CRITICAL = 16  # kinds
_ABSURD_ANCILLARY = 10_000
MIN_CHUNK_BYTES = 12
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # bits of each kind of colours
_PALETTE_KIND = 3
_MAX_SIDE = 0x7FFFFFFF
_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"pHYs": 9, b"acTL": 8}
_TRANSPARENCY_LENGTHS = {0: 2, 2: 6}
# Pillow puts texts beside its own facts under their keyword, and would take these for its own.
_RESERVED_KEYWORDS = (
    b"transparency",
    b"icc_profile",
    b"dpi",
    b"gamma",
    b"interlace",
    b"xmp",
    b"bbox",
    b"default_image",
)
_GAMMA_UNIT = 100_000
_SRGB_GAMMA = 1 / 2.2
_SAME_GAMMA = 0.05  # what readers take for the same: libpng's own threshold
_GAMMA_RANGE = (0.1, 10.0)
PROFILE_LEFT_OUT = say(
    NoticeKind.PROFILE_BROKEN, "The photo's colour profile is broken or too large, and was left out."
)
_MANY_LEFT_OUT = say(
    NoticeKind.PARTS_LEFT_OUT, "The photo holds very many pieces of data beside its pixels; some were left out."
)
_DAMAGED = "The photo's {part} data is damaged (its checksum is wrong) and was left out."
_TOO_SHORT = "The photo's {part} data is damaged (it is too short) and was left out."
_PALETTE_DAMAGED = say(
    NoticeKind.PALETTE_DAMAGED, "The checksum of the photo's palette is wrong; some of its colours may be wrong too."
)
Data = mmap.mmap | bytes


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One chunk: its name, where it begins (at its length) and where its checksum ends."""

    name: bytes
    start: int
    end: int

    def body(self, data: Data) -> bytes:
        """What the chunk holds."""
        return data[self.start + 8 : self.end - 4]

    def is_intact(self, data: Data) -> bool:
        """Whether its checksum fits."""
        return self._sum(data) == data[self.end - 4 : self.end]

    def needs_repair(self, data: Data) -> bool:
        """Whether it is one that no plugin reads with a wrong checksum and no photo does without; pixels are not."""
        is_needed = self.name[:1].isupper() and self.name != b"IDAT" and self.end <= len(data)
        return is_needed and not self.is_intact(data) and (self.name != b"IHDR" or self._is_header(data))

    def content(self, data: Data) -> bytes:
        """The whole chunk, with its checksum made right where it needs that."""
        whole = data[self.start : self.end]
        return whole[:-4] + self._sum(data) if self.needs_repair(data) else whole

    def _sum(self, data: Data) -> bytes:
        return zlib.crc32(data[self.start + 4 : self.end - 4]).to_bytes(4, "big")

    def _is_header(self, data: Data) -> bool:
        """Whether it says what the header of a PNG can say."""
        body = self.body(data)
        if len(body) != 13:
            return False
        width, height, depth, kind, compression, filters, interlaced = struct.unpack(">IIBBBBB", body)
        return (
            0 < width <= _MAX_SIDE
            and 0 < height <= _MAX_SIDE
            and depth in _DEPTHS.get(kind, ())
            and (compression, filters) == (0, 0)
            and interlaced <= 1
        )


@dataclasses.dataclass
class PngFile:
    """What `inspect` found.

    Attributes:
        kept: the chunks that a plugin may see.
        is_plain: these are all chunks of the file, as they stand in it.
        encoding: what the colour chunks say; None when they say nothing, or a profile decides.
        notes: what was left out.
        frames: pictures of an animation, or 1.
        is_header_doubtful: its checksum is wrong, so that only the pixels can tell whether it is right.
    """

    kept: list[Chunk]
    is_plain: bool
    encoding: ColourEncoding | None
    notes: tuple[str, ...]
    frames: int
    is_header_doubtful: bool = False

    def cleaned(self, data: Data) -> bytes:
        """A PNG of the kept chunks."""
        return SIGNATURE + b"".join(chunk.content(data) for chunk in self.kept)

    def bare(self, data: Data) -> bytes:
        """A PNG of nothing but what the pixels need."""
        needed = (chunk for chunk in self.kept if chunk.name in _NEEDED)
        return SIGNATURE + b"".join(chunk.content(data) for chunk in needed)


def chunks(data: Data) -> Iterator[Chunk]:
    """The chunks of a PNG up to its end, the first broken one, or a limit; the last one may lack its end."""
    position, size = len(SIGNATURE), len(data)
    for _ in range(_MAX_CHUNKS):
        if position + MIN_CHUNK_BYTES > size:
            return
        length, name = struct.unpack_from(">I4s", data, position)
        if not name.isalpha():
            return
        chunk = Chunk(name, position, position + length + MIN_CHUNK_BYTES)
        yield chunk
        if name == b"IEND" or chunk.end > size:
            return
        position = chunk.end


def inspect(data: Data, *, whole: bool) -> PngFile:
    """Look through the chunks: those before the pixels, or if `whole` all of them. No pixel is inflated.

    Raises:
        ValueError: there are absurdly many.
    """
    judge = _Judge(data)
    kept: list[Chunk] = []
    dropped = 0
    for chunk in chunks(data):
        if chunk.name == b"IDAT" and not whole:
            kept.append(chunk)
            break
        if judge.keeps_critical(chunk) if chunk.name[:1].isupper() else judge.keeps(chunk):
            kept.append(chunk)
        else:
            dropped += 1
    is_plain = dropped == 0 and not judge.repaired
    header = b"IHDR" in judge.repaired
    return PngFile(kept, is_plain, judge.encoding(), tuple(judge.notes), judge.frames, header)


class _Judge:
    """Decides on each chunk beside the pixels, and remembers what the colour chunks said."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._kind = data[25] if len(data) > 25 else 0
        self._count = 0
        self._critical: set[bytes] = set()
        self._text_budget = _MAX_TEXTS_BYTES
        self._colour: dict[bytes, bytes] = {}
        self.repaired: set[bytes] = set()
        self.notes: list[str] = []
        self.frames = 1

    def keeps_critical(self, chunk: Chunk) -> bool:
        """Pixels come in many chunks; of the others one of a kind counts, and a plugin would read thousands."""
        if chunk.name == b"IDAT":
            return True
        if chunk.name in self._critical or len(self._critical) == _MAX_CRITICAL:
            return False
        self._critical.add(chunk.name)
        if chunk.needs_repair(self._data):
            self.repaired.add(chunk.name)
            if chunk.name == b"PLTE" and self._kind == _PALETTE_KIND:
                self.notes.append(_PALETTE_DAMAGED)
        return True

    def keeps(self, chunk: Chunk) -> bool:
        """Whether a plugin may see the chunk; where that costs the photo something, a note says why not."""
        self._count += 1
        if self._count > _ABSURD_ANCILLARY:
            raise ValueError("more chunks than any PNG has")
        if self._count > _MAX_ANCILLARY and chunk.name not in _ANIMATION:
            return chunk.name not in _TEXTS and self._refuse(_MANY_LEFT_OUT)
        if chunk.end > len(self._data) or not chunk.is_intact(self._data):
            name = chunk.name.decode("ascii")
            return self._refuse(say(NoticeKind.PART_DAMAGED, _DAMAGED, part=name))
        if chunk.name in _ANIMATION:
            return self._animation(chunk)
        if chunk.name in _TEXTS:
            return self._text(chunk)
        if chunk.name in (b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"tRNS", b"pHYs"):
            return self._single(chunk)
        return True

    def encoding(self) -> ColourEncoding | None:
        """What the colour chunks say together, by the order of precedence of the PNG specification."""
        for name, read in _READERS:
            if name in self._colour:
                encoding = read(self._colour)
                if encoding is not None or name == b"iCCP":
                    return encoding
        return None

    def _refuse(self, note: str) -> bool:
        if note not in self.notes:
            self.notes.append(note)
        return False

    def _animation(self, chunk: Chunk) -> bool:
        """Plugins see a still picture: the frame in IDAT, which is the first one."""
        if chunk.name == b"acTL" and chunk.end - chunk.start == MIN_CHUNK_BYTES + 8:
            self.frames = max(1, int.from_bytes(chunk.body(self._data)[:4], "big"))
        return False

    def _single(self, chunk: Chunk) -> bool:
        """Chunks of which the first one counts."""
        if chunk.name in self._colour:
            return False
        body = chunk.body(self._data)
        self._colour[chunk.name] = body
        name = chunk.name.decode("ascii")
        if chunk.name == b"iCCP":
            if _inflated_size(body.partition(b"\0")[2], MAX_PROFILE_BYTES):
                return True
            del self._colour[chunk.name]
            return self._refuse(PROFILE_LEFT_OUT)
        expected = _TRANSPARENCY_LENGTHS.get(self._kind) if chunk.name == b"tRNS" else _LENGTHS[chunk.name]
        if expected is not None and len(body) < expected:
            del self._colour[chunk.name]
            return self._refuse(say(NoticeKind.PART_TOO_SHORT, _TOO_SHORT, part=name))
        return True

    def _text(self, chunk: Chunk) -> bool:
        """A plugin does not see what it would stumble over; `metadata` reads texts itself, and notes what it leaves."""
        body = chunk.body(self._data)
        if body.partition(b"\0")[0] in _RESERVED_KEYWORDS:
            return False
        if len(body) > min(_MAX_TEXT_BYTES, self._text_budget):
            return False
        packed = _packed_text(chunk.name, body)
        inflated = _inflated_size(packed, min(_MAX_TEXT_BYTES, self._text_budget)) if packed else len(body)
        if inflated is None:
            return False
        self._text_budget -= inflated
        return True


def _packed_text(name: bytes, body: bytes) -> bytes:
    """The compression method and what is deflated of a text chunk, or nothing where the text is plain."""
    rest = body.partition(b"\0")[2]
    if name == b"zTXt":
        return rest
    if name == b"iTXt" and rest[:1] == b"\1":
        return rest[1:2] + rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return b""


def _inflated_size(packed: bytes, limit: int) -> int | None:
    """To how many bytes data behind its method byte (0: deflate) inflates; None: to more than `limit`, or not."""
    inflater = zlib.decompressobj()
    try:
        size = len(inflater.decompress(packed[1:], limit)) if packed[:1] == b"\0" else None
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else size


def _from_code_points(colour: dict[bytes, bytes]) -> ColourEncoding | None:
    primaries, transfer, matrix, full_range = colour[b"cICP"][:4]
    return None if matrix else from_code_points(primaries, transfer, full_range=bool(full_range))


def _from_profile(colour: dict[bytes, bytes]) -> ColourEncoding | None:
    return None


def _from_srgb(colour: dict[bytes, bytes]) -> ColourEncoding | None:
    return ColourEncoding()


def _from_gamma(colour: dict[bytes, bytes]) -> ColourEncoding | None:
    """gAMA, cHRM or both; what makes no sense counts as not said."""
    gamma = struct.unpack(">I", colour.get(b"gAMA", bytes(4))[:4])[0] / _GAMMA_UNIT
    encoding = ColourEncoding(_chromaticities(colour.get(b"cHRM")))
    is_usual = abs(gamma / _SRGB_GAMMA - 1) <= _SAME_GAMMA
    if is_usual or not _GAMMA_RANGE[0] <= gamma <= _GAMMA_RANGE[1]:
        return encoding
    return dataclasses.replace(encoding, transfer=Transfer.GAMMA, gamma=1 / gamma)


def _chromaticities(body: bytes | None) -> Primaries:
    if body is None:
        return SRGB_PRIMARIES
    white, red, green, blue = (
        (x / _GAMMA_UNIT, y / _GAMMA_UNIT) for x, y in struct.iter_unpack(">II", body[: _LENGTHS[b"cHRM"]])
    )
    primaries = Primaries(red, green, blue, white)
    try:
        primaries.to_pcs()
    except ValueError:
        return SRGB_PRIMARIES
    return primaries


_READERS: tuple[tuple[bytes, Callable[[dict[bytes, bytes]], ColourEncoding | None]], ...] = (
    (b"cICP", _from_code_points),
    (b"iCCP", _from_profile),
    (b"sRGB", _from_srgb),
    (b"gAMA", _from_gamma),
    (b"cHRM", _from_gamma),
)

"""Photos that hide the place where they were taken, each somewhere else; `PLACES` maps a name to bytes.

Everywhere the place is 48.8583 N, 2.2944 E, or Paris in France.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image, PngImagePlugin

from app.images.metadata import iptc, png_text
from tests import picture_factory as make

COORDINATES = "48.8583, 2.2944"
CITY = "Paris"
RATIONALS = b"".join(struct.pack("<II", *pair) for pair in ((48, 1), (51, 1), (2988, 100)))
# Bytes that no result may hold, in whichever alphabet.
TRACES = [
    *(
        text.encode(code)
        for text in ("48.8583", "2.2944", CITY, "48,51.498")
        for code in ("ascii", "utf-16-le", "utf-16-be")
    ),
    *(RATIONALS, b"".join(struct.pack(">II", *pair) for pair in ((48, 1), (51, 1), (2988, 100)))),
]
EXIF_SPACE, PHOTOSHOP_SPACE = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/photoshop/1.0/"
Entry = tuple[int, int, int, bytes]


def ascii_entry(tag: int, text: str | bytes) -> Entry:
    data = (text.encode() if isinstance(text, str) else text) + b"\0"
    return (tag, 2, len(data), data)


def byte_entry(tag: int, data: bytes, kind: int = 7) -> Entry:
    return (tag, kind, len(data), data)


GPS: list[Entry] = [
    *(ascii_entry(1, "N"), (2, 5, 3, RATIONALS), ascii_entry(3, "E"), (4, 5, 3, RATIONALS)),
    ascii_entry(27, "GPS"),
]
KEPT = [ascii_entry(0x010F, "Camera Works")]


class Block:
    """A little-endian EXIF block, or TIFF file, put together by hand."""

    def __init__(self) -> None:
        self.data = bytearray(b"II*\0\0\0\0\0")

    def put(self, data: bytes) -> int:
        """Append bytes; returns their offset."""
        self.data += bytes(len(self.data) % 2)
        self.data += data
        return len(self.data) - len(data)

    def directory(self, entries: list[Entry], following: int = 0) -> int:
        """Append a directory, in the order given; returns its offset."""
        cells = []
        for tag, kind, count, data in entries:
            field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", self.put(data))
            cells.append(struct.pack("<HHI", tag, kind, count) + field)
        return self.put(struct.pack("<H", len(cells)) + b"".join(cells) + struct.pack("<I", following))

    def pointer(self, tag: int, entries: list[Entry]) -> Entry:
        """Append a directory; returns the entry that points to it."""
        return (tag, 4, 1, struct.pack("<I", self.directory(entries)))

    def finish(self, entries: list[Entry], following: int = 0) -> bytes:
        """Append IFD0 and point the header to it."""
        struct.pack_into("<I", self.data, 4, self.directory(entries, following))
        return bytes(self.data)


def with_gps(entries: list[Entry] | None = None) -> bytes:
    block = Block()
    return block.finish([*(entries or KEPT), block.pointer(0x8825, GPS)])


def in_photo_directory(*entries: Entry) -> bytes:
    block = Block()
    return block.finish([*KEPT, block.pointer(0x8769, list(entries))])


def _two_pointers() -> bytes:
    block = Block()
    empty = block.pointer(0x8825, [ascii_entry(29, "2020:01:02")])
    return block.finish([*KEPT, empty, block.pointer(0x8825, GPS)])


def _under(outer: int, inner: int = 0) -> bytes:
    """The pointer under another directory than IFD0."""
    block = Block()
    entries = [block.pointer(0x8825, GPS)]
    if inner:
        entries = [block.pointer(inner, entries)]
    return block.finish([*KEPT, block.pointer(outer, entries)])


def _in_second_directory() -> bytes:
    block = Block()
    return block.finish(KEPT, block.directory([block.pointer(0x8825, GPS)]))


def _left_over() -> bytes:
    block = Block()
    block.directory(GPS)
    return block.finish(KEPT)


def _in_thumbnail() -> bytes:
    block = Block()
    inner = make.jpeg(exif=b"Exif\0\0" + with_gps())
    start = block.put(inner)
    thumbnail = [(0x0201, 4, 1, struct.pack("<I", start)), (0x0202, 4, 1, struct.pack("<I", len(inner)))]
    return block.finish(KEPT, block.directory(thumbnail))


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments: bytes, behind: bytes = b"") -> bytes:
    data = make.jpeg()
    return data[:2] + b"".join(segments) + data[2:] + behind


def exif_jpeg(*blocks: bytes) -> bytes:
    return jpeg(*(segment(0xE1, b"Exif\0\0" + block) for block in blocks))


def xmp_segment(packet: bytes) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)


def packet(body: str = "", attributes: str = "", head: str = "") -> bytes:
    return (
        f'{head}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="{EXIF_SPACE}" '
        f'xmlns:photoshop="{PHOTOSHOP_SPACE}" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        'xmlns:c="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/" xmlns:mm="http://ns.adobe.com/xap/1.0/mm/" '
        'xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:dji="http://www.dji.com/drone-dji/1.0/" '
        'xmlns:cam="http://pix4d.com/camera/1.0" xmlns:n="http://ns.adobe.com/xmp/note/" '
        f'dc:source="kept" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def xmp_jpeg(body: str = "", attributes: str = "", head: str = "") -> bytes:
    return jpeg(xmp_segment(packet(body, attributes, head)))


LATITUDE = "48,51.498N"
GPS_XMP = packet("<exif:GPSLongitude>2.2944</exif:GPSLongitude>", f'exif:GPSLatitude="{LATITUDE}"')
LOCATION = f"<e:City>{CITY}</e:City><e:CountryName>France</e:CountryName>"


def _extended() -> bytes:
    guid = hashlib.md5(GPS_XMP).hexdigest().upper()
    head = guid.encode() + struct.pack(">II", len(GPS_XMP), 0)
    first = packet("", f'n:HasExtendedXMP="{guid}"')
    return jpeg(xmp_segment(first), segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + head + GPS_XMP))


def iptc_jpeg(texts: dict[int, str]) -> bytes:
    return jpeg(make.iptc_segment({116: "(c) kept", **texts}))


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    data = make.saved(make.rgb_image(), "PNG")
    added = b"".join(make.chunk(name, body) for name, body in chunks)
    return data[:-12] + added + data[-12:] if behind else data[:33] + added + data[33:]


def tiff(entries: list[Entry], *pointers: tuple[int, list[Entry]]) -> bytes:
    block = Block()
    pixels = make.photo().tobytes()
    size = [struct.pack("<I", number) for number in (make.WIDTH, make.HEIGHT, block.put(pixels), len(pixels))]
    plain = [(256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 3, struct.pack("<HHH", 8, 8, 8))]
    plain += [
        (tag, 3, 1, struct.pack("<H", value)) for tag, value in ((259, 1), (262, 2), (277, 3), (278, make.HEIGHT))
    ]
    plain += [(273, 4, 1, size[2]), (279, 4, 1, size[3])]
    every = [*plain, *KEPT, *entries, *(block.pointer(tag, inner) for tag, inner in pointers)]
    return block.finish(sorted(every, key=lambda entry: entry[0]))


def webp(**options: Any) -> bytes:
    return make.saved(make.rgb_image(), "WEBP", lossless=True, **options)


def _webp_chunk() -> bytes:
    data = webp(exif=b"Exif\0\0" + with_gps())
    extra = b"gps " + struct.pack("<I", len(COORDINATES) + 1) + COORDINATES.encode() + b"\0"
    return data[:4] + struct.pack("<I", len(data) - 8 + len(extra)) + data[8:] + extra


def _pillow_texts() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("exif:GPSLatitude", "48/1, 51/1, 2988/100")
    info.add_text("exif:GPSInfo", "78")
    info.add_itxt("Location", CITY)
    info.add_text("Comment", COORDINATES, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(make.photo()).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def inflated(data: bytes) -> bytes:
    """The bytes of a file with every chunk of a PNG that is deflated text."""
    more = b""
    for found in re.finditer(rb"(?:zTXt|iTXt)[^\x00]{1,79}\x00(?:\x00|\x01\x00\x00\x00)(?=x)", data):
        text = zlib.decompressobj().decompress(data[found.end() :])
        if b"Raw profile" in found[0]:
            text = bytes.fromhex(b"".join(text.strip().split(b"\n", 2)[2].split()).decode())
        more += text
    return data + more


_IPTC_CITY = make.iptc_block({90: CITY, 101: "France"})
PLACES: dict[str, Callable[[], bytes]] = {
    "exif gps": lambda: exif_jpeg(with_gps()),
    "exif gps, big endian": lambda: make.jpeg(exif=b"Exif\0\0" + make.exif_block(gps=True, order=">")),
    "exif second segment": lambda: exif_jpeg(Block().finish(KEPT), with_gps()),
    "exif second segment without a header": lambda: exif_jpeg(with_gps()[:40], with_gps()[40:]),
    "exif two gps pointers": lambda: exif_jpeg(_two_pointers()),
    "exif pointer under the exif directory": lambda: exif_jpeg(_under(0x8769)),
    "exif pointer under the interop directory": lambda: exif_jpeg(_under(0x8769, 0xA005)),
    "exif pointer in the second directory": lambda: exif_jpeg(_in_second_directory()),
    "exif directory left over": lambda: exif_jpeg(_left_over()),
    "exif thumbnail's own": lambda: exif_jpeg(_in_thumbnail()),
    "exif maker note": lambda: exif_jpeg(in_photo_directory(byte_entry(0x927C, b"Maker\0" + RATIONALS + b"48.8583"))),
    "exif user comment": lambda: exif_jpeg(
        in_photo_directory(byte_entry(0x9286, b"ASCII\0\0\0" + COORDINATES.encode()))
    ),
    "exif user comment, utf-16": lambda: exif_jpeg(
        in_photo_directory(byte_entry(0x9286, b"UNICODE\0" + COORDINATES.encode("utf-16-be")))
    ),
    "exif windows comment": lambda: exif_jpeg(
        Block().finish([*KEPT, byte_entry(0x9C9C, COORDINATES.encode("utf-16-le"), 1)])
    ),
    "exif description": lambda: exif_jpeg(Block().finish([ascii_entry(0x010E, f"Lake {COORDINATES}"), *KEPT])),
    "exif unknown tag": lambda: exif_jpeg(
        Block().finish([*KEPT, ascii_entry(0xFDE8, "48.8583"), ascii_entry(0xFDE9, CITY)])
    ),
    "exif gps numbers in the exif directory": lambda: exif_jpeg(in_photo_directory(*GPS)),
    "exif embedded xmp": lambda: exif_jpeg(Block().finish([*KEPT, byte_entry(0x02BC, GPS_XMP, 1)])),
    "exif embedded iptc": lambda: exif_jpeg(Block().finish([*KEPT, byte_entry(0x83BB, _IPTC_CITY)])),
    "exif embedded photoshop": lambda: exif_jpeg(
        Block().finish([*KEPT, byte_entry(0x8649, iptc.resource_block(_IPTC_CITY), 1)])
    ),
    "exif padding": lambda: exif_jpeg(Block().finish([*KEPT, byte_entry(0xEA1C, COORDINATES.encode())])),
    "xmp attribute": lambda: xmp_jpeg(attributes=f'exif:GPSLatitude="{LATITUDE}"'),
    "xmp element": lambda: xmp_jpeg(f"<exif:GPSLatitude>{LATITUDE}</exif:GPSLatitude>"),
    "xmp other prefix": lambda: xmp_jpeg(f'<q:GPSLatitude xmlns:q="{EXIF_SPACE}">{LATITUDE}</q:GPSLatitude>'),
    "xmp no prefix": lambda: xmp_jpeg(f'<City xmlns="{PHOTOSHOP_SPACE}">{CITY}</City>'),
    "xmp entity": lambda: xmp_jpeg(
        "<photoshop:Headline>&p;</photoshop:Headline>", head=f'<!DOCTYPE x [<!ENTITY p "{CITY}">]>'
    ),
    "xmp character references": lambda: xmp_jpeg("<dc:format>&#52;&#56;.8583, 2.2944</dc:format>"),
    "xmp character data": lambda: xmp_jpeg(f"<dc:coverage><![CDATA[{COORDINATES}]]></dc:coverage>"),
    "xmp comment and instruction": lambda: xmp_jpeg(f"<!-- {COORDINATES} --><?gps {CITY}?>"),
    "xmp structure": lambda: xmp_jpeg(
        f'<e:LocationShown><rdf:Bag><rdf:li rdf:parseType="Resource">{LOCATION}</rdf:li></rdf:Bag></e:LocationShown>'
    ),
    "xmp structure of attributes": lambda: xmp_jpeg(f'<e:LocationCreated e:City="{CITY}" e:CountryName="France"/>'),
    "xmp structure in a list of another name": lambda: xmp_jpeg(
        f"<mm:Pantry><rdf:Bag><rdf:li><rdf:Description photoshop:City='{CITY}' exif:GPSLatitude='{LATITUDE}'>"
        f"<mm:DocumentID>kept</mm:DocumentID></rdf:Description></rdf:li></rdf:Bag></mm:Pantry>"
    ),
    "xmp drone": lambda: xmp_jpeg(attributes='dji:GpsLatitude="+48.8583" dji:GpsLongtitude="2.2944"'),
    "xmp unknown schema": lambda: xmp_jpeg(f"<cam:x>48.8583</cam:x><cam:y>2.2944</cam:y><cam:z>{CITY}</cam:z>"),
    "xmp resource": lambda: xmp_jpeg('<dc:relation rdf:resource="geo:48.8583,2.2944"/>'),
    "xmp qualifier": lambda: xmp_jpeg(
        f"<dc:format><rdf:Description><rdf:value>x</rdf:value><exif:GPSLatitude>{LATITUDE}</exif:GPSLatitude>"
        "</rdf:Description></dc:format>"
    ),
    "xmp second packet": lambda: jpeg(xmp_segment(packet()), xmp_segment(GPS_XMP)),
    "xmp extended packet": _extended,
    "xmp behind its end": lambda: jpeg(xmp_segment(packet() + b"<?xpacket end='w'?>" + COORDINATES.encode())),
    "xmp description": lambda: xmp_jpeg(
        f"<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>Lake {COORDINATES}</rdf:li></rdf:Alt></dc:description>"
    ),
    "xmp keywords": lambda: xmp_jpeg(
        f"<lr:hierarchicalSubject><rdf:Bag><rdf:li>Places|France|{CITY}</rdf:li></rdf:Bag></lr:hierarchicalSubject>"
        "<dc:subject><rdf:Bag><rdf:li>geo:lat=48.8583</rdf:li><rdf:li>geo:lon=2.2944</rdf:li></rdf:Bag></dc:subject>"
    ),
    "xmp utf-16": lambda: jpeg(xmp_segment(GPS_XMP.decode().encode("utf-16"))),
    "xmp iptc core": lambda: xmp_jpeg(
        f"<c:Location>{CITY}</c:Location>", f'photoshop:State="{CITY}" c:CountryCode="FR"'
    ),
    "iptc city": lambda: iptc_jpeg({90: CITY, 92: f"Quai, {CITY}", 95: CITY, 100: "FRA", 101: "France"}),
    "iptc content location": lambda: iptc_jpeg({26: "FRA", 27: CITY}),
    "iptc caption": lambda: iptc_jpeg({120: f"Lake {COORDINATES}"}),
    "iptc unknown data set": lambda: iptc_jpeg({231: CITY}),
    "iptc second segment": lambda: jpeg(make.iptc_segment({116: "(c) kept"}), make.iptc_segment({90: CITY})),
    "jpeg comment": lambda: jpeg(segment(0xFE, COORDINATES.encode())),
    "jpeg comment with a label": lambda: jpeg(segment(0xFE, f"City: {CITY}".encode())),
    "jpeg application segments": lambda: jpeg(segment(0xEC, COORDINATES.encode()), segment(0xE4, CITY.encode())),
    "jpeg behind the end": lambda: jpeg(behind=f"{COORDINATES} {CITY}".encode()),
    "png exif": lambda: png((b"eXIf", with_gps())),
    "png exif behind the pixels": lambda: png((b"eXIf", with_gps()), behind=True),
    "png texts": _pillow_texts,
    "png text behind the pixels": lambda: png((b"tEXt", f"Comment\0{COORDINATES}".encode()), behind=True),
    "png two packets": lambda: png(*((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + one) for one in (packet(), GPS_XMP))),
    "png raw profiles": lambda: png(
        png_text.raw_profile_chunk("exif", b"Exif\0\0" + with_gps()),
        png_text.raw_profile_chunk("APP1", b"http://ns.adobe.com/xap/1.0/\0" + GPS_XMP),
        png_text.raw_profile_chunk("iptc", _IPTC_CITY),
    ),
    "png private chunk": lambda: png((b"gpSx", COORDINATES.encode())),
    "tiff gps": lambda: tiff([], (0x8825, GPS)),
    "tiff pointer under the exif directory": lambda: tiff([], (0x8769, GPS)),
    "tiff xmp, iptc and photoshop": lambda: tiff(
        [
            byte_entry(700, GPS_XMP, 1),
            byte_entry(33723, _IPTC_CITY),
            byte_entry(34377, iptc.resource_block(_IPTC_CITY), 1),
        ]
    ),
    "tiff description": lambda: tiff([ascii_entry(270, COORDINATES)]),
    "tiff map": lambda: tiff(
        [(33922, 12, 6, struct.pack("<6d", 0, 0, 0, 2.2944, 48.8583, 0)), ascii_entry(34737, f"WGS 84 {CITY}|")]
    ),
    "tiff private tag": lambda: tiff([ascii_entry(65000, f"{COORDINATES} {CITY}")]),
    "webp exif": lambda: webp(exif=b"Exif\0\0" + with_gps()),
    "webp xmp": lambda: webp(xmp=GPS_XMP),
    "webp private chunk": _webp_chunk,
}

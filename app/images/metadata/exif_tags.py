"""Tag numbers of EXIF and TIFF directories: pointers, what describes the file's own bytes, and what is known.

Sources: EXIF 3.0 (CIPA DC-008-2023), TIFF 6.0, TIFF/EP, Microsoft's photo metadata tags.
"""

from __future__ import annotations

IMAGE_WIDTH, IMAGE_HEIGHT = 0x0100, 0x0101
ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
YCBCR_POSITIONING = 0x0213
XMP, IPTC, PHOTOSHOP = 0x02BC, 0x83BB, 0x8649
EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 0x8769, 0x8825, 0xA005
MAKER_NOTE = 0x927C
COLOUR_SPACE, INTEROP_INDEX = 0xA001, 0x0001
SUBJECT_AREA, SUBJECT_LOCATION = 0x9214, 0xA214
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
RELATED_WIDTH, RELATED_HEIGHT = 0x1001, 0x1002
POINTERS = frozenset({EXIF_POINTER, GPS_POINTER, INTEROP_POINTER})
EMBEDDED_BLOCKS = frozenset({XMP, IPTC, PHOTOSHOP})

# How the file that the block came from stores its pixels; of no use, or a lie, in any other file.
STRUCTURE = frozenset(
    {
        *(0x00FE, 0x00FF),  # NewSubfileType, SubfileType
        *range(0x0102, 0x010B),  # BitsPerSample to FillOrder
        *(0x0111, *range(0x0115, 0x011A), 0x011C),  # strips, SamplesPerPixel, Min/MaxSampleValue, PlanarConfiguration
        *range(0x0120, 0x0126),  # free bytes, grey response, fax options
        *(0x0129, 0x012D, 0x013D, 0x013E, 0x013F, 0x0140, 0x0141),  # PageNumber, transfer, predictor, white, palette
        *range(0x0142, 0x0147),  # tiles, bad fax lines
        *range(0x0147, 0x015C),  # SubIFDs, inks, ExtraSamples, SampleFormat, ranges, JPEGTables
        *range(0x0200, 0x020A),  # JPEG in TIFF; in IFD1 the thumbnail
        *(0x0211, 0x0212, 0x0214),  # YCbCr coefficients, subsampling, ReferenceBlackWhite
        *(0x8773, 0xEA1C, 0xEA1D, 0x9102),  # ICC profile, padding, OffsetSchema, CompressedBitsPerPixel
    }
)

_DESCRIPTIVE = {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298}
_WINDOWS = {0x4746, 0x4749, *range(0x9C9B, 0x9CA0)}  # Rating, RatingPercent, XPTitle to XPSubject
_MEASURES = {IMAGE_WIDTH, IMAGE_HEIGHT, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, YCBCR_POSITIONING}
PHOTO = frozenset(
    {
        *(0x829A, 0x829D, 0x8822, 0x8824, 0x8827, 0x882A, 0x882B, *range(0x8830, 0x8836)),
        *(0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9101, *range(0x9201, 0x920B), 0x9214, 0x9286),
        *range(0x9290, 0x9293),
        *range(0x9400, 0x9406),
        *(
            *range(0xA000, 0xA005),
            0xA20B,
            0xA20C,
            0xA20E,
            0xA20F,
            0xA210,
            0xA214,
            0xA215,
            0xA217,
            *range(0xA300, 0xA303),
        ),
        *(*range(0xA401, 0xA40D), 0xA420, *range(0xA430, 0xA43D), 0xA460, 0xA461, 0xA462, 0xA500),
    }
)
MAIN = frozenset(_DESCRIPTIVE | _WINDOWS | _MEASURES | PHOTO)  # TIFF/EP puts the tags of the photo into IFD0
GPS = frozenset(range(0x20))
INTEROP = frozenset({INTEROP_INDEX, 2, 0x1000, RELATED_WIDTH, RELATED_HEIGHT})
# Text in UTF-16: Windows' title, comment, author, keywords and subject.
WIDE_TEXTS = frozenset(range(0x9C9B, 0x9CA0))

"""Bytes to `Picture` and back: formats, colour, depth and metadata."""

from app.images.decoder import Decoder
from app.images.decoder_pool import DecoderPool
from app.images.encoding import Encoded, check_picture, choose_format, codec_versions, encode
from app.images.formats import check_format
from app.images.header import Header, ImageLimits, check_pages, read_header
from app.images.layer_encoding import fit_layers, keep_layers
from app.images.page_encoding import PagesEncoder
from app.images.patches import PATCH_SIDE_PIXELS, Box, Overview, PatchWindow, detailed_place, patch_at
from app.images.picture import Picture, Pixels
from app.images.preview import PREVIEW_SIDE_PIXELS, encode_preview
from app.images.pyramid import TILE_PIXELS, Pyramid
from app.images.sniffing import accepted_formats

__all__ = [
    "PATCH_SIDE_PIXELS",
    "PREVIEW_SIDE_PIXELS",
    "TILE_PIXELS",
    "Box",
    "Decoder",
    "DecoderPool",
    "Encoded",
    "Header",
    "ImageLimits",
    "Overview",
    "PagesEncoder",
    "PatchWindow",
    "Picture",
    "Pixels",
    "Pyramid",
    "accepted_formats",
    "check_format",
    "check_pages",
    "check_picture",
    "choose_format",
    "codec_versions",
    "detailed_place",
    "encode",
    "encode_preview",
    "fit_layers",
    "keep_layers",
    "patch_at",
    "read_header",
]

"""Bytes to `Picture` and back. It knows formats, colour and depth; it knows nothing of networks, rows or HTTP."""

from app.images.decoder import Decoder
from app.images.encoding import Encoded, choose_format, encode
from app.images.header import Header, ImageLimits, accepted_formats, read_header
from app.images.layer_encoding import fit_layers, keep_layers
from app.images.picture import Picture, Pixels
from app.images.preview import PREVIEW_SIDE_PIXELS, encode_preview, read_profile

__all__ = [
    "PREVIEW_SIDE_PIXELS",
    "Decoder",
    "Encoded",
    "Header",
    "ImageLimits",
    "Picture",
    "Pixels",
    "accepted_formats",
    "choose_format",
    "encode",
    "encode_preview",
    "fit_layers",
    "keep_layers",
    "read_header",
    "read_profile",
]

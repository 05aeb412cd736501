"""One file to one `Picture`: the work that happens inside the killable child."""

from app.images.decode.photo import DecodeOptions, decode_file

__all__ = ["DecodeOptions", "decode_file"]

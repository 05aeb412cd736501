"""One file to one `Picture`: the work that happens inside the killable child."""

from app.images.decode.channels import guard, plain_channels, turn
from app.images.decode.photo import decode_file

__all__ = ["decode_file", "guard", "plain_channels", "turn"]

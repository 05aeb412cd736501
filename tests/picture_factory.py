"""The pictures of the tests in one place: good kinds, odd ones that must decode, hostile ones that must be refused."""

from __future__ import annotations

from tests.hostile_files import HOSTILE, ODD_BUT_GOOD, HostileCase, scan_bomb
from tests.picture_makers import KINDS, exif_block, jpeg, photo, rgb_image, rgba_image, saved

__all__ = [
    "HOSTILE",
    "KINDS",
    "ODD_BUT_GOOD",
    "HostileCase",
    "exif_block",
    "jpeg",
    "photo",
    "rgb_image",
    "rgba_image",
    "saved",
    "scan_bomb",
]

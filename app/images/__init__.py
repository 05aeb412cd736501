"""Bytes to `Picture` and back. It knows formats, colour and depth; it knows nothing of networks, rows or HTTP."""

from app.images.picture import Picture, Pixels

__all__ = ["Picture", "Pixels"]

"""Scratches, cracks, creases and dust of old prints: found by one network, filled by a library and another network."""

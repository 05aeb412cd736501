"""Faults of the machine under a real service: what happens to the photos that it had accepted."""

"""Attacks of an adversarial review, each on a service started from any checkout, so that before and after compare."""

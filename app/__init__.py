"""Neural Image Restore: a self-hosted service that turns small, noisy, old photos into clean, large ones."""

__version__ = "0.1.0"

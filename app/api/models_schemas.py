"""The shapes of answers about models and their downloads; see `schemas`."""

from __future__ import annotations

from typing import Literal

from app.api.schemas import Shape


class DownloadShape(Shape):
    """One file on its way; `code` and `message` say why a failed one failed."""

    file: str
    state: Literal["waiting", "running", "checking", "completed", "failed", "cancelled"]
    bytes: int
    of: int
    code: str | None
    message: str | None


class DownloadsShape(Shape):
    """What was asked for, and each of its files."""

    name: str
    downloads: list[DownloadShape]


class ModelShape(Shape):
    """One model. `used_for`: the qualities it serves now, or `faces`; `partial_bytes` a download can go on with."""

    name: str
    file: str
    kind: Literal["upscaling", "partner", "faces"]
    purpose: str
    bytes: int
    licence: str
    commercial_use: bool | None
    sets: list[str]
    installed: bool
    present: bool
    note: str | None
    used_for: list[str]
    can_install: bool
    partial_bytes: int
    download: DownloadShape | None


class ModelSetShape(Shape):
    """Models that are installed together; `bytes` are those still to come."""

    name: str
    files: list[str]
    bytes: int
    installed: bool
    commercial_use: bool


class DownloadsAllowedShape(Shape):
    """Whether the caller may install models here, if not why, and which way they get one instead."""

    allowed: bool
    reason: str | None
    way: Literal["button", "command", "by_hand", "ask"]
    command: str | None


class ModelsShape(Shape):
    """Every model, and whether the caller may install what is missing."""

    models: list[ModelShape]
    sets: list[ModelSetShape]
    downloads: DownloadsAllowedShape
    loading: bool
    models_revision: str

"""What the settings allow, as the plain values that the parts get, and two parts that they may ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from app.api.dependencies import Limits
from app.backends.protocol import Backend
from app.images import ImageLimits
from app.model_downloads import InstallWay, ModelDownloads
from app.settings import MEGABYTE, Settings
from app.storage import Storage
from app.store import Store

if TYPE_CHECKING:
    from app.clamd import ClamdScanner
    from app.jobs.result_cache import ResultCache

DECODE_BYTES_PER_PIXEL = 24  # 16 bits with transparency, as read, as mixed and as sent
LONGEST_RESULT_PIXELS = 1 << 20


def open_scanner(settings: Settings) -> ClamdScanner | None:
    """What scans uploads, when the settings name it; connects to nothing yet."""
    if not settings.clamd_url:
        return None
    from app.clamd import ClamdScanner

    return ClamdScanner(settings.clamd_url, settings.clamd_timeout_seconds, settings.max_file_size_bytes)


def open_model_downloads(settings: Settings) -> ModelDownloads:
    """What installs models for an operator, or refuses to where the settings say so; nothing is fetched yet."""
    refusal, way = None, InstallWay.BUTTON
    if settings.offline:
        refusal = "OFFLINE is true, so nothing is downloaded; put the file into the weights folder by hand."
        way = InstallWay.BY_HAND
    elif not settings.allow_model_downloads:
        refusal = "ALLOW_MODEL_DOWNLOADS is false; whoever runs the service installs models by command."
        way = InstallWay.COMMAND
    return ModelDownloads(settings.weights_folder, settings.weights_base_url, refusal, way)


def open_result_cache(
    settings: Settings, store: Store, storage: Storage, backends: Mapping[str, Backend]
) -> ResultCache | None:
    """What answers equal jobs with finished results, where the settings ask for it."""
    if settings.result_cache == "off":
        return None
    from app.jobs.result_cache import ResultCache, code_version

    return ResultCache(store, storage, backends, same_owner=settings.result_cache == "owner", code=code_version())


def result_limits_of(limits: Limits) -> ImageLimits:
    """What decoding a result of our own may cost: it is larger than an upload, and time and memory grow with it."""
    image, megapixels = limits.image, limits.max_output_megapixels
    larger = max(1.0, megapixels / image.max_input_megapixels)
    return ImageLimits(
        max_input_megapixels=megapixels,
        decode_timeout_seconds=image.decode_timeout_seconds * larger,
        decode_memory_mb=max(image.decode_memory_mb, round(DECODE_BYTES_PER_PIXEL * megapixels)),
        max_side_pixels=LONGEST_RESULT_PIXELS,
    )


def tile_limits_of(limits: Limits) -> ImageLimits:
    """The same for cutting it into tiles, which takes the memory of a photo: rows go by, or the child asks for more."""
    return dataclasses.replace(result_limits_of(limits), decode_memory_mb=limits.image.decode_memory_mb)


def limits_of(settings: Settings) -> Limits:
    """The plain values that the API works by."""
    image = ImageLimits(
        max_input_megapixels=settings.max_input_megapixels,
        decode_timeout_seconds=settings.decode_timeout_seconds,
        decode_memory_mb=settings.decode_memory_mb,
    )
    return Limits(
        image=image,
        max_file_bytes=settings.max_file_size_bytes,
        max_batch_size=settings.max_batch_size,
        max_output_megapixels=settings.max_output_megapixels,
        queue_limit=settings.queue_limit,
        owner_limit=settings.queue_limit_per_owner if settings.has_users else None,
        daily_limit=settings.quota_photos_per_day or None,
        uploads_limit=settings.max_concurrent_uploads or None if settings.has_users else None,
        retention_seconds=settings.retention_minutes * 60,
        keep_limit_bytes=settings.keep_limit_mb_per_owner * MEGABYTE,
        storage_limit=settings.storage_limit_mb_per_owner * MEGABYTE or None,
        drain_seconds=settings.drain_seconds,
    )

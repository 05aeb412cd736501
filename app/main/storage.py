"""Where photos and results are kept, by the settings: two folders, or a bucket of an S3 server."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.errors import Conflict
from app.outbound.addresses import is_public_origin
from app.settings import Settings
from app.storage import DiskStorage, Storage

_CLIENT_PACKAGES = ("boto3", "botocore")


def open_storage(settings: Settings) -> Storage:
    """The storage that the settings name; connects to nothing. The S3 client is loaded only for a bucket.

    Raises `Conflict` `package_missing` when the client is not installed.
    """
    folders = settings.upload_folder, settings.processed_folder
    if not settings.storage_url:
        return DiskStorage(*folders, settings.min_free_disk_mb)
    try:
        from app.storage.s3 import S3Options, open_s3_storage
    except ModuleNotFoundError as error:
        if error.name not in _CLIENT_PACKAGES:
            raise
        raise Conflict(
            "package_missing",
            "STORAGE_URL names a bucket, but boto3 is not there; install requirements-cluster.txt.",
        ) from error
    where = urlsplit(settings.storage_url)
    prefix = where.path.strip("/")
    options = S3Options(
        bucket=where.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint_url=settings.s3_endpoint_url or None,
        public_endpoint_url=settings.s3_public_endpoint_url or None,
        region=settings.s3_region or ("us-east-1" if settings.s3_endpoint_url else None),
        addressing_style=settings.s3_addressing_style,
        checksums=settings.s3_checksums,
        redirect=settings.result_delivery == "redirect",
    )
    reachable = is_public_origin(settings.s3_public_endpoint_url)
    return open_s3_storage(options, *folders, settings.min_free_disk_mb, reachable_by_all=reachable)

"""Photos and results in a bucket of an S3 server: the second implementation of `Storage`, loaded only where it is set.

`open_s3_storage` is its entrance; nothing connects before the first call.
"""

from app.storage.s3.bucket import S3Options
from app.storage.s3.storage import S3Storage, open_s3_storage

__all__ = ["S3Options", "S3Storage", "open_s3_storage"]

"""The one table of error codes: the HTTP status of each, and what it means.

`errors` takes the status of every raised error from here, routes that of a stored failure, and the documentation its
list. A code is never renamed once released; a test holds the table against every place that raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class ErrorFacts(NamedTuple):
    """The HTTP status, what happened in a few words, and when another attempt may fare better (None: unknown)."""

    status: int
    meaning: str
    retry_after_seconds: int | None = None


UNKNOWN = ErrorFacts(500, "something unexpected broke in the service")

_TABLE = {
    # the request
    "bad_json": ErrorFacts(400, "the body is not one JSON object"),
    "bad_multipart": ErrorFacts(400, "the upload form is not well formed"),
    "bad_request": ErrorFacts(400, "the request cannot be read"),
    "too_many_fields": ErrorFacts(400, "more text fields than a form may carry"),
    "host_not_allowed": ErrorFacts(400, "the Host header names a host that is not served here"),
    "key_required": ErrorFacts(401, "no key was sent"),
    "wrong_key": ErrorFacts(401, "the key is not valid"),
    "two_credentials": ErrorFacts(400, "a key and a token came together, or two tokens"),
    "wrong_token": ErrorFacts(401, "the token is not valid here"),
    "token_expired": ErrorFacts(401, "the token was valid once and has expired"),
    "token_keys_unavailable": ErrorFacts(503, "the issuer's keys for tokens cannot be fetched"),
    "admin_required": ErrorFacts(403, "the key or token has not the role admin"),
    "bad_idempotency_key": ErrorFacts(400, "the Idempotency-Key is no word of at most 255 ASCII signs"),
    "foreign_origin": ErrorFacts(403, "another web page sent the request"),
    "not_found": ErrorFacts(404, "there is nothing at this address"),
    "method_not_allowed": ErrorFacts(405, "the address does not take this method"),
    "request_timeout": ErrorFacts(408, "the body came too slowly"),
    "body_too_large": ErrorFacts(413, "the request is larger than its limit"),
    "field_too_large": ErrorFacts(413, "a text field is larger than its limit"),
    "file_too_large": ErrorFacts(413, "a photo is larger than MAX_FILE_SIZE_MB"),
    "too_many_files": ErrorFacts(413, "more photos than the request or the queue may hold"),
    "unsupported_media_type": ErrorFacts(415, "the body has another type than the call takes"),
    "range_not_satisfiable": ErrorFacts(416, "the asked byte range lies outside the file"),
    "invalid_parameter": ErrorFacts(422, "a query parameter is out of bounds"),
    "repeated_option": ErrorFacts(422, "an option is given twice"),
    "idempotency_key_reused": ErrorFacts(422, "the Idempotency-Key was sent with another request"),
    "several_errors": ErrorFacts(422, "several photos of a batch were refused for different reasons"),
    "unknown_file_field": ErrorFacts(422, "a file came in a field of another name than file or files"),
    "no_file": ErrorFacts(422, "the form holds no photo"),
    "rate_limited": ErrorFacts(429, "more requests than RATE_LIMIT"),
    "too_many_connections": ErrorFacts(429, "too many connections follow jobs already"),
    "too_many_wrong_keys": ErrorFacts(429, "too many wrong keys or tokens from one address"),
    "too_many_uploads": ErrorFacts(429, "MAX_CONCURRENT_UPLOADS of the owner are under way"),
    "quota_exceeded": ErrorFacts(429, "QUOTA_PHOTOS_PER_DAY of the owner are used up"),
    # options and models
    "invalid_option": ErrorFacts(422, "an option is out of bounds"),
    "unknown_option": ErrorFacts(422, "there is no such option"),
    "unknown_model": ErrorFacts(422, "there is no such model"),
    "output_too_large": ErrorFacts(413, "the result would have more than MAX_OUTPUT_MEGAPIXELS"),
    "memory_too_small": ErrorFacts(413, "the result needs more memory than the service has"),
    "model_not_installed": ErrorFacts(409, "the model asked for by name is not installed"),
    "backend_unavailable": ErrorFacts(409, "the backend is not set up here"),
    "webhooks_off": ErrorFacts(409, "webhook_url is given, but webhooks are not set up here"),
    "webhook_refused": ErrorFacts(422, "webhook_url is no address that may be told"),
    "no_model": ErrorFacts(503, "no model is installed at all"),
    "weights_unreadable": ErrorFacts(503, "a weight file cannot be read"),
    "device_lost": ErrorFacts(503, "the graphics card failed, and the service starts again", 60),
    "device_unavailable": ErrorFacts(503, "the device of the settings is not there"),
    "reference_unavailable": ErrorFacts(503, "upstream's packages are missing or do not know the model"),
    "backend_failed": ErrorFacts(503, "the local backend could not be opened"),
    "no_worker": ErrorFacts(503, "no process that restores is running", 10),
    "warm_up_pending": ErrorFacts(503, "not every worker has run its model yet", 10),
    "downloads_off": ErrorFacts(403, "models are not downloaded here: ALLOW_MODEL_DOWNLOADS or OFFLINE says so"),
    "models_elsewhere": ErrorFacts(409, "this server holds no models; its workers do"),
    "licence_not_accepted": ErrorFacts(409, "the model's licence restricts commercial use and was not accepted"),
    "download_running": ErrorFacts(409, "another process downloads the same file"),
    "download_not_running": ErrorFacts(404, "no such download is running"),
    "download_corrupt": ErrorFacts(503, "a downloaded weight file has the wrong hash"),
    "download_failed": ErrorFacts(503, "a weight file could not be downloaded"),
    # the photo
    "empty_file": ErrorFacts(422, "the file has no bytes"),
    "undecodable_image": ErrorFacts(422, "the photo is damaged"),
    "unsupported_depth": ErrorFacts(422, "the photo's kind of samples cannot be read"),
    "unsupported_compression": ErrorFacts(422, "the photo is compressed with a method that cannot be read"),
    "too_many_pages": ErrorFacts(413, "the TIFF has more pages than are restored together"),
    "too_many_scans": ErrorFacts(422, "a progressive JPEG with far too many scans"),
    "decode_memory": ErrorFacts(422, "decoding needs more than DECODE_MEMORY_MB"),
    "decode_timeout": ErrorFacts(422, "decoding takes longer than DECODE_TIMEOUT_SECONDS"),
    "image_side_too_large": ErrorFacts(413, "a side of the photo is too long"),
    "image_too_large": ErrorFacts(413, "the photo has more than MAX_INPUT_MEGAPIXELS"),
    "raw_photo": ErrorFacts(415, "the file is a camera's raw file"),
    "unsupported_format": ErrorFacts(415, "the file is no photo of a supported format"),
    "too_large_for_format": ErrorFacts(422, "the asked format cannot hold a result of this size"),
    "malware_found": ErrorFacts(422, "the malware scanner found something in the file"),
    "photo_missing": ErrorFacts(404, "the upload is gone"),
    "file_missing": ErrorFacts(404, "a file to decode is gone"),
    # jobs, photos, results
    "attempt_not_found": ErrorFacts(404, "the job or photo has no such attempt"),
    "job_not_found": ErrorFacts(404, "unknown, expired, or somebody else's job"),
    "photo_not_found": ErrorFacts(404, "unknown, expired, or somebody else's photo"),
    "result_not_found": ErrorFacts(404, "the result has expired or was removed"),
    "face_not_found": ErrorFacts(404, "the result has no such restored face"),
    "attempt_not_completed": ErrorFacts(409, "only an attempt with a result can be selected"),
    "faces_not_kept": ErrorFacts(409, "the faces of this result are not kept"),
    "job_cancelled": ErrorFacts(409, "the job was cancelled while it was waited for"),
    "no_result": ErrorFacts(409, "the photo failed or was cancelled"),
    "not_finished": ErrorFacts(409, "the restoration has not ended yet"),
    "not_ready": ErrorFacts(409, "the restoration has not ended yet, so its faces cannot be blended"),
    "idempotency_key_in_use": ErrorFacts(409, "the first request with this Idempotency-Key is still being taken"),
    "photo_archived": ErrorFacts(409, "the photo is archived"),
    "photo_busy": ErrorFacts(409, "an attempt at the photo is active"),
    "photo_not_ready": ErrorFacts(409, "only a restored photo can be archived"),
    "result_changed": ErrorFacts(409, "the result was changed by somebody else meanwhile"),
    "several_results": ErrorFacts(409, "the job has several photos; name one"),
    "attempt_needed": ErrorFacts(422, "several photos of the job have faces; name one"),
    "invalid_strength": ErrorFacts(422, "a face's strength is not between 0 and 1"),
    "no_attempt": ErrorFacts(422, "no attempt was named"),
    "unknown_face": ErrorFacts(422, "the face was not restored here"),
    "layers_do_not_fit": ErrorFacts(422, "the kept faces do not belong to the result"),
    "layers_too_large": ErrorFacts(422, "the faces are too large to be kept"),
    "layers_unreadable": ErrorFacts(422, "the kept faces cannot be read"),
    # the state of the service
    "draining": ErrorFacts(503, "the service is shutting down"),
    "starting": ErrorFacts(503, "the service is still loading"),
    "shutting_down": ErrorFacts(503, "the service is shutting down"),
    "owner_queue_full": ErrorFacts(429, "QUEUE_LIMIT_PER_OWNER of the owner's photos wait"),
    "queue_full": ErrorFacts(503, "QUEUE_LIMIT photos wait"),
    "reblend_busy": ErrorFacts(503, "too many results are being blended"),
    "storage_full": ErrorFacts(503, "there is too little free disk space"),
    "storage_unavailable": ErrorFacts(503, "the server that keeps the photos cannot be reached or refuses"),
    "scan_unavailable": ErrorFacts(503, "the malware scanner does not answer, so nothing is taken", 10),
    "no_space": ErrorFacts(503, "there is no room to decode the photo"),
    "database_busy": ErrorFacts(503, "the job database is busy"),
    "database_unavailable": ErrorFacts(503, "the job database cannot be reached"),
    "database_unwritable": ErrorFacts(503, "the job database cannot be read or written"),
    "store_closed": ErrorFacts(503, "the service is stopping"),
    "out_of_resources": ErrorFacts(503, "the service has too few descriptors, threads or memory for this request"),
    "out_of_memory": ErrorFacts(503, "the device or the machine has too little memory"),
    "bad_network_output": ErrorFacts(500, "the network gave an unusable picture"),
    "decoder_unavailable": ErrorFacts(500, "the decoder's process cannot be started"),
    "internal_error": UNKNOWN,
    "worker_lost": ErrorFacts(500, "the machine that restored the photo went away five times without a word"),
    "worker_crashed": ErrorFacts(500, "the service died three times while it restored the photo"),
    # the provider
    "provider_rejected": ErrorFacts(400, "the provider refused this photo or prompt"),
    "provider_configuration": ErrorFacts(401, "the provider refused the service's key or address"),
    "provider_model_gone": ErrorFacts(409, "the provider no longer offers the model"),
    # Providers name no time, so these are modest guesses: a minute's share of requests, and a short trouble.
    "provider_busy": ErrorFacts(429, "the provider's share of requests is used up", 60),
    "provider_unavailable": ErrorFacts(503, "the provider cannot be reached or is in trouble", 30),
    "provider_timeout": ErrorFacts(504, "the provider did not answer in time"),
    "provider_bad_answer": ErrorFacts(502, "the provider's answer cannot be understood"),
    "provider_result_refused": ErrorFacts(502, "the provider's result is not safe to take"),
    "provider_result_missing": ErrorFacts(502, "the provider's result is not where it should be"),
    "interrupted": ErrorFacts(503, "the service stopped after the photo was sent to the provider"),
    # starting the service, and the command line
    "already_running": ErrorFacts(409, "another process uses this database"),
    "settings_conflict": ErrorFacts(409, "settings that do not go together"),
    "package_missing": ErrorFacts(409, "a package of an optional part is not installed"),
    "port_taken": ErrorFacts(409, "another program listens on the port"),
    "database_damaged": ErrorFacts(500, "the job database is damaged"),
    "copy_incomplete": ErrorFacts(500, "rows are missing after a copy of the job database"),
    "not_postgresql": ErrorFacts(400, "DATABASE_URL names no PostgreSQL database to copy to"),
    "target_not_empty": ErrorFacts(409, "the database to copy to has rows already"),
    "database_newer": ErrorFacts(500, "a later version wrote the job database"),
    "database_driver_missing": ErrorFacts(500, "the driver of the database that DATABASE_URL names is not installed"),
    "database_refused": ErrorFacts(500, "the database refuses the user that DATABASE_URL names"),
    "database_unknown": ErrorFacts(500, "DATABASE_URL names a database that is not supported"),
    "format_mismatch": ErrorFacts(400, "the ending of OUT and output_format disagree"),
    "unknown_ending": ErrorFacts(400, "OUT ends like a file that cannot be written"),
    "bad_record": ErrorFacts(400, "the file of earlier estimates cannot be read or written"),
    "no_such_file": ErrorFacts(400, "IN does not exist"),
    "no_such_folder": ErrorFacts(400, "the folder does not exist"),
    "same_folder": ErrorFacts(400, "the report would be written into its own inputs"),
    "same_column": ErrorFacts(400, "two columns of a report are the same"),
    "needs_degrade": ErrorFacts(400, "the option goes with --degrade only"),
    "out_of_bounds": ErrorFacts(400, "an argument is out of bounds"),
    "whole_scale": ErrorFacts(400, "--degrade takes whole scales only"),
    "would_overwrite": ErrorFacts(409, "a result would take the place of a photo"),
    "no_photo": ErrorFacts(404, "no photo was found"),
    "no_reference": ErrorFacts(404, "a photo has no reference"),
    "sizes_differ": ErrorFacts(422, "a result and its reference differ in size"),
    "too_small_to_compare": ErrorFacts(422, "the photo is too small for the metric"),
    "file_error": ErrorFacts(500, "a photo or its result cannot be read or written"),
    "internal": ErrorFacts(500, "something unexpected broke at one photo of a report"),
}
ERROR_CODES: Mapping[str, ErrorFacts] = MappingProxyType(_TABLE)


def facts_of(code: str | None) -> ErrorFacts:
    """The facts of a code; an unknown or missing one is our own fault."""
    return ERROR_CODES.get(code or "", UNKNOWN)

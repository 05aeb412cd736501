"""Answers a job with the finished result of an equal one: equal bytes, options, networks and code give equal results.

The key is made in the worker, which has the networks. A hit is a copy under the attempt's own name, so that nothing is
shared and nothing must be counted; a cached result ends with its row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import app
from app.backends.protocol import Backend, Repeatable
from app.errors import RestoreError
from app.images import codec_versions
from app.notices import PHOTO_CHANGED, RESULT_CHANGED
from app.options import RestoreOptions
from app.storage import Storage
from app.store import Attempt, Result, Store

log = logging.getLogger(__name__)

_DECIDING_SUFFIXES = frozenset((".py", ".safetensors"))  # the code and the coefficients that lie beside it
_COMPUTING_LIBRARIES = ("numpy", "opencv-python-headless", "pillow-heif", "scikit-image", "scipy", "torch")

# Warnings that the same photo, options and networks give every time. All others may be of the day (a full disk, a
# provider in trouble), and a result with one of them is never given again.
LASTING_WARNINGS = frozenset(
    (
        PHOTO_CHANGED,
        RESULT_CHANGED,
        "denoise_ignored",
        "denoise_unavailable",
        "embedded_model",
        "face_detector_fallback",
        "face_detector_missing",
        "face_model_fallback",
        "face_model_missing",
        "face_parsing_missing",
        "model_fallback",
        "much_damage",
        "options_ignored",
        "provider_colour",
        "provider_depth",
        "provider_size",
        "reference_depth",
        "reference_face_strength",
        "reference_faces_depth",
    )
)


class ResultCache:
    """Usable from any thread.

    Args:
        store, storage, backends: of the runner.
        same_owner: whether only results of the same owner are given.
        code: what stands for the code that restores; see `code_version`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        storage: Storage,
        backends: Mapping[str, Backend],
        *,
        same_owner: bool,
        code: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._storage, self._backends = store, storage, backends
        self._same_owner, self._code, self._clock = same_owner, code, clock

    def key_of(self, attempt: Attempt, options: RestoreOptions) -> str | None:
        """SHA-256 in hex of all that decides the result's bytes; None where they are not the same every time.

        None too where the store cannot be asked: the photo is restored, and its result given to nobody else.
        """
        try:
            return self._key_of(attempt, options)
        except (OSError, RestoreError) as error:
            log.warning("the key of attempt %s could not be made: %s", attempt.id, error)
            return None

    def _key_of(self, attempt: Attempt, options: RestoreOptions) -> str | None:
        backend: object = self._backends.get(attempt.backend)
        if attempt.mask_bytes is not None or not isinstance(backend, Repeatable):
            return None  # a mask is drawn for one photo, once
        facts, photo = backend.result_facts(options), self._store.results.photo_sha256(attempt.photo_id)
        if facts is None or photo is None:
            return None
        parts = [photo, options.to_json(), attempt.backend, facts, self._code, codec_versions()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def copy(self, attempt: Attempt, token: str, key: str) -> Result | None:
        """A finished result of this key, copied for the attempt; None when there is none, or it cannot be copied."""
        began = self._clock()
        try:
            found = self._store.results.find(attempt.job_id, key, same_owner=self._same_owner)
            if found is None or found.result_name is None:
                return None
            name = f"{attempt.id}.{found.result_name.rpartition('.')[2]}"
            name = self._storage.name_of_run(name, token)
            self._storage.copy_result(found.result_name, name)
        except (OSError, RestoreError) as error:  # removed a moment ago, say
            log.info("a cached result could not be taken: %s", error)
            return None
        return Result(
            name=name,
            mime=found.result_mime or "",
            width=found.result_width or 0,
            height=found.result_height or 0,
            bytes=found.result_bytes or 0,
            model=found.model or "",
            seconds=self._clock() - began,
            faces=found.faces,
            warnings=found.warnings,
            params={**found.params, "cache": "hit"},
            beside_bytes=found.beside_bytes or 0,
            cache_key=key,
            from_cache=True,
        )

    def with_key(self, attempt: Attempt, options: RestoreOptions, result: Result, key: str | None) -> Result:
        """A fresh result with the key that it is found by; without, if it tells of the day or the networks changed."""
        lasting = all(warning.code in LASTING_WARNINGS for warning in result.warnings)
        restarted = bool(result.params.get("out_of_memory_restarts"))
        if key is None or not lasting or restarted or self.key_of(attempt, options) != key:
            return result
        return dataclasses.replace(result, cache_key=key)


def code_version() -> str:
    """SHA-256 in hex over the project's own sources and coefficients, and the versions of the libraries that compute.

    So that no change of either ever gives an old result.
    """
    digest = hashlib.sha256()
    folder = Path(app.__file__).parent
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _DECIDING_SUFFIXES):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    for name in _COMPUTING_LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(f"{name}=={metadata.version(name)}\0".encode())
    return digest.hexdigest()

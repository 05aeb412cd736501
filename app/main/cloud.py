"""The cloud backend, where the settings hold a key for it; it connects to nothing until a photo asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.images import Decoder, DecoderPool
from app.settings import Settings
from app.storage import Storage, new_id

if TYPE_CHECKING:
    from app.backends.siliconflow.backend import SiliconFlowBackend


def open_cloud(settings: Settings, decoder: Decoder | DecoderPool, storage: Storage) -> SiliconFlowBackend | None:
    """The backend with its breaker; None without a key, and then nothing of it is imported."""
    key = settings.siliconflow_api_key.get_secret_value()
    if not key:
        return None
    from app.backends.siliconflow.backend import open_siliconflow_backend  # with it comes an HTTP client
    from app.backends.siliconflow.breaker import ProviderBreaker

    return open_siliconflow_backend(
        api_key=key,
        api_url=settings.siliconflow_api_url,
        model=settings.siliconflow_model,
        timeout_seconds=settings.siliconflow_timeout,
        result_hosts=settings.siliconflow_result_hosts,
        decode=decoder.decode,
        scratch=lambda: storage.scratch(new_id()),
        share=storage.share,
        breaker=ProviderBreaker(),
    )

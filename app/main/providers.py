"""The backends that send photos to a provider, opened from the settings where there is a key."""

from __future__ import annotations

from app.backends.protocol import Backend
from app.images import Decoder
from app.settings import Settings
from app.storage import Storage, new_id


def open_cloud_backend(settings: Settings, decoder: Decoder, storage: Storage) -> Backend | None:
    """The cloud backend when there is a key; it connects to nothing until a photo asks for it.

    Its results are decoded by `decoder`, in a child process, from files that `storage` lends.
    """
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

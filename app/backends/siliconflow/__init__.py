"""The SiliconFlow backend: one paid HTTP call a photo, and the safe fetching of its result.

This file says what the service tells of the backend before anybody uses it; it loads nothing and sends nothing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from app.options import BackendName

NAME = BackendName.SILICONFLOW.value
NO_KEY = "no SILICONFLOW_API_KEY is set; the operator can put one into .env and start the service again"
PRICE_NOTE = (
    "SiliconFlow charges your account for every photo that is sent, also when it is cancelled afterwards: "
    "around 0.05 US dollars in late 2026; see its price list."
)


def describe_siliconflow(*, available: bool, api_url: str) -> dict[str, Any]:
    """The backend's row in the configuration, JSON-ready."""
    host = urlsplit(api_url).hostname or "the provider"
    return {
        "name": NAME,
        "available": available,
        "reason": None if available else NO_KEY,
        "leaves_machine": "The photo, without its metadata and at most 3584 pixels a side, and your prompt are sent "
        f"to SiliconFlow ({host}).",
        "price_note": PRICE_NOTE,
    }

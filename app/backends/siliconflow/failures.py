"""What can go wrong with the provider, as errors a user can read: stable codes, agreed sentences, HTTP statuses.

Answers are judged by their status first, since the provider's error bodies have no common form. No text of
a body becomes part of an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

from app.errors import (
    BadGateway,
    BadRequest,
    Conflict,
    GatewayTimeout,
    RestoreError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)

HIDDEN = "[hidden]"
MODEL_GONE = 20012  # "Model does not exist"
LONGEST_WORDS_CHARACTERS = 300
_TIMED_OUT = (408, 504)
_CONFIGURATION = (401, 402, 403, 404, 405)  # the key, the balance, or the address in the settings
_MODEL_GONE_WORDS = re.compile(r"\bmodel\b.{0,80}?\b(?:not exist|not found|disabled|deprecated|offline|removed)", re.I)


def configuration() -> RestoreError:
    """401: the key, the account or the address in the settings is not accepted."""
    return Unauthorized("provider_configuration", "Service configuration error")


def busy() -> RestoreError:
    """429: the account's share of requests is used up."""
    return TooManyRequests("provider_busy", "Service busy, please try again")


def rejected() -> RestoreError:
    """400: this photo or this prompt is refused."""
    return BadRequest("provider_rejected", "Image could not be processed")


def timeout() -> RestoreError:
    """504: no answer in time."""
    return GatewayTimeout("provider_timeout", "Service timeout, please retry")


def unavailable() -> RestoreError:
    """503: not reachable, or in trouble."""
    return Unavailable("provider_unavailable", "Service unavailable")


def model_gone(model: str) -> RestoreError:
    """409: the provider does not offer the model any more."""
    return Conflict(
        "provider_model_gone",
        f"The provider no longer offers the model {model}; the operator can name another one in SILICONFLOW_MODEL.",
    )


def bad_answer() -> RestoreError:
    """502: the provider said that all is well, and what it sent is not what its documentation promises."""
    return BadGateway(
        "provider_bad_answer",
        "The provider's answer could not be understood; it may have charged for the photo, so ask before trying again.",
    )


def result_refused() -> RestoreError:
    """502: the address or the bytes of the result are not safe to take."""
    return BadGateway(
        "provider_result_refused",
        "The provider's result was not taken, because its address or its content is not safe; tell the operator.",
    )


def result_missing() -> RestoreError:
    """502: the result is no longer, or not yet, where the provider said."""
    return BadGateway(
        "provider_result_missing",
        "The provider's result is not where it should be, perhaps because its address has expired; try again later.",
    )


def of_answer(status: int, body: bytes, model: str) -> RestoreError:
    """The failure behind an answer that is not 200."""
    if status in _TIMED_OUT:
        return timeout()
    if 500 <= status <= 599:
        return unavailable()
    if status == 429:
        return busy()
    if 400 <= status <= 499 and _says_model_gone(body):
        return model_gone(model)
    if status in _CONFIGURATION or 300 <= status <= 399:
        return configuration()
    return rejected() if 400 <= status <= 499 else bad_answer()


def words_of(body: bytes, secret: str) -> str:
    """What the provider said, for the log: one printable line without the key."""
    parsed = _parsed(body)
    message = parsed.get("message") if isinstance(parsed, dict) else parsed
    code = parsed.get("code") if isinstance(parsed, dict) else None
    text = message if isinstance(message, str) else body.decode("utf-8", "replace")
    return f"{f'{code}: ' if isinstance(code, int) else ''}{printable(text, secret)}"


def printable(text: str, secret: str) -> str:
    """A foreign text as one harmless line for the log, without the key."""
    hidden = text.replace(secret, HIDDEN) if secret else text
    return "".join(c if " " <= c <= "~" else " " for c in hidden[:LONGEST_WORDS_CHARACTERS])


def _says_model_gone(body: bytes) -> bool:
    parsed = _parsed(body)
    if not isinstance(parsed, dict):
        return False
    return parsed.get("code") == MODEL_GONE or bool(_MODEL_GONE_WORDS.search(str(parsed.get("message", ""))[:1000]))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None

"""The provider's request and answer as JSON: what is asked of the model, and what is taken from its answer.

Every field of an answer is checked for its type before it is used.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from typing import Any

from app.backends.siliconflow import failures
from app.options import FIELDS, RestoreOptions

DEFAULT_PROMPT = (
    "Restore this old damaged photo. Enhance clarity, remove scratches and damage, improve colors while preserving "
    "original details."
)


@dataclasses.dataclass(frozen=True)
class GeneratedImage:
    """The provider's result: the address of the picture, and time and seed where they are valid."""

    url: str
    inference_seconds: float | None
    seed: int | None


def data_url(jpeg: bytes) -> str:
    """A JPEG as the text that stands for an address."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def prompt_of(options: RestoreOptions) -> str:
    """The user's prompt (`RestoreOptions` bounds its length), else ours."""
    return options.prompt or DEFAULT_PROMPT


def body_of(model: str, image: str, options: RestoreOptions) -> bytes:
    """The request's JSON; `image` is a data URL or an address that the provider can fetch."""
    fields: dict[str, Any] = {
        "model": model,
        "prompt": prompt_of(options),
        "image": image,
        "num_inference_steps": options.num_inference_steps,
        "guidance_scale": options.guidance_scale,
    }
    if options.seed is not None:
        fields["seed"] = options.seed
    return json.dumps(fields).encode("ascii")


def read_answer(body: bytes) -> GeneratedImage:
    """The first picture of an answer. Raises `provider_bad_answer`."""
    try:
        answer = json.loads(body)
        url = answer["images"][0]["url"]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        raise failures.bad_answer() from None
    if not isinstance(url, str):
        raise failures.bad_answer()
    timings = answer.get("timings")
    return GeneratedImage(url, _seconds(timings.get("inference") if isinstance(timings, dict) else None), _seed(answer))


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    seconds = float(value) if abs(value) < 1e6 else math.inf
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seed(answer: dict[str, Any]) -> int | None:
    value, highest = answer.get("seed"), FIELDS["seed"].high or 0
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest
    return value if good else None

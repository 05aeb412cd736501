"""The options of one restoration, and the one place where their bounds stand.

Interfaces (forms, command line, OpenAPI) are generated from `FIELDS`, so that a bound is written once.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from app.errors import TooLarge, Unprocessable

PROMPT_LIMIT_CHARACTERS = 800
_LAYOUT = "\n\r\t"  # the control characters that a text may hold
SEARCHED_PIXELS = 1200  # about the longer side of what is searched for damage; smaller photos are at their own size
MODEL_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BackendName(enum.StrEnum):
    """Where a photo can be restored."""

    LOCAL = "local"  # the networks of this machine
    SILICONFLOW = "siliconflow"


# In place of a device's name, after the service ended too often: with its card lost, or hung, for whatever reason.
CARD_FAILED = "card-failed"
HUNG_OFTEN = "hung-often"


class EngineName(enum.StrEnum):
    """Whose code runs the networks on this machine."""

    FAST = "fast"  # our own
    REFERENCE = "reference"  # upstream's packages: slow, the yardstick of parity


class Quality(enum.StrEnum):
    """How well and how slowly; `restoration.models.table` says which model each one means."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"  # full precision, and the 8-way geometric self-ensemble


class Partial(enum.StrEnum):
    """What becomes of a photo whose file is cut off or damaged, so that pixels are missing."""

    REFUSE = "refuse"
    KEEP = "keep"  # restore what is there; a warning says how much is missing


class ColorCorrection(enum.StrEnum):
    """Whether faded and yellowed colours are brought back."""

    OFF = "off"
    AUTO = "auto"  # where the photo's statistics say that it is faded


class Repair(enum.StrEnum):
    """Whether scratches, cracks, dust and stains are found and filled."""

    OFF = "off"
    AUTO = "auto"  # what is surely damage
    STRONG = "strong"  # also what may be: finds more, and takes some detail for damage


class Fallback(enum.StrEnum):
    """Who restores a photo when its backend cannot be used just now."""

    OFF = "off"
    LOCAL = "local"  # this machine; a warning says so


class Pages(enum.StrEnum):
    """Which pages of a TIFF are restored."""

    FIRST = "first"
    ALL = "all"  # into one TIFF


@dataclasses.dataclass(frozen=True)
class Field:
    """One option: its type, bounds or choices, and a help line. `low`/`high` are inclusive; `step`: its multiples."""

    kind: type
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    nullable: bool = False
    step: int | None = None


FIELDS: dict[str, Field] = {
    "backend": Field(str, "where the photo is restored", choices=tuple(BackendName)),
    "quality": Field(
        str,
        "fast, balanced or best; empty: chosen for this machine",
        choices=tuple(Quality),
        nullable=True,
    ),
    "model": Field(str, "a model's name; overrides quality", nullable=True),
    "rotate": Field(int, "degrees clockwise that the upright photo is turned: 0, 90, 180 or 270", 0, 270, step=90),
    "scale": Field(float, "how many times larger each side gets", low=1.0, high=8.0),
    "face_enhance": Field(bool, "restore faces with GFPGAN"),
    "face_strength": Field(float, "blend of restored (1) and upscaled (0) face", low=0.0, high=1.0),
    "face_model": Field(
        str, "network that restores faces; empty: GFPGANv1.3", choices=("GFPGANv1.3", "GFPGANv1.4"), nullable=True
    ),
    "denoise": Field(float, "noise removal of realesr-general-x4v3", low=0.0, high=1.0, nullable=True),
    "repair": Field(str, "find scratches, cracks and dust and fill them; local only", choices=tuple(Repair)),
    "color_correction": Field(str, "bring faded or yellowed colours back; local only", choices=tuple(ColorCorrection)),
    "color_strength": Field(float, "how much of that: 0 nothing, 1 all", low=0.0, high=1.0),
    "output_format": Field(
        str, "format of the result; auto keeps the photo's own", choices=("auto", "jpg", "png", "webp", "tiff", "avif")
    ),
    "pages": Field(str, "of a TIFF with several pages: first, or all into one TIFF", choices=tuple(Pages)),
    "output_quality": Field(int, "quality of jpg, webp and avif", low=1, high=100),
    "metadata": Field(str, "EXIF, XMP, IPTC, texts and DPI of the result", choices=("keep", "strip_gps", "strip")),
    "partial": Field(
        str, "a photo with missing pixels (a cut-off file): refuse it, or restore what is there", choices=tuple(Partial)
    ),
    "fallback": Field(
        str, "siliconflow only: local restores here while the provider is in trouble", choices=tuple(Fallback)
    ),
    "prompt": Field(str, f"siliconflow only, at most {PROMPT_LIMIT_CHARACTERS} characters", nullable=True),
    "num_inference_steps": Field(int, "siliconflow only", low=1, high=100),
    "guidance_scale": Field(float, "siliconflow only", low=0.0, high=20.0),
    "seed": Field(int, "siliconflow only", low=0, high=9_999_999_999, nullable=True),
}

BOOLEAN_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """What a user asks of one restoration (section 3 of the contract); always within the bounds of `FIELDS`."""

    backend: str = BackendName.LOCAL.value
    quality: str | None = None
    model: str | None = None
    rotate: int = 0
    scale: float = 4.0
    face_enhance: bool = True
    face_strength: float = 1.0
    face_model: str | None = None
    denoise: float | None = None
    repair: str = Repair.OFF.value
    color_correction: str = ColorCorrection.OFF.value
    color_strength: float = 1.0
    output_format: str = "auto"
    pages: str = Pages.FIRST.value
    output_quality: int = 95
    metadata: str = "keep"
    partial: str = Partial.REFUSE.value
    fallback: str = Fallback.OFF.value
    prompt: str | None = None
    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            _check(name, field, getattr(self, name))
        if self.model is not None and not MODEL_NAME_PATTERN.fullmatch(self.model):
            raise _invalid("model", "must be a name of letters, digits, dots, dashes and underscores")
        if self.prompt is not None and len(self.prompt) > PROMPT_LIMIT_CHARACTERS:
            raise _invalid("prompt", f"must have at most {PROMPT_LIMIT_CHARACTERS} characters")
        if self.pages == Pages.ALL and self.output_format not in ("auto", "tiff"):
            raise _invalid("pages", "may be all for TIFF results only; leave output_format at auto or tiff")
        if self.pages == Pages.ALL and self.backend != BackendName.LOCAL:
            raise _invalid("pages", "may be all on this machine only; choose the backend local")

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> RestoreOptions:
        """Build from form fields or JSON values; texts are converted, empty texts mean the default.

        Raises:
            Unprocessable: `invalid_option` names the first bad field, `unknown_option` a field we do not know.
        """
        values: dict[str, Any] = {}
        for name, raw in fields.items():
            field = FIELDS.get(name)
            if field is None:
                known = ", ".join(FIELDS)
                raise Unprocessable("unknown_option", f"There is no option '{name[:40]}'; known options are {known}.")
            if raw is None or raw == "":
                continue
            values[name] = _convert(name, field, raw)
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> RestoreOptions:
        """Read back what `to_json` wrote."""
        return cls.from_fields(json.loads(text))

    def to_json(self) -> str:
        """All options as one JSON object with sorted keys (equal options give equal texts)."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


# A number as text: without blanks, Python's 1_000 and other scripts' digits.
NUMBER_PATTERN = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"


def is_plain_text(text: str) -> bool:
    """Whether a text can be stored, sent and shown everywhere: no NUL or other control, no lone surrogate."""
    return all(unicodedata.category(character) not in ("Cc", "Cs") or character in _LAYOUT for character in text)


def _invalid(name: str, reason: str) -> Unprocessable:
    return Unprocessable("invalid_option", f"Option '{name}' {reason}.")


def _convert(name: str, field: Field, raw: object) -> object:
    """Text (or a JSON value) to the field's own type; whole numbers may be written as `4.0`."""
    if field.kind is str:
        if not isinstance(raw, str):
            raise _invalid(name, "must be a text")
        if not is_plain_text(raw):
            raise _invalid(name, "must be plain text, without control characters or halves of characters")
        return raw.strip()
    if field.kind is bool:
        word = BOOLEAN_WORDS.get(raw.strip().lower()) if isinstance(raw, str) else raw
        if not isinstance(word, bool):
            raise _invalid(name, "must be true or false")
        return word
    return _number(name, field.kind, raw)


def _number(name: str, kind: type, raw: object) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise _invalid(name, "must be a number")
    if isinstance(raw, str) and not re.fullmatch(NUMBER_PATTERN, raw):
        raise _invalid(name, "must be a number")
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        raise _invalid(name, "must be a number") from None
    if not math.isfinite(value):
        raise _invalid(name, "must be a finite number")
    if kind is int:
        if value != int(value):
            raise _invalid(name, "must be a whole number")
        return int(value)
    return value


def _check(name: str, field: Field, value: object) -> None:
    if value is None:
        if not field.nullable:
            raise _invalid(name, "must not be empty")
        return
    if field.choices is not None and value not in field.choices:
        raise _invalid(name, f"must be one of {', '.join(field.choices)}")
    if field.low is not None and field.high is not None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not field.low <= value <= field.high:
            raise _invalid(name, f"must be between {field.low:g} and {field.high:g}")
        if field.step is not None and value % field.step:
            steps = range(int(field.low), int(field.high) + 1, field.step)
            raise _invalid(name, f"must be one of {', '.join(map(str, steps))}")


def damage_reduction(width: int, height: int) -> int:
    """How many times reduced a photo of this size, in pixels, is searched for damage."""
    return max(1, round(max(width, height) / SEARCHED_PIXELS))


def output_size(width: int, height: int, scale: float, rotate: int = 0) -> tuple[int, int]:
    """(width, height) of the result of an upright photo that is turned: rounded, at least one pixel a side."""
    if rotate % 180:
        width, height = height, width
    return max(1, round(width * scale)), max(1, round(height * scale))


def check_output(pixels: int, scale: float, max_megapixels: float) -> None:
    """Raises `TooLarge` `output_too_large`, with the largest scale that fits, for `pixels` of a photo."""
    if pixels * scale * scale <= max_megapixels * 1e6:
        return
    fits = math.floor(10 * math.sqrt(max_megapixels * 1e6 / pixels)) / 10
    remedy = f"the largest scale that fits is {fits:g}" if fits >= 1 else "make the photo smaller first"
    raise TooLarge(
        "output_too_large",
        f"At scale {scale:g} the result would have {pixels * scale * scale / 1e6:.0f} megapixels and "
        f"{max_megapixels:g} are allowed; {remedy}.",
    )

"""What the user should know of a result: a stable code and a plain sentence. A fallback or a loss is never silent.

A sentence knows what it says, its kind with the values in it, so that a page can say the same in another language.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

PHOTO_CHANGED = "photo_changed"  # given up while the photo was decoded
RESULT_CHANGED = "result_changed"  # given up while the result was encoded

Value = str | int | float


class NoticeKind(enum.StrEnum):
    """Everything that a notice can say; never renamed once released. Each has a translation on the page."""

    # the run: these are the codes of their notices too
    DENOISE_IGNORED = "denoise_ignored"
    DENOISE_UNAVAILABLE = "denoise_unavailable"
    EMBEDDED_MODEL = "embedded_model"
    FACE_DETECTOR_FALLBACK = "face_detector_fallback"
    FACE_DETECTOR_MISSING = "face_detector_missing"
    FACE_MODEL_FALLBACK = "face_model_fallback"
    FACE_MODEL_MISSING = "face_model_missing"
    FACE_PARSING_MISSING = "face_parsing_missing"
    FACES_LEFT_OUT = "faces_left_out"
    FACES_NOT_KEPT = "faces_not_kept"
    FACTS_NOT_KEPT = "facts_not_kept"
    METADATA_NOT_KEPT = "metadata_not_kept"
    MODEL_FALLBACK = "model_fallback"
    OPTIONS_IGNORED = "options_ignored"
    PROVIDER_COLOUR = "provider_colour"
    PROVIDER_DEPTH = "provider_depth"
    PROVIDER_SIZE = "provider_size"
    REFERENCE_DEPTH = "reference_depth"
    REFERENCE_FACE_STRENGTH = "reference_face_strength"
    REFERENCE_FACES_DEPTH = "reference_faces_depth"
    RESTORED_LOCALLY = "restored_locally"
    MUCH_DAMAGE = "much_damage"
    DAMAGE_NOT_KEPT = "damage_not_kept"
    # the photo's pixels and colours
    CUT_OFF = "cut_off"
    CUT_OFF_DETAIL = "cut_off_detail"
    CUT_OFF_ROWS = "cut_off_rows"
    DAMAGED = "damaged"
    DAMAGED_DETAIL = "damaged_detail"
    DAMAGED_ROWS = "damaged_rows"
    PALETTE_DAMAGED = "palette_damaged"
    END_MARK_MISSING = "end_mark_missing"
    DEPTH_LOST = "depth_lost"
    EMPTY_TRANSPARENCY = "empty_transparency"
    CHANNEL_LEFT_OUT = "channel_left_out"
    CHANNELS_LEFT_OUT = "channels_left_out"
    HDR_TONED = "hdr_toned"
    PROFILE_BROKEN = "profile_broken"
    PROFILE_INCOMPLETE = "profile_incomplete"
    PROFILE_UNUSABLE = "profile_unusable"
    # what else its file holds
    FRAMES_LEFT_OUT = "frames_left_out"
    PICTURES_LEFT_OUT = "pictures_left_out"
    PAGES_LEFT_OUT = "pages_left_out"
    MORE_PAGES_LEFT_OUT = "more_pages_left_out"
    FILM_LEFT_OUT = "film_left_out"
    GAIN_MAP_LEFT_OUT = "gain_map_left_out"
    DEPTH_MAP_LEFT_OUT = "depth_map_left_out"
    PART_DAMAGED = "part_damaged"
    PART_TOO_SHORT = "part_too_short"
    PARTS_LEFT_OUT = "parts_left_out"
    SIDE_DATA_BROKEN = "side_data_broken"
    # its metadata
    CAMERA_DATA_LEFT_OUT = "camera_data_left_out"
    CREDENTIALS_LEFT_OUT = "credentials_left_out"
    EXTENDED_XMP_LEFT_OUT = "extended_xmp_left_out"
    MAKER_NOTE_LEFT_OUT = "maker_note_left_out"
    METADATA_BROKEN = "metadata_broken"
    METADATA_CUT_OFF = "metadata_cut_off"
    METADATA_PARTLY_BROKEN = "metadata_partly_broken"
    METADATA_PARTS_LEFT_OUT = "metadata_parts_left_out"
    TEXT_TOO_LARGE = "text_too_large"
    TIFF_TAGS_LEFT_OUT = "tiff_tags_left_out"
    XMP_LEFT_OUT = "xmp_left_out"
    # the format of the result
    BITS_ROUNDED = "bits_rounded"
    FORMAT_TOO_SMALL = "format_too_small"
    GREY_ALPHA_ROUNDED = "grey_alpha_rounded"
    LAID_ON_WHITE = "laid_on_white"
    LEFT_OUT_WITH_PLACE = "left_out_with_place"
    NO_PLACE_IN_FORMAT = "no_place_in_format"
    RESOLUTION_CLAMPED = "resolution_clamped"


class Sentence(str):
    """A plain English sentence that knows its stable code and the values in it; to everybody else it is its text."""

    code: str
    values: Mapping[str, Value]

    def __new__(cls, code: str, text: str, values: Mapping[str, Value] | None = None) -> Sentence:
        """`values` by the names that stand for them in the texts of other languages."""
        sentence = super().__new__(cls, text)
        sentence.code, sentence.values = str(code), dict(values or {})
        return sentence

    def __getnewargs__(self) -> tuple[str, str, Mapping[str, Value]]:  # type: ignore[override]
        """What a copy is made of."""
        return self.code, str.__str__(self), self.values

    def as_facts(self) -> dict[str, Any]:
        """For JSON."""
        return {"code": self.code, "message": str.__str__(self), "values": dict(self.values)}

    @classmethod
    def from_facts(cls, facts: Any) -> Sentence | None:
        """What `as_facts` gave, here or in another version; None for what is no sentence."""
        if not isinstance(facts, Mapping):
            return None
        code, message, values = (facts.get(name) for name in ("code", "message", "values"))
        if not (isinstance(code, str) and isinstance(message, str) and isinstance(values, Mapping)):
            return None
        known = {str(name): value for name, value in values.items() if isinstance(value, str | int | float)}
        return cls(code, message, known)


def say(code: str, template: str, **values: Value) -> Sentence:
    """The sentence of a template with its {names} filled."""
    return Sentence(code, template.format(**values), values)


@dataclasses.dataclass(frozen=True)
class Notice:
    """One warning. `code` is stable and never renamed once released; `message` is one plain sentence.

    A message that is a `Sentence` says more exactly than the code what happened.
    """

    code: str
    message: str

    def as_facts(self) -> dict[str, Any]:
        """For JSON: code, message, `kind` (the code, or what exactly happened) and the `values` in the message."""
        said = self.message if isinstance(self.message, Sentence) else Sentence(self.code, self.message)
        return {**said.as_facts(), "code": str(self.code), "kind": said.code}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Notice | None:
        """What `as_facts` gave, here or in another version; None for what is no notice."""
        code, message = facts.get("code"), facts.get("message")
        if not isinstance(code, str) or not isinstance(message, str):
            return None
        return cls(code, Sentence.from_facts({**facts, "code": facts.get("kind")}) or message)


def notices_of(code: str, sentences: Iterable[str]) -> tuple[Notice, ...]:
    """One notice a sentence, all with the same code."""
    return tuple(Notice(code, sentence) for sentence in sentences)


def notice(kind: NoticeKind, template: str, **values: Value) -> Notice:
    """A notice whose code says all."""
    return Notice(kind, say(kind, template, **values))

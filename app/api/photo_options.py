"""The form field `photo_options` of a submission: what single photos have of their own beside the options of all.

A JSON list with one object a photo, in the order of the files; an empty object changes nothing. Where it is done is
the job's, so backend and fallback stand in no such object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence

from app.api.catalog import Catalog
from app.api.json_bodies import options_of
from app.errors import Unprocessable
from app.options import RestoreOptions

PHOTO_OPTIONS = "photo_options"
OF_THE_JOB = frozenset(("backend", "fallback"))


def taken_from(fields: MutableMapping[str, object], catalog: Catalog) -> list[RestoreOptions] | None:
    """The options of each photo, all of them together with the form's; None where the form has no such field.

    The field is taken out, so that the options of all are left. Raises `Unprocessable` `invalid_option` for what is no
    such list, and what `options_of` raises for its objects.
    """
    text = fields.pop(PHOTO_OPTIONS, "")
    if text == "":
        return None
    return [options_of({**fields, **own}, catalog) for own in _listed(text)]


def check_count(each: Sequence[RestoreOptions], photos: int) -> None:
    """Raises `Unprocessable` `invalid_option` when there is not one for each photo."""
    if len(each) != photos:
        raise _invalid(f"must have one object for each photo; it has {len(each)}, and the photos are {photos}")


def _listed(text: object) -> list[Mapping[str, object]]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(own, dict) for own in found):
        raise _invalid('must be a JSON list with one object for each photo, such as [{"rotate": 90}, {}]')
    if any(not OF_THE_JOB.isdisjoint(own) for own in found):
        raise _invalid(f"may not hold {' or '.join(sorted(OF_THE_JOB))}, which all photos of a job share")
    return found


def _invalid(reason: str) -> Unprocessable:
    return Unprocessable("invalid_option", f"Option '{PHOTO_OPTIONS}' {reason}.")

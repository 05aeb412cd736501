"""The names of what is kept: ids, results with their versions and runs, what lies beside them, and labels."""

from __future__ import annotations

import enum
import re
import secrets
import unicodedata

from app.errors import NotFound

ID_PATTERN = re.compile(r"[0-9a-f]{32}")
# A result's first version bears its attempt's id; later ones, with faces blended again, add their number. Where several
# processes may write at once, each run adds a mark of its own, so that a late one never overwrites what was published.
RESULT_PATTERN = re.compile(
    r"(?P<stem>(?P<id>[0-9a-f]{32})(\.[0-9a-f]{8})?)"
    r"(?P<later>-v(?P<version>[2-9]|[1-9][0-9]{1,5})(?P<mark>\.[0-9a-f]{8})?)?\.(?P<ending>jpg|png|webp|tif|avif)"
)
BESIDE_PATTERN = re.compile(r"(?P<stem>[0-9a-f]{32}(\.[0-9a-f]{8})?)\.(faces|damage)")
MASK_PATTERN = re.compile(r"(?P<id>[0-9a-f]{32})\.mask")
LABEL_LIMIT_CHARACTERS = 120

_SEPARATORS = frozenset('/\\:*?"<>|')


class Beside(enum.StrEnum):
    """What one run keeps beside its result, for all versions of it."""

    FACES = "faces"  # the layers of its faces
    DAMAGE = "damage"  # what was found and filled in the photo


def new_id() -> str:
    """A fresh id: 32 hex characters from the system's random source."""
    return secrets.token_hex(16)


def first_version(result_name: str) -> str:
    """The name of the first version of a result, from the name of any; `NotFound` `result_not_found` for a bad name."""
    found = _parts_of(result_name)
    return f"{found['stem']}.{found['ending']}"


def next_version(result_name: str) -> str:
    """The name of the version after this one. Raises `NotFound` for a bad name."""
    found = _parts_of(result_name)
    return f"{found['stem']}-v{version_of(result_name) + 1}.{found['ending']}"


def version_of(result_name: str) -> int:
    """The number of a version, from 1. Raises `NotFound` for a bad name."""
    return int(_parts_of(result_name)["version"] or 1)


def beside_name(result_name: str, kind: Beside) -> str:
    """The name of what is kept beside a result, from that of any version. Raises `NotFound` for a bad name."""
    return f"{_parts_of(result_name)['stem']}.{kind.value}"


def mask_name(attempt_id: str) -> str:
    """The name of the mask that an attempt came with. Raises `NotFound` `mask_missing` for what is no id."""
    if not ID_PATTERN.fullmatch(attempt_id):
        raise NotFound("mask_missing", "There is no such mask; it may have expired.")
    return f"{attempt_id}.mask"


def mark_run(result_name: str, run: str) -> str:
    """The name with the mark of one run: the first 8 characters of its token, in hex. Raises `NotFound`."""
    found = _parts_of(result_name)
    return f"{found['stem']}{found['later'] or ''}.{run[:8]}.{found['ending']}"


def public_name(result_name: str) -> str:
    """The name in a result's address, without the marks of runs. Raises `NotFound` for a bad name."""
    found = _parts_of(result_name)
    later = f"-v{found['version']}" if found["version"] else ""
    return f"{found['id']}{later}.{found['ending']}"


def related_files(result_name: str) -> frozenset[str]:
    """The names of all files that belong to a result while this is its newest version.

    These are the first version, from which every later one is made; this one; the one before, which may still be read
    by whoever asked for it a moment ago (not where it bears a mark, which is known no more); and what lies beside.
    """
    found = _parts_of(result_name)
    names = {first_version(result_name), *(beside_name(result_name, kind) for kind in Beside), result_name}
    before = version_of(result_name) - 1
    known = before > 1 and found["mark"] is None
    return frozenset(names | {f"{found['stem']}-v{before}.{found['ending']}"} if known else names)


def _parts_of(result_name: str) -> re.Match[str]:
    found = RESULT_PATTERN.fullmatch(result_name)
    if found is None:
        raise NotFound("result_not_found", "There is no such file; it may have expired.")
    return found


def clean_label(name: str) -> str:
    """A client's file name made harmless for show: never empty, at most 120 characters, never used as a path.

    Control and formatting characters (bidirectional overrides among them), lone surrogates and path separators go;
    only what stands after the last separator is kept.
    """
    last = re.split(r"[/\\]", name)[-1]
    kept = (c for c in unicodedata.normalize("NFC", last) if unicodedata.category(c)[0] != "C" and c not in _SEPARATORS)
    label = " ".join("".join(kept).split()).strip(". ")
    if len(label) <= LABEL_LIMIT_CHARACTERS:
        return label or "photo"
    stem, dot, suffix = label.rpartition(".")
    if not dot or len(suffix) > 8:
        return label[:LABEL_LIMIT_CHARACTERS].strip()
    return stem[: LABEL_LIMIT_CHARACTERS - len(suffix) - 1].strip() + dot + suffix

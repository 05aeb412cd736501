"""The names of what is kept: ids, results with their versions and runs, layers, and clients' names made harmless."""

from __future__ import annotations

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
LAYERS_PATTERN = re.compile(r"(?P<stem>[0-9a-f]{32}(\.[0-9a-f]{8})?)\.faces")
LABEL_LIMIT_CHARACTERS = 120

_SEPARATORS = frozenset('/\\:*?"<>|')


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


def layers_name(result_name: str) -> str:
    """The name of the layers of a result's faces, which belong to all its versions. Raises `NotFound`."""
    return f"{_parts_of(result_name)['stem']}.faces"


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
    by whoever asked for it a moment ago (not where it bears a mark, which is known no more); and the layers of faces.
    """
    found = _parts_of(result_name)
    names = {first_version(result_name), layers_name(result_name), result_name}
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

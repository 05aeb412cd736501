"""The dashboard's catalogs, and what its files ask of them; read as text, for the tests of the dashboard.

A script asks with a plain `text("key")`, with `text(condition ? "one" : "other")`, or for a word of the service with
`textOf("group", word)`; the page with `data-text`, `data-label` and `data-title`.
"""

from __future__ import annotations

import json
import re

from app.main import STATIC_FOLDER

LANGUAGES = ("en", "de", "es")
SCRIPTS = sorted((STATIC_FOLDER / "js").glob("*.js"))
PAGE = (STATIC_FOLDER / "index.html").read_text(encoding="utf-8")
# A key written anywhere in a script: words of small letters with one dot between them.
KEY = re.compile(r'"([a-z_]+\.[a-z0-9_]+)"')
GROUP = re.compile(r'textOf\("(\w+)"')
PAGE_KEY = re.compile(r'data-(?:text|label|title)="([^"]+)"')
# Texts that look like keys and are none: names in the browser's storage, and files.
NO_KEYS = {"sample.jpg", "image.png", "icon.svg"}

Entry = str | dict[str, str]


def catalog(language: str) -> dict[str, Entry]:
    """The catalog of a language: key to text, or to the forms of its plurals. A key that stands twice fails."""
    return dict(_pairs_of((STATIC_FOLDER / "strings" / f"{language}.json").read_text(encoding="utf-8")))


def _pairs_of(document: str) -> dict[str, Entry]:
    def once(pairs: list[tuple[str, Entry]]) -> dict[str, Entry]:
        found = dict(pairs)
        assert len(found) == len(pairs), [key for key, _ in pairs if [name for name, _ in pairs].count(key) > 1]
        return found

    read: dict[str, Entry] = json.loads(document, object_pairs_hook=once)
    return read


def used_keys() -> set[str]:
    """Every key that a script or the page names in full."""
    found = {key for path in SCRIPTS for key in KEY.findall(code_of(path.read_text(encoding="utf-8")))}
    return (found - NO_KEYS) | set(PAGE_KEY.findall(PAGE))


def used_groups() -> set[str]:
    """Every group whose words come from the service."""
    return {group for path in SCRIPTS for group in GROUP.findall(path.read_text(encoding="utf-8"))}


def code_of(script: str) -> str:
    """A script without its comments."""
    return re.sub(r"(?m)/\*.*?\*/|(?<![:\"'`/\w])//.*$", "", re.sub(r"(?s)/\*\*.*?\*/", "", script))


def literals_of(code: str) -> list[str]:
    """The text literals of a script without comments; each expression in a template is a NUL, and is read too."""
    found: list[str] = []
    templates: list[tuple[str, int]] = []  # those that are open around this place: what is read of them, braces open
    place, braces = 0, 0
    while place < len(code):
        plain = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'").match(code, place)
        if plain:
            found.append(plain[1] or plain[2] or "")
            place = plain.end()
            continue
        if code[place] == "`" or (code[place] == "}" and templates and braces == 0):
            text, braces_around = templates.pop() if code[place] == "}" else ("", braces)
            part = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*").match(code, place + 1)
            assert part is not None
            text, place, braces = text + part[0], part.end(), 0
            if code[place : place + 1] == "`":
                found.append(text)
                braces = braces_around
            else:
                templates.append((text + "\0", braces_around))
                place += 1  # of "${"
        else:
            braces += {"{": 1, "}": -1}.get(code[place], 0)
        place += 1
    return found


def values_of(entry: Entry) -> set[str]:
    """The names of the values that a text takes; of a plural those of `other`, since `one` may do without the count."""
    if isinstance(entry, str):
        return set(re.findall(r"\{(\w+)\}", entry))
    return set(re.findall(r"\{(\w+)\}", entry["other"]))

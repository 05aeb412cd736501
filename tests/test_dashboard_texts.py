"""The texts of the dashboard: one catalog a language, whole in each, and none written in a script."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.main import STATIC_FOLDER
from app.restoration.models.weights import EMBEDDED, MANIFEST
from tests.dashboard_texts import (
    LANGUAGES,
    PAGE,
    SCRIPTS,
    catalog,
    code_of,
    literals_of,
    used_groups,
    used_keys,
    values_of,
)

CATALOGS = {language: catalog(language) for language in LANGUAGES}
# Only other languages have these: in English the service's own sentence is shown, which knows more.
TRANSLATED_GROUPS = ("error.", "warning.")
# The forms that `Intl.PluralRules` asks for; Spanish has one more for whole millions, and `other` stands in.
PLURALS = {"one", "other"}
MOST_FIRST_PAINT_BYTES = 150_000
NAMES = {"Neural Image Restore", "English", "Deutsch", "Español"}  # they are the same in every language
TITLED = {"4×", "100 %", "95"}  # values that a script replaces at once
VOID = {"meta", "link", "input", "img", "br", "use", "path", "circle", "hr"}
# Texts in scripts that nobody reads on the page: what begins with a capital, or has several words.
UNREAD = {
    "AbortError",
    "ArrowDown",
    "ArrowLeft",
    "ArrowRight",
    "ArrowUp",
    "Content-Type",
    "DOMContentLoaded",
    "Date",
    "DownloadURL",
    "End",
    "Enter",
    "Escape",
    r"Exif\0\0",
    "Files",
    "Home",
    "Idempotency-Key",
    "Link",
    "Notification",
    "PageDown",
    "PageUp",
    "Retry-After",
    "SELECT",
    "SiliconFlow",
    "WebP",
    "(prefers-color-scheme: dark)",
    "button, a[href], summary, label, input",
    "textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio], [type=file])",
    "translate(\0px, \0px)",
}


def texts(language: str) -> dict[str, str | dict[str, str]]:
    return {key: entry for key, entry in CATALOGS[language].items() if not key.startswith(TRANSLATED_GROUPS)}


def test_every_catalog_has_exactly_the_keys_that_are_used() -> None:
    groups = tuple(f"{group}." for group in used_groups() if f"{group}." not in TRANSLATED_GROUPS)
    wanted = used_keys()
    for language in LANGUAGES:
        known = set(texts(language))
        assert wanted - known == set(), f"{language}: no text for a key that is used"
        assert {key for key in known - wanted if not key.startswith(groups)} == set(), f"{language}: nobody asks for it"
    assert {f"{group}." for group in used_groups()} >= set(TRANSLATED_GROUPS)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_translation_has_the_keys_and_the_values_of_the_english_text(language: str) -> None:
    english, other = texts("en"), texts(language)
    assert set(other) == set(english)
    for key, entry in english.items():
        assert isinstance(entry, str) == isinstance(other[key], str), key
        assert values_of(entry) == values_of(other[key]), key


def test_texts_that_only_translations_have_are_in_each_of_them() -> None:
    german, spanish = (
        {key for key in CATALOGS[language] if key.startswith(TRANSLATED_GROUPS)} for language in ("de", "es")
    )
    assert german == spanish
    assert not [key for key in CATALOGS["en"] if key.startswith(TRANSLATED_GROUPS)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_official_model_says_what_it_is_for(language: str) -> None:
    said = {key.removeprefix("model_purpose.") for key in CATALOGS[language] if key.startswith("model_purpose.")}
    assert said == {Path(row.file).stem for row in (*MANIFEST, EMBEDDED)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_says_something_and_a_count_has_its_plurals(language: str) -> None:
    for key, entry in CATALOGS[language].items():
        forms = {"": entry} if isinstance(entry, str) else entry
        assert all(form.strip() for form in forms.values()), key
        if not isinstance(entry, str):
            assert set(entry) == PLURALS, key
            assert set(re.findall(r"\{(\w+)\}", entry["one"])) <= values_of(entry), key


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_holds_a_text_that_a_user_reads(path: Path) -> None:
    assert visible_literals(path.read_text(encoding="utf-8")) == []


def visible_literals(script: str) -> list[str]:
    """The literals of a script that look like words for people."""
    code = re.sub(r"^import .*$|class(?:Name =|:) (?:\"[^\"]*\"|`[^`]*`)", "", code_of(script), flags=re.MULTILINE)
    found = []
    for words in literals_of(code):
        if words in UNREAD or not re.search(r"[A-Za-zÀ-ÿ]{2}", words):
            continue
        if re.search(r"^[A-ZÀ-Þ][a-zà-ÿ]", words) or re.search(
            r"[a-zà-ÿ]{2}[,.:;]? +[A-Za-zÀ-ÿ\0]|[\0] [a-z]{2}", words
        ):
            found.append(words)
    return found


@pytest.mark.parametrize(
    "script",
    [
        'setText(title, "Restored");',
        "announce(`${count} photos sent.`);",
        'el("p", {}, "the service is away")',
        "const words = 'Nothing found';",
        "note.textContent = `about ${duration(seconds)}`;",
    ],
)
def test_the_search_for_literals_finds_them(script: str) -> None:
    assert len(visible_literals(script)) == 1


class _Page(HTMLParser):
    """Collects each text and label of a page beside the key of its element."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[tuple[str | None, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        for name, key in (("aria-label", "data-label"), ("title", "data-title")):
            if facts.get(name):
                self.found.append((facts.get(key), facts[name] or ""))
        if tag not in VOID:
            self.open.append((tag, facts))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, facts = self.open[-1] if self.open else ("", {})
        if data.strip() and tag not in ("title", "noscript") and not any(name == "noscript" for name, _ in self.open):
            self.found.append((facts.get("data-text"), data))


def test_every_text_of_the_page_is_the_english_text_of_its_key() -> None:
    page = _Page()
    page.feed(PAGE.split("<!doctype html>", 1)[1])
    assert len(page.found) > 80
    for key, words in page.found:
        if key is None:
            assert words.strip() in NAMES | TITLED, "a text without a key"
        else:
            assert CATALOGS["en"].get(key) == words, key


def test_the_languages_of_the_menu_are_those_of_the_catalogs() -> None:
    script = (STATIC_FOLDER / "js" / "language.js").read_text(encoding="utf-8")
    assert re.findall(r'"(\w\w)"', script.split("const LANGUAGES = ", 1)[1].split("]", 1)[0]) == list(LANGUAGES)
    assert re.findall(r'<option value="(\w\w)" lang="\1">', PAGE) == list(LANGUAGES)
    assert {path.stem for path in (STATIC_FOLDER / "strings").iterdir()} == set(LANGUAGES)


def test_the_first_paint_takes_at_most_150_kilobytes_over_the_wire() -> None:
    """All that the page loads before a photo is chosen, squeezed as it travels, with the largest catalog."""
    named = set(re.findall(r"(?:src|href)=\"([^#\"]+)\"", PAGE)) | {"index.html"}
    sizes = {name: len(gzip.compress((STATIC_FOLDER / name).read_bytes())) for name in named}
    largest = max(len(gzip.compress(path.read_bytes())) for path in (STATIC_FOLDER / "strings").iterdir())
    assert sum(sizes.values()) + largest <= MOST_FIRST_PAINT_BYTES

"""Words that the dashboard and the service share: neither side has one that the other lacks.

The scripts are read as text. A table passes only whole: an entry that cannot be read fails instead of being skipped.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable

import pytest
from pydantic import BaseModel
from starlette.status import WS_1000_NORMAL_CLOSURE

from app.api import models_schemas, schemas
from app.api.middleware import access_control
from app.api.routes import websocket
from app.error_codes import ERROR_CODES
from app.images.sniffing import MIME_TYPES
from app.jobs.previewing import ChosenBy
from app.main import STATIC_FOLDER
from app.model_downloads import InstallWay
from app.options import FIELDS, BackendName, Quality, Repair
from app.presets import PresetName
from app.results import FaceReason
from app.stages import Stage
from app.store import AttemptStatus
from tests.dashboard_texts import catalog

SCRIPTS = sorted((STATIC_FOLDER / "js").glob("*.js"))
SHEETS = sorted((STATIC_FOLDER / "style").glob("*.css"))
PAGE = (STATIC_FOLDER / "index.html").read_text(encoding="utf-8")
TEXT = r'"[^"]*"'
ENTRY = rf"(\w+): ({TEXT}|\[{TEXT}(?:, {TEXT})*\]|\w+)"
# What the page itself finds, beside what the service says.
PAGE_HEALTH = {"offline"}
PAGE_STATUSES = {"gone"}
PAGE_CODES = {"unreachable", "unknown"}


def literal_values(shape: type[BaseModel], field: str) -> set[str]:
    return set(typing.get_args(shape.model_fields[field].annotation))


HEALTH = literal_values(schemas.HealthShape, "status")
REMOVALS = literal_values(schemas.Removed, "status")


def source(script: str) -> str:
    return (STATIC_FOLDER / "js" / script).read_text(encoding="utf-8")


def table(script: str, name: str) -> dict[str, str]:
    """The entries of one object literal of plain keys; each value as it is written."""
    found = re.search(rf"const {name} = \{{([^}}]*)\}};", source(script))
    assert found is not None, f"{script} has no table {name}"
    body = found[1].strip().rstrip(",")
    assert re.fullmatch(rf"{ENTRY}(,\s+{ENTRY})*", body), f"{name} is no plain table"
    entries: list[tuple[str, str]] = re.findall(ENTRY, body)
    assert len(dict(entries)) == len(entries), f"{name} has a key twice"
    return dict(entries)


def group_of(language: str, group: str) -> set[str]:
    """The words that the catalog of a language has a text for, in one group of keys."""
    return {word for found, _, word in (key.partition(".") for key in catalog(language)) if found == group}


def choices(option: str) -> set[str]:
    found = FIELDS[option].choices
    assert found, option
    return set(found)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("stage", set(Stage)),
        ("status", set(AttemptStatus)),
        ("job_ended", {status for status in AttemptStatus if status.ended}),
        ("face_reason", set(FaceReason)),
        ("quality", set(Quality)),
        ("quality_note", set(Quality)),
        ("backend", set(BackendName)),
        ("health", HEALTH | PAGE_HEALTH),
        ("format", choices("output_format")),
        ("metadata", choices("metadata")),
        ("metadata_result", choices("metadata")),
        ("partial", choices("partial")),
        ("pages", choices("pages")),
        ("repair", choices("repair")),
        ("preview_place", set(ChosenBy)),
        ("install", set(InstallWay)),
        ("preset", set(PresetName)),
        ("preset_note", set(PresetName)),
        ("mode", set(re.findall(r'id="mode-(\w+)"', PAGE))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_group_of_the_catalog_has_exactly_the_words_of_the_service(group: str, words: Iterable[str]) -> None:
    assert group_of("en", group) == {str(word) for word in words}


def test_the_ways_to_a_missing_model_are_those_that_the_api_promises() -> None:
    assert literal_values(models_schemas.DownloadsAllowedShape, "way") == set(InstallWay)


def test_texts_for_errors_are_for_codes_that_the_service_has() -> None:
    errors = group_of("de", "error")
    assert errors
    assert errors <= set(ERROR_CODES)


@pytest.mark.parametrize(
    ("script", "name", "words"),
    [
        ("service_status.js", "HEALTH_TONES", HEALTH | PAGE_HEALTH),
        ("validation.js", "FORMAT_NAMES", set(MIME_TYPES)),
        ("image_header.js", "SIZES", set(MIME_TYPES)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_has_exactly_the_words_of_the_service(script: str, name: str, words: Iterable[str]) -> None:
    entries = table(script, name)
    assert set(entries) == {str(word) for word in words}
    assert all(value.strip('"[] ') for value in entries.values())


def test_the_order_of_qualities_is_that_of_the_service_and_each_can_be_chosen() -> None:
    ordered = [quality.value for quality in Quality]
    found = re.search(r"const QUALITIES = (\[.*?\]);", source("status_text.js"))
    assert found is not None
    assert json.loads(found[1]) == ordered
    assert re.findall(r'name="quality" value="(\w+)"', PAGE) == ordered
    for quality in ordered:
        assert f'id="time-{quality}"' in PAGE
        assert f'id="note-{quality}"' in PAGE


def test_every_field_of_the_settings_has_a_name_to_be_told_by_and_is_an_option_of_the_service() -> None:
    form = re.search(r'(?s)<form id="settings-form".*?</form>', PAGE)
    assert form is not None
    fields = {*re.findall(r'\bname="(\w+)"', form[0]), "backend", "repair"}  # these two the script makes
    assert set(table("settings_text.js", "LABELS")) == fields
    assert fields <= set(FIELDS)


def test_every_tone_of_health_has_a_colour() -> None:
    tones = {json.loads(value) for value in table("service_status.js", "HEALTH_TONES").values()}
    styled = {tone for sheet in SHEETS for tone in re.findall(r'\[data-tone="(\w+)"\] \.dot', sheet.read_text("utf-8"))}
    assert tones == styled


def test_jobs_end_on_the_page_when_they_end_in_the_service() -> None:
    found = re.search(r"const ENDED = new Set\((\[.*?\])\);", source("jobs.js"))
    assert found is not None
    assert set(json.loads(found[1])) == {status.value for status in AttemptStatus if status.ended}


# Where scripts compare a value of the service with a text: the pattern, and the texts that exist.
COMPARISONS: list[tuple[str, set[str]]] = [
    (r'\bstatus [!=]== "(\w+)"', {*AttemptStatus, *REMOVALS}),
    (r'\b(?:backend|row\.name) [!=]== "(\w+)"', set(BackendName)),
    (r'\bquality [!=]== "(\w+)"', set(Quality)),
    (r'\bcode [!=]== "(\w+)"', {*ERROR_CODES, *PAGE_CODES}),
    (r'\bREPAIR_\w+ = "(\w+)"', set(Repair)),
    (r'(?<!typeof )\bword [!=]== "(\w+)"', HEALTH | PAGE_HEALTH),
]


@pytest.mark.parametrize(
    ("pattern", "words"), COMPARISONS, ids=["status", "backend", "quality", "code", "repair", "health"]
)
def test_scripts_compare_only_with_words_of_the_service(pattern: str, words: set[str]) -> None:
    compared = {word for path in SCRIPTS for word in re.findall(pattern, path.read_text(encoding="utf-8"))}
    assert compared, "the pattern finds nothing any more"
    assert compared <= {str(word) for word in words}


def test_scripts_ask_for_lists_of_health_words_that_exist() -> None:
    lists = re.findall(r"(\[[^\]]*\])\.includes\(word\)", source("service_status.js"))
    assert len(lists) == 2
    assert {word for found in lists for word in json.loads(found)} <= HEALTH | PAGE_HEALTH


def test_styles_name_only_statuses_that_exist() -> None:
    named = {word for sheet in SHEETS for word in re.findall(r'data-status="(\w+)"', sheet.read_text(encoding="utf-8"))}
    assert named
    assert named <= {status.value for status in AttemptStatus} | PAGE_STATUSES


def test_codes_of_the_page_itself_are_none_of_the_service() -> None:
    made = set(re.findall(r'new Problem\(\d+, "(\w+)"', source("api.js")))
    made |= set(re.findall(r'body\?\.code \?\? "(\w+)"', source("api.js")))
    assert made == PAGE_CODES
    assert not PAGE_CODES & set(ERROR_CODES)


def test_close_codes_of_the_websocket_are_the_same_on_both_sides() -> None:
    found: dict[str, str] = dict(re.findall(r"\b(\w+_CLOSE) = (\d+)", source("live_updates.js")))
    assert {name: int(code) for name, code in found.items()} == {
        "ENDED_CLOSE": WS_1000_NORMAL_CLOSURE,
        "UNAUTHORIZED_CLOSE": access_control.UNAUTHORIZED_CLOSE,
        "NOT_FOUND_CLOSE": websocket.NOT_FOUND_CLOSE,
    }

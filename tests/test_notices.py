"""What notices and health say: each with a code that the page can translate, here, over JSON and from the child."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.error_codes import ERROR_CODES
from app.health_reasons import HealthReason, as_reason
from app.images import Decoder
from app.notices import Notice, NoticeKind, notice, notices_of, say
from tests import picture_factory as make
from tests.dashboard_texts import LANGUAGES, catalog, values_of

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for path in (ROOT / "app").rglob("*.py") if path.name not in ("notices.py", "health_reasons.py")]
CODED = {"NoticeKind": NoticeKind, "HealthReason": HealthReason}


def said_values(source: str) -> Iterator[tuple[str, set[str] | None]]:
    """The codes that are said in a source, each with the names of the values in it; None: they are built elsewhere."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in ("say", "notice"):
            continue
        names = {keyword.arg for keyword in call.keywords}
        for code in ast.walk(call.args[0]):
            if isinstance(code, ast.Attribute) and getattr(code.value, "id", "") in CODED:
                whole = CODED[code.value.id][code.attr].value  # type: ignore[attr-defined]
                yield whole, None if None in names else {name for name in names if name is not None}


def all_said() -> dict[str, set[str] | None]:
    found: dict[str, set[str] | None] = {}
    for path in SOURCES:
        for code, names in said_values(path.read_text(encoding="utf-8")):
            before = found.get(code, set())
            found[code] = None if names is None or before is None else names | before
    return found


def test_every_code_is_said_somewhere_and_no_notice_goes_without_one() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    for enumeration in CODED.values():
        for member in enumeration:
            assert f"{enumeration.__name__}.{member.name}" in text or member is HealthReason.OTHER, member
    assert not re.search(r"""\bNotice\(\s*f?["']""", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_has_a_text_for_every_code_with_no_other_values(language: str) -> None:
    texts = catalog(language)
    missing = {key.partition(".")[2] for key in texts if key.startswith("missing.")}
    wanted = {f"reason.{code}" for code in HealthReason if code is not HealthReason.OTHER and code not in missing}
    wanted |= set() if language == "en" else {f"warning.{kind}" for kind in NoticeKind if kind not in missing}
    assert {key for key in texts if key.startswith(("reason.", "warning."))} == wanted
    assert missing <= {*HealthReason, *NoticeKind, *ERROR_CODES}
    wanted |= {f"missing.{code}" for code in missing}
    said = all_said()
    for key in wanted:
        names = said.get(key.partition(".")[2])
        assert names is None or values_of(texts[key]) <= names, key


def test_the_search_for_values_sees_them() -> None:
    source = (
        'say(NoticeKind.CUT_OFF, "x {a}", a=1)\nnotice(HealthReason.NO_MODEL if x else NoticeKind.DAMAGED, w, **many)'
    )
    assert dict(said_values(source)) == {"cut_off": {"a"}, "no_model": None, "damaged": None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_text_for_operators_without_the_button_names_a_command(language: str) -> None:
    """What names a file or a command to get one is in the group of missing models, which leaves what to do to roles."""
    texts = catalog(language)
    for code, names in all_said().items():
        if {"command", "file"} & (names or set()) and code != HealthReason.NO_WORKER:
            assert f"missing.{code}" in texts
    named = {key for key, words in texts.items() if re.search(r"\{command\}|run\.py", str(words))}
    assert named == {"install.command"}


def test_a_sentence_is_its_text_and_knows_what_it_says() -> None:
    sentence = say(NoticeKind.PAGES_LEFT_OUT, "The file has {pages} pages.", pages=3)
    assert sentence == "The file has 3 pages."
    assert json.dumps([sentence]) == '["The file has 3 pages."]'
    for again in (sentence, copy.deepcopy(sentence), copy.copy(sentence)):
        assert again.as_facts() == {
            "code": "pages_left_out",
            "message": "The file has 3 pages.",
            "values": {"pages": 3},
        }
    assert as_reason(sentence) is sentence
    assert as_reason("It hangs.").code == HealthReason.OTHER


def test_a_notice_goes_through_json_and_back_whatever_version_wrote_it() -> None:
    (exact,) = notices_of("photo_changed", [say(NoticeKind.PAGES_LEFT_OUT, "{pages} pages", pages=3)])
    assert exact.as_facts() == {
        "code": "photo_changed",
        "message": "3 pages",
        "kind": "pages_left_out",
        "values": {"pages": 3},
    }
    plain = notice(NoticeKind.FACTS_NOT_KEPT, "Nothing is known.")
    assert plain.as_facts()["kind"] == plain.code == "facts_not_kept"
    for one in (exact, plain):
        back = Notice.from_facts(json.loads(json.dumps(one.as_facts())))
        assert back == one
        assert back is not None
        assert back.as_facts() == one.as_facts()
    older = {"code": "photo_changed", "message": "It has pages."}
    assert Notice.from_facts(older) == Notice("photo_changed", "It has pages.")
    for odd in ({}, {"code": "x"}, {"code": 1, "message": "m"}, {"code": "x", "message": None}):
        assert Notice.from_facts(odd) is None
    strange = Notice.from_facts({**older, "kind": "k", "values": {"a": [1], "b": 2}})
    assert strange is not None
    assert strange.as_facts()["values"] == {"b": 2}


def test_what_the_child_notes_keeps_its_code(decoder: Decoder, tmp_path: Path) -> None:
    frames = [Image.fromarray(make.photo(seed=seed)) for seed in (1, 2, 3)]
    frames[0].save(tmp_path / "photo", "TIFF", save_all=True, append_images=frames[1:])
    (note,) = (each.as_facts() for each in decoder.decode(tmp_path / "photo").notes)
    assert (note["code"], note["kind"], note["values"]) == ("photo_changed", "pages_left_out", {"pages": 3})

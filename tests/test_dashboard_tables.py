"""The dashboard's tables of words against the enums of the service: neither side knows a word that the other lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.options import BackendName
from app.results import FaceReason
from app.stages import Stage
from app.store import AttemptStatus

SCRIPTS = Path(__file__).resolve().parents[1] / "static" / "js"


def table(script: str, name: str) -> dict[str, str]:
    """An object literal of plain keys and texts, as it stands in a script."""
    source = (SCRIPTS / script).read_text(encoding="utf-8")
    found = re.search(rf"const {name} = \{{(.*?)\n\}};", source, re.DOTALL)
    assert found is not None, name
    return dict(re.findall(r'^\s*(\w+): "([^"]+)",$', found[1], re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "enum"), [("STAGES", Stage), ("FACE_REASONS", FaceReason)], ids=["stages", "reasons of faces"]
)
def test_a_table_of_the_page_holds_what_the_service_can_say(name: str, enum: type[Stage] | type[FaceReason]) -> None:
    words = table("status_text.js", name)
    assert set(words) == {word.value for word in enum}
    assert all(text.strip() for text in words.values())


def test_every_statement_about_a_state_or_a_backend_is_one_that_exists() -> None:
    """Words that scripts compare with: `status === "..."`, `backend === "..."`."""
    compared: dict[str, set[str]] = {"status": set(), "backend": set()}
    for path in SCRIPTS.glob("*.js"):
        for field, word in re.findall(r'\b(status|backend) [!=]== "(\w+)"', path.read_text(encoding="utf-8")):
            compared[field].add(word)
    states = {status.value for status in AttemptStatus} | {"uploaded", "ready", "archived", "removed"}
    assert compared["backend"] <= {name.value for name in BackendName}
    assert compared["status"] <= states | {"starting", "busy", "degraded", "failing", "draining"}
    assert compared["backend"]
    assert compared["status"]

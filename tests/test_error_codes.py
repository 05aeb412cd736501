"""The table of error codes against every place of the source that raises one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import errors
from app.api.middleware.request_body import BodyTooSlow
from app.api.problems import Refusal
from app.error_codes import ERROR_CODES, UNKNOWN, facts_of
from app.errors import RestoreError

APP = Path(errors.__file__).parent
FAMILIES: dict[str, type[RestoreError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, RestoreError)
} | {"BodyTooSlow": BodyTooSlow, "Refusal": Refusal}
# Codes that no constructor names: rows get them, or the framework's own errors do.
ELSEWHERE = {
    "several_errors",
    "worker_crashed",
    "internal_error",
    "invalid_parameter",
    "not_found",
    "method_not_allowed",
}
NO_FAMILY = ("RestoreError", "Refusal")


def raised(source: str) -> Iterator[tuple[str, str]]:
    """(family, code) of every constructor call with a literal code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in FAMILIES and isinstance(node.args[0].value, str):
                yield name, node.args[0].value


def all_raised() -> set[tuple[str, str]]:
    return {found for path in APP.rglob("*.py") for found in raised(path.read_text(encoding="utf-8"))}


def test_the_check_sees_a_raised_code() -> None:
    assert set(raised('raise NotFound("a", "b")\nreturn errors.Conflict("c", "d")')) == {
        ("NotFound", "a"),
        ("Conflict", "c"),
    }


def test_every_raised_code_stands_in_the_table_with_the_status_of_its_family() -> None:
    found = all_raised()
    assert len(found) > 100
    assert not {code for _, code in found} - set(ERROR_CODES)
    wrong = {
        (name, code)
        for name, code in found
        if name not in NO_FAMILY and ERROR_CODES[code].status != FAMILIES[name].status
    }
    assert not wrong


def test_every_code_of_the_table_is_used() -> None:
    unused = set(ERROR_CODES) - {code for _, code in all_raised()}
    assert unused == ELSEWHERE
    sources = "\n".join(path.read_text(encoding="utf-8") for path in APP.rglob("*.py") if path.name != "error_codes.py")
    assert all(f'"{code}"' in sources for code in ELSEWHERE)


def test_an_error_has_the_status_of_its_code() -> None:
    assert errors.Conflict("backend_unavailable", "…").status == 409
    assert errors.NotFound("photo_not_found", "…").status == 404
    assert Refusal("range_not_satisfiable", "…").status == 416


@pytest.mark.parametrize("code", ["never_heard_of", None, ""])
def test_an_unknown_code_is_our_own_fault(code: str | None) -> None:
    assert facts_of(code) is UNKNOWN
    assert UNKNOWN.status == 500


@pytest.mark.parametrize("code", sorted(ERROR_CODES))
def test_a_row_is_whole(code: str) -> None:
    facts = ERROR_CODES[code]
    assert 400 <= facts.status < 600
    assert 10 < len(facts.meaning) < 100
    assert facts.retry_after_seconds is None or facts.status in (429, 503)

"""The table of error codes against every place of the source that raises one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from app import errors
from app.api import problems
from app.api.middleware.request_body import BodyTooSlow
from app.api.problems import Refusal
from app.error_codes import ERROR_CODES, UNKNOWN, facts_of
from app.errors import RestoreError

APP = Path(errors.__file__).parent
FAMILIES: dict[str, type[RestoreError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, RestoreError)
} | {"BodyTooSlow": BodyTooSlow, "Refusal": Refusal}
# Codes that no constructor names, each with the place that does.
ELSEWHERE = {
    "several_errors": "the refusal of a batch, by its photos",
    "interrupted": "the row of a run that died at a provider",
    "worker_crashed": "the row of a run that died three times",
    "worker_lost": "the row of a run whose lease ran out five times",
    "internal_error": "whatever nobody expected",
    "invalid_parameter": "the framework's check of query parameters",
    "not_found": "the framework's own 404",
    "method_not_allowed": "the framework's own 405",
    "internal": "whatever nobody expected at one photo of a report",
}
NO_FAMILY = ("RestoreError", "Refusal")
# Constructor calls whose code is a variable, by module: which codes they can get.
PASSED_ON = {
    "storage/disk.py": {("NotFound", "photo_not_found"), ("NotFound", "result_not_found")},
    "storage/scratch.py": {("NotFound", "photo_not_found"), ("NotFound", "result_not_found")},
    "storage/s3/storage.py": {("NotFound", "photo_not_found"), ("NotFound", "result_not_found")},
    "api/routes/jobs.py": set[tuple[str, str]](),  # the code of a row, with the status of the table
}
# The one error with a status of its own: that of the photos it refuses, when they agree.
OWN_STATUS = {"BatchRefused"}


def constructed(source: str) -> Iterator[tuple[str, ast.expr]]:
    """(family, code as written) of every constructor call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in FAMILIES:
                yield name, node.args[0]


def raised(source: str) -> Iterator[tuple[str, str]]:
    """(family, code) of every constructor call with a literal code."""
    for name, code in constructed(source):
        if isinstance(code, ast.Constant) and isinstance(code.value, str):
            yield name, code.value


def all_raised() -> set[tuple[str, str]]:
    return {found for path in APP.rglob("*.py") for found in raised(path.read_text(encoding="utf-8"))}


def own_statuses(source: str) -> set[str]:
    """Classes, outside of the families, that give their objects another status than the table's."""
    return {
        owner.name
        for owner in ast.walk(ast.parse(source))
        if isinstance(owner, ast.ClassDef) and {getattr(base, "id", "") for base in owner.bases} & set(FAMILIES)
        for node in ast.walk(owner)
        if isinstance(node, ast.Attribute) and node.attr == "status" and isinstance(node.ctx, ast.Store)
    }


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


def test_a_code_that_is_a_variable_is_listed_with_what_it_can_be() -> None:
    found = {
        path.relative_to(APP).as_posix()
        for path in APP.rglob("*.py")
        for _, code in constructed(path.read_text(encoding="utf-8"))
        if not isinstance(code, ast.Constant)
    }
    assert found == set(PASSED_ON)
    for module, pairs in PASSED_ON.items():
        assert all(ERROR_CODES[code].status == FAMILIES[name].status for name, code in pairs)
        assert all(f'"{code}"' in (APP / module).read_text(encoding="utf-8") for _, code in pairs)


def test_no_error_chooses_its_own_status() -> None:
    sources = [path.read_text(encoding="utf-8") for path in APP.rglob("*.py") if path != APP / "errors.py"]
    assert {name for source in sources for name in own_statuses(source)} == OWN_STATUS
    assert own_statuses("class A(Conflict):\n    def __init__(self):\n        self.status = 418") == {"A"}


def test_every_code_of_the_table_is_used() -> None:
    unused = set(ERROR_CODES) - {code for _, code in all_raised()}
    assert unused == set(ELSEWHERE)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in APP.rglob("*.py") if path.name != "error_codes.py")
    assert all(f'"{code}"' in sources for code in ELSEWHERE)


def test_an_error_has_the_status_of_its_code() -> None:
    assert errors.Conflict("backend_unavailable", "…").status == 409
    assert errors.NotFound("photo_not_found", "…").status == 404
    assert Refusal("range_not_satisfiable", "…").status == 416


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (416, "range_not_satisfiable"),
        (418, "http_418"),
    ],
)
def test_an_error_of_the_framework_keeps_its_status_and_gets_our_code(status: int, code: str) -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    def refuse() -> None:
        raise HTTPException(status, headers={"Allow": "GET"})

    answer = TestClient(app).get("/")
    assert (answer.status_code, answer.json()["status"], answer.json()["code"]) == (status, status, code)
    assert answer.headers["allow"] == "GET"
    assert answer.headers["content-type"] == problems.MEDIA_TYPE


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

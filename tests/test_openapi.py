"""The page `/openapi.json` tells the truth: who may call, what a refusal looks like, which methods an address takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_service import KEY, Service, running

REFUSED_BY_THE_FRAMEWORK = "/api/v1/jobs?limit=0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    with running(folder, key=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def page(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get("/openapi.json").json()
    return found


def calls(page: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in page["paths"].items():
        for method, call in methods.items():
            yield path, method, call


def test_every_call_says_whether_it_needs_a_key_and_it_is_so(service: Service, page: dict[str, Any]) -> None:
    schemes = page["components"]["securitySchemes"]
    assert {scheme["name"] for scheme in schemes.values()} >= {"X-API-KEY"}
    assert page["security"] == [{name: []} for name in schemes]
    for path, method, call in calls(page):
        answer = service.client.request(method, path, headers={"X-API-KEY": ""})
        if call.get("security") == []:
            assert path in ("/health/live", "/api/v1/session"), path
        else:
            assert answer.status_code in (401, 429), path  # 429: so many wrong keys came from one address


def test_every_refusal_is_described_as_a_problem(service: Service, page: dict[str, Any]) -> None:
    assert service.client.get(REFUSED_BY_THE_FRAMEWORK).headers["content-type"] == "application/problem+json"
    for path, method, call in calls(page):
        for status, answer in call["responses"].items():
            if status.startswith("4"):
                assert set(answer["content"]) == {"application/problem+json"}, f"{method} {path} {status}"


def test_a_wrong_method_is_told_all_right_ones(service: Service, page: dict[str, Any]) -> None:
    for path, methods in page["paths"].items():
        answer = service.client.request("PATCH", path)
        assert answer.status_code == 405, path
        assert answer.headers["allow"].split(", ") == sorted(method.upper() for method in methods), path

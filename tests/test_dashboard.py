"""The dashboard's files and what serves them, without a browser; and what the API gives for its sake."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.api.dashboard import FILE_POLICY, PAGE_POLICY, PERMISSIONS, SMALLEST_COMPRESSED_BYTES
from app.main import STATIC_FOLDER, create_app, create_dashboard
from tests.http_service import BASE_URL, Service, assert_problem, describe, photo, running, settings_for

SCRIPTS = sorted((STATIC_FOLDER / "js").glob("*.js"))
SHEETS = sorted((STATIC_FOLDER / "style").glob("*.css"))
PAGE = (STATIC_FOLDER / "index.html").read_text(encoding="utf-8")
MOST_LINES = 350
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function"
    r"|setAttribute\(['\"](?:style|on)|javascript:|\.style\s*=[^=]"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(settings_for(tmp_path_factory.mktemp("pages")), backends={}, describe=describe)
    with TestClient(create_dashboard(app), base_url=BASE_URL) as client:
        yield client


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("dashboard")) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/", PAGE_POLICY),
        ("/index.html", PAGE_POLICY),
        ("/nowhere", PAGE_POLICY),
        ("/js/main.js", FILE_POLICY),
        ("/style/base.css", FILE_POLICY),
        ("/strings/en.json", FILE_POLICY),
        ("/icon.svg", FILE_POLICY),
        ("/sample.jpg", FILE_POLICY),
        ("/nowhere.js", FILE_POLICY),
    ],
)
def test_every_answer_of_the_page_carries_a_strict_policy(pages: TestClient, path: str, policy: str) -> None:
    """Also one that says that nothing has changed: its headers take the place of those that a browser has kept."""
    answer = pages.get(path)
    assert answer.status_code == (404 if "nowhere" in path else 200)
    if tag := answer.headers.get("etag"):
        unchanged = pages.get(path, headers={"If-None-Match": tag})
        assert (unchanged.status_code, unchanged.headers["content-security-policy"]) == (304, policy)
    assert answer.headers["content-security-policy"] == policy
    assert answer.headers.get("permissions-policy") == (None if policy == FILE_POLICY else PERMISSIONS)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


def test_the_policy_allows_no_inline_script_or_style_and_nothing_from_elsewhere() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in PAGE_POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert FILE_POLICY.startswith("default-src 'none';")
    assert "unsafe" not in PAGE_POLICY
    assert "http" not in PAGE_POLICY


def test_pages_travel_squeezed_and_are_asked_for_again_only_by_tag(pages: TestClient) -> None:
    answer = pages.get("/js/viewer.js", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    plain = (STATIC_FOLDER / "js" / "viewer.js").read_bytes()
    assert answer.content == plain
    assert int(answer.headers["content-length"]) < len(gzip.compress(plain)) + 200
    tag = answer.headers["etag"]
    assert pages.get("/js/viewer.js", headers={"If-None-Match": tag}).status_code == 304


def test_long_answers_about_the_service_travel_squeezed_and_those_about_photos_do_not(service: Service) -> None:
    pages = TestClient(create_dashboard(service.app), base_url=BASE_URL)  # its lifespan is the service's
    squeezed = {"Accept-Encoding": "gzip"}
    answer = pages.get("/api/v1/config", headers=squeezed)
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < len(answer.content) / 2
    service.finish(service.submit())
    jobs = pages.get("/api/v1/jobs", headers=squeezed)
    assert len(jobs.content) > SMALLEST_COMPRESSED_BYTES
    assert "content-encoding" not in jobs.headers


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_from_texts_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// "), "a module opens with what it does"
    assert FORBIDDEN.findall(text) == []
    assert re.findall(r"https?://|//[a-z0-9.-]+\.[a-z]{2,}/", text.replace("http://www.w3.org/2000/svg", "")) == []
    assert len(text.splitlines()) <= MOST_LINES


def test_the_page_has_no_inline_script_style_or_handler_and_loads_only_files_beside_it() -> None:
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", PAGE)
    named = re.findall(r"(?:src|href)=\"([^#\"]+)\"", PAGE)
    assert len(named) > 20
    for name in named:
        assert (STATIC_FOLDER / name).is_file(), name
    first = {Path(name).name for name in named if name.endswith(".js")}
    assert first == with_imports("main.js", "theme.js", "language.js"), "what is needed is named, for one round trip"
    later = set(re.findall(r'import\("\./(\w+\.js)"\)', "".join(path.read_text("utf-8") for path in SCRIPTS)))
    assert later >= {"viewer.js", "damage_panel.js", "repair_offer.js"}
    assert not later & first
    assert first | with_imports(*later) == {path.name for path in SCRIPTS}
    for sheet in SHEETS:
        assert not re.search(r"@import|url\(", sheet.read_text(encoding="utf-8")), sheet.name


def with_imports(*names: str) -> set[str]:
    """These modules and all that they import, but what they load later."""
    found: set[str] = set()
    open_ones = list(names)
    while open_ones:
        name = open_ones.pop()
        if name not in found:
            found.add(name)
            script = (STATIC_FOLDER / "js" / name).read_text(encoding="utf-8")
            open_ones += re.findall(r'from "\./(\w+\.js)"', script)
    return found


def test_every_element_that_a_script_looks_for_is_in_the_page() -> None:
    wanted = {name for path in SCRIPTS for name in re.findall(r"find\(\"([a-z0-9-]+)\"\)", path.read_text("utf-8"))}
    assert len(wanted) > 40
    known = re.findall(r"\sid=\"([a-z0-9-]+)\"", PAGE)
    assert len(known) == len(set(known))
    assert wanted <= set(known)


def test_previews_come_as_large_as_asked_within_bounds(service: Service) -> None:
    job = service.submit(photo(900, 300, "JPEG"), scale="2")
    service.finish(job)
    base = f"/api/v1/jobs/{job}"
    for address, side in [
        (f"{base}/preview", 400),
        (f"{base}/preview?size=1200", 1200),
        (f"{base}/preview?size=4096", 1800),  # never larger than the result
        (f"{base}/original?preview=true&size=4096", 900),
        (f"{base}/original?preview=true", 400),
    ]:
        answer = service.client.get(address)
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content), formats=("JPEG",)) as image:
            assert max(image.size) == side, address
    for size in ("4097", "15", "large"):
        assert_problem(service.client.get(f"{base}/preview?size={size}"), 422, "invalid_parameter")


def test_a_refused_batch_names_the_place_of_each_bad_photo(service: Service) -> None:
    files = [("files", (name, data)) for name, data in [("a.png", photo()), ("a.png", b"no photo"), ("b.png", b"")]]
    problem = assert_problem(service.client.post("/api/v1/enhance/batch", files=files), 422, "several_errors")
    assert [row["index"] for row in problem["errors"]] == [1, 2]


def test_status_tells_the_speeds(service: Service) -> None:
    rows = service.client.get("/api/v1/status").json()["speeds"]
    assert [row["quality"] for row in rows] == ["fast", "balanced", "best"]

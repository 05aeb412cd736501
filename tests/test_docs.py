"""The claims of the documentation against the code: codes, options, files, links, rooms, licence."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from app.api.middleware import access_control
from app.api.routes import websocket
from app.error_codes import ERROR_CODES
from app.main import create_app
from app.options import FIELDS
from app.restoration.models.weights import EMBEDDED, MANIFEST
from tests.documentation import FILES, PAGES, README, ROOT, blocks, section
from tests.face_backend import FaceBackend
from tests.http_service import describe, settings_for

MOST_README_LINES = 150
MOST_README_PAGES = 5
KNOWN_STATUSES = {(code, facts.status) for code, facts in ERROR_CODES.items()}


def test_the_readme_and_the_check_name_the_same_test_command() -> None:
    assert "python3 run.py test\n" in "".join(blocks("sh"))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "grep -m 1 -x 'python3 run.py test' README.md" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= MOST_README_LINES


def test_the_pages_name_every_option_and_every_weight_file() -> None:
    options = section("api.md", "Options of a restoration")
    assert all(f"`{name}`" in options for name in FIELDS)
    models = PAGES["models.md"]
    assert all(row.file in models for row in (*MANIFEST, EMBEDDED))
    assert all(row.licence.split(";")[0] in models for row in (*MANIFEST, EMBEDDED))


def test_the_page_of_the_api_lists_every_route_with_its_method(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path), backends={"local": FaceBackend()}, describe=describe)
    paths = app.openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    routes.add(f"WS {websocket.router.url_path_for('live_status', job_id='JOB')}".replace("JOB", "{job_id}"))
    listed = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", section("api.md", "Routes"), re.M)
    assert len(listed) > 30
    assert sorted(listed) == sorted(routes)


def test_the_page_of_the_api_lists_every_close_code_of_the_websocket() -> None:
    codes = {
        value
        for module in (access_control, websocket)
        for name, value in vars(module).items()
        if name.endswith("_CLOSE")
    }
    said = section("api.md", "WebSocket").split("Close codes:", 1)[1].split("\n\n", 1)[0]
    assert {int(code) for code in re.findall(r"\b[14]\d{3}\b", said)} == codes | {1000}


def test_the_page_of_the_api_lists_every_error_code_as_the_table_has_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", section("api.md", "Error codes"), re.M)
    assert rows == [(code, str(facts.status), facts.meaning) for code, facts in ERROR_CODES.items()]


def test_the_page_of_siliconflow_agrees_with_the_table_of_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGES["siliconflow.md"], re.M)
    assert len(rows) > 8
    assert all(ERROR_CODES[code].status == int(status) for code, status in rows)


def wrong_statuses(text: str) -> list[str]:
    """Every `STATUS `code`, `code`` of a text whose status is not that of the table of codes."""
    found = re.findall(r"\b([45]\d\d) (`\w+`(?:, `\w+`)*)", text)
    pairs = [(int(status), code) for status, codes in found for code in re.findall(r"`(\w+)`", codes)]
    return [
        f"{status} {code}" for status, code in pairs if code not in ERROR_CODES or ERROR_CODES[code].status != status
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_status_beside_a_code_is_that_of_the_table(path: Path) -> None:
    assert not wrong_statuses(path.read_text(encoding="utf-8"))
    assert wrong_statuses("503 `queue_full`, `photo_busy` and 403 `host_not_allowed`") == [
        "503 photo_busy",
        "403 host_not_allowed",
    ]


def unknown_messages(page: str, sources: str) -> list[str]:
    """What a table says in quotes that a user sees, and that no string of the code says; `...` stands for a value."""
    quoted = re.findall(r'"([^"]+)"', "\n".join(re.findall(r"^\| ([^|]*) \|", page, re.M)))
    return [text for text in quoted if not all(part.strip() in sources for part in text.split("..."))]


def test_the_messages_that_the_troubleshooting_page_quotes_are_said_by_the_code() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "app").rglob("*.py")))
    sources = re.sub(r'"\n\s*f?"', "", sources)  # a sentence over two lines
    page = PAGES["troubleshooting.md"]
    assert len(re.findall(r'"[^"]+"', page)) > 5
    assert not unknown_messages(page, sources)
    assert unknown_messages('| "port ... is on fire" | x |', sources) == ["port ... is on fire"]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings give."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_the_files_that_the_pages_name_exist() -> None:
    text = "\n".join([README, *PAGES.values(), (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")])
    named = set(re.findall(r"`((?:app|tests|static|weights)/[\w/.-]+)`", text))
    named |= set(re.findall(r"`(requirements[a-z-]*\.txt|\.env\.example)`", text)) - {"requirements-models.txt"}
    assert len(named) > 40
    missing = {name for name in named if not (ROOT / name).exists() and "NAME" not in name}
    assert not missing


def test_every_page_is_linked_from_the_index_and_the_readme_links_five() -> None:
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", PAGES["README.md"])) == set(PAGES) - {"README.md"}
    listed = README.split("\n## Documentation\n", 1)[1].split("\n\n", 1)[0]
    assert len(re.findall(r"\]\(docs/[\w-]+\.md\)", listed)) == MOST_README_PAGES


def test_the_architecture_names_every_room() -> None:
    rooms = {path.name for path in (ROOT / "app").iterdir() if path.name not in ("__init__.py", "__pycache__")}
    table = section("architecture.md", "Rooms")
    assert {room for room in rooms if f"`app/{room}" not in table} == set()


def names_in_the_code() -> set[str]:
    """Every module, folder, class, function, method and attribute of the app, and every module of the page."""
    files = [*(ROOT / "app").rglob("*"), *(ROOT / "static" / "js").glob("*.js")]
    names = {path.stem for path in files}
    for path in files:
        if path.suffix == ".py":
            source = path.read_text(encoding="utf-8")
            names |= set(re.findall(r"^\s*(?:async )?(?:class|def) (\w+)", source, re.M))
            names |= set(re.findall(r"^\s*(?:self\.)?(\w+)(?:: [^=\n]+)? = ", source, re.M))
    return names


def test_the_new_names_of_the_glossary_stand_in_the_code() -> None:
    rows = re.findall(r"^\| .* \| (.*) \|$", section("glossary.md", "Old names in the code"), re.M)
    new = [name.removesuffix(".py") for row in rows for name in re.findall(r"`([\w./]+)`", row)]
    parts = {part for name in new for part in re.split(r"[./]", name) if part}
    assert len(parts) > 60
    assert parts - names_in_the_code() - {"app"} == set()


def test_the_licence_is_apache_and_names_the_embedded_model_and_its_data() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert EMBEDDED.file in notice
    assert "BSDS500" in notice


def test_no_page_names_a_folder_of_somebodys_machine() -> None:
    for path in FILES:
        assert not re.search(r"(?<![\w.])/(work|root|home|Users)/", path.read_text(encoding="utf-8")), path.name

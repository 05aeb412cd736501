"""Who may import whom inside `app`, and the other rules of the house that a machine can read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "app"
MAX_LINES = 350
WORDS = {"errors", "error_codes", "options", "notices", "stages"}
ALLOWED: dict[str, set[str]] = {
    "error_codes": set(),
    "errors": {"error_codes"},
    "notices": set(),
    "stages": set(),
    "results": WORDS | {"images"},
    "options": {"errors"},
    "settings": WORDS,
    "metrics": WORDS,
    "threads": WORDS,
    "logs": WORDS,
    "images": WORDS,
    "storage": WORDS,
    "queue": WORDS,
    "events": WORDS,
    "store": WORDS | {"events"},
    "restoration": WORDS | {"images", "results"},
    "backends": WORDS | {"images", "restoration", "results"},
    "jobs": WORDS | {"images", "backends", "results", "queue", "store", "storage", "metrics", "threads"},
    "evaluation": WORDS | {"images", "restoration", "backends", "results"},
    "worker": WORDS | {"jobs", "queue", "store", "storage", "metrics", "threads"},
}
ROOMS = {path.stem for path in APP.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
ALLOWED["api"] = ROOMS - {"restoration", "backends", "evaluation", "main", "commands"}
ALLOWED["main"] = ROOMS - {"commands"}
ALLOWED["commands"] = ROOMS


def sources() -> list[Path]:
    return [path for path in sorted(APP.rglob("*.py")) if "__pycache__" not in path.parts]


def imported_modules(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Full names of all imports, wherever they stand (functions, TYPE_CHECKING), relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def breaches(source: str, path: Path) -> list[str]:
    """Imports of one file that the table forbids."""
    parts = path.relative_to(APP).with_suffix("").parts
    room = parts[0]
    package = ["app", *path.relative_to(APP).parent.parts]
    found = set()
    for module in imported_modules(ast.parse(source), package):
        names = module.split(".")
        if names[0] == "app" and len(names) > 1 and names[1] in ROOMS and names[1] != room:
            if names[1] not in ALLOWED[room]:
                found.add(f"{'/'.join(parts)} may not import app.{names[1]}")
    return sorted(found)


def test_every_room_stands_in_the_table() -> None:
    assert not ROOMS - set(ALLOWED), f"add to the table: {ROOMS - set(ALLOWED)}"


def test_rooms_import_only_what_the_table_allows() -> None:
    found = [line for path in sources() if path != APP / "__init__.py" for line in breaches(path.read_text(), path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "import app.store",
        "from app.store import Store",
        "from app import store",
        "def f():\n    from app.store.records import Job",
        "if TYPE_CHECKING:\n    from app import store",
        "from ..store import Store",
        "from .. import store",
    ],
)
def test_the_check_sees_every_way_to_import(line: str) -> None:
    assert breaches(line, APP / "restoration" / "pipeline.py") == ["restoration/pipeline may not import app.store"]


def test_nothing_imports_the_commands_but_run_py() -> None:
    outside = [path for path in sources() if "commands" not in path.parts]
    found = [
        path for path in outside for name in imported_modules(ast.parse(path.read_text()), []) if "app.commands" in name
    ]
    assert not found


def test_restoration_knows_neither_http_nor_sql_nor_settings() -> None:
    forbidden = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "pydantic_settings", "rich"}
    for room in ("restoration", "images", "backends"):
        for path in sorted((APP / room).rglob("*.py")):
            used = {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text()), [])}
            assert not used & forbidden, f"{room}/{path.name} imports {used & forbidden}"


def test_the_pictures_room_and_the_light_commands_start_without_torch() -> None:
    light = [
        *sorted((APP / "images").rglob("*.py")),
        *(APP / "commands" / f"{n}.py" for n in ("bootstrap", "dispatch")),
    ]
    for path in light:
        used = {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text()), [])}
        assert "torch" not in used, path.name


def test_there_are_no_import_cycles_between_rooms() -> None:
    edges: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in sources():
        room = path.relative_to(APP).with_suffix("").parts[0]
        if room == "__init__":
            continue
        package = ["app", *path.relative_to(APP).parent.parts]
        names = [name.split(".") for name in imported_modules(ast.parse(path.read_text()), package)]
        edges[room] |= {n[1] for n in names if n[0] == "app" and len(n) > 1 and n[1] in ROOMS and n[1] != room}
    while edges:
        leaves = {room for room, uses in edges.items() if not uses & set(edges)}
        assert leaves, f"a cycle among {sorted(edges)}"
        edges = {room: uses for room, uses in edges.items() if room not in leaves}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(APP)))
def test_a_module_says_what_it_does_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES, "split it by noun"
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(text)), "no docstring"


def calls(tree: ast.AST, owner: str, name: str) -> list[ast.Call]:
    """Calls of `owner.name(...)`."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == owner
    ]


def open_pictures_carelessly(source: str) -> bool:
    """Whether a picture is opened with every plugin there is, or from a path by OpenCV."""
    tree = ast.parse(source)
    bare = [call for call in calls(tree, "Image", "open") if "formats" not in {word.arg for word in call.keywords}]
    return bool(bare or calls(tree, "cv2", "imread"))


def test_pictures_are_opened_with_named_formats_only() -> None:
    careless = [str(path.relative_to(APP)) for path in sources() if open_pictures_carelessly(path.read_text())]
    assert not careless
    assert open_pictures_carelessly("Image.open(path)")
    assert open_pictures_carelessly("cv2.imread(name)")
    assert not open_pictures_carelessly("Image.open(path, formats=['PNG'])")


def test_networks_load_without_arbitrary_pickles() -> None:
    loads = [(path, call) for path in sources() for call in calls(ast.parse(path.read_text()), "torch", "load")]
    careless = [
        str(path.relative_to(APP))
        for path, call in loads
        if not any(w.arg == "weights_only" and getattr(w.value, "value", None) is True for w in call.keywords)
    ]
    assert not careless

"""The borders of the house that a machine can read from the source: who may import whom, and what tests may touch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "app"
GROUND = {
    "errors",
    "memory_limit",
    "error_codes",
    "options",
    "notices",
    "stages",
    "atomic_files",
    "exit_codes",
    "result_names",
    "process_names",
    "time_estimate",
    "health_reasons",
}
ALLOWED: dict[str, set[str]] = {
    "error_codes": set(),
    "errors": {"error_codes"},
    "notices": set(),
    "health_reasons": {"notices"},
    "stages": set(),
    "atomic_files": set(),
    "exit_codes": set(),
    "memory_limit": set(),
    "result_names": set(),
    "process_names": set(),
    "options": {"errors"},
    "setting_values": set(),
    "presets": {"errors", "options"},
    "time_estimate": {"errors", "options", "stages"},
    "siliconflow_settings": {"setting_values"},
    "settings": GROUND | {"setting_values", "siliconflow_settings"},
    "metrics": GROUND,
    "threads": {"errors"},
    "logs": GROUND,
    "clamd": GROUND,
    "images": GROUND,
    "results": GROUND | {"images"},
    "storage": GROUND,
    "queue": GROUND,
    "events": GROUND | {"threads"},
    "outbound": GROUND,
    "tracing": GROUND,
    "store": GROUND | {"events"},
    "restoration": GROUND | {"images", "results"},
    "backends": GROUND | {"images", "restoration", "results", "outbound"},
    "model_downloads": GROUND | {"restoration"},
    "jobs": GROUND
    | {"images", "backends", "results", "queue", "store", "storage", "metrics", "threads", "logs", "tracing"},
    "evaluation": GROUND | {"images", "restoration", "backends", "results"},
    "webhooks": GROUND | {"outbound", "store", "metrics", "threads", "logs"},
    "worker": GROUND | {"jobs", "queue", "store", "storage", "metrics", "threads", "logs"},
}
ROOMS = {path.stem for path in APP.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
ALLOWED["api"] = ROOMS - {"restoration", "backends", "evaluation", "main", "commands", "settings"}
ALLOWED["main"] = ROOMS - {"commands"}
ALLOWED["commands"] = ROOMS
# Settings are built and read at the entrances only; everything else gets plain values.
SETTINGS_READERS = {"settings", "main", "commands"}


def sources(folder: Path = APP) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


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


def package_of(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).parent.parts)


def breaches(source: str, path: Path) -> list[str]:
    """Imports of one file that the table of rooms forbids."""
    parts = path.relative_to(APP).with_suffix("").parts
    room = parts[0]
    found = set()
    for module in imported_modules(ast.parse(source), package_of(path)):
        names = module.split(".")
        if names[0] == "app" and len(names) > 1 and names[1] in ROOMS and names[1] != room:
            if names[1] not in ALLOWED[room]:
                found.add(f"{'/'.join(parts)} may not import app.{names[1]}")
    return sorted(found)


# Rooms.


def test_every_room_stands_in_the_table() -> None:
    assert not ROOMS - set(ALLOWED), f"add to the table: {ROOMS - set(ALLOWED)}"
    assert not set(ALLOWED) - ROOMS, f"take out of the table: {set(ALLOWED) - ROOMS}"


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


def test_settings_are_read_at_the_entrances_only() -> None:
    readers = {room for room, uses in ALLOWED.items() if "settings" in uses} | {"settings"}
    assert readers == SETTINGS_READERS


def test_nothing_imports_the_commands_but_run_py() -> None:
    outside = [path for path in sources() if "commands" not in path.parts]
    found = [
        path for path in outside for name in imported_modules(ast.parse(path.read_text()), []) if "app.commands" in name
    ]
    assert not found


def used_packages(folder: Path) -> dict[str, set[str]]:
    """Top-level names that each file of a folder imports."""
    return {
        str(path.relative_to(APP)): {
            name.split(".")[0] for name in imported_modules(ast.parse(path.read_text()), package_of(path))
        }
        for path in sources(folder)
    }


WEB_AND_SQL = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "pydantic_settings", "rich"}
PICTURES = {"PIL", "cv2", "tifffile", "numpy", "torch"}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("restoration", WEB_AND_SQL),
        ("images", WEB_AND_SQL | {"torch"}),
        ("backends", WEB_AND_SQL),
        ("store", (WEB_AND_SQL | PICTURES) - {"sqlalchemy"}),
        ("storage", WEB_AND_SQL | PICTURES),
        ("queue", WEB_AND_SQL | PICTURES),
        ("events", WEB_AND_SQL | PICTURES),
        ("outbound", WEB_AND_SQL | PICTURES),
        ("tracing", WEB_AND_SQL | PICTURES),
        ("webhooks", WEB_AND_SQL | PICTURES),
        ("jobs", WEB_AND_SQL | PICTURES),
        ("worker", WEB_AND_SQL | PICTURES),
        ("api", {"torch", "sqlalchemy", "cv2", "tifffile", "PIL"}),
    ],
)
def test_a_room_knows_no_packages_of_other_rooms(room: str, forbidden: set[str]) -> None:
    found = {path: used & forbidden for path, used in used_packages(APP / room).items() if used & forbidden}
    assert not found


def test_the_light_commands_start_without_torch() -> None:
    for name in ("bootstrap", "dispatch"):
        used = {n.split(".")[0] for n in imported_modules(ast.parse((APP / "commands" / f"{name}.py").read_text()), [])}
        assert "torch" not in used, name


# Circles.


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(files: Mapping[str, tuple[str, list[str]]]) -> dict[str, set[str]]:
    """Which module imports which, of `{module: (source, package)}`; a package's own members are not its importers."""
    graph: dict[str, set[str]] = {}
    for name, (source, package) in files.items():
        used = set()
        for target in imported_modules(ast.parse(source), package):
            module = target if target in files else target.rpartition(".")[0]
            if module in files and module != name:
                used.add(module)
        # Importing a.b.c runs a and a.b first, but a package that re-exports its members is no circle by itself.
        graph[name] = {module for module in used if not name.startswith(f"{module}.")}
    return graph


def circles(graph: Mapping[str, set[str]]) -> set[str]:
    """Modules that stand in a circle, or lead into nothing but one."""
    left = {name: set(uses) for name, uses in graph.items()}
    while True:
        leaves = {name for name, uses in left.items() if not uses & set(left)}
        if not leaves:
            return _without_importers(left)
        left = {name: uses for name, uses in left.items() if name not in leaves}


def _without_importers(left: dict[str, set[str]]) -> set[str]:
    """Drop the modules that only import a circle and are in none."""
    while True:
        imported = {used for uses in left.values() for used in uses if used in left}
        kept = {name: uses for name, uses in left.items() if name in imported}
        if len(kept) == len(left):
            return set(left)
        left = kept


@pytest.mark.parametrize("folder", ["app", "benchmarks", "training"])
def test_no_module_imports_another_in_a_circle(folder: str) -> None:
    files = {module_name(path): (path.read_text(), package_of(path)) for path in sources(ROOT / folder)}
    assert not circles(import_graph(files))


def test_the_check_of_circles_sees_deferred_imports_and_passes_a_plain_chain() -> None:
    chain = {"p.a": ("from p import b", ["p"]), "p.b": ("import p.c", ["p"]), "p.c": ("", ["p"])}
    assert not circles(import_graph(chain))
    closed = chain | {"p.c": ("def f():\n    from p.a import x", ["p"])}
    assert circles(import_graph(closed)) == {"p.a", "p.b", "p.c"}
    outside = closed | {"p.d": ("from p import a", ["p"])}
    assert circles(import_graph(outside)) == {"p.a", "p.b", "p.c"}


def test_there_are_no_import_circles_between_rooms() -> None:
    edges: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in sources():
        room = path.relative_to(APP).with_suffix("").parts[0]
        if room != "__init__":
            names = [name.split(".") for name in imported_modules(ast.parse(path.read_text()), package_of(path))]
            edges[room] |= {n[1] for n in names if n[0] == "app" and len(n) > 1 and n[1] in ROOMS and n[1] != room}
    assert not circles(edges)


# What opens colour profiles.

PROFILE_READERS = ("PIL.ImageCms", "PIL._imagingcms", "lcms")
CHILD = "app.images.child"


def profile_openers(files: Mapping[str, tuple[str, list[str]]]) -> set[str]:
    """Modules whose text opens colour profiles (lcms, also by way of libvips), and whatever leads to one."""
    graph = import_graph(files)
    found = {
        name
        for name, (source, package) in files.items()
        if "icc_transform" in source
        or any(module.startswith(PROFILE_READERS) for module in imported_modules(ast.parse(source), package))
    }
    while more := {name for name, uses in graph.items() if uses & found} - found:
        found |= more
    return found


def app_files() -> dict[str, tuple[str, list[str]]]:
    return {module_name(path): (path.read_text(), package_of(path)) for path in sources()}


def test_only_the_decoders_child_opens_colour_profiles() -> None:
    """A profile is what somebody sent: lcms sees it in the confined process only, which nothing imports."""
    files = app_files()
    openers = profile_openers(files)
    assert {"app.images.icc", "app.images.colour", "app.images.pyramid_writing", CHILD} <= openers
    graph = import_graph(files)
    assert {name for name in openers if not any(name in uses for uses in graph.values())} == {CHILD}


@pytest.mark.parametrize(
    "line",
    ["from app.images import colour", "from app.images.icc import judge", "def f():\n    from PIL import ImageCms"],
)
def test_the_check_sees_a_profile_opened_elsewhere(line: str) -> None:
    files = app_files()
    for name in ("app.images.encoding", "app.jobs.runner"):
        source, package = files[name]
        openers = profile_openers(files | {name: (f"{source}\n{line}\n", package)})
        assert {name, "app.main.service", "app.commands.serve"} <= openers


# What tests may touch.

# Private names that tests import all the same, each with its reason.
PRIVATE_IMPORTS = {
    "app.images.child._answer": "a hostile child is played by calling it with broken requests",
    "app.main.serving._listening": "the socket before a server listens on it",
    "app.main.serving._server": "the server's own settings, without a process",
}
MOST_PRIVATE_TOUCHES = 51
# A contract suite sees the protocol and the constructors of its implementations, nothing else of the room.
CONTRACT_IMPORTS = {
    "test_storage_contract": {"app.errors", "app.storage"},
    "test_queue_contract": {"app.queue"},
    "test_store_contract": {"app.errors", "app.events", "app.notices", "app.stages", "app.storage", "app.store"},
    "test_events_contract": {"app.events"},
    "test_engine_contract": {"app.errors", "app.restoration"},
}
# Suites of the HTTP surface talk HTTP; rows and files behind it they reach through the running service only.
HTTP_SUITES = ("test_jobs_api", "test_photos_api", "test_faces_api", "test_system_api", "test_live", "test_upload")
HTTP_MAY_NOT_IMPORT = {"app.store.", "app.storage.disk", "app.restoration", "app.backends.local"}


def private_imports(source: str) -> set[str]:
    """Names with a leading underscore that are imported from the app."""
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("app")
        for alias in node.names
        if alias.name.startswith("_")
    }


def test_tests_import_no_private_names_but_the_listed_ones() -> None:
    found = {name for path in sources(ROOT / "tests") for name in private_imports(path.read_text())}
    assert found == set(PRIVATE_IMPORTS)
    assert private_imports("from app.store.sqlite import _translate_error, SAFE_SQLITE") == {
        "app.store.sqlite._translate_error"
    }


def private_touches(source: str) -> int:
    """How often a private attribute of something else than `self` is read or set."""
    return sum(
        isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os", "sys", "row"))
        for node in ast.walk(ast.parse(source))
    )


def test_tests_touch_few_private_attributes() -> None:
    """A ratchet: the number may only go down. Most of what is left plays faults that no public way can cause."""
    found = sum(private_touches(path.read_text()) for path in sources(ROOT / "tests"))
    assert found <= MOST_PRIVATE_TOUCHES
    assert private_touches("a._b\na.c._d = 1\nself._e") == 2


def contract_breaches(source: str, allowed: set[str]) -> set[str]:
    """Modules of the app that a contract suite imports beyond what it may."""
    names = {
        node.module or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("app")
    }
    return {name for name in names if name not in allowed and not any(name.startswith(f"{one}.") for one in allowed)}


@pytest.mark.parametrize("suite", sorted(CONTRACT_IMPORTS))
def test_a_contract_suite_knows_only_the_protocol_and_its_implementations(suite: str) -> None:
    source = (ROOT / "tests" / f"{suite}.py").read_text()
    assert not contract_breaches(source, CONTRACT_IMPORTS[suite])
    assert "IMPLEMENTATIONS" in source
    assert contract_breaches(source + "\nfrom app.worker import Worker", CONTRACT_IMPORTS[suite]) == {"app.worker"}


def http_breaches(source: str) -> set[str]:
    names = set(imported_modules(ast.parse(source), ["tests"]))
    return {name for name in names if any(name.startswith(word) for word in HTTP_MAY_NOT_IMPORT)} - {
        f"app.store.{name}" for name in ("Attempt", "AttemptStatus", "Job", "NewPhoto", "SqlStore", "Store")
    }


@pytest.mark.parametrize("suite", HTTP_SUITES)
def test_an_http_suite_does_not_reach_behind_the_service(suite: str) -> None:
    assert not http_breaches((ROOT / "tests" / f"{suite}.py").read_text())
    assert http_breaches("from app.store.queries import count") == {"app.store.queries", "app.store.queries.count"}


def test_the_supervisor_loads_nothing_of_the_service() -> None:
    """It stays beside the service for as long as that runs, and the user waits for both to be loaded."""
    heavy = ("app.main", "app.api", "fastapi", "sqlalchemy", "numpy", "PIL", "torch")
    code = f"import sys; import app.commands.serve; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""Rules for every module of the app that a machine can read: size, docstrings, annotations, and careful loading."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.test_imports import APP, ROOT, imported_modules, package_of, sources

MAX_LINES = 350
SMALL_LINES = 30
MAX_FUNCTION_LINES = 50
ARRAYS = {"NDArray", "Tensor"}  # and every alias of them in the app
SHAPES = (
    *("(H", "(h", "(N", "(n", "(C", "(rows", "(1,", "(2,", "(4,", "(5,", "(P", "(512", "(width"),
    *("uint8", "uint16", "fp32", "float32", "float64", "state dict", "tensors of"),
)
# The function that pickles could hide in, by module and name.
PICKLES = {
    "torch": {"load", "jit"},
    "pickle": {"load", "loads", "Unpickler"},
    "joblib": {"load"},
    "dill": {"load", "loads"},
    "marshal": {"load", "loads"},
}
WEIGHT_READERS = {"restoration/models/tensor_files.py"}  # tensors only, after verification
RESTRICTED_LOAD = 'torch.load(path, map_location="cpu", weights_only=True)'  # allowed there, and only so

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def top_level(tree: ast.Module) -> Iterator[Function]:
    """Functions of the module and methods of its classes, closures left out."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(APP)))
def test_a_module_says_what_it_does_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES, "split it by noun"
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(text)), "no docstring"


def crumbs(files: Mapping[str, tuple[str, list[str]]]) -> list[str]:
    """Short modules that at most one other imports, of `{module: (source, package)}`."""
    users: dict[str, set[str]] = {}
    for user, (source, package) in files.items():
        for name in set(imported_modules(ast.parse(source), package)) - {user}:
            users.setdefault(name, set()).add(user)
    short = [name for name, (source, _) in files.items() if source.count("\n") < SMALL_LINES]
    return [name for name in short if len(users.get(name, ())) < 2]


def test_a_small_file_has_more_than_one_user() -> None:
    paths = [*sources(), ROOT / "run.py", ROOT / "evaluate.py", ROOT / "modal_app.py"]
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): (path.read_text(), package_of(path)) for path in paths
    }
    entrances = {"run", "evaluate"}
    found = [name for name in crumbs(files) if name.split(".")[-1] not in {"__init__", "__main__"} | entrances]
    assert not found, f"move them to their only user: {found}"
    long = "pass\n" * SMALL_LINES
    pair = {"p.a": (f"{long}from p import c", ["p"]), "p.b": (long, ["p"]), "p.c": ("", ["p"])}
    assert crumbs(pair) == ["p.c"]
    assert not crumbs(pair | {"p.b": (f"def f():\n    from .c import x\n{long}", ["p"])})


def long_functions(source: str) -> list[str]:
    """Functions over the limit without a comment above them (or their decorators) that gives the reason."""
    lines = source.splitlines()
    found = []
    for node in functions(ast.parse(source)):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        explained = first >= 2 and lines[first - 2].lstrip().startswith("#")
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES and not explained:
            found.append(node.name)
    return found


def test_a_long_function_gives_its_reason() -> None:
    found = [f"{path.name}:{name}" for path in sources() for name in long_functions(path.read_text())]
    assert not found
    body = "\n".join("    pass" for _ in range(MAX_FUNCTION_LINES))
    assert long_functions(f"def f():\n{body}") == ["f"]
    assert not long_functions(f"# One list, read in one place.\ndef f():\n{body}")


def without_annotations(source: str) -> list[str]:
    """Functions, closures too, whose result or any argument but `self` and `cls` has no annotation."""
    found = []
    for node in functions(ast.parse(source)):
        own = node.args
        given = (*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg)))
        bare = [one for one in given if one.annotation is None and one.arg not in ("self", "cls")]
        if bare or node.returns is None:
            found.append(node.name)
    return found


def test_every_function_is_annotated() -> None:
    found = [f"{path.relative_to(APP)}:{name}" for path in sources() for name in without_annotations(path.read_text())]
    assert not found
    for source in ("def f(): ...", "def f(x) -> None: ...", "def f(*x) -> None: ...", "def f(*, x) -> None: ..."):
        assert without_annotations(source) == ["f"], source
    assert not without_annotations("class A:\n    def f(self, x: int) -> None: ...")


def without_docstrings(source: str) -> list[str]:
    """Public functions and methods that do not say what they do."""
    public = [node for node in top_level(ast.parse(source)) if not node.name.startswith("_")]
    return [node.name for node in public if not ast.get_docstring(node)]


def test_public_functions_have_docstrings() -> None:
    found = [f"{path.relative_to(APP)}:{name}" for path in sources() for name in without_docstrings(path.read_text())]
    assert not found
    assert without_docstrings("class A:\n    def f(self): ...\n    def _g(self): ...") == ["f"]


@functools.cache
def array_types() -> re.Pattern[str]:
    """Matches every name of a type of arrays in the app, such as `Pixels = NDArray[...]`."""
    lines = "\n".join(path.read_text() for path in sources())
    aliases = set(re.findall(r"(?m)^(\w+) = NDArray", lines))
    return re.compile(rf"\b({'|'.join(sorted(ARRAYS | aliases))})\b")


def undocumented_arrays(source: str) -> list[str]:
    """Public functions that take or give arrays, and whose docstring names neither a shape nor a dtype."""
    found = []
    for node in top_level(ast.parse(source)):
        annotations = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
        words = " ".join(ast.unparse(annotation) for annotation in annotations if annotation is not None)
        text = ast.get_docstring(node) or ""
        has_array = array_types().search(words) is not None
        refers = text.startswith("See `")  # to the protocol, which says it
        is_public = not node.name.startswith("_") or node.name == "__call__"
        if is_public and has_array and not refers and not any(shape in text for shape in SHAPES):
            found.append(node.name)
    return found


@pytest.mark.parametrize("room", ["images", "restoration"])
def test_functions_on_arrays_name_shapes_or_dtypes(room: str) -> None:
    found = [
        f"{path.relative_to(APP)}:{name}"
        for path in sources(APP / room)
        for name in undocumented_arrays(path.read_text())
    ]
    assert not found
    assert undocumented_arrays('def f(x: Pixels) -> None:\n    """Turn it."""') == ["f"]
    assert undocumented_arrays('def f(x: Tensor) -> Tensor:\n    """Turn it."""') == ["f"]
    assert undocumented_arrays("class N:\n    def __call__(self, x: Tensor) -> Tensor: ...") == ["__call__"]
    assert not undocumented_arrays('def f(x: Tensor) -> Tensor:\n    """(N, 3, H, W) to the same."""')


DEVICE_MODULES = {"restoration/device.py", "restoration/device_errors.py", "restoration/device_memory.py"}


def test_only_the_device_modules_ask_what_kind_of_device_there_is() -> None:
    asking = {path.relative_to(APP).as_posix() for path in sources() if asks_device_kind(path.read_text())}
    # The start reads the setting DEVICE before torch is there.
    assert asking == DEVICE_MODULES | {"commands/torch_build.py"}
    for source in (
        "if device == 'cpu': pass",
        "if 'cuda:0' != device: pass",
        "if torch.device(device).type in ('cpu', 'mps'): pass",
        "if device.startswith('cuda'): pass",
        "if tensor.is_cuda: pass",
        "match device:\n    case 'cuda': pass",
        "{'cpu': 1, 'cuda': 4}[device]",
    ):
        assert asks_device_kind(source), source
    assert not asks_device_kind("torch.zeros(1, device='cpu')\ndevice = 'cuda'\nif device == other: pass")


def asks_device_kind(source: str) -> bool:
    """Whether code branches on the kind of a device: comparing, matching or looking up its name."""
    return any(_asks_device_kind(node) for node in ast.walk(ast.parse(source)))


def _asks_device_kind(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        return names_device(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("startswith", "endswith", "partition") and any(map(names_device, node.args))
    if isinstance(node, ast.Dict):
        return any(key is not None and names_device(key) for key in node.keys)
    if isinstance(node, ast.Attribute):
        return node.attr in ("is_cuda", "is_cpu")
    return isinstance(node, ast.MatchValue) and names_device(node)


def names_device(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Constant) and str(part.value).partition(":")[0] in ("cpu", "cuda")
        for part in ast.walk(node)
    )


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


def opens_pictures_carelessly(source: str) -> bool:
    """Whether a picture is opened with every plugin there is, or from a path by OpenCV."""
    tree = ast.parse(source)
    bare = [call for call in calls(tree, "Image", "open") if "formats" not in {word.arg for word in call.keywords}]
    return bool(bare or calls(tree, "cv2", "imread"))


def test_pictures_are_opened_with_named_formats_only() -> None:
    careless = [str(path.relative_to(APP)) for path in sources() if opens_pictures_carelessly(path.read_text())]
    assert not careless
    assert opens_pictures_carelessly("Image.open(path)")
    assert opens_pictures_carelessly("cv2.imread(name)")
    assert not opens_pictures_carelessly("Image.open(path, formats=['PNG'])")


# Where tests let real time pass. A sleep never proves that nothing happens, and `until` waits for what will.
SLEEPS = {
    "browser:_process": "looks whether the process still lives while it waits for it",
    "browser:forget_jobs": "asks a service again and again to remove what ends",
    "fault_changes:restore": "a slow backend",
    "fault_changes:change": "a client that tries again",
    "fault_changes:_change_one": "a client that tries again",
    "fault_http:serve_http": "a slow backend",
    "fault_http:load": "a client that tries again",
    "fault_http:_submit": "a client that tries again",
    "fault_service:serve": "a slow backend, and a process that ends with its work",
    "fault_service:_submit_for_ever": "a client that tries again",
    "s3_servers:_wait": "waits for what another process does",
    "s3_servers:wait_until_it_takes": "waits for what another process does",
    "harness:until": "waits for what another thread or process does",
    "lanczos_server:slowly": "a slow backend",
    "test_docs_examples:running": "looks whether the process still lives while it waits for it",
    "test_guard:receive": "a slow client",
    "test_live:send_text": "a slow client",
    "test_run:test_ctrl_c_stops_within_a_tile_and_leaves_no_half_file": "the signal comes in the middle of a photo",
    "test_serving:test_a_connection_is_kept_for_several_requests": "a client idle for longer than a head may take",
    "test_serving:test_a_second_sigterm_ends_it_at_once_and_the_photo_waits_again": "signals one after another",
    "test_siliconflow_service:paint": "a slow provider",
    "test_worker:slow": "a slow backend",
}


def sleeping(source: str) -> set[str]:
    """Names of the innermost functions that call a `sleep`."""
    found = set()
    for node in functions(ast.parse(source)):
        inner = {call for other in functions(node) if other is not node for call in ast.walk(other)}
        own = [call for module in ("time", "asyncio") for call in calls(node, module, "sleep") if call not in inner]
        if own:
            found.add(node.name)
    return found


def test_tests_sleep_only_where_the_reason_is_listed() -> None:
    tests = sources(ROOT / "tests")
    assert {f"{path.stem}:{name}" for path in tests for name in sleeping(path.read_text())} == set(SLEEPS)
    assert sleeping("def f():\n    def g():\n        time.sleep(1)\n    g()") == {"g"}
    assert sleeping("async def f():\n    await asyncio.sleep(0.1)") == {"f"}


def unpickles(source: str) -> bool:
    """Whether anything is called, or imported by name, that may run code from a file."""
    return any(_unpickles(node) for node in ast.walk(ast.parse(source)))


def _unpickles(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr in PICKLES.get(node.value.id, set())
    if isinstance(node, ast.ImportFrom):
        return bool({alias.name for alias in node.names} & PICKLES.get(node.module or "", set()))
    return (
        isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True) is not False
    )


def reads_weights(source: str) -> bool:
    """Whether a weight file is opened by spandrel or safetensors."""
    return "load_state_dict_from_file" in source or "safetensors.torch" in source or "safe_open" in source


def test_networks_load_without_arbitrary_pickles() -> None:
    texts = {path.relative_to(APP).as_posix(): path.read_text() for path in sources()}
    for reader in WEIGHT_READERS:
        assert texts[reader].count(RESTRICTED_LOAD) == 1
        texts[reader] = texts[reader].replace(RESTRICTED_LOAD, "None")
    assert not [name for name, text in texts.items() if unpickles(text)]
    readers = {path.relative_to(APP).as_posix() for path in sources() if reads_weights(path.read_text())}
    assert readers == WEIGHT_READERS
    for source in (
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "torch.jit.load(path)",
        "from torch import load",
        "pickle.loads(data)",
        "from pickle import Unpickler",
        "np.load(path, allow_pickle=True)",
        "joblib.load(path)",
    ):
        assert unpickles(source), source
    assert not unpickles("np.load(path, allow_pickle=False)\njson.load(file)")

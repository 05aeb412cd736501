"""Rules for every module of the app that a machine can read: size, docstrings, annotations, and careful loading."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import APP, ROOT, imported_modules, package_of, sources

MAX_LINES = 350
SMALL_LINES = 30
MAX_FUNCTION_LINES = 50
LEAST_SHARE_WITH_DOCSTRING = 0.95
ARRAYS = ("NDArray", "Tensor", "Pixels", "Mask", "Rgb", "Matrix")
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
WEIGHT_READERS = {"restoration/models/registry.py"}  # through spandrel's restricted unpickler, after verification

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


def test_a_small_file_has_more_than_one_user() -> None:
    graph: dict[str, set[str]] = {}
    for path in [*sources(), ROOT / "run.py", ROOT / "evaluate.py"]:
        for name in imported_modules(ast.parse(path.read_text()), package_of(path)):
            graph.setdefault(name, set()).add(str(path))
    small = [
        path
        for path in sources()
        if path.name not in ("__init__.py", "__main__.py") and path.read_text().count("\n") < SMALL_LINES
    ]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in small}
    crumbs = [name for path, name in names.items() if len(graph.get(name, set()) - {str(path)}) < 2]
    assert not crumbs, f"move them to their only user: {crumbs}"


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


def test_every_function_is_annotated() -> None:
    bare = [
        f"{path.relative_to(APP)}:{node.name}"
        for path in sources()
        for node in functions(ast.parse(path.read_text()))
        if node.returns is None
    ]
    assert not bare


def test_public_functions_have_docstrings() -> None:
    public = [
        node for path in sources() for node in functions(ast.parse(path.read_text())) if not node.name.startswith("_")
    ]
    share = sum(ast.get_docstring(node) is not None for node in public) / len(public)
    assert share >= LEAST_SHARE_WITH_DOCSTRING


def undocumented_arrays(source: str) -> list[str]:
    """Public functions that take or give arrays, and whose docstring names neither a shape nor a dtype."""
    found = []
    for node in top_level(ast.parse(source)):
        annotations = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
        words = " ".join(ast.unparse(annotation) for annotation in annotations if annotation is not None)
        text = ast.get_docstring(node) or ""
        has_array = any(word in words.replace("Callable", "") for word in ARRAYS)
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
    assert undocumented_arrays('def f(x: Tensor) -> Tensor:\n    """Turn it."""') == ["f"]
    assert undocumented_arrays("class N:\n    def __call__(self, x: Tensor) -> Tensor: ...") == ["__call__"]
    assert not undocumented_arrays('def f(x: Tensor) -> Tensor:\n    """(N, 3, H, W) to the same."""')


def test_only_the_device_module_asks_what_kind_of_device_there_is() -> None:
    asking = {path.relative_to(APP).as_posix() for path in sources() if asks_device_kind(path.read_text())}
    # The start reads the setting DEVICE before torch is there.
    assert asking == {"restoration/device.py", "commands/torch_build.py"}
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
    assert not [str(path.relative_to(APP)) for path in sources() if unpickles(path.read_text())]
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

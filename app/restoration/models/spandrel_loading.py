"""Imports spandrel without the compiler that torchvision would drag in.

spandrel imports torchvision for two architectures that we do not use; torchvision 0.29 imports `torch._dynamo` for one
function of one operator; and that takes as long as torch itself (3 of 10 seconds from start to ready) and 100 MB. So
while spandrel is imported a stand-in answers for that function; it hands over to the real module when it is called.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

_PACKAGE, _MODULE = "torch._dynamo", "torch._dynamo.utils"


def import_spandrel() -> Any:
    """The spandrel package, as `import spandrel` gives it."""
    if "spandrel" not in sys.modules and _PACKAGE not in sys.modules and "torchvision" not in sys.modules:
        with contextlib.suppress(ImportError, AttributeError), _compiler_deferred():
            return importlib.import_module("spandrel")
    return importlib.import_module("spandrel")


def _is_compile_supported(device_type: Any) -> Any:
    return importlib.import_module(_MODULE).is_compile_supported(device_type)


@contextlib.contextmanager
def _compiler_deferred() -> Iterator[None]:
    """Stand-ins for `torch._dynamo` and its `utils`, gone at the end, so that a later import gets the real ones."""
    import torch

    package, module = types.ModuleType(_PACKAGE), types.ModuleType(_MODULE)
    package.__path__ = []
    package.utils = module  # type: ignore[attr-defined]
    module.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules[_PACKAGE], sys.modules[_MODULE] = package, module
    try:
        yield
    finally:
        del sys.modules[_PACKAGE], sys.modules[_MODULE]
        if torch.__dict__.get("_dynamo") is package:
            del torch.__dict__["_dynamo"]

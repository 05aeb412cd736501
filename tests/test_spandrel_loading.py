"""spandrel is imported without torch's compiler, and the compiler is whole when somebody wants it."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys, torch
from app.restoration.models.spandrel_loading import import_spandrel
spandrel = import_spandrel()
assert "torch._dynamo" not in sys.modules and "sympy" not in sys.modules, "the compiler came along"
assert len(list(spandrel.MAIN_REGISTRY)) > 20
import torchvision
box = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
assert torchvision.ops.roi_align(torch.rand(1, 3, 8, 8), box, 2).shape == (1, 3, 2, 2)
from torch._dynamo.utils import is_compile_supported
assert is_compile_supported("cpu") in (True, False)
assert torch._dynamo.__file__, "the stand-in stayed"
"""


def test_the_compiler_stays_out_and_is_whole_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

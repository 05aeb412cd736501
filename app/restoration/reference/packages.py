"""Whether upstream's packages can be imported here, and the one shim that they need on today's torchvision."""

from __future__ import annotations

import sys
import types

MISSING = "The packages realesrgan and basicsr are not installed (they need Python 3.11 or 3.12); use ENGINE=fast."


def add_shim() -> None:
    """Give basicsr `torchvision.transforms.functional_tensor`, which left torchvision in 0.17 (BasicSR #649)."""
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules:
        return
    from torchvision.transforms import functional

    shim = types.ModuleType(name)
    shim.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules[name] = shim


def is_available() -> bool:
    """Whether upstream's packages can be imported here."""
    try:
        add_shim()
        import realesrgan  # noqa: F401
    except Exception:  # noqa: BLE001 - old packages fail in many ways on new Pythons
        return False
    return True

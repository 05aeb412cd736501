"""Tensors in and out of files, and nothing but tensors: no file runs code, whatever its container.

Archives that hold more than tensors are refused before torch sees them, pickles go through torch's restricted
unpickler (`weights_only`), safetensors hold no code at all.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from app import atomic_files
from app.errors import Unavailable
from app.restoration.models import weights

log = logging.getLogger(__name__)

# What `torch.save` writes, in all versions of its format. A program needs more: `constants.pkl`, formerly `model.json`.
_TENSOR_RECORD = re.compile(
    r"data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
)
_WRAPPERS = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
_PREFIXES = ("module.", "netG.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file on the CPU, as stored, by the names that a network gives them.

    Raises:
        Unavailable: `weights_unreadable` for an archive that holds more than tensors. Exception: any of torch's or
            safetensors' own for a file that is none of theirs, or that wants to run something.
    """
    if path.suffix == ".safetensors":
        return _unwrapped(load_file(path))
    _refuse_code(path)
    return _unwrapped(torch.load(path, map_location="cpu", weights_only=True))


def convert(path: Path) -> Path:
    """Write what a `.pth` or `.pt` holds as safetensors beside it, with the hash of its source; gives the new path.

    The same exceptions as `read_tensors`; `OSError` when it cannot be written.
    """
    state = {name: tensor.contiguous().clone() for name, tensor in read_tensors(path).items()}
    data = weights.tensor_data(save(state))
    marks = {"source_sha256": weights.sha256(path), "data_sha256": hashlib.sha256(data).hexdigest()}
    target = path.with_suffix(".safetensors")
    with atomic_files.part_beside(target) as part:
        part.write_bytes(save(state, {"format": "pt", "source": path.name, **marks}))
        atomic_files.publish(part, target)
    return target


def _refuse_code(path: Path) -> None:
    """Refuse an archive that holds anything but tensors, before torch loads it: TorchScript runs while it is loaded.

    Raises `Unavailable` `weights_unreadable`.
    """
    # Torch's own reader: another one could find other members (names in any case, a second directory of members).
    try:
        archive = torch._C.PyTorchFileReader(str(path))
    except RuntimeError:
        return  # no archive, for `torch.jit.load` neither
    try:
        foreign = [name for name in archive.get_all_records() if not _TENSOR_RECORD.fullmatch(name)]
    except RuntimeError:
        foreign = ["members outside of its folder"]
    if foreign:
        log.warning("refused %s, it holds %s", path.name, ", ".join(sorted(foreign)[:5]))
        raise Unavailable(
            "weights_unreadable",
            f"{path.name} is a TorchScript archive or another that holds more than tensors, which could run a program; "
            "remove it and use a file of tensors only.",
        )


def _unwrapped(state: Any) -> dict[str, Tensor]:
    """The state dict itself, out of what training scripts put around it. Raises `ValueError` for anything else."""
    if isinstance(state, Mapping):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        only = next(iter(state.values())) if len(state) == 1 else None
        state = inner if inner is not None else only if isinstance(only, Mapping) else state
    if not isinstance(state, Mapping) or not state or not all(isinstance(one, Tensor) for one in state.values()):
        raise ValueError("the file holds something else than the tensors of a network")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)

"""Attacks by what lies in the weights folder: a file that carries a program, and one that nobody can read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import requests
import torch

from benchmarks.attacks.hostile import photo
from benchmarks.attacks.target import Seen, Target, started


class Program(torch.nn.Module):
    """A module whose file carries a program: it writes a file when torch loads it, before anybody calls it."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same."""
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.marker)


def weight_file_with_code(checkout: Path) -> Seen:
    """With no official model, a dropped-in file that carries a program, then a default photo."""
    with tempfile.TemporaryDirectory() as name:
        path, marker, jit = Path(name) / "evil.pth", Path(name) / "written", cast(Any, torch.jit)
        jit.script(Program(str(marker))).save(str(path))
        with started(checkout, {path.name: path.read_bytes()}) as target:
            state = _default_photo(target)
        ran = marker.exists()
    return Seen(f"its program {'RAN' if ran else 'did not run'}; a default photo: {state}", ran or state != "completed")


def unreadable_weights(checkout: Path) -> Seen:
    """With no official model, a file that is no network, then a default photo."""
    with started(checkout, {"aaa.pth": b"no network" * 1000}) as target:
        state = _default_photo(target)
    return Seen(f"a default photo: {state}", state != "completed")


def _default_photo(target: Target) -> str:
    """How a photo with default options ends: its status or its code."""
    answer = requests.post(
        f"{target.url}/api/v1/enhance",
        files={"file": ("x", photo())},
        data={"face_enhance": "false"},
        headers=target.neighbour | {"prefer": "wait=60"},
        timeout=90,
    )
    said = answer.json()
    return str(said.get("status") if answer.ok else said.get("code"))

"""The two networks of repair: their files, which ship with the project, and loading them once.

Without the first file nothing is repaired; without the second the library fills wide holes too. A file of that name in
the weights folder is taken in place of the one that ships.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import Conflict, Unavailable
from app.restoration.device import DTYPES
from app.restoration.device_errors import is_device_error, load_with_room
from app.restoration.faces.detection import fuse_batch_norms
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.tensor_files import read_tensors
from app.restoration.models.weights import INPAINTING_FILE, SEGMENTATION_FILE, path_of
from app.restoration.repair.detection import DamageNetwork
from app.restoration.repair.inpainting_network import load_inpainting
from app.restoration.repair.repair import RepairNetworks
from app.restoration.repair.segmentation_network import load_segmentation

log = logging.getLogger(__name__)


class RepairModels:
    """The networks of one weights folder on one device. Safe to use from several threads.

    Args:
        folder: the weights folder.
        device: torch device name.
        precision: fp32, bf16 or fp16 (both then compute in fp32: they were never tried in fp16).
        registry: of the other networks, with which these are forgotten.
    """

    def __init__(self, folder: Path, device: str, precision: str, registry: ModelRegistry) -> None:
        self._folder, self._device, self._make_room = folder, device, registry.release
        self._dtype = DTYPES["fp32" if precision == "fp16" else precision]
        self._lock = threading.RLock()
        self._loaded: tuple[tuple[Any, ...], RepairNetworks] | None = None
        registry.on_release(self.release)

    def open(self) -> RepairNetworks:
        """The networks, loaded when they are not yet, or when a file has changed.

        Raises:
            Conflict: `repair_unavailable` without the network that finds damage.
            Unavailable: `weights_unreadable` for a file that holds something else.
            OutOfMemory: they do not fit the device.
        """
        return load_with_room(self._kept, self._make_room, self._device)

    def release(self) -> None:
        """Forget the networks."""
        with self._lock:
            self._loaded = None

    def _kept(self) -> RepairNetworks:
        with self._lock:
            state = tuple(_state_of(path_of(self._folder, file)) for file in (SEGMENTATION_FILE, INPAINTING_FILE))
            if state[0] is None:
                raise repair_unavailable()
            if self._loaded is None or self._loaded[0] != state:
                self._loaded = (state, self._read(has_inpainting=state[1] is not None))
            return self._loaded[1]

    def _read(self, *, has_inpainting: bool) -> RepairNetworks:
        found: nn.Module = self._build(SEGMENTATION_FILE, load_segmentation)
        fuse_batch_norms(found)
        network = found.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        inpainting = None
        if has_inpainting:
            inpainting = self._build(INPAINTING_FILE, load_inpainting)
            inpainting = inpainting.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        log.info("loaded the networks of repair on %s", self._device)
        return RepairNetworks(DamageNetwork(network, self._device, self._dtype), inpainting)

    def _build(self, file: str, load: Callable[[Mapping[str, Tensor]], Any]) -> Any:
        try:
            return load(read_tensors(path_of(self._folder, file))).requires_grad_(False)
        except Exception as error:
            if is_device_error(error):  # the file is good
                raise
            log.warning("cannot read %s: %s", file, error)
            text = f"{file} does not hold the network that its name says; take it from the project's own files again."
            raise Unavailable("weights_unreadable", text) from error


def repair_unavailable() -> Conflict:
    """What is said where the network that finds damage is not there."""
    why = f"Nothing can be repaired, since {SEGMENTATION_FILE} is not there"
    return Conflict("repair_unavailable", f"{why}; set repair to off, or take it from the project's own files.")


def _state_of(path: Path) -> tuple[str, int, int] | None:
    """What changes with the content of a file, None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return str(path), stat.st_size, stat.st_mtime_ns

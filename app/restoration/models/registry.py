"""Which models of the table are installed, and loading a row into a ready `Network`.

Loading goes through spandrel (architecture read from the file, restricted unpickler) after the file was verified. A
file that changes while the service runs is judged and loaded anew.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.errors import Conflict, RestoreError, Unavailable, Unprocessable, is_exhaustion
from app.restoration.device_errors import is_out_of_memory, load_with_room
from app.restoration.models import weights
from app.restoration.models.networks import Facts, Network, build, compact_facts, esrgan_facts
from app.restoration.models.spandrel_loading import import_spandrel
from app.restoration.models.table import TABLE, ModelRow
from app.restoration.models.tensor_files import read_tensors

log = logging.getLogger(__name__)

_KEPT_NETWORKS = 4
PROBE_SIDE_PIXELS = 8


_UPSCALERS = {name for row in TABLE for name in (row.file, row.denoise_partner) if name is not None}
_TRY_AGAIN = "out_of_resources"
_FileState = tuple[str, int, int, int]
_NetworkKey = tuple[str, float, str, str, tuple[_FileState | None, ...]]


class ModelRegistry:
    """The weights folder as models: lists them, checks them, loads them once and keeps the last few.

    An official file is installed when its hash is right, any other when it was opened and ran; what was found is
    remembered by size and times of change, and for files of a user by hash. A safetensors file that was made from an
    official one is taken in its place. Safe to use from several threads.
    """

    def __init__(self, folder: Path, *, allow_unverified: bool) -> None:
        self._folder = folder
        self._allow_unverified = allow_unverified
        self._lock = threading.RLock()
        self._load_errors: dict[_FileState, RestoreError | None] = {}
        self._probed: dict[str, Facts | RestoreError] = {}  # by hash
        self._facts: dict[str, Facts] = {}  # by file, of those that were opened
        self._converted: dict[_FileState, bool] = {}
        self._networks: OrderedDict[_NetworkKey, Network] = OrderedDict()
        self._on_release: list[Callable[[], None]] = []

    def rows(self) -> list[ModelRow]:
        """The table, then files that the user dropped into the folder, by name.

        A file with an official name and another ending is no model: two of one name could not be told apart.
        """
        files = (*(row.file for row in (*weights.MANIFEST, weights.EMBEDDED)), *weights.REPAIR_FILES)
        known = {Path(file).stem for file in files}
        dropped = [ModelRow(path.stem, path.name) for path in weights.files_in(self._folder) if path.stem not in known]
        return [*TABLE, *dropped]

    def find(self, name: str) -> ModelRow:
        """The row of a name; of several files of one name the first that can be loaded.

        Raises Unprocessable `unknown_model`.
        """
        rows = self.rows()
        found = [row for row in rows if row.name == name]
        if len(found) > 1:
            found = [row for row in found if self.load_error(row.file) is None] or found
        if found:
            return found[0]
        names = ", ".join(row.name for row in rows)
        raise Unprocessable("unknown_model", f"There is no model '{name}'; known models are {names}.")

    def path(self, file: str) -> Path:
        """Where a weight file lies or would lie; for an official one its conversion, where that is whole."""
        path, row = weights.path_of(self._folder, file), weights.official(file)
        converted = path.with_suffix(".safetensors")
        if row is None or converted == path:
            return path
        state = _state_of(converted)
        if state is None:
            return path
        with self._lock:
            if state not in self._converted:
                self._converted[state] = weights.is_converted(converted, row)
                if not self._converted[state]:
                    log.warning("%s is no whole conversion of the official %s and is passed over", converted.name, file)
            return converted if self._converted[state] else path

    def load_error(self, file: str) -> str | None:
        """None when a file can be loaded, else one sentence why not and what to do."""
        found = self._load_error(file)
        return None if found is None else found.detail

    def _load_error(self, file: str) -> RestoreError | None:
        path = self.path(file)
        if path.name != file:  # a conversion, which was checked
            return None
        state = _state_of(path)
        if state is None:
            return self._judge(path)
        with self._lock:
            if state not in self._load_errors:
                try:
                    found = self._judge(path)
                except OSError as error:
                    if is_exhaustion(error):
                        raise
                    return _not_opened(file, error)  # not remembered: the rights of a folder may change, too
                if found is not None and found.code == _TRY_AGAIN:
                    return found
                self._load_errors[state] = found
            return self._load_errors[state]

    def _judge(self, path: Path) -> RestoreError | None:
        """Whether a file may be loaded, and for one that no hash vouches for whether it can be."""
        refused = weights.load_error(path, allow_unverified=self._allow_unverified)
        if refused is not None:
            return Conflict("model_not_installed", refused)
        official = weights.official(path.name)
        if official is not None and (path.name not in _UPSCALERS or weights.verify(path) is weights.Verdict.VERIFIED):
            return None
        digest = weights.sha256(path)
        found = self._probed.get(digest) or probe(path)
        if isinstance(found, Facts):
            self._facts[path.name] = found
        elif found.code == _TRY_AGAIN:
            return found
        self._probed[digest] = found
        return None if isinstance(found, Facts) else found

    def describe_file(self, file: str) -> dict[str, Any]:
        """A weight file, JSON-ready: what it is, its licence, and whether it is there and can be loaded."""
        official, path, load_error = weights.official(file), self.path(file), self.load_error(file)
        present = path.is_file()
        return {
            "file": file,
            "bytes": path.stat().st_size if present else (official.bytes if official else 0),
            "licence": official.licence if official else "unknown: dropped in by you",
            "commercial_use": official.commercial_use if official else None,
            "purpose": official.purpose if official else "your own file",
            "sets": weights.sets_of(file),
            "present": present,
            "installed": load_error is None,
            "note": load_error,
        }

    def cost(self, row: ModelRow) -> tuple[str | None, float | None]:
        """Architecture and multiply-adds a pixel in millions, as `Facts` have them; None while nobody knows."""
        facts = self._facts.get(row.file)
        return (row.architecture, row.megamacs_per_pixel) if facts is None else (facts.architecture, facts.work)

    def loaded(self) -> list[tuple[str, str]]:
        """The models in memory, each with its precision."""
        with self._lock:
            return [(network.name, network.precision) for network in self._networks.values()]

    def installed(self, name: str) -> bool:
        """Whether the model of that name can be loaded."""
        return any(row.name == name and self.load_error(row.file) is None for row in self.rows())

    def load(self, row: ModelRow, denoise: float | None, device: str, precision: str) -> Network:
        """The row as a ready network; kept for the next call.

        Args:
            row: which model.
            denoise: 0..1, how much of the model itself; the rest is its partner (deep network interpolation, as
                upstream's `RealESRGANer.dni`). None or 1: the model alone.
            device: torch device name.
            precision: fp32, bf16 or fp16.

        Raises:
            Conflict: `model_not_installed`. Unavailable: `weights_unreadable` for a file no ESRGAN or compact network.
            OutOfMemory: it does not fit the device, even alone.
        """
        return load_with_room(lambda: self._kept(row, denoise, device, precision), self.release, device)

    def on_release(self, release: Callable[[], None]) -> None:
        """Have `release` called with `release` of this registry: what else is loaded from the same folder."""
        self._on_release.append(release)

    def release(self) -> None:
        """Forget every loaded network, those of faces included; each is loaded again when it is asked for."""
        with self._lock:
            self._networks.clear()
        for release in self._on_release:
            release()

    def _kept(self, row: ModelRow, denoise: float | None, device: str, precision: str) -> Network:
        """A network from the loaded ones, built when it is not there."""
        strength = 1.0 if denoise is None or row.denoise_partner is None else round(denoise, 3)
        key = (row.file, strength, device, precision, self.states(row.file, row.denoise_partner))
        with self._lock:
            network = self._networks.get(key)
            if network is None:
                for old in [known for known in self._networks if known[:4] == key[:4]]:  # the file was another one then
                    del self._networks[old]
                network = self._build(row, strength, device, precision)
                self._networks[key] = network
            self._networks.move_to_end(key)
            while len(self._networks) > _KEPT_NETWORKS:
                self._networks.popitem(last=False)
            return network

    def states(self, *files: str | None) -> tuple[_FileState | None, ...]:
        """What changes with the content of files, so that a network of what lay there before is not taken again."""
        return tuple(_state_of(self.path(file)) for file in files if file is not None)

    def _build(self, row: ModelRow, strength: float, device: str, precision: str) -> Network:
        state = self.read(row.file)
        if strength < 1.0 and row.denoise_partner is not None:
            state = blend_states(state, self.read(row.denoise_partner), strength)
        module, facts = load_module(state, row.file)
        self._facts[row.file] = facts
        log.info("loaded %s on %s in %s", row.name, device, precision)
        return build(row.name, module, facts, device, precision)

    def read(self, file: str) -> Mapping[str, Tensor]:
        """The tensors of a weight file on the CPU, as stored; verified first, and read with a restricted unpickler.

        Raises:
            Conflict: `model_not_installed`. Unavailable: `weights_unreadable`.
        """
        refused = self._load_error(file)
        if refused is not None and refused.code != _TRY_AGAIN:
            raise type(refused)(refused.code, refused.detail)
        return read_file(self.path(file))


def read_file(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file on the CPU. Raises `Unavailable` `weights_unreadable`, or the lack of memory itself."""
    try:
        return read_tensors(path)
    except RestoreError:
        raise
    except Exception as error:
        if _is_lack(error):  # it says nothing about the file
            raise
        log.warning("cannot read %s: %s", path.name, error)
        raise _unreadable(path.name) from error


def probe(path: Path) -> Facts | RestoreError:
    """Open a file and run what it holds once on a few pixels; its facts when that works, else what is wrong with it."""
    try:
        module, facts = load_module(read_file(path), path.name)
        network = build(path.stem, module, facts, "cpu", "fp32")
        side = PROBE_SIDE_PIXELS
        with torch.inference_mode():
            ran = network(torch.full((1, 3, side, side), 0.5))  # (1, 3, 8, 8) to (1, 3, 8 * scale, 8 * scale)
        fits = ran.shape == (1, 3, side * facts.scale, side * facts.scale) and bool(torch.isfinite(ran).all())
        return facts if fits else _unreadable(path.name)
    except RestoreError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the file's verdict
        if _is_lack(error):
            return Unavailable("out_of_resources", f"{path.name} could not be looked at for lack of memory; try again.")
        log.warning("%s was opened and does not run: %s", path.name, error)
        return _unreadable(path.name)


def _is_lack(error: BaseException) -> bool:
    """Whether the machine lacked something; that says nothing about the file."""
    return isinstance(error, MemoryError) or is_exhaustion(error) or is_out_of_memory(error)


def _state_of(path: Path) -> _FileState | None:
    """What changes with the content of a file, None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def blend_states(a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Deep network interpolation (arXiv:1811.10515): `share * a + (1 - share) * b` for every tensor.

    Args:
        a, b: state dicts with the same keys and shapes, any float dtype.
        share: 0..1.

    Returns:
        The same keys and shapes in float32.
    """
    return {key: share * tensor.float() + (1.0 - share) * b[key].float() for key, tensor in a.items()}


def load_module(state: Mapping[str, Tensor], file: str) -> tuple[Any, Facts]:
    """A state dict to spandrel's module in fp32, on the CPU and in eval mode, and its facts.

    Args:
        state: tensors by name, any float dtype, as `ModelRegistry.read` gives them.
        file: its name, for the error.

    Raises:
        Unavailable: `weights_unreadable` when it is no RGB network of the ESRGAN family or a compact one.
    """
    spandrel = import_spandrel()
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(dict(state))
    except Exception as error:
        if is_out_of_memory(error):  # the file is good
            raise
        raise _unreadable(file) from error
    is_rgb = (
        isinstance(descriptor, spandrel.ImageModelDescriptor)
        and descriptor.input_channels == descriptor.output_channels == 3
    )
    kind = descriptor.architecture.id
    if not is_rgb or kind not in ("Compact", "ESRGAN"):
        raise _unreadable(file)
    module = descriptor.model.float().eval()
    return module, compact_facts(module) if kind == "Compact" else esrgan_facts(module, descriptor.scale)


def _not_opened(file: str, error: OSError) -> Unavailable:
    """The file is there, and the system does not let this process read it: one such file costs no other its place."""
    log.warning("cannot open %s: %s", file, error.strerror)
    return Unavailable(
        "weights_unreadable",
        f"{file} cannot be read ({error.strerror}); let the user that runs the service read it, or remove it.",
    )


def _unreadable(file: str) -> Unavailable:
    return Unavailable(
        "weights_unreadable",
        f"{file} is no ESRGAN or compact network that can be read; remove it or choose another model.",
    )

"""The steps of `benchmarks.cuda_check`: what must hold on a card (1 to 7), and what is measured there (8 to 10).

A step yields findings. Those without a verdict are figures. Steps that need no card run on a CPU too, at small sizes,
which is how their own logic is tested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.errors import DeviceLost, OutOfMemory
from app.restoration import device as devices
from app.restoration.device_errors import answers, first_line, is_out_of_memory, raise_if_lost
from app.restoration.device_memory import free_memory_bytes, release_memory
from app.restoration.device_probe import find_card_fault
from app.restoration.engine import LUMA
from app.restoration.host_engine import HostEngine
from app.restoration.models.networks import Network, build
from app.restoration.models.registry import ModelRegistry, load_module
from app.restoration.upscale import UpscalePlan, UpscaleReport, upscale
from benchmarks.random_weights import random_state
from benchmarks.request import SHAPES, invented_picture

Pixels = NDArray[Any]
FP32_MOST = 1  # of 255, against the CPU
CLOSE_DB = {"compact": 48.0, "esrgan": 45.0}  # of a half precision, against fp32 on the CPU
TILES_DB = 55.0  # of ESRGAN in fp32, one tiling against another; compact networks must agree within 1
HALVED_DB = 50.0  # after out of memory had the tile halved
LEFT_BEHIND_BYTES = 1_000_000
CAPS_GB = (8.0, 4.0, 2.0, 1.0, 0.6)
_SMALLEST_SIDE = 40


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run of the steps is given.

    Attributes:
        device: torch device name.
        weights: folder with official files; random ones stand in for missing ones.
        models: by name, of the two shapes.
        shrink: sides of photos are divided by it (1 on a card).
    """

    device: str
    weights: Path = Path("weights")
    models: tuple[str, ...] = SHAPES
    shrink: int = 1

    @property
    def on_cpu(self) -> bool:
        """Whether no card is looked at."""
        return self.device == "cpu"

    def crop(self, height: int, width: int) -> Pixels:
        """(height, width, 3) uint8 of a photo-like picture, both divided by `shrink`."""
        picture = np.tile(invented_picture(), (3, 3, 1))
        size = [max(_SMALLEST_SIDE, side // self.shrink) for side in (height, width)]
        return picture[: size[0], : size[1]].copy()

    def network(self, model: str, precision: str, device: str | None = None) -> Network:
        """The model on the device (or another), from its official file or with random weights."""
        registry = ModelRegistry(self.weights, allow_unverified=True)
        file = f"{model}.pth"
        has_file = registry.path(file).is_file()
        state = registry.read(file) if has_file else random_state(model, 0, 10.0)
        module, facts = load_module(state, file)
        return build(model, module, facts, device or self.device, precision)

    def precisions(self) -> tuple[str, ...]:
        """The half precisions that the device is to be used with."""
        chosen = devices.choose_precision("auto", self.device).value
        return ("bf16",) if self.on_cpu else () if chosen == "fp32" else (chosen,)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report; `passed` is None for a figure without a verdict, and for what was left out."""

    what: str
    passed: bool | None
    text: str


Step = Callable[[Setting], Iterator[Finding]]


def enlarge(network: Network, pixels: Pixels, tile: int = 0, *, grey: bool = False) -> tuple[Pixels, UpscaleReport]:
    """(H, W, 3) uint8 or uint16 through the engine, at the network's own scale, and what happened on the way."""
    size = (pixels.shape[0] * network.facts.scale, pixels.shape[1] * network.facts.scale)
    return upscale(HostEngine(network), pixels, UpscalePlan(size, tile, grey=grey), lambda fraction: True)


def difference(a: Pixels, b: Pixels) -> tuple[int, float]:
    """The largest difference, and the PSNR in dB (infinite for equal ones), of two pictures of 8 bits."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    most = int(np.abs(a.astype(np.int32) - b.astype(np.int32)).max())
    return most, 10 * math.log10(255.0**2 / error) if error else math.inf


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Convolutions in TF32, or not, meanwhile."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def presence(setting: Setting) -> Iterator[Finding]:
    """Step 1: is the card there, and does it compute?"""
    fault = None if setting.on_cpu else find_card_fault(setting.device)
    yield Finding("test kernel", fault is None, "ran" if fault is None else fault.reason)
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    yield Finding("torch", None, f"{torch.__version__}, cuDNN {cudnn}")
    if not setting.on_cpu and fault is None:
        card = torch.cuda.get_device_properties(torch.device(setting.device))
        yield Finding("card", None, f"{card.name}, {card.total_memory / 1e9:.0f} GB, sm_{card.major}{card.minor}")
        yield Finding("kernels for", None, " ".join(torch.cuda.get_arch_list()))
        yield Finding("free memory", None, f"{free_memory_bytes(setting.device) / 1e9:.1f} GB")
        yield Finding("precision", None, devices.choose_precision("auto", setting.device).reason)
    compilers = [name for name in ("gcc", "nvcc") if shutil.which(name)]
    yield Finding("compilers", None, ", ".join(compilers) or "none")


def parity(setting: Setting) -> Iterator[Finding]:
    """Step 2: the same pixels as on the CPU, in each precision."""
    pixels = setting.crop(256, 256)
    for model in setting.models:
        reference, _ = enlarge(setting.network(model, "fp32", "cpu"), pixels)
        for precision, allowed in (("fp32", False), ("fp32", True), *((half, False) for half in setting.precisions())):
            network = setting.network(model, precision)
            with tf32(allowed):
                made, report = enlarge(network, pixels)
            most, psnr = difference(made, reference)
            what = f"{model}, {precision}{' with TF32' if allowed else ''}"
            passed: bool | None = report.redone_in_fp32 == 0
            if precision == "fp32":
                passed = None if allowed else most <= FP32_MOST
            else:
                passed = bool(passed) and psnr >= CLOSE_DB[network.facts.architecture]
            yield Finding(what, passed, f"max {most}, {psnr:.1f} dB, {report.redone_in_fp32} tiles again in fp32")


def tiles(setting: Setting) -> Iterator[Finding]:
    """Step 3: the same picture in any tiling, in 16 bits and in grey."""
    for model in setting.models:
        network = setting.network(model, "fp32")
        for size in ((700, 1001), (333, 259)):
            pixels = setting.crop(*size)
            whole, _ = enlarge(network, pixels, 4096)
            for tile in (128 // setting.shrink or 1, 256 // setting.shrink or 1, 0):
                made, report = enlarge(network, pixels, tile)
                most, psnr = difference(made, whole)
                passed = most <= 1 if network.facts.architecture == "compact" else psnr >= TILES_DB
                yield Finding(f"{model}, {pixels.shape}, tile {report.tile}", passed, f"max {most}, {psnr:.1f} dB")
        sixteen, _ = enlarge(network, pixels.astype(np.uint16) * 257)
        most, _ = difference(np.rint(sixteen / 257.0), made)
        yield Finding(f"{model}, 16 bits", most <= 1, f"max {most}")
        grey, _ = enlarge(network, pixels, grey=True)
        most, _ = difference(grey[:, :, 0], np.rint(made @ np.array(LUMA)))
        yield Finding(f"{model}, grey", most <= 1, f"max {most}")


def digest(setting: Setting, model: str) -> str:
    """The hash of one photo restored in the precision that is used on the device."""
    devices.prepare(setting.device)
    network = setting.network(model, devices.choose_precision("auto", setting.device).value)
    return _hash(enlarge(network, setting.crop(866, 1300))[0])


def repeatable(setting: Setting) -> Iterator[Finding]:
    """Step 4: equal bytes twice, in a new thread, and in a second process."""
    for model in setting.models:
        found = {"first": digest(setting, model), "second": digest(setting, model)}
        thread = threading.Thread(target=lambda: found.update({"new thread": digest(setting, model)}))  # noqa: B023
        thread.start()
        thread.join()
        words = ["--device", setting.device, "--weights", str(setting.weights), "--shrink", str(setting.shrink)]
        command = [sys.executable, "-m", "benchmarks.cuda_check", "--digest", model, *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        found["second process"] = done.stdout.strip()
        passed = len(found) == 4 and len(set(found.values())) == 1
        yield Finding(model, passed, ", ".join(f"{k} {v[:12]}" for k, v in found.items()))


def memory_caps(setting: Setting) -> Iterator[Finding]:
    """Step 5: under smaller and smaller caps the tile is halved, the picture stays, and nothing is left behind."""
    if setting.on_cpu:
        yield Finding("caps", None, "left out: torch caps a card's memory only")
        return
    devices.prepare(setting.device)
    card, model = torch.device(setting.device), setting.models[-1]
    total = torch.cuda.get_device_properties(card).total_memory
    network, pixels = setting.network(model, (*setting.precisions(), "fp32")[0]), setting.crop(1500, 1500)
    wanted, _ = enlarge(network, pixels)
    base, restarts = torch.cuda.memory_allocated(card), 0
    for cap in (cap for cap in CAPS_GB if cap * 2**30 < total):
        release_memory(setting.device)
        torch.cuda.set_per_process_memory_fraction(cap * 2**30 / total, card)
        try:
            made, report = enlarge(network, pixels)
            most, psnr = difference(made, wanted)
            restarts, passed = report.restarts, psnr >= HALVED_DB
            text = f"tile {report.tile}, {report.restarts} restarts, max {most}, {psnr:.1f} dB"
        except OutOfMemory as error:  # the named error: allowed where hardly the weights fit
            passed, text = cap < 1, error.detail
        except Exception as error:  # noqa: BLE001 - what is not known as out of memory is what is looked for
            passed, text = False, f"{type(error).__name__}: {first_line(error)}"
        left = torch.cuda.memory_allocated(card) - base
        yield Finding(f"{model}, {cap:g} GB", passed and left <= LEFT_BEHIND_BYTES, f"{text}, {left} bytes left behind")
    torch.cuda.set_per_process_memory_fraction(1.0, card)
    yield Finding("halving took place", restarts > 0, f"{restarts} restarts under the smallest cap that worked")


def faces(setting: Setting) -> Iterator[Finding]:
    """Step 6: GFPGAN, face parsing and detection as on the CPU, and a face the same alone and in company."""
    try:
        from app.restoration.faces.gfpgan import build_gfpgan
        from app.restoration.faces.parsing import parser_of
        from benchmarks.random_weights import random_gfpgan, random_parser

        torch.manual_seed(1)
        side = 512 // setting.shrink
        gfpgan, parser = random_gfpgan(side, 1 / setting.shrink), random_parser(side)
    except ImportError as error:
        yield Finding("faces", None, f"left out: the package {error.name} is not installed here")
        return
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8) * 2 - 1, size=(side, side), mode="bilinear")
    reference = build_gfpgan(gfpgan, "cpu", torch.float32)(smooth)
    devices.fix_kernels(setting.device)
    for name, limit in (("fp32", 1e-5), ("bf16", 1e-2)):
        restore = build_gfpgan(gfpgan, setting.device, devices.DTYPES[name])
        made = restore(smooth).cpu()
        distance = float(torch.linalg.vector_norm(made - reference) / torch.linalg.vector_norm(reference))
        yield Finding(f"GFPGAN, {name}", distance <= limit, f"{distance:.1e} from the CPU's fp32")
        filled = restore(smooth[:1].expand(4, -1, -1, -1)).cpu()
        alone_equal = torch.equal(filled[0], made[0])
        yield Finding(f"a face in other company, {name}", alone_equal, "equal" if alone_equal else "differs")
    masks = [np.stack(parser_of(parser, where, torch.float32)(smooth)) for where in ("cpu", setting.device)]
    share = float((masks[0] != masks[1]).mean())
    yield Finding("face parsing", share <= 0.02, f"{share:.2%} of the mask differs")
    yield from _detection(setting)


def _detection(setting: Setting) -> Iterator[Finding]:
    """The detector's raw answers, and whether the parser's padding keeps the layout (if not, it costs two passes)."""
    from app.restoration.faces.detection import build_detector
    from app.restoration.faces.parsing import pad_reflect
    from benchmarks.random_weights import DETECTOR_FILE, random_detector

    state, pixels = (
        random_detector(DETECTOR_FILE).state_dict(),
        setting.crop(704, 1280),
    )  # a shape that is not filled up
    with torch.inference_mode():
        here, there = (build_detector("mobile0.25", state, where)._run(pixels) for where in ("cpu", setting.device))
    most = max(float(np.abs(a - b).max()) for a, b in zip(here, there, strict=True))
    yield Finding("face detection", most <= 1e-3, f"max {most:.1e} from the CPU's")
    x = torch.zeros(1, 8, 16, 16, device=setting.device).to(memory_format=torch.channels_last)
    keeps = pad_reflect(x).is_contiguous(memory_format=torch.channels_last)
    yield Finding("reflection padding", None, "keeps channels-last" if keeps else "makes tensors contiguous")


def poison(setting: Setting) -> Iterator[Finding]:
    """Step 7: another card is used alone, and a lost context is recognised. It ends this process's use of the card."""
    if setting.on_cpu:
        yield Finding("lost context", None, "left out: it needs a card")
        return
    last = f"cuda:{torch.cuda.device_count() - 1}"
    if last != setting.device:
        before = torch.cuda.memory_allocated(torch.device(setting.device))
        on_last = dataclasses.replace(setting, device=last, models=setting.models[:1])
        yield from (dataclasses.replace(finding, what=f"{last}: {finding.what}") for finding in parity(on_last))
        same = torch.cuda.memory_allocated(torch.device(setting.device)) == before
        yield Finding(f"{last} alone", same, f"memory of {setting.device} is {'as before' if same else 'touched'}")
    yield Finding("before", answers(setting.device), "the card answers")
    try:
        torch.zeros(4, device=setting.device)[torch.tensor([9], device=setting.device)].cpu()
        error: Exception = RuntimeError("an index out of bounds raised nothing")
    except Exception as raised:  # noqa: BLE001 - its type is what is looked at
        error = raised
    yield Finding("a fault", not is_out_of_memory(error), f"{type(error).__name__}: {first_line(error)}")
    try:
        raise_if_lost(setting.device, error)
    except DeviceLost as lost:
        yield Finding("lost context", True, str(lost))
    else:
        yield Finding("lost context", False, "the card still answers after the fault")


def _hash(pixels: Pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()

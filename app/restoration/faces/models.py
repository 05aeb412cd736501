"""Which face networks are installed, which of them a restoration gets, and loading them once.

It joins the weights folder to the networks' builders; every file is verified before it is read.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from app.errors import RestoreError, Unavailable
from app.notices import Notice, NoticeKind, notice
from app.restoration.device import DTYPES, profile_of
from app.restoration.device_errors import is_device_error, load_with_room
from app.restoration.device_memory import total_memory_bytes
from app.restoration.faces.detection import Detect, build_detector
from app.restoration.faces.gfpgan import Restore, build_gfpgan
from app.restoration.faces.parsing import Parse, build_parser
from app.restoration.faces.pipeline import LoadedFaceModels
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.spandrel_loading import import_spandrel

log = logging.getLogger(__name__)

RESTORERS = ("GFPGANv1.3", "GFPGANv1.4")  # the default first
DETECTORS = {"resnet50": "detection_Resnet50_Final.pth", "mobilenet": "detection_mobilenet0.25_Final.pth"}
PARSER = "parsing_parsenet.pth"
KINDS = {"resnet50": "resnet50", "mobilenet": "mobile0.25"}  # facexlib's names
_KEPT_NETWORKS = 5  # a detector, and restorer and parser in two precisions
_BYTES_PER_FACE = 700 * 1024 * 1024  # one face in GFPGAN or ParseNet on a card, at the peak
_MAX_BATCH = 4  # a smaller rest is filled up, so more would make single faces slower


@dataclasses.dataclass(frozen=True)
class FaceModelChoice:
    """What is installed of what was meant: names, or None."""

    restorer: str | None
    detector: str | None
    parses: bool


class FaceModels:
    """The face networks of one weights folder on one device. Safe to use from several threads."""

    def __init__(self, registry: ModelRegistry, device: str, precision: str, detector: str = "auto") -> None:
        self._registry, self._device, self._detector = registry, device, detector
        self.precision = "fp32" if precision == "fp16" else precision  # GFPGAN overflows in fp16
        self._lock = threading.RLock()
        self._networks: OrderedDict[tuple[str, str, Any], Any] = (
            OrderedDict()
        )  # by file, precision and state of the file
        self._known_batch = 0  # 0: not chosen yet
        registry.on_release(self._release)

    def choose(self, face_model: str | None, *, parse: bool = True) -> tuple[FaceModelChoice, tuple[Notice, ...]]:
        """What a restoration would get, and what must be said about it.

        Args:
            face_model: GFPGANv1.3 or GFPGANv1.4; None for the first.
            parse: whether restored faces get a segmentation mask by face parsing.
        """
        wanted = face_model or RESTORERS[0]
        found = next((name for name in (wanted, *RESTORERS) if self._has(f"{name}.pth")), None)
        if found is None:
            return FaceModelChoice(None, None, parses=False), (self._missing(_restorer_missing, f"{wanted}.pth"),)
        notices = [] if found == wanted else [_other_restorer(wanted, found)]
        meant, detector = self._meant_detector(), self._installed_detector()
        if detector is None:
            notices.append(self._missing(_detector_missing, DETECTORS[meant]))
        elif detector != meant:
            notices.append(_other_detector(DETECTORS[meant], DETECTORS[detector]))
        parses = parse and self._has(PARSER)
        if parse and not parses and detector is not None:
            notices.append(self._missing(_parser_missing, PARSER))
        return FaceModelChoice(found, detector, parses), tuple(notices)

    def open(
        self, face_model: str | None, *, parse: bool = True, exact: bool = False
    ) -> tuple[LoadedFaceModels | None, tuple[Notice, ...]]:
        """The networks for one restoration, loaded when they are not yet; None when faces cannot be restored.

        Args:
            face_model: as for `choose`.
            parse: whether restored faces get a segmentation mask by face parsing.
            exact: everything in fp32.

        Raises:
            Unavailable: `weights_unreadable` for a file that is not what its name says.
        """
        choice, notices = self.choose(face_model, parse=parse)
        if choice.restorer is None or choice.detector is None:
            return None, notices
        precision = "fp32" if exact else self.precision
        restorer, detector = choice.restorer, choice.detector
        tools = LoadedFaceModels(
            detect=self._detect(detector),
            restore=self._restore(restorer, precision),
            exact=None if precision == "fp32" else lambda: self._restore(restorer, "fp32"),
            parse=self._parse(precision) if choice.parses else None,
            batch=self._batch(),
            fills_batch=not profile_of(self._device).faces_one_by_one,
            remember_batch=self._remember_batch,
            device=self._device,
            facts={"model": restorer, "detector": detector, "parsing": choice.parses, "precision": precision},
        )
        return tools, notices

    def open_detector(self) -> Detect | None:
        """What finds faces, whether or not they can be restored; None where no detector is installed.

        Raises:
            Unavailable: `weights_unreadable` for a file that is not what its name says.
        """
        name = self._installed_detector()
        return None if name is None else self._detect(name)

    def detector_files(self) -> list[str]:
        """The file of what `open_detector` gives."""
        name = self._installed_detector()
        return [] if name is None else [DETECTORS[name]]

    def files(self, face_model: str | None, *, parse: bool) -> list[str]:
        """The files of what `choose` finds."""
        choice, _ = self.choose(face_model, parse=parse)
        if choice.restorer is None or choice.detector is None:
            return []
        return [f"{choice.restorer}.pth", DETECTORS[choice.detector], *([PARSER] if choice.parses else [])]

    def rows(self) -> list[dict[str, Any]]:
        """Every face file, JSON-ready: name, file, bytes, licence, purpose, whether it is there and can be loaded."""
        files = [*(f"{name}.pth" for name in RESTORERS), *DETECTORS.values(), PARSER]
        return [{"name": file.removesuffix(".pth"), **self._registry.describe_file(file)} for file in files]

    def _meant_detector(self) -> str:
        return "mobilenet" if self._detector == "mobilenet" else "resnet50"

    def _installed_detector(self) -> str | None:
        return next((name for name in (self._meant_detector(), *DETECTORS) if self._has(DETECTORS[name])), None)

    def _has(self, file: str) -> bool:
        return self._registry.load_error(file) is None

    def _missing(self, notice_of: Callable[..., Notice], file: str) -> Notice:
        return notice_of(why=self._registry.load_error(file) or "", file=file)

    def _detect(self, name: str) -> Detect:
        file = DETECTORS[name]
        found: Detect = self._kept(
            file, "fp32", lambda: build_detector(KINDS[name], self._registry.read(file), self._device)
        )
        return found

    def _restore(self, name: str, precision: str) -> Restore:
        file = f"{name}.pth"
        found: Restore = self._kept(file, precision, lambda: self._build_gfpgan(file, precision))
        return found

    def _parse(self, precision: str) -> Parse:
        dtype = DTYPES[precision]
        found: Parse = self._kept(
            PARSER, precision, lambda: build_parser(self._registry.read(PARSER), self._device, dtype)
        )
        return found

    def _build_gfpgan(self, file: str, precision: str) -> Restore:
        descriptor = import_spandrel().ModelLoader("cpu").load_from_state_dict(dict(self._registry.read(file)))
        if descriptor.architecture.id != "GFPGAN":
            raise _unreadable(file)
        return build_gfpgan(descriptor.model.float().eval(), self._device, DTYPES[precision])

    def _kept(self, file: str, precision: str, build: Callable[[], Any]) -> Any:
        """A network from the loaded ones, built when it is not there.

        Raises:
            OutOfMemory: it does not fit the device. Unavailable: `weights_unreadable`.
        """
        return load_with_room(lambda: self._built(file, precision, build), self._registry.release, self._device)

    def _built(self, file: str, precision: str, build: Callable[[], Any]) -> Any:
        key = (file, precision, self._registry.states(file))
        with self._lock:
            if key not in self._networks:
                for old in [known for known in self._networks if known[:2] == key[:2]]:  # the file was another one then
                    del self._networks[old]
                self._networks[key] = _guarded_build(file, build)
                log.info("loaded %s on %s in %s", file, self._device, precision)
            self._networks.move_to_end(key)
            while len(self._networks) > _KEPT_NETWORKS:
                self._networks.popitem(last=False)
            return self._networks[key]

    def _batch(self) -> int:
        """Faces at once: one on a CPU (measured slower in batches), what fits a quarter of all memory on a card."""
        if profile_of(self._device).faces_one_by_one:
            return 1
        if not self._known_batch:
            room = total_memory_bytes(self._device) // 4
            self._known_batch = next((n for n in (_MAX_BATCH, 2) if n * _BYTES_PER_FACE <= room), 1)
        return self._known_batch

    def _remember_batch(self, batch: int) -> None:
        """Memory ran out: later photos begin with the smaller batch."""
        self._known_batch = batch

    def forget_batch(self) -> None:
        """Begin with the largest batch again, after what held the memory may have gone."""
        self._known_batch = 0

    def _release(self) -> None:
        with self._lock:
            self._networks.clear()


def _guarded_build(file: str, build: Callable[[], Any]) -> Any:
    try:
        with torch.inference_mode():
            return build()
    except RestoreError:
        raise
    except Exception as error:
        if is_device_error(error):  # the file is good
            raise
        log.warning("cannot read %s: %s", file, error)
        raise _unreadable(file) from error


def _unreadable(file: str) -> Unavailable:
    text = f"{file} does not hold the network that its name says; remove it and run: python3 run.py models download"
    return Unavailable("weights_unreadable", f"{text} {file}")


def _restorer_missing(why: str, file: str) -> Notice:
    return notice(
        NoticeKind.FACE_MODEL_MISSING, "Faces are upscaled like the rest of the photo: {why}", why=why, file=file
    )


def _other_restorer(wanted: str, found: str) -> Notice:
    words = "{wanted} is not installed, so {found} restored the faces; get it with: {command}"
    command = f"python3 run.py models download {wanted}.pth"
    return notice(NoticeKind.FACE_MODEL_FALLBACK, words, wanted=wanted, found=found, command=command)


def _detector_missing(why: str, file: str) -> Notice:
    return notice(NoticeKind.FACE_DETECTOR_MISSING, "No face was looked for: {why}", why=why, file=file)


def _other_detector(meant: str, found: str) -> Notice:
    words = "{wanted} is not installed, so {found} looked for faces; get it with: {command}"
    command = f"python3 run.py models download {meant}"
    return notice(NoticeKind.FACE_DETECTOR_FALLBACK, words, wanted=meant, found=found, command=command)


def _parser_missing(why: str, file: str) -> Notice:
    return notice(
        NoticeKind.FACE_PARSING_MISSING, "Faces were pasted with a plain soft edge: {why}", why=why, file=file
    )

"""`run.py doctor`: looks at everything the service needs on this machine and says, line by line, what to do.

Each check is a function from the settings to results; this module runs them, shows them, and makes the exit code. The
checks of files, disk and ports stand in `doctor_machine`.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from app.backends.local import LocalBackend
from app.commands import torch_build
from app.commands.bootstrap import NO_REFERENCE_FROM, ROOT
from app.commands.configure import read_settings
from app.commands.console import console, say
from app.commands.doctor_machine import (
    BAD,
    FINE,
    WARNING,
    CheckResult,
    check_database,
    check_disk,
    check_ports,
    check_storage,
)
from app.commands.golden import compare, make_golden
from app.commands.models import missing_defaults
from app.errors import RestoreError
from app.exit_codes import EXIT_FAILED, EXIT_OK
from app.images import Decoder
from app.main.limits import limits_of
from app.main.local_backend import open_backend
from app.options import EngineName, RestoreOptions
from app.restoration.models import weights
from app.restoration.models.weights import SEGMENTATION_FILE, Verdict
from app.settings import Settings

Check = Callable[[Settings], Iterator[CheckResult]]


def run() -> int:
    """Run all checks; `EXIT_FAILED` when one of them is bad."""
    settings = read_settings()
    checks: tuple[Check, ...] = (
        check_python,
        check_packages,
        check_torch_build,
        check_weights,
        check_restoration,
        check_decoder,
        check_disk,
        check_storage,
        check_database,
        check_ports,
    )
    results = [result for check in checks for result in check(settings)]
    table = Table("", "what", "found, and what to do", box=None, pad_edge=False)
    for result in results:
        table.add_row(result.word, result.what, escape(result.text))
    console().print(table)
    bad = sum(result.word == BAD for result in results)
    say("Everything that is needed works." if not bad else f"{bad} of {len(results)} checks failed.")
    return EXIT_FAILED if bad else EXIT_OK


def check_python(settings: Settings) -> Iterator[CheckResult]:
    """The Python version, and whether the upstream packages can exist on it."""
    version = platform.python_version()
    if sys.version_info[:2] < NO_REFERENCE_FROM:
        yield CheckResult(FINE, "python", version)
    elif settings.engine == EngineName.REFERENCE:
        yield CheckResult(BAD, "python", f"{version} has no ENGINE=reference; set ENGINE=fast or use Python 3.12")
    else:
        yield CheckResult(FINE, "python", f"{version} (without ENGINE=reference)")


def check_packages(settings: Settings, requirements: Path = ROOT / "requirements.txt") -> Iterator[CheckResult]:
    """Every package of requirements.txt is there, in the version that was tested."""
    absent, other = [], []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith(("#", "-")):
            continue
        pin = Requirement(line)
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(pin.name)
            continue
        if f"=={version.partition('+')[0]}" != str(pin.specifier):
            other.append(f"{pin.name} {version} instead of {str(pin.specifier)[2:]}")
    if absent:
        yield CheckResult(BAD, "packages", f"missing: {', '.join(absent)}; run: python3 run.py setup")
    elif other:
        yield CheckResult(
            WARNING, "packages", f"not the tested versions: {', '.join(other)}; run: python3 run.py setup"
        )
    else:
        yield CheckResult(FINE, "packages", "all there, in the tested versions")


def check_torch_build(settings: Settings) -> Iterator[CheckResult]:
    """A card is there that the installed build of torch cannot use; nothing to say in any other case."""
    version = torch_build.installed_version(Path(sys.prefix))
    if not torch_build.leaves_card_unused(settings.device, version):
        return
    yield CheckResult(
        WARNING,
        "torch",
        f"{version} cannot use the NVIDIA card that is here; delete the folder of the virtual environment and run: "
        "python3 run.py setup (in Docker: the image built with DEVICE=cuda)",
    )


def check_weights(settings: Settings) -> Iterator[CheckResult]:
    """Official files are what they should be, and those of the first start are there."""
    folder = settings.weights_folder
    known = (*weights.MANIFEST, weights.EMBEDDED)
    verdicts = {row.file: weights.verify_installed(weights.path_of(folder, row.file)) for row in known}
    wrong = [name for name, verdict in verdicts.items() if verdict in (Verdict.WRONG_SIZE, Verdict.WRONG_HASH)]
    verified = [name for name, verdict in verdicts.items() if verdict in (Verdict.VERIFIED, Verdict.CONVERTED)]
    if wrong and settings.allow_unverified_weights:
        yield CheckResult(WARNING, "weights", f"not the official files, but allowed: {', '.join(wrong)}")
    elif wrong:
        remedy = f"python3 run.py models download {' '.join(wrong)}"
        yield CheckResult(BAD, "weights", f"not the official files: {', '.join(wrong)}; replace them: {remedy}")
    if locked := [name for name, verdict in verdicts.items() if verdict is Verdict.UNREADABLE]:
        text = f"cannot be read: {', '.join(locked)}; let the user that runs the service read them"
        yield CheckResult(BAD, "weights", text)
    if verified:
        yield CheckResult(FINE, "weights", f"verified: {', '.join(verified)}")
    missing = [row.file for row in missing_defaults(folder)]
    if missing:
        yield CheckResult(WARNING, "weights", f"missing: {', '.join(missing)}; run: python3 run.py models download")


def check_restoration(settings: Settings) -> Iterator[CheckResult]:
    """Device and precision with their reasons, then a golden image through the default network."""
    try:
        backend = open_backend(settings)
    except RestoreError as error:
        yield CheckResult(BAD, "device", error.detail)
        return
    facts = backend.describe()
    word = WARNING if facts["device_is_fallback"] else FINE
    yield CheckResult(word, "device", f"{facts['device']} ({facts['device_reason']})")
    word = WARNING if facts["precision_is_slow"] else FINE
    yield CheckResult(word, "precision", f"{facts['precision']} ({facts['precision_reason']})")
    yield check_faces(facts["faces"])
    yield check_repair(facts["repair"])
    yield check_golden(backend)


def check_faces(faces: Mapping[str, Any]) -> CheckResult:
    """What faces are restored with, or what is missing for it."""
    if faces["model"] is None or faces["detector"] is None:
        return CheckResult(WARNING, "faces", " ".join(faces["notes"]))
    edge = "with a segmentation mask by parsenet" if faces["parsing"] else "with a plain soft edge"
    text = f"{faces['model']}, found by {faces['detector']}, {edge}"
    return CheckResult(WARNING if faces["notes"] else FINE, "faces", ". ".join([text, *faces["notes"]]))


def check_repair(repair: Mapping[str, Any]) -> CheckResult:
    """Whether damage on old prints can be repaired, and what fills wide holes."""
    if not repair["available"]:
        return CheckResult(WARNING, "repair", f"{SEGMENTATION_FILE} is not there, so repair is not offered")
    wide = "a network" if repair["inpainting"] else "the library"
    return CheckResult(FINE, "repair", f"damage is found, and {wide} fills wide holes")


def check_golden(backend: LocalBackend) -> CheckResult:
    """Restore the golden image with the default model and compare the answer."""
    golden = make_golden()
    try:
        restored = backend.restore(golden, RestoreOptions(face_enhance=False), lambda fraction, stage: True)
    except RestoreError as error:
        return CheckResult(BAD, "golden image", error.detail)
    similarity = compare(restored.picture, golden)
    precision = restored.params["precision"]
    text = f"{restored.model} in {precision}: {similarity.psnr_db:.1f} dB in {restored.seconds:.2f} s"
    if similarity.passed:
        return CheckResult(FINE, "golden image", text)
    return CheckResult(
        BAD, "golden image", f"{text}, which is wrong; try PRECISION=fp32, then python3 run.py models verify"
    )


def check_decoder(settings: Settings) -> Iterator[CheckResult]:
    """The process that decodes photos starts, has its limits, and reaches no network."""
    decoder = Decoder(limits_of(settings).image)
    try:
        confinement = decoder.start()
    except RestoreError as error:
        yield CheckResult(BAD, "decoder", error.detail)
        return
    finally:
        decoder.close()
    seconds, memory = settings.decode_timeout_seconds, settings.decode_memory_mb
    if confinement.memory_limited:
        yield CheckResult(FINE, "decoder", f"limits: {memory} MB and {seconds:g} s a photo, file size, no core dumps")
    else:
        text = f"{seconds:g} s a photo, but this system cannot limit its memory; run the service on Linux or in Docker"
        yield CheckResult(WARNING, "decoder", text)
    if confinement.network_closed:
        text = "closed: the process that decodes photos opens no socket and runs no program (seccomp)"
        yield CheckResult(FINE, "decoder network", text)
    else:
        text = f"open to the process that decodes photos, since {confinement.reason or 'the filter does not hold'}"
        yield CheckResult(WARNING, "decoder network", f"{text}; run the service on Linux or in Docker")

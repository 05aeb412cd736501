"""The official weight files: where they come from, what they must be, and whether a file on disk is one of them.

Hashes agree in several independent public sources.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
from pathlib import Path

_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_GFPGAN = "https://github.com/TencentARC/GFPGAN/releases/download"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"
_SIZE_BYTES = 8  # at the start of a safetensors file: the size of its header
SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """One official file: its address, size, SHA-256, licence and purpose.

    `default`: the first start fetches it. `commercial_use`: its licence, or that of a part of it, leaves commercial use
    free; where not, whoever installs it has to accept that.
    """

    file: str
    url: str
    bytes: int
    sha256: str
    licence: str
    purpose: str
    default: bool = False
    commercial_use: bool = True


class Verdict(enum.StrEnum):
    """What a look at a file on disk found."""

    MISSING = "missing"
    VERIFIED = "verified"
    WRONG_SIZE = "wrong_size"
    WRONG_HASH = "wrong_hash"
    UNKNOWN = "unknown"  # not one of the official names: a file the user dropped in
    UNREADABLE = "unreadable"  # the system does not let this process read it
    CONVERTED = "converted"  # not there, or not what it should be, but its whole conversion is, which is taken instead


_BSD = "BSD-3-Clause"
_GFPGAN_LICENCE = "Apache-2.0; contains StyleGAN2 (NVIDIA, non-commercial) and DFDNet (CC BY-NC-SA 4.0) parts"
MANIFEST: tuple[WeightFile, ...] = (
    WeightFile(
        "RealESRGAN_x4plus.pth",
        f"{_REAL_ESRGAN}/v0.1.0/RealESRGAN_x4plus.pth",
        67040989,
        "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        _BSD,
        "photos, balanced and best",
        default=True,
    ),
    WeightFile(
        "RealESRGAN_x2plus.pth",
        f"{_REAL_ESRGAN}/v0.2.1/RealESRGAN_x2plus.pth",
        67061725,
        "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        _BSD,
        "photos, twice as large",
    ),
    WeightFile(
        "RealESRGAN_x4plus_anime_6B.pth",
        f"{_REAL_ESRGAN}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        17938799,
        "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        _BSD,
        "drawings",
    ),
    WeightFile(
        "realesr-general-x4v3.pth",
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-general-x4v3.pth",
        4885111,
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        _BSD,
        "photos, fast",
        default=True,
    ),
    WeightFile(
        "realesr-general-wdn-x4v3.pth",
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-general-wdn-x4v3.pth",
        4885111,
        "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        _BSD,
        "the weak-denoise partner of realesr-general-x4v3, for the denoise option",
        default=True,
    ),
    WeightFile(
        "realesr-animevideov3.pth",
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-animevideov3.pth",
        2504012,
        "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        _BSD,
        "drawings, fast",
    ),
    WeightFile(
        "GFPGANv1.3.pth",
        f"{_GFPGAN}/v1.3.0/GFPGANv1.3.pth",
        348632874,
        "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70",
        _GFPGAN_LICENCE,
        "faces",
        commercial_use=False,
    ),
    WeightFile(
        "GFPGANv1.4.pth",
        f"{_GFPGAN}/v1.3.4/GFPGANv1.4.pth",
        348632874,
        "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        _GFPGAN_LICENCE,
        "faces, by choice",
        commercial_use=False,
    ),
    WeightFile(
        "detection_Resnet50_Final.pth",
        f"{_FACEXLIB}/v0.1.0/detection_Resnet50_Final.pth",
        109497761,
        "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        "MIT",
        "finds faces",
    ),
    WeightFile(
        "detection_mobilenet0.25_Final.pth",
        f"{_FACEXLIB}/v0.1.0/detection_mobilenet0.25_Final.pth",
        1789735,
        "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        "MIT",
        "finds faces, small",
    ),
    WeightFile(
        "parsing_parsenet.pth",
        f"{_FACEXLIB}/v0.2.2/parsing_parsenet.pth",
        85331193,
        "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        "CC BY-NC-SA 4.0 (from PSFRGAN)",
        "face parsing (segmentation mask)",
        commercial_use=False,
    ),
)
# What restoring faces takes. Not fetched first: large, and its licences do not allow every use.
FACES = ("GFPGANv1.3.pth", "detection_Resnet50_Final.pth", "parsing_parsenet.pth")
# Ours: lies in the repository, is never downloaded, and is found wherever WEIGHTS_FOLDER points.
EMBEDDED = WeightFile(
    "nir-embedded-x4.safetensors",
    "",
    1842120,
    "8630e174e3286a091bed5dc5e20cae01bb17cf3971026713fdb902bae6e5979e",
    "the project's own; trained on BSDS500 photos, which are given for non-commercial research and education",
    "photos, ships with the project; runs when nothing better is installed",
    commercial_use=False,
)
# The networks of repair, ours too: a file in the weights folder is taken before the one that ships.
SEGMENTATION_FILE = "nir-damage-segmentation.safetensors"
INPAINTING_FILE = "nir-inpainting.safetensors"
REPAIR_FILES = (SEGMENTATION_FILE, INPAINTING_FILE)
SHIPPED_FOLDER = Path(__file__).resolve().parents[3] / "weights"


def official(file: str) -> WeightFile | None:
    """The manifest row of a file name, or None."""
    return next((row for row in (*MANIFEST, EMBEDDED) if row.file == file), None)


def find_rows(name: str) -> list[WeightFile]:
    """Manifest rows of a file name, a model's name (without the ending), `default`, `faces` or `all`; none: unknown."""
    return [row for row in MANIFEST if name in (row.file, Path(row.file).stem, "all", *sets_of(row.file))]


def sets_of(file: str) -> list[str]:
    """The names under which a file is fetched together with others."""
    row = official(file)
    return [*(["default"] if row and row.default else []), *(["faces"] if file in FACES else [])]


def path_of(folder: Path, file: str) -> Path:
    """Where a weight file lies or would lie: in `folder`, or where the project ships it."""
    if file in REPAIR_FILES and not (folder / file).is_file():
        return SHIPPED_FOLDER / file
    return SHIPPED_FOLDER / file if file == EMBEDDED.file else folder / file


def files_in(folder: Path) -> list[Path]:
    """The weight files of a folder, by name; none where there is no folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.suffix in SUFFIXES and path.is_file()]


def is_present(path: Path) -> bool:
    """Whether an official file, or its conversion, lies there and has the right size; its hash is not looked at."""
    row = official(path.name)
    try:
        return path.with_suffix(".safetensors").is_file() or (row is not None and path.stat().st_size == row.bytes)
    except FileNotFoundError:
        return False


def verify(path: Path) -> Verdict:
    """Compare size, then SHA-256, with the manifest. Reads the whole file when the size fits."""
    row = official(path.name)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Verdict.MISSING
    if row is None:
        return Verdict.UNKNOWN
    if size != row.bytes:
        return Verdict.WRONG_SIZE
    return Verdict.VERIFIED if sha256(path) == row.sha256 else Verdict.WRONG_HASH


def verify_installed(path: Path) -> Verdict:
    """What `verify` finds, `UNREADABLE`, or `CONVERTED` where a whole conversion works without the official file."""
    try:
        verdict = verify(path)
    except OSError:
        verdict = Verdict.UNREADABLE
    if verdict in (Verdict.VERIFIED, Verdict.UNKNOWN):
        return verdict
    return verdict if find_conversion(path) is None else Verdict.CONVERTED


def find_conversion(path: Path) -> Path | None:
    """The whole safetensors file that was made from this official file, which need not be there itself; or None."""
    row, converted = official(path.name), path.with_suffix(".safetensors")
    return converted if row is not None and converted != path and is_converted(converted, row) else None


def is_converted(path: Path, row: WeightFile) -> bool:
    """Whether a safetensors file was made from this official file (see `tensor_files.convert`) and is whole."""
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:_SIZE_BYTES], "little")
        marks = json.loads(content[_SIZE_BYTES : _SIZE_BYTES + size])["__metadata__"]
        data_sha256 = hashlib.sha256(tensor_data(content)).hexdigest()
        return bool(marks["source_sha256"] == row.sha256 and marks["data_sha256"] == data_sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def tensor_data(content: bytes) -> memoryview:
    """The part of a safetensors file that follows its header."""
    return memoryview(content)[_SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little") :]


def known_sha256(path: Path) -> str:
    """The SHA-256 of a file in hex, which is read again only when it has changed. Raises `OSError`."""
    facts = path.stat()
    return _sha256_of_state(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=64)
def _sha256_of_state(path: Path, _modified_ns: int, _size: int) -> str:
    return sha256(path)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_error(path: Path, *, allow_unverified: bool) -> str | None:
    """None when the file may be loaded, else one sentence why not.

    A file under an official name must be the official file, unless `allow_unverified`; files under other names are the
    user's own choice (the loader's restricted unpickler holds for all).
    """
    verdict = verify(path)
    if verdict in (Verdict.VERIFIED, Verdict.UNKNOWN):
        return None
    if path.name == EMBEDDED.file:
        return f"{path.name} is not the file that belongs to this version; take it from the project's own files again."
    if verdict is Verdict.MISSING:
        return f"{path.name} is not installed; get it with: python3 run.py models download {path.name}"
    if allow_unverified:
        return None
    row = official(path.name)
    if row is not None and path.stat().st_size < row.bytes:
        return (
            f"{path.name} is not whole ({path.stat().st_size} of {row.bytes} bytes): unless it is being copied just "
            f"now, remove it and run: python3 run.py models download {path.name}"
        )
    return (
        f"{path.name} is not the official file; remove it and run: python3 run.py models download {path.name}, "
        "or set ALLOW_UNVERIFIED_WEIGHTS=true if you trust it."
    )

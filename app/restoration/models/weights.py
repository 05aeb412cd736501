"""The official weight files: where they come from, what they must be, and how they get into the folder.

Hashes agree in several independent public sources.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from app import atomic_files
from app.errors import Unavailable

_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_GFPGAN = "https://github.com/TencentARC/GFPGAN/releases/download"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"
_BLOCK_BYTES = 1024 * 1024
_SIZE_BYTES = 8  # at the start of a safetensors file: the size of its header
CONNECT_TIMEOUT_SECONDS = 10.0
SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """One official file: its address, size, SHA-256, licence, purpose, and whether the first start fetches it."""

    file: str
    url: str
    bytes: int
    sha256: str
    licence: str
    purpose: str
    default: bool = False


class Verdict(enum.StrEnum):
    """What a look at a file on disk found."""

    MISSING = "missing"
    VERIFIED = "verified"
    WRONG_SIZE = "wrong_size"
    WRONG_HASH = "wrong_hash"
    UNKNOWN = "unknown"  # not one of the official names: a file the user dropped in


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
    ),
    WeightFile(
        "GFPGANv1.4.pth",
        f"{_GFPGAN}/v1.3.4/GFPGANv1.4.pth",
        348632874,
        "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        _GFPGAN_LICENCE,
        "faces, by choice",
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
)
SHIPPED_FOLDER = Path(__file__).resolve().parents[3] / "weights"
_BY_FILE = {row.file: row for row in (*MANIFEST, EMBEDDED)}


def official(file: str) -> WeightFile | None:
    """The manifest row of a file name, or None."""
    return _BY_FILE.get(file)


def path_of(folder: Path, file: str) -> Path:
    """Where a weight file lies or would lie: in `folder`, or for the embedded one where the project ships it."""
    return SHIPPED_FOLDER / file if file == EMBEDDED.file else folder / file


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
    return (
        f"{path.name} is not the official file; remove it and run: python3 run.py models download {path.name}, "
        "or set ALLOW_UNVERIFIED_WEIGHTS=true if you trust it."
    )


def download_url(row: WeightFile, base_url: str) -> str:
    """Where to fetch a file: the mirror when one is set (files lie there under their own names), else the origin."""
    return f"{base_url.rstrip('/')}/{row.file}" if base_url else row.url


def download(row: WeightFile, folder: Path, base_url: str, on_bytes: Callable[[int, int], None]) -> Path:
    """Fetch one file into `folder`, resuming a part that an earlier run left; verified before it gets its name.

    Args:
        row: what to fetch.
        folder: the weights folder; made when missing.
        base_url: mirror, or empty for the origin.
        on_bytes: called with (bytes so far, bytes in all).

    Raises:
        Unavailable: `download_failed` (network, status, full disk) or `download_corrupt` (wrong size or hash; the
            part is removed).
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{row.file}.part"
    try:
        _fetch(download_url(row, base_url), part, row.bytes, on_bytes)
    except (urllib.error.URLError, OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise Unavailable(
            "download_failed", f"{row.file} could not be downloaded ({reason}); try again later."
        ) from error
    if part.stat().st_size < row.bytes:  # the part stays, so that the next call goes on where this one was cut off
        raise Unavailable("download_failed", f"The connection was cut while {row.file} came; run the download again.")
    if sha256(part) != row.sha256:
        part.unlink()
        raise Unavailable("download_corrupt", f"{row.file} arrived damaged and was removed; run the download again.")
    path = folder / row.file
    atomic_files.publish(part, path)
    return path


def _fetch(url: str, part: Path, total: int, on_bytes: Callable[[int, int], None]) -> None:
    """Append what is missing to `part`; a server that ignores Range makes it start over."""
    have = part.stat().st_size if part.exists() else 0
    if have >= total:
        part.unlink()  # a full part that was never renamed failed its hash, or another file's
        have = 0
    if not url.startswith(("https://", "http://")):
        raise ValueError("the address must start with https:// or http://")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_SECONDS) as answer:  # noqa: S310 - checked above
        resumed = have > 0 and answer.status == 206
        with part.open("ab" if resumed else "wb") as file:
            done = have if resumed else 0
            for block in _blocks(answer):
                done += len(block)
                if done > total:
                    raise ValueError("the server sent more than the file's size")
                file.write(block)
                on_bytes(done, total)


def _blocks(answer: object) -> Iterator[bytes]:
    read: Callable[[int], bytes] = answer.read  # type: ignore[attr-defined]
    while block := read(_BLOCK_BYTES):
        yield block

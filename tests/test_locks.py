"""The locks in `locks/` against the requirement files and constraints.txt that they are made of."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.commands.bootstrap import MODEL_PACKAGES

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {file.stem: file for file in sorted((ROOT / "locks").glob("*.txt"))}
ALWAYS = ("requirements", "torch", "models")  # what runs; an optional lock comes on top of them
OPTIONAL = sorted(set(LOCKS) - set(ALWAYS))
# What nobody's metadata may follow, or pulls in only on systems that are not supported.
NEVER = {"tb-nightly", "opencv-python"}
UNCONSTRAINED = {"async-timeout"}  # redis needs it on the first patch releases of Python 3.11 alone


def entries(text: str) -> list[tuple[Requirement, set[str]]]:
    """The requirements of a lock with their SHA-256 hashes."""
    whole = text.replace("\\\n", " ")
    found = []
    for line in whole.splitlines():
        if line and not line.startswith("#"):
            words, *hashes = line.split("--hash=")
            found.append((Requirement(words.strip()), {each.strip() for each in hashes}))
    return found


def locked(*names: str) -> dict[str, set[str]]:
    """Package to its versions, in these locks."""
    versions: dict[str, set[str]] = {}
    for name in names:
        for requirement, _ in entries(LOCKS[name].read_text(encoding="utf-8")):
            versions.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return versions


def named(path: Path) -> list[Requirement]:
    """What a requirements file asks for, with the files that it includes."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += named(path.with_name(line[3:].strip()))
        elif line and not line.startswith(("#", "-")):
            found.append(Requirement(line))
    return found


def test_there_is_a_lock_for_each_requirements_file_and_for_torch_and_the_models() -> None:
    files = {path.stem.removeprefix("requirements-") for path in ROOT.glob("requirements*.txt")}
    assert set(LOCKS) == files | {"torch", "models"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_file_has_hashes_and_every_version_is_the_constrained_one(name: str) -> None:
    known: dict[str, set[str]] = {}
    for file in (ROOT / "constraints.txt", *ROOT.glob("requirements*.txt")):
        for requirement in named(file):
            known.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    for requirement, hashes in entries(LOCKS[name].read_text(encoding="utf-8")):
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), requirement
        package = canonicalize_name(requirement.name)
        assert package in MODEL_PACKAGES or name != "models"
        assert package in UNCONSTRAINED or str(requirement.specifier) in known[package], requirement


def test_the_locks_hold_what_the_files_ask_for_and_all_that_is_constrained() -> None:
    runs = locked(*ALWAYS)
    for requirement in named(ROOT / "requirements.txt"):
        assert runs[canonicalize_name(requirement.name)] == {str(requirement.specifier)}, requirement
    for name in OPTIONAL:
        found = runs | locked(name)
        for requirement in named(ROOT / f"requirements-{name}.txt"):
            assert found[canonicalize_name(requirement.name)] == {str(requirement.specifier)}, requirement
        assert not set(locked(name)) & set(runs), f"{name}: it comes on top of what runs"
    constrained = {canonicalize_name(requirement.name) for requirement in named(ROOT / "constraints.txt")}
    assert constrained <= set(locked(*LOCKS))


@pytest.mark.parametrize("name", ["requirements", *OPTIONAL])
def test_a_lock_names_all_that_its_packages_need(name: str) -> None:
    """It is installed without looking at dependencies, so one that is not in it would not be there."""
    there = set(locked(*ALWAYS, name))
    for package in locked(name):
        try:
            needs = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another system, or of a part that is not installed here
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in there | NEVER, f"{package} needs {need}"


def test_torch_and_what_only_its_plain_build_needs_stand_apart() -> None:
    torch = set(locked("torch"))
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13"} <= torch
    assert not [name for name in locked("requirements") if name.startswith(("nvidia", "cuda", "triton", "torch"))]


def test_a_lock_without_a_hash_or_of_another_version_is_seen() -> None:
    (found, hashes) = entries("a==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nb==2 ; python_version < '3'\n")
    assert (str(found[0]), found[1]) == ("a==1.0", {"sha256:00", "sha256:11"})
    assert hashes[1] == set()

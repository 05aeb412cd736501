"""Debian's ExifTool for tests: what it reads from files, and inputs that it fills with metadata."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

EXIFTOOL = shutil.which("exiftool")
needs_exiftool = pytest.mark.skipif(EXIFTOOL is None, reason="ExifTool (libimage-exiftool-perl) is not installed")


def read(*files: Path) -> list[dict[str, Any]]:
    """All tags of each file by "group:name", structures and unknown groups too, numbers as they are."""
    found = _run("-json", "-G1", "-a", "-u", "-struct", "-n", "-q", *map(str, files))
    return [{key: value for key, value in one.items() if key != "SourceFile"} for one in json.loads(found or b"[]")]


def fill(file: Path, tags: list[str]) -> None:
    """Write tags, each as "group:name=value", into a file."""
    utf8 = ["-codedcharacterset=utf8"] if any(tag.startswith("IPTC:") for tag in tags) else []
    said = _run("-overwrite_original", "-n", *utf8, *(f"-{tag}" for tag in tags), str(file))
    assert b"1 image files updated" in said, said


def _run(*words: str) -> bytes:
    assert EXIFTOOL
    done = subprocess.run([EXIFTOOL, *words], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout

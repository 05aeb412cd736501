"""`run.py test`: style, types and tests, one after another; all of them run, and any failure makes the exit code 1.

The tests run in a few processes at once. Those that fail there run once more, one after another, since a test that only
the others' load breaks says nothing of the program; they are named either way. With further words only pytest runs,
with those words.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from app.commands.console import say

MIN_COVERAGE_PERCENT = 90
TEST_PROCESSES = 2  # a file is tested by one of them, so that what its tests share is made once
TESTS_FAILED = 1  # pytest's exit code; any other says that it could not run them all
_TESTS = ("coverage", "run", "-m", "pytest")
_AGAIN = {"tests": ("failed tests, one at a time", (*_TESTS, "--last-failed", "--last-failed-no-failures=none", "-v"))}
_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("style", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("imports", ("pytest", "tests/test_imports.py")),
    ("coverage erased", ("coverage", "erase")),
    ("tests", (*_TESTS, "-n", str(TEST_PROCESSES), "--dist", "loadfile", "--durations=10")),
    ("coverage joined", ("coverage", "combine", "--quiet")),
    ("coverage", ("coverage", "report", "--skip-covered", f"--fail-under={MIN_COVERAGE_PERCENT}")),
)


def run(words: Sequence[str]) -> int:
    """All steps, or only pytest with `words`; returns the exit code."""
    if words:
        return _call(("pytest", *words))
    failed = []
    for name, command in _STEPS:
        code = _step(name, command)
        if code == TESTS_FAILED and name in _AGAIN:
            code = _step(*_AGAIN[name])
        if code != 0:
            failed.append(name)
    say(f"Failed: {', '.join(failed)}." if failed else "All checks and tests passed.")
    return 1 if failed else 0


def _step(name: str, command: Sequence[str]) -> int:
    """Run it and say how it went; the exit code."""
    began = time.monotonic()
    code = _call(command)
    say(f"--- {name}: {'passed' if code == 0 else 'FAILED'} ({time.monotonic() - began:.0f} s)")
    return code


def _call(command: Sequence[str]) -> int:
    """Run a tool of this environment as a module, so that nothing else on PATH is taken for it."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603 - our own tools

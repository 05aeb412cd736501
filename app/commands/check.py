"""`run.py test`: style, types and tests, one after another; all of them run, and any failure makes the exit code 1.

The tests run in a few processes at once. Those that fail there run once more, one after another, since a test that only
the others' load breaks says nothing of the program; they are named either way. With `--coverage` the tests are also
measured, which takes half as long again. With any other words only pytest runs, with those words.
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
COVERAGE = "--coverage"
_MEASURED = ("coverage", "run", "-m")
TESTS = ("pytest", "-n", str(TEST_PROCESSES), "--dist", "loadfile", "--durations=10")
AGAIN = ("pytest", "--last-failed", "--last-failed-no-failures=none", "-v")
CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("style", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("imports", ("pytest", "tests/test_imports.py")),
)
_TESTS_STEP = "tests"
_COVERAGE_BEFORE = (("coverage erased", ("coverage", "erase")),)
_COVERAGE_AFTER = (
    ("coverage joined", ("coverage", "combine", "--quiet")),
    ("coverage", ("coverage", "report", "--skip-covered", f"--fail-under={MIN_COVERAGE_PERCENT}")),
)


def run(words: Sequence[str]) -> int:
    """All steps, or only pytest with `words`; returns the exit code."""
    measured = list(words) == [COVERAGE]
    if words and not measured:
        return _call(("pytest", *words))
    before, after = (_COVERAGE_BEFORE, _COVERAGE_AFTER) if measured else ((), ())
    prefix = _MEASURED if measured else ()
    failed = []
    for name, command in (*CHECKS, *before, (_TESTS_STEP, (*prefix, *TESTS)), *after):
        code = _step(name, command)
        if code == TESTS_FAILED and name == _TESTS_STEP:
            code = _step("failed tests, one at a time", (*prefix, *AGAIN))
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

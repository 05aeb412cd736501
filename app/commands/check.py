"""`run.py test`: style, types and tests, one after another; all of them run, and any failure makes the exit code 1.

With further words only pytest runs, with those words.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from app.commands.console import say

MIN_COVERAGE_PERCENT = 90
_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("style", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("imports", ("pytest", "tests/test_imports.py")),
    ("coverage erased", ("coverage", "erase")),
    ("tests", ("coverage", "run", "-m", "pytest", "--durations=10")),
    ("coverage joined", ("coverage", "combine", "--quiet")),
    ("coverage", ("coverage", "report", "--skip-covered", f"--fail-under={MIN_COVERAGE_PERCENT}")),
)


def run(words: Sequence[str]) -> int:
    """All steps, or only pytest with `words`; returns the exit code."""
    if words:
        return _call(("pytest", *words))
    failed = []
    for name, command in _STEPS:
        began = time.monotonic()
        code = _call(command)
        say(f"--- {name}: {'passed' if code == 0 else 'FAILED'} ({time.monotonic() - began:.0f} s)")
        if code != 0:
            failed.append(name)
    say(f"Failed: {', '.join(failed)}." if failed else "All checks and tests passed.")
    return 1 if failed else 0


def _call(command: Sequence[str]) -> int:
    """Run a tool of this environment as a module, so that nothing else on PATH is taken for it."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603 - our own tools

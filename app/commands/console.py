"""What the commands show on a terminal: plain lines, and one place that makes rich consoles and progress bars."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def say(text: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def console() -> Console:
    """A console on standard output as it is now; wide where there is no terminal, so that tables are not cut."""
    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 200)


def download_bar() -> Progress:
    """A progress bar that counts bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console())


def work_bar() -> Progress:
    """A progress bar that counts shares of work and tells the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("time left"))
    return Progress(*columns, TimeRemainingColumn(), console=console())

"""The documentation as the tests read it: README, the pages of `docs/`, and their fenced examples."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
FILES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE", "weights/README.md")]
FILES += [ROOT / "docs" / name for name in PAGES]


def blocks(language: str) -> list[str]:
    """The fenced examples of one language, in the README and in every page."""
    texts = [README, *PAGES.values()]
    return [found for text in texts for found in re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)]


def section(page: str, heading: str) -> str:
    """The text below one heading of the second level, up to the next."""
    return PAGES[page].split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]

"""What the start says when weight files are missing: the truth about what restores instead, whichever file it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from app.commands import serve
from app.restoration.models import weights
from app.settings import Settings
from tests.weights_mirror import let_official

FAST, LARGE, PARTNER = "realesr-general-x4v3", "RealESRGAN_x4plus", "realesr-general-wdn-x4v3"


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    let_official(monkeypatch, *(dataclasses.replace(row, bytes=3) for row in weights.MANIFEST))


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ((FAST, LARGE, PARTNER), ""),
        ((FAST, LARGE), "The option denoise has no effect."),
        ((FAST, PARTNER), f"For balanced and best {FAST} runs instead of {LARGE}."),
        ((LARGE, PARTNER), f"For fast {LARGE} runs instead of {FAST}."),
        (
            (),
            f"For fast the small model of the project runs instead of {FAST}. "
            f"For balanced and best the small model of the project runs instead of {LARGE}.",
        ),
        (("my-own",), f"For fast my-own runs instead of {FAST}. For balanced and best my-own runs instead of {LARGE}."),
    ],
)
def test_the_start_names_what_runs(there: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / f"{name}.pth").write_bytes(b"yes")
    assert serve.what_runs(tmp_path) == said


def test_the_words_stand_in_what_the_start_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (FAST, LARGE):
        (tmp_path / f"{name}.pth").write_bytes(b"yes")
    serve.provide_weights(Settings(weights_folder=tmp_path), download=False)
    printed = " ".join(capsys.readouterr().err.split())
    assert f"Missing weights: {PARTNER}.pth. The option denoise has no effect. To get them:" in printed
    assert "small model" not in printed

"""`rotate` turns a photo clockwise after its own orientation: pixels, metadata, result, preview and estimate alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import Unprocessable
from app.images import ImageLimits
from app.images.decode import DecodeOptions, decode_file
from app.images.metadata.collecting import turned_orientation
from app.images.metadata.regions import turned_box
from app.options import RestoreOptions
from tests.command_line import run, size_of
from tests.http_service import photo, running

TURNS = (0, 90, 180, 270)


def stored(orientation: int) -> bytes:
    """A PNG of 12 x 8 pixels, all of them different, with an EXIF orientation."""
    pixels = np.arange(12 * 8 * 3, dtype=np.uint16).reshape(8, 12, 3).astype(np.uint8)
    block, target = Image.Exif(), io.BytesIO()
    block[0x0112] = orientation
    Image.fromarray(pixels).save(target, "PNG", exif=block.tobytes())
    return target.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_after_its_own_orientation(orientation: int, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(stored(orientation))
    upright = decode_file(tmp_path / "photo", ImageLimits())
    for rotate in TURNS:
        turned = decode_file(tmp_path / "photo", ImageLimits(), DecodeOptions(rotate=rotate))
        assert np.array_equal(turned.rgb, np.rot90(upright.rgb, -rotate // 90)), rotate
        reread = Image.Exif()
        reread.load(turned.exif or b"")
        assert reread[0x0112] == 1  # else a viewer would turn it once more


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_metadata_turn_with_the_pixels(orientation: int) -> None:
    box = (0.1, 0.3, 0.08, 0.2)
    expected = turned_box(*box, orientation)
    for rotate in TURNS:
        found = turned_box(*box, turned_orientation(orientation, rotate))
        assert found == pytest.approx(expected), rotate
        x, y, width, height = expected
        expected = (1 - y, x, height, width)  # a quarter more, clockwise


@pytest.mark.parametrize("value", ["45", "360", "-90", "1"])
def test_only_quarter_turns_are_taken(value: str) -> None:
    with pytest.raises(Unprocessable, match="rotate"):
        RestoreOptions.from_fields({"rotate": value})


def test_a_job_its_estimate_and_its_original_are_turned(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        job_id = service.submit(photo(40, 30), rotate="90", scale="2")
        (row,) = service.finish(job_id)["results"]
        assert (row["width"], row["height"]) == (60, 80)
        address = f"/api/v1/jobs/{job_id}/original?preview=true"
        with Image.open(io.BytesIO(service.client.get(address).content)) as shown:
            assert shown.size == (30, 40)
        estimate = service.client.get("/api/v1/estimate", params={"size": "40x30", "rotate": 270, "scale": 2}).json()
        assert [(row["width"], row["height"]) for row in estimate["results"]] == [(60, 80)]
        photo_id = service.client.get(f"/api/v1/jobs/{job_id}").json()["attempts"][0]["photo_id"]
        again = service.client.post(
            f"/api/v1/photos/{photo_id}/restore", json={"scale": 2}
        )  # the photo stays as it was
        (row,) = service.finish(again.json()["job_id"])["results"]
        assert (row["width"], row["height"]) == (80, 60)


def test_the_command_turns_too(project: Path) -> None:
    (project / "a.png").write_bytes(photo(40, 30))
    assert run(project, "restore", "a.png", "b.png", "--scale", "1", "--rotate", "90") == 0
    assert size_of(project / "b.png") == (30, 40)

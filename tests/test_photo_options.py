"""`photo_options`: single photos of a submission have options of their own, and all that shows them follows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.http_service import Service, assert_problem, photo, running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("photo-options")) as found:
        yield found


def send(service: Service, own: object, photos: int = 2, **fields: str) -> Any:
    files = [("files", (f"{number}.png", photo(40, 30))) for number in range(photos)]
    data = {**fields, "photo_options": own if isinstance(own, str) else json.dumps(own)}
    return service.client.post("/api/v1/enhance/batch", files=files, data=data)


def finished(service: Service, own: Sequence[object], **fields: str) -> dict[str, Any]:
    answer = send(service, own, len(own), **fields)
    assert answer.status_code == 202, answer.text
    return service.finish(answer.json()["job_id"])


def test_each_photo_is_restored_with_its_own_options(service: Service) -> None:
    job = finished(service, [{"rotate": 90}, {}, {"scale": "3", "output_format": "jpg"}], scale="2")
    assert [(row["width"], row["height"]) for row in job["results"]] == [(60, 80), (80, 60), (120, 90)]
    assert (job["options"]["scale"], job["options"]["rotate"]) == (2, 0)
    rows = job["attempts"]
    assert [row["own_options"] for row in rows] == [{"rotate": 90}, {}, {"scale": 3, "output_format": "jpg"}]
    assert [(row["original_width"], row["original_height"]) for row in rows] == [(30, 40), (40, 30), (40, 30)]
    assert rows[2]["result"]["url"].endswith(".jpg")
    shown = service.client.get(f"/api/v1/photos/{rows[0]['photo_id']}").json()["attempts"][0]
    assert shown["own_options"] == {"rotate": 90, "scale": 2}  # beside the defaults: a photo has no options of its own


def test_the_original_stands_as_the_result_does_in_previews_and_tiles(service: Service) -> None:
    pytest.importorskip("pyvips")
    job = finished(service, [{"rotate": 90}, {}], scale="1")
    for row, size in zip(job["attempts"], [(30, 40), (40, 30)], strict=True):
        for address in ("original?preview=true&", "tile?of=original&", "tile?of=result&"):
            answer = service.client.get(f"/api/v1/jobs/{job['job_id']}/{address}attempt={row['id']}")
            assert answer.status_code == 200, answer.text
            with Image.open(io.BytesIO(answer.content)) as image:
                assert image.size == size, address


def test_tiles_of_two_turns_of_one_photo_are_not_mistaken_for_each_other(service: Service) -> None:
    pytest.importorskip("pyvips")
    first = finished(service, [{}], scale="1")
    photo_id = first["attempts"][0]["photo_id"]
    again = service.client.post(f"/api/v1/photos/{photo_id}/restore", json={"scale": 1, "rotate": 270})
    turned = service.finish(again.json()["job_id"])
    for job, size in ((first, (40, 30)), (turned, (30, 40)), (first, (40, 30))):
        answer = service.client.get(f"/api/v1/jobs/{job['job_id']}/tile?of=original")
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == size


@pytest.mark.parametrize(
    ("own", "code", "words"),
    [
        ("no list", "invalid_option", "JSON list"),
        ({"rotate": 90}, "invalid_option", "JSON list"),
        ([{}, 90], "invalid_option", "JSON list"),
        ("[" * 5000, "invalid_option", "JSON list"),
        ([{}], "invalid_option", "one object for each photo"),
        ([{}, {}, {}], "invalid_option", "one object for each photo"),
        ([{}, {"backend": "siliconflow"}], "invalid_option", "share"),
        ([{}, {"fallback": "local"}], "invalid_option", "share"),
        ([{}, {"rotate": 45}], "invalid_option", "rotate"),
        ([{}, {"turn": 90}], "unknown_option", "turn"),
    ],
)
def test_what_is_no_such_list_is_refused_and_nothing_kept(service: Service, own: object, code: str, words: str) -> None:
    before = service.uploads()
    problem = assert_problem(send(service, own), 422, code)
    assert words in problem["detail"]
    assert service.uploads() == before


def test_a_model_of_one_photo_is_judged_like_that_of_all(service: Service) -> None:
    assert_problem(send(service, [{}, {"model": "absent"}]), 409, "model_not_installed")


def test_the_own_scale_counts_against_the_limits_and_the_photo_is_named(tmp_path: Path) -> None:
    with running(tmp_path, max_output_megapixels=0.02) as service:
        problem = assert_problem(send(service, [{}, {"scale": 8}], scale="2"), 413, "output_too_large")
        assert [row["index"] for row in problem["errors"]] == [1]


def test_an_empty_field_is_none(service: Service) -> None:
    job = service.finish(service.submit(photo(40, 30), photo_options="", scale="2"))
    assert job["attempts"][0]["own_options"] == {}


def test_the_same_key_with_other_own_options_is_another_request(service: Service) -> None:
    def ask(own: str) -> Any:
        files = {"file": ("a.png", photo(40, 30))}
        headers = {"Idempotency-Key": "turned-or-not"}
        return service.client.post("/api/v1/enhance", files=files, data={"photo_options": own}, headers=headers)

    accepted = [ask('[{"rotate": 90}]').json()["job_id"] for _ in range(2)]
    assert accepted[0] == accepted[1]
    assert_problem(ask('[{"rotate": 180}]'), 422, "idempotency_key_reused")

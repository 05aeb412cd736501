"""The routes of damage over HTTP: maps, masks that are sent, the quick look, and every refusal."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.api import schemas
from app.api.routes.damage import DamageLook
from app.backends.local import open_local_backend
from app.jobs.own_masks import options_with_mask
from app.jobs.previewing import SUGGESTED_SHARE
from app.options import RestoreOptions
from app.storage import Beside
from tests import damage_network
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, describe, running
from tests.repairing_backend import RepairingBackend

NOBODY = "0" * 32
WIDTH, HEIGHT = 96, 64
SCRATCH = (slice(8, 56), slice(30, 33))  # rows, columns
DAMAGED = 48 * 3


def describe_repair() -> dict[str, Any]:
    return {**describe(), "repair": {"available": True, "thresholds": {"auto": 0.6, "strong": 0.35}}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with repairing(tmp_path_factory.mktemp("damage")) as made:
        yield made


def repairing(folder: Path, **changes: Any) -> Any:
    return running(folder, backend=RepairingBackend(), describe=describe_repair, **changes)


def backend_of(service: Service) -> RepairingBackend:
    backend = service.restoring.backends["local"]
    assert isinstance(backend, RepairingBackend)
    return backend


def scratched(kind: str = "PNG", **saving: Any) -> bytes:
    """A grey gradient with one white scratch."""
    rgb = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    rgb[...] = np.linspace(40, 160, WIDTH, dtype=np.uint8)[None, :, None]
    rgb[SCRATCH] = 255
    return encoded(rgb, kind, **saving)


def encoded(pixels: Any, kind: str = "PNG", **saving: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, **saving)
    return target.getvalue()


def blank(value: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Any:
    return np.full((height, width), value, np.uint8)


def grey(content: bytes) -> Any:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        assert image.mode == "L"
        return np.asarray(image)


def pixels(service: Service, job: dict[str, Any]) -> Any:
    (result,) = job["results"]
    with Image.open(io.BytesIO(service.client.get(result["url"]).content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def repaired(service: Service, data: bytes | None = None, **fields: str) -> dict[str, Any]:
    asked = {"scale": "1", "repair": "auto", "output_format": "png", **fields}
    return service.finish(service.submit(data or scratched(), **asked))


def send(
    service: Service, job: dict[str, Any], mask: bytes, headers: dict[str, str] | None = None, **fields: str
) -> Any:
    files = {"mask": ("mask.png", mask)}
    return service.client.post(f"/api/v1/jobs/{job['job_id']}/damage", files=files, data=fields, headers=headers)


def again(service: Service, job: dict[str, Any], mask: bytes, **fields: str) -> dict[str, Any]:
    answer = send(service, job, mask, None, **fields)
    assert answer.status_code == 202, answer.text
    schemas.RestoreSubmitted.model_validate(answer.json())
    assert answer.headers["location"] == f"/api/v1/jobs/{answer.json()['job_id']}"
    return service.finish(answer.json()["job_id"])


def masks(service: Service) -> list[str]:
    return [name for name in service.uploads() if name.endswith(".mask")]


# What was found.


def test_a_repaired_photo_shows_what_was_found_and_filled(service: Service) -> None:
    job = repaired(service)
    attempt = job["attempts"][0]
    schemas.JobShape.model_validate(job)
    assert attempt["damage_url"] == f"/api/v1/jobs/{job['job_id']}/damage?attempt={attempt['id']}"
    answer = service.client.get(attempt["damage_url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["cache-control"] == "private, no-store"
    assert "sandbox" in answer.headers["content-security-policy"]
    mask = grey(answer.content)
    assert mask.shape == (HEIGHT, WIDTH)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[SCRATCH] == 255).all()
    report = attempt["result"]["params"]["repair"]
    assert (report["own_mask"], report["kept"]) == (False, True)
    assert float(answer.headers["damage-share"]) == report["share"] == pytest.approx((mask > 0).mean(), abs=1e-6)
    probability = grey(service.client.get(attempt["damage_url"] + "&show=probability").content)
    assert (probability[SCRATCH] > 250).all()
    assert (probability[:, 60:] == 0).all()
    assert np.abs(pixels(service, job)[SCRATCH] - 80).max() < 30  # filled from the gradient


def test_a_turned_photo_has_its_damage_in_its_own_coordinates(service: Service) -> None:
    job = repaired(service, rotate="90")
    mask = grey(service.client.get(job["attempts"][0]["damage_url"]).content)
    assert mask.shape == (WIDTH, HEIGHT)
    assert (np.rot90(mask, 1)[SCRATCH] == 255).all()
    upright = job["attempts"][0]
    assert (upright["original_width"], upright["original_height"]) == (HEIGHT, WIDTH)


def test_a_photo_that_was_not_repaired_has_no_map(service: Service) -> None:
    job = repaired(service, repair="off")
    assert job["attempts"][0]["damage_url"] is None
    path = f"/api/v1/jobs/{job['job_id']}/damage"
    assert_problem(service.client.get(path), 404, "no_damage_map")
    assert_problem(service.client.get(f"{path}?show=faces"), 422, "invalid_parameter")
    assert_problem(service.client.get(f"{path}?attempt={NOBODY}"), 404, "attempt_not_found")
    assert_problem(service.client.get(f"/api/v1/jobs/{NOBODY}/damage"), 404, "job_not_found")


def test_a_map_whose_file_is_gone_or_broken_is_no_fault_of_the_server(service: Service) -> None:
    job = repaired(service)
    (result,) = (path for path in (service.folder / "results").glob(f"{job['attempts'][0]['id']}.damage"))
    result.write_bytes(b"no archive")
    path = f"/api/v1/jobs/{job['job_id']}/damage"
    assert_problem(service.client.get(path), 422, "damage_unreadable")
    result.unlink()
    assert_problem(service.client.get(path), 404, "no_damage_map")


def test_of_a_batch_one_photo_is_named(service: Service) -> None:
    files = [("files", (name, scratched())) for name in ("a.png", "b.png")]
    asked = {"scale": "1", "repair": "auto"}
    job_id = service.client.post("/api/v1/enhance/batch", files=files, data=asked).json()["batch_id"]
    job = service.finish(job_id)
    assert_problem(service.client.get(f"/api/v1/jobs/{job_id}/damage"), 409, "several_results")
    assert_problem(send(service, job, encoded(blank())), 409, "several_results")
    for attempt in job["attempts"]:
        assert service.client.get(attempt["damage_url"]).status_code == 200
    second = job["attempts"][1]
    done = again(service, job, encoded(blank()), attempt=second["id"])
    assert done["attempts"][0]["photo_id"] == second["photo_id"]


def test_what_could_not_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("app.jobs.result_writing.save_damage", fail)
    with repairing(tmp_path) as service:
        job = repaired(service)
        assert job["status"] == "completed"
        assert "damage_not_kept" in [warning["code"] for warning in job["results"][0]["warnings"]]
        assert job["attempts"][0]["damage_url"] is None
        assert_problem(service.client.get(f"/api/v1/jobs/{job['job_id']}/damage"), 404, "no_damage_map")


# A mask that is sent.


def test_a_mask_is_filled_instead_of_what_would_be_found(service: Service) -> None:
    job = repaired(service)
    before, looked = pixels(service, job), backend_of(service).found
    mask = blank()
    mask[10:20, 70:76] = 255
    done = again(service, job, encoded(mask))
    attempt = done["attempts"][0]
    assert backend_of(service).found == looked
    assert attempt["photo_id"] == job["attempts"][0]["photo_id"]
    report = attempt["result"]["params"]["repair"]
    assert (report["own_mask"], report["share"]) == (True, pytest.approx(60 / (WIDTH * HEIGHT), abs=1e-6))
    shown = grey(service.client.get(attempt["damage_url"]).content)
    assert (shown == mask).all()
    after = pixels(service, done)
    assert (after[SCRATCH] == 255).all()  # not marked, so it stays
    assert (after[:, 40:60] == before[:, 40:60]).all()
    assert masks(service)


def test_an_own_mask_is_used_again_where_none_is_sent(service: Service) -> None:
    job = repaired(service)
    url = f"/api/v1/jobs/{job['job_id']}/damage"
    without = {"attempt": (None, job["attempts"][0]["id"])}
    assert job["attempts"][0]["own_mask"] is False
    assert_problem(service.client.post(url, files=without), 422, "no_file")
    mask = blank()
    mask[10:20, 70:76] = 255
    first = again(service, job, encoded(mask))
    (attempt,) = first["attempts"]
    assert attempt["own_mask"] is True
    kept = len(masks(service))
    url = f"/api/v1/jobs/{first['job_id']}/damage"
    answer = service.client.post(url, files={"attempt": (None, attempt["id"])})
    assert answer.status_code == 202, answer.text
    done = service.finish(answer.json()["job_id"])
    assert (grey(service.client.get(done["attempts"][0]["damage_url"]).content) == mask).all()
    assert (done["options"], len(masks(service))) == (first["options"], kept + 1)
    assert service.client.delete(f"/api/v1/jobs/{first['job_id']}").status_code == 200
    assert service.client.get(done["results"][0]["url"]).status_code == 200


@pytest.mark.parametrize("repair", ["off", "strong"])
def test_the_options_stay_and_repair_at_least_auto(service: Service, repair: str) -> None:
    job = repaired(service, repair=repair, scale="2", output_format="webp")
    done = again(service, job, encoded(blank()))
    assert done["options"] == {**job["options"], "repair": "auto" if repair == "off" else repair}


def test_a_mask_of_zeros_changes_nothing_and_a_white_one_everything(service: Service) -> None:
    untouched = pixels(service, repaired(service, repair="off"))
    job = repaired(service)
    assert (pixels(service, again(service, job, encoded(blank()))) == untouched).all()
    done = again(service, job, encoded(blank(255)))
    assert done["status"] == "completed"
    assert done["attempts"][0]["result"]["params"]["repair"]["share"] == 1.0
    assert [warning["code"] for warning in done["results"][0]["warnings"]] == ["much_damage"]


def test_a_mask_of_a_turned_photo_is_in_its_coordinates(service: Service) -> None:
    job = repaired(service, rotate="90")
    assert_problem(send(service, job, encoded(blank())), 422, "mask_wrong_size")
    mask = blank(0, HEIGHT, WIDTH)
    mask[:4] = 255
    done = again(service, job, encoded(mask))
    assert done["options"]["rotate"] == 90
    assert (grey(service.client.get(done["attempts"][0]["damage_url"]).content) == mask).all()


def rgba(alpha: int) -> Any:
    canvas = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    canvas[5:9, 5:9] = (255, 255, 255, alpha)
    return canvas


@pytest.mark.parametrize(
    ("mask", "marked"),
    [
        (encoded(rgba(255)), 16),  # as a canvas writes it
        (encoded(rgba(20)), 0),  # white, and not to be seen
        (encoded(rgba(255)[:, :, :3], "WEBP", lossless=True), 16),
        (encoded(rgba(255)[:, :, 0], "WEBP", quality=90), 16),
        (encoded(rgba(255)[:, :, 0] > 0), 16),  # one bit
        (encoded(blank(127)), 0),
        (encoded(blank(128)), WIDTH * HEIGHT),
    ],
)
def test_greys_of_every_kind_are_taken(service: Service, mask: bytes, marked: int) -> None:
    done = again(service, repaired(service), mask)
    shown = grey(service.client.get(done["attempts"][0]["damage_url"]).content)
    assert np.count_nonzero(shown) == pytest.approx(marked, abs=4 if marked == 16 else 0)


def bomb() -> bytes:
    """A PNG of the right size in its header, with a hundred times the pixels behind it."""
    import struct

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((WIDTH + 1) * HEIGHT * 4000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


REFUSED = {
    "too small": (encoded(blank(0, 95)), 422, "mask_wrong_size"),
    "huge": (encoded(blank(0, 4000, 4000)), 422, "mask_wrong_size"),
    "larger than any photo": (encoded(np.zeros((1, 20_000), np.uint8)), 413, "image_side_too_large"),
    "colours": (encoded(np.dstack([blank(255), blank(), blank()])), 422, "mask_not_grey"),
    "16 bits": (encoded(np.zeros((HEIGHT, WIDTH), np.uint16)), 422, "mask_not_grey"),
    "a JPEG": (encoded(blank(), "JPEG"), 415, "unsupported_format"),
    "a TIFF": (encoded(blank(), "TIFF"), 415, "unsupported_format"),
    "no picture": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
    "cut off": (encoded(np.tile(np.eye(32, dtype=np.uint8) * 255, (2, 3)))[:90], 422, "undecodable_image"),
    "empty": (b"", 422, "empty_file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_mask_is_refused_and_nothing_is_kept(service: Service, what: str) -> None:
    mask, status, code = REFUSED[what]
    job = repaired(service)
    kept = service.uploads()
    assert_problem(send(service, job, mask), status, code)
    assert service.uploads() == kept
    photo = service.client.get(f"/api/v1/photos/{job['attempts'][0]['photo_id']}").json()
    assert len(photo["attempts"]) == 1


def test_a_bomb_is_either_refused_or_costs_no_more_than_its_size(service: Service) -> None:
    job = repaired(service)
    answer = send(service, job, bomb())
    if answer.status_code == 202:
        assert service.finish(answer.json()["job_id"])["status"] == "completed"
    else:
        assert_problem(answer, 422, "undecodable_image")


def test_other_fields_and_other_ways_to_send_are_refused(service: Service) -> None:
    job = repaired(service)
    path, mask = f"/api/v1/jobs/{job['job_id']}/damage", encoded(blank())
    assert_problem(send(service, job, mask, scale="2"), 422, "unknown_option")
    assert_problem(send(service, job, mask, attempt=NOBODY), 404, "attempt_not_found")
    assert_problem(service.client.post(path, files={"file": ("m.png", mask)}), 422, "unknown_file_field")
    assert_problem(service.client.post(path, files=[("mask", ("m.png", mask))] * 2), 413, "too_many_files")
    assert_problem(service.client.post(path, content=mask), 415, "unsupported_media_type")
    assert_problem(send(service, {"job_id": NOBODY}, mask), 404, "job_not_found")
    assert service.client.post("/api/v1/jobs/x/damage", files={"mask": mask}).status_code == 404
    assert not [name for name in service.uploads() if name.endswith(".part")]


def test_a_form_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with repairing(tmp_path, max_file_size_mb=1) as service:
        job = repaired(service)
        assert_problem(send(service, job, bytes(1_100_000)), 413, "file_too_large")
        answer = service.client.post(
            f"/api/v1/jobs/{job['job_id']}/damage",
            files={"mask": ("m.png", b"x")},
            headers={"Content-Length": str(50_000_000)},
        )
        assert_problem(answer, 413, "body_too_large")


def test_the_damage_of_others_is_unknown(tmp_path: Path) -> None:
    with repairing(tmp_path, key=f"{KEY},{OTHER_KEY}") as service:
        job, foreign = repaired(service), {"X-API-KEY": OTHER_KEY}
        path = f"/api/v1/jobs/{job['job_id']}/damage"
        assert_problem(service.client.get(path, headers=foreign), 404, "job_not_found")
        assert_problem(send(service, job, encoded(blank()), foreign), 404, "job_not_found")
        assert service.client.get(path).status_code == 200
        own = service.client.post("/api/v1/enhance", files={"file": scratched()}, headers=foreign).json()
        mine = job["attempts"][0]["id"]
        assert_problem(send(service, own, encoded(blank()), foreign, attempt=mine), 404, "attempt_not_found")
        assert not masks(service)


def test_the_same_request_under_one_key_makes_one_attempt(service: Service) -> None:
    job = repaired(service)
    key, before = {"Idempotency-Key": f"mask-{job['job_id']}"}, len(masks(service))
    first, second = (send(service, job, encoded(blank()), key) for _ in range(2))
    assert first.json() == second.json()
    assert_problem(send(service, job, encoded(blank(255)), key), 422, "idempotency_key_reused")
    service.finish(first.json()["job_id"])
    assert len(masks(service)) == before + 1


def test_while_the_photo_is_in_work_a_mask_waits(tmp_path: Path) -> None:
    with repairing(tmp_path) as service:
        job = repaired(service)
        gate = backend_of(service).gate
        gate.clear()
        held = send(service, job, encoded(blank())).json()
        service.wait_for(held["job_id"], "processing")
        kept = masks(service)
        assert_problem(send(service, job, encoded(blank())), 409, "photo_busy")
        assert_problem(service.client.get(f"/api/v1/jobs/{held['job_id']}/damage"), 409, "not_finished")
        assert masks(service) == kept == [f"{held['attempt_id']}.mask"]
        service.client.delete(f"/api/v1/jobs/{held['job_id']}")
        service.wait_for(held["job_id"], "cancelled")
        assert masks(service) == kept  # the row is there, and so is what came with it
        gate.set()
        assert service.client.delete(f"/api/v1/jobs/{held['job_id']}").json()["status"] == "removed"
        assert not masks(service)


def test_all_files_go_with_the_photo(tmp_path: Path) -> None:
    with repairing(tmp_path) as service:
        job = repaired(service)
        done = again(service, job, encoded(blank(255)))
        results = service.folder / "results"
        assert len(list(results.glob("*.damage"))) == 2
        assert len(masks(service)) == 1
        size = service.context.store.attempt(done["attempts"][0]["id"]).mask_bytes
        assert size == (service.folder / "uploads" / masks(service)[0]).stat().st_size
        service.client.delete(f"/api/v1/photos/{job['attempts'][0]['photo_id']}")
        assert not [path for path in results.iterdir() if path.is_file()]
        assert not service.uploads()


def test_masks_are_for_this_machine_and_for_one_page(tmp_path: Path) -> None:
    cloud = {"siliconflow": RepairingBackend()}
    described = {**describe_repair()}
    described["backends"] = [{**row, "available": True} for row in described["backends"]]
    with running(tmp_path, backend=RepairingBackend(), others=cloud, describe=lambda: described) as service:
        job = service.finish(service.submit(scratched(), backend="siliconflow", scale="1"))
        assert_problem(send(service, job, encoded(blank())), 422, "mask_local_only")


def test_a_photo_that_ran_here_in_the_provider_s_place_can_be_repaired_with_a_mask(service: Service) -> None:
    attempt = service.context.store.attempt(repaired(service, repair="off")["attempts"][0]["id"])
    asked = RestoreOptions(backend="siliconflow", fallback="local", scale=1)
    options = options_with_mask(dataclasses.replace(attempt, options_json=asked.to_json()))
    assert (options.backend, options.repair) == ("local", "auto")


def tiff_of(pages: int) -> bytes:
    pictures = [Image.fromarray(blank(90)) for _ in range(pages)]
    target = io.BytesIO()
    pictures[0].save(target, "TIFF", save_all=True, append_images=pictures[1:])
    return target.getvalue()


def test_a_mask_of_a_tiff_with_all_pages_is_refused_where_it_has_several(service: Service) -> None:
    job = repaired(service, tiff_of(2), pages="all", output_format="tiff", repair="off")
    assert job["status"] == "completed", job
    assert_problem(send(service, job, encoded(blank())), 422, "mask_one_page")
    single = repaired(service, tiff_of(1), pages="all", output_format="tiff", repair="off")
    done = again(service, single, encoded(blank(255)))
    assert done["status"] == "completed"
    assert service.context.store.attempt(done["attempts"][-1]["id"]).params["repair"]["own_mask"]


# The quick look.


def test_a_quick_look_says_how_much_is_damaged_and_keeps_nothing(service: Service) -> None:
    kept = service.uploads()
    answer = service.client.post("/api/v1/damage", files={"file": scratched()})
    assert answer.status_code == 200, answer.text
    DamageLook.model_validate(answer.json())
    assert answer.json()["share"] == pytest.approx(DAMAGED / (WIDTH * HEIGHT), rel=0.5)
    assert answer.json()["suggested"] is True
    clean = service.client.post("/api/v1/damage", files={"file": encoded(blank(90))}).json()
    assert clean == {"share": 0.0, "suggested": False}
    assert SUGGESTED_SHARE > 0
    assert service.uploads() == kept


def test_a_quick_look_is_refused_as_a_preview_is(service: Service, tmp_path: Path) -> None:
    path = "/api/v1/damage"
    assert_problem(service.client.post(path, files={"file": b"no picture"}), 415, "unsupported_format")
    assert_problem(service.client.post(path, files={"file": scratched()}, data={"scale": "2"}), 422, "unknown_option")
    assert_problem(service.client.post(path, content=b"x"), 415, "unsupported_media_type")
    with service.context.previewing.acquire("local"):
        assert_problem(service.client.post(path, files={"file": scratched()}), 429, "too_many_previews")
    with running(tmp_path, describe=describe_repair) as plain:  # whose backend repairs nothing
        assert plain.client.post(path, files={"file": scratched()}).status_code == 409


def test_the_config_says_whether_repair_is_offered(service: Service) -> None:
    offered = service.client.get("/api/v1/config").json()["repair"]
    assert offered == {"available": True, "thresholds": {"auto": 0.6, "strong": 0.35}}


def test_the_local_backend_takes_a_mask_and_a_quick_look(tmp_path: Path) -> None:
    damage_network.install(tmp_path / "weights")
    backend = open_local_backend(tmp_path / "weights", device="cpu")
    with running(tmp_path, backend=backend, describe=backend.describe) as service:
        assert service.client.get("/api/v1/config").json()["repair"]["available"]
        look = service.client.post("/api/v1/damage", files={"file": scratched()}).json()
        assert look["suggested"]
        job = repaired(service, face_enhance="false")
        assert job["attempts"][0]["result"]["params"]["repair"]["share"] == pytest.approx(look["share"], abs=1e-6)
        mask = blank()
        mask[10:20, 70:76] = 255
        report = again(service, job, encoded(mask))["attempts"][0]["result"]["params"]["repair"]
        assert (report["own_mask"], report["share"]) == (True, pytest.approx(60 / (WIDTH * HEIGHT), abs=1e-6))


def test_without_the_network_repair_is_refused_and_not_offered(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        assert service.client.get("/api/v1/config").json()["repair"] == {"available": False}
        assert_problem(service.client.post("/api/v1/damage", files={"file": scratched()}), 409, "repair_unavailable")
        job = repaired(service, repair="off")
        assert_problem(send(service, job, encoded(blank())), 409, "repair_unavailable")
        assert not masks(service)


def test_the_kept_map_lies_beside_the_result_and_counts(service: Service) -> None:
    job = repaired(service)
    attempt = service.context.store.attempt(job["attempts"][0]["id"])
    assert attempt is not None
    assert attempt.result_name is not None
    with service.context.storage.beside(attempt.result_name, Beside.DAMAGE) as path:
        assert attempt.beside_bytes == path.stat().st_size

"""How long a restoration takes: the arithmetic, the queue ahead, and what the route answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.forecast import Estimator, mean_faces, sample_of
from app.api.queue_simulation import QueueForecast, simulate_queue
from app.images import LARGE_PIXELS
from app.main import create_app
from app.options import RestoreOptions
from app.restoration.models.registry import load_module, read_file
from app.restoration.models.table import TABLE
from app.stages import Stage
from app.store import Attempt, AttemptStatus
from app.time_estimate import (
    FILL_MEGAMACS_PER_PIXEL,
    SEARCH_MEGAMACS_PER_PIXEL,
    TILING_SECONDS,
    Machine,
    Pace,
    Sample,
    Work,
    estimate,
    machine_of,
    repair_megamacs_per_pixel,
    repair_share,
    seconds_left,
    work_of,
)
from benchmarks.random_weights import random_state
from tests.harness import until
from tests.http_service import BASE_URL, Service, assert_problem, photo, running, settings_for

DESCRIBED: dict[str, Any] = {
    "default_quality": "fast",
    "precision": "bf16",
    "full_precision_ratio": 4.0,
    "faces": {"model": "GFPGANv1.3", "parsing": True},
    "loaded_models": [["small", "bf16"]],
    "warm_run": {"model": "small", "pixels": 40_000, "seconds": 0.08},
    "qualities": [
        {"quality": "fast", "model": "small", "stands_in_for": None},
        {"quality": "balanced", "model": "large", "stands_in_for": None},
        {"quality": "best", "model": "large", "stands_in_for": None},
    ],
    "models": [
        {"name": "small", "bytes": 5_000_000, "architecture": "compact", "megamacs_per_pixel": 1.0},
        {"name": "large", "bytes": 60_000_000, "architecture": "esrgan", "megamacs_per_pixel": 20.0},
        {"name": "unknown", "bytes": 5, "architecture": None, "megamacs_per_pixel": None},
    ],
}
MACHINE = machine_of(DESCRIBED)
NOTHING_RAN = Pace(MACHINE, [])
PLAIN = RestoreOptions(face_enhance=False)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("service")) as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(service: Service) -> Attempt:
    """A real finished attempt of one megapixel, made to have run the small model in two seconds."""
    service.finish(service.submit(photo(64, 64)))
    attempt: Attempt = service.context.store.recent_completed()[0]
    facts = {"precision": "bf16", "ensemble": False, "planes": 1, "faces": None}
    return dataclasses.replace(attempt, photo_width=1000, photo_height=1000, seconds=2.0, model="small", params=facts)


def test_a_search_for_damage_is_work_of_its_own(finished: Attempt) -> None:
    works = [work_of(MACHINE, 1000, 1000, dataclasses.replace(PLAIN, repair=mode)) for mode in ("off", "auto")]
    assert works[0] is not None
    assert works[1] is not None
    more = works[1].gigamacs - works[0].gigamacs
    assert more == pytest.approx(1000 * (SEARCH_MEGAMACS_PER_PIXEL + FILL_MEGAMACS_PER_PIXEL))
    assert repair_share(1.0, 1000, 1000) == pytest.approx(more / works[1].gigamacs)
    for own_mask, expected in ((False, works[1]), (True, works[0])):
        repaired = dataclasses.replace(finished, params={**finished.params, "repair": {"own_mask": own_mask}})
        sample = sample_of(MACHINE, repaired)
        assert sample is not None
        assert sample.work == expected


def test_a_large_photo_is_searched_reduced() -> None:
    small, large = (repair_megamacs_per_pixel(side, side) for side in (1200, 4800))
    assert small - large == pytest.approx(SEARCH_MEGAMACS_PER_PIXEL * 15 / 16)


def seconds(options: RestoreOptions, pace: Pace = NOTHING_RAN, side: int = 1000, faces: float = 0.0) -> float:
    plan = estimate(MACHINE, pace, side, side, options, faces=faces)
    assert plan is not None
    return plan.restoring


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table_names_the_work_that_a_network_of_its_kind_has(row: Any) -> None:
    if row.name == "nir-embedded-x4":
        _, facts = load_module(read_file(Path("weights") / row.file), row.file)
    else:
        _, facts = load_module(random_state(row.name, 1), row.file)
    assert (row.architecture, row.megamacs_per_pixel) == (facts.architecture, pytest.approx(facts.work, rel=0.001))


def test_the_run_at_the_start_is_scaled_by_multiply_adds_passes_and_precision() -> None:
    fast, balanced, best = (
        seconds(RestoreOptions(face_enhance=False, quality=q)) for q in ("fast", "balanced", "best")
    )
    assert fast == pytest.approx(2.0)  # 0.08 s for 0.04 megapixels
    assert balanced == pytest.approx(20 * fast)
    assert best == pytest.approx(8 * 4 * balanced)


def test_a_model_that_is_named_counts_and_not_the_quality() -> None:
    named = RestoreOptions(face_enhance=False, quality="fast", model="large")
    assert seconds(named) == pytest.approx(seconds(RestoreOptions(face_enhance=False, quality="balanced")))


def test_best_by_default_is_the_work_of_best() -> None:
    machine = machine_of({**DESCRIBED, "default_quality": "best"})
    asked = work_of(machine, 400, 300, RestoreOptions(face_enhance=False, quality="best"))
    assert work_of(machine, 400, 300, PLAIN) == asked
    named = work_of(machine, 400, 300, RestoreOptions(face_enhance=False, model="large"))
    assert asked != named


def test_the_model_s_own_runs_come_first_the_newest_of_them_and_then_its_like() -> None:
    def ran(model: str, took: float) -> Sample:
        cost = MACHINE.models[model]
        return Sample(Work(model, cost.architecture, "bf16", 1000 * cost.megamacs_per_pixel), took)

    own = Pace(MACHINE, [ran("small", 9.0)] * 6 + [ran("small", 1.0)] * 6 + [ran("large", 500.0)])
    assert seconds(PLAIN, own) == pytest.approx(9.0)
    assert seconds(dataclasses.replace(PLAIN, quality="balanced"), own) == pytest.approx(500.0)
    other = Pace(MACHINE, [ran("small", 9.0)])
    assert seconds(dataclasses.replace(PLAIN, quality="balanced"), other) == pytest.approx(180.0)
    plan = estimate(MACHINE, other, 1000, 1000, dataclasses.replace(PLAIN, quality="balanced"))
    assert plan is not None
    assert not plan.is_measured


def test_faces_are_work_and_their_parsing_is_left_out_by_the_fast_quality() -> None:
    without, one = (work_of(MACHINE, 1000, 1000, RestoreOptions(), faces=n) for n in (0, 1))
    assert without is not None
    assert one is not None
    assert one.gigamacs - without.gigamacs == pytest.approx(198.0)
    parsed = work_of(MACHINE, 1000, 1000, RestoreOptions(quality="balanced"), faces=1)
    assert parsed is not None
    assert parsed.gigamacs == pytest.approx(20_000 + 198 + 234)
    off = work_of(MACHINE, 1000, 1000, PLAIN, faces=1)
    assert off is not None
    assert off.gigamacs == without.gigamacs


def test_loading_counts_only_for_what_is_not_loaded_and_saving_by_format() -> None:
    small, large = (estimate(MACHINE, NOTHING_RAN, 1000, 1000, RestoreOptions(model=m)) for m in ("small", "large"))
    assert small is not None
    assert large is not None
    assert small.loading == 0.0
    assert large.loading == pytest.approx(1.0)
    avif = estimate(MACHINE, NOTHING_RAN, 1000, 1000, RestoreOptions(model="small", output_format="avif"))
    assert avif is not None
    assert avif.saving > 10 * small.saving


def test_a_large_result_takes_longer_to_save_where_it_is_cut_into_tiles() -> None:
    tiling = dataclasses.replace(MACHINE, tiled_from_pixels=16_000_000)

    def saving(machine: Machine, side: int) -> float:
        plan = estimate(machine, NOTHING_RAN, side, side, PLAIN)
        assert plan is not None
        return plan.saving

    assert saving(tiling, 1000) == saving(MACHINE, 1000)  # 16 megapixels are not more than 16
    assert saving(tiling, 1001) > saving(MACHINE, 1001) + 0.3
    assert saving(tiling, 5000) == pytest.approx(saving(MACHINE, 5000) + 400 * TILING_SECONDS)


def test_the_service_that_restores_counts_its_tiles_and_another_s_are_not_cut(service: Service, tmp_path: Path) -> None:
    assert service.context.forecast.now()[0].machine.tiled_from_pixels == LARGE_PIXELS
    elsewhere = create_app(settings_for(tmp_path), restores=False)
    with TestClient(elsewhere, base_url=BASE_URL):
        assert elsewhere.state.context.forecast.now()[0].machine.tiled_from_pixels is None


def test_nothing_is_said_of_what_nothing_is_known_of() -> None:
    assert estimate(MACHINE, NOTHING_RAN, 10, 10, RestoreOptions(model="unknown")) is None
    cold = machine_of({})
    assert estimate(cold, Pace(cold, []), 10, 10, RestoreOptions()) is None


def test_what_is_left_goes_over_from_the_plan_to_the_run_s_own_pace() -> None:
    plan = estimate(MACHINE, NOTHING_RAN, 1000, 1000, PLAIN)
    assert plan is not None
    assert seconds_left(plan, Stage.WAITING, 0.0, None) == plan.seconds
    assert seconds_left(plan, Stage.UPSCALING, 0.0, 0.0) == plan.seconds
    early = seconds_left(plan, Stage.UPSCALING, 0.05, 1.0)  # ten times slower than planned, and hardly begun
    assert early == pytest.approx(0.95 * (0.8 * 2.0 + 0.2 * 20.0) + plan.saving)
    assert seconds_left(plan, Stage.FACES, 0.5, 10.0) == pytest.approx(10.0 + plan.saving)
    assert seconds_left(plan, Stage.ENCODING, 1.0, None) == plan.saving


def estimator(machine: Machine = MACHINE) -> Estimator:
    return Estimator(machine, Pace(machine, []), 0.0)


def simulated(attempts: list[Attempt], machine: Machine = MACHINE, cloud_concurrency: int = 1) -> QueueForecast:
    return simulate_queue(estimator(machine).plan, machine.workers, attempts, cloud_concurrency)


def queue_of(finished: Attempt, *changes: dict[str, Any]) -> list[Attempt]:
    return [
        dataclasses.replace(
            finished, **{"id": str(number), "status": AttemptStatus.QUEUED, "stage": "waiting", **change}
        )
        for number, change in enumerate(changes)
    ]


def test_everybody_s_photos_ahead_count_and_a_second_machine_halves_them(finished: Attempt) -> None:
    running = {"status": AttemptStatus.PROCESSING, "stage": "upscaling", "progress": 0.5, "worked_seconds": 1.0}
    attempts = queue_of(finished, running, {}, {}, {})
    one = simulated(attempts)
    plan = estimator().plan(attempts[1])
    assert plan is not None
    assert one.ends["0"] == pytest.approx(1.0 + plan.saving)
    assert one.ends["3"] == pytest.approx(1.0 + 3 * plan.restoring + plan.saving)
    assert one.end_of_new("local", finished.owner, [plan]) == pytest.approx(1.0 + 4 * plan.restoring + plan.saving)
    assert one.end_of_new("siliconflow", finished.owner, [plan]) == pytest.approx(plan.seconds)
    two = simulated(attempts, dataclasses.replace(MACHINE, workers=2))
    assert two.ends["3"] == pytest.approx(1.0 + plan.restoring + plan.restoring - 0.0 + plan.saving, abs=1.1)
    assert two.ends["3"] < one.ends["3"]


def test_what_was_decoded_ahead_waits_for_the_one_in_work(finished: Attempt) -> None:
    ahead = {"status": AttemptStatus.PROCESSING, "stage": "waiting"}
    running = {"status": AttemptStatus.PROCESSING, "stage": "upscaling", "progress": 0.5, "worked_seconds": 5.0}
    line = simulated(queue_of(finished, ahead, running))
    assert line.ends["0"] > line.ends["1"] > 5.0


def test_a_model_is_loaded_once_for_all_that_wait(finished: Attempt) -> None:
    options = json.dumps({**json.loads(finished.options_json), "model": "large"})
    attempts = queue_of(finished, {"options_json": options}, {"options_json": options})
    line = simulated(attempts)
    plan = estimator().plan(attempts[0])
    assert plan is not None
    assert line.ends["1"] == pytest.approx(plan.loading + 2 * plan.restoring + plan.saving)


def test_a_photo_of_unknown_work_hides_what_comes_after_it_in_its_lane_alone(finished: Attempt) -> None:
    options = json.dumps({**json.loads(finished.options_json), "model": "unknown"})
    line = simulated(queue_of(finished, {}, {"options_json": options}, {}, {"backend": "siliconflow"}))
    assert set(line.ends) == {"0", "3"}
    plan = estimator().plan(finished)
    assert plan is not None
    assert line.end_of_new("local", finished.owner, [plan]) is None
    assert line.end_of_new("siliconflow", finished.owner, [plan]) is not None


def test_a_photo_of_another_owner_takes_half_of_the_device_and_waits_for_nobody_s_end(finished: Attempt) -> None:
    long = {"photo_width": 4000, "photo_height": 4000, "owner": "loud"}
    running = {"status": AttemptStatus.PROCESSING, "stage": "upscaling", "progress": 0.0, **long}
    attempts = queue_of(finished, running, long, {"owner": "quiet"}, {"owner": "quiet"}, {"owner": "third"})
    line = simulated(attempts)
    small, large = (estimator().plan(attempts[number]) for number in (2, 0))
    assert small is not None
    assert large is not None
    each = small.restoring
    assert line.ends["2"] == pytest.approx(small.loading + 2 * each + small.saving, abs=0.5)
    assert line.ends["3"] == pytest.approx(line.ends["2"] + 2 * each, abs=0.5)
    assert line.ends["0"] == pytest.approx(large.seconds + 3 * each, abs=0.5)
    mine = line.end_of_new("local", "fourth", [small])
    assert mine == pytest.approx(line.ends["4"], abs=0.5)  # after the third owner, before the second of the quiet one
    queued_behind = line.end_of_new("local", "loud", [small])
    assert queued_behind is not None
    assert queued_behind > 2 * large.restoring


def test_the_pace_of_photos_that_share_the_device_is_not_halved_twice(finished: Attempt) -> None:
    slow = {"status": AttemptStatus.PROCESSING, "stage": "upscaling", "progress": 0.5}
    measured = dataclasses.replace(
        estimator(), pace=Pace(MACHINE, [sample for sample in [sample_of(MACHINE, finished)] if sample])
    )
    plan = measured.plan(finished)
    assert plan is not None
    assert plan.is_measured
    rows = queue_of(finished, *({**slow, "worked_seconds": plan.restoring, "owner": owner} for owner in ("a", "b")))
    together = simulate_queue(measured.plan, 1, rows, 1)
    assert together.ends["0"] == pytest.approx(plan.restoring + plan.saving)
    alone = simulate_queue(measured.plan, 1, rows[:1], 1)
    assert alone.ends["0"] == pytest.approx(plan.restoring + plan.saving)


def test_samples_leave_out_albums_and_copies_and_count_passes_and_faces(finished: Attempt) -> None:
    plain = sample_of(MACHINE, finished)
    assert plain is not None
    assert plain.work is not None
    assert plain.work.gigamacs == pytest.approx(1000.0)
    facts = {**finished.params, "ensemble": True, "planes": 2, "faces": {"parsing": True}}
    faces = ({"restored": True}, {"restored": False})
    rich = sample_of(MACHINE, dataclasses.replace(finished, params=facts, faces=faces))
    assert rich is not None
    assert rich.work is not None
    assert rich.work.gigamacs == pytest.approx(16_000 + 198 + 234)
    pages = finished.options_json.replace('"pages": "first"', '"pages": "all"')
    assert sample_of(MACHINE, dataclasses.replace(finished, options_json=pages)) is None
    assert sample_of(MACHINE, dataclasses.replace(finished, params={"cache": "hit"})) is None
    assert sample_of(MACHINE, dataclasses.replace(finished, model="removed meanwhile")) is None
    cloud = sample_of(MACHINE, dataclasses.replace(finished, backend="siliconflow"))
    assert cloud == Sample(None, 2.0)
    assert mean_faces([finished]) == 0.5  # no photo was looked at for faces yet
    assert mean_faces([dataclasses.replace(finished, params=facts, faces=faces)]) == 1.0


def test_the_route_answers_sizes_qualities_and_seconds(service: Service, finished: Attempt) -> None:
    answer = service.client.get("/api/v1/estimate?size=960x640&size=100x50&scale=2&output_format=png")
    assert answer.status_code == 200
    told = answer.json()
    assert told["results"] == [
        {"width": 1920, "height": 1280, "format": "png"},
        {"width": 200, "height": 100, "format": "png"},
    ]
    assert [row["quality"] for row in told["qualities"]] == ["fast", "balanced", "best"]
    assert told["seconds_ahead"] >= 0.0
    assert told["seconds"] > 0
    assert told["model"] == "lanczos"


def test_a_job_in_work_says_how_long_it_still_takes_and_one_that_ended_nothing(service: Service) -> None:
    service.backend.gate.clear()
    job = service.submit(photo(64, 64))
    service.wait_for(job, "processing")
    working = service.client.get(f"/api/v1/jobs/{job}").json()
    service.backend.gate.set()
    assert working["seconds_left"] is not None
    assert service.finish(job)["seconds_left"] is None


def test_a_photo_read_ahead_is_shown_as_waiting(service: Service) -> None:
    service.backend.gate.clear()
    jobs = [service.submit(photo(64, 64)) for _ in range(2)]
    service.wait_for(jobs[1], "processing")
    until(lambda: service.client.get(f"/api/v1/jobs/{jobs[1]}").json()["stage"] == "waiting")
    service.backend.gate.set()
    assert [service.finish(job)["status"] for job in jobs] == ["completed", "completed"]


def test_the_route_refuses_what_is_no_size_no_option_or_too_large(service: Service) -> None:
    for size in ("960", "0x5", "axb", "-1x5", "5x", "9999999x9999999", "１x２"):
        assert_problem(service.client.get("/api/v1/estimate", params={"size": size}), 422, "invalid_option")
    assert_problem(service.client.get("/api/v1/estimate"), 422, "invalid_parameter")
    assert_problem(service.client.get("/api/v1/estimate?size=5x5&scale=99"), 422, "invalid_option")
    assert_problem(service.client.get("/api/v1/estimate?size=100000x100000"), 413, "output_too_large")

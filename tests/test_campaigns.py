"""The campaigns of `benchmarks/` in small, and that they see what they look for."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from benchmarks import mutated_files, mutated_uploads, soak
from benchmarks.faults import __main__ as faults
from benchmarks.faults.kinds import KINDS, hungry_photo_of
from benchmarks.stand_in_service import stand_in_service


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_damaged_uploads_are_refused_or_restored_by_a_real_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutated_uploads.main(["--files", "40"]) == 0
    found = last_line(capsys)
    assert found["faults"] == []
    assert sum(found["ends"].values()) == 40  # type: ignore[attr-defined]
    assert found["ends"]["job: restored"] > 3  # type: ignore[index]


def test_a_failure_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mutated_uploads, "_OUR_FAULT", frozenset(("undecodable_image",)))
    assert mutated_uploads.main(["--files", "40"]) == 1
    assert last_line(capsys)["faults"]


def test_the_decode_layer_alone_meets_errors_of_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutated_files.main(["--bare", "--files", "60", "--first", "300"]) == 0
    ends = last_line(capsys)["ends"]
    assert ends["decode layer: restored"] > 5  # type: ignore[index]


def samples(growth_mb: float, descriptors: int = 0) -> list[soak.Sample]:
    return [soak.Sample(100 * n, 200 + growth_mb * n / 10, 40 + descriptors * n, 30) for n in range(1, 101)]


def test_the_soak_sees_memory_descriptors_and_slower_submits() -> None:
    level = [0.01] * 4000
    assert soak.faults_of(soak.judge(samples(0.5), level), 0) == []
    assert soak.faults_of(soak.judge(samples(1.5), level), 0) == ["memory grows"]
    assert soak.faults_of(soak.judge(samples(0.0, descriptors=1), level), 0) == ["descriptors grow"]
    slower = [0.01] * 3000 + [0.03] * 1000
    assert soak.faults_of(soak.judge(samples(0.0), slower), 2) == ["2 jobs were not completed", "submits get slower"]


def test_a_fault_counts_unless_its_end_is_documented() -> None:
    def large(chance: random.Random) -> bytes:
        return hungry_photo_of(39_000_000, 6500, "RGBA", "PNG")

    kind = dataclasses.replace(KINDS["memory"], photo=large)
    with kind.surroundings() as surroundings, stand_in_service(**kind.settings) as service:
        documented = faults.Rounds("memory", kind, service, surroundings, 1)
        documented.one()
        strict = faults.Rounds("memory", dataclasses.replace(kind, failures=frozenset()), service, surroundings, 1)
        strict.one()
    assert documented.faults == []
    assert set(documented.ends) == {"failed: decode_memory"}
    assert len(strict.faults) == sum(strict.ends.values())

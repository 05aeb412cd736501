"""The campaign of mutated files in small, and that it sees what it looks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import mutated_files
from benchmarks.mutations import MOST_BYTES, fields, good_files, mutant

SOME = range(400)


def test_a_mutant_follows_from_its_number_and_is_no_good_file() -> None:
    good = {data for _, data in good_files()}
    made = [mutant(1, number) for number in SOME]
    assert made == [mutant(1, number) for number in SOME]
    assert len({data for _, data in made}) > 0.9 * len(SOME)
    assert sum(data in good for _, data in made) < 0.05 * len(SOME)
    assert all(0 < len(data) <= MOST_BYTES for _, data in made)


def test_every_container_is_damaged_and_its_own_lengths_are_known() -> None:
    kinds = {name.split()[0] for name, _ in good_files()}
    assert kinds >= {"png", "jpeg", "webp", "avif", "bmp", "kind", "rich", "large"}
    for name, data in good_files():
        found = list(fields(data))
        assert len(found) >= 2, name
        assert all(start >= 0 and start + size <= len(data) for start, size in found), name


def test_damaged_photos_meet_errors_of_our_own_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    code = mutated_files.main(["--files", "200", "--first", "7000"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["faults"] == []
    assert code == 0
    assert sum(found["ends"].values()) >= 200
    assert found["ends"]["decoder: restored"] > 20


def test_a_strange_exception_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stumble(*_: object) -> None:
        raise KeyError("a tag")

    monkeypatch.setattr(mutated_files, "read_header", stumble)
    monkeypatch.setattr("sys.stdin", ["3\n"])
    assert mutated_files.check_headers(1, tmp_path / "mutant") == 0
    assert "KeyError" in json.loads(capsys.readouterr().out)["fault"]


def test_a_slow_check_is_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mutated_files, "MOST_HEADER_SECONDS", -1.0)
    assert mutated_files.main(["--files", "2"]) == 1
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["faults"]) == 2


def test_the_death_of_the_process_that_checks_is_a_fault_and_the_next_file_is_checked(tmp_path: Path) -> None:
    checker = mutated_files.HeaderChecker(1, tmp_path / "no such folder" / "mutant")  # it cannot write there, and dies
    try:
        assert "died with 1" in (checker.check(1).fault or "")
        (tmp_path / "no such folder").mkdir()
        assert checker.check(1).fault is None
    finally:
        checker.close()


def test_a_mutant_can_be_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutated_files.main(["--seed", "5", "--make", "12", str(tmp_path / "file")]) == 0
    what, data = mutant(5, 12)
    assert capsys.readouterr().out.strip() == what
    assert (tmp_path / "file").read_bytes() == data

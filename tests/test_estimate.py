"""`run.py estimate`: seconds are measured by a real network, and the table is arithmetic on them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from app.commands.estimate import Cost, make_picture, read_costs, table_of
from app.errors import BadRequest
from tests.command_line import put_photo, run

COST = Cost("Card A", "fast", "net", "fp16", 4.0, 2.0, 3.0, 0.5)


def test_a_dollar_pays_for_the_seconds_of_an_hour_by_its_price() -> None:
    assert COST.seconds_per_megapixel == 1.5
    assert COST.photos_per_dollar == 3600 / 3.0 / 0.5


def test_the_made_picture_has_its_size_and_is_always_the_same() -> None:
    picture = make_picture(0.5)
    assert picture.width * picture.height == pytest.approx(500_000, rel=0.01)
    assert (picture.rgb == make_picture(0.5).rgb).all()
    assert picture.rgb.std() > 10


def test_this_machine_is_measured_and_stands_beside_earlier_ones(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["estimate", "--dollars-per-hour", "0.36", "--quality", "fast", "--scale", "2", "--megapixels", "0.01"]
    assert run(project, *words, "--record", "costs.jsonl") == 0
    (first,) = read_costs(project / "costs.jsonl")
    assert first.seconds > 0
    assert first.megapixels == pytest.approx(0.01, rel=0.1)
    assert (first.quality, first.scale, first.dollars_per_hour) == ("fast", 2.0, 0.36)
    said = capsys.readouterr().out
    assert first.model in said
    assert f"{first.photos_per_dollar:,.0f} of" in said
    put_photo(project / "mine.png")
    assert run(project, *words, "--record", "costs.jsonl", "--photo", "mine.png") == 0
    rows = read_costs(project / "costs.jsonl")
    assert rows[0] == first
    assert rows[1].megapixels == 24 * 16 / 1e6
    assert capsys.readouterr().out.count(first.machine[:20]) == 2


def test_the_cheapest_comes_first() -> None:
    dear = Cost("Card B", "fast", "net", "fp16", 4.0, 2.0, 1.0, 4.0)
    target = io.StringIO()
    Console(file=target, width=200).print(table_of([dear, COST]))
    assert target.getvalue().index("Card A") < target.getvalue().index("Card B")


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"machine": "a"}', json.dumps({**vars(COST), "seconds": 0})])
def test_a_file_of_something_else_is_refused_and_kept(
    project: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / "other.txt"
    file.write_text(line + "\n")
    with pytest.raises(BadRequest, match=r"other\.txt"):
        read_costs(file)
    assert run(project, "estimate", "--dollars-per-hour", "1", "--record", "other.txt") == 1
    assert file.read_text() == line + "\n"
    assert "other.txt" in capsys.readouterr().err


@pytest.mark.parametrize("price", ["0", "-1", "nan", "inf", "much"])
def test_a_price_is_a_number_above_zero(project: Path, price: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(project, "estimate", f"--dollars-per-hour={price}")
    assert "--dollars-per-hour" in capsys.readouterr().err

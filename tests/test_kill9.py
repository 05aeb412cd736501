"""Kill -9 at any moment: no accepted job lost, no half result. PostgreSQL has a file of its own, tested beside this."""

from __future__ import annotations

from tests.fault_changes import POINTS
from tests.kill_campaign import assert_nothing_is_lost, campaign


def test_nothing_is_lost_at_random_moments_and_at_every_named_point() -> None:
    assert_nothing_is_lost("sqlite")


def test_the_campaign_sees_a_row_that_is_written_before_its_file() -> None:
    code, said = campaign("--kills", "0", "--points", "completed", "--wrong-order")
    assert code == 1
    assert any(fault.startswith("half result") for fault in said["faults"])


def test_nothing_is_lost_while_results_change() -> None:
    """While faces are blended anew, jobs are deleted, and the janitor expires what is old."""
    code, said = campaign("--kills", "2", "--rounds", "1", module="benchmarks.kill9_changes")
    assert said["faults"] == []
    assert (code, said["points"], said["kills"]) == (0, len(POINTS), len(POINTS) + 2)
    assert said["looked_for"] > 0

"""Kill -9 at any moment of a service on PostgreSQL: no accepted job lost, no half result."""

from __future__ import annotations

from tests.databases import needs_postgres
from tests.kill_campaign import assert_nothing_is_lost


@needs_postgres
def test_nothing_is_lost_at_random_moments_and_at_every_named_point() -> None:
    assert_nothing_is_lost("postgres")

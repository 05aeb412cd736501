"""A clock of this process as an expression of a statement, for a database that has none of its own."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, Float, bindparam


def clock_reading(clock: Callable[[], float]) -> ColumnElement[float]:
    """What the clock says (epoch seconds) when the statement is executed, so that statements can be built once."""
    return bindparam("moment", callable_=clock, type_=Float, unique=True)

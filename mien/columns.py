"""What the tables of the ledger are made of: times, keys, counters, words."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Float, Integer

from mien.stage_times import TIME_FIELDS


class Moment(sa.TypeDecorator[dt.datetime]):
    """A time in UTC: ``timestamptz`` on PostgreSQL, ISO text (which sorts) on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """To the database: refuse a time without a zone, store UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("times need a zone")
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """From the database: always aware, always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


# SQLite gives automatic keys only to INTEGER columns.
Key = BigInteger().with_variant(Integer, "sqlite")


def counter(name: str) -> Column[Any]:
    """A number that starts at 0."""
    return Column(name, BigInteger, nullable=False, server_default="0")


def stage_times() -> list[Column[Any]]:
    """Seconds per stage, worked and waited: see mien/stage_times.py."""
    return [Column(name, Float, nullable=False, server_default="0") for name in TIME_FIELDS]


def one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    """The column holds one of these words."""
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=column)

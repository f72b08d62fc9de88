"""Promises in their short form on (SQLite, embedded); ``make torture`` runs all in full size, on both ways.

Each test names the guard that makes its promise hold; each was seen to fail with that guard taken out.
"""

from __future__ import annotations

import pytest

from tests.reliability.promises import Keep

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(400)]


@pytest.mark.long
def test_02_the_broker_may_die(keep: Keep) -> None:
    """Guard: mien/control.py, ``Control.sweep`` (rings again where work is due)."""
    keep(2, "embedded")


@pytest.mark.long
def test_03_the_broker_may_be_down_at_submission(keep: Keep) -> None:
    """Guard: web/doorbell.py, ``Doorbell.ring`` (a thread of its own, so that no request waits for the broker)."""
    keep(3, "embedded")


@pytest.mark.torch
@pytest.mark.long
def test_07_the_device_may_run_out_of_memory(keep: Keep) -> None:
    """Guard: worker/device_batches.py, ``BatchSize.too_large`` (the batch halves)."""
    keep(7, "embedded")


@pytest.mark.long
def test_09_the_database_may_go_away(keep: Keep) -> None:
    """Guard: mien/database.py, ``_translated`` (503 instead of a fault) and ``SQLITE_BUSY_TIMEOUT_MS``."""
    keep(9, "embedded")


@pytest.mark.long
def test_10_the_disk_may_fill(keep: Keep) -> None:
    """Guard: mien/uploads.py, ``_Writing.announced`` (room is counted before each block, over all uploads)."""
    keep(10, "embedded")


@pytest.mark.long
def test_11_the_same_key_makes_one_job(keep: Keep) -> None:
    """Guard: mien/ledger/submit.py, ``submit`` (the unique constraint lets one through, the others get its answer)."""
    keep(11, "embedded")


@pytest.mark.long
def test_13_the_share_may_go_away(keep: Keep) -> None:
    """Guard: mien/sources.py, ``_open_root`` (an image is missing only from the folder that the job named)."""
    keep(13, "embedded")


@pytest.mark.long
def test_15_the_laptop_may_sleep(keep: Keep) -> None:
    """Guard: mien/ledger/sweep.py, ``Patience`` (leases that ran out while everything stood still are left alone)."""
    keep(15, "embedded")

"""Promises in their short form on (PostgreSQL, Redis); ``make torture`` runs all in full size, on both ways.

Each test names the guard that makes its promise hold; each was seen to fail with that guard taken out.
"""

from __future__ import annotations

import pytest

from tests.reliability.promises import Keep

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.timeout(400),
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.long,
]


def test_01_exactly_once(keep: Keep) -> None:
    """Guard: mien/ledger/sweep.py, ``take_back_expired`` (what a killed worker held comes back)."""
    keep(1, "production")


def test_04_any_step_may_crash(keep: Keep) -> None:
    """Guard: mien/ledger/expand.py, ``write_slice`` (what is there already is skipped, under the job's lease)."""
    keep(4, "production")


def test_05_shutdown_is_gentle(keep: Keep) -> None:
    """Guard: worker/classify.py, ``Classifying._give_up`` (hands the chunk back, uncharged)."""
    keep(5, "production")


def test_06_a_poison_image_costs_itself(keep: Keep) -> None:
    """Guard: worker/supervisor.py, ``EnginePool._on_end`` (images of an ended engine go on, suspects alone)."""
    keep(6, "production")


def test_08_a_late_worker_writes_nothing(keep: Keep) -> None:
    """Guard: mien/ledger/commit.py, ``commit_chunk`` (the fencing token has to match)."""
    keep(8, "production")


def test_09_postgresql_may_be_restarted(keep: Keep) -> None:
    """Guard: mien/database.py, ``_translated`` (503 instead of a fault) and ``SQLITE_BUSY_TIMEOUT_MS``."""
    keep(9, "production")


def test_12_backups_restore(keep: Keep) -> None:
    """Guard: mien/ledger/restored.py, ``settle`` (leases, places); mien/erasure.py, ``apply_again`` (deletions)."""
    keep(12, "production")


def test_14_commits_do_not_deadlock(keep: Keep) -> None:
    """Guard: mien/ledger/purge.py and the others: chunks first, by id, the job last."""
    keep(14, "production")

"""Every promise of docs/promises.md in its short form. ``make torture`` runs the full ones, on both ways to run Mien.

Each test names the guard that makes its promise hold; each was seen to fail with that guard taken out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.reliability import torture
from tests.reliability.promises import PROMISES, Trial
from tests.reliability.systems import System, running
from tests.support.machine import ROOT

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(400)]

Keep = Callable[[int, str], str]
EMBEDDED = pytest.param("embedded", marks=pytest.mark.long)
QUICK = "embedded"
PRODUCTION = pytest.param("production", marks=[pytest.mark.postgres, pytest.mark.redis, pytest.mark.long])


@pytest.fixture(scope="session")
def system_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], System]]:
    """The systems that run; each is started once, by whoever needs it first."""
    systems: dict[str, System] = {}
    with ExitStack() as running_systems:

        def get(way: str) -> System:
            if way not in systems:
                systems[way] = running_systems.enter_context(running(way, tmp_path_factory.mktemp(way) / "system"))
            return systems[way]

        yield get


@pytest.fixture
def keep(system_of: Callable[[str], System], tmp_path: Path) -> Keep:
    """Tries one promise in its short form, one way to run Mien; gives its figures."""
    return lambda number, way: PROMISES[number].keep(Trial(system_of(way), False, tmp_path, random.Random(7)))


@pytest.mark.parametrize("way", [EMBEDDED, PRODUCTION])
def test_01_exactly_once(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/sweep.py, ``take_back_expired`` (what a killed worker held comes back)."""
    keep(1, way)


@pytest.mark.parametrize("way", [QUICK, PRODUCTION])
def test_02_the_broker_may_die(keep: Keep, way: str) -> None:
    """Guard: mien/control.py, ``Control.sweep`` (rings again where work is due)."""
    keep(2, way)


@pytest.mark.parametrize("way", [EMBEDDED, PRODUCTION])
def test_03_the_broker_may_be_down_at_submission(keep: Keep, way: str) -> None:
    """Guard: web/doorbell.py, ``Doorbell.ring`` (a thread of its own, so that no request waits for the broker)."""
    keep(3, way)


@pytest.mark.parametrize("way", [EMBEDDED])
def test_04_any_step_may_crash(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/expand.py, ``write_slice`` (what is there already is skipped, under the job's lease)."""
    keep(4, way)


@pytest.mark.parametrize("way", [PRODUCTION])
def test_05_shutdown_is_gentle(keep: Keep, way: str) -> None:
    """Guard: worker/classify.py, ``Classifying._give_up`` (hands the chunk back, uncharged)."""
    keep(5, way)


@pytest.mark.parametrize("way", [EMBEDDED])
def test_06_a_poison_image_costs_itself(keep: Keep, way: str) -> None:
    """Guard: worker/supervisor.py, ``EnginePool._on_end`` (images of an ended engine go on, suspects alone)."""
    keep(6, way)


@pytest.mark.torch
@pytest.mark.parametrize("way", [EMBEDDED])
def test_07_the_device_may_run_out_of_memory(keep: Keep, way: str) -> None:
    """Guard: worker/device_batches.py, ``BatchSize.too_large`` (the batch halves)."""
    keep(7, way)


@pytest.mark.parametrize("way", [PRODUCTION])
def test_08_a_late_worker_writes_nothing(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/commit.py, ``commit_chunk`` (the fencing token has to match)."""
    keep(8, way)


@pytest.mark.parametrize("way", [EMBEDDED, PRODUCTION])
def test_09_the_database_may_go_away(keep: Keep, way: str) -> None:
    """Guard: mien/database.py, ``_translated`` (503 instead of a fault) and ``SQLITE_BUSY_TIMEOUT_MS``."""
    keep(9, way)


@pytest.mark.parametrize("way", [EMBEDDED])
def test_10_the_disk_may_fill(keep: Keep, way: str) -> None:
    """Guard: mien/uploads.py, ``_Writing.announced`` (room is counted before each block, over all uploads)."""
    keep(10, way)


@pytest.mark.parametrize("way", [QUICK, PRODUCTION])
def test_11_the_same_key_makes_one_job(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/submit.py, ``submit`` (the unique constraint lets one through, the others get its answer)."""
    keep(11, way)


@pytest.mark.parametrize("way", [EMBEDDED, PRODUCTION])
def test_12_backups_restore(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/restored.py, ``settle`` (leases, places); mien/erasure.py, ``apply_again`` (deletions)."""
    keep(12, way)


@pytest.mark.parametrize("way", [EMBEDDED])
def test_13_the_share_may_go_away(keep: Keep, way: str) -> None:
    """Guard: mien/sources.py, ``_open_root`` (an image is missing only from the folder that the job named)."""
    keep(13, way)


@pytest.mark.parametrize("way", [PRODUCTION])
def test_14_commits_do_not_deadlock(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/purge.py and the others: chunks first, by id, the job last."""
    keep(14, way)


@pytest.mark.parametrize("way", [QUICK, PRODUCTION])
def test_15_the_laptop_may_sleep(keep: Keep, way: str) -> None:
    """Guard: mien/ledger/sweep.py, ``Patience`` (leases that ran out while everything stood still are left alone)."""
    keep(15, way)


def test_every_promise_has_its_trial_its_test_and_its_place_in_the_page() -> None:
    assert torture.TRIALS
    assert sorted(PROMISES) == list(range(1, 16))
    page = (ROOT / "docs" / "promises.md").read_text()
    tests = {name: test for name, test in globals().items() if re.match(r"test_\d\d_", name)}
    for number, promise in PROMISES.items():
        assert f"{number}. **{promise.name}" in page
        (test,) = [test for name, test in tests.items() if name.startswith(f"test_{number:02}_")]
        guard = re.search(r"Guard: ([\w/.]+)", test.__doc__ or "")
        assert guard is not None
        assert (ROOT / guard.group(1)).exists()
        assert guard.group(1) in page

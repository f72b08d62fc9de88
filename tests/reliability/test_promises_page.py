"""docs/promises.md names each promise, its guard and its test; the guards are where it says."""

from __future__ import annotations

import re

from tests.reliability import test_promises_embedded, test_promises_production, torture
from tests.reliability.promises import PROMISES
from tests.support.machine import ROOT


def test_every_promise_has_its_trial_its_test_and_its_place_in_the_page() -> None:
    assert torture.TRIALS
    assert sorted(PROMISES) == list(range(1, 16))
    page = (ROOT / "docs" / "promises.md").read_text()
    modules = (test_promises_embedded, test_promises_production)
    tests = {name: test for module in modules for name, test in vars(module).items() if name.startswith("test_")}
    for number, promise in PROMISES.items():
        assert f"{number}. **{promise.name}" in page
        found = {name: test for name, test in tests.items() if name.startswith(f"test_{number:02}_")}
        assert any(f"`{name}`" in page for name in found), f"no test of promise {number} is in the page"
        for test in found.values():
            guard = re.search(r"Guard: ([\w/.]+)", test.__doc__ or "")
            assert guard is not None
            assert (ROOT / guard.group(1)).exists()
            assert guard.group(1) in page

"""Where this checkout is, and one rule for what a machine lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "samples"


def lacking(reason: str) -> NoReturn:
    """End this test: failed in CI (``CI`` is set), where nothing may be missing; skipped elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so nothing may be missing)")
    pytest.skip(reason)

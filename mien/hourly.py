"""Something that needs doing once an hour, whoever gets to it: a mark in the folder that it is about."""

from __future__ import annotations

import time
from pathlib import Path

HOUR_S = 3600.0


def is_due(folder: Path) -> bool:
    """Whether an hour has passed since this last said yes for ``folder``; no where the folder is not there."""
    mark = folder / ".looked"
    try:
        if time.time() - mark.stat().st_mtime < HOUR_S:
            return False
    except FileNotFoundError:
        if not folder.exists():
            return False
    mark.touch(mode=0o600)
    return True

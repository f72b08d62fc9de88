"""Which commands of the pages a test only reads instead of running them, and why."""

from __future__ import annotations

import re
from typing import NamedTuple


class ReadOnly(NamedTuple):
    """Commands that ``pattern`` finds (at the beginning) are checked word by word but not run."""

    pattern: str
    why: str


READ_ONLY = (
    ReadOnly(r"make (?!demo\b)", "tests, measures, builds or asks the package index: minutes, or a changed tree"),
    ReadOnly(r"pip install ", "needs the package index; that the extra exists is checked"),
    ReadOnly(r"mien up ", "runs until Ctrl-C; the tests that run commands talk to one"),
    ReadOnly(r"gunicorn |celery -A worker worker ", "runs until it is stopped; its words are those that tests start"),
    ReadOnly(r"MIEN_DEVICE=cuda celery ", "needs a GPU"),
    ReadOnly(r"(PHOTOS=\S+ )?docker ", "needs a Docker engine; tests/unit/cli/test_compose.py reads the file"),
    ReadOnly(
        r"export (MIEN_(DATABASE_URL|DATA_DIR|BOOTSTRAP_KEY|ROOTS|S3_ENDPOINT_URL)=)",
        "addresses of an example's servers",
    ),
    ReadOnly(r"journalctl ", "needs systemd"),
    ReadOnly(r"mien classify s3://", "tests/end_to_end/test_object_storage.py runs it against an S3 server"),
    ReadOnly(
        r"(MIEN_DATA=\S+ (MIEN_TEACHER=\S+ )?)?mien (explore|train|package|evaluate|models add) ",
        "needs torch and minutes; tests/integration/training runs each in small",
    ),
    ReadOnly(r"python -m (training|benchmarks|tests)\.", "measures: data sets, torch, minutes to hours"),
)


def is_read_only(command: str) -> bool:
    """Whether no test runs this command."""
    return any(re.match(rule.pattern, command) for rule in READ_ONLY)

"""Named points at which a process can be made to crash or to stand still, so that tests can show what comes after.

``MIEN_FAULT_POINTS`` names a folder. A process that comes to a point looks there for a file of the point's name;
whoever removes it first does what it says: ``crash`` (SIGKILL, as the kernel would) or ``freeze`` (SIGSTOP, as a lid
that is closed). Without the variable a point is one comparison and nothing more.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "MIEN_FAULT_POINTS"
POINTS = (
    "after_submit",  # web: the job is written down, its answer is not yet sent
    "unpacking",  # web: files of an upload lie on the disk and are not written down
    "exporting",  # web: a part of an export is out
    "expanding",  # control: a slice of the walk is committed
    "retrying",  # control: a slice of the failed images is pending again
    "cancelling",  # control: a slice of the waiting images is cancelled
    "deleting",  # control: a slice of a job's rows is gone
    "after_delete",  # control: rows and uploads of a job are gone, the job itself is not
    "erasing",  # control: a slice of an erasure is gone
    "after_lease",  # worker: a chunk was leased, nothing of it done
    "after_decode",  # engine: images are decoded, their faces found
    "after_classify",  # engine: images are classified, nobody was told
    "in_commit",  # worker: everything of a chunk is written, the transaction is open
    "before_commit",  # worker: a chunk's outcomes are known, none is written
    "after_commit",  # worker: a chunk is committed, nothing else has happened
)
_FOLDER = os.environ.get(VARIABLE)


def fault_point(name: str) -> None:
    """Crash or stand still here, if a test asks for it."""
    if _FOLDER is not None:
        _act(Path(_FOLDER) / name)


def _act(order: Path) -> None:
    try:
        what = order.read_text()
        order.unlink()  # of several processes exactly one succeeds
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if what == "freeze" else signal.SIGKILL)

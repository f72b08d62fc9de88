"""Where the files are that ship with Mien: beside the package in a checkout, inside ``mien/_data`` in the wheel."""

from __future__ import annotations

from pathlib import Path

from mien.errors import MienError

PACKAGE = Path(__file__).resolve().parent


class MissingResourceError(MienError):
    """A file that ships with Mien is not there: the installation is damaged."""

    code = "missing_resource"
    title = "The installation of Mien is not complete"


def resource(name: str) -> Path:
    """The file or folder that ships as ``name`` (``migrations``, ``samples``, ``models/default``).

    Raises:
        MissingResourceError: it is not there.
    """
    for base in (PACKAGE / "_data", PACKAGE.parent):
        if (base / name).exists():
            return base / name
    raise MissingResourceError(
        f"{name!r} is missing from this installation of Mien (looked in {PACKAGE / '_data'} and {PACKAGE.parent}). "
        "Install Mien again."
    )

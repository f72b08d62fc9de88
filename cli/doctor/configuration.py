"""What the user chose: the variables, the data folder, the folders of photographs, the address."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.doctor.finding import Finding

if TYPE_CHECKING:
    from mien.settings import Root, Settings

GIB = 1 << 30
LITTLE_SPACE_BYTES = GIB
LIKE = 0.8
"""Ratio of likeness (difflib) from which a strange variable is taken for a known one misspelt."""


def variables() -> Iterator[Finding]:
    """Variables that Mien does not know: a misspelt one leaves its setting at the default, in silence."""
    from mien.faults import VARIABLE
    from mien.settings import Settings

    known = [f"MIEN_{name.upper()}" for name in Settings.model_fields]
    others = {"MIEN_SHARED", VARIABLE}
    strange = sorted(n for n in os.environ if n.startswith("MIEN_") and n.upper() not in known and n not in others)
    for name in strange:
        like = difflib.get_close_matches(name, known, n=1, cutoff=LIKE)
        found = f"{name} means nothing to Mien"
        if like:
            yield Finding("bad", "settings", f"{found}; {like[0]} does", f"rename it to {like[0]}, or unset it")
        else:
            yield Finding("note", "settings", found, "`mien settings` lists what does; unset it")
    if VARIABLE in os.environ:
        yield Finding("note", "settings", f"{VARIABLE} lets tests make Mien crash on purpose", "unset it")
    if not strange:
        yield Finding("ok", "settings", "every MIEN_ variable is known")


def data_folder(settings: Settings) -> Iterator[Finding]:
    """Whether the data folder can be made and written, and whether its disk has room."""
    folder = settings.data_dir
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    trouble = _not_writable(there)
    if trouble:
        what = f"{folder} cannot be written" if there == folder else f"{folder} cannot be made in {there}"
        mend = "name another in MIEN_DATA_DIR, or let this user own it (was Mien run with sudo once?)"
        yield Finding("bad", "data folder", f"{what} ({trouble})", mend)
        return
    yield Finding("ok", "data folder", f"{folder} can be written" if folder.exists() else f"{folder} (not made yet)")
    foreign = next((path for path in _kept_files(folder) if not os.access(path, os.W_OK)), None)
    if foreign is not None:
        mend = f"let this user own everything in it: sudo chown -R $(id -un) {folder}"
        yield Finding("bad", "data folder", f"{foreign} cannot be written (it is another user's)", mend)
    free = shutil.disk_usage(there).free
    shown = f"{free / GIB:.1f} GiB free for {folder}"
    if free < max(LITTLE_SPACE_BYTES, settings.min_free_bytes):
        kept = f"; uploads are refused below {settings.min_free_bytes / GIB:.1f} GiB (MIEN_MIN_FREE_BYTES)"
        yield Finding("bad", "disk", shown + kept, "make room, or name a folder elsewhere in MIEN_DATA_DIR")
    else:
        yield Finding("ok", "disk", shown)


def _not_writable(folder: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return os.strerror(error.errno or 0)


def _kept_files(folder: Path) -> Iterator[Path]:
    """What Mien has to write that an earlier run made."""
    for name in ("mien.sqlite3", "models", "uploads", "run", "logs"):
        if (folder / name).exists():
            yield folder / name


def roots(settings: Settings) -> Iterator[Finding]:
    """Whether every folder and prefix that jobs may name is there and can be read."""
    if not settings.roots:
        found = "none: pages and API may read no folder (`mien classify FOLDER` may)"
        yield Finding("ok", "roots", found)
    for root in settings.roots:
        yield _object_storage(settings, root) if isinstance(root, str) else _folder(root)


def _folder(root: Path) -> Finding:
    shown = f"{root} of MIEN_ROOTS"
    if not root.exists():
        mend = "correct MIEN_ROOTS, or mount what should be there"
        if "," in root.name or "," in str(root.parent):
            mend = f"separate folders by {os.pathsep!r}, not by a comma"
        return Finding("bad", "roots", f"{shown} is not there", mend)
    if not root.is_dir():
        return Finding("bad", "roots", f"{shown} is not a folder", "name the folder that holds the photographs")
    try:
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        mend = "let the user that Mien runs as read it (r and x on the folder and on those above it)"
        return Finding("bad", "roots", f"{shown} cannot be read ({os.strerror(error.errno or 0)})", mend)
    if empty:
        return Finding("note", "roots", f"{shown} is empty", "is a disk or share not mounted there?")
    return Finding("ok", "roots", f"{shown} can be read")


def _object_storage(settings: Settings, root: Root) -> Finding:
    from mien.objects import StoreAwayError, bucket_of, object_store

    try:
        object_store(settings).check(bucket_of(os.fsencode(root)))
    except StoreAwayError as away:
        mend = "see docs/operator.md, Object storage: the extra mien[s3], credentials, MIEN_S3_ENDPOINT_URL"
        return Finding("bad", "object storage", f"{root}: {away.reason}", mend)
    return Finding("ok", "object storage", f"{root} can be listed")


def port(settings: Settings) -> Iterator[Finding]:
    """Whether the front end could listen where it should, or does so already."""
    from cli.embedded.listening import bound
    from cli.embedded.state import RunFiles
    from mien.errors import UnavailableError

    where = f"{settings.host}:{settings.port}"
    if RunFiles(settings.data_dir).read_running() is not None:
        return  # it has its port; the finding `running` says which
    try:
        bound(settings.host, settings.port).close()
    except UnavailableError as error:
        if settings.port and _is_mien(settings):
            if settings.database_url:
                yield Finding("ok", "port", f"a Mien answers at {where}")
                return
            mend = "stop that one, use it as it is (MIEN_URL), or choose another port: MIEN_PORT=0 takes a free one"
            yield Finding("bad", "port", f"another Mien, with another data folder, answers at {where}", mend)
            return
        yield Finding("bad", "port", error.detail, "correct MIEN_HOST and MIEN_PORT, or stop what is in the way")
    else:
        yield Finding("ok", "port", f"{where} is free" if settings.port else "any free one (MIEN_PORT=0)")


def _is_mien(settings: Settings) -> bool:
    """Whether what listens at our address is a Mien."""
    import requests

    everywhere = not settings.host.strip("0.:")  # 0.0.0.0 and ::
    host = "localhost" if everywhere else f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy
            answer = session.get(f"http://{host}:{settings.port}/healthz", timeout=1).json()
    except (requests.RequestException, ValueError):
        return False
    return isinstance(answer, dict) and answer.keys() == {"status", "version"}

"""The images of a job that a deletion names: by the names that the API shows, or by the hashes of an erasure log."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from mien.database import Database
from mien.erasure_log import name_hash
from mien.paths import exact_name
from mien.schema import images, uploads

PATHS_PER_PAGE = 5000


def paths_named(connection: sa.Connection, job_id: int, names: list[str]) -> list[bytes]:
    """The paths of the job's images and uploads that the API shows under these names."""
    plain = {name.encode("utf-8", "surrogateescape") for name in names}
    found: set[bytes] = set()
    for table in (images, uploads):
        found |= set(
            connection.execute(
                sa.select(table.c.path).where(table.c.job_id == job_id, table.c.path.in_(plain))
            ).scalars()
        )
    # a name that is not UTF-8 is shown escaped
    escaped = [name for name in names if name.encode("utf-8", "surrogateescape") not in found and "\\" in name]
    for table in (images, uploads) if escaped else ():
        rows = connection.execute(
            sa.select(table.c.path).where(table.c.job_id == job_id, table.c.path_text.in_(escaped))
        ).scalars()
        found |= {path for path in rows if exact_name(path) in escaped}
    return sorted(found)


def paths_hashed(db: Database, receipt: str, job_id: int, hashes: Collection[str]) -> list[bytes]:
    """The paths of the job's images and uploads that stand as these hashes in an erasure log."""
    wanted = set(hashes)
    found: set[bytes] = set()
    for table in (images, uploads):
        after = b""
        while True:
            page = sa.select(table.c.path).where(table.c.job_id == job_id, table.c.path > after)
            with db.read() as connection:
                paths = connection.execute(page.order_by(table.c.path).limit(PATHS_PER_PAGE)).scalars().all()
            if not paths:
                break
            found |= {path for path in paths if name_hash(receipt, path) in wanted}
            after = paths[-1]
    return sorted(found)

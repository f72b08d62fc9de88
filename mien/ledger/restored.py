"""What a restored ledger holds of the place it came from is put right: leases, workers, where things lie."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from mien.database import Database
from mien.schema import chunks, jobs, workers


def settle(
    db: Database, place_of_uploads: Callable[[str], tuple[bytes, str]], identity_of: Callable[[bytes], str | None]
) -> int:
    """Make a ledger that was copied in the midst of its work fit to go on here; gives the jobs that are not done.

    Whoever held a lease stayed behind: chunks are due again, uncharged. Uploads lie in the data folder of this Mien
    (``place_of_uploads`` by public id), and a folder has another identity on another machine: where it is not there
    yet, whichever comes under its name is the one (``identity_of`` gives None).
    """
    with db.write() as connection:
        connection.execute(
            chunks.update()
            .where(chunks.c.state == "leased")
            .values(state="due", token=None, lease_owner=None, lease_expires_at=None)
        )
        connection.execute(workers.delete())
        connection.execute(
            jobs.update()
            .where(jobs.c.lease_token.is_not(None))
            .values(lease_token=None, lease_owner=None, lease_expires_at=None)
        )
        for job in connection.execute(
            sa.select(jobs.c.id, jobs.c.public_id, jobs.c.source_type, jobs.c.source_path)
        ).all():
            path, identity = (
                place_of_uploads(job.public_id)
                if job.source_type == "upload"
                else (job.source_path, identity_of(job.source_path))
            )
            connection.execute(
                jobs.update()
                .where(jobs.c.id == job.id)
                .values(source_path=path, source_identity=identity, version=jobs.c.version + 1)
            )
        return int(
            connection.execute(
                sa.select(sa.func.count())
                .select_from(jobs)
                .where(jobs.c.status.in_(("draft", "queued", "expanding", "running", "cancelling", "deleting")))
            ).scalar_one()
        )


def is_empty(db: Database) -> bool:
    """Whether the database holds no job: only then may it be replaced."""
    with db.read() as connection:
        if not sa.inspect(connection).has_table("jobs"):
            return True
        return connection.execute(sa.select(jobs.c.id).limit(1)).first() is None

"""Chunks cut and joined to the size that a worker asks for, inside the transaction that leases them.

The walk writes chunks without knowing who will work on them. A worker knows how many images it takes a few seconds for;
it gets the next due chunk cut to that size, or with its neighbours joined to it. Nobody holds a due chunk, and the rows
of those that take part are locked, so that exactly-once needs nothing more: a token is given only afterwards.
"""

from __future__ import annotations

import sqlalchemy as sa

from mien.schema import chunks, images

SMALLEST = 16
"""Images below which no chunk is cut, and the least that a chunk is cut to."""
PARTS = 2
"""A chunk is at most this part of its job's pending images for each chunk in work: the last ones end together."""


def fair_size(wanted: int, pending: int, in_work: int) -> int:
    """Images that a worker gets which would like ``wanted``, of a job with ``pending`` images and chunks ``in_work``.

    Towards the end the chunks become smaller, so that no worker holds many images while others have none (guided
    self-scheduling; Polychronopoulos and Kuck 1987).
    """
    return max(min(wanted, -(-pending // (PARTS * (in_work + 1)))), SMALLEST)


def resize(connection: sa.Connection, job_id: int, chunk_id: int, wanted: int) -> int:
    """Make a due chunk, whose row is locked, one of about ``wanted`` images; gives the chunk to lease.

    A chunk up to half as large again is left as it is, as is one that was lost before: its images are being told apart.
    """
    chunk = connection.execute(
        sa.select(chunks.c.images, chunks.c.losses, chunks.c.suspect).where(chunks.c.id == chunk_id)
    ).one()
    if chunk.losses or chunk.suspect:
        return chunk_id
    if chunk.images > wanted + wanted // 2:
        return _cut(connection, job_id, chunk_id, chunk.images, wanted)
    if chunk.images < wanted:
        _join(connection, job_id, chunk_id, chunk.images, wanted)
    return chunk_id


def _cut(connection: sa.Connection, job_id: int, chunk_id: int, size: int, wanted: int) -> int:
    """Move the first ``wanted`` images into a chunk of their own: fewer rows than the rest."""
    new = connection.execute(
        chunks.insert().values(job_id=job_id, state="due", images=wanted).returning(chunks.c.id)
    ).scalar_one()
    head = sa.select(images.c.id).where(images.c.chunk_id == chunk_id).order_by(images.c.position).limit(wanted)
    moved = connection.execute(images.update().where(images.c.id.in_(head)).values(chunk_id=new)).rowcount
    connection.execute(chunks.update().where(chunks.c.id == new).values(images=moved))
    connection.execute(chunks.update().where(chunks.c.id == chunk_id).values(images=size - moved))
    return int(new)


def _join(connection: sa.Connection, job_id: int, chunk_id: int, size: int, wanted: int) -> None:
    """Move the images of the next due chunks into this one, as long as it does not grow beyond ``wanted``."""
    neighbours = connection.execute(
        sa.select(chunks.c.id, chunks.c.images)
        .where(
            chunks.c.job_id == job_id,
            chunks.c.state == "due",
            chunks.c.id > chunk_id,
            chunks.c.losses == 0,
            chunks.c.suspect.is_(False),
        )
        .order_by(chunks.c.id)
        .limit(max(1, wanted // max(size, 1)))
        .with_for_update(skip_locked=True)
    ).all()
    joined: list[int] = []
    for neighbour in neighbours:
        if size + neighbour.images > wanted:
            break
        last = connection.execute(
            sa.select(sa.func.max(images.c.position)).where(images.c.chunk_id == chunk_id)
        ).scalar_one()
        connection.execute(
            images.update()
            .where(images.c.chunk_id == neighbour.id)
            .values(chunk_id=chunk_id, position=images.c.position + (-1 if last is None else last) + 1)
        )
        size += neighbour.images
        joined.append(neighbour.id)
    if joined:
        connection.execute(chunks.delete().where(chunks.c.id.in_(joined)))
        connection.execute(chunks.update().where(chunks.c.id == chunk_id).values(images=size))

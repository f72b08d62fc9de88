"""Alembic's entry: migrates through the connection that :mod:`mien.migrate` hands over."""

from __future__ import annotations

from alembic import context

from mien.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=False,  # the caller's transaction holds everything
)
context.run_migrations()

"""Migrations make exactly the schema of the models, up and down, on both databases, once."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from mien.database import Database
from mien.migrate import alembic_config, migrate
from mien.schema import metadata
from mien.schema_version import SCHEMA_VERSION, is_current


def test_migrations_and_models_agree(db: Database) -> None:
    assert is_current(db)
    assert ScriptDirectory.from_config(alembic_config(db)).get_current_head() == SCHEMA_VERSION
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_down_and_up_again(db: Database) -> None:
    config = alembic_config(db)
    with db.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert not is_current(db)
    with db.engine.connect() as connection:
        left = set(sa.inspect(connection).get_table_names()) | set(sa.inspect(connection).get_view_names())
    assert left <= {"alembic_version"}
    migrate(db)
    assert is_current(db)


def test_many_may_migrate_at_once(db: Database) -> None:
    config = alembic_config(db)
    with db.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    problems: list[BaseException] = []

    def run() -> None:
        try:
            migrate(db)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert is_current(db)


def test_the_views_are_for_people(db: Database) -> None:
    with db.read() as connection:
        results = connection.execute(sa.text("SELECT * FROM results")).keys()
        images = connection.execute(sa.text("SELECT * FROM image_results")).keys()
    assert list(results) == [
        "job", "file", "face", "x", "y", "width", "height", "face_score", "emotion", "confidence", "probabilities",
    ]  # fmt: skip
    assert {"job", "file", "outcome", "faces", "dominant_emotion"} <= set(images)


def test_a_read_session_cannot_see_half_a_write(db: Database) -> None:
    from mien.keys import create_key, list_keys

    with db.read() as connection:
        before = connection.execute(sa.text("SELECT count(*) FROM api_keys")).scalar_one()
        create_key(db, "written meanwhile")
        assert connection.execute(sa.text("SELECT count(*) FROM api_keys")).scalar_one() == before
    assert len(list_keys(db)) == before + 1


@pytest.mark.postgres
def test_a_database_that_is_away_is_one_clear_error(postgres_url: str) -> None:
    from mien.errors import UnavailableError

    away = Database(sa.make_url(postgres_url).set(host="127.0.0.1", port=1).render_as_string(hide_password=False))
    with pytest.raises(UnavailableError) as caught, away.read():
        pass
    assert "does not answer" in caught.value.detail

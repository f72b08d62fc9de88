"""The tables of the ledger, as SQLAlchemy Core; ``migrations/`` makes them and the views over them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from mien.columns import Key, Moment, counter, one_of, stage_times
from mien.states import CHUNK_STATES, JOB_STATUSES, OUTCOMES, REVIEW_MODES, SCOPES

MAX_PATH_BYTES = 2000
"""Longest path, in bytes relative to the source, that is classified (a PostgreSQL index entry holds 2,704 bytes)."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    Column("public_id", String(32), nullable=False, unique=True),
    Column("owner", String(80), nullable=False),
    Column("status", String(12), nullable=False),
    Column("request", String(12)),  # what control has to do next: expand, retry
    Column("version", BigInteger, nullable=False, server_default="1"),  # rises with each change; the ETag
    # source
    Column("source_type", String(12), nullable=False),
    Column("source_path", LargeBinary),
    Column("source_text", Text),
    Column("source_identity", String(64)),  # device:inode of the folder at submission
    Column("recursive", Boolean, nullable=False),
    Column("include", sa.JSON, nullable=False),
    Column("exclude", sa.JSON, nullable=False),
    # what is asked
    Column("model", String(200), nullable=False),
    Column("model_revision", String(64), nullable=False),
    Column("labels", sa.JSON, nullable=False),
    Column("precision", String(8), nullable=False),
    Column("faces_mode", String(8), nullable=False),
    Column("detect_size", Integer, nullable=False),
    Column("min_face_score", Float, nullable=False),
    Column("min_face", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("provenance", sa.JSON, nullable=False),
    Column("metadata", sa.JSON, nullable=False),
    Column("idempotency_key", String(255)),
    Column("request_hash", String(64), nullable=False),
    Column("keep_images_s", BigInteger),
    Column("keep_results_s", BigInteger),
    # what was uploaded and is still kept
    counter("upload_files"),
    counter("upload_bytes"),
    # counters: always equal to count(*) group by outcome in the same snapshot
    counter("total"),
    counter("pending"),
    counter("ok"),
    counter("no_face"),
    counter("failed"),
    counter("cancelled"),
    counter("faces"),
    counter("skipped"),
    counter("cached"),
    counter("commits"),
    *stage_times(),  # summed over its chunks
    # one time per status reached
    *(Column(f"{status}_at", Moment) for status in JOB_STATUSES),
    Column("created_at", Moment, nullable=False),
    Column("expanded_at", Moment),
    Column("last_leased_at", Moment),
    Column("last_commit_at", Moment),
    # the lease of whoever expands, retries or purges it
    Column("lease_token", String(32)),
    Column("lease_owner", String(200)),
    Column("lease_expires_at", Moment),
    # why it failed, or what holds it back now
    Column("error_code", String(40)),
    Column("error", Text),
    Column("notice_code", String(40)),
    Column("notice", Text),
    one_of("status", JOB_STATUSES),
    sa.UniqueConstraint("owner", "idempotency_key"),
    Index(None, "owner", "id"),
    Index(None, "status", "id"),
    Index(None, "owner", "fingerprint"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", Key, ForeignKey("jobs.id"), nullable=False),
    Column("state", String(8), nullable=False),
    Column("images", Integer, nullable=False),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("suspect", Boolean, nullable=False, server_default=sa.false()),
    Column("token", String(32)),
    Column("lease_owner", String(200)),
    Column("lease_expires_at", Moment),
    Column("commit_number", BigInteger),
    Column("committed_at", Moment),
    *stage_times(),
    one_of("state", CHUNK_STATES),
    Index(None, "job_id", "state", "id"),
    Index(None, "state", "lease_expires_at"),
    Index(None, "committed_at"),
    Index("uq_chunks_job_id_commit_number", "job_id", "commit_number", unique=True),
)

images = Table(
    "images",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", Key, ForeignKey("jobs.id"), nullable=False),
    Column("chunk_id", Key, ForeignKey("chunks.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("path_text", Text, nullable=False),
    Column("outcome", String(10), nullable=False),
    Column("error_code", String(40)),
    Column("error", Text),
    Column("width", Integer),
    Column("height", Integer),
    Column("bytes", BigInteger),
    Column("format", String(8)),
    Column("sha256", LargeBinary(32)),
    Column("etag", String(200)),  # the content of an object as it was listed
    Column("faces", Integer, nullable=False, server_default="0"),
    Column("cached", Boolean, nullable=False, server_default=sa.false()),
    one_of("outcome", OUTCOMES),
    sa.UniqueConstraint("job_id", "path"),
    Index(None, "chunk_id", "outcome", "position"),
    Index(None, "job_id", "outcome"),
    Index(None, "sha256"),
)

faces = Table(
    "faces",
    metadata,
    Column("image_id", Key, ForeignKey("images.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Key, nullable=False),
    Column("chunk_id", Key, nullable=False),
    Column("x", Float, nullable=False),
    Column("y", Float, nullable=False),
    Column("width", Float, nullable=False),
    Column("height", Float, nullable=False),
    Column("score", Float),
    Column("emotion", String(100), nullable=False),
    Column("confidence", Float, nullable=False),
    Column("probabilities", sa.JSON, nullable=False),
    Index(None, "chunk_id", "emotion", "confidence"),
    Index(None, "chunk_id", "confidence"),
    Index(None, "job_id", "emotion", "confidence", "image_id", "number"),  # by confidence: mien/gallery.py
)

# What stands in a chunk, per folder, so that summaries and filters need not read every row: mien/ledger/tallies.py.
tallies = Table(
    "tallies",
    metadata,
    Column("job_id", Key, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("chunk_id", Key, ForeignKey("chunks.id"), primary_key=True, autoincrement=False),
    Column("folder", LargeBinary, primary_key=True),
    Column("first_path", LargeBinary, nullable=False),
    Column("last_path", LargeBinary, nullable=False),
    Column("ok", Integer, nullable=False),
    Column("no_face", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("faces", Integer, nullable=False),
    Column("counts", LargeBinary, nullable=False),  # faces per label, then per bin of confidence
)

# Each plain value of a job's metadata, as text, so that jobs are found by it.
job_metadata = Table(
    "job_metadata",
    metadata,
    Column("job_id", Key, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("key", String(200), primary_key=True),
    Column("value", String(500), nullable=False),
    Index(None, "key", "value", "job_id"),
)

# What an owner used up on a day (UTC): it outlives the jobs, so that deleting gives no quota back.
usage = Table(
    "usage",
    metadata,
    Column("owner", String(80), primary_key=True),
    Column("day", sa.Date, primary_key=True),
    Column("images", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", Key, ForeignKey("jobs.id"), nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("path_text", Text, nullable=False),
    Column("stored_name", String(80), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("received_at", Moment, nullable=False),
    sa.UniqueConstraint("job_id", "path"),
    Index(None, "sha256"),
)

# People's answers beside the model's: a review of a job, in one of two modes that are never mixed.
reviews = Table(
    "reviews",
    metadata,
    Column("id", Key, primary_key=True),
    Column("public_id", String(32), nullable=False, unique=True),
    Column("job_id", Key, ForeignKey("jobs.id"), nullable=False),
    Column("owner", String(80), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("seed", BigInteger),  # of the draw (check)
    Column("faces", BigInteger),  # in the job when it was drawn
    Column("strata", sa.JSON, nullable=False),  # label, low, high, faces, drawn; by number
    Column("created_at", Moment, nullable=False),
    one_of("mode", REVIEW_MODES),
    Index(None, "job_id", "mode"),
)

# The faces drawn for a review in mode check, in the order in which raters see them.
review_faces = Table(
    "review_faces",
    metadata,
    Column("review_id", Key, ForeignKey("reviews.id"), primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("image_id", Key, ForeignKey("images.id"), nullable=False),
    Column("face_number", Integer, nullable=False),
    Column("stratum", Integer, nullable=False),
    sa.UniqueConstraint("review_id", "image_id", "face_number"),
    Index(None, "image_id"),
)

corrections = Table(
    "corrections",
    metadata,
    Column("id", Key, primary_key=True),
    Column("review_id", Key, ForeignKey("reviews.id"), nullable=False),
    Column("image_id", Key, ForeignKey("images.id"), nullable=False),
    Column("face_number", Integer, nullable=False),
    Column("owner", String(80), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("rater", String(80), nullable=False),
    Column("emotion", String(100)),  # null: the rater cannot decide
    Column("first_emotion", String(100)),  # before the rater saw the model's answer (check)
    Column("changes", Integer, nullable=False, server_default="0"),
    Column("note", Text),
    Column("created_at", Moment, nullable=False),
    Column("changed_at", Moment),
    one_of("mode", REVIEW_MODES),
    sa.UniqueConstraint("review_id", "image_id", "face_number", "rater"),
    Index(None, "image_id", "face_number"),
    Index(None, "review_id", "rater"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("owner", String(80), nullable=False),
    Column("prefix", String(12), nullable=False),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("scope", String(8), nullable=False),
    # limits of this key; null: as the settings say
    Column("requests_per_minute", Integer),
    Column("concurrent_jobs", Integer),
    Column("images_per_day", BigInteger),
    Column("bytes_per_day", BigInteger),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
    one_of("scope", SCOPES),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("host", String(200), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String(16), nullable=False),
    Column("precisions", sa.JSON, nullable=False),
    Column("models", sa.JSON, nullable=False),
    Column("engines", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("images_per_s", Float),
    Column("version", String(40), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    # what its operator wants of it, and what older workers do not say
    Column("wanted", String(10), nullable=False, server_default="active"),
    Column("loaded", sa.JSON),
    Column("device_name", String(200)),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("public_id", String(32), nullable=False, unique=True),
    Column("owner", String(80), nullable=False),
    Column("url", Text, nullable=False),
    Column("secrets", sa.JSON, nullable=False),
    Column("events", sa.JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("disabled_at", Moment),
    Column("disabled_reason", Text),
    Index(None, "owner", "id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Key, primary_key=True),
    Column("public_id", String(40), nullable=False, unique=True),  # the webhook-id header
    Column("webhook_id", Key, ForeignKey("webhooks.id"), nullable=False),
    Column("job_id", Key, ForeignKey("jobs.id")),
    Column("event", String(40), nullable=False),
    Column("payload", sa.JSON, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", Moment),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("created_at", Moment, nullable=False),
    Column("delivered_at", Moment),
    Index(None, "state", "next_attempt_at"),
    Index(None, "webhook_id", "id"),
    Index(None, "job_id"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Key, primary_key=True),
    Column("public_id", String(32), nullable=False, unique=True),
    Column("owner", String(80), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("target", Text, nullable=False),
    Column("counts", sa.JSON, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("recorded", Boolean, nullable=False, server_default=sa.false()),  # in the erasure log
    Index(None, "owner", "id"),
    Index(None, "finished_at"),
    Index(None, "recorded", "id"),
)

# Who did what with which job: ids and kinds, never a file name. Written by mien/audit.py, kept for a time of its own.
audit = Table(
    "audit",
    metadata,
    Column("id", Key, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("owner", String(80), nullable=False),
    Column("key_id", Key),  # null: nobody needed a key
    Column("action", String(16), nullable=False),
    Column("detail", String(60)),
    Column("job", String(32)),
    Column("receipt", String(32)),
    Index(None, "at"),
    Index(None, "job", "id"),
    Index(None, "owner", "id"),
)

"""The ledger

Revision: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

STATUSES = ("draft", "queued", "expanding", "running", "cancelling", "completed", "cancelled", "failed", "deleting")
COUNTERS = (
    "upload_files", "upload_bytes", "total", "pending", "ok", "no_face", "failed", "cancelled",
    "faces", "skipped", "cached", "commits",
)  # fmt: skip
STAGE_TIMES = (
    "read_s", "read_wait_s", "decode_s", "decode_wait_s", "detect_s", "detect_wait_s",
    "classify_s", "classify_wait_s", "write_s", "write_wait_s",
)  # fmt: skip

TABLES = (
    "api_keys", "jobs", "receipts", "webhooks", "workers", "chunks", "deliveries", "uploads", "images",
    "reviews", "review_faces", "corrections", "faces", "tallies", "job_metadata", "usage", "audit",
)  # fmt: skip
"""In the order of what refers to what: each only to tables before it."""

VIEWS = {
    "results": """
SELECT j.public_id AS job, i.path_text AS file, f.number AS face, f.x, f.y, f.width, f.height,
       f.score AS face_score, f.emotion, f.confidence, f.probabilities
FROM faces f JOIN images i ON i.id = f.image_id JOIN jobs j ON j.id = i.job_id
""",
    "image_results": """
SELECT j.public_id AS job, i.path_text AS file, i.outcome, i.faces, f.emotion AS dominant_emotion,
       f.confidence AS dominant_confidence, i.width, i.height, i.bytes, i.format, i.error_code, i.error
FROM images i JOIN jobs j ON j.id = i.job_id LEFT JOIN faces f ON f.image_id = i.id AND f.number = 0
""",
}


def upgrade() -> None:
    """Every table as it was made first: long, as it is a list. Expand first, contract in a later version."""
    op.create_table(
        "api_keys",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("prefix", sa.String(length=12), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("concurrent_jobs", sa.Integer()),
        sa.Column("images_per_day", sa.BigInteger()),
        sa.Column("bytes_per_day", sa.BigInteger()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_used_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.CheckConstraint("scope IN ('metrics', 'read', 'submit', 'admin')", name=op.f("ck_api_keys_scope")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("request", sa.String(length=12)),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("source_type", sa.String(length=12), nullable=False),
        sa.Column("source_path", sa.LargeBinary()),
        sa.Column("source_text", sa.Text()),
        sa.Column("source_identity", sa.String(length=64)),
        sa.Column("recursive", sa.Boolean(), nullable=False),
        sa.Column("include", sa.JSON(), nullable=False),
        sa.Column("exclude", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("model_revision", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("precision", sa.String(length=8), nullable=False),
        sa.Column("faces_mode", sa.String(length=8), nullable=False),
        sa.Column("detect_size", sa.Integer(), nullable=False),
        sa.Column("min_face_score", sa.Float(), nullable=False),
        sa.Column("min_face", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255)),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("keep_images_s", sa.BigInteger()),
        sa.Column("keep_results_s", sa.BigInteger()),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in COUNTERS),
        *(sa.Column(name, sa.Float(), server_default="0", nullable=False) for name in STAGE_TIMES),
        *(sa.Column(f"{status}_at", MOMENT) for status in STATUSES),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expanded_at", MOMENT),
        sa.Column("last_leased_at", MOMENT),
        sa.Column("last_commit_at", MOMENT),
        sa.Column("lease_token", sa.String(length=32)),
        sa.Column("lease_owner", sa.String(length=200)),
        sa.Column("lease_expires_at", MOMENT),
        sa.Column("error_code", sa.String(length=40)),
        sa.Column("error", sa.Text()),
        sa.Column("notice_code", sa.String(length=40)),
        sa.Column("notice", sa.Text()),
        sa.CheckConstraint(f"status IN {STATUSES!r}", name=op.f("ck_jobs_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("owner", "idempotency_key", name=op.f("uq_jobs_owner_idempotency_key")),
        sa.UniqueConstraint("public_id", name=op.f("uq_jobs_public_id")),
    )
    op.create_index("ix_jobs_owner_fingerprint", "jobs", ["owner", "fingerprint"])
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"])
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"])
    op.create_table(
        "receipts",
        sa.Column("id", KEY, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("requested_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("recorded", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
        sa.UniqueConstraint("public_id", name=op.f("uq_receipts_public_id")),
    )
    op.create_index("ix_receipts_recorded_id", "receipts", ["recorded", "id"])
    op.create_index("ix_receipts_finished_at", "receipts", ["finished_at"])
    op.create_index("ix_receipts_owner_id", "receipts", ["owner", "id"])
    op.create_table(
        "webhooks",
        sa.Column("id", KEY, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secrets", sa.JSON(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("disabled_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("public_id", name=op.f("uq_webhooks_public_id")),
    )
    op.create_index("ix_webhooks_owner_id", "webhooks", ["owner", "id"])
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=16), nullable=False),
        sa.Column("precisions", sa.JSON(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("engines", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("images_per_s", sa.Float()),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.Column("wanted", sa.String(length=10), server_default="active", nullable=False),
        sa.Column("loaded", sa.JSON()),
        sa.Column("device_name", sa.String(length=200)),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "chunks",
        sa.Column("id", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("suspect", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("token", sa.String(length=32)),
        sa.Column("lease_owner", sa.String(length=200)),
        sa.Column("lease_expires_at", MOMENT),
        sa.Column("commit_number", sa.BigInteger()),
        sa.Column("committed_at", MOMENT),
        *(sa.Column(name, sa.Float(), server_default="0", nullable=False) for name in STAGE_TIMES),
        sa.CheckConstraint("state IN ('due', 'leased', 'done')", name=op.f("ck_chunks_state")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_chunks_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunks")),
    )
    op.create_index("ix_chunks_job_id_state_id", "chunks", ["job_id", "state", "id"])
    op.create_index("ix_chunks_state_lease_expires_at", "chunks", ["state", "lease_expires_at"])
    op.create_index("uq_chunks_job_id_commit_number", "chunks", ["job_id", "commit_number"], unique=True)
    op.create_index("ix_chunks_committed_at", "chunks", ["committed_at"])
    op.create_table(
        "deliveries",
        sa.Column("id", KEY, nullable=False),
        sa.Column("public_id", sa.String(length=40), nullable=False),
        sa.Column("webhook_id", KEY, nullable=False),
        sa.Column("job_id", KEY),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", MOMENT),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("delivered_at", MOMENT),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_deliveries_job_id")),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("public_id", name=op.f("uq_deliveries_public_id")),
    )
    op.create_index("ix_deliveries_job_id", "deliveries", ["job_id"])
    op.create_index("ix_deliveries_webhook_id_id", "deliveries", ["webhook_id", "id"])
    op.create_index("ix_deliveries_state_next_attempt_at", "deliveries", ["state", "next_attempt_at"])
    op.create_table(
        "uploads",
        sa.Column("id", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("path_text", sa.Text(), nullable=False),
        sa.Column("stored_name", sa.String(length=80), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_uploads_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("job_id", "path", name=op.f("uq_uploads_job_id_path")),
    )
    op.create_index("ix_uploads_sha256", "uploads", ["sha256"])
    op.create_table(
        "images",
        sa.Column("id", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("chunk_id", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("path_text", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("error_code", sa.String(length=40)),
        sa.Column("error", sa.Text()),
        sa.Column("width", sa.Integer()),
        sa.Column("height", sa.Integer()),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("format", sa.String(length=8)),
        sa.Column("sha256", sa.LargeBinary(length=32)),
        sa.Column("etag", sa.String(length=200)),
        sa.Column("faces", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cached", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('pending', 'ok', 'no_face', 'failed', 'cancelled')", name=op.f("ck_images_outcome")
        ),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunks.id"], name=op.f("fk_images_chunk_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_images_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("job_id", "path", name=op.f("uq_images_job_id_path")),
    )
    op.create_index("ix_images_chunk_id_outcome_position", "images", ["chunk_id", "outcome", "position"])
    op.create_index("ix_images_job_id_outcome", "images", ["job_id", "outcome"])
    op.create_index("ix_images_sha256", "images", ["sha256"])
    op.create_table(
        "reviews",
        sa.Column("id", KEY, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("faces", sa.BigInteger()),
        sa.Column("strata", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("mode IN ('check', 'mend')", name=op.f("ck_reviews_mode")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_reviews_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("public_id", name=op.f("uq_reviews_public_id")),
    )
    op.create_index("ix_reviews_job_id_mode", "reviews", ["job_id", "mode"])
    op.create_table(
        "review_faces",
        sa.Column("review_id", KEY, autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image_id", KEY, nullable=False),
        sa.Column("face_number", sa.Integer(), nullable=False),
        sa.Column("stratum", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_review_faces_image_id")),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name=op.f("fk_review_faces_review_id")),
        sa.PrimaryKeyConstraint("review_id", "place", name=op.f("pk_review_faces")),
        sa.UniqueConstraint(
            "review_id", "image_id", "face_number", name=op.f("uq_review_faces_review_id_image_id_face_number")
        ),
    )
    op.create_index("ix_review_faces_image_id", "review_faces", ["image_id"])
    op.create_table(
        "corrections",
        sa.Column("id", KEY, nullable=False),
        sa.Column("review_id", KEY, nullable=False),
        sa.Column("image_id", KEY, nullable=False),
        sa.Column("face_number", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("rater", sa.String(length=80), nullable=False),
        sa.Column("emotion", sa.String(length=100)),
        sa.Column("first_emotion", sa.String(length=100)),
        sa.Column("changes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("changed_at", MOMENT),
        sa.CheckConstraint("mode IN ('check', 'mend')", name=op.f("ck_corrections_mode")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_corrections_image_id")),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name=op.f("fk_corrections_review_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corrections")),
        sa.UniqueConstraint(
            "review_id",
            "image_id",
            "face_number",
            "rater",
            name=op.f("uq_corrections_review_id_image_id_face_number_rater"),
        ),
    )
    op.create_index("ix_corrections_image_id_face_number", "corrections", ["image_id", "face_number"])
    op.create_index("ix_corrections_review_id_rater", "corrections", ["review_id", "rater"])
    op.create_table(
        "faces",
        sa.Column("image_id", KEY, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("chunk_id", KEY, nullable=False),
        sa.Column("x", sa.Float(), nullable=False),
        sa.Column("y", sa.Float(), nullable=False),
        sa.Column("width", sa.Float(), nullable=False),
        sa.Column("height", sa.Float(), nullable=False),
        sa.Column("score", sa.Float()),
        sa.Column("emotion", sa.String(length=100), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("probabilities", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_faces_image_id")),
        sa.PrimaryKeyConstraint("image_id", "number", name=op.f("pk_faces")),
    )
    op.create_index("ix_faces_chunk_id_emotion_confidence", "faces", ["chunk_id", "emotion", "confidence"])
    op.create_index("ix_faces_chunk_id_confidence", "faces", ["chunk_id", "confidence"])
    op.create_index(
        "ix_faces_job_id_emotion_confidence_image_id_number",
        "faces",
        ["job_id", "emotion", "confidence", "image_id", "number"],
    )
    op.create_table(
        "tallies",
        sa.Column("job_id", KEY, autoincrement=False, nullable=False),
        sa.Column("chunk_id", KEY, autoincrement=False, nullable=False),
        sa.Column("folder", sa.LargeBinary(), nullable=False),
        sa.Column("first_path", sa.LargeBinary(), nullable=False),
        sa.Column("last_path", sa.LargeBinary(), nullable=False),
        sa.Column("ok", sa.Integer(), nullable=False),
        sa.Column("no_face", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("faces", sa.Integer(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunks.id"], name=op.f("fk_tallies_chunk_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_tallies_job_id")),
        sa.PrimaryKeyConstraint("job_id", "chunk_id", "folder", name=op.f("pk_tallies")),
    )
    op.create_table(
        "job_metadata",
        sa.Column("job_id", KEY, autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("value", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_metadata_job_id")),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_job_metadata")),
    )
    op.create_index("ix_job_metadata_key_value_job_id", "job_metadata", ["key", "value", "job_id"])
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("images", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("owner", "day", name=op.f("pk_usage")),
    )
    op.create_table(
        "audit",
        sa.Column("id", KEY, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("key_id", KEY),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.String(length=60)),
        sa.Column("job", sa.String(length=32)),
        sa.Column("receipt", sa.String(length=32)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_job_id", "audit", ["job", "id"])
    op.create_index("ix_audit_owner_id", "audit", ["owner", "id"])
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    """Back to an empty database; indexes go with their tables."""
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    for name in reversed(TABLES):
        op.drop_table(name)

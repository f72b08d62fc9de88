"""Every setting of Mien in one frozen object, read from ``MIEN_*`` environment variables."""

from __future__ import annotations

import ipaddress
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mien.errors import SettingsError

LEAST_DIFFERENT = 8
"""Different characters of a key: 32 random hexadecimal digits have fewer once in 28 million keys."""
PLACEHOLDERS = r"change.?me|replace.?me|your.?key|example|password|secret|bootstrap|default|12345678"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
Root = Path | str
"""Where jobs may take images from: a folder, or an address in object storage (``s3://bucket/prefix``) as text."""


class Settings(BaseSettings):
    """What an operator can change; ``MIEN_`` and the upper-case name make the variable (docs/settings.md)."""

    model_config = SettingsConfigDict(env_prefix="MIEN_", frozen=True, extra="ignore")

    # where things are kept
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("mien", appauthor=False)),
        description="Folder for the database, uploads, installed models and run-time files of an embedded Mien.",
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL of the ledger; empty means SQLite in the data folder (mien.sqlite3)."
    )
    broker_url: str = Field("", description="Redis URL of the broker; empty means the embedded one that Mien starts.")
    models_dir: Path | None = Field(
        None, description="Folder of installed models; empty means models/ in the data folder."
    )
    roots: Annotated[tuple[Root, ...], NoDecode] = Field(
        (),
        description="Folders, and object storage as `s3://bucket/prefix`, whose images jobs may name, "
        "separated by ':'. None by default.",
    )
    s3_endpoint_url: str = Field(
        "", description="Address of an S3-compatible server (MinIO, Ceph, R2 ...); empty means AWS."
    )
    s3_anonymous: bool = Field(False, description="Read object storage without credentials: public buckets.")
    s3_reads: int = Field(16, ge=1, le=512, description="Objects that a worker reads at once, per chunk.")

    # the front end
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback an API key is required.")
    port: int = Field(8616, ge=0, le=65535, description="TCP port of the front end; 0 takes a free one.")
    web_threads: int = Field(16, ge=2, le=512, description="Threads of the front end's server.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Host names the front end answers to besides loopback's own, separated by commas."
    )
    bootstrap_key: str = Field(
        "", repr=False, description="API key (32 characters or more) made by `mien migrate` when there is none yet."
    )
    session_s: int = Field(43_200, ge=60, description="Seconds after which a browser has to sign in again.")
    api_key: str = Field("", repr=False, description="API key that the command line and the client send.")
    url: str = Field("", description="Address of the Mien that the command line talks to; empty means the local one.")
    max_request_bytes: int = Field(64 << 20, ge=1024, description="Largest body of one HTTP request, in bytes.")

    # how much a key may do, unless it was made with limits of its own
    requests_per_minute: int = Field(0, ge=0, description="Requests a key may make in a minute; 0: no limit.")
    concurrent_jobs: int = Field(
        0, ge=0, description="Jobs of an owner that may be unfinished at once, drafts included; 0: no limit."
    )
    images_per_day: int = Field(
        0, ge=0, description="Images of an owner on a day (UTC), beyond which no job is taken any more; 0: no limit."
    )
    bytes_per_day: int = Field(0, ge=0, description="Bytes an owner may upload on a day (UTC); 0: no limit.")

    running_jobs: int = Field(
        0, ge=0, description="Jobs of an owner that run at once; further ones stay queued until one ends. 0: no limit."
    )
    ahead_s: float = Field(
        3600.0,
        ge=0,
        description="Seconds of work, at the speed of the live workers, that a job's images are written down ahead of "
        "them (10,000 images at least); the walk of a huge source waits meanwhile. 0: no limit.",
    )

    # what is asked of the models
    model: str = Field("default", description="Model used when a job names none.")
    precision: Literal["fp32", "bf16", "fp16", "int8"] = Field("fp32", description="Precision when a job names none.")
    detect_size: int = Field(
        640, ge=64, le=4096, multiple_of=32, description="Longer side, in pixels, at which faces are looked for."
    )
    min_face_score: float = Field(
        0.7, gt=0, lt=1, description="Lowest score of the face detector that counts as a face."
    )
    min_face: int = Field(0, ge=0, description="Smallest face (shorter side, pixels of the upright image) that counts.")

    # how long things are kept, where a job does not say
    keep_images_s: int | None = Field(
        None, ge=0, description="Seconds after a job's end at which its uploads are deleted; not set: kept."
    )
    keep_results_s: int | None = Field(
        None, ge=0, description="Seconds after a job's end at which it is deleted; not set: kept."
    )
    audit_keep_s: int = Field(
        31_536_000, ge=0, description="Seconds that entries of the audit log are kept; a year by default."
    )
    erasure_log: Path | None = Field(
        None,
        description="File that keeps what was deleted on request, so that no restored backup brings it back; empty "
        "means erasures.jsonl in the data folder. Keep it apart from the database.",
    )

    # uploads
    max_upload_request_bytes: int = Field(
        8 << 30, ge=1024, description="Largest body of one upload request (images, a zip or a tar), in bytes."
    )
    max_upload_files: int = Field(1_000_000, ge=1, description="Most images that may be uploaded into one job.")
    max_upload_bytes: int = Field(
        100 << 30, ge=1024, description="Most bytes that may be uploaded into one job, unpacked."
    )
    min_free_bytes: int = Field(
        1 << 30, ge=0, description="Bytes that uploads leave free on the disk of the data folder."
    )
    upload_timeout_s: float = Field(
        60.0, gt=0, description="Seconds of silence after which a half-sent upload is given up."
    )
    draft_expiry_s: int = Field(
        86_400, ge=60, description="Seconds without a new upload after which an unsubmitted job is deleted."
    )

    # the pages
    thumbnail_cache_bytes: int = Field(
        1 << 30, ge=0, description="Bytes of small pictures kept for the pages, in the data folder; 0 keeps none."
    )

    # single images, classified at once
    predict_timeout_s: float = Field(
        10.0, gt=0, le=60, description="Seconds a single image may take, waiting included."
    )
    predict_max_bytes: int = Field(
        25 << 20, ge=1024, le=32 << 20, description="Largest single image (`POST /api/v1/predict`) in bytes."
    )

    # limits per image
    max_pixels: int = Field(200_000_000, ge=10_000, description="Largest image in pixels; larger ones are `too_large`.")
    max_file_bytes: int = Field(512 << 20, ge=1024, description="Largest image file in bytes.")
    image_timeout_s: float = Field(60.0, gt=0, description="Seconds an engine may work on one image without a sign.")

    # the machinery
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device of this worker; auto takes CUDA if it can."
    )
    devices: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="GPUs that a CUDA worker drives (cuda:0,cuda:1); empty: all. `cpu` stands in for one in trials."
    )
    device_batch: int = Field(
        0, ge=0, le=4096, description="Most faces per batch on a GPU; 0 finds out when a model is loaded."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether CUDA workers compile models when they load them; auto: on GPUs."
    )
    engines: int = Field(
        0, ge=0, le=1024, description="Engine processes of a worker (on CUDA: decoding processes); 0: one per core."
    )
    engine_max_rss_bytes: int = Field(
        2 << 30, ge=256 << 20, description="Memory at which an engine process is renewed."
    )
    chunk_size: int = Field(
        500, ge=1, le=10_000, description="Images in a chunk as the walk of a folder writes it, before workers size it."
    )
    chunk_s: float = Field(
        5.0, ge=0, le=600, description="Seconds of work a worker takes at once, at the pace it measures; 0: as written."
    )
    chunks_in_flight: int = Field(
        2, ge=1, le=64, description="Chunks a worker holds at once, so that none waits for a commit."
    )
    lease_s: float = Field(60.0, ge=1, description="Seconds a lease lasts without renewal.")
    sweep_interval_s: float = Field(5.0, ge=0.1, description="Seconds between looks for expired leases and due work.")
    drain_s: float = Field(25.0, ge=0, description="Seconds a stopping process may take to hand its work back.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="How lines of the log are written: text for people, json for one JSON object a line."
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port at which this worker or control process tells its metrics to Prometheus; control takes the "
        "next one, so that both can run on one machine. 0: none.",
    )
    metrics_host: str = Field("127.0.0.1", description="Address of that port.")

    # being told
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks (as 10.0.0.0/8) that are not public, but that webhooks may call all the same, separated "
        "by commas.",
    )
    webhook_timeout_s: float = Field(
        15.0, gt=0, le=60, description="Seconds that the receiver of a webhook may take to answer."
    )
    webhooks_per_owner: int = Field(20, ge=0, le=1000, description="Most webhooks of an owner.")

    @field_validator("roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        # the colon of an address parts nothing
        return (
            tuple(p for p in re.split(rf"(?<!^s3)(?<!{os.pathsep}s3){os.pathsep}", value) if p)
            if isinstance(value, str)
            else value
        )

    @field_validator("devices")
    @classmethod
    def _devices_of_torch(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        strange = [name for name in value if not re.fullmatch(r"cuda:\d+|cpu", name)]
        if strange:
            raise ValueError(f"a device is cuda:0, cuda:1 and so on, or cpu; {strange[0]!r} is not")
        return value

    @field_validator("allowed_hosts", "devices", "webhook_networks", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(n.strip() for n in value.split(",") if n.strip()) if isinstance(value, str) else value

    @field_validator("webhook_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)  # its error names the value
        return value

    @field_validator("roots")
    @classmethod
    def _absolute(cls, value: tuple[Root, ...]) -> tuple[Root, ...]:
        roots = tuple(str(p) if str(p).startswith("s3://") else Path(p) for p in value)
        for root in roots:
            if isinstance(root, str) and not re.fullmatch(r"s3://[^/]{3,}(/.*)?", root, re.DOTALL):
                raise ValueError(f"object storage is named as s3://bucket/prefix; {root!r} is not")
            if isinstance(root, Path) and not root.is_absolute():
                raise ValueError(f"every root must be an absolute path or s3://bucket/prefix; {str(root)!r} is not")
        return roots

    @field_validator("s3_endpoint_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", value):
            raise ValueError("an endpoint is http(s)://host[:port], without a name or password in it")
        return value

    @field_validator("bootstrap_key")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\x21-\x7e]{32,200}", value):
            raise ValueError("a key needs 32 to 200 printable characters without spaces")
        if value and (len(set(value)) < LEAST_DIFFERENT or re.search(PLACEHOLDERS, value, re.IGNORECASE)):
            raise ValueError('this key can be guessed; make one with `echo "mien_$(openssl rand -hex 24)"`')
        return value

    @field_validator("data_dir", "models_dir", "erasure_log")
    @classmethod
    def _resolved(cls, value: Path | None) -> Path | None:
        return None if value is None else Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 - keeps symlinks

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'mien.sqlite3'}"

    @cached_property
    def models(self) -> Path:
        """The folder of installed models in force."""
        return self.models_dir or self.data_dir / "models"

    @cached_property
    def erasures(self) -> Path:
        """The erasure log in force."""
        return self.erasure_log or self.data_dir / "erasures.jsonl"

    @property
    def embedded_broker(self) -> bool:
        """Whether Mien runs its own broker."""
        return not self.broker_url

    @property
    def is_loopback(self) -> bool:
        """Whether the front end listens on loopback only."""
        return self.host in LOOPBACK_HOSTS


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` win over the environment.

    Raises:
        SettingsError: names the variable that cannot be used, its value's defect and where to read on.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"MIEN_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise SettingsError(f"{problems}. `mien settings` lists every setting with its meaning.") from None

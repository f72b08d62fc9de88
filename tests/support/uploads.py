"""Bodies of upload requests as clients send them: forms built by hand, so that odd ones can be built as well."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from tests.support.web import parts_of

BOUNDARY = "boundary-of-the-test"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, data: bytes, filename: str | None = None, **headers: str) -> bytes:
    """One part of a form."""
    file = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{file}']
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return f"--{BOUNDARY}\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + data + b"\r\n"


def form(files: Mapping[str, bytes] | Sequence[tuple[str, bytes]], job: Any = None, *, end: bool = True) -> bytes:
    """A form with these images, and with a job before them where one is given."""
    pairs = files.items() if isinstance(files, Mapping) else files
    parts = [part("images", data, name) for name, data in pairs]
    if job is not None:
        parts.insert(0, part("job", json.dumps(job).encode(), Content_Type="application/json"))
    return b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """A tar, or a gzipped one (``w:gz``)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def images(job: str) -> str:
    """The address of its uploads."""
    return f"/api/v1/jobs/{job}/images"


def listed(client: FlaskClient, job: str) -> dict[str, tuple[int, str]]:
    """What has arrived, page by page: size and SHA-256 by path."""
    found: dict[str, tuple[int, str]] = {}
    after = None
    while True:
        page = client.get(images(job), query_string={"limit": 3} | ({"after": after} if after else {})).json
        found |= {item["file"]: (item["bytes"], item["sha256"]) for item in page["items"]}
        if not page["has_more"]:
            assert list(found) == sorted(found, key=os.fsencode)
            return found
        after = page["next"]


def facts(files: dict[str, bytes]) -> dict[str, tuple[int, str]]:
    """What should have arrived."""
    return {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}


def stored(app: Flask) -> list[bytes]:
    """The contents of every uploaded file on the disk."""
    folder = parts_of(app).settings.data_dir / "uploads"
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent != folder)


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer tells, checked."""
    assert (answer.status_code, answer.json.get("code")) == (status, code), answer.text
    found: dict[str, Any] = answer.json
    return found

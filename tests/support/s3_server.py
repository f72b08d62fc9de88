"""A private S3 server for tests: moto's, as a process of its own on a free port of loopback, everything in memory.

``python -m tests.support.s3_server PORT`` runs it. Once told to, it checks signatures and access keys as S3 does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.support.machine import ROOT, lacking
from tests.support.redis import free_port

START_S = 60
ALL_OF_S3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@dataclass
class S3:
    """One server, its bucket ``faces``, and an access key that may read and write it."""

    url: str
    key: tuple[str, str] = ("", "")
    _process: Any = None
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str = "s3") -> Any:
        """A client with the keys of the server's owner."""
        import boto3

        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id="owner",
                aws_secret_access_key="owner",
            )
        return self._clients[service]

    def put(self, key: str, data: bytes) -> None:
        """Write one object."""
        self.client().put_object(Bucket="faces", Key=key, Body=data)

    def delete(self, key: str) -> None:
        """Delete one object."""
        self.client().delete_object(Bucket="faces", Key=key)

    def empty(self) -> None:
        """Delete everything."""
        for page in self.client().get_paginator("list_objects_v2").paginate(Bucket="faces"):
            for item in page.get("Contents", ()):
                self.delete(item["Key"])

    def credentials(self, path: Path, key: tuple[str, str] | None = None) -> Path:
        """Write a shared credentials file with this access key; gives its path."""
        name, secret = key or self.key
        path.write_text(f"[default]\naws_access_key_id = {name}\naws_secret_access_key = {secret}\n")
        return path

    def new_key(self) -> tuple[str, str]:
        """A new access key of the user whom the server lets in."""
        made = self.client("iam").create_access_key(UserName="mien")["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def revoke(self, key: tuple[str, str]) -> None:
        """From now on this key opens nothing: as when credentials expire."""
        with self.unguarded():
            self.client("iam").delete_access_key(UserName="mien", AccessKeyId=key[0])

    def guard(self, *, on: bool) -> None:
        """Whether keys and signatures are checked from now on."""
        count = b"0" if on else b"inf"
        requests.post(f"{self.url}/moto-api/reset-auth", data=count, timeout=10).raise_for_status()

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """For a moment, the owner's own calls."""
        self.guard(on=False)
        yield
        self.guard(on=True)

    def stop(self) -> None:
        """kill -9: the endpoint is not reachable any more."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running_s3(folder: Path) -> Iterator[S3]:
    """A private server with a bucket ``faces`` and a user ``mien`` with one access key."""
    try:
        import moto  # noqa: F401 - whether it is there is the question
    except ImportError:
        lacking("moto is not installed (the dependency group `test`)")
    port = free_port()
    log = folder / "s3.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.s3_server", str(port)], cwd=ROOT, stdout=out, stderr=out
        )
    server = S3(f"http://127.0.0.1:{port}", _process=process)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                requests.get(f"{server.url}/moto-api/", timeout=5)
                break
            except requests.ConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the S3 server does not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.1)
        server.client().create_bucket(Bucket="faces")
        users = server.client("iam")
        users.create_user(UserName="mien")
        users.put_user_policy(UserName="mien", PolicyName="s3", PolicyDocument=json.dumps(ALL_OF_S3))
        server.key = server.new_key()
        yield server
    finally:
        server.stop()


def serve(port: int) -> None:
    """Run the server until it is killed."""
    from moto import server
    from moto.moto_server.utilities import RegexConverter

    made = RegexConverter.__init__

    def with_newlines(self: RegexConverter, *arguments: Any) -> None:
        made(self, *arguments)
        self.regex = f"(?s:{self.regex})"  # keys may hold newlines; moto's routes stop at them

    RegexConverter.__init__ = with_newlines  # type: ignore[method-assign]
    server.main(["-H", "127.0.0.1", "-p", str(port)])


if __name__ == "__main__":
    serve(int(sys.argv[1]))

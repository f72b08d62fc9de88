"""The commands in README and docs/ work as they stand there; ``tests/support/typed.py`` names those that are only read.

One `mien up` serves all of them. What a page leaves open (``PHOTOS``, ``ID``, an address) is put in; every command has
to end with exit code 0. docs/api.md has a test of its own (test_api_guide.py): its commands build on each other.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from mien.client import Client
from mien.models import ModelStore
from tests.end_to_end.system import Mien, grey
from tests.support.documents import Block, command_blocks
from tests.support.machine import ROOT, SAMPLES
from tests.support.receiver import receiving
from tests.support.tiny_model import make_tiny_model
from tests.support.typed import is_read_only

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BLOCKS = [block for block in command_blocks() if block.page != "docs/api.md"]
RUN = [block for block in BLOCKS if not all(map(is_read_only, block.commands))]
PROGRAMS = Path(sys.executable).parent


@dataclass
class Place:
    """A Mien that runs, with photographs, jobs and whatever else the pages speak of."""

    mien: Mien
    client: Client
    folder: Path
    receiver: str

    @property
    def photos(self) -> Path:
        """Two grey images and a portrait."""
        return self.folder / "photos"

    @property
    def environment(self) -> dict[str, str]:
        """What a command sees."""
        found = self.mien.environment
        return {**found, "PATH": f"{PROGRAMS}:{found['PATH']}", "HOME": str(self.folder)}

    def ended(self, job: str) -> str:
        """The job, once it has ended."""
        self.mien.wait_for(lambda: self.client.job(job).is_final, "the job has ended")
        return job

    def new_job(self) -> str:
        """Another job on the photographs, ended."""
        return self.ended(self.client.submit_folder(str(self.photos)).id)

    @cached_property
    def job(self) -> str:
        """One that no command harms, with a review and an answer."""
        job = self.new_job()
        review = self.client.begin_review(job, mode="check")
        face = next(self.client.review_faces(review.id, "Ada"))
        self.client.rate(review.id, "Ada", face.file, face.face, "grey")
        return job

    @cached_property
    def other_job(self) -> str:
        """The same photographs with another model."""
        return self.ended(self.client.rerun(self.job, model="other").id)

    @cached_property
    def webhook(self) -> str:
        """A webhook that has been told of a job."""
        hook = self.client.create_webhook(self.receiver)
        self.new_job()
        self.mien.wait_for(lambda: list(self.client.deliveries(hook.id)), "there is a delivery")
        return hook.id

    def retryable(self) -> str:
        """A job whose one failed image was mended since."""
        broken = self.folder / "broken" / "a.png"
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(b"no image")
        job = self.ended(self.client.submit_folder(str(broken.parent)).id)
        grey(broken, 100)
        return job

    def key(self) -> str:
        """The id of a key that may go."""
        self.mien.run("keys", "create", "temporary")
        return str(json.loads(self.mien.run("keys", "list", "--json"))[-1]["id"])

    def worker(self) -> str:
        """The one worker's name."""
        return self.client.workers()[0].name

    def id_for(self, command: str) -> str:
        """What stands for ``ID`` and ``JOB`` in a command."""
        whose: dict[str, Callable[[], str]] = {
            "mien keys": self.key,
            "mien webhooks": lambda: self.webhook,
            "mien cancel": lambda: self.client.create_draft().id,
            "mien delete": self.new_job,
            "mien retry": self.retryable,
        }
        return next((make for start, make in whose.items() if start in command), lambda: self.job)()

    def filled(self, command: str) -> str:
        """The command with what the page leaves open."""
        values: dict[str, Callable[[], str]] = {
            r"\bOTHER_JOB\b": lambda: self.other_job,
            r"(?<=[ ])(ID|JOB)\b": lambda: self.id_for(command),
            r"\bREVIEW\b": lambda: self.client.reviews(self.job)[0].id,
            r"\bDELIVERY\b": lambda: next(self.client.deliveries(self.webhook)).id,
            r"(?<=workers drain )NAME|(?<=workers pause )NAME|(?<=workers resume )NAME": self.worker,
            r"(?<=--model )NAME": lambda: "tiny",
            r"\bPHOTOS\b(?!=)|/srv/photos/2024": lambda: str(self.photos),
            r"https://lab\.example\.org/mien": lambda: self.receiver,
            r"https://mien\.example(\.org)?": self.mien.url,
            r'(?<=MIEN_API_KEY=)(\.\.\.|"\$MIEN_BOOTSTRAP_KEY")': self.mien.key,
            r"9f86d0\.\.\.": lambda: hashlib.sha256((self.photos / "a.png").read_bytes()).hexdigest(),
            r"/backups/mien-monday": lambda: str(self.folder / "backups" / "mien-monday"),
            r"/elsewhere/erasures\.jsonl": lambda: str(self.mien.data / "erasures.jsonl"),
        }
        for pattern, value in values.items():
            if re.search(pattern, command):
                filled = value()
                command = re.sub(pattern, lambda _, to=filled: to, command)  # type: ignore[misc]
        return command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("documents")
    mien = Mien(folder / "data", {"MIEN_MODEL": "tiny", "MIEN_WEBHOOK_NETWORKS": "127.0.0.0/8"})
    store = ModelStore(mien.data / "models")
    store.install(tiny_model)
    store.install(make_tiny_model(folder / "other", name="other"))
    grey(folder / "photos" / "a.png", 30)
    grey(folder / "photos" / "sub" / "one.jpg", 120)
    shutil.copy(SAMPLES / "astronaut.jpg", folder / "photos" / "portrait.jpg")
    (folder / "backups").mkdir()
    with receiving() as receiver, mien.up(folder / "photos"), Client(mien.url(), mien.key()) as client:
        found = Place(mien, client, folder, receiver.url)
        mien.wait_for(client.workers, "the worker lives")
        client.delete_images(found.new_job(), "a.png")  # so that there is an erasure log
        mien.wait_for((mien.data / "erasures.jsonl").exists, "the deletion is written down")
        yield found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository as a fresh folder whose ``.venv`` is this Python, with everything installed that make asks for."""
    for found in ROOT.iterdir():
        if not found.name.startswith("."):
            (tmp_path / found.name).symlink_to(found)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(PROGRAMS)
    (tmp_path / ".venv" / ".default.stamp").touch()
    return tmp_path


def test_only_the_guide_has_python() -> None:
    assert [block for block in BLOCKS if block.language == "python"] == []


@pytest.mark.parametrize("block", RUN, ids=str)
def test_the_commands_of_a_block_work(block: Block, place: Place, checkout: Path) -> None:
    shutil.copytree(place.photos, place.folder / "Pictures", dirs_exist_ok=True)
    exports: list[str] = []
    for number, command in enumerate(block.commands):
        if is_read_only(command):
            continue
        filled = place.filled(command)
        if command.startswith("export "):
            exports.append(filled)
            continue
        environment = dict(place.environment)
        if command.startswith("make "):
            del environment["MIEN_MODEL"]  # the demo has data of its own, with the shipped model
        if command.startswith("mien restore"):
            environment["MIEN_DATA_DIR"] = str(checkout / f"restored-{number}")
        if command.startswith("mien restore /backups/mien-monday.tar"):
            place.mien.run("backup", place.folder / "backups" / "mien-monday.tar")
        done = subprocess.run(
            ["bash", "-c", "\n".join([*exports, filled])],
            cwd=checkout,
            env=environment,
            input="y\n",  # to what is asked before something is deleted
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        said = f"{block}: {filled}\n{done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.returncode == 0, said
        assert "Traceback" not in done.stderr, said
    for csv in re.findall(r"(?:--csv |OUT=)(\S+\.csv)", block.text):
        assert (checkout / csv).read_text().startswith("file,"), csv

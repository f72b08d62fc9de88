"""The log: one JSON object a line, with the job and the chunk, and without what nobody may read there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mien import logs
from mien.settings import load_settings


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written to stderr; the root logger is as before afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield lambda: capsys.readouterr().err
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_an_object_with_what_it_is_about(written: Callable[[], str]) -> None:
    logs.configure(load_settings(log_format="json"), "worker")
    log = logging.getLogger("test")
    with logs.about(job="19a3c5e7b2f0d4e6a8c1b"), logs.about(chunk=7):
        log.warning("two\nlines, \u2028 and %s", "a \ud800 half")
    log.debug("not at this level")
    log.info("about nothing")
    first, second = lines(written())
    assert (first["job"], first["chunk"], first["level"], first["process"]) == (
        "19a3c5e7b2f0d4e6a8c1b", 7, "WARNING", "worker",
    )  # fmt: skip
    assert first["time"].endswith("Z")
    assert first["message"].startswith("two\nlines")
    assert "job" not in second


def test_an_exception_is_part_of_its_line(written: Callable[[], str]) -> None:
    logs.configure(load_settings(log_format="json"), "web")
    try:
        raise ValueError("the file '/photos/Anna Müller.jpg' with the key mien_" + "k" * 43)
    except ValueError:
        logging.getLogger("test").exception("it failed")
    text = written()
    (line,) = lines(text)
    assert "ValueError" in line["exception"]
    assert "Anna" not in text
    assert "kkkk" not in text


@pytest.mark.parametrize("how", ["text", "json"])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdef-123", "abcdef"),
        ("the key mien_" + "x" * 43 + " was used", "xxxx"),
        ("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ"),
        ("postgresql://mien:geheim@db/mien is away", "geheim"),
        ("redis://:geheim@redis:6379/0 is away", "geheim"),
        ("No such file or directory: '/photos/Anna.JPG'", "Anna"),
        ("cannot open b'/photos/Anna \\xff.heic'", "Anna"),
        ("\"Anna, 'the' one.png\" is broken", "Anna"),
    ],
)
def test_what_nobody_may_read(written: Callable[[], str], how: str, text: str, secret: str) -> None:
    logs.configure(load_settings(log_format=how), "web")
    logging.getLogger("test").error("%s", text)
    found = written()
    assert found
    assert secret not in found


def test_lines_for_people_say_what_they_are_about(written: Callable[[], str]) -> None:
    logs.configure(load_settings(), "worker")
    with logs.about(job="19a3", chunk=7):
        logging.getLogger("test").warning("lost")
    assert written().strip().endswith("lost [job 19a3, chunk 7]")

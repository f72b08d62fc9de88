"""Uploads that arrive at once never touch the reserve of the disk together."""

from __future__ import annotations

import io
import shutil
import threading
from pathlib import Path

import pytest

from mien import uploads
from mien.errors import NoSpaceError
from mien.settings import Settings


def test_eight_uploads_stop_before_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    room, reserve = 20 << 20, 1 << 30
    written = threading.Lock()
    used = lowest = 0

    def disk(_path: Path) -> object:
        nonlocal lowest
        free = reserve + room - used
        lowest = min(lowest, room - used)
        return usage._replace(free=free)

    def write(descriptor: int, block: bytes) -> None:
        nonlocal used
        with written:
            used += len(block)

    monkeypatch.setattr(shutil, "disk_usage", disk)
    monkeypatch.setattr(uploads, "_write", write)
    settings = Settings(data_dir=tmp_path, min_free_bytes=reserve)
    with uploads.new_folder(settings) as folder:
        refused: list[NoSpaceError] = []

        def upload(number: int) -> None:
            try:
                uploads.store(settings, folder.public_id, b"%d" % number, io.BytesIO(bytes(8 << 20)), limit=1 << 30)
            except NoSpaceError as error:
                refused.append(error)

        threads = [threading.Thread(target=upload, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused
    assert lowest >= 0
    assert used <= room

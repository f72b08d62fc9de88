"""Archives that lie about themselves, hold a million entries, or the same name twice: read exactly, or refused."""

from __future__ import annotations

import gzip
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mien.archive_stream import ArchiveError
from mien.archives import entries
from mien.errors import MienError, TooLargeError
from mien.intake import FormIntake, Intake
from mien.settings import Settings
from tests.support.hostile_archives import END, Arriving, listed, local, tar_header, tar_of_many, zip_of_many
from tests.support.properties import is_long

MANY = 2_000
MILLION = 1_000_000
PEAK = 4 << 20
"""Bytes of memory that reading takes at most, whatever the number of entries."""


def unpacked(archive: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for entry in entries(Arriving([archive])):
        data = b""
        while more := entry.read(1 << 16):
            data += more
        found.append((entry.path, data))
    return found


def refused(archive: bytes) -> str:
    with pytest.raises(ArchiveError) as caught:
        unpacked(archive)
    return caught.value.code


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("make", [zip_of_many, tar_of_many])
def test_any_number_of_entries_takes_the_same_memory(make: Callable[[int, bytes], Iterator[bytes]]) -> None:
    """A million in the long run (``make fuzz``), some of them in every run."""
    number = MILLION if is_long() else MANY
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not is_long():
        tracemalloc.start()  # exact, and ten times as slow
    count = size = 0
    for entry in entries(Arriving(make(number, b"x" * 100))):
        count += 1
        while data := entry.read(1 << 16):
            size += len(data)
    assert (count, size) == (number, 100 * number)
    if is_long():
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB
    else:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < PEAK


def intake_of(tmp_path: Path, **limits: int) -> Intake:
    (tmp_path / "uploads" / "job").mkdir(parents=True)
    return FormIntake(Settings(data_dir=tmp_path, min_free_bytes=0, **limits), "job")  # type: ignore[arg-type]


def test_more_entries_than_the_limit_end_the_archive_at_once(tmp_path: Path) -> None:
    body = Arriving(zip_of_many(MANY))
    with intake_of(tmp_path, max_upload_files=50) as intake, pytest.raises(TooLargeError) as caught:
        intake.take_archive(body)
    assert caught.value.code in ("archive_too_many", "job_too_large")
    assert body.taken < 10_000
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []


def test_entries_that_are_no_images_count_too_and_are_not_all_named(tmp_path: Path) -> None:
    with intake_of(tmp_path, max_upload_files=2000) as intake:
        intake.take_archive(Arriving(zip_of_many(2000, b"", b".txt")))
        assert intake.received.skipped == {"not_an_image": 2000}
        assert len(intake.received.named_skipped) == 100
    with intake_of(tmp_path / "other", max_upload_files=1999) as intake, pytest.raises(TooLargeError) as caught:
        intake.take_archive(Arriving(zip_of_many(2000, b"", b".txt")))
    assert caught.value.code == "archive_too_many"


def test_of_the_same_name_twice_the_last_counts(tmp_path: Path) -> None:
    files = [(b"a.jpg", b"first"), (b"b.jpg", b"other"), (b"a.jpg", b"last")]
    archive = b"".join(local(*file) for file in files) + b"".join(listed(*file) for file in files) + END
    assert unpacked(archive) == files
    with intake_of(tmp_path) as intake:
        intake.take_archive(Arriving([archive]))
        kept = intake.files()  # type: ignore[attr-defined]
        assert [(file.path, file.size) for file in kept] == [(b"a.jpg", 4), (b"b.jpg", 5)]
        stored = {file.path: (tmp_path / "uploads" / "job" / file.stored_name).read_bytes() for file in kept}
    assert stored == {b"a.jpg": b"last", b"b.jpg": b"other"}


@pytest.mark.parametrize(
    "told",
    [
        {"size": 4}, {"size": 6}, {"packed": 4}, {"packed": 6}, {"packed": 0}, {"size": 0}, {"crc": 0},
        {"size": 0xFFFFFFFE}, {"packed": 0xFFFFFFFE}, {"size": 0xFFFFFFFF}, {"packed": 0xFFFFFFFF},
    ],
)  # fmt: skip
def test_a_zip_whose_headers_lie_is_refused(told: dict[str, int]) -> None:
    data = b"12345"
    archive = local(b"a.jpg", data, told=told) + listed(b"a.jpg", data) + END
    assert refused(archive) == "archive_damaged"


def test_wide_sizes_that_lie_are_refused_before_anything_is_held() -> None:
    full = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF}
    for size, packed in ((5, 2**63), (2**63, 5), (2**64 - 1, 2**64 - 1), (6, 5)):
        extra = struct.pack("<2H2Q", 1, 16, size, packed)
        archive = local(b"a.jpg", b"12345", told=full, extra=extra) + listed(b"a.jpg", b"12345") + END
        assert refused(archive) == "archive_damaged", (size, packed)
    sound = local(b"a.jpg", b"12345", told=full, extra=struct.pack("<2H2Q", 1, 16, 5, 5))
    assert unpacked(sound + listed(b"a.jpg", b"12345") + END) == [(b"a.jpg", b"12345")]


def test_a_deflated_file_that_says_another_size_is_refused() -> None:
    for told in (10, 999_999, 0xFFFFFFFE):
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = bytes(1_000_000)
        packed = squeeze.compress(data) + squeeze.flush()
        head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(data), len(packed), told, 5, 0)
        assert refused(head + b"a.bmp" + packed + listed(b"a.bmp", data) + END) == "archive_damaged"


def test_one_file_that_is_listed_a_thousand_times_is_refused() -> None:
    """The bomb of overlapping entries: its directory names one piece of data over and over."""
    archive = local(b"a.jpg", b"x" * 1000) + b"".join(listed(b"%d.jpg" % n, b"x" * 1000) for n in range(1000)) + END
    assert refused(archive) == "archive_damaged"


def test_a_name_that_hides_in_an_extra_field_is_checked_too() -> None:
    raw, real = b"a.jpg", b"../../etc/evil.jpg"
    field = b"\1" + struct.pack("<I", zlib.crc32(raw)) + real
    extra = struct.pack("<2H", 0x7075, len(field)) + field
    assert refused(local(raw, b"1", extra=extra) + listed(raw, b"1") + END) == "archive_unsafe_path"


@pytest.mark.parametrize(
    "raw_size",
    [
        b"77777777777\0",  # eight gigabytes that do not come
        b"-0000000001\0",
        b"0x000000010\0",
        b"\x80" + b"\xff" * 11,  # base 256: beyond any disk
        b"\xff" * 12,  # base 256: negative
        b"99999999999\0",
        b"            ",
    ],
)
def test_a_tar_whose_sizes_lie_is_refused(raw_size: bytes) -> None:
    archive = tar_header("a.jpg", 5, raw_size) + b"12345".ljust(512, b"\0") + bytes(1024)
    try:
        found = unpacked(archive)
    except ArchiveError as error:
        assert error.code in ("archive_damaged", "not_an_archive")
    else:
        assert found == [(b"a.jpg", b"")]  # no number is a size of nothing, as tar writes it for folders


@pytest.mark.parametrize(("told", "fits"), [(5, True), (5000, False), (10**17, False)])
def test_a_pax_header_that_says_another_size(told: int, fits: bool) -> None:
    record = b"size=%d\n" % told
    length = next(n for n in range(30) if len(b"%d %s" % (n, record)) == n)
    record = b"%d %s" % (length, record)
    head = bytearray(tar_header("x", len(record)))
    head[156:157], head[148:156] = b"x", b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    file = tar_header("a.jpg", 1) + b"12345".ljust(512, b"\0")
    archive = bytes(head) + record.ljust(512, b"\0") + file + bytes(1024)
    if fits:
        assert unpacked(archive) == [(b"a.jpg", b"12345")]
    else:
        assert refused(archive) == "archive_damaged"


def test_archives_within_archives_are_bytes_and_no_archives() -> None:
    inner = gzip.compress(b"".join(tar_of_many(3, b"x")))
    assert refused(gzip.compress(inner)) == "not_an_archive"
    nested = b"".join([local(b"inner.zip", inner), listed(b"inner.zip", inner), END])
    assert unpacked(nested) == [(b"inner.zip", inner)]


def test_a_bomb_of_bombs_stops_at_the_first(tmp_path: Path) -> None:
    flood = gzip.compress(tar_header("a.bmp", 1 << 30) + bytes(100 << 20), 1)
    with intake_of(tmp_path, max_file_bytes=1 << 30) as intake, pytest.raises(MienError) as caught:
        intake.take_archive(Arriving([flood]))
    assert caught.value.code in ("archive_bomb", "file_too_large")
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []


def test_names_of_any_length_are_refused_or_taken(tmp_path: Path) -> None:
    for length, fits in ((1996, True), (1997, False), (65_000, False)):
        name = b"x" * length + b".jpg"
        archive = local(name, b"1") + listed(name, b"1") + END
        with intake_of(tmp_path / str(length)) as intake:
            if fits:
                intake.take_archive(Arriving([archive]))
            else:
                with pytest.raises(MienError) as caught:
                    intake.take_archive(Arriving([archive]))
                assert caught.value.code == "bad_path"

"""Property-based: whatever bytes come, decoding and unpacking end in what they hold or in a named error; what is packed
is unpacked exactly; and a CSV of whatever names is read back by any reader, none of its cells a formula."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mien.archive_stream import FLOOD_FROM, ArchiveError
from mien.archives import entries
from mien.csv_text import FORMULA_STARTS
from mien.database import Database
from mien.errors import ImageError
from mien.export import csv_lines, errors_csv_lines, images_csv_lines, jsonl_lines
from mien.images import decode, probe
from mien.jobs import get_job
from mien.ledger.commit import ImageOutcome
from mien.ledger.expand import begin_expansion, finish_expansion, write_slice
from mien.ledger.lease import LeasedImage
from mien.ledger.submit import submit
from mien.ledger.work import take_job
from mien.paths import exact_name
from tests.support.image_parts import good
from tests.support.ledger import assert_exact, bad, new_job, ok, work_off
from tests.support.servers import migrated_ledger
from web.codes import IMAGE_CODES

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(PATHS, st.binary(max_size=3000), max_size=6)


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with some cut, changed, doubled, moved or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 1 + len(data) // 4))
        match draw(st.sampled_from(("cut", "flip", "double", "insert", "fill"))):
            case "cut":
                del data[at : at + length]
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "double":
                data[at:at] = data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=64))
            case "fill":
                data[at : at + length] = bytes([draw(st.sampled_from((0, 0xFF, 0x7F)))]) * length
    return bytes(data)


@given(data=st.sampled_from(sorted(good())).flatmap(lambda name: broken(good()[name])))
def test_a_broken_image_is_an_array_or_a_named_error(data: bytes) -> None:
    try:
        decoded = decode(data, max_pixels=1_000_000)
    except ImageError as error:
        assert error.code in {*IMAGE_CODES, "too_large"}
        assert error.detail.endswith(".")
    else:
        height, width, channels = decoded.pixels.shape
        assert (width, height, channels) == (decoded.width, decoded.height, 3)
        header = probe(data, max_pixels=1_000_000)
        assert (header.width, header.height) == (width, height)


@given(data=st.binary(max_size=2000))
@example(b"\xff\xd8")
@example(b"RIFF\0\0\0\0WEBP")
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code in IMAGE_CODES


def packed(files: dict[str, bytes], kind: str) -> bytes:
    target = io.BytesIO()
    if kind.startswith("zip"):
        method = zipfile.ZIP_DEFLATED if kind == "zip" else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    else:
        with tarfile.open(fileobj=target, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


class Arriving(io.BytesIO):
    """At most ``step`` bytes at once."""

    step = 1 << 16

    def read(self, size: int | None = -1, /) -> bytes:
        """As a body arrives."""
        return super().read(self.step if size is None or size < 0 else min(size, self.step))


def unpacked(archive: bytes, step: int) -> dict[str, bytes]:
    source = Arriving(archive)
    source.step = step
    found = {}
    for entry in entries(source):
        data = b""
        while more := entry.read(1 << 14):
            data += more
        found[entry.path.decode()] = data
    return found


KINDS = st.sampled_from(("zip", "zip stored", "tar", "tar.gz"))


@given(files=FILES, kind=KINDS, step=st.sampled_from((1, 13, 1 << 16)))
def test_what_is_packed_is_unpacked_exactly(files: dict[str, bytes], kind: str, step: int) -> None:
    # `./` in front is taken off, and a tar's writer takes a `/` at the end for a folder
    files = {name: data for name, data in files.items() if not name.startswith("./")}
    assert unpacked(packed(files, kind), step) == files


@given(data=st.tuples(FILES, KINDS).map(lambda some: packed(*some)).flatmap(broken))
def test_a_broken_archive_is_refused_or_still_one(data: bytes) -> None:
    size = 0
    try:
        for entry in entries(Arriving(data)):
            assert not entry.path.startswith(b"/") and b".." not in entry.path.split(b"/")
            while more := entry.read(1 << 14):
                size += len(more)
    except ArchiveError as error:
        assert error.code == "not_an_archive" or error.code.startswith("archive_")
        assert error.status == 422
    assert size <= FLOOD_FROM + (1 << 16)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    file = tmp_path / "ledger.sqlite3"
    file.write_bytes(migrated_ledger())
    database = Database(f"sqlite:///{file}")
    yield database
    database.dispose()


CELLS = st.one_of(
    NAMES,
    st.tuples(st.sampled_from(("=", "+", "-", "@", "\t", "\r", " =", '"', ",", "\n", "'")), NAMES).map("".join),
)


@settings(max_examples=max(8, settings().max_examples // 10))
@given(paths=st.lists(st.lists(CELLS, min_size=1, max_size=2).map("/".join), min_size=1, max_size=8, unique=True))
@example(['=HYPERLINK("http://evil")', "  @SUM(1)", "\tx", "\rx", 'a\r\nb,"c"', "-2+3", "+1", "'=1"])
def test_a_csv_is_read_back_whatever_the_names_are(db: Database, tmp_path: Path, paths: list[str]) -> None:
    raw = sorted(path.encode() for path in paths)
    (tmp_path / "photos").mkdir(exist_ok=True)
    public_id, _ = submit(db, new_job(tmp_path / "photos"))
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_expansion(db, lease)
    write_slice(db, lease, raw, 0, 4)
    finish_expansion(db, lease, None)
    failing = set(raw[::2])

    def answer(image: LeasedImage) -> ImageOutcome:
        return bad(image) if image.path in failing else ok(image)

    work_off(db, answer)
    assert_exact(db, public_id)
    job = get_job(db, "local", public_id)
    names = [exact_name(path) for path in raw]
    for lines, wanted in (
        (csv_lines, names), (images_csv_lines, names), (errors_csv_lines, [exact_name(p) for p in raw if p in failing]),
    ):  # fmt: skip
        exact = table(b"".join(lines(db, job)))
        assert [row["file"] for row in exact] == wanted
        safe = table(b"".join(lines(db, job, spreadsheet=True)))
        assert [row["file"].removeprefix("'") for row in safe] == [name.removeprefix("'") for name in wanted]
        for row in safe:
            for column in ("file", "error", "detail", "error_detail"):
                assert not row.get(column, "").lstrip(" ").startswith(FORMULA_STARTS), row
    assert b"".join(jsonl_lines(db, job)).count(b"\n") == len(raw)


def table(data: bytes) -> list[dict[str, str]]:
    """As the csv module of Python reads it; every row has every column."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    assert {len(row) for row in rows} == {len(rows[0])}
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]

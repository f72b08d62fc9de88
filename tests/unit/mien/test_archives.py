"""Archives as a stream: what the common tools write is read exactly; whatever is unsafe or damaged is refused."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from mien.archive_stream import FLOOD_FROM, FLOOD_RATIO, ArchiveError
from mien.archives import entries, why_passed_over


class Trickle:
    """Gives at most ``step`` bytes at once, as a network does; counts what was taken."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step
        self.taken = 0

    def read(self, size: int, /) -> bytes:
        data = self._data.read(min(size, self._step))
        self.taken += len(data)
        return data


class Pipe(io.RawIOBase):
    """A target that cannot seek: what ``zip - folder | curl`` writes into."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def some_files() -> dict[str, bytes]:
    chance = random.Random(1)
    return {
        "sub/" * (number % 3) + f"é{number}.jpg": chance.randbytes(chance.choice([0, 1, 100, 70_000, 300_000]))
        + b"a" * chance.choice([0, 50_000])
        for number in range(30)
    }


def zipped(files: dict[str, bytes], *, stream: bool = False, stored: bool = False, wide: bool = False) -> bytes:
    target = Pipe() if stream else io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.mkdir("sub")
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=wide) as file:
                file.write(data)
    return bytes(target.data) if isinstance(target, Pipe) else target.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, mode: str = "w", **member: object) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in member.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def without_padding(archive: bytes) -> bytes:
    """A tar with one block of zeros at its end, where the tools write up to twenty."""
    length = len(archive.rstrip(b"\0"))
    return archive[: length + -length % 512] + bytes(512)


def unpacked(archive: bytes, step: int = 1 << 20) -> dict[str, bytes]:
    found = {}
    for entry in entries(Trickle(archive, step)):
        data = b""
        while more := entry.read(4096):
            data += more
        found[entry.path.decode()] = data
    return found


def refusal(archive: bytes) -> ArchiveError:
    with pytest.raises(ArchiveError) as refused:
        unpacked(archive)
    assert refused.value.status == 422
    return refused.value


@pytest.mark.parametrize("step", [1 << 20, 777])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("stream", "stored"), [(False, False), (False, True), (True, False)])
def test_zips_of_every_kind(stream: bool, stored: bool, wide: bool, step: int) -> None:
    files = some_files()
    assert unpacked(zipped(files, stream=stream, stored=stored, wide=wide), step) == files


@pytest.mark.parametrize("step", [1 << 20, 777])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_kind(form: int, mode: str, step: int) -> None:
    files = some_files() | ({} if form == tarfile.USTAR_FORMAT else {"long/" * 40 + "name.jpg": b"deep"})
    assert unpacked(tarred({f"./{name}": data for name, data in files.items()}, form, mode), step) == files


def test_what_the_system_tools_write(tmp_path: Path) -> None:
    files = some_files()
    folder = tmp_path / "photos"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    commands = {"tar": ["tar", "-C", folder, "-czf", "-", "."]}
    if shutil.which("zip"):
        commands |= {"zip": ["zip", "-qr", "-", "."], "zip to a file": ["zip", "-qr", tmp_path / "a.zip", "."]}
    for name, command in commands.items():
        said = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
        assert unpacked(said or (tmp_path / "a.zip").read_bytes()) == files, name


def test_two_gzip_members_are_one_stream() -> None:
    archive = tarred({"a.jpg": b"1" * 5000, "b.jpg": b"2" * 5000})
    assert unpacked(gzip.compress(archive[:3000]) + gzip.compress(archive[3000:])).keys() == {"a.jpg", "b.jpg"}


def test_entries_that_are_not_read_are_passed_over() -> None:
    files = some_files()
    for archive in (zipped(files), zipped(files, stream=True), tarred(files), tarred(files, mode="w:gz")):
        assert [entry.path.decode() for entry in entries(Trickle(archive, 5000))] == list(files)


def test_names_of_old_zips_are_read_in_their_code_page() -> None:
    archive = zipped({"aXb.jpg": b"1"}).replace(b"aXb.jpg", b"a\x81b.jpg")
    assert unpacked(archive) == {"aüb.jpg": b"1"}


@pytest.mark.parametrize("name", ["/etc/passwd.jpg", "../a.jpg", "a/../../b.jpg", "a//b.jpg", "a/./b.jpg"])
def test_paths_that_lead_out_are_refused(name: str) -> None:
    for archive in (zipped({name: b"1"}), tarred({name: b"1"})):
        assert refusal(archive).code == "archive_unsafe_path"


def test_links_are_refused() -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        assert refusal(tarred({"a.jpg": b""}, type=kind, linkname="/etc/passwd")).code == "archive_link"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(target.getvalue()).code == "archive_link"


def test_devices_and_folders_are_no_files() -> None:
    assert unpacked(tarred({"a.jpg": b""}, type=tarfile.CHRTYPE)) == {}
    assert unpacked(tarred({"a.jpg/": b""}, type=tarfile.DIRTYPE)) == {}


@pytest.mark.parametrize("make", [zipped, tarred])
def test_bombs_are_refused_long_before_their_end(make: object) -> None:
    size = 4 * FLOOD_FROM
    plain = make({"a.bmp": bytes(size)})  # type: ignore[operator]
    packed = plain if make is zipped else gzip.compress(plain)
    assert size > FLOOD_RATIO * len(packed)
    read = 0
    with pytest.raises(ArchiveError) as refused:
        for entry in entries(Trickle(packed, 1 << 20)):
            while data := entry.read(1 << 16):
                read += len(data)
    assert refused.value.code == "archive_bomb"
    assert read < 2 * FLOOD_FROM


def test_a_nested_bomb_is_only_bytes() -> None:
    inner = zipped({"b.bmp": bytes(10_000_000)})
    assert unpacked(zipped({"inner.zip": inner})) == {"inner.zip": inner}


def test_an_encrypted_zip_is_refused() -> None:
    archive = bytearray(zipped({"a.jpg": b"1"}))
    at = archive.index(b"PK\3\4", 10)
    archive[at + 6] |= 1
    assert refusal(bytes(archive)).code == "archive_encrypted"


def test_what_cannot_be_read_as_it_arrives_is_said() -> None:
    assert refusal(zipped({"a.jpg": b"1" * 100}, stream=True, stored=True)).code == "archive_unsupported"
    assert unpacked(zipped({"empty.jpg": b""}, stream=True, stored=True)) == {"empty.jpg": b""}
    odd = zipped({"a.jpg": b"1"}).replace(struct.pack("<HH", 8, 0), struct.pack("<HH", 9, 0))
    assert refusal(odd).code == "archive_unsupported"
    assert refusal(tarred({"a.jpg": b"1"}, pax_headers={"GNU.sparse.major": "1"})).code == "archive_unsupported"
    huge = tarred({"a.jpg": b"1"}, pax_headers={"comment": "x" * 100_000})
    assert refusal(huge).code == "archive_unsupported"


@pytest.mark.parametrize("data", [b"", b"x", b"PK", b"PK\3\4", b"\xff\xd8\xff" + bytes(2000), b"\x1f\x8b" + b"x" * 99])
def test_other_files_are_no_archives(data: bytes) -> None:
    assert refusal(data).code in ("not_an_archive", "archive_damaged")


@pytest.mark.parametrize("mode", ["zip", "zip stream", "tar", "tar.gz"])
def test_wherever_it_is_cut_off_that_is_seen(mode: str) -> None:
    files = {name: data[:3000] for name, data in list(some_files().items())[:8]}
    archive = {
        "zip": zipped(files),
        "zip stream": zipped(files, stream=True),
        "tar": without_padding(tarred(files)),
        "tar.gz": tarred(files, mode="w:gz"),
    }[mode]
    assert unpacked(archive) == files
    for cut in range(1, len(archive) - 25, max(1, len(archive) // 150)):
        assert refusal(archive[:cut]).code in ("archive_damaged", "not_an_archive"), cut


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_it_is_an_archive_error_or_still_an_archive(seed: int) -> None:
    chance = random.Random(seed)
    files = {name: data[:300] for name, data in list(some_files().items())[:5]}
    whole = [zipped(files), zipped(files, stream=True), tarred(files), tarred(files, mode="w:gz")]
    refused = 0
    for _ in range(300):
        archive = bytearray(chance.choice(whole))
        at = chance.randrange(len(archive))
        match chance.choice(["change", "cut", "insert"]):
            case "change":
                archive[at] = chance.randrange(256)
            case "cut":
                del archive[at : at + chance.randrange(1, 60)]
            case "insert":
                archive[at:at] = chance.randbytes(chance.randrange(1, 30))
        try:
            for entry in entries(Trickle(bytes(archive), chance.choice([7, 1000]))):
                while entry.read(1000):
                    pass
        except ArchiveError:
            refused += 1
    assert refused > 100


def test_a_changed_byte_within_a_zipped_file_is_seen() -> None:
    archive = bytearray(zipped({"a.jpg": random.Random(2).randbytes(5000)}, stored=True))
    archive[archive.index(b"a.jpg") + 1000] ^= 1
    assert refusal(bytes(archive)).code == "archive_damaged"


def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end() -> None:
    archive = bytearray(tarred({"a.jpg": b"1" * 512, "b.jpg": b"2" * 512}))
    archive[1024 + 150] ^= 1
    assert refusal(bytes(archive)).code == "archive_damaged"


@pytest.mark.parametrize(
    "records", [b"12 path=a.b\nrest", b"0 path=a\n", b"1 \n", b"99 path=a\n", b"path=a\n", b"-9 a=b\n"]
)
def test_a_pax_header_that_is_none_is_refused(records: bytes) -> None:
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, len(records)
    archive = head.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + tarred({"a.jpg": b"1"})
    assert refusal(archive).code == "archive_damaged"


def test_a_zip_that_lists_other_files_than_it_holds_is_refused() -> None:
    archive = zipped({"a.jpg": b"1", "b.jpg": b"2"})
    at = archive.index(b"PK\1\2")
    end = archive.index(b"PK\1\2", at + 1)
    assert refusal(archive[:at] + archive[end:]).code == "archive_damaged"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"a.jpg", None),
        (b"a/b.JPeG", None),
        (b"a.heic", None),
        (b"notes.txt", "not_an_image"),
        (b"jpg", "not_an_image"),
        (b".hidden.jpg", "hidden"),
        (b"__MACOSX/a.jpg", "hidden"),
        (b"a/._b.jpg", "hidden"),
    ],
)
def test_the_rules_of_a_folder_hold(path: bytes, why: str | None) -> None:
    assert why_passed_over(path) == why

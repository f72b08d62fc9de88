"""Broken and hostile images: each ends in an array or a named error, in bounded time and memory, harming no other."""

from __future__ import annotations

import sys

import pytest

from mien.errors import ImageError
from mien.hostile import MAX_SCANS, check_jpeg
from mien.images import decode
from tests.support.bounded_decoding import MAX_PIXELS, SECONDS, Report, decode_all
from tests.support.hostile_images import MUST_FAIL, corpus
from tests.support.image_parts import good, many_scans
from web.codes import IMAGE_CODES

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's here")
GROUPS = ("cut", "flipped", "huge", "zero", "bomb", "odd", "polyglot", "structure", "not_an_image")


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """What became of each, decoded one after the other in one process: none may take it along."""
    return decode_all(corpus())


@pytest.mark.parametrize("group", GROUPS)
def test_each_ends_in_an_array_or_a_named_error(reports: dict[str, Report], group: str) -> None:
    found = {name: report for name, report in reports.items() if name.startswith(f"{group}/")}
    assert len(found) >= 6
    for name, report in found.items():
        if report.code is None:
            assert report.shape is not None and report.shape[2] == 3, name
            assert report.shape[0] * report.shape[1] <= MAX_PIXELS, name
            assert not name.startswith(MUST_FAIL), f"{name} came out as {report.shape}"
        else:
            assert report.code in {*IMAGE_CODES, "too_large"}, (name, report)
            assert report.detail.endswith("."), (name, report)
        assert report.seconds < SECONDS, (name, report)


def test_nothing_was_left_out(reports: dict[str, Report]) -> None:
    assert set(reports) == set(corpus())
    assert {name.partition("/")[0] for name in reports} == set(GROUPS)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("bomb/PNG of 900 megapixels", "too_large"),
        ("bomb/TIFF of 900 megapixels", "too_large"),
        ("bomb/BMP in runs", "too_large"),
        ("huge/WEBP canvas", "too_large"),
        ("huge/GIF", "too_large"),
        ("structure/JPEG of 5,000 scans", "unsupported_format"),
        ("structure/JPEG of 300 EXIF blocks", "unsupported_format"),
        ("structure/JPEG of filling", "unsupported_format"),
        ("structure/PNG of 200,000 parts", "corrupt"),
        ("structure/GIF of nothing", "corrupt"),
        ("polyglot/PDF with a JPEG", "unsupported_format"),
        ("polyglot/page with a PNG", "not_an_image"),
        ("not_an_image/PostScript", "unsupported_format"),
        ("zero/bytes", "empty_file"),
    ],
)
def test_the_error_says_what_it_was(reports: dict[str, Report], name: str, code: str) -> None:
    assert reports[name].code == code, reports[name]


def test_sound_files_of_every_kind_are_read_at_once_and_after_all_those() -> None:
    for name, data in good().items():
        assert decode(data).pixels.ndim == 3, name


def test_the_usual_numbers_of_scans_and_segments_pass() -> None:
    progressive = good()["JPEG progressive"]
    check_jpeg(many_scans(progressive, MAX_SCANS // 2))
    with pytest.raises(ImageError, match="scans"):
        check_jpeg(many_scans(progressive, MAX_SCANS))
    # what follows the end of an image (a second one, a film) is not counted
    check_jpeg(progressive + b"\xff\xda\0\2" * 10 * MAX_SCANS)
    check_jpeg(good()["JPEG"] + b"\xff\xda\0\2" * 10 * MAX_SCANS)
    # scans hidden behind a comment that looks like the end of the image
    last = progressive.rindex(b"\xff\xda")
    hidden = progressive[:-2] + (b"\xff\xfe\0\4\xff\xd9" + progressive[last:-2]) * 2 * MAX_SCANS + b"\xff\xd9"
    with pytest.raises(ImageError, match="scans"):
        check_jpeg(hidden)

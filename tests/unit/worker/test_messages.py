"""What goes over the pipe comes out as it went in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.messages import (
    EngineSpec,
    FaceResult,
    Handed,
    ImageResult,
    ImageTask,
    pack_images,
    pack_results,
    pack_spec,
    unpack,
    unpack_images,
    unpack_result,
    unpack_spec,
)


def test_a_spec() -> None:
    spec = EngineSpec("/models/ä", "abc", "cpu", "fp32", "detect", 640, 0.7, 12, 200_000_000, 1 << 29)
    content = unpack(pack_spec(3, spec))
    assert content["number"] == 3
    assert unpack_spec(content) == spec


def test_any_path() -> None:
    task = ImageTask(5, bytes(range(1, 256)), b"\xff\xfe\n'\"\\ \xf0\x9f\x98\x80.jpg")
    images = [Handed(5, 3, task, first=True), Handed(6, 2, replace(task, key=6), first=False, alone=True)]
    (message,) = pack_images(images)
    assert unpack_images(unpack(message)) == images


def test_an_image_may_travel_inline() -> None:
    task = ImageTask(5, b"", b"", bytes(range(256)))
    images = [Handed(5, 3, task, first=True), Handed(6, 3, ImageTask(6, b"/", b"a"), first=True)]
    first, second = pack_images(images)
    assert unpack_images(unpack(first)) + unpack_images(unpack(second)) == images[::-1]
    assert "data" not in repr(task)


@pytest.mark.parametrize(
    "result",
    [
        ImageResult(7, "failed", error_code="corrupt", error="The “data” is damaged."),
        ImageResult(7, "no_face", width=3, height=4, bytes=5, sha256=b"\0" * 32, format="JPEG", read_s=0.1),
        ImageResult(
            7, "ok", width=3, height=4, faces=(
                FaceResult(0.1, 2.0, 3.3, 4.4, 0.123456789012345, (1 / 3, 2 / 3)), FaceResult(0, 0, 3, 4, None, (1.0,)),
            ),
        ),
    ],
)  # fmt: skip
def test_results(result: ImageResult) -> None:
    other = replace(result, key=8)
    first, second = unpack(pack_results([result, other]))["results"]
    assert (first["key"], second["key"]) == (7, 8)
    assert unpack_result(first, 7) == result
    assert unpack_result(second, 8) == other


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"{}", b'{"kind": 1}', b"\x80\x04."])
def test_nonsense_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(message)

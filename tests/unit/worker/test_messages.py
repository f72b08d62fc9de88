"""What goes over the pipe comes out as it went in."""

from __future__ import annotations

import pytest

from worker.messages import (
    EngineSpec,
    FaceResult,
    ImageResult,
    ImageTask,
    pack_image,
    pack_result,
    pack_spec,
    unpack,
    unpack_image,
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
    content = unpack(pack_image(5, 3, task, first=True))
    assert unpack_image(content) == task
    assert (content["spec"], content["first"]) == (3, True)


def test_an_image_may_travel_inline() -> None:
    task = ImageTask(5, b"", b"", bytes(range(256)))
    assert unpack_image(unpack(pack_image(5, 3, task, first=True))) == task
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
    assert unpack_result(unpack(pack_result(result)), 7) == result


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"{}", b'{"kind": 1}', b"\x80\x04."])
def test_nonsense_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(message)

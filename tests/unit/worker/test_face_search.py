"""The detector's boxes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.images import DecodedImage, decode
from worker import face_search
from worker.face_search import WEIGHTS, Face, FaceDetector, coarser, quarter, reduced
from worker.onnx_sessions import open_session


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def photo(shared: Path, name: str = "001.jpg") -> bytes:
    return (shared / "photos" / name).read_bytes()


def photos(shared: Path, count: int) -> list[bytes]:
    return [path.read_bytes() for path in sorted((shared / "photos").glob("*.jpg"))[:count]]


def as_jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def made(pixels: np.ndarray, scale: float = 1.0) -> DecodedImage:  # type: ignore[type-arg]
    height, width, _ = pixels.shape
    return DecodedImage(pixels, round(width / scale), round(height / scale), scale, "PNG", 1)


def overlap(a: Face, b: Face) -> float:
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared_area = max(across, 0) * max(down, 0)
    return shared_area / (a.width * a.height + b.width * b.height - shared_area)


@pytest.mark.parametrize(
    ("side", "detect_size", "expected"),
    [
        (1000, 320, [320]), (1000, 480, [480]), (1000, 512, [512, 256]), (1000, 640, [640, 320]), (300, 640, [300]),
        (500, 640, [500, 250]), (1000, 960, [960, 320]), (5000, 1280, [1280, 320]), (5000, 4096, [4096, 1024, 342]),
    ],
)  # fmt: skip
def test_a_search_and_the_coarser_ones(side: int, detect_size: int, expected: list[int]) -> None:
    fine = reduced(np.zeros((side // 2, side, 3), np.uint8), detect_size)
    levels = [fine, *coarser(fine)]
    assert [level.shape[1] for level in levels] == expected
    assert all(level.shape[0] == -(-level.shape[1] // 2) for level in levels)


@pytest.mark.parametrize("shape", [(480, 640), (483, 641), (200, 502), (4, 7)])
def test_a_glance_looks_at_the_means_of_sixteen_pixels(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    height, width = shape[0] // 4, shape[1] // 4
    blocks = pixels[: 4 * height, : 4 * width].reshape(height, 4, width, 4, 3)
    np.testing.assert_array_equal(quarter(pixels), blocks.mean(axis=(1, 3)).astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (480, 640), (33, 31), (3, 600), (170, 700)])
def test_nothing_is_found_where_nothing_is(detector: FaceDetector, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    flat = np.full((*shape, 3), 120, np.uint8)
    assert detector.detect([made(noise), made(flat)]) == [[], []]


@pytest.mark.shared
def test_every_portrait_has_its_face(detector: FaceDetector, shared: Path) -> None:
    images = [decode(data, min_side=640) for data in photos(shared, 50)]
    assert len(images) == 50
    for size in (256, 320, 640):
        assert all(detector.detect([image], detect_size=size)[0] for image in images)


@pytest.mark.shared
def test_the_same_boxes_alone_and_in_a_batch(detector: FaceDetector, shared: Path) -> None:
    images = [decode(data, min_side=640) for data in photos(shared, 6)]
    turned = made(np.ascontiguousarray(images[0].pixels[:, :500]))
    together = detector.detect([*images, turned])
    assert together == [detector.detect([image])[0] for image in [*images, turned]]


@pytest.mark.shared
def test_boxes_are_in_pixels_of_the_full_image_whatever_the_decode(detector: FaceDetector, shared: Path) -> None:
    big = as_jpeg(Image.open(io.BytesIO(photo(shared))).resize((3000, 3000)))
    (full,), (half,) = detector.detect([decode(big)])[0], detector.detect([decode(big, min_side=1500)])[0]
    assert overlap(full, half) > 0.93
    (small,) = detector.detect([decode(photo(shared))])[0]
    assert overlap(full, Face(*(3 * v for v in (small.x, small.y, small.width, small.height)), 1.0)) > 0.93


@pytest.mark.shared
def test_boxes_are_clipped_and_close_ups_found(detector: FaceDetector, shared: Path) -> None:
    image = decode(photo(shared)).pixels
    (face,) = detector.detect([made(image)])[0]
    left, top = int(face.x + face.width * 0.2), int(face.y)
    close = np.ascontiguousarray(image[top : top + int(face.height), left : left + int(face.width)])
    big = made(np.asarray(Image.fromarray(close).resize((close.shape[1] * 4, close.shape[0] * 4))))
    (found,) = detector.detect([big], detect_size=1280)[0]
    assert found.x >= 0
    assert found.y >= 0
    assert found.x + found.width <= big.width
    assert found.y + found.height <= big.height


@pytest.mark.shared
def test_faces_are_numbered_from_the_largest_and_filtered(detector: FaceDetector, shared: Path) -> None:
    portrait = Image.open(io.BytesIO(photo(shared)))
    canvas = Image.new("RGB", (1600, 1000), (90, 90, 90))
    canvas.paste(portrait.resize((400, 400)), (0, 500))
    canvas.paste(portrait.resize((800, 800)), (700, 0))
    canvas.paste(portrait.resize((400, 400)), (0, 50))
    image = made(np.asarray(canvas))
    faces = detector.detect([image])[0]
    assert len(faces) == 3
    assert faces[0].x > 700
    areas = [face.width * face.height for face in faces]
    assert areas == sorted(areas, reverse=True)
    assert detector.detect([image], min_face=areas[0] ** 0.5 * 0.7)[0] == faces[:1]
    assert detector.detect([image], min_score=0.99999)[0] == []


@pytest.mark.shared
def test_a_mirrored_tie_is_broken_by_place(detector: FaceDetector, shared: Path) -> None:
    tile = np.asarray(Image.open(io.BytesIO(photo(shared))).resize((320, 320)))
    image = made(np.ascontiguousarray(np.concatenate([tile, tile], axis=1)))
    first, second = detector.detect([image])[0]
    if (first.width, first.height) == (second.width, second.height):
        assert first.x < second.x
    assert abs(abs(first.x - second.x) - 320) < 3


class Watched:
    """A session that notes the sizes it was given."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.widths: list[int] = []

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        self.widths.append(inputs["pixels"].shape[2])
        return self._session.run(outputs, inputs)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("face_px", "width", "searches"),
    [(200, 640, [160, 640]), (300, 640, [160, 640]), (460, 640, [160, 640, 320]), (200, 480, [480]),
     (200, 1280, [1280, 320])],
)  # fmt: skip
def test_a_coarse_search_follows_where_a_glance_shows_a_large_face(
    shared: Path, monkeypatch: pytest.MonkeyPatch, face_px: int, width: int, searches: list[int]
) -> None:
    detector = FaceDetector()
    image = Image.open(io.BytesIO(photo(shared)))
    (face,) = detector.detect([made(np.asarray(image))])[0]
    scale = max(face.width, face.height) / face_px
    left, top = (at - scale * width / 2 for at in (face.x + face.width / 2, face.y + face.height / 2))
    box = (left, top, left + scale * width, top + scale * width)
    shot = made(np.asarray(image.transform((width, width), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)))
    watched = Watched(detector._session)
    monkeypatch.setattr(detector, "_session", watched)
    found = detector.detect([shot], detect_size=width)[0]
    assert sorted(watched.widths) == sorted(searches)
    middle = width / 2
    wanted = Face(middle - face.width / scale / 2, middle - face.height / scale / 2, face.width / scale,
                  face.height / scale, 1.0)  # fmt: skip
    assert overlap(found[0], wanted) > 0.75


@pytest.mark.shared
def test_what_the_glance_leaves_out_is_not_missed(
    detector: FaceDetector, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [decode(data, min_side=640) for data in photos(shared, 20)]
    glanced = detector.detect(images)
    monkeypatch.setattr(face_search, "GLANCE_FACE", 0)  # every glance that shows a face calls for the coarse search
    always = detector.detect(images)
    for with_glance, without in zip(glanced, always, strict=True):
        assert len(with_glance) == len(without)
        assert all(overlap(a, b) > 0.6 for a, b in zip(with_glance, without, strict=True))


@pytest.mark.shared
def test_the_answers_are_those_of_the_published_network(detector: FaceDetector, shared: Path) -> None:
    """The published file takes 1 x 3 x 640 x 640 floats, blue first, and gives class, object and box by stride."""
    published = open_session(shared / "models/yunet/face_detection_yunet_2023mar.onnx")
    pixels = np.asarray(Image.open(io.BytesIO(photo(shared))).convert("RGB").resize((640, 640)))
    planes = np.ascontiguousarray(pixels[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
    names = [output.name for output in published.get_outputs()]
    theirs = dict(zip(names, published.run(names, {published.get_inputs()[0].name: planes}), strict=True))
    squares, heads = detector._session.run(["squares", "heads"], {"pixels": pixels[None]})
    shares = np.concatenate([theirs[f"cls_{s}"][0, :, 0] * theirs[f"obj_{s}"][0, :, 0] for s in (8, 16, 32)])
    boxes = np.concatenate([theirs[f"bbox_{s}"][0] for s in (8, 16, 32)])
    assert shares.max() > 0.5
    np.testing.assert_allclose(squares[0], shares, atol=1e-5)
    np.testing.assert_allclose(heads[0, :, :4], boxes, atol=1e-4)


@pytest.mark.shared
def test_the_shipped_network_is_what_the_script_makes_of_the_published_one(shared: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from worker.yunet.patch import patch

    made = patch(onnx.load(shared / "models/yunet/face_detection_yunet_2023mar.onnx"))
    assert made.SerializeToString(deterministic=True) == onnx.load(WEIGHTS).SerializeToString(deterministic=True)

"""The detector's boxes and the crops made of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.images import DecodedImage, decode
from mien.model_folder import CropSpec, InputSpec
from worker.faces import (
    Face,
    FaceDetector,
    crop_face,
    crop_whole,
    model_input,
    pyramid,
    side_needed,
    whole_side,
)

SPEC = InputSpec(32, 32, "exact", None, "bilinear", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PLAIN = CropSpec(margin=0.0, grey=False)


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
def test_large_searches_are_followed_by_coarse_ones(side: int, detect_size: int, expected: list[int]) -> None:
    levels = pyramid(np.zeros((side // 2, side, 3), np.uint8), detect_size)
    assert [level.shape[1] for level in levels] == expected
    assert all(level.shape[0] == -(-level.shape[1] // 2) for level in levels)


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (480, 640), (33, 31)])
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


def test_the_crop_is_the_square_around_the_box() -> None:
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[20:60, 30:70] = (200, 100, 50)
    crop = crop_face(made(pixels), Face(40, 20, 20, 40, 1.0), PLAIN, SPEC)
    assert crop.shape == (32, 32, 3)
    np.testing.assert_array_equal(crop, np.broadcast_to([200, 100, 50], crop.shape).astype(np.uint8))
    wider = crop_face(made(pixels), Face(40, 20, 20, 40, 1.0), CropSpec(margin=0.5, grey=False), SPEC)
    assert (wider[0] == 0).all()
    assert (wider[16, 16] == [200, 100, 50]).all()
    assert int((wider[..., 0] > 100).sum()) == 16 * 16  # twice the side: a quarter of the area


def test_edge_pixels_are_repeated_outside_the_image() -> None:
    pixels = np.zeros((50, 50, 3), np.uint8)
    pixels[0, :] = 240
    crop = crop_face(made(pixels), Face(10, 0, 30, 10, 1.0), PLAIN, SPEC)  # the square begins at -10
    assert (crop[:9] == 240).all()
    assert (crop[14:] == 0).all()


def test_a_grey_crop_has_luma_in_three_channels() -> None:
    pixels = np.full((40, 40, 3), (10, 200, 90), np.uint8)
    crop = crop_face(made(pixels), Face(0, 0, 40, 40, 1.0), CropSpec(margin=0.0, grey=True), SPEC)
    assert (crop == Image.new("RGB", (1, 1), (10, 200, 90)).convert("L").getpixel((0, 0))).all()


def test_the_crop_does_not_depend_on_the_decoded_size() -> None:
    rows, columns = np.mgrid[0:1200, 0:1600]
    smooth = (127 + 60 * np.sin(columns / 150)[..., None] + 60 * np.cos(rows / 170)[..., None] * [1, 0.5, -1]).astype(
        np.uint8
    )
    out = io.BytesIO()
    Image.fromarray(smooth).save(out, "PNG")
    face = Face(401.3, 302.7, 310.4, 420.9, 1.0)
    crops = [
        crop_face(decode(out.getvalue(), min_side=side), face, CropSpec(0.1, False), SPEC).astype(int)
        for side in (None, 800, 400)
    ]
    assert abs(crops[0] - crops[1]).max() <= 2
    assert abs(crops[0] - crops[2]).max() <= 3


def test_small_faces_ask_for_a_larger_decode() -> None:
    image = made(np.zeros((480, 640, 3), np.uint8), scale=0.25)  # of 2560 x 1920
    large, small = Face(0, 0, 300, 300, 1.0), Face(0, 0, 64, 50, 1.0)
    assert side_needed(image, [], PLAIN, SPEC) is None
    assert side_needed(image, [large], PLAIN, SPEC) is None
    assert side_needed(image, [large, small], PLAIN, SPEC) == 2560  # twice 32 of 64 pixels: full size
    assert side_needed(image, [Face(0, 0, 120, 90, 1.0)], PLAIN, SPEC) == 1366
    assert side_needed(image, [Face(0, 0, 9, 9, 1.0)], PLAIN, SPEC) == 2560
    assert side_needed(made(np.zeros((480, 640, 3), np.uint8)), [small], PLAIN, SPEC) is None


def test_whole_images_are_resized_as_the_processor_does() -> None:
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[:, :60] = 255
    squashed = crop_whole(made(pixels), PLAIN, SPEC)
    assert squashed.shape == (32, 32, 3)
    assert squashed[16, 4, 0] == 255
    assert squashed[16, 28, 0] == 0
    cropping = InputSpec(32, 32, "shortest_edge", 40, "bilinear", 1 / 255, (0.0,) * 3, (1.0,) * 3)  # type: ignore[arg-type]
    middle = crop_whole(made(pixels), PLAIN, cropping)
    assert middle.shape == (32, 32, 3)
    assert int((middle[..., 0] > 127).sum()) == 32 * 16
    assert whole_side(4000, 3000, SPEC) == 171  # the shorter side at four times the input: 128
    assert whole_side(40, 30, SPEC) == 40


def test_model_input_is_normalised_by_channel() -> None:
    spec = InputSpec(2, 2, "exact", None, "bilinear", 1 / 255, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    crop = np.zeros((2, 2, 3), np.uint8)
    crop[..., 0] = 255
    batch = model_input([crop, crop], spec)
    assert batch.shape == (2, 3, 2, 2)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[1, :, 0, 0], [1.0, -1.0, 0.0], atol=1e-6)

"""The crops that a classifier is given."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mien.images import DecodedImage, decode
from mien.model_folder import CropSpec, InputSpec
from worker.crops import crop_face, crop_whole, model_input, side_needed, whole_side
from worker.face_search import Face

SPEC = InputSpec(32, 32, "exact", None, "bilinear", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PLAIN = CropSpec(margin=0.0, grey=False)


def made(pixels: np.ndarray, scale: float = 1.0) -> DecodedImage:  # type: ignore[type-arg]
    height, width, _ = pixels.shape
    return DecodedImage(pixels, round(width / scale), round(height / scale), scale, "PNG", 1)


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


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.integers(0, 39), st.integers(0, 39)),
    box=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    margin=st.sampled_from([0.0, 0.05, 1.0]),
)
def test_every_pixel_of_a_crop_is_the_nearest_of_the_picture(
    size: tuple[int, int], corner: tuple[int, int], box: tuple[int, int], margin: float
) -> None:
    """Against the definition: the picture's pixel at the coordinates, moved to the nearest edge where there is none."""
    height, width = size
    x, y = min(corner[0], width - 1), min(corner[1], height - 1)
    face = Face(x, y, min(box[0], width - x), min(box[1], height - y), 1.0)
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    side = max(face.width, face.height) * (1 + 2 * margin)
    left, top = face.x + face.width / 2 - side / 2, face.y + face.height / 2 - side / 2
    rows = np.clip(np.arange(int(np.floor(top)), int(np.ceil(top + side))), 0, height - 1)
    columns = np.clip(np.arange(int(np.floor(left)), int(np.ceil(left + side))), 0, width - 1)
    whole = Image.fromarray(pixels[rows[:, None], columns[None, :]])
    at = (left - np.floor(left), top - np.floor(top))
    expected = whole.resize((32, 32), Image.Resampling.BILINEAR, box=(*at, at[0] + side, at[1] + side))
    np.testing.assert_array_equal(crop_face(made(pixels), face, CropSpec(margin, False), SPEC), np.asarray(expected))


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

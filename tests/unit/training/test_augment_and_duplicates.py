from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.labelled import labelled_folder
from training.augment import augment, centre_view
from training.data import scan
from training.duplicates import difference_hash, group
from training.recipe import AugmentPart
from training.split import groups_of, halves

NOTHING = AugmentPart(
    flip=False, rotate=0, scale=0, shift=0, shear=0, gamma=0, contrast=0, brightness=0, noise=0, erase=0
)


def views(
    canvases: torch.Tensor, part: AugmentPart, *, extent: float = 1.0, size: int = 16, seed: int = 0
) -> torch.Tensor:
    count = len(canvases)
    return augment(
        canvases,
        extent=torch.full((count,), extent),
        size=size,
        part=part,
        blur_share=torch.zeros(count),
        blur_to=8,
        generator=torch.Generator().manual_seed(seed),
    )


def test_without_changes_a_view_is_the_image() -> None:
    canvases = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(views(canvases, NOTHING), canvases.float() / 255, atol=2e-4, rtol=0)


def test_the_extent_shows_the_middle_of_the_canvas() -> None:
    canvas = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    canvas[..., 8:24, 8:24] = 255
    assert float(views(canvas, NOTHING, extent=0.5).mean()) > 0.95
    assert float(centre_view(canvas.float() / 255, 0.5, 16).mean()) > 0.95
    assert float(views(canvas, NOTHING).mean()) < 0.3


def test_all_changes_together_stay_in_range_and_repeat_by_seed() -> None:
    canvases = torch.randint(0, 256, (8, 3, 24, 24), dtype=torch.uint8)
    part = AugmentPart(erase=1.0)
    first, again, other = views(canvases, part), views(canvases, part), views(canvases, part, seed=1)
    assert first.shape == (8, 3, 16, 16)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_flipping_mirrors_half_of_the_images() -> None:
    canvas = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    canvas[..., :8] = 255
    flipped = views(canvas.expand(200, -1, -1, -1), NOTHING.model_copy(update={"flip": True}))
    share = float((flipped[:, 0, :, 12].mean(dim=1) > 0.5).float().mean())
    assert 0.35 < share < 0.65


def test_near_duplicates_are_found_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    pictures = [
        np.asarray(Image.fromarray(random.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize((64, 64)))
        for _ in range(50)
    ]
    smaller = np.asarray(Image.fromarray(pictures[7]).resize((48, 48)))
    groups = group([difference_hash(p) for p in [*pictures, smaller]])
    assert groups[50] == groups[7]
    assert len(set(groups)) == 50


def test_images_without_detail_are_never_duplicates() -> None:
    assert group([difference_hash(np.full((32, 32, 3), grey, np.uint8)) for grey in (10, 10, 200)]) == [0, 1, 2]


def test_halves_keep_groups_together_and_labels_even(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path, {"a": 30, "b": 10})
    for number in range(5):
        (root / "a" / f"copy{number}.png").write_bytes((root / "a" / f"{number}.png").read_bytes())
    items = scan(root).splits["all"]
    groups = groups_of(items)
    side = halves(items, groups, seed=3)
    by_name = dict(zip((item.name for item in items), side, strict=True))
    assert all(by_name[f"a/{n}.png"] == by_name[f"a/copy{n}.png"] for n in range(5))
    taken = {label: sum(s for i, s in zip(items, side, strict=True) if i.label == label) for label in ("a", "b")}
    assert taken["b"] == 5
    assert taken["a"] in (17, 18, 19)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_image_mode_becomes_a_canvas(tmp_path: Path, mode: str) -> None:
    from training.canvases import CanvasSpec, load_canvases

    (tmp_path / "data" / "a").mkdir(parents=True)
    picture = Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50) if mode == "I;16" else None
    picture = picture or Image.new("RGB", (30, 40), (200, 100, 50)).convert(mode)
    picture.save(tmp_path / "data" / "a" / f"x.{'jpg' if mode == 'CMYK' else 'png'}")
    items = scan(tmp_path / "data").splits["all"]
    found = load_canvases(items, CanvasSpec(16, 0.1, detect=False, grey=False), tmp_path / "cache")
    assert found.pixels.shape == (1, 3, 16, 16)
    assert not found.unreadable

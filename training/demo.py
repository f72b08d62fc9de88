"""A whole training in two minutes: drawn faces, a small ViT from scratch, a packaged model that ``mien classify`` uses.

The faces are drawn here, so that nothing needs to be downloaded; the model knows nothing about photographs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.metrics import Scores
from training.recipe import Recipe, make_recipe
from training.release import Judge, Release, release
from training.train import Trainer

LABELS = ("happy", "sad", "surprise")
SIDE = 64
IMAGES = {"train": 150, "valid": 50}
"""Per label."""


def run_demo(folder: Path, *, say: Callable[[str], None]) -> tuple[Release, Scores]:
    """Draw, train, package and judge below ``folder``; gives the release and its scores on the drawn valid images."""
    draw_faces(folder / "faces")
    say(f"drew {sum(IMAGES.values()) * len(LABELS)} faces in {folder / 'faces'}")
    trainer = Trainer(demo_recipe(folder / "faces"), folder / "run", say=say, cache=folder / "cache")
    trainer.train()
    card = {
        "about": "The model of `mien train-demo`: a small Vision Transformer trained from scratch on drawn faces. "
        "It shows the way from a folder of images to a model; it is of no use on photographs.",
        "data": "Faces drawn by `training/demo.py`.",
    }
    judge = Judge(folder / "faces", "whole")
    found = release(folder / "run", folder / "model", name="train-demo", judges=[judge], card=card, say=say)
    return found, found.figures[0][1]


def demo_recipe(faces: Path) -> Recipe:
    """A ViT of 0.5 million parameters, half a minute on one core."""
    return make_recipe(
        {
            "name": "train-demo",
            "labels": list(LABELS),
            "data": [{"path": str(faces)}],
            "model": {"kind": "vit", "image_size": 48, "patch_size": 8, "hidden": 96, "depth": 4, "heads": 3},
            "optim": {
                "steps": 500,
                "batch": 32,
                "lr": 1e-3,
                "layer_decay": 1.0,
                "weight_decay": 0.01,
                "warmup": 60,
                "ema": 0.98,
                "precision": "fp32",
            },
            "augment": {"rotate": 5, "scale": 0.05, "shift": 0.03, "shear": 0, "noise": 0.01, "mixup": 0, "erase": 0},
            "run": {"validate_every": 125, "threads": 1},
        }
    )


def draw_faces(folder: Path, *, images: Mapping[str, int] = IMAGES, seed: int = 0) -> None:
    """Draw ``images`` faces per split and label below ``folder``; the same ones for the same seed."""
    random = np.random.default_rng(seed)
    for split, count in images.items():
        for label in LABELS:
            place = folder / split / label
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw_face(label, random).save(place / f"{number:04}.png")


def draw_face(label: str, random: np.random.Generator) -> Image.Image:
    """One drawn face, [SIDE, SIDE] in colour: the mouth and the brows tell, all the rest varies."""
    scale = 4
    side = SIDE * scale
    dark, light = int(random.integers(10, 70)), int(random.integers(150, 246))
    tint = random.integers(-25, 26, 3)
    skin = tuple(int(v) for v in np.clip(light + tint, 0, 255))
    ink = tuple(int(v) for v in np.clip(dark + tint, 0, 255))
    picture = Image.new("RGB", (side, side), tuple(int(v) for v in random.integers(0, 256, 3)))
    pen = ImageDraw.Draw(picture)
    x, y = (side * (0.5 + random.uniform(-0.06, 0.06)) for _ in range(2))
    r = side * random.uniform(0.36, 0.45)
    pen.ellipse((x - 0.85 * r, y - r, x + 0.85 * r, y + r), fill=skin, outline=ink, width=scale)
    line = int(scale * random.uniform(3, 5))
    open_eye = {"surprise": 0.13}.get(label, 0.08) * random.uniform(0.8, 1.2)
    slope = {"happy": 0.0, "sad": -0.12, "surprise": 0.02}[label] + random.uniform(-0.03, 0.03)
    for sign in (-1, 1):
        eye_x, eye_y = x + sign * 0.36 * r, y - 0.22 * r
        pen.ellipse((eye_x - 0.09 * r, eye_y - open_eye * r, eye_x + 0.09 * r, eye_y + open_eye * r), fill=ink)
        brow_y = eye_y - (0.32 if label == "surprise" else 0.24) * r
        inner, outer = brow_y + slope * r, brow_y - slope * r
        pen.line((eye_x - sign * 0.16 * r, inner, eye_x + sign * 0.16 * r, outer), fill=ink, width=line)
    _mouth(pen, label, (x, y + 0.42 * r), r * random.uniform(0.85, 1.15), ink=ink, line=line)
    picture = picture.rotate(math.degrees(random.uniform(-0.15, 0.15)), resample=Image.Resampling.BICUBIC)
    picture = picture.filter(ImageFilter.GaussianBlur(scale * random.uniform(0.3, 1.0)))
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    noise = random.normal(0, random.uniform(2, 8), pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _mouth(
    pen: ImageDraw.ImageDraw,
    label: str,
    centre: tuple[float, float],
    r: float,
    *,
    ink: tuple[int, ...],
    line: int,
) -> None:
    x, y = centre
    if label == "surprise":
        pen.ellipse((x - 0.2 * r, y - 0.25 * r, x + 0.2 * r, y + 0.25 * r), fill=ink)
    elif label == "happy":
        pen.arc((x - 0.5 * r, y - 0.6 * r, x + 0.5 * r, y + 0.25 * r), 15, 165, fill=ink, width=line)
    else:
        pen.arc((x - 0.5 * r, y - 0.15 * r, x + 0.5 * r, y + 0.7 * r), 195, 345, fill=ink, width=line)

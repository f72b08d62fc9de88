"""At which size should faces be looked for? Recall and time of the detector over detection sizes.

    python -m benchmarks.detection --photos FOLDER [--more FOLDER] [--tiles 60]

The photographs are portraits with one face each. Three questions, one table: how many of them have a face found as they
are; how many are still found when the face fills the frame (close-ups); and how many are found when the portraits
are shrunk into groups, as in a photograph of a class or a crowd, by how large a face is in the group photograph. Times
are processor time of one thread, on a 12 megapixel JPEG of 4000 x 3000 pixels: decoding for the search, and the search.

``--single`` searches each picture once, at the given size only: what there would be without the second, coarse search.
``--glance`` prints another table: faces of given sizes in pictures of 640 x 640, found by one search and by two, and
how often the glance calls for the second.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mien.images import DecodedImage, decode
from worker import face_search
from worker.face_search import Face, FaceDetector

SIZES = (256, 320, 480, 640, 800, 960, 1280)
CANVAS = (4000, 3000)
FACE_SHARES = (1 / 8, 1 / 12, 1 / 16, 1 / 24, 1 / 32, 1 / 48, 1 / 64)
"""Height of a face in the group photograph, as a share of its longer side."""
GLANCED = (260, 300, 340, 380, 420, 460, 500, 560)
NOISE = 12.0
CLOSE_UPS = (1.0, 1.25, 1.6)
"""Side of a close-up, as a multiple of the face's longer side."""


@dataclass(frozen=True)
class Portrait:
    """A photograph and the one face in it, found at leisure: over several sizes, the best score."""

    image: Image.Image
    face: Face


def as_decoded(image: Image.Image) -> DecodedImage:
    """A picture that did not come from a file."""
    pixels = np.asarray(image.convert("RGB"))
    return DecodedImage(pixels, image.width, image.height, 1.0, "none", 1)


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (a.width * a.height + b.width * b.height - shared)


def load_portraits(detector: FaceDetector, folders: list[Path], limit: int) -> list[Portrait]:
    """Photographs whose only face is beyond doubt; the others are no truth to measure against."""
    portraits = []
    for folder in folders:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        random.Random(1).shuffle(paths)
        for path in paths[:limit]:
            image = Image.fromarray(decode(path.read_bytes()).pixels)
            found = [
                face
                for size in (224, 320, 480)
                for face in detector.detect([as_decoded(image)], detect_size=size, min_score=0.85)[0]
            ]
            best = max(found, key=lambda face: face.score, default=None)
            if best is not None and all(overlap(best, face) > 0.3 for face in found):
                portraits.append(Portrait(image, best))
    return portraits


def group(portraits: list[Portrait], share: float, dice: random.Random) -> tuple[Image.Image, list[Face]]:
    """A 12 megapixel picture tiled with portraits, every face ``share`` of its longer side high; and where they are."""
    canvas = Image.new("RGB", CANVAS, (96, 96, 96))
    height = share * CANVAS[0]
    people = []
    x = y = row = 0
    while True:
        portrait = dice.choice(portraits)
        scale = height / portrait.face.height
        tile = portrait.image.resize(
            (max(1, round(portrait.image.width * scale)), max(1, round(portrait.image.height * scale))),
            Image.Resampling.BICUBIC,
        )
        if x and x + tile.width > CANVAS[0]:
            x, y, row = 0, y + row, 0
        if y and y + tile.height > CANVAS[1]:
            return canvas, people
        canvas.paste(tile, (x, y))
        face = portrait.face
        box = Face(x + face.x * scale, y + face.y * scale, face.width * scale, face.height * scale, 1.0)
        if box.x + box.width <= CANVAS[0] and box.y + box.height <= CANVAS[1]:
            people.append(box)
        x, row = x + tile.width, max(row, tile.height)
        if len(people) >= 400:
            return canvas, people


def close_up(portrait: Portrait, times: float) -> Image.Image:
    """The square around the face, ``times`` as long as its longer side, at 1200 pixels."""
    return _framed(portrait, times, 1200)


def _framed(portrait: Portrait, times: float, pixels: int) -> Image.Image:
    face = portrait.face
    side = max(face.width, face.height) * times
    left, top = face.x + face.width / 2 - side / 2, face.y + face.height / 2 - side / 2
    return portrait.image.transform(
        (pixels, pixels), Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BICUBIC
    )


def recall(found: list[Face], wanted: list[Face]) -> tuple[int, int]:
    """How many of the wanted faces were found, and how many boxes belong to none."""
    hit = sum(any(overlap(face, box) >= 0.4 for box in found) for face in wanted)
    stray = sum(all(overlap(face, box) < 0.2 for face in wanted) for box in found)
    return hit, stray


def seconds(work: object, repeats: int = 15) -> float:
    """Processor time of the shortest of several runs: one thread, so that a busy machine hardly shows."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()  # type: ignore[operator]
        times.append(time.process_time() - started)
    return min(times)


def print_glances(detector: FaceDetector, portraits: list[Portrait]) -> None:
    """One search against two by the size of the face, and the glance between them."""
    side, noise = 640, np.random.default_rng(0)
    rows: dict[str, list[str]] = {}
    for longer in GLANCED:
        shots = []
        for portrait in portraits:
            scale = longer / max(portrait.face.width, portrait.face.height)
            width, height = portrait.face.width * scale, portrait.face.height * scale
            truth = Face((side - width) / 2, (side - height) / 2, width, height, 1.0)
            shots.append((as_decoded(_framed(portrait, side / longer, side)), truth))
        for name, setting in (("one search", "LARGEST_SINGLE_SEARCH"), ("two searches", "LARGEST_GLANCED")):
            kept = getattr(face_search, setting)
            setattr(face_search, setting, side if setting == "LARGEST_SINGLE_SEARCH" else 0)
            best = [max((overlap(face, truth) for face in detector.detect([image])[0]), default=0.0)
                    for image, truth in shots]  # fmt: skip
            setattr(face_search, setting, kept)
            hits = [value for value in best if value >= 0.5]
            rows.setdefault(f"found by {name}", []).append(f"{len(hits) / len(best):.3f}")
            rows.setdefault(f"overlap (IoU), {name}", []).append(f"{sum(hits) / len(hits):.3f}")
        clean = [image.pixels for image, _ in shots]
        noisy = [np.clip(p + noise.normal(0, NOISE, p.shape), 0, 255).astype(np.uint8) for p in clean]
        for name, pictures in (("the glance says yes", clean), (f"with noise of {NOISE:g}", noisy)):
            yes = sum(detector.calls_for_coarse([picture])[0] for picture in pictures)
            rows.setdefault(name, []).append(f"{yes / len(pictures):.3f}")
    print_row("face, pixels", [str(longer) for longer in GLANCED])
    for name, cells in rows.items():
        print_row(name, cells)


def print_row(name: str, values: list[str]) -> None:
    print(f"{name:<36}" + "".join(f"{value:>11}" for value in values))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="portraits with one face each")
    parser.add_argument("--more", type=Path, action="append", default=[], help="more of them")
    parser.add_argument("--limit", type=int, default=200, help="photographs taken from each folder")
    parser.add_argument("--single", action="store_true", help="one search per picture")
    parser.add_argument("--glance", action="store_true", help="the table of glances instead")
    parser.add_argument("--min-score", type=float, default=0.7)
    options = parser.parse_args()
    if options.single:
        face_search.LARGEST_SINGLE_SEARCH = max(SIZES)
    detector = FaceDetector()
    portraits = load_portraits(detector, [options.photos, *options.more], options.limit)
    print(f"{len(portraits)} portraits, score >= {options.min_score}; rows: share of the faces found (stray boxes)\n")
    if options.glance:
        print_glances(detector, portraits)
        return
    print_row("longer side of the search", [str(size) for size in SIZES])

    def search(image: DecodedImage, size: int) -> list[Face]:
        return detector.detect([image], detect_size=size, min_score=options.min_score)[0]

    def row(name: str, pictures: list[tuple[DecodedImage, list[Face]]]) -> None:
        cells = []
        for size in SIZES:
            results = [recall(search(image, size), wanted) for image, wanted in pictures]
            total = sum(len(wanted) for _, wanted in pictures)
            cells.append(f"{sum(h for h, _ in results) / total:.3f} ({sum(s for _, s in results)})")
        print_row(name, cells)

    row("portraits as they are", [(as_decoded(p.image), [p.face]) for p in portraits])
    for times in CLOSE_UPS:
        side = 1200 / times
        shots = []
        for portrait in portraits:
            ratio = portrait.face.width / portrait.face.height
            width, height = (side * min(ratio, 1), side * min(1 / ratio, 1))
            truth = [Face(600 - width / 2, 600 - height / 2, width, height, 1.0)]
            shots.append((as_decoded(close_up(portrait, times)), truth))
        row(f"close-ups, {times:g} x the face", shots)
    dice = random.Random(3)
    for share in FACE_SHARES:
        groups = [group(portraits, share, dice) for _ in range(4)]
        count = round(sum(len(people) for _, people in groups) / len(groups))
        row(
            f"groups of {count}, faces 1/{1 / share:.0f} of side",
            [(as_decoded(picture), people) for picture, people in groups],
        )

    jpeg = io.BytesIO()
    group(portraits, 1 / 12, dice)[0].save(jpeg, "JPEG", quality=92)
    data = jpeg.getvalue()
    decoding, searching = [], []
    for size in SIZES:
        image = decode(data, min_side=size)
        decoding.append(f"{1e3 * seconds(lambda size=size: decode(data, min_side=size)):.1f}")
        searching.append(f"{1e3 * seconds(lambda image=image, size=size: search(image, size)):.1f}")
    print_row("\nms to decode 12 MP for it", decoding)
    print_row("ms to search", searching)


if __name__ == "__main__":
    main()

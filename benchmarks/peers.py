"""What a user would write instead of Mien, each as a process that stays: it loads once and is asked run after run.

``python -m benchmarks.peers pipeline MODEL`` or ``... detect MODEL YUNET SIZE`` reads ``FOLDER BATCH`` lines and
answers each with a line of JSON: images, seconds and, for ``detect``, the boxes per file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIN_SCORE = 0.7
NMS = 0.3
MARGIN = 0.05


def _pipeline(model: str) -> Any:
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    return pipeline("image-classification", model=model)


def run_pipeline(classify: Any, files: list[str], batch: int) -> dict[str, Any]:
    """Every file as a whole, as the documentation of ``transformers`` shows it."""
    start = time.perf_counter()
    count = len(classify(files, batch_size=batch))
    return {"images": count, "seconds": time.perf_counter() - start}


def run_detect(classify: Any, detector: Any, files: list[str], batch: int, size: int) -> dict[str, Any]:
    """The plain script: read, shrink, OpenCV's YuNet, crop, and the pipeline on the crops of all images."""
    import cv2
    from PIL import Image

    boxes: dict[str, list[list[float]]] = {}
    crops = []
    start = time.perf_counter()
    for file in files:
        pixels = cv2.imread(file)
        height, width = pixels.shape[:2]
        scale = min(1.0, size / max(height, width))
        small = pixels if scale == 1 else cv2.resize(pixels, (round(width * scale), round(height * scale)))
        detector.setInputSize((small.shape[1], small.shape[0]))
        _, found = detector.detect(small)
        boxes[Path(file).name] = []
        for x, y, across, down in [] if found is None else (found[:, :4] / scale).tolist():
            boxes[Path(file).name].append([x, y, across, down])
            half = max(across, down) * (0.5 + MARGIN)
            left, top = max(int(x + across / 2 - half), 0), max(int(y + down / 2 - half), 0)
            right, bottom = int(x + across / 2 + half), int(y + down / 2 + half)
            crops.append(Image.fromarray(cv2.cvtColor(pixels[top:bottom, left:right], cv2.COLOR_BGR2RGB)))
    if crops:
        classify(crops, batch_size=batch)
    return {"images": len(files), "seconds": time.perf_counter() - start, "boxes": boxes}


def serve(arguments: list[str]) -> None:
    """Answer the lines on standard input."""
    warnings.filterwarnings("ignore")
    kind, model, *more = arguments
    classify = _pipeline(model)
    detector: Any = None
    if kind == "detect":
        import cv2

        detector = cv2.FaceDetectorYN.create(more[0], "", (320, 320), MIN_SCORE, NMS)
    for line in sys.stdin:
        folder, _, batch = line.strip().rpartition(" ")
        files = sorted(str(path) for path in Path(folder).iterdir())
        done = (
            run_pipeline(classify, files, int(batch))
            if detector is None
            else run_detect(classify, detector, files, int(batch), int(more[1]))
        )
        print(json.dumps(done), flush=True)


class Peer:
    """A peer in a process of its own, with as many threads as it likes."""

    def __init__(self, *arguments: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self.batch = 0

    def run(self, folder: Path, batch: int | None = None) -> dict[str, Any]:
        """One run over the folder; its images, seconds, boxes."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the peer has no pipes")
        self._process.stdin.write(f"{folder} {batch or self.batch}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            code, last = self._process.wait(), self._said.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"the peer ended with code {code}: {last}")
        done: dict[str, Any] = json.loads(line)
        return done

    def rate(self, folder: Path) -> float:
        """Images per second of one run."""
        done = self.run(folder)
        return float(done["images"] / done["seconds"])

    def find_best_batch(self, folder: Path, batches: tuple[int, ...]) -> None:
        """Take the batch size that is fastest on this folder."""
        seconds = {batch: self.run(folder, batch)["seconds"] for batch in (batches[0], *batches)}  # the first warms up
        self.batch = min(seconds, key=seconds.__getitem__)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextmanager
def peer(*arguments: str) -> Iterator[Peer]:
    """A peer for a while."""
    running = Peer(*arguments)
    try:
        yield running
    finally:
        running.close()


if __name__ == "__main__":
    serve(sys.argv[1:])

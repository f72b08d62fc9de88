"""The bare stages: what reading, decoding and finding faces cost, and what the network alone costs, on the same cores.

No queue, no database, no messages: one process per core goes through the folder with Mien's own functions, first as far
as the network's input, then the network over those inputs, as many at once as an engine takes. Cores are the limit, so
the bound of an end-to-end run is (cores) / (sum of both times per image).

``python -m benchmarks.bare MODEL PRECISION FACES`` reads lines that name a folder and answers each with the times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def serve(model_folder: str, precision: str, faces: str) -> None:
    """Answer each folder on standard input with seconds per image: ``decode`` (from file to input) and ``forward``."""
    from mien.images import decode, probe
    from mien.model_folder import load_model
    from worker.classifier import OnnxClassifier, passes
    from worker.crops import crop_face, crop_whole, side_needed, whole_side
    from worker.face_search import FaceDetector

    classifier = OnnxClassifier(load_model(model_folder), precision)
    spec, crop = classifier.model.input, classifier.model.crop
    detector = FaceDetector()

    def crops_of(path: Path) -> list[Any]:
        data = path.read_bytes()
        if faces == "whole":
            header = probe(data)
            return [crop_whole(decode(data, min_side=whole_side(header.width, header.height, spec)), crop, spec)]
        image = decode(data, min_side=640)
        (found,) = detector.detect([image], detect_size=640)
        side = side_needed(image, found, crop, spec)
        image = image if side is None else decode(data, min_side=side)
        return [crop_face(image, face, crop, spec) for face in found]

    for line in sys.stdin:
        files = sorted(Path(line.strip()).iterdir())
        start = time.perf_counter()
        crops = [made for path in files for made in crops_of(path)]
        decoded = time.perf_counter()
        for part in passes(crops, spec):
            classifier.classify(part)
        done = time.perf_counter()
        times = {"decode": (decoded - start) / len(files), "forward": (done - decoded) / len(files)}
        print(json.dumps(times), flush=True)


class Bare:
    """One process per core, which stay: loaded once, asked round after round, all at the same time."""

    def __init__(self, model_folder: Path, precision: str, faces: str, cores: int) -> None:
        command = [sys.executable, "-m", "benchmarks.bare", str(model_folder), precision, faces]
        self.rounds: list[dict[str, float]] = []
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(cores)
        ]

    def rate(self, folder: Path) -> float:
        """Images per second of all cores in one round; its times are added to ``rounds``."""
        for process in self._processes:
            if process.stdin is None:
                raise RuntimeError("the bare stages have no pipe")
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]
        times = {stage: sum(answer[stage] for answer in answers) / len(answers) for stage in answers[0]}
        self.rounds.append(times)
        return len(answers) / sum(times.values())

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.wait()


@contextmanager
def bare(model_folder: Path, precision: str, faces: str, cores: int) -> Iterator[Bare]:
    """The bare stages for a while."""
    running = Bare(model_folder, precision, faces, cores)
    try:
        yield running
    finally:
        running.close()


if __name__ == "__main__":
    serve(*sys.argv[1:4])

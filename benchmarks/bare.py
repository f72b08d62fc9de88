"""The bare stages: what reading, decoding and finding faces cost, and what the network alone costs, on the same cores.

No queue, no database, no messages: one process per core goes through the folder with Mien's own functions, first as far
as the network's input, then the network over those inputs, as many at once as an engine takes. Cores are the limit, so
the bound of an end-to-end run is (cores) / (sum of both times per image).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS = 3


def measure(model_folder: str, precision: str, faces: str, folder: str, start_at: float) -> dict[str, float]:
    """Seconds per image of this process: ``decode`` (from file to input) and ``forward``; the best of ``ROUNDS``."""
    import numpy as np

    from mien.images import decode, probe
    from mien.model_folder import load_model
    from worker.classifier import OnnxClassifier, crops_at_once
    from worker.crops import crop_face, crop_whole, side_needed, whole_side
    from worker.face_search import FaceDetector

    classifier = OnnxClassifier(load_model(model_folder), precision)
    spec, crop = classifier.model.input, classifier.model.crop
    at_once = crops_at_once(spec)
    detector = FaceDetector()
    files = sorted(Path(folder).iterdir())

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

    crops_of(files[0])
    time.sleep(max(start_at - time.time(), 0))
    decoding, forward = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        crops = [made for path in files for made in crops_of(path)]
        decoding.append(time.perf_counter() - start)
        start = time.perf_counter()
        for first in range(0, len(crops), at_once):
            np.asarray(classifier.classify(crops[first : first + at_once]))
        forward.append(time.perf_counter() - start)
    return {"decode": min(decoding) / len(files), "forward": min(forward) / len(files)}


def bare(model_folder: Path, precision: str, faces: str, folder: Path, cores: int) -> dict[str, float]:
    """The same over all cores at once: seconds per image and core, the mean over the processes."""
    start_at = time.time() + 6
    arguments = [str(model_folder), precision, faces, str(folder), str(start_at)]
    running = [
        subprocess.Popen([sys.executable, "-m", "benchmarks.bare", *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(cores)
    ]
    found = [json.loads(process.communicate()[0]) for process in running]
    return {stage: sum(one[stage] for one in found) / len(found) for stage in ("decode", "forward")}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:5], start_at=float(sys.argv[5]))))

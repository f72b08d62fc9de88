"""End to end: Mien beside ``transformers.pipeline`` on the same checkpoint and the same mixed JPEGs, in one run.

``python -m benchmarks.throughput --photos FOLDER --images 1000``

``whole`` is the like-for-like comparison (both classify each image as it is). ``detect`` is what Mien does by default:
it finds every face first, which the pipeline does not do at all. Start-up of both is left out: the pipeline is timed
after a first batch, Mien from the job's submission to its last row, on a system that has its model loaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.mixed import make_mixed
from benchmarks.system import embedded_system
from mien.client import Client

PIPELINE = """
import sys, time, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
import torch
from transformers import pipeline
model, folder, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
files = sorted(str(path) for path in folder.iterdir())
classify = pipeline("image-classification", model=model, batch_size=batch)
classify(files[:batch])
start = time.perf_counter()
count = len(classify(files))
print(count / (time.perf_counter() - start))
"""


def pipeline_rate(model: Path, folder: Path, batch: int) -> float:
    """Images/s of what a user would write instead, in a process of its own."""
    command = [sys.executable, "-c", PIPELINE, str(model), str(folder), str(batch)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def mien_rate(client: Client, folder: Path, faces: str) -> tuple[float, dict[str, float]]:
    """Images/s of one job from its submission to its last row, and its seconds per stage (summed over engines)."""
    start = time.perf_counter()
    job = client.submit_folder(str(folder), faces=faces, metadata={"run": time.time()})
    for state in client.wait(job.id):
        job = state
    seconds = time.perf_counter() - start
    if job.counts.failed or job.counts.pending:
        raise RuntimeError(f"the job did not end well: {job}")
    client.delete(job.id)  # or the next run would find its results in the cache
    while any(other.id == job.id for other in client.jobs()):
        time.sleep(0.2)
    return job.counts.total / seconds, dict(job.stage_seconds)


def main() -> None:
    """Measure ``--runs`` times in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs to make the mix from")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="batch size of the pipeline")
    parser.add_argument("--model", type=Path, default=Path("models/default"))
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {"transformers.pipeline": [], "mien --faces whole": [], "mien --faces detect": []}
    stages: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "mixed"
        make_mixed(arguments.photos, folder, arguments.images)
        for _ in range(arguments.runs):
            rates["transformers.pipeline"].append(pipeline_rate(arguments.model, folder, arguments.batch))
            with embedded_system(Path(scratch) / "data", [folder]) as client:
                for faces in ("whole", "detect"):
                    mien_rate(client, folder, faces)  # loads the model and warms the file cache
                    rate, stages = mien_rate(client, folder, faces)
                    rates[f"mien --faces {faces}"].append(rate)
    base = statistics.median(rates["transformers.pipeline"])
    print(f"{arguments.images} mixed JPEGs, {arguments.runs} runs in turn\n")
    print("| | images/s (median) | lowest to highest | ratio |\n| --- | --- | --- | --- |")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.1f} | {min(values):.1f} to {max(values):.1f} | {middle / base:.2f} |")
    total = sum(stages.values())
    print("\n| stage (detect) | ms per image and engine | share |\n| --- | --- | --- |")
    for stage, seconds in stages.items():
        print(f"| {stage} | {1000 * seconds / arguments.images:.2f} | {100 * seconds / total:.0f}% |")


if __name__ == "__main__":
    main()

"""Latency of single images (``POST /api/v1/predict``): on the idle embedded system, and while a job fills the machine.

``python -m benchmarks.predict --photos FOLDER --images 100``

One client over one connection; each time runs from before the request is sent until its answer is read. The photographs
are the mix of the throughput figures; the default model finds and classifies their faces. Under the job the throughput
of the job is told beside it, with and without the single images.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mixed import make_mixed
from benchmarks.system import embedded_system
from mien.client import Client

PAUSE_S = 0.05
JOB_IMAGES = 4000
BEGINNING_S = 10.0
"""A job's first seconds are not looked at: its folder is still being read."""


def latencies(client: Client, images: Sequence[bytes], pause_s: float = PAUSE_S) -> list[float]:
    """Milliseconds of each image, asked for one after the other."""
    found = []
    for image in images:
        start = time.perf_counter()
        client.predict(image)
        found.append(1000 * (time.perf_counter() - start))
        time.sleep(pause_s)
    return found


def rate_over(client: Client, job: str, seconds: float) -> float:
    """Images/s of a running job over so many seconds."""
    before, start = client.job(job).done, time.perf_counter()
    time.sleep(seconds)
    return (client.job(job).done - before) / (time.perf_counter() - start)


def show(name: str, found: Sequence[float]) -> None:
    """A row of the table."""
    ranked = sorted(found)
    tail = ranked[min(round(0.95 * len(ranked)), len(ranked) - 1)]
    print(f"| {name} | {statistics.median(ranked):.0f} | {tail:.0f} | {ranked[-1]:.0f} |")


def main() -> None:
    """Measure both and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs to make the mix from")
    parser.add_argument("--images", type=int, default=100, help="single images in each of the two measurements")
    parser.add_argument(
        "--job", type=int, default=JOB_IMAGES, help="images of the job; it has to outlast the second one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        single, bulk = Path(scratch) / "single", Path(scratch) / "bulk"
        make_mixed(arguments.photos, single, arguments.images, seed=2)
        make_mixed(arguments.photos, bulk, arguments.job)
        images = [path.read_bytes() for path in sorted(single.iterdir())]
        with embedded_system(Path(scratch) / "data", [bulk]) as client:
            latencies(client, images[:10])  # loads the model
            idle = latencies(client, images)
            job = client.submit_folder(str(bulk), metadata={"run": time.time()}).id
            time.sleep(BEGINNING_S)
            alone = rate_over(client, job, BEGINNING_S)
            before, start = client.job(job).done, time.perf_counter()
            busy = latencies(client, images)
            beside = (client.job(job).done - before) / (time.perf_counter() - start)
            if client.job(job).counts.pending == 0:
                raise RuntimeError("the job had ended before the last single image: give it more with --job")
            client.cancel(job)
    print(f"{arguments.images} single images of the mix, one after the other with a pause of {PAUSE_S:g} s\n")
    print("| ms | median | 95% | longest |\n| --- | --- | --- | --- |")
    show("idle", idle)
    show("while a job fills the machine", busy)
    print(f"\nThe job made {alone:.1f} images/s alone and {beside:.1f} beside the single images.")


if __name__ == "__main__":
    main()

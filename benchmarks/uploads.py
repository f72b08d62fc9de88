"""Uploads into an embedded Mien: whole jobs in one request at a steady rate, many small files, and a large archive.

``python -m benchmarks.uploads --photos FOLDER``

Acceptance is the time from the first byte sent to the 202 with the job; completion, to the job's last row. Requests are
sent when they are due, whether or not the earlier ones are answered, so that waiting in line counts.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.system import embedded_system
from mien.client import Client
from mien.uploading import Choice, FolderUpload

SIDE = 256


def small_jpegs(photos: Path, count: int) -> list[bytes]:
    """So many different JPEGs of 256 pixels, made from the photographs."""
    made = []
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    for number in range(count):
        with Image.open(files[number % len(files)]) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            target = io.BytesIO()
            image.convert("RGB").resize((SIDE, SIDE)).save(target, "JPEG", quality=85)
        made.append(target.getvalue() + b"%d" % number)
    return made


def steady(client: Client, images: list[bytes], rate: float, each: int) -> tuple[list[float], list[float]]:
    """Send jobs of ``each`` images at ``rate`` a second; gives the seconds to acceptance and to completion of each."""
    batches = [images[start : start + each] for start in range(0, len(images), each)]
    accepted, completed = [0.0] * len(batches), [0.0] * len(batches)

    def one(number: int, due: float) -> None:
        with client.twin() as mine:
            job = mine.submit_images({f"{n}.jpg": data for n, data in enumerate(batches[number])})
            accepted[number] = time.perf_counter() - due
            for _ in mine.wait(job.id):
                pass
            completed[number] = time.perf_counter() - due

    threads = []
    start = time.perf_counter()
    for number in range(len(batches)):
        due = start + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        threads.append(threading.Thread(target=one, args=(number, due)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return accepted, completed


def many_files(client: Client, folder: Path, parallel: int) -> float:
    """Files a second, as ``mien upload`` sends them."""
    job = client.create_draft().id
    start = time.perf_counter()
    done = FolderUpload(client.twin, job, Choice(os.fsencode(folder)), parallel).run()
    seconds = time.perf_counter() - start
    client.delete(job)
    return done.files / seconds


def archive(client: Client, path: Path) -> float:
    """MB a second of a tar that is unpacked as it arrives."""
    job = client.create_draft().id
    start = time.perf_counter()
    client.upload_archive(job, path)
    seconds = time.perf_counter() - start
    client.delete(job)
    return path.stat().st_size / 1e6 / seconds


def make_tar(path: Path, image: bytes, size: int) -> None:
    """A tar of so many bytes of images."""
    with tarfile.open(path, "w") as tar:
        for number in range(size // len(image)):
            info = tarfile.TarInfo(f"{number // 1000:04d}/{number:07d}.jpg")
            info.size = len(image)
            tar.addfile(info, io.BytesIO(image))


def peak_rss_of_web(data_dir: Path) -> int:
    """The front end's largest resident size so far, in bytes (Linux)."""
    peaks = [0]
    for process in psutil.process_iter(["cmdline"]):
        if "web.app:create_app()" in (process.info["cmdline"] or []):
            try:
                ours = process.environ().get("MIEN_DATA_DIR") == str(data_dir)
                status = Path(f"/proc/{process.pid}/status").read_text() if ours else ""
            except (psutil.Error, OSError):
                continue
            peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs to make the images from")
    parser.add_argument("--rate", type=float, default=10, help="jobs a second")
    parser.add_argument("--each", type=int, default=1, help="images in a job")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--files", type=int, default=10_000, help="0 leaves this part out")
    parser.add_argument("--archive-mb", type=int, default=5000, help="0 leaves this part out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data, folder, tar = Path(scratch) / "data", Path(scratch) / "many", Path(scratch) / "large.tar"
        jobs = round(arguments.rate * arguments.seconds)
        images = small_jpegs(arguments.photos, jobs * arguments.each + 20 * arguments.each)
        folder.mkdir()
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda n: (folder / f"{n:05d}.jpg").write_bytes(images[n % len(images)]), range(arguments.files)
                )
            )
        make_tar(tar, images[0] * 10, arguments.archive_mb * 1_000_000)
        with embedded_system(data, [folder]) as client:
            warm = images[jobs * arguments.each :]
            steady(client, warm, arguments.rate, arguments.each)
            accepted, completed = steady(client, images[: jobs * arguments.each], arguments.rate, arguments.each)
            before = peak_rss_of_web(data)
            rates = {n: many_files(client, folder, n) for n in (1, 4)} if arguments.files else {}
            speed = archive(client, tar) if arguments.archive_mb else 0.0
            after = peak_rss_of_web(data)
    print(f"{arguments.rate:g} jobs/s of {arguments.each} image(s) in one request, {len(accepted)} jobs\n")
    print("| | median | p95 | p99 |\n| --- | --- | --- | --- |")
    for name, values in (("accepted", accepted), ("completed", completed)):
        shown = " | ".join(f"{1000 * percentile(values, share):.0f} ms" for share in (0.5, 0.95, 0.99))
        print(f"| {name} | {shown} |")
    print(f"\n| {arguments.files:,} files of {len(images[0]) / 1000:.0f} kB | files/s |\n| --- | --- |")
    for parallel, rate in rates.items():
        print(f"| {parallel} request(s) at once | {rate:.0f} |")
    print(f"\ntar of {arguments.archive_mb / 1000:g} GB: {speed:.0f} MB/s")
    print(f"peak memory of the front end: {before / 2**20:.0f} MiB before the last two, {after / 2**20:.0f} MiB after")


if __name__ == "__main__":
    main()

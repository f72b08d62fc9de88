"""``make bench-long``: growth over 100,000 images, and what queue and database cost.

    python -m benchmarks.long --photos FOLDER [--images 100000] [--write docs/benchmarks.md]

One job of small, all different JPEGs (``faces=whole``): the hardest case for the ledger, as many rows as possible in
the time. The cost of queue and database is processor time: the job's own stage ``write`` (leasing and committing), and
that of control (which expands) and the broker, over the engines'.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.machine import describe, replace_section
from benchmarks.memory import PARTS, make_small, memory_by_part, part_of
from benchmarks.system import embedded_system


def processor_seconds(data_dir: Path) -> dict[str, float]:
    """Seconds of processor time of each part of this data folder's Mien, so far."""
    sums = dict.fromkeys([*PARTS, "broker", "other"], 0.0)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            part = "broker" if _is_broker(process, data_dir) else part_of(process, data_dir)
            if part is not None:
                times = process.cpu_times()
                sums[part if part in sums else "other"] += times.user + times.system
    return sums


def _is_broker(process: psutil.Process, data_dir: Path) -> bool:
    """The broker's title names its socket, and hides its environment."""
    recorded = data_dir / "broker.url"
    socket = recorded.read_text().strip().removeprefix("redis+socket://") if recorded.exists() else ""
    return bool(socket) and any(socket in part for part in process.cmdline())


def main() -> None:
    """Print and, with ``--write``, put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between looks")
    parser.add_argument("--write", type=Path, help="page whose section on the long run is replaced")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, data_dir = Path(scratch) / "small", Path(scratch) / "data"
        make_small(options.photos, folder, options.images)
        with embedded_system(data_dir, [folder]) as client:
            before, start = processor_seconds(data_dir), time.monotonic()
            job = client.submit_folder(str(folder), faces="whole", precision=options.precision)
            while True:
                state = client.job(job.id)
                memory = memory_by_part(data_dir)
                cells = " | ".join(f"{memory[part]:.0f}" for part in PARTS)
                lines.append(f"| {time.monotonic() - start:.0f} | {state.done:,} | {cells} |")
                print(lines[-1], flush=True)
                if state.is_final:
                    break
                time.sleep(options.every)
            seconds = time.monotonic() - start
            after = processor_seconds(data_dir)
    spent = {part: after[part] - before[part] for part in after}
    spent["write (part of worker)"] = state.stage_seconds.write
    text = report(options.images, options.precision, lines, seconds, spent)
    print(text)
    if options.write:
        replace_section(options.write, "long", text)


def report(images: int, precision: str, lines: list[str], seconds: float, spent: dict[str, float]) -> str:
    """The section as Markdown."""
    overhead = spent["write (part of worker)"] + spent["control"] + spent["broker"]
    costs = "\n".join(f"| {part} | {1e6 * used / images:.0f} us |" for part, used in spent.items())
    shown = lines if len(lines) < 9 else [*lines[:: max(len(lines) // 6, 1)], lines[-1]]
    return (
        f"`make bench-long`: {images:,} small JPEGs (112x112, all different), `faces=whole`, default model in "
        f"{precision}; {describe()}. {images / seconds:.0f} images/s. PSS in MiB, "
        "summed over the processes of each part:\n\n"
        "| seconds | images done | "
        + " | ".join(PARTS)
        + " |\n"
        + "| --- " * (2 + len(PARTS))
        + "|\n"
        + "\n".join(shown)
        + f"\n\nQueue and database cost {100 * overhead / spent['engines']:.1f}% of the engines' processor time "
        "(target: under 2%). Processor time an image:\n\n"
        f"| part | an image |\n| --- | --- |\n{costs}\n"
    )


if __name__ == "__main__":
    main()

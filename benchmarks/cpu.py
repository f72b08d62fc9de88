"""The CPU table of docs/benchmarks.md: Mien beside what a user would write instead, in one run. ``make bench``.

    python -m benchmarks.cpu --photos FOLDER --yunet FILE [--write docs/benchmarks.md]

Each row is the median of ``--runs`` runs, the sides taking turns, on the same pictures with the same checkpoint.
Loading is left out on both sides: peers are timed once loaded, Mien from the submission of the job to the last byte of
its CSV, as ``mien classify`` does it, on a system that has the model loaded. A peer has every picture once and Mien,
which is several times as fast, three files of each, so that both are timed for about as long.
``--quick`` is a rehearsal with a few images.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bare import Bare, bare
from benchmarks.machine import describe, replace_section
from benchmarks.memory import EngineMemory
from benchmarks.mixed import make_mixed
from benchmarks.peers import Peer, peer
from benchmarks.random_models import random_model
from benchmarks.system import embedded_system
from mien.client import Client
from mien.int8 import int8_instructions
from mien.wire import JobStatus
from worker.devices import core_count

BATCHES = (8, 32)
MODELS_KEPT = Path(".bench")
DEFAULT = Path("models/default")
PSS_LIMIT_MB = 250.0


@dataclass
class Scale:
    """How much is measured."""

    runs: int = 5
    mixed: int = 300
    large: int = 60
    again: int = 2000
    copies: int = 3


@dataclass
class Row:
    """One line of the table: a ratio, what it should be, and what it is made of."""

    what: str
    value: float
    target: float
    made_of: str
    at_most: bool = False
    unit: str = ""

    def cells(self) -> str:
        """The line as Markdown."""
        reached = self.value <= self.target if self.at_most else self.value >= self.target
        bound = "at most" if self.at_most else "at least"
        verdict = "yes" if reached else "**no**"
        return (
            f"| {self.what} | {self.value:.2f}{self.unit} | {bound} {self.target:g}{self.unit} | {verdict} "
            f"| {self.made_of} |"
        )


@dataclass
class Bench:
    """The running system, the folders, and what was measured so far."""

    client: Client
    scale: Scale
    data_dir: Path
    rows: list[Row] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)

    def mien(self, folder: Path, model: str, faces: str, precision: str, keep: bool = False) -> tuple[float, JobStatus]:
        """Images per second of one job from its submission to the last byte of its CSV; and the job."""
        start = time.perf_counter()
        job = self.client.submit_folder(str(folder), model=model, faces=faces, precision=precision)
        for state in self.client.wait(job.id):
            job = state
        with tempfile.TemporaryFile() as csv:
            self.client.download(job.id, "results.csv", csv)
        seconds = time.perf_counter() - start
        if job.counts.failed or job.counts.pending:
            raise RuntimeError(f"the job did not end well: {job}")
        if not keep:  # or the next run would find its results
            self.client.wait_for_receipt(self.client.delete(job.id).id)
        return job.counts.total / seconds, job

    def alternate(self, sides: dict[str, Callable[[], float]]) -> dict[str, float]:
        """The median rate of each side, the sides taking turns."""
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(self.scale.runs):
            for name, run in sides.items():
                rates[name].append(run())
        return {name: statistics.median(values) for name, values in rates.items()}

    def compare(
        self,
        title: str,
        other: Peer,
        folders: tuple[Path, Path],
        *,
        model: str,
        faces: str,
        targets: dict[str, float],
        stages: tuple[Bare, Path],
    ) -> None:
        """Rows of Mien over a peer, one for each precision in ``targets``, and of fp32 over its bare stages.
        ``folders``: the peer's, and Mien's; ``stages``: they, and their folder."""
        bare_stages, bare_folder = stages
        last: dict[str, JobStatus] = {}

        def ours(precision: str) -> float:
            rate, last[precision] = self.mien(folders[1], model, faces, precision)
            return rate

        for precision in targets:
            self.mien(folders[0], model, faces, precision)  # loads the model
        sides: dict[str, Callable[[], float]] = {"peer": lambda: other.rate(folders[0])}
        sides |= {precision: lambda precision=precision: ours(precision) for precision in targets}  # type: ignore[misc]
        bare_stages.rate(bare_folder)  # loads the model
        bare_stages.rounds.clear()
        sides["stages"] = lambda: bare_stages.rate(bare_folder)
        rates = self.alternate(sides)
        for precision, target in targets.items():
            made_of = f"{rates[precision]:.1f} over {rates['peer']:.1f} images/s (its best batch: {other.batch})"
            self.rows.append(Row(f"{title}, {precision}", rates[precision] / rates["peer"], target, made_of))
            self.profiles.append(profile(f"{title}, {precision}", last[precision]))
        self.rows.append(over_stages(title, rates, bare_stages))


def over_stages(title: str, rates: dict[str, float], stages: Bare) -> Row:
    """The row of Mien end to end over the sum of its bare stages."""
    each = {stage: statistics.median(times[stage] for times in stages.rounds) for stage in stages.rounds[0]}
    parts = " + ".join(f"{1000 * seconds:.2f} ms {stage}" for stage, seconds in each.items())
    made_of = f"{rates['fp32']:.1f} over {rates['stages']:.1f} images/s ({core_count()} cores / ({parts}))"
    return Row(f"{title}, fp32: end to end over its bare stages", rates["fp32"] / rates["stages"], 0.85, made_of)


def profile(title: str, job: JobStatus) -> str:
    """A line of the table of stages: milliseconds per image and engine, worked + waited."""
    worked, waited = job.stage_seconds.model_dump(), job.stage_waits.model_dump()
    cells = (f"{1e3 * worked[s] / job.counts.total:.2f} + {1e3 * waited[s] / job.counts.total:.2f}" for s in worked)
    return f"| {title} | {' | '.join(cells)} |"


def matched(bench: Bench, other: Peer, folder: Path) -> Row:
    """The share of the plain script's faces that Mien finds at an IoU of 0.5 or more."""
    theirs = other.run(folder)["boxes"]
    _, job = bench.mien(folder, "default", "detect", "fp32", keep=True)
    ours = {image.file: [(f.x, f.y, f.width, f.height) for f in image.faces] for image in bench.client.results(job.id)}
    bench.client.wait_for_receipt(bench.client.delete(job.id).id)
    total = sum(len(found) for found in theirs.values())
    hit = sum(
        any(overlap(box, face) >= 0.5 for face in ours.get(name, ())) for name, found in theirs.items() for box in found
    )
    made_of = f"{hit:,} of {total:,} faces; Mien found {sum(map(len, ours.values())):,}"
    return Row(
        "faces=detect: faces of the plain script matched at IoU 0.5", 100 * hit / max(total, 1), 98, made_of, unit="%"
    )


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(across, 0) * max(down, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def peak_memory(bench: Bench, folder: Path) -> Row:
    """The highest PSS of an engine, in its first jobs with the default model."""
    with EngineMemory(bench.data_dir) as watched:
        for faces in ("detect", "whole"):
            bench.mien(folder, "default", faces, "fp32")
    made_of = f"the highest of {len(watched.peaks)} engines, default model in fp32, looked at {watched.looks} times"
    peak = max(watched.peaks.values(), default=float("nan")) / 1e6
    return Row("peak PSS of an engine process", peak, PSS_LIMIT_MB, made_of, at_most=True, unit=" MB")


def engine_start(bench: Bench, folder: Path) -> Row:
    """From the start of an engine's process to its first answer with the default model."""
    from mien.model_folder import load_model
    from worker.messages import EngineSpec, ImageTask
    from worker.supervisor import EnginePool

    spec = EngineSpec(
        model_folder=str(DEFAULT.absolute()), model_revision=load_model(DEFAULT).revision, device="cpu",
        precision="fp32", faces="detect", detect_size=640, min_face_score=0.7, min_face=0, max_pixels=200_000_000,
        max_file_bytes=1 << 29,
    )  # fmt: skip
    file = min(folder.iterdir())
    times = []
    for _ in range(bench.scale.runs):
        pool = EnginePool(1)
        start = time.perf_counter()
        pool.start()
        pool.classify(spec, [ImageTask(0, bytes(folder), file.name.encode())])
        times.append(time.perf_counter() - start)
        pool.stop()
    made_of = "from the start of the process to its first answer, the default model in fp32"
    return Row("an engine's start", statistics.median(times), 2.0, made_of, at_most=True, unit=" s")


def again(bench: Bench, folder: Path) -> Row:
    """The same folder submitted a second time."""
    first, _ = bench.mien(folder, "default", "detect", "fp32", keep=True)
    rates, jobs = [], []
    for _ in range(bench.scale.runs):
        rate, job = bench.mien(folder, "default", "detect", "fp32", keep=True)
        rates.append(rate)
        jobs.append(job)
    if any(job.counts.cached != job.counts.total for job in jobs):
        raise RuntimeError("a second submission was classified again")
    second = statistics.median(rates)
    bench.profiles.append(profile("faces=detect, second submission", jobs[-1]))
    made_of = f"{second:,.0f} over {first:.1f} images/s, {jobs[0].counts.total:,} images"
    return Row("the same folder a second time", second / first, 20, made_of)


@contextmanager
def system(scratch: Path, roots: list[Path], models: list[Path]) -> Iterator[Client]:
    """An embedded Mien that has the models installed."""
    from mien.models import ModelStore

    store = ModelStore(scratch / "data" / "models")
    for folder in models:
        store.install(folder)
    with embedded_system(scratch / "data", roots) as client:
        yield client


@dataclass(frozen=True)
class Place:
    """The folders, models and files of a run."""

    folders: dict[str, Path]
    models: dict[str, Path]
    yunet: Path
    int8: bool

    @property
    def mixed(self) -> tuple[Path, Path]:
        """The mixed folder, the peers' and Mien's."""
        return self.folders["mixed"], self.folders["mixed, for Mien"]


def engines(bench: Bench, at: Place) -> None:
    """An engine's start and memory; first, while no engine has held another model."""
    bench.rows.append(engine_start(bench, at.folders["mixed"]))
    bench.rows.append(peak_memory(bench, at.folders["mixed"]))


def tiny(bench: Bench, at: Place) -> None:
    """ViT-Tiny/16 at 112."""
    model, mixed = at.models["vit-tiny-112"], at.folders["mixed"]
    with peer("pipeline", str(model)) as other, bare(model, "fp32", "whole", core_count()) as stages:
        other.find_best_batch(at.folders["large"], BATCHES)
        bench.compare(
            "ViT-Tiny/16 at 112, faces=whole", other, at.mixed, model="vit-tiny-112", faces="whole",
            targets={"fp32": 4.0}, stages=(stages, mixed),
        )  # fmt: skip


def whole(bench: Bench, at: Place) -> None:
    """The default model on whole images."""
    mixed, targets = at.folders["mixed"], {"fp32": 0.85 * 3.0} | ({"int8": 0.85 * 5.5} if at.int8 else {})
    with peer("pipeline", str(DEFAULT)) as other, bare(DEFAULT, "fp32", "whole", core_count()) as stages:
        other.find_best_batch(at.folders["large"], BATCHES)
        bench.compare(
            "default model, faces=whole", other, at.mixed, model="default", faces="whole",
            targets=targets, stages=(stages, mixed),
        )  # fmt: skip


def detect(bench: Bench, at: Place) -> None:
    """The default model on faces that are found first."""
    mixed, targets = at.folders["mixed"], {"fp32": 2.5} | ({"int8": 4.0} if at.int8 else {})
    with (
        peer("detect", str(DEFAULT), str(at.yunet), "640") as other,
        bare(DEFAULT, "fp32", "detect", core_count()) as stages,
    ):
        other.find_best_batch(at.folders["large"], BATCHES)
        bench.compare(
            "default model, faces=detect", other, at.mixed, model="default", faces="detect",
            targets=targets, stages=(stages, mixed),
        )  # fmt: skip
        bench.rows.append(matched(bench, other, mixed))


def second(bench: Bench, at: Place) -> None:
    """The same folder twice."""
    bench.rows.append(again(bench, at.folders["again"]))


def base(bench: Bench, at: Place) -> None:
    """ViT-B/16 at 224."""
    model, large, few = at.models["vit-base-224"], at.folders["large"], at.folders["few"]
    with peer("pipeline", str(model)) as other, bare(model, "fp32", "whole", core_count()) as stages:
        other.find_best_batch(few, BATCHES)
        bench.compare(
            "ViT-B/16 at 224, faces=whole", other, (large, large), model="vit-base-224", faces="whole",
            targets={"fp32": 1.25} | ({"int8": 3.0} if at.int8 else {}), stages=(stages, few),
        )  # fmt: skip


PARTS: dict[str, Callable[[Bench, Place], None]] = {
    "engines": engines, "tiny": tiny, "whole": whole, "detect": detect, "second": second, "base": base,
}  # fmt: skip


def make_folders(photos: Path, scratch: Path, scale: Scale) -> dict[str, Path]:
    """The mixed folder, smaller ones, and larger ones of its copies, each with bytes of its own after the picture."""
    counts = {"mixed": scale.mixed, "large": scale.large, "few": max(scale.large // 4, 4)}
    folders = {name: scratch / name for name in (*counts, "again", "mixed, for Mien")}
    for seed, (name, count) in enumerate(counts.items(), 1):
        make_mixed(photos, folders[name], count, seed=seed)
    pictures = [path.read_bytes() for path in sorted(folders["mixed"].iterdir())]
    for name, count in (("again", scale.again), ("mixed, for Mien", scale.copies * scale.mixed)):
        folders[name].mkdir()
        for number in range(count):
            copy = pictures[number % len(pictures)] + number.to_bytes(8, "big")
            (folders[name] / f"{number:06d}.jpg").write_bytes(copy)
    return folders


def main() -> None:
    """Measure, print and, with ``--write``, put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="photographs to make the mixed folder from")
    parser.add_argument("--yunet", type=Path, required=True, help="face_detection_yunet_2023mar.onnx as OpenCV has it")
    parser.add_argument("--runs", type=int, default=Scale.runs)
    parser.add_argument("--write", type=Path, help="page whose section on the CPU is replaced")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few images, one run, no figure to report")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part, printed and not written")
    options = parser.parse_args()
    scale = Scale(1, 20, 4, 40) if options.quick else Scale(options.runs)
    started = time.monotonic()
    chosen = options.only or list(PARTS)
    shapes = {"tiny": "vit-tiny-112", "base": "vit-base-224"}
    models = {name: random_model(name, MODELS_KEPT) for part, name in shapes.items() if part in chosen}
    with tempfile.TemporaryDirectory() as scratch:
        folders = make_folders(options.photos, Path(scratch), scale)
        with system(Path(scratch), list(folders.values()), list(models.values())) as client:
            bench = Bench(client, scale, Path(scratch) / "data")
            place = Place(folders, models, options.yunet, int8_instructions() is not None)
            for name, part in PARTS.items():
                if name in chosen:
                    part(bench, place)
    text = report(bench, time.monotonic() - started, quick=options.quick)
    print(text)
    if options.write and not options.quick and not options.only:
        replace_section(options.write, "cpu", text)


def report(bench: Bench, seconds: float, *, quick: bool) -> str:
    """The section as Markdown."""
    heading = "A rehearsal: these are no figures.\n\n" if quick else ""
    stages = " | ".join(("read", "decode", "detect", "classify", "write"))
    return (
        f"{heading}`make bench`: {describe()}. Medians of {bench.scale.runs} runs, the sides taking turns; "
        f"{bench.scale.mixed} pictures of the mix (50% 640x480, 25% 224x224, 20% 1280x960, 5% 12 megapixels), of which "
        f"Mien has {bench.scale.copies} files each; {bench.scale.large} for the largest model, for both; "
        f"{seconds / 60:.1f} minutes in all.\n\n"
        "| what | ratio | target | reached | made of |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(row.cells() for row in bench.rows)
        + "\n\nWhere the time goes: milliseconds per image and engine, worked + waited, in the last run of each.\n\n"
        f"| | {stages} |\n| --- | --- | --- | --- | --- | --- |\n" + "\n".join(bench.profiles) + "\n"
    )


if __name__ == "__main__":
    main()

"""What a GPU machine gives: correct first, then fast. One script, under 8 minutes, prints a table and writes JSON.

``python benchmarks/gpu.py [--json gpu.json]``; ``--device cpu --quick`` runs all of it small, without a GPU.

Needs torch, transformers, numpy and Pillow, and this checkout; where simplejpeg, psutil or ONNX Runtime are missing,
stand-ins from ``benchmarks/bare`` are used (and named in the output). Targets: ViT-B/16 at 224 fed from memory at
8,000 images/s (H100) or 10,000 (H200); end to end at 0.85 of the lower of the ceilings of decoding and of the device.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BARE = Path(__file__).resolve().parent / "bare"
STAND_INS = ("simplejpeg", "psutil", "onnxruntime")
TARGETS = {"H100": 8_000, "H200": 10_000}
END_TO_END_TARGET = 0.85
LAST_START_S = 400
"""Parts that would begin later than this are left out, and the table says so."""


def on_the_path() -> list[str]:
    """Put this checkout on the path, and stand-ins for what is not installed; their names."""
    sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(BARE.parent))]
    missing = [name for name in STAND_INS if not is_installed(name)]
    if missing:
        sys.path.append(str(BARE))  # last: what is installed comes first
    return missing


def is_installed(name: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def machine(device: str) -> dict[str, Any]:
    """What was measured on."""
    import torch
    import transformers

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / (1 << 30), 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return found


def half_of(device: str) -> str:
    """bf16, or fp16 where bf16 is slow (compute capability below 8)."""
    import torch

    return "fp16" if device == "cuda" and torch.cuda.get_device_capability(0)[0] < 8 else "bf16"


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny network and few images: whether it runs at all")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where the figures are written")
    parser.add_argument("--photos", type=Path, default=ROOT / "samples", help="photographs that the mix is made of")
    parser.add_argument("--images", type=int, default=0, help="different images in the mix")
    parser.add_argument("--decoders", type=int, default=0, help="decoding processes; 0: one per core")
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args(words)


class Run:
    """One run: its figures, and the clock that keeps it short."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.figures: dict[str, Any] = {}
        self.left_out: list[str] = []

    def part(self, name: str) -> bool:
        """Whether there is time to begin a part; says so."""
        passed = time.perf_counter() - self.begun
        if passed > LAST_START_S:
            self.left_out.append(name)
            return False
        print(f"[{passed:5.0f} s] {name}", file=sys.stderr, flush=True)
        return True


def check_answers(options: argparse.Namespace, models: list[Any], paths: list[Path], run: Run) -> None:
    """Compare with fp32 on the CPU; an answer that is wrong ends the run."""
    from benchmarks import gpu_parts as parts

    run.part("correctness")
    half = run.figures["precision"]
    run.figures["correctness"] = {}
    for model in models:
        bounds = {"fp32": parts.FP32_BOUND, half: parts.HALF_BOUND, "own processor": parts.PROCESSOR_BOUND}
        found = parts.check(model, options.device, half, paths[: 8 if options.quick else 24])
        run.figures["correctness"][model.name] = found
        found["within bounds"] = all(found.get(name, 0.0) <= bound for name, bound in bounds.items())
        bounds.pop("own processor")  # with torchvision that is another implementation: told, but it ends nothing
        wrong = {name: found[name] for name, bound in bounds.items() if found.get(name, 0.0) > bound}
        if wrong:
            raise SystemExit(
                f"{model.name} answers differently on {options.device} than it must: {wrong} (bounds: {bounds})"
            )


def measure_device(options: argparse.Namespace, vit: Any, paths: list[Path], run: Run) -> None:
    """The device alone: batch sizes, compiled and not, memory, and fed from the host's memory."""
    import torch

    from benchmarks import gpu_parts as parts
    from worker.device_batches import CANDIDATES, GOOD_ENOUGH, BatchSize
    from worker.torch_classifier import TorchNetwork

    device, figures = options.device, run.figures
    seconds = 0.3 if options.quick else 3.0
    run.part("batch sizes")
    sizes = (1, 4, 8) if options.quick else (1, 8, 32, 64, 128, 256, 512) if device == "cuda" else CANDIDATES["cpu"]
    network = TorchNetwork(vit, device, figures["precision"])
    figures["batches"] = {"plain": parts.batch_table(network, sizes, seconds / 3)}
    if not options.quick and run.part("batch sizes in fp32"):
        exact = TorchNetwork(vit, device, "fp32")
        figures["batches"]["plain, fp32"] = parts.batch_table(exact, sizes[-3:-1], seconds / 3)
        del exact
    rates = {size: row["images_per_s"] for size, row in figures["batches"]["plain"].items()}
    best = figures["best_batch"] = min(s for s, rate in rates.items() if rate >= GOOD_ENOUGH * max(rates.values()))
    crops = parts.crops_of(vit, paths[:12])
    figures["fed"] = {"plain": parts.fed_rate(network, crops, best, seconds)}
    figures["compiled"] = False
    if device == "cuda" and not options.no_compile and run.part("compiling"):
        begun = time.perf_counter()
        try:
            network.compile(BatchSize(best).shapes)
            figures["compiled"] = True
        except Exception as error:
            figures["compile_error"] = f"{type(error).__name__}: {error}"[:500]
        figures["compile_s"] = time.perf_counter() - begun
    if figures["compiled"]:
        figures["batches"]["compiled"] = parts.batch_table(network, BatchSize(best).shapes, seconds / 3)
        figures["fed"]["compiled"] = parts.fed_rate(network, crops, best, seconds)
    del network
    if device == "cuda":
        torch.cuda.empty_cache()


def measure_whole(options: argparse.Namespace, vit: Any, paths: list[Path], run: Run) -> None:
    """Decoding alone (before and after), end to end between, and the peer."""
    import torch

    from benchmarks import gpu_parts as parts
    from worker.device_pool import DevicePool

    device, figures, decoders = options.device, run.figures, run.figures["decoders"]
    seconds = 0.6 if options.quick else 6.0
    decoding = []
    if run.part("decoding alone"):
        decoding.append(parts.decode_rate(vit, paths[0].parent, decoders, seconds))
    if run.part("end to end"):
        name = "cuda:0" if device == "cuda" else "cpu"
        pool = DevicePool([name], decoders, batch=figures["best_batch"], compiled=figures["compiled"])
        pool.start()
        try:
            count = 24 if options.quick else max(4 * len(paths), 4_000) if device == "cuda" else len(paths)
            spec = parts.spec_of(vit, figures["precision"])
            figures["end_to_end"] = parts.end_to_end(pool, spec, paths, count, 3 * seconds)
            if device == "cuda":
                free, total = torch.cuda.mem_get_info()
                figures["gpu_memory_in_use_mib"] = (total - free) / (1 << 20)
        finally:
            pool.stop()
    if run.part("decoding alone, again"):
        decoding.append(parts.decode_rate(vit, paths[0].parent, decoders, seconds))
    if decoding:
        figures["decode"] = sum(decoding) / len(decoding)
    if run.part("transformers.pipeline"):
        batch = 4 if options.quick else 32
        figures["peer"] = parts.peer_rate(vit, device, figures["precision"], paths, batch)


def measure(options: argparse.Namespace, scratch: Path, run: Run) -> None:
    """Every part in order; figures go into ``run``."""
    from benchmarks import gpu_parts as parts
    from mien.model_folder import load_model

    decoders = options.decoders or run.figures["machine"]["cores"]
    run.figures |= {"precision": half_of(options.device), "decoders": decoders}
    run.part("images and model")
    paths = parts.make_mix(options.photos, scratch / "mix", options.images or (12 if options.quick else 240))
    vit = parts.make_vit(scratch / "vit", small=options.quick)
    shipped = ROOT / "models" / "default"
    check_answers(options, [vit, *([load_model(shipped)] if shipped.is_dir() else [])], paths, run)
    measure_device(options, vit, paths, run)
    measure_whole(options, vit, paths, run)


def summary(run: Run) -> list[str]:
    """The table as lines of Markdown."""
    figures = run.figures
    fed = max(figures["fed"].values())
    name = figures["machine"].get("gpu", "")
    target = next((value for key, value in TARGETS.items() if key in name), None)
    lines = ["| what | figure | target |", "| --- | --- | --- |"]
    for model, found in figures["correctness"].items():
        shown = ", ".join(f"{key} {value:.5f}" for key, value in found.items() if key != "within bounds")
        shown += "" if found["within bounds"] else " (NOT within the bounds)"
        lines.append(f"| {model}: differences in probabilities from CPU fp32 | {shown} | |")
    for way, rate in figures["fed"].items():
        lines.append(f"| forward fed from memory, {way}, images/s | {rate:,.0f} | {target or ''} |")
    if {"decode", "end_to_end"} <= set(figures):
        whole, ceiling = figures["end_to_end"]["images_per_s"], min(figures["decode"], fed)
        figures["end_to_end_ratio"] = whole / ceiling
        lines += [
            f"| decoding alone, {figures['decoders']} processes, images/s | {figures['decode']:,.1f} | |",
            f"| end to end, images/s | {whole:,.1f} | |",
            f"| end to end over the lower ceiling | {whole / ceiling:.2f} | {END_TO_END_TARGET} |",
        ]
        if "peer" in figures:
            lines.append(f"| transformers.pipeline, images/s | {figures['peer']:,.1f} | |")
            lines.append(f"| end to end over the pipeline | {whole / figures['peer']:.1f} | |")
        stages = ", ".join(f"{key} {value:.2f}" for key, value in figures["end_to_end"]["ms_per_image"].items())
        lines.append(f"| ms per image in the stages | {stages} | |")
    if "gpu_memory_in_use_mib" in figures:
        lines.append(f"| GPU memory in use end to end, MiB | {figures['gpu_memory_in_use_mib']:,.0f} | |")
    if "compile_s" in figures:
        lines.append(f"| compiling, s | {figures['compile_s']:.0f} {figures.get('compile_error', '')} | |")
    lines += ["", "| batch | " + " | ".join(f"{way}, images/s (peak MiB)" for way in figures["batches"]) + " |"]
    lines.append("| --- |" + " --- |" * len(figures["batches"]))
    for size in sorted({size for rows in figures["batches"].values() for size in rows}):
        cells = [rows.get(size) for rows in figures["batches"].values()]
        shown = [f"{cell['images_per_s']:,.0f} ({cell['peak_mib']:,.0f})" if cell else "" for cell in cells]
        lines.append(f"| {size} | " + " | ".join(shown) + " |")
    return lines


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = arguments_of(words)
    stood_in = on_the_path()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; `--device cpu --quick` runs the script without one.")
    run = Run()
    run.figures["machine"] = machine(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, Path(scratch), run)
    lines = summary(run)
    seconds = time.perf_counter() - run.begun
    run.figures |= {"seconds": seconds, "left_out": run.left_out, "stand_ins": stood_in}
    options.json.write_text(json.dumps(run.figures, indent=2) + "\n")
    print("\n".join([str(run.figures["machine"]), "", *lines, ""]))
    print(f"{seconds:.0f} s; left out: {run.left_out or 'nothing'}; stand-ins: {stood_in or 'none'}; {options.json}")


if __name__ == "__main__":
    main()

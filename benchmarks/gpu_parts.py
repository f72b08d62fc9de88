"""The measurements of ``benchmarks/gpu.py``: models, correctness, rates from memory, decoding, end to end, the peer."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.images import decode
from mien.model_folder import Model, load_model
from mien.stage_times import ENGINE_TIME_FIELDS
from worker.device_batches import Lane, free_memory, is_out_of_memory, measure_rate
from worker.device_pool import DevicePool
from worker.messages import EngineSpec, ImageTask
from worker.preparing import Preparer
from worker.probabilities import softmax
from worker.torch_classifier import TorchNetwork

ROOT = Path(__file__).parents[1]
FP32_BOUND, HALF_BOUND, PROCESSOR_BOUND = 1e-3, 2e-2, 1e-2
SIZES = ((0.50, (640, 480)), (0.25, (224, 224)), (0.20, (1280, 960)), (0.05, (4000, 3000)))


def make_vit(folder: Path, *, small: bool) -> Model:
    """A ViT-B/16 at 224 (``small``: a tiny one) with seeded random weights, as a model folder."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    size, patch = (64, 16) if small else (224, 16)
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    labels = [f"class {chr(97 + i)}" for i in range(8)]
    config = ViTConfig(
        image_size=size, patch_size=patch, id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)}, **(sizes if small else {}),
    )  # fmt: skip
    network = ViTForImageClassification(config)
    with torch.no_grad():  # a fresh head answers nearly alike to everything
        network.classifier.weight.normal_(0, 0.2 if small else 0.1)
    network.save_pretrained(folder)
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"rescale_factor": 1 / 255} | normal))
    spec = {
        "format": 1, "name": "vit-small" if small else "vit-b-16",
        "input": {
            "height": size, "width": size, "resize": "exact", "shortest_edge": None, "resample": "bilinear",
            "rescale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3,
        },
        "crop": {"margin": 0.0, "grey": False},
    }  # fmt: skip
    (folder / "mien.json").write_text(json.dumps(spec))
    return load_model(folder)


def make_mix(photos: Path, target: Path, count: int) -> list[Path]:
    """``count`` JPEGs of quality 90 in the mix of the throughput figures (see benchmarks/mixed.py), made quickly."""
    target.mkdir(parents=True, exist_ok=True)
    dice = random.Random(1)
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    sources = [Image.open(path).convert("RGB") for path in found]
    if not sources:
        raise SystemExit(f"There is no photograph in {photos}.")
    sizes = [size for share, size in SIZES for _ in range(max(1, round(share * count)))][:count]
    dice.shuffle(sizes)
    paths = []
    for number, (width, height) in enumerate(sizes):
        source = dice.choice(sources)
        ratio = width / height
        wide, tall = min(source.width, int(source.height * ratio)), min(source.height, int(source.width / ratio))
        left, top = dice.randint(0, source.width - wide), dice.randint(0, source.height - tall)
        path = target / f"{number:05}.jpg"
        source.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall)).save(
            path, quality=90
        )
        paths.append(path)
    return paths


def spec_of(model: Model, precision: str) -> EngineSpec:
    """Whole images, no search for faces."""
    return EngineSpec(
        str(model.folder), model.revision, "cuda", precision, "whole", 640, 0.7, 0,
        max_pixels=200_000_000, max_file_bytes=1 << 29,
    )  # fmt: skip


def crops_of(model: Model, paths: Sequence[Path]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """What decoding processes would send for these images."""
    preparer, spec = Preparer(), spec_of(model, "fp32")
    tasks = [ImageTask(i, os.fsencode(path.parent), os.fsencode(path.name)) for i, path in enumerate(paths)]
    return [preparer.prepare(task, spec, model).crops[0] for task in tasks]


def check(model: Model, device: str, half: str, paths: Sequence[Path]) -> dict[str, float]:
    """Largest differences in probabilities: device fp32 and ``half`` from CPU fp32, batch from single, and our crops on
    the device from the checkpoint's own processor on the full image. Also the spread of the answers."""
    import torch
    from transformers import AutoImageProcessor

    crops = crops_of(model, paths)
    exact = softmax(TorchNetwork(model, "cpu", "fp32").classify(crops))
    same = TorchNetwork(model, device, "fp32")
    on_device = softmax(same.classify(crops))
    fast = TorchNetwork(model, device, half)
    in_half = softmax(fast.classify(crops))
    single = np.concatenate([softmax(fast.classify([crop])) for crop in crops[:4]])
    found = {
        "fp32": _most(on_device, exact),
        half: _most(in_half, exact),
        f"{half}, batch from single": _most(single, in_half[:4]),
        "spread": float(exact.std(axis=0).max()),
    }
    if not model.crop.grey:  # a grey model's processor is fed colour here; its own test compares the crops
        processor = AutoImageProcessor.from_pretrained(model.folder, local_files_only=True)
        full = [Image.fromarray(decode(path.read_bytes()).pixels) for path in paths]
        pixels = processor(images=full, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            theirs = same._network(pixel_values=pixels.to(same.device)).logits.float().cpu().numpy()
        found["own processor"] = _most(on_device, softmax(theirs))
    free_memory(fast)
    return found


def _most(some: Any, others: Any) -> float:
    return float(np.abs(some - others).max())


def batch_table(network: TorchNetwork, sizes: Sequence[int], seconds: float) -> dict[int, dict[str, float]]:
    """Images/s of batches that lie on the device, and the memory that torch needed at most (MiB)."""
    import torch

    rows: dict[int, dict[str, float]] = {}
    for size in sizes:
        if network.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            rate = measure_rate(network, size, seconds)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_memory(network)
            break
        peak = torch.cuda.max_memory_allocated() / (1 << 20) if network.device.type == "cuda" else 0.0
        rows[size] = {"images_per_s": rate, "peak_mib": peak}
    return rows


def fed_rate(network: TorchNetwork, crops: Sequence[Any], batch: int, seconds: float) -> float:
    """Images/s fed from the host's memory as the device engine does: uint8 crops, two lanes, answers taken back."""
    lanes = [Lane(network, batch), Lane(network, batch)]
    some = [crops[i % len(crops)] for i in range(batch)]
    for lane in lanes:
        lane.launch(some, batch)
    done, turn, started = 0, 0, 0.0
    while True:
        lanes[turn].collect()
        lanes[turn].launch(some, batch)
        turn = 1 - turn
        done += 1
        if done == 4:  # the first batches warm up
            started = time.perf_counter()
        elif done > 4 and time.perf_counter() - started >= seconds:
            break
    spent = time.perf_counter() - started
    for lane in lanes:
        lane.collect()
    return (done - 4) * batch / spent


def decode_rate(model: Model, folder: Path, processes: int, seconds: float) -> float:
    """Images/s that so many processes read, decode and crop, with nothing behind them."""
    path = os.pathsep.join(part for part in [str(ROOT), *sys.path] if part)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu_parts", str(model.folder), str(folder), str(seconds)]
    children = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for child in children:
        _line(child)  # it is warm
    for child in children:
        _tell(child)
    return sum(float(_line(child)) for child in children)


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a decoding process ended")
    return line


def _tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def decode_child(model_folder: str, folder: str, seconds: float) -> None:
    """What each process of :func:`decode_rate` does."""
    model = load_model(model_folder)
    preparer, spec = Preparer(), spec_of(model, "fp32")
    names = sorted(path.name for path in Path(folder).iterdir())
    random.Random(os.getpid()).shuffle(names)
    tasks = [ImageTask(i, os.fsencode(folder), os.fsencode(name)) for i, name in enumerate(names)]
    for task in tasks[:8]:
        preparer.prepare(task, spec, model)
    print("ready", flush=True)
    sys.stdin.readline()
    started, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        image = preparer.prepare(tasks[done % len(tasks)], spec, model)
        assert image.error is None, image.error
        done += 1
    print(done / spent, flush=True)


def end_to_end(pool: DevicePool, spec: EngineSpec, paths: Sequence[Path], count: int, seconds: float) -> dict[str, Any]:
    """Images/s of ``count`` images or more from files to answers, after some to warm up; ms per stage and image."""
    tasks = [
        ImageTask(i, os.fsencode(paths[i % len(paths)].parent), os.fsencode(paths[i % len(paths)].name))
        for i in range(count)
    ]
    begun = time.perf_counter()
    pool.classify(spec, tasks[: max(count // 4, 32)])
    ready_s = time.perf_counter() - begun
    started, done, times = time.perf_counter(), 0, dict.fromkeys(ENGINE_TIME_FIELDS, 0.0)
    while (spent := time.perf_counter() - started) < seconds or not done:
        results = pool.classify(spec, tasks)
        bad = [result for result in results if result.outcome != "ok"]
        assert not bad, bad[0]
        done += count
        for field in times:
            times[field] += sum(getattr(result, field) for result in results)
    return {
        "images_per_s": done / spent, "images": done, "ready_s": ready_s,
        "ms_per_image": {name: 1000 * total / done for name, total in times.items()},
    }  # fmt: skip


def peer_rate(model: Model, device: str, half: str, paths: Sequence[Path], batch: int) -> float:
    """Images/s of ``transformers.pipeline`` on the same files, after a first batch."""
    import torch
    from transformers import pipeline

    files = [str(path) for path in paths]
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[half]
    classify: Any = pipeline(
        "image-classification", model=str(model.folder), batch_size=batch, device=device, dtype=kind
    )
    classify(files[:batch])
    started = time.perf_counter()
    count = len(classify(files))
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    decode_child(sys.argv[1], sys.argv[2], float(sys.argv[3]))

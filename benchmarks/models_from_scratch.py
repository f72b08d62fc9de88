"""A Vision Transformer from scratch beside a small CNN, the majority and the original, on angry, happy, sad of FER+.

    MIEN_DATA=folder mien train training/recipes/vit-three.toml
    MIEN_DATA=folder mien train training/recipes/cnn-three.toml
    python -m benchmarks.models_from_scratch DATA/ferplus runs/vit-three runs/cnn-three [--out FILE]

All are judged on the validation images of the three labels; where the folder has a votes.csv, beside the raters' votes
too (mean gap between confidence and share of votes, Jensen-Shannon divergence). The original is the notebook that this
project grew from: its ViT from scratch never left the majority (44.2% accuracy, 33.3% balanced, on FER2013's three
labels). The speed is torch's in fp32, one thread, batches of 8, in processor time, the best of several rounds.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from mien.model_folder import CropSpec
from training.calibrate import against_votes
from training.crops import Cropper, read_image, square_input
from training.data import label_ids, scan, usable
from training.metrics import mcnemar, score
from training.networks import logits_of
from training.package import network_of

ORIGINAL = {"accuracy": 0.442, "balanced_accuracy": 1 / 3}
ROUNDS = 7
VOTES = "votes.csv"


def judge(run: Path, folder: Path) -> dict[str, Any]:
    """Scores, size and speed of a run's kept weights."""
    torch.set_num_threads(1)
    network, recipe, state = network_of(run)
    part = recipe.model
    votes_file = VOTES if (folder / VOTES).exists() else None
    items = [item for item in usable(scan(folder, votes=votes_file).splits["valid"], recipe.labels) if item.label]
    cropper = Cropper(CropSpec(0.0, part.grey), square_input(part.image_size), detect=False)
    crops = [crop for item in items if (crop := cropper(read_image(item.path))) is not None]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(part.mean).view(3, 1, 1)) / torch.tensor(part.std).view(3, 1, 1)
    with torch.no_grad():
        p = torch.cat([logits_of(network, part).double().softmax(dim=-1) for part in torch.split(pixels, 64)]).numpy()
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            for batch in torch.split(pixels[:48], 8):
                logits_of(network, batch)
            best = min(best, time.process_time() - started)
    truth = label_ids(items, recipe.labels)
    found = score(p, truth, recipe.labels)
    votes = against_votes(p, items, recipe.labels)
    return {
        "run": run.name,
        "images": found.images,
        "accuracy": found.accuracy,
        "interval": found.accuracy_interval,
        "balanced_accuracy": found.balanced_accuracy,
        "balanced_interval": found.balanced_accuracy_interval,
        "log_loss": found.log_loss,
        "vote_gap": votes.vote_gap if votes else None,
        "divergence": votes.divergence if votes else None,
        "per_label": {s.label: s.recall for s in found.per_label},
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "images_per_s": 48 / best,
        "training_steps": state["step"],
        "training_seconds": state.get("seconds", 0.0),
        "majority": float(np.bincount(truth).max() / len(truth)),
        "predicted": p.argmax(axis=1),
        "truth": truth,
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folder: Path, runs: tuple[Path, ...], out: Path | None) -> None:
    """Judge RUNS on the validation images in FOLDER."""
    rows = [judge(run, folder) for run in runs]
    print("| | accuracy (95%) | balanced accuracy (95%) | parameters | images/s, one core | images seen in training |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        a, b = row["interval"], row["balanced_interval"]
        print(
            f"| {row['run']} | {100 * row['accuracy']:.1f}% ({100 * a[0]:.1f} to {100 * a[1]:.1f}) "
            f"| {100 * row['balanced_accuracy']:.1f}% ({100 * b[0]:.1f} to {100 * b[1]:.1f}) "
            f"| {row['parameters'] / 1e6:.2f} M | {row['images_per_s']:.0f} | {row['training_steps'] * 64:,} |"
        )
    chance = 100 / len(rows[0]["per_label"])
    print(f"| the majority label alone | {100 * rows[0]['majority']:.1f}% | {chance:.1f}% | | | |")
    print(f"| the original | {100 * ORIGINAL['accuracy']:.1f}% | {100 * ORIGINAL['balanced_accuracy']:.1f}% | | | |")
    for row in rows:
        if row["vote_gap"] is not None:
            beside = f"gap {row['vote_gap']:.3f}, divergence {row['divergence']:.3f} nats"
            print(f"\n{row['run']} beside the votes: {beside}")
    for other in rows[1:]:
        test = mcnemar(rows[0]["truth"], rows[0]["predicted"], other["predicted"])
        print(f"\n{rows[0]['run']} beside {other['run']}: McNemar p = {test['p_value']:.3g}")
    if out:
        kept = [{key: value for key, value in row.items() if key not in ("predicted", "truth")} for row in rows]
        out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

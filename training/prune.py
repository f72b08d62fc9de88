"""Which layers of a classifier can best be missed: taken out one by one, each time the one whose loss costs least.

``python -m training.prune SOURCE FOLDER --keep 8`` prints the layers left at each depth, with log loss and accuracy on
images of the training split, never on those that judge. The last line is for ``model.layers`` of a recipe.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mien.model_folder import CropSpec
from training.crops import Cropper, read_image, square_input
from training.data import label_ids, require_training, scan
from training.networks import encoder_layers, load_classifier, logits_of
from training.recipe import IMAGENET_MEAN, IMAGENET_STD


def prune(model: nn.Module, pixels: Tensor, truth: Tensor, *, keep: int) -> list[tuple[tuple[int, ...], float, float]]:
    """(layers, log loss, accuracy) at each depth down to ``keep``, by greedy removal."""
    owner, name, layers = encoder_layers(model)
    every = list(layers)

    def judge(chosen: tuple[int, ...]) -> tuple[float, float]:
        setattr(owner, name, nn.ModuleList(every[i] for i in chosen))
        with torch.no_grad():
            logits = torch.cat([logits_of(model, part).float() for part in torch.split(pixels, 128)])
        return float(F.cross_entropy(logits, truth)), float((logits.argmax(dim=1) == truth).float().mean())

    left = tuple(range(len(every)))
    found = [(left, *judge(left))]
    while len(left) > keep:
        candidates = [tuple(i for i in left if i != removed) for removed in left]
        found.append(min(((chosen, *judge(chosen)) for chosen in candidates), key=lambda entry: entry[1]))
        left = found[-1][0]
    setattr(owner, name, nn.ModuleList(every[i] for i in left))
    return found


@click.command()
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--labels", required=True, help="The model's labels in order, with commas.")
@click.option("--keep", default=6, show_default=True, help="Depth at which to stop.")
@click.option("--images", default=900, show_default=True, help="Training images to judge by.")
@click.option("--image-size", default=70, show_default=True)
def main(source: str, folder: Path, *, labels: str, keep: int, images: int, image_size: int) -> None:
    """Take the layers out of SOURCE one by one, judged on grey crops in FOLDER."""
    names = tuple(labels.split(","))
    items = [item for item in require_training(scan(folder), names) if item.label]
    chosen = [items[i] for i in np.random.default_rng(0).permutation(len(items))[:images]]
    cropper = Cropper(CropSpec(0.0, True), square_input(image_size), detect=False)
    crops = np.stack([crop for item in chosen if (crop := cropper(read_image(item.path))) is not None])
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    model = load_classifier(source, labels=names, image_size=image_size).eval()
    for layers, loss, accuracy in prune(model, pixels, torch.from_numpy(label_ids(chosen, names)), keep=keep):
        click.echo(f"{len(layers):3} layers  log loss {loss:.4f}  accuracy {100 * accuracy:.1f}%  {list(layers)}")


if __name__ == "__main__":
    main()

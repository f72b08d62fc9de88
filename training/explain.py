"""Where a classifier looked: attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928), over the photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from mien.errors import ModelError
from mien.images import RGB
from mien.model_folder import Model
from training.answer import Answer
from training.quiet import quiet
from worker.crops import crop_side, model_input
from worker.face_search import Face

Heat = npt.NDArray[np.float32]


class Explainer:
    """Attention rollout of a packaged model, by its safetensors in torch."""

    def __init__(self, model: Model) -> None:
        from transformers import AutoModelForImageClassification  # noqa: PLC0415 - slow to import

        quiet()
        self.model = model
        network = AutoModelForImageClassification.from_pretrained(
            model.folder, local_files_only=True, dtype=torch.float32, attn_implementation="eager"
        )
        self.network: nn.Module = network.eval()

    @torch.no_grad()
    def heat(self, crop: RGB) -> Heat:
        """How much each patch flows into the answer: [rows, columns], mean 1.

        Raises:
            ModelError: the model gives no attention maps (it is no plain ViT).
        """
        pixels = torch.from_numpy(model_input([crop], self.model.input))
        output: Any = self.network(pixel_values=pixels, output_attentions=True)
        if not output.attentions or output.attentions[0] is None:
            raise ModelError(f"{self.model.name!r} gives no attention maps; --explain works for ViT, DeiT and DINOv2.")
        flow = rollout([layer[0] for layer in output.attentions])
        config: Any = self.network.config
        size = int(config.patch_size)
        rows, columns = self.model.input.height // size, self.model.input.width // size
        patches = flow[:, -rows * columns :]
        # heads that read the mean of the patch tokens beside the class token depend on all rows
        reads_patches = config.model_type.startswith("dinov2")
        share = patches[0] + patches[-rows * columns :].mean(dim=0) if reads_patches else patches[0]
        heat = (share / share.mean()).reshape(rows, columns)
        return np.asarray(heat.numpy(), np.float32)


def rollout(attentions: list[Tensor]) -> Tensor:
    """The product over the layers of (mean attention over heads + identity) / 2: [tokens, tokens], rows add up to 1.

    Args:
        attentions: per layer [heads, tokens, tokens].
    """
    result = torch.eye(attentions[0].shape[-1])
    for layer in attentions:
        mixed = (layer.mean(dim=0) + torch.eye(layer.shape[-1])) / 2
        result = mixed @ result
    return result


def explain_answer(explainer: Explainer, answered: Answer, folder: Path, *, whole: bool) -> Path:
    """Write the answered picture into ``folder`` with boxes, labels and, over each crop, where the model looked.

    ``whole``: the crop was all of the picture.

    Raises:
        ModelError: the model gives no attention maps.
    """
    assert answered.image is not None  # noqa: S101 - an answer with faces has an image
    picture = Image.fromarray(answered.image.pixels).convert("RGBA")
    for face in answered.faces:
        area = (0.0, 0.0, float(picture.width), float(picture.height)) if whole else _square(face.box, explainer.model)
        picture.alpha_composite(_overlay(explainer.heat(face.crop), area, picture.size))
    longer = max(picture.size)
    pen_width, letters = max(2, round(longer / 400)), max(12, round(longer / 55))
    font = ImageFont.load_default(size=letters)
    pen = ImageDraw.Draw(picture)
    for face in answered.faces:
        box = face.box
        best = max(face.probabilities)
        caption = f"{answered.labels[face.probabilities.index(best)]} {best:.2f}"
        pen.rectangle((box.x, box.y, box.x + box.width, box.y + box.height), outline="white", width=pen_width)
        where = (box.x + pen_width, min(box.y + box.height + 2, picture.height - 2 * letters))
        pen.text(where, caption, fill="white", stroke_fill="black", stroke_width=2, font=font)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{answered.path.stem}.explained.jpg"
    picture.convert("RGB").save(target, quality=90)
    return target


def _square(face: Face, model: Model) -> tuple[float, float, float, float]:
    side = crop_side(face, model.crop)
    return face.x + face.width / 2 - side / 2, face.y + face.height / 2 - side / 2, side, side


def _overlay(heat: Heat, area: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """Red where the heat is high, over ``area`` (left, top, width, height) of a picture of ``size``."""
    left, top = round(area[0]), round(area[1])
    extent = (max(1, round(area[2])), max(1, round(area[3])))
    scaled = (heat - heat.min()) / max(float(heat.max() - heat.min()), 1e-6)
    alpha = Image.fromarray((scaled * 170).astype(np.uint8)).resize(extent, Image.Resampling.BICUBIC)
    mask = Image.new("L", size, 0)
    mask.paste(alpha, (left, top))
    layer = Image.new("RGBA", size, (220, 30, 20, 0))
    layer.putalpha(mask)
    return layer

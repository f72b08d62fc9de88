"""Random changes to a whole batch at once, on tensors: geometry, tone, softness, noise, erasing.

Everything is drawn from one ``torch.Generator``, so that a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from training.recipe import AugmentPart


def augment(
    canvases: Tensor,
    *,
    extent: Tensor,
    size: int,
    part: AugmentPart,
    blur_share: Tensor,
    blur_to: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw one training view of each canvas.

    Args:
        canvases: uint8 [N, C, S, S], the face with its surroundings.
        extent: [N], the share of the canvas's side that an unchanged view covers (1 covers all of it).
        size: side of the views in pixels.
        blur_share: [N], each image's chance to be softened to ``blur_to`` pixels.

    Returns:
        float32 [N, C, size, size] in 0..1.
    """
    views = warp(canvases.float() / 255, extent, size, part, generator)
    if bool((blur_share > 0).any()):
        views = soften(views, blur_share, blur_to, generator)
    return erase(tone(views, part, generator), part.erase, generator)


def centre_view(images: Tensor, extent: float, size: int) -> Tensor:
    """The unchanged view: the middle ``extent`` of each canvas (float [N, C, S, S]), resized to ``size``."""
    theta = torch.tensor([[extent, 0.0, 0.0], [0.0, extent, 0.0]], device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)


def warp(images: Tensor, extent: Tensor, size: int, part: AugmentPart, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shift, shear and flip in one bicubic resampling; edge pixels fill what lies outside."""
    count = len(images)
    angle = _uniform(images, generator) * math.radians(part.rotate)
    scale_x = extent * torch.exp(_uniform(images, generator) * part.scale)
    scale_y = scale_x * torch.exp(_uniform(images, generator) * part.scale * 0.5)
    shear = _uniform(images, generator) * part.shear
    shift_x, shift_y = (_uniform(images, generator) * 2 * part.shift * extent for _ in range(2))
    if part.flip:
        scale_x = scale_x * torch.where(_unit(images, generator) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([cos * scale_x, (shear * cos - sin) * scale_y, shift_x], dim=-1),
            torch.stack([sin * scale_x, (shear * sin + cos) * scale_y, shift_y], dim=-1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)


def tone(images: Tensor, part: AugmentPart, generator: torch.Generator) -> Tensor:
    """Gamma, contrast about the image's mean, brightness, noise."""
    gamma = torch.exp(_uniform(images, generator) * part.gamma).view(-1, 1, 1, 1)
    contrast = 1 + (_uniform(images, generator) * part.contrast).view(-1, 1, 1, 1)
    brightness = (_uniform(images, generator) * part.brightness).view(-1, 1, 1, 1)
    images = images.clamp_min(1e-4).pow(gamma)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean + brightness
    if part.noise:
        strength = _unit(images, generator).view(-1, 1, 1, 1) * part.noise
        images = images + torch.randn(images[:, :1].shape, generator=generator).to(images.device) * strength
    return images.clamp(0, 1)


def soften(images: Tensor, share: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shrink some of the images to ``pixels`` and enlarge them again: the sharpness of a small face."""
    chosen = _unit(images, generator) < share
    small = F.interpolate(images, size=(pixels, pixels), mode="bicubic", antialias=True, align_corners=False)
    back = F.interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.where(chosen.view(-1, 1, 1, 1), back, images)


def erase(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Random erasing (Zhong et al. 2020, arXiv:1708.04896): a rectangle of 2 to 20% of some images becomes one tone."""
    if share == 0:
        return images
    _, _, height, width = images.shape
    chosen = _unit(images, generator) < share
    area = 0.02 + 0.18 * _unit(images, generator)
    ratio = torch.exp(_uniform(images, generator) * math.log(3.0))
    half_h, half_w = (area * ratio).sqrt() * height / 2, (area / ratio).sqrt() * width / 2
    centre_y = _unit(images, generator) * height
    centre_x = _unit(images, generator) * width
    rows = (torch.arange(height, device=images.device) - centre_y[:, None]).abs() < half_h[:, None]
    columns = (torch.arange(width, device=images.device) - centre_x[:, None]).abs() < half_w[:, None]
    mask = (rows[:, :, None] & columns[:, None, :] & chosen[:, None, None])[:, None]
    fill = _unit(images, generator).view(-1, 1, 1, 1)
    return torch.where(mask, fill, images)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    """One number in -1..1 per image, drawn on the generator's device, laid on the images'."""
    return _unit(images, generator) * 2 - 1


def _unit(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), generator=generator).to(images.device)

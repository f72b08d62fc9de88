"""Checkpoints of a run: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from training.recipe import RecipeError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a crash leaves the old checkpoint or the new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only).

    Raises:
        RecipeError: there is none, or it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RecipeError(f"There is no checkpoint {path} to resume from; start without --resume.") from None
    except Exception as error:
        raise RecipeError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); delete it and start anew."
        ) from None
    return state

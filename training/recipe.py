"""One recipe file describes one run: data, model, optimisation, augmentation. TOML on disk, frozen in memory."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mien.errors import UnprocessableError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class RecipeError(UnprocessableError):
    """A recipe cannot be used; the detail names the field."""

    code = "bad_recipe"
    title = "The recipe cannot be used"


def expand(text: str, field: str) -> str:
    """Replace $VARIABLES and ~.

    Raises:
        RecipeError: a variable is not set.
    """
    expanded = os.path.expandvars(text)
    if left := re.search(r"\$\w+", expanded):
        raise RecipeError(f"{field} = {text!r}: the variable {left[0]} is not set.", field=field)
    return str(Path(expanded).expanduser()) if text.startswith("~") else expanded


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataPart(_Part):
    """One root of images and how much of it each batch takes."""

    path: str = Field(
        description="Folder root/{train,valid,test}/<label>/* or root/<label>/*; $VARIABLES are expanded."
    )
    votes: str | None = Field(None, description="CSV of raters' votes below the root: soft labels.")
    drop_single_votes: bool = Field(
        True, description="Leave out labels that one rater alone chose (as the FER+ paper does)."
    )
    faces: Literal["whole", "detect"] = Field("whole", description="detect: crop the largest face as the worker does.")
    share: float = Field(1.0, gt=0, description="Weight of this root in each batch, relative to the others.")
    balance: Literal["none", "sqrt", "full"] = Field(
        "none", description="Draw classes by 1/sqrt or 1/count of their size."
    )
    margin: tuple[float, float] = Field(
        (0.1, 0.1), description="Range of crop margins drawn in training (faces=detect)."
    )
    label_share: float = Field(
        1.0, ge=0, le=1, description="Share of the label in the target; the teacher gives the rest."
    )
    blur: float = Field(0.0, ge=0, le=1, description="Share of images softened to `blur_to` pixels and back.")
    blur_to: int = Field(48, ge=8, description="Pixels to which `blur` softens.")

    @property
    def root(self) -> Path:
        """The folder with variables and ~ expanded."""
        return Path(expand(self.path, "data.path"))


class ModelPart(_Part):
    """What is trained and from what it starts."""

    kind: Literal["pretrained", "vit", "cnn"] = Field(
        "pretrained", description="A checkpoint, or a ViT or CNN from scratch."
    )
    source: str = Field("", description="Folder or hub id@commit of the checkpoint to start from (kind=pretrained).")
    layers: tuple[int, ...] = Field((), description="Keep only these encoder layers of the source, in this order.")
    image_size: int = Field(70, ge=8, le=1024, description="Side of the square input in pixels.")
    grey: bool = Field(True, description="Convert crops to grey (three equal channels).")
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    patch_size: int = Field(10, ge=2, description="Patch side (kind=vit).")
    hidden: int = Field(192, ge=16, description="Width (kind=vit; channels of the first stage for kind=cnn).")
    depth: int = Field(6, ge=1, description="Layers (kind=vit).")
    heads: int = Field(3, ge=1, description="Attention heads (kind=vit).")
    drop_path: float = Field(
        0.1, ge=0, lt=1, description="Stochastic depth of the last layer, growing from 0 at the first."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the layers (kind=vit).")

    @model_validator(mode="after")
    def _complete(self) -> ModelPart:
        if self.kind == "pretrained" and not self.source:
            raise ValueError("source is needed for kind = 'pretrained'")
        return self


class TeacherPart(_Part):
    """A finished classifier whose answers the student learns beside the labels."""

    source: str
    views: Literal["same", "plain"] = Field(
        "same",
        description="same: the teacher sees each training view (dearer); plain: it answers once, before the run, for "
        "the unchanged image.",
    )
    mirror: bool = Field(False, description="Average the teacher's answer over the image and its mirror image.")
    temperature: float = Field(1.0, gt=0, description="Temperature on the teacher's logits.")


class OptimPart(_Part):
    """How the weights move."""

    batch: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1, description="Batches summed into one step.")
    steps: int | None = Field(None, ge=1, description="Length of the run in steps ...")
    budget: str | None = Field(
        None, description="... or in time, such as 90m, 2h, 45s: the schedule anneals to its end."
    )
    lr: float = Field(5e-4, gt=0, description="Learning rate of the head.")
    layer_decay: float = Field(0.75, gt=0, le=1, description="Factor on the rate per layer below the head.")
    weight_decay: float = Field(0.05, ge=0)
    warmup: int = Field(200, ge=0, description="Steps of linear warm-up.")
    min_lr: float = Field(0.01, ge=0, le=1, description="Share of the rate left at the end of the cosine.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: float = Field(0.9985, ge=0, lt=1, description="Decay of the moving average of the weights; 0 turns it off.")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "sqrt", "full"] = Field("none", description="Weigh the loss by 1/sqrt or 1/count.")
    loss: Literal["soft_ce", "focal"] = Field(
        "soft_ce", description="Cross entropy with soft targets, or its focal form."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA and on CPUs with AMX.")
    compile: bool = Field(
        False, description="Compile each encoder layer (needs a C++ compiler on the CPU; 1.4x there)."
    )

    @model_validator(mode="after")
    def _one_length(self) -> OptimPart:
        if (self.steps is None) == (self.budget is None):
            raise ValueError("give exactly one of steps and budget")
        return self

    @field_validator("budget")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value


class AugmentPart(_Part):
    """Random changes to training images; all are drawn per image."""

    flip: bool = True
    rotate: float = Field(20.0, ge=0, description="Degrees, uniform in +-.")
    scale: float = Field(0.15, ge=0, lt=1)
    shift: float = Field(0.08, ge=0, lt=1, description="Share of the side.")
    shear: float = Field(0.1, ge=0, lt=1)
    gamma: float = Field(0.3, ge=0, description="Exponent exp(uniform +-gamma).")
    contrast: float = Field(0.3, ge=0, lt=1)
    brightness: float = Field(0.1, ge=0, lt=1)
    noise: float = Field(0.04, ge=0, description="Largest standard deviation of Gaussian noise (0..1 scale).")
    erase: float = Field(0.25, ge=0, le=1, description="Share of images with one rectangle erased.")
    mixup: float = Field(0.3, ge=0, description="Alpha of the Beta distribution; 0 turns mixup off.")
    mixup_share: float = Field(0.4, ge=0, le=1, description="Share of batches mixed.")


class RunPart(_Part):
    """Intervals, stopping, seeds."""

    seed: int = 0
    threads: int = Field(0, ge=0, description="Threads of torch; 0 leaves its own choice.")
    validate_every: int = Field(500, ge=1, description="Steps between validations (and checkpoints).")
    patience: int = Field(0, ge=0, description="Stop after so many validations without a better one; 0 never stops.")
    select: Literal["accuracy", "balanced_accuracy", "log_loss", "last"] = Field(
        "last", description="Weights that are kept."
    )


class Recipe(_Part):
    """A whole run. ``labels`` fixes names and order of the outputs; empty means the folders' names in order."""

    name: str
    labels: tuple[str, ...] = ()
    data: tuple[DataPart, ...] = Field(min_length=1)
    model: ModelPart
    teacher: TeacherPart | None = None
    optim: OptimPart
    augment: AugmentPart = AugmentPart()
    run: RunPart = RunPart()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels holds a name twice")
        if self.teacher is None and any(part.label_share < 1 for part in self.data):
            raise ValueError("data.label_share below 1 needs a [teacher]")
        return self


def parse_duration(text: str) -> float:
    """Seconds of ``90m``, ``1.5h``, ``45s`` or ``1h30m``.

    Raises:
        ValueError: the text is none of these.
    """
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?[hms])+", text):
        raise ValueError(f"{text!r} is no duration; write for example 90m, 1.5h or 45s")
    unit = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(number) * unit[letter] for number, letter in re.findall(r"(\d+(?:\.\d+)?)([hms])", text))


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: the file is missing, is no TOML, or a field is wrong (named).
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}.") from None
    return make_recipe(content, origin=str(path))


def with_length(recipe: Recipe, *, budget: str | None, steps: int | None) -> Recipe:
    """The same recipe with another length.

    Raises:
        RecipeError: both are given, or one is no length.
    """
    if budget is None and steps is None:
        return recipe
    content = recipe.model_dump()
    content["optim"] |= {"budget": budget, "steps": steps}
    return make_recipe(content, origin="--budget, --steps")


def make_recipe(content: dict[str, object], *, origin: str = "recipe") -> Recipe:
    """Check a recipe given as nested dictionaries.

    Raises:
        RecipeError: a field is unknown or has a value that cannot be used.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'recipe'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise RecipeError(f"{origin}: {problems}.") from None

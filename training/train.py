"""The training loop: draws batches, moves weights, validates, leaves checkpoints to resume from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training import checkpoint
from training.augment import augment, centre_view
from training.ema import Ema
from training.interrupt import stop_on_signals
from training.losses import class_weights, mixup, smooth, soft_cross_entropy
from training.metrics import quick_metrics
from training.networks import build_network, compile_layers, load_classifier, logits_of
from training.recipe import Recipe, RecipeError, parse_duration
from training.runlog import RunLog
from training.sampler import batch_sizes, generator_for
from training.schedule import parameter_groups, rate
from training.sources import Sources, TrainRoot, ValidRoot, open_sources

LAST, BEST, FINAL = "last.pt", "best.pt", "final.pt"


@dataclass
class Outcome:
    """What a run came to."""

    steps: int
    seconds: float
    """Wall time in training, over all resumptions."""
    metrics: dict[str, dict[str, float]]
    """Root -> metrics of the kept weights on its validation images."""
    weights: Path
    """Checkpoint that holds the kept weights."""
    finished: bool
    """False if it was interrupted."""


class Trainer:
    """One run in one folder. ``train()`` may be called once."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        cache: Path | None = None,
        device: str = "auto",
        say: Callable[[str], None],
    ) -> None:
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)
        self.recipe, self.folder, self.say = recipe, folder, say
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        folder.mkdir(parents=True, exist_ok=True)
        self.sources: Sources = open_sources(recipe, cache or folder.parent / "cache", say=say)
        torch.manual_seed(recipe.run.seed)
        self.model = build_network(recipe.model, self.sources.labels).to(self.device)
        _plain_attention(self.model)
        self.teacher = self._load_teacher()
        if self.teacher is not None:
            _plain_attention(self.teacher)
        self.ema = Ema(self.model, recipe.optim.ema) if recipe.optim.ema else None
        groups = parameter_groups(
            self.model,
            lr=recipe.optim.lr,
            layer_decay=recipe.optim.layer_decay,
            weight_decay=recipe.optim.weight_decay,
        )
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.optim.lr, fused=True)
        counts = torch.stack([root.counts for root in self.sources.train]).sum(dim=0)
        weights = class_weights(counts, recipe.optim.class_weights)
        self.weights = None if weights is None else weights.to(self.device)
        self.sizes = batch_sizes([root.part.share for root in self.sources.train], recipe.optim.batch)
        self.autocast = _wants_bf16(recipe.optim.precision, self.device)
        self.mean = torch.tensor(recipe.model.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(recipe.model.std, device=self.device).view(1, 3, 1, 1)
        self.budget = parse_duration(recipe.optim.budget) if recipe.optim.budget else None
        self.step, self.elapsed = 0, 0.0
        self.best: float | None = None
        self.since_best = 0
        if recipe.teacher is not None and recipe.teacher.views == "plain":
            self._ask_once()

    def train(self, *, resume: bool = False, stop_after: int | None = None) -> Outcome:
        """Run to the end of the schedule, or until Ctrl-C; either way the weights so far are kept.

        Args:
            resume: go on from the folder's last checkpoint.
            stop_after: end at this step as an interruption would (for tests).
        """
        if resume:
            self._restore()
        elif (self.folder / LAST).exists():
            raise RecipeError(
                f"{self.folder} holds a run already; add --resume to go on with it, or name another folder."
            )
        (self.folder / "recipe.json").write_text(self.recipe.model_dump_json(indent=2))
        for note in self.sources.notes:
            self.say(f"note: {note}")
        if self.recipe.optim.compile:
            compile_layers(self.model)
            if self.teacher is not None:
                compile_layers(self.teacher)
        log = RunLog(
            self.folder, resume=resume, say=self.say, batch=self.recipe.optim.batch * self.recipe.optim.accumulate
        )
        metrics: dict[str, dict[str, float]] = {}
        finished, early = False, False
        with stop_on_signals() as stop:
            while not (finished := self._progress() >= 1.0 or early):
                if stop.asked or (stop_after is not None and self.step >= stop_after):
                    break
                started = time.monotonic()
                loss, lr = self._one_step()
                self.elapsed += time.monotonic() - started
                log.step(self.step, loss, lr, self.elapsed, self._progress())
                if self.step % self.recipe.run.validate_every == 0:
                    metrics = self.validate()
                    log.validation(self.step, metrics, self.elapsed)
                    early = self._judge(metrics)
                    checkpoint.save(self.folder / LAST, self._state())
            checkpoint.save(self.folder / LAST, self._state())
        if finished:
            return self._finish(log)
        self.say(f"stopped after step {self.step}; the state is saved, --resume goes on")
        return Outcome(self.step, self.elapsed, metrics, self.folder / LAST, finished=False)

    def validate(self) -> dict[str, dict[str, float]]:
        """Metrics of the averaged weights on every root's validation images."""
        judged = self.ema.shadow if self.ema else self.model
        result = {
            root.name: quick_metrics(*self.predict(judged, root)) for root in self.sources.valid if len(root.labels)
        }
        self.model.train()
        return result

    @torch.no_grad()
    def predict(self, model: nn.Module, root: ValidRoot, *, batch: int = 128) -> tuple[Tensor, Tensor]:
        """Logits [N, L] and labels [N] of a root's validation images."""
        model.eval()
        outputs = []
        for first in range(0, len(root.labels), batch):
            pixels = torch.from_numpy(root.canvases.pixels[first : first + batch].copy()).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                outputs.append(logits_of(model, self._normalised(pixels.float() / 255)).float().cpu())
        return torch.cat(outputs), root.labels

    def _one_step(self) -> tuple[float, float]:
        optim = self.recipe.optim
        factor = rate(self.step, self._progress(), warmup=optim.warmup, floor=optim.min_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.model.train()
        total = 0.0
        for part in range(optim.accumulate):
            number = self.step * optim.accumulate + part
            views, targets = self._batch(number)
            torch.manual_seed(generator_for(self.recipe.run.seed, number, 9).initial_seed() & 0x7FFFFFFF)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                logits = logits_of(self.model, views)
            focal = 2.0 if optim.loss == "focal" else 0.0
            loss = soft_cross_entropy(logits, targets, weights=self.weights, focal=focal) / optim.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if not math.isfinite(total):
            raise RecipeError(f"The loss is {total} at step {self.step}: lower optim.lr or optim.clip, then --resume.")
        nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)
        self.step += 1
        return total, optim.lr * factor

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Normalised views [B, 3, S, S] and targets [B, L] of a batch; a pure function of seed and number."""
        recipe = self.recipe
        generator = generator_for(recipe.run.seed, number)
        views, labels, shares = [], [], []
        for root, size in zip(self.sources.train, self.sizes, strict=True):
            view, target = self._draw(root, number, size, generator)
            views.append(view)
            labels.append(target)
            shares.append(torch.full((size, 1), root.part.label_share))
        images, targets = torch.cat(views).to(self.device), torch.cat(labels).to(self.device)
        share = torch.cat(shares).to(self.device)
        if self.teacher is not None:
            targets = share * targets + (1 - share) * self._teacher_answers(images)
        targets = smooth(targets, recipe.optim.label_smoothing)
        if recipe.augment.mixup and float(torch.rand(1, generator=generator)) < recipe.augment.mixup_share:
            images, targets = mixup(images, targets, recipe.augment.mixup, generator)
        return self._normalised(images), targets

    def _draw(self, root: TrainRoot, number: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = root.sampler.draw(number, size)
        pixels = torch.from_numpy(root.canvases.pixels[chosen.numpy()])
        view = augment(
            pixels,
            extent=root.extent(generator, size),
            size=self.recipe.model.image_size,
            part=self.recipe.augment,
            blur_share=torch.full((size,), root.part.blur),
            blur_to=root.part.blur_to,
            generator=generator,
        )
        return view, root.targets[chosen]

    @torch.no_grad()
    def _teacher_answers(self, images: Tensor) -> Tensor:
        part = self.recipe.teacher
        assert part is not None and self.teacher is not None  # noqa: S101 - for the type checker
        pixels = self._normalised(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            answers = (logits_of(self.teacher, pixels).float() / part.temperature).softmax(dim=-1)
            if part.mirror:
                mirrored = logits_of(self.teacher, pixels.flip(-1)).float() / part.temperature
                answers = (answers + mirrored.softmax(dim=-1)) / 2
        return answers

    def _ask_once(self) -> None:
        """Fold the teacher's answers for the unchanged images into the targets, and let the teacher go."""
        for root in self.sources.train:
            if root.part.label_share == 1:
                continue
            self.say(f"asking the teacher about {len(root.canvases.items)} images of {root.part.root.name}")
            cut = root.middle_extent
            answers = []
            for first in range(0, len(root.canvases.items), 256):
                pixels = (
                    torch.from_numpy(root.canvases.pixels[first : first + 256].copy()).to(self.device).float() / 255
                )
                views = centre_view(pixels, cut, self.recipe.model.image_size)
                answers.append(self._teacher_answers(views).cpu())
            share = root.part.label_share
            root.targets = share * root.targets + (1 - share) * torch.cat(answers)
        self.teacher = None

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std

    def _progress(self) -> float:
        optim = self.recipe.optim
        if self.budget is not None:
            return self.elapsed / self.budget
        return self.step / (optim.steps or 1)

    def _judge(self, metrics: dict[str, dict[str, float]]) -> bool:
        """Keep the weights if they are the best so far; whether patience has run out."""
        select = self.recipe.run.select
        if select == "last" or not metrics:
            return False
        sign = -1.0 if select == "log_loss" else 1.0
        score = sign * sum(values[select] for values in metrics.values()) / len(metrics)
        if self.best is None or score > self.best:
            self.best, self.since_best = score, 0
            checkpoint.save(self.folder / BEST, self._kept(metrics))
            return False
        self.since_best += 1
        return bool(self.recipe.run.patience) and self.since_best >= self.recipe.run.patience

    def _finish(self, log: RunLog) -> Outcome:
        best = self.folder / BEST
        if self.recipe.run.select != "last" and best.exists():
            kept = checkpoint.load(best)
            metrics: dict[str, dict[str, float]] = kept["metrics"]
        else:
            metrics = self.validate()
            kept = self._kept(metrics)
        checkpoint.save(self.folder / FINAL, kept)
        log.finish(self.step, metrics, self.elapsed)
        return Outcome(self.step, self.elapsed, metrics, self.folder / FINAL, finished=True)

    def _kept(self, metrics: dict[str, dict[str, float]]) -> dict[str, Any]:
        judged = self.ema.shadow if self.ema else self.model
        return {"weights": _cpu(judged), "labels": list(self.sources.labels), "metrics": metrics, "step": self.step,
                "seconds": self.elapsed, "recipe": self.recipe.model_dump_json()}  # fmt: skip

    def _state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump_json(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "since_best": self.since_best,
            "weights": _cpu(self.model),
            "ema": _cpu(self.ema.shadow) if self.ema else None,
            "ema_updates": self.ema.updates if self.ema else 0,
            "optimizer": self.optimizer.state_dict(),
            "labels": list(self.sources.labels),
        }

    def _restore(self) -> None:
        state = checkpoint.load(self.folder / LAST)
        changed = _changed(json.loads(state["recipe"]), json.loads(self.recipe.model_dump_json()))
        if changed:
            self.say(f"note: the recipe has changed since the checkpoint: {', '.join(changed)}")
        try:
            self.model.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError):
            raise RecipeError(f"The checkpoint in {self.folder} is of another model than the recipe's.") from None
        if self.ema and state["ema"] is not None:
            self.ema.shadow.load_state_dict(state["ema"])
            self.ema.updates = state["ema_updates"]
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.best, self.since_best = state["best"], state["since_best"]

    def _load_teacher(self) -> nn.Module | None:
        if self.recipe.teacher is None:
            return None
        model = load_classifier(
            self.recipe.teacher.source, labels=self.sources.labels, image_size=self.recipe.model.image_size
        )
        return model.to(self.device).eval().requires_grad_(False)


def _cpu(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [key for key in new if old.get(key) != new[key]]


def _plain_attention(model: nn.Module) -> None:
    """At a few dozen tokens plain matrix products are 1.3 times faster on the CPU than the fused attention kernel."""
    setter = getattr(model, "set_attn_implementation", None)
    if setter is not None and next(model.parameters()).device.type == "cpu":
        setter("eager")


def _wants_bf16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported())

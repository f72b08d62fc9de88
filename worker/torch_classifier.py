"""A model's safetensors in torch: uint8 crops in, logits out; CUDA, or the CPU in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import ModelError
from mien.model_folder import Model
from worker.probabilities import Floats, check_labels, not_available, one_line, softmax

if TYPE_CHECKING:
    import torch

    from mien.images import RGB  # not at run time: a device engine loads no decoder

MOST_PROGRAMS = 64
KINDS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class TorchNetwork:
    """The network on its device. Weights and activations have the precision asked for; attention is torch's SDPA.

    Crops are rescaled and normalised on the device in float32 and only then rounded to the precision.
    """

    def __init__(self, model: Model, device: str, precision: str) -> None:
        """Load the model.

        Raises:
            ModelError: torch is missing, the folder has no weights, or they do not fit.
        """
        if not model.has_weights or precision not in KINDS:
            raise not_available(model, device, precision)
        try:
            import torch  # noqa: PLC0415 - heavy, and absent from the light installation
            import transformers  # noqa: F401, PLC0415
        except ImportError as error:
            raise ModelError(
                f"Running {model.name!r} on {device} needs torch and transformers ({error.name} is missing): "
                "install mien[cuda]."
            ) from None
        self.model = model
        self.device = torch.device(device)
        self.precision = precision
        self.kind: torch.dtype = getattr(torch, KINDS[precision])
        torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32
        torch.backends.cudnn.allow_tf32 = False
        self._network = _load(model, self.kind).to(self.device).eval().requires_grad_(False)
        spec = model.input
        mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
        # (pixel * rescale - mean) / std as one multiplication and one addition per channel
        self._scale, self._shift = (
            torch.tensor(values, dtype=torch.float32, device=self.device).reshape(1, 3, 1, 1)
            for values in (spec.rescale / std, -mean / std)
        )
        self._compiled: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}

    @property
    def compiled_shapes(self) -> tuple[int, ...]:
        """Batch sizes that run as compiled programs."""
        return tuple(sorted(self._compiled))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (N x labels, float32) of crops (N x H x W x 3, uint8) that are on the device."""
        import torch  # noqa: PLC0415

        with torch.no_grad():
            return self._compiled.get(len(pixels), self._forward)(pixels)

    def classify(self, crops: Sequence[RGB]) -> Floats:
        """Logits (N x labels) of crops that are not on the device yet, in one batch."""
        import torch  # noqa: PLC0415

        return self.logits(torch.from_numpy(np.stack(crops)).to(self.device)).cpu().numpy()

    def compile(self, sizes: Sequence[int], sign: Callable[[], None] = lambda: None, backend: str = "inductor") -> None:
        """Compile the network for these batch sizes and run each once; ``sign`` is called before each; ``backend`` is
        torch.compile's.

        Raises:
            Exception: whatever torch's compiler raises; the network runs uncompiled as before.
        """
        import torch  # noqa: PLC0415
        import torch._dynamo  # noqa: PLC0415

        # one program per fixed shape: dynamic shapes cost speed, and padding makes a few shapes do
        torch._dynamo.config.recompile_limit = MOST_PROGRAMS  # all networks of this process count together
        program: Any = torch.compile(self._forward, dynamic=False, backend=backend)
        spec = self.model.input
        ready = {}
        for size in sizes:
            sign()
            pixels = torch.zeros((size, spec.height, spec.width, 3), dtype=torch.uint8, device=self.device)
            with torch.no_grad():
                program(pixels)
            ready[size] = program
        self._compiled = ready

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        normal = pixels.permute(0, 3, 1, 2).float() * self._scale + self._shift
        logits: torch.Tensor = self._network(pixel_values=normal.to(self.kind)).logits
        return logits.float()


class TorchClassifier:
    """A network as engines and training ask it: any number of crops, one call, probabilities."""

    def __init__(self, model: Model, device: str, precision: str = "fp32") -> None:
        self._network = TorchNetwork(model, device, precision)
        self.model = model
        self.precision = precision
        check_labels(model, self.classify)

    def classify(self, crops: Sequence[RGB]) -> Floats:
        """See :class:`worker.classifier.Classifier`."""
        if not crops:
            return np.zeros((0, len(self.model.labels)), np.float32)
        return softmax(self._network.classify(crops))


def _load(model: Model, kind: torch.dtype) -> Any:
    from transformers import AutoModelForImageClassification  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    attempts: tuple[dict[str, str], ...] = ({"attn_implementation": "sdpa"}, {})  # not every architecture has SDPA
    for attempt, options in enumerate(attempts, 1):
        try:
            return AutoModelForImageClassification.from_pretrained(
                model.folder, local_files_only=True, dtype=kind, **options
            )
        except Exception as error:  # readers of configurations and weights raise kinds of their own
            if attempt == len(attempts):
                raise ModelError(
                    f"The model {model.name!r} cannot be loaded by transformers: {one_line(error)}."
                ) from None
    raise AssertionError("unreachable")

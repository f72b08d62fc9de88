"""Networks in torch: normalised on the device, the same in every batch, in half precision within stated bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mien.model_folder import load_model
from tests.support.torch_model import SIZE, make_torch_model
from worker.crops import model_input
from worker.device_batches import Lane, is_out_of_memory, largest_batch
from worker.device_engine import DeviceConfig, load
from worker.messages import EngineSpec, unpack
from worker.probabilities import softmax
from worker.torch_classifier import TorchClassifier, TorchNetwork

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

BF16_BOUND = 0.02
FP16_BOUND = 0.003
"""Stated in docs/operator.md: how far a probability may be from fp32's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_torch_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def network(folder: Path) -> TorchNetwork:
    return TorchNetwork(load_model(folder), "cpu", "fp32")


def make_crops(count: int, side: int = SIZE) -> list[npt.NDArray[np.uint8]]:
    dice = np.random.default_rng(5)
    coarse = [Image.fromarray(dice.integers(0, 256, (5, 5, 3), dtype=np.uint8)) for _ in range(count)]
    return [np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in coarse]


def test_normalising_on_the_device_is_what_the_processor_does(network: TorchNetwork) -> None:
    crops = make_crops(6)
    with torch.no_grad():
        plain = network._network(pixel_values=torch.from_numpy(model_input(crops, network.model.input))).logits
    np.testing.assert_allclose(network.classify(crops), plain.numpy(), atol=1e-4)


def test_attention_is_sdpa(network: TorchNetwork) -> None:
    assert network._network.config._attn_implementation == "sdpa"


def test_lanes_give_the_same_answers_in_every_shape_and_place(network: TorchNetwork) -> None:
    crops = make_crops(11)
    alone = np.concatenate([network.classify([crop]) for crop in crops])
    lanes = [Lane(network, 16), Lane(network, 16)]
    for shape in (11, 12, 16):
        for lane, chosen in zip(lanes, (crops, crops[::-1]), strict=True):  # both on their way at once
            lane.launch(chosen, shape)
        for lane, wanted in zip(lanes, (alone, alone[::-1]), strict=True):
            logits, seconds = lane.collect()
            assert seconds > 0
            np.testing.assert_allclose(softmax(logits), softmax(wanted), atol=1e-4)
    lanes[0].launch(crops[:3], 8)  # what is left of a larger batch in the padding changes nothing
    np.testing.assert_allclose(softmax(lanes[0].collect()[0]), softmax(alone[:3]), atol=1e-4)


@pytest.mark.parametrize(("precision", "bound"), [("bf16", BF16_BOUND), ("fp16", FP16_BOUND)])
def test_half_precision_keeps_to_its_bound_with_the_shipped_model(precision: str, bound: float, shared: Path) -> None:
    model = load_model(Path(__file__).parents[3] / "models" / "default")
    crops = _faces(shared, model.input.height)
    exact = TorchClassifier(model, "cpu").classify(crops)
    half = TorchClassifier(model, "cpu", precision)
    answers = half.classify(crops)
    assert np.abs(answers - exact).max() <= bound
    one_by_one = np.concatenate([half.classify([crop]) for crop in crops[:4]])
    np.testing.assert_allclose(answers[:4], one_by_one, atol=bound)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def _faces(shared: Path, side: int) -> Sequence[npt.NDArray[np.uint8]]:
    """The middle of portraits, in grey."""
    crops = []
    for path in sorted((shared / "photos").glob("*.jpg"))[:6]:
        image = Image.open(path).convert("L")
        edge = min(image.size) // 2
        left, top = (image.width - edge) // 2, (image.height - edge) // 3
        grey = np.asarray(image.crop((left, top, left + edge, top + edge)).resize((side, side)))
        crops.append(np.repeat(grey[:, :, None], 3, axis=2))
    return crops


def test_the_largest_batch_is_found_and_a_full_device_ends_the_search(
    network: TorchNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs: list[int] = []
    assert largest_batch(network, lambda: signs.append(1)) in (8, 16)
    assert len(signs) == 2
    whole = TorchNetwork.logits

    def small_device(self: TorchNetwork, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(self, pixels)

    monkeypatch.setattr(TorchNetwork, "logits", small_device)
    assert largest_batch(network, lambda: None) == 8


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_compiled_shapes_answer_as_the_network_does(folder: Path) -> None:
    """With the compiler's front half; its back half takes minutes on a CPU and is for GPUs (benchmarks/gpu.py)."""
    network = TorchNetwork(load_model(folder), "cpu", "fp32")
    crops = make_crops(8)
    plain = network.classify(crops)
    signs: list[int] = []
    network.compile([4, 8], lambda: signs.append(1), backend="aot_eager")
    assert network.compiled_shapes == (4, 8)
    assert len(signs) == 2
    np.testing.assert_allclose(softmax(network.classify(crops)), softmax(plain), atol=1e-4)
    np.testing.assert_allclose(softmax(network.classify(crops[:3])), softmax(plain[:3]), atol=1e-4)  # not compiled


def test_a_network_that_cannot_be_compiled_runs_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    model = load_model(folder)
    spec = EngineSpec(str(folder), model.revision, "cuda", "fp32", "whole", 640, 0.7, 0, 10_000, 10_000)
    said: list[dict[str, object]] = []
    loaded = load(
        spec,
        DeviceConfig(parent=0, device="cpu", listener=0, batch=4, compiled=True),
        lambda message: said.append(unpack(message)),
    )
    assert loaded.network.compiled_shapes == ()
    assert any("Failed to find C compiler" in str(message.get("text")) for message in said)
    assert loaded.network.classify(make_crops(2)).shape == (2, 3)

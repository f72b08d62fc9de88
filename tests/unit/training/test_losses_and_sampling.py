import numpy as np
import pytest
import torch

from training.ema import Ema
from training.losses import class_weights, mixup, smooth, soft_cross_entropy
from training.sampler import RootSampler, balance_weights, batch_sizes, generator_for
from training.schedule import parameter_groups, rate


def test_soft_cross_entropy_is_torchs() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 4), torch.rand(6, 4).softmax(dim=-1)
    expected = torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)


def test_focal_form_weighs_easy_images_less() -> None:
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.2, 0.0]])
    target = torch.tensor([[1.0, 0.0]])
    plain = soft_cross_entropy(sure, target) / soft_cross_entropy(unsure, target)
    focal = soft_cross_entropy(sure, target, focal=2.0) / soft_cross_entropy(unsure, target, focal=2.0)
    assert focal < plain


def test_smoothing_and_mixing_keep_targets_probabilities() -> None:
    generator = torch.Generator().manual_seed(1)
    targets = torch.eye(4)
    assert smooth(targets, 0.1)[0].tolist() == pytest.approx([0.925, 0.025, 0.025, 0.025])
    images, mixed = mixup(torch.rand(4, 1, 2, 2), targets, 0.4, generator)
    assert mixed.sum(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert images.shape == (4, 1, 2, 2)
    assert (mixed.max(dim=1).values >= 0.5).all()  # the larger share stays with the image's own label


def test_class_weights_average_to_one_over_the_images() -> None:
    counts = torch.tensor([90.0, 10.0, 0.0])
    weights = class_weights(counts, "full")
    assert weights is not None
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1.0)
    assert float(weights[1] / weights[0]) == pytest.approx(9.0)
    assert class_weights(counts, "none") is None


def test_batch_sizes_follow_the_shares() -> None:
    assert batch_sizes([0.8, 0.2], 64) == [51, 13]
    assert batch_sizes([100, 1], 10) == [9, 1]
    assert sum(batch_sizes([1, 1, 1], 32)) == 32


def test_an_epoch_shows_every_image_once() -> None:
    sampler = RootSampler(10, seed=3, root=0)
    drawn = [int(i) for step in range(5) for i in sampler.draw(step, 4)]
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_draws_are_a_function_of_the_step() -> None:
    one, other = RootSampler(50, seed=3, root=0), RootSampler(50, seed=3, root=0)
    for step in range(20):
        one.draw(step, 8)
    assert torch.equal(one.draw(20, 8), other.draw(20, 8))
    assert generator_for(1, 2).initial_seed() != generator_for(2, 1).initial_seed()


def test_balanced_draws_show_rare_labels_as_often() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    sampler = RootSampler(100, seed=0, root=0, weights=balance_weights(labels, "full"))
    drawn = torch.cat([sampler.draw(step, 50) for step in range(40)])
    assert 0.45 < float((drawn >= 90).float().mean()) < 0.55


def test_rate_warms_up_and_anneals() -> None:
    assert rate(0, 0.0, warmup=10, floor=0.01) == pytest.approx(0.1)
    assert rate(50, 0.5, warmup=10, floor=0.0) == pytest.approx(0.5)
    assert rate(100, 1.0, warmup=10, floor=0.01) == pytest.approx(0.01)


def test_lower_layers_learn_more_slowly() -> None:
    model = torch.nn.ModuleDict(
        {
            "embeddings": torch.nn.Linear(2, 2),
            "layers": torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]),
            "classifier": torch.nn.Linear(2, 2),
        }
    )
    groups = parameter_groups(model, lr=1.0, layer_decay=0.5, weight_decay=0.1)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    weights = dict(model.named_parameters())
    assert [rates[id(weights[f"{n}.weight"])] for n in ("embeddings", "layers.0", "layers.1", "classifier")] == [
        0.125, 0.25, 0.5, 1.0,
    ]  # fmt: skip
    assert decays[id(weights["classifier.weight"])] == 0.1
    assert decays[id(weights["classifier.bias"])] == decays[id(weights["embeddings.weight"])] == 0.0


def test_average_follows_the_model() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    ema = Ema(model, 0.9)
    torch.nn.init.ones_(model.weight)
    for _ in range(200):
        ema.update(model)
    assert float(ema.shadow.weight) == pytest.approx(1.0, abs=1e-3)  # type: ignore[arg-type]

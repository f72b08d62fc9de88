import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.calibrate import against_votes, fit_temperature, fold_temperature
from training.data import Item
from training.metrics import mcnemar, quick_metrics, score

LABELS = ("a", "b", "c")


def draw(n: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities from logits at ``sharpness`` times those that truly made the labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(3, p=row) for row in p])
    q = np.exp(sharpness * logits)
    return q / q.sum(axis=1, keepdims=True), truth


def test_scores_of_a_case_worked_out_by_hand() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    truth = np.array([0, 1, 1, 1, -1])
    found = score(p, truth, LABELS)
    assert found.accuracy == pytest.approx(3 / 5)  # an image of an unknown label is an error
    assert found.unknown == 1
    assert found.majority_accuracy == pytest.approx(3 / 5)
    assert found.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert found.per_label[1].precision == 1.0
    assert found.per_label[1].recall == pytest.approx(2 / 3)
    assert found.per_label[2].auc is None
    assert found.confusion == ((1, 0, 0), (1, 2, 0), (0, 0, 0), (0, 0, 1))
    assert found.log_loss == pytest.approx(-np.mean(np.log([0.8, 0.3, 0.8, 0.8])))
    json.dumps(found.as_dict())


def test_intervals_hold_the_figure_and_shrink_with_more_images() -> None:
    wide, narrow = (score(*draw(n, 1.0), LABELS) for n in (60, 3000))
    for found in (wide, narrow):
        assert found.accuracy_interval[0] <= found.accuracy <= found.accuracy_interval[1]
    assert np.ptp(narrow.accuracy_interval) < np.ptp(wide.accuracy_interval) / 3


def test_calibration_error_sees_overconfidence() -> None:
    honest, boastful = (score(*draw(4000, sharpness), LABELS).ece for sharpness in (1.0, 3.0))
    assert honest < 0.03 < boastful


def test_temperature_undoes_overconfidence() -> None:
    p, truth = draw(4000, 3.0)
    temperature = fit_temperature(p, np.eye(3)[truth])
    assert temperature == pytest.approx(3.0, abs=0.25)
    cooled = p ** (1 / temperature)  # the model's own softmax once its logits are divided
    assert score(cooled / cooled.sum(axis=1, keepdims=True), truth, LABELS).ece < 0.03


def test_a_folded_temperature_divides_the_logits() -> None:
    model = torch.nn.Module()
    model.classifier = torch.nn.Linear(4, 3)
    x = torch.randn(2, 4)
    before = model.classifier(x).detach()
    fold_temperature(model, 2.0)
    torch.testing.assert_close(model.classifier(x), before / 2)


def test_votes_judge_probabilities_as_shares_of_raters() -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet([1, 1, 1], 3000)
    votes = np.stack([random.multinomial(10, row) for row in p]) / 10
    items = [Item(Path("x"), "x", "a", tuple(zip(LABELS, row, strict=True))) for row in votes.tolist()]
    true = against_votes(p, items, LABELS)
    wrong = against_votes(np.roll(p, 1, axis=1), items, LABELS)
    assert true is not None
    assert wrong is not None
    assert true.vote_gap < 0.03 < wrong.vote_gap
    assert true.divergence < true.divergence_raters < wrong.divergence
    assert against_votes(p[:1], [Item(Path("x"), "x", "a")], LABELS) is None


def test_mcnemar_counts_where_two_models_differ() -> None:
    truth = np.zeros(30, int)
    better, worse = truth.copy(), truth.copy()
    worse[:12] = 1
    found = mcnemar(truth, better, worse)
    assert (found["only_first_right"], found["only_second_right"]) == (12, 0)
    assert found["p_value"] == pytest.approx(2 / 2**12)
    assert mcnemar(truth, better, better)["p_value"] == 1.0


def test_balanced_accuracy_counts_only_labels_that_occur() -> None:
    logits = torch.eye(3)[[0, 2, 1]] * 5
    found = quick_metrics(logits, torch.tensor([0, 0, 1]))
    assert found["balanced_accuracy"] == pytest.approx(0.75)

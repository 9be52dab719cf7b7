import numpy as np
import pytest

from headstart.evaluation.calibration import (
    calibrated_loss_and_accuracy,
    calibrated_losses,
    calibration_error,
    fit_temperature,
)
from headstart.evaluation.metrics import softmax


def drawn(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that follow their softmax: the best temperature is 1."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (count, 4)).astype(np.float32)
    gumbels = draw.gumbel(size=logits.shape)
    return logits, (logits + gumbels).argmax(axis=1)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale):
    logits, labels = drawn()
    assert fit_temperature(scale * logits, labels) == pytest.approx(scale, rel=0.1)


def test_a_scale_changes_neither_loss_nor_accuracy():
    logits, labels = drawn()
    plain, scaled = (calibrated_loss_and_accuracy(scale * logits, labels) for scale in (1.0, 5.0))
    assert scaled[0] == pytest.approx(plain[0], abs=1e-4)
    assert scaled[1] == plain[1] == (logits.argmax(axis=1) == labels).mean()


def test_a_few_photos_that_are_all_right_make_nothing_certain():
    assert 0.3 < fit_temperature(np.eye(3, dtype=np.float32), np.array([0, 1, 2])) < 0.9


def test_of_two_that_are_all_right_the_one_with_the_wider_margins_is_better():
    labels = np.arange(40) % 4
    narrow, wide = (np.eye(4, dtype=np.float32)[labels] * margin for margin in (3, 6))
    assert calibrated_loss_and_accuracy(wide, labels)[0] < calibrated_loss_and_accuracy(narrow, labels)[0] - 0.001


def test_the_calibration_error_is_small_for_true_probabilities_and_large_for_sure_ones():
    logits, labels = drawn()
    true, sure = (calibration_error(softmax(scale * logits), labels) for scale in (1.0, 5.0))
    assert true["ece"] < 0.03 < 0.1 < sure["ece"]
    assert len(true["bins"]) == 15 and sum(row["photos"] for row in true["bins"]) == 4000


def test_few_photos_have_few_bins():
    measured = calibration_error(np.array([[0.8, 0.2]] * 10, np.float32), np.array([0] * 6 + [1] * 4))
    assert measured["bins"] == [{"confidence": pytest.approx(0.8), "accuracy": 0.6, "photos": 10}]
    assert measured["ece"] == pytest.approx(0.2)


def test_losses_of_photos_have_the_calibrated_loss_for_their_mean():
    logits = np.random.default_rng(3).normal(size=(30, 4)).astype(np.float32) * 3
    labels = np.arange(30) % 4
    losses = calibrated_losses(logits, labels)
    assert losses.shape == (30,) and (losses > 0).all()
    assert losses.mean() == pytest.approx(calibrated_loss_and_accuracy(logits, labels)[0], rel=1e-5)

import numpy as np
import pytest

from headstart.evaluation.calibration import calibrated_loss_and_accuracy, calibration_error, fit_temperature
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


def test_photos_that_are_all_right_give_no_endless_search():
    labels = np.array([0, 1, 2])
    temperature = fit_temperature(np.eye(3, dtype=np.float32), labels)
    assert temperature == pytest.approx(0.05, rel=0.01)


def test_a_few_photos_that_are_all_right_make_nothing_certain():
    temperature = fit_temperature(np.eye(3, dtype=np.float32), np.array([0, 1, 2]), spread=0.5)
    assert 0.3 < temperature < 0.9
    logits, labels = drawn()
    assert fit_temperature(3 * logits, labels, spread=0.5) == pytest.approx(3, rel=0.1)


def test_the_calibration_error_is_small_for_true_probabilities_and_large_for_sure_ones():
    logits, labels = drawn()
    true, sure = (calibration_error(softmax(scale * logits), labels) for scale in (1.0, 5.0))
    assert true["ece"] < 0.03 < 0.1 < sure["ece"]
    assert len(true["bins"]) == 15 and sum(row["photos"] for row in true["bins"]) == 4000


def test_few_photos_have_few_bins():
    measured = calibration_error(np.array([[0.8, 0.2]] * 10, np.float32), np.array([0] * 6 + [1] * 4))
    assert measured["bins"] == [{"confidence": pytest.approx(0.8), "accuracy": 0.6, "photos": 10}]
    assert measured["ece"] == pytest.approx(0.2)

import numpy as np
import pytest

from headstart.evaluation.calibration import calibrated_loss_and_accuracy, fit_temperature


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

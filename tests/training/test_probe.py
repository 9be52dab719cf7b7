import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headstart.training import probe as module
from headstart.training.probe import LinearHead, class_weights, fit_probe, loss_and_accuracy
from headstart.training.store import Shelf, row_key


@pytest.fixture
def data(tmp_path):
    """Three overlapping clouds in 20 dimensions of very different scales, as stored rows."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 400)
    scales = np.logspace(-1, 1, 20)
    features = (draw.normal(size=(3, 20))[labels] + draw.normal(scale=1.5, size=(400, 20))) * scales + 3
    shelf = Shelf(tmp_path, {}, (20,))
    keys = [row_key(str(number), "0") for number in range(400)]
    with shelf.writer() as writer:
        writer.append(keys, features)
    return shelf.rows(keys[:300]), labels[:300], shelf.rows(keys[300:]), labels[300:]


def scaled(features):
    """The probe's scaling: by the square root of the standard deviation, to a mean variance of 1."""
    values = features.take(slice(None)).astype(np.float64)
    variance = values.var(axis=0)
    scale = variance**0.25
    return (values - values.mean(axis=0)) / (scale * np.sqrt((variance / scale**2).mean()))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_it_finds_the_minimum_that_scikit_learn_finds(data, monkeypatch, weighted, streamed):
    if streamed:
        monkeypatch.setattr(module, "_KEPT_BYTES", 0)
        monkeypatch.setattr(module, "_CHUNK_ROWS", 64)
    train, labels, validation, validation_labels = data
    weights = np.array([1.0, 3.0, 0.5] if weighted else [1.0] * 3, np.float32)
    head, path = fit_probe(train, labels, validation, validation_labels, weights, (0.01,), 1000)
    sample = weights[labels] / weights[labels].sum()
    reference = LogisticRegression(C=1 / 0.01, tol=1e-8, max_iter=5000)
    reference.fit(scaled(train), labels, sample_weight=sample)
    ours = head.logits(train)
    expected = reference.decision_function(scaled(train))
    ours, expected = ours - ours.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True)
    assert np.abs(ours - expected).max() < 0.02 * np.abs(expected).max()
    assert len(path) == 1 and path[0].regularisation == 0.01


def test_the_strength_is_chosen_by_validation_loss(data):
    train, labels, validation, validation_labels = data
    head, path = fit_probe(train, labels, validation, validation_labels, np.ones(3, np.float32))
    loss, accuracy = loss_and_accuracy(head.logits(validation), validation_labels)
    assert loss == min(step.validation_loss for step in path)
    assert accuracy > 0.8
    assert [step.regularisation for step in path] == sorted((s.regularisation for s in path), reverse=True)
    # The path ended because validation loss had risen three times, not because strengths ran out.
    assert all(step.validation_loss > loss for step in path[-3:]) and len(path) < len(module.STRENGTHS)


def test_the_same_data_give_the_same_head(data):
    first, _ = fit_probe(*data, np.ones(3, np.float32))
    second, _ = fit_probe(*data, np.ones(3, np.float32))
    assert np.array_equal(first.weight, second.weight) and np.array_equal(first.bias, second.bias)


def test_class_weights_are_inverse_to_counts_with_mean_one():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weights[labels].mean() == pytest.approx(1)


def test_no_photo_weighs_more_than_ten_times_one_of_the_largest_class():
    labels = np.array([0] * 500 + [1] * 50 + [2] * 5 + [3])
    weights = class_weights(labels, 5)
    assert weights / weights[0] == pytest.approx([1, 10, 10, 10, 10])
    assert weights[labels].mean() == pytest.approx(1)


def test_loss_and_accuracy_of_known_logits():
    logits = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], np.float32))
    loss, accuracy = loss_and_accuracy(logits, np.array([0, 1, 1]))
    assert loss == pytest.approx(-(np.log(0.5) + np.log(0.1) + np.log(0.8)) / 3, rel=1e-5)
    assert accuracy == pytest.approx(2 / 3)


def test_constant_features_and_few_photos_do_no_harm(tmp_path):
    shelf = Shelf(tmp_path, {}, (8,))
    keys = [row_key(str(number), "0") for number in range(6)]
    features = np.zeros((6, 8))
    features[:, 0] = [0, 0, 0, 1, 1, 1]
    with shelf.writer() as writer:
        writer.append(keys, features)
    rows, labels = shelf.rows(keys), np.array([0, 0, 0, 1, 1, 1])
    head, _ = fit_probe(rows, labels, rows, labels, np.ones(2, np.float32))
    assert np.isfinite(head.weight).all()
    assert head.logits(rows).argmax(axis=1).tolist() == labels.tolist()


def test_a_head_is_a_linear_map(tmp_path):
    shelf = Shelf(tmp_path, {}, (2,))
    keys = [row_key("a", "0")]
    with shelf.writer() as writer:
        writer.append(keys, np.array([[2.0, 3.0]]))
    head = LinearHead(np.array([[1, 0], [0, 1], [1, 1]], np.float32), np.array([0, 0, 1], np.float32))
    assert head.logits(shelf.rows(keys)).tolist() == [[2, 3, 6]]


@pytest.mark.parametrize("streamed", [False, True])
def test_operations_are_those_of_every_evaluation(data, monkeypatch, streamed):
    if streamed:
        monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    evaluate, evaluations = module._Problem._loss_and_gradient, []
    monkeypatch.setattr(module._Problem, "_loss_and_gradient", lambda *given: evaluations.append(1) or evaluate(*given))
    _, path = fit_probe(*data, np.ones(3, np.float32), (1.0, 0.1))
    # 300 rows of 20 features, 3 classes; a multiplication and an addition, for the logits and for the gradient.
    assert sum(step.operations for step in path) == len(evaluations) * 4 * 300 * 20 * 3
    assert len(evaluations) > 4

import numpy as np
import pytest

from headstart.evaluation.metrics import (
    accuracy_text,
    compared,
    macro_f1_interval,
    mcnemar_p_value,
    measure,
    prediction_table,
    softmax,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)],
)
def test_wilson_intervals_of_the_literature(correct, total, low, high):
    """The last two are Newcombe's examples (1998)."""
    found = wilson_interval(correct, total)
    assert found == pytest.approx((low, high), abs=1e-4)


def test_no_photos_say_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3]], np.float32)
LABELS = np.array([0, 1, 1, 1])


def test_measures_by_hand():
    metrics = measure(LABELS, PROBABILITIES, ["a", "b", "c"])
    assert metrics["accuracy"] == 0.75 and metrics["photos"] == 4
    assert metrics["confusion_matrix"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert metrics["per_class"][0] == {
        "class": "a",
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "photos": 1,
    }
    assert metrics["per_class"][1]["recall"] == pytest.approx(2 / 3)
    assert metrics["per_class"][2] == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "photos": 0}
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)  # over the classes that have photos
    expected = -(np.log(0.7) + np.log(0.3) + np.log(0.8) + np.log(0.5)) / 4
    assert metrics["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["top_5_accuracy"] is None


def test_top_5_counts_the_five_best():
    probabilities = np.full((2, 7), 0.1, np.float32)
    probabilities[:, 0] = 0.4
    probabilities[0, 6], probabilities[0, 5], probabilities[1, 3] = 0.05, 0.05, 0.02
    assert measure(np.array([4, 3]), probabilities, list("abcdefg"))["top_5_accuracy"] == 0.5


def test_softmax_sums_to_one_and_bears_large_logits():
    found = softmax(np.array([[1000.0, 0.0], [0.0, 0.0]], np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]] and found.dtype == np.float32


def test_the_prediction_table():
    table = prediction_table(["w", "x", "y", "z"], LABELS, PROBABILITIES, ["a", "b", "c"])
    assert table["prediction"].tolist() == ["a", "a", "b", "b"]
    assert table["correct"].tolist() == [True, False, True, True]
    assert table.columns.tolist() == ["path", "label", "prediction", "correct", "probability", "p(a)", "p(b)", "p(c)"]
    assert table["p(b)"].tolist() == pytest.approx([0.2, 0.3, 0.8, 0.5])


def test_accuracy_in_words():
    metrics = {"accuracy": 0.912, "accuracy_interval": [0.87, 0.942], "photos": 1270}
    assert accuracy_text(metrics) == "91.2% (95% interval 87.0 to 94.2, 1,270 photos)"


def test_the_interval_of_macro_f1_holds_it_and_narrows_with_photos():
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 3, 7]])
    low, high = macro_f1_interval(confusion)
    f1 = 2 * np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1))
    assert low < f1.mean() < high and high - low > 0.1
    narrow_low, narrow_high = macro_f1_interval(100 * confusion)
    assert narrow_low < f1.mean() < narrow_high and narrow_high - narrow_low < (high - low) / 8


def test_a_class_without_photos_does_not_count():
    assert macro_f1_interval(np.array([[5, 0], [0, 0]])) == (1.0, 1.0)


def test_mcnemar_against_the_exact_binomial():
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_p_value(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar_p_value(5, 5) == 1.0


def test_a_comparison_says_whether_the_photos_suffice():
    first, second = np.zeros(40, bool), np.zeros(40, bool)
    second[:12] = True
    found = compared("the head alone", first, "fine-tuning all", second)
    assert (found["only_first"], found["only_second"]) == (0, 12) and found["p_value"] < 0.001
    assert found["told"] == (
        "Of 40 test photos, fine-tuning all is right on 12 that the head alone gets wrong, and wrong on 0 that the "
        "head alone gets right. That is more than chance: classifiers that are equally good differ at least so much in "
        "less than 0.1% of such tests."
    )
    first[:10] = True
    told = compared("a", first, "b", second)["told"]
    assert "b is right on 2 that a gets wrong, and wrong on 0 that a gets right. That may be chance" in told
    assert told.endswith("differ at least so much in 50% of such tests.")
    assert compared("a", first, "b", first)["told"] == "Of 40 test photos, b and a are right on the same ones."

"""Metrics of predictions against the truth, each with what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# A difference that equally good classifiers show less often than this is more than chance.
CHANCE = 0.05


def wilson_interval(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95% confidence interval of a proportion (Wilson, 1927), within 0 to 1."""
    if total == 0:
        return 0.0, 1.0
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def measure(labels: Labels, probabilities: Probabilities, class_names: list[str]) -> dict[str, Any]:
    """Measure predictions.

    Args:
        labels: (n,) true class indices.
        probabilities: (n, num_classes), rows summing to 1.
        class_names: in the order of the columns.

    Returns:
        JSON values: photos, accuracy (0 to 1) with its 95% Wilson interval, top_5_accuracy (None with five
        classes or fewer), macro_f1 over the classes that have photos with its 95% bootstrap interval, log_loss
        (natural logarithm), per_class (a list of class, precision, recall, f1, photos) and confusion_matrix (rows:
        truth).
    """
    # Imported here: it takes most of a second, which who only predicts need not wait for.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == labels).sum())
    indices = np.arange(len(class_names))
    confusion = confusion_matrix(labels, predicted, labels=indices)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0.0
    )
    present = support > 0
    top_5 = None
    if len(class_names) > 5:
        five = np.argpartition(probabilities, -5, axis=1)[:, -5:]
        top_5 = float((five == labels[:, None]).any(axis=1).mean())
    return {
        "photos": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson_interval(correct, len(labels))),
        "top_5_accuracy": top_5,
        "macro_f1": float(f1[present].mean()),
        "macro_f1_interval": list(macro_f1_interval(confusion)),
        "log_loss": _log_loss(labels, probabilities, indices),
        "per_class": [
            {
                "class": name,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "photos": int(support[i]),
            }
            for i, name in enumerate(class_names)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def macro_f1_interval(confusion: npt.NDArray[np.int64], draws: int = 1000) -> tuple[float, float]:
    """Return the 95% interval of macro F1 by a bootstrap of the photos within each class (Efron, 1979).

    Args:
        confusion: (num_classes, num_classes) counts, rows the truth.
        draws: of the bootstrap.
    """
    generator = np.random.default_rng(0)
    counts = confusion.sum(axis=1)
    present = np.flatnonzero(counts)
    right, predicted = np.zeros((draws, len(counts))), np.zeros((draws, len(counts)))
    for number in present:
        drawn = generator.multinomial(counts[number], confusion[number] / counts[number], size=draws)
        right[:, number] = drawn[:, number]
        predicted += drawn
    f1 = 2 * right / np.maximum(predicted + counts, 1)
    low, high = np.quantile(f1[:, present].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return how likely two classifiers that are equally good differ so much (the exact test; McNemar, 1947).

    Args:
        only_first: photos that the first alone gets right.
        only_second: photos that the second alone gets right.
    """
    from scipy.stats import binomtest

    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0


def compared(first: str, first_right: Bools, second: str, second_right: Bools) -> dict[str, Any]:
    """Compare two classifiers on the same test photos: JSON values, with a sentence that says how it came out.

    Args:
        first: what the first is called.
        first_right: (n,) whether it is right on each photo.
        second: what the second is called.
        second_right: the same of the second.
    """
    only_first, only_second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    p_value = mcnemar_p_value(only_first, only_second)
    return {
        "first": first,
        "second": second,
        "first_accuracy": float(first_right.mean()),
        "second_accuracy": float(second_right.mean()),
        "only_first": only_first,
        "only_second": only_second,
        "p_value": p_value,
        "told": _comparison_text(first, only_first, second, only_second, len(first_right)),
    }


def _comparison_text(first: str, only_first: int, second: str, only_second: int, photos: int) -> str:
    """Say in plain words on how many photos two classifiers differ, and whether that is more than chance."""
    if not only_first + only_second:
        return f"Of {photos:,} test photos, {second} and {first} are right on the same ones."
    p_value = mcnemar_p_value(only_first, only_second)
    often = "less than 0.1%" if p_value < 0.001 else f"{p_value:.1%}" if p_value < 0.01 else f"{p_value:.0%}"
    verdict = "is more than chance" if p_value < CHANCE else "may be chance"
    return (
        f"Of {photos:,} test photos, {second} is right on {only_second:,} that {first} gets wrong, and wrong on "
        f"{only_first:,} that {first} gets right. That {verdict}: classifiers that are equally good differ at least so "
        f"much in {often} of such tests."
    )


def _log_loss(labels: Labels, probabilities: Probabilities, indices: npt.NDArray[np.int64]) -> float:
    from sklearn.metrics import log_loss

    exact = probabilities.astype(np.float64)
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=indices))


def softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    """Turn (n, num_classes) logits into probabilities, float32."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def prediction_table(
    paths: list[str],
    labels: Labels,
    probabilities: Probabilities,
    class_names: list[str],
    further: Mapping[str, npt.NDArray[Any]] | None = None,
) -> pd.DataFrame:
    """Make the table of every photo's truth (`label`), prediction and probabilities, a column per class.

    Further columns (name, values) come before those of the classes.
    """
    predicted = probabilities.argmax(axis=1)
    names = np.array(class_names, dtype=object)
    table = pd.DataFrame({"path": paths, "label": names[labels], "prediction": names[predicted]})
    table["correct"] = predicted == labels
    table["probability"] = probabilities.max(axis=1)
    columns = pd.DataFrame(probabilities, columns=[f"p({name})" for name in class_names])
    return pd.concat([table, pd.DataFrame(dict(further or {})), columns], axis=1)


def accuracy_text(metrics: dict[str, Any]) -> str:
    """Write an accuracy with its interval and count: `91.2% (95% interval 87.0 to 94.2, 270 photos)`."""
    low, high = (100 * value for value in metrics["accuracy_interval"])
    accuracy = 100 * metrics["accuracy"]
    return f"{accuracy:.1f}% (95% interval {low:.1f} to {high:.1f}, {metrics['photos']:,} photos)"

"""Metrics of predictions against the truth, each with what it was measured on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix as confusion_counts
from sklearn.metrics import log_loss, precision_recall_fscore_support

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


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
        classes or fewer), macro_f1 over the classes that have photos, log_loss (natural logarithm),
        per_class (a list of class, precision, recall, f1, photos) and confusion_matrix (rows: truth).
    """
    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == labels).sum())
    indices = np.arange(len(class_names))
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
        "confusion_matrix": confusion_counts(labels, predicted, labels=indices).tolist(),
    }


def _log_loss(labels: Labels, probabilities: Probabilities, indices: npt.NDArray[np.int64]) -> float:
    exact = probabilities.astype(np.float64)
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=indices))


def softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    """Turn (n, num_classes) logits into probabilities, float32."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def prediction_table(
    paths: list[str], labels: Labels, probabilities: Probabilities, class_names: list[str]
) -> pd.DataFrame:
    """Make the table of every photo's truth (`label`), prediction and probabilities, a column per class."""
    predicted = probabilities.argmax(axis=1)
    names = np.array(class_names, dtype=object)
    table = pd.DataFrame({"path": paths, "label": names[labels], "prediction": names[predicted]})
    table["correct"] = predicted == labels
    table["probability"] = probabilities.max(axis=1)
    columns = pd.DataFrame(probabilities, columns=[f"p({name})" for name in class_names])
    return pd.concat([table, columns], axis=1)


def accuracy_text(metrics: dict[str, Any]) -> str:
    """Write an accuracy with its interval and count: `91.2% (95% interval 87.0 to 94.2, 270 photos)`."""
    low, high = (100 * value for value in metrics["accuracy_interval"])
    accuracy = 100 * metrics["accuracy"]
    return f"{accuracy:.1f}% (95% interval {low:.1f} to {high:.1f}, {metrics['photos']:,} photos)"

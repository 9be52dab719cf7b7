"""The probe: multinomial logistic regression on pooled features.

Minimises the weighted mean cross-entropy plus `regularisation / 2 * ||W||^2` over scaled features by
L-BFGS (Liu and Nocedal, 1989), from the strongest regularisation to the weakest, each fit starting from the
one before; the strength is chosen on validation data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from headstart.training.store import StoredRows

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# How much more a photo of a rare class may weigh in the loss than one of the largest (docs/experiments.md).
MOST_WEIGHT = 10.0
# Half-decades: finer steps changed validation accuracy by less than its noise.
STRENGTHS = tuple(float(10 ** (exponent / 2)) for exponent in range(1, -13, -1))

# Features up to this size are converted to float32 once and kept; beyond it they are streamed from disk.
_KEPT_BYTES = 64 << 20
_CHUNK_ROWS = 512


class HeldRows:
    """Rows of features in memory, (n, num_features) float32, read as `StoredRows` are."""

    def __init__(self, parts: Iterable[Floats]) -> None:
        self._rows = np.concatenate(list(parts))
        self.shape = self._rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: slice) -> Floats:
        """Return some of the rows."""
        return self._rows[indices]


Features = StoredRows | HeldRows


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on pooled features: logits = features @ weight.T + bias.

    `weight` is (num_classes, num_features) and `bias` (num_classes,), both float32.
    """

    weight: Floats
    bias: Floats

    def logits(self, features: Features) -> Floats:
        """Return the (n, num_classes) float32 logits of features."""
        parts = [chunk @ self.weight.T + self.bias for _, chunk in _chunks(features)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.bias)), np.float32)


@dataclass(frozen=True)
class ProbeStep:
    """One fit along the path of strengths, with its losses (mean cross-entropy) and accuracies (0 to 1).

    `operations` are the floating-point operations of the matrix products in L-BFGS's evaluations.
    """

    regularisation: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    operations: int


def class_weights(labels: Labels, num_classes: int) -> Floats:
    """Return a weight per class, inversely proportional to its count, with mean 1 over the photos.

    None is more than ten times that of the largest class: a batch with one photo of a very rare class would else be a
    step for that photo alone, which undoes what was learnt of the others (docs/experiments.md).
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = 1 / np.maximum(counts, counts.max() / MOST_WEIGHT)
    return (weights / weights[labels].mean()).astype(np.float32)


def fit_probe(
    train: Features,
    train_labels: Labels,
    validation: Features,
    validation_labels: Labels,
    weights: Floats,
    strengths: tuple[float, ...] = STRENGTHS,
    max_iterations: int = 100,
    on_step: Callable[[ProbeStep], None] = lambda step: None,
) -> tuple[LinearHead, list[ProbeStep]]:
    """Fit the probe for each strength and return the one with the least validation loss.

    Args:
        train: (n, num_features) features.
        train_labels: (n,) class indices.
        validation: (m, num_features) features.
        validation_labels: (m,) class indices.
        weights: (num_classes,) a weight per class.
        strengths: from strong to weak; the path ends early once validation loss has risen three times.
        max_iterations: of L-BFGS, for each strength.
        on_step: called with each finished step.

    Returns:
        The best head, and the whole path.
    """
    # BLAS's own threads get in each other's way on products this small; chunks in threads do not.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count(), "probe") as pool:
        problem = _Problem(train, train_labels, weights, pool)
        matrix = np.zeros(problem.shape)
        path: list[ProbeStep] = []
        heads: list[LinearHead] = []
        for strength in strengths:
            started = time.perf_counter()
            matrix, evaluations = problem.minimise(matrix, strength, max_iterations)
            head = problem.head(matrix)
            train_loss, train_accuracy = loss_and_accuracy(head.logits(train), train_labels)
            loss, accuracy = loss_and_accuracy(head.logits(validation), validation_labels)
            seconds = time.perf_counter() - started
            operations = evaluations * problem.operations
            path.append(ProbeStep(strength, train_loss, train_accuracy, loss, accuracy, seconds, operations))
            heads.append(head)
            on_step(path[-1])
            least = min(step.validation_loss for step in path)
            if len(path) > 3 and all(step.validation_loss > least for step in path[-3:]):
                break
    return heads[int(np.argmin([step.validation_loss for step in path]))], path


def loss_and_accuracy(logits: Floats, labels: Labels) -> tuple[float, float]:
    """Return the mean cross-entropy (natural logarithm) and the accuracy (0 to 1) of logits."""
    total = 0.0
    for start in range(0, len(labels), _CHUNK_ROWS):  # in chunks: float64 copies of all logits would take room
        rows = slice(start, start + _CHUNK_ROWS)
        chosen = log_softmax(logits[rows].astype(np.float64), axis=1)[np.arange(len(labels[rows])), labels[rows]]
        total -= float(chosen.sum())
    return total / len(labels), float((logits.argmax(axis=1) == labels).mean())


class _Problem:
    """The objective in terms of scaled features, in the eigenbasis of their covariance.

    Each direction is scaled by the curvature that the objective has there at uniform probabilities (after
    Boehning, 1992). So scaled, L-BFGS needs tens of steps where it needs hundreds on raw coordinates; the
    minimum is the same. Few features are rotated into the basis once; many stay on disk, and the weights are
    rotated back instead.
    """

    def __init__(self, features: Features, labels: Labels, weights: Floats, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._labels = labels
        self.num_classes = len(weights)
        self._sample_weights = weights[labels] / weights[labels].sum()
        rows, columns = features.shape
        kept = list(_chunks(features)) if rows * columns * 4 <= _KEPT_BYTES else None
        mean, scale, self._eigenvalues, basis = _moments(kept or _chunks(features), columns, rows)
        # Scaled and rotated features are features @ lift - shift.
        self._lift = basis / scale[:, None]
        self._shift = mean @ self._lift
        self._features = features
        self._rotated: list[Floats] | None = None
        if kept is not None:
            lift, shift = self._lift.astype(np.float32), self._shift.astype(np.float32)
            self._rotated = [chunk @ lift - shift for _, chunk in kept]
        self._parts = [slice(start, start + _CHUNK_ROWS) for start in range(0, rows, _CHUNK_ROWS)]
        self.shape = (basis.shape[1] + 1, self.num_classes)
        # Of an evaluation: the logits, and the gradient, each a product over all rows.
        self.operations = 4 * rows * (columns if self._rotated is None else basis.shape[1]) * self.num_classes

    def minimise(self, start: Doubles, strength: float, max_iterations: int) -> tuple[Doubles, int]:
        """Return the minimum as a matrix of this problem's shape, its last row the bias, and how many evaluations."""
        curvature = self._eigenvalues / self.num_classes + strength
        scale = np.append(1 / np.sqrt(curvature), np.sqrt(self.num_classes))[:, None]
        found = minimize(
            lambda flat: self._loss_and_gradient(flat.reshape(self.shape), scale, strength),
            (start / scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "ftol": 1e-6, "gtol": 1e-6},
        )
        return np.asarray(found.x.reshape(self.shape) * scale), int(found.nfev)

    def head(self, matrix: Doubles) -> LinearHead:
        """Turn a matrix in the eigenbasis into a head on raw features."""
        weight = self._lift @ matrix[:-1]
        bias = matrix[-1] - self._shift @ matrix[:-1]
        return LinearHead(np.ascontiguousarray(weight.T, np.float32), bias.astype(np.float32))

    def _loss_and_gradient(self, unscaled: Doubles, scale: Doubles, strength: float) -> tuple[float, Doubles]:
        matrix = unscaled * scale
        if self._rotated is None:
            head = self.head(matrix)
        else:
            head = LinearHead(matrix[:-1].T.astype(np.float32), matrix[-1].astype(np.float32))
        loss, products, sums = 0.0, np.zeros((head.weight.shape[1], self.num_classes)), np.zeros(self.num_classes)
        work = partial(self._part, head=head)
        parts = range(len(self._parts))
        for part in self._pool.map(work, parts) if len(parts) > 1 else map(work, parts):
            loss += part[0]
            products += part[1]
            sums += part[2]
        if self._rotated is None:
            products = self._lift.T @ products - np.outer(self._shift, sums)
        gradient = np.vstack([products + strength * matrix[:-1], sums])
        loss += strength / 2 * float((matrix[:-1] ** 2).sum())
        return loss, (gradient * scale).ravel()

    def _part(self, number: int, head: LinearHead) -> tuple[float, Floats, Floats]:
        """Return one chunk's share of the loss, and of its gradient by the head's weight and bias."""
        rows = self._parts[number]
        chunk = self._features.take(rows).astype(np.float32) if self._rotated is None else self._rotated[number]
        labels, weights = self._labels[rows], self._sample_weights[rows]
        logits = chunk @ head.weight.T + head.bias
        logits -= logits.max(axis=1, keepdims=True)
        residuals = np.exp(logits)
        sums = residuals.sum(axis=1)
        picked = np.arange(len(labels)), labels
        loss = float(weights @ (np.log(sums) - logits[picked]))
        residuals /= sums[:, None]
        residuals[picked] -= 1
        residuals *= weights[:, None]
        return loss, chunk.T @ residuals, residuals.sum(axis=0)


def _chunks(features: Features) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, len(features), _CHUNK_ROWS):
        rows = slice(start, min(start + _CHUNK_ROWS, len(features)))
        yield rows, features.take(rows).astype(np.float32)


def _moments(
    chunks: Iterable[tuple[slice, Floats]], columns: int, rows: int
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Return each feature's mean and scale, and the eigenvalues and basis of the scaled features' covariance."""
    total = np.zeros(columns)
    products = np.zeros((columns, columns))
    for _, chunk in chunks:
        total += chunk.sum(axis=0, dtype=np.float64)
        products += chunk.T @ chunk
    mean = total / rows
    covariance = products / rows - np.outer(mean, mean)
    variance = np.maximum(np.diag(covariance), 0)
    # The square root of the standard deviation: halfway between raw and standardised features, and better
    # than either on every kind of photo tried (docs/experiments.md). Scaled to a mean variance of 1.
    scale = np.maximum(variance, 1e-4 * max(float(variance.mean()), 1e-12)) ** 0.25
    scale *= np.sqrt((variance / scale**2).mean() or 1.0)
    eigenvalues, basis = eigh(covariance / np.outer(scale, scale), driver="evd")
    # Directions in which the photos do not differ (there are many when photos are few) carry nothing.
    varied = eigenvalues > 1e-6 * eigenvalues[-1]
    return mean, scale, eigenvalues[varied], basis[:, varied]

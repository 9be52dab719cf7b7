"""The head of the Keras example, trained on stored features.

"Image classification via fine-tuning with EfficientNet" (keras.io): batch normalisation, dropout of 0.2 and
a dense softmax on the pooled features; Adam at 1e-2, batches of 64, 25 epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from headstart.training.finetuning import ViewRows, suffix_logits
from headstart.training.probe import Floats, Labels, LinearHead, loss_and_accuracy
from headstart.training.progress import Epoch
from headstart.training.store import StoredRows


@dataclass(frozen=True)
class ExampleHead:
    """The example's settings."""

    epochs: int = 25
    batch_size: int = 64
    learning_rate: float = 1e-2
    dropout_rate: float = 0.2


def fit_example_head(
    train: ViewRows,
    train_labels: Labels,
    validation: StoredRows,
    validation_labels: Labels,
    num_classes: int,
    seed: int,
    settings: ExampleHead = ExampleHead(),  # noqa: B008 - frozen
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[LinearHead, list[Epoch]]:
    """Train the example's head and return it, with its batch normalisation folded in, after the last epoch.

    Args:
        train: (n, num_features) features of the training photos in each view.
        train_labels: (n,) class indices.
        validation: (m, num_features) features.
        validation_labels: (m,) class indices.
        num_classes: the number of classes.
        seed: the recipe's seed.
        settings: the example's, unless told.
        on_epoch: called with each finished epoch.
    """
    columns = validation.shape[1]
    torch.manual_seed(seed)
    # Keras: epsilon 1e-3 and momentum 0.99, which PyTorch counts from the other end.
    norm, dense = nn.BatchNorm1d(columns, eps=1e-3, momentum=0.01), nn.Linear(columns, num_classes)
    bound = math.sqrt(6 / (columns + num_classes))  # Glorot uniform, Keras's default
    nn.init.uniform_(dense.weight, -bound, bound)
    nn.init.zeros_(dense.bias)
    head = nn.Sequential(norm, nn.Dropout(settings.dropout_rate), dense)
    optimiser = torch.optim.Adam(head.parameters(), settings.learning_rate, eps=1e-7)
    history = []
    for number in range(settings.epochs):
        started = time.perf_counter()
        draw = np.random.default_rng([seed, number])
        torch.manual_seed(int(draw.integers(2**31)))
        order, views = draw.permutation(len(train)), train.draw_views(number, draw)
        loss_sum, correct = 0.0, 0
        head.train()
        for start in range(0, len(order), settings.batch_size):
            photos = order[start : start + settings.batch_size]
            if len(photos) < 2:
                continue  # batch normalisation of a single photo is undefined
            labels = torch.from_numpy(train_labels[photos])
            logits = head(train.take(photos, views[photos]))
            loss = F.cross_entropy(logits, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            loss_sum += float(loss.detach()) * len(photos)
            correct += int((logits.argmax(dim=1) == labels).sum())
        loss_now, accuracy = loss_and_accuracy(suffix_logits(head, validation), validation_labels)
        means = loss_sum / len(order), correct / len(order)
        seconds = time.perf_counter() - started
        history.append(Epoch(number + 1, *means, loss_now, accuracy, settings.learning_rate, seconds))
        on_epoch(history[-1])
    return _folded(norm, dense), history


def _folded(norm: nn.BatchNorm1d, dense: nn.Linear) -> LinearHead:
    """Fold a batch normalisation in evaluation mode into the dense layer after it."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight.detach() / torch.sqrt(variance + norm.eps)
    weight = dense.weight.detach() * scale
    bias = dense.bias.detach() + dense.weight.detach() @ (norm.bias.detach() - mean * scale)
    return LinearHead(_floats(weight), _floats(bias))


def _floats(tensor: torch.Tensor) -> Floats:
    return np.asarray(tensor.numpy(), np.float32)

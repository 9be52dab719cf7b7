import numpy as np
import torch
from torch import nn

from headstart.training.example_head import ExampleHead, _folded, fit_example_head
from headstart.training.finetuning import ViewRows
from headstart.training.store import Shelf, row_key


def test_folding_the_batch_normalisation_changes_nothing():
    torch.manual_seed(0)
    norm, dense = nn.BatchNorm1d(6, eps=1e-3), nn.Linear(6, 3)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    features = torch.randn(5, 6)
    expected = nn.Sequential(norm, dense).eval()(features).detach().numpy()
    head = _folded(norm, dense)
    assert np.allclose(features.numpy() @ head.weight.T + head.bias, expected, atol=1e-5)


def test_it_learns_from_stored_features(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.arange(65) % 3  # the last batch has a single photo
    features = draw.normal(size=(3, 16))[labels] + draw.normal(scale=0.3, size=(65, 16))
    shelf = Shelf(tmp_path, {}, (16,))
    keys = [row_key(str(number), "0") for number in range(65)]
    with shelf.writer() as writer:
        writer.append(keys, features)
    rows = shelf.rows(keys)
    settings = ExampleHead(epochs=30)
    head, history = fit_example_head(ViewRows([rows]), labels, rows, labels, 3, 0, settings)
    assert len(history) == 30
    assert history[-1].validation_accuracy == float((head.logits(rows).argmax(axis=1) == labels).mean()) == 1.0
    again, _ = fit_example_head(ViewRows([rows]), labels, rows, labels, 3, 0, settings)
    assert np.array_equal(head.weight, again.weight)

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from headstart.console import Console
from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.recipe import Recipe, Step
from headstart.training import refitting
from headstart.training.data import LEARNING
from headstart.training.finetuning import suffix_logits
from headstart.training.keeping import Kept, Tuned, clearly_more, keep
from headstart.training.probe import LinearHead
from headstart.training.state import trained_state

RECIPE = Recipe.make(photos="x")
# With the example's head no other one is fitted: what is kept is that of the step or of the way to it.
PLAIN = Recipe.make(photos="x", head="example")
WEIGHTS = np.ones(2, np.float32)
STEP = Step(unfreeze="stage6", epochs=4, num_views=2, batch_size=8, seconds=1, refit_epochs=2)
LABELS = np.array([0, 1] * 20)
QUIET = Console(quiet=True)


class _Rows:
    """Two numbers of each photo: how much they speak for each class, with noise."""

    def __init__(self):
        draw = np.random.default_rng(0)
        self._rows = (np.eye(2)[LABELS] + draw.normal(0, 0.7, (len(LABELS), 2))).astype(np.float32)

    def __len__(self):
        return len(self._rows)

    def take(self, indices):
        return self._rows[indices]


DATA = SimpleNamespace(
    activations=lambda split, boundary: _Rows(),
    training_rows=lambda split, boundary, views: _Rows(),
    labels={"validation": LABELS, LEARNING: LABELS},
    image_size=64,
    digest="d",
    validation_rows=np.arange(len(LABELS)),
)


def classifier(weight):
    """A suffix whose logits are the rows times a matrix."""
    suffix = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        suffix[0].weight.copy_(torch.tensor(weight))
        suffix[0].bias.zero_()
    return suffix


def tuned_from(start, end):
    states = {name: trained_state(classifier(weight)) for name, weight in (("start", start), ("end", end))}
    suffix = classifier(end)
    logits = suffix_logits(suffix, _Rows())
    return Tuned(suffix, STEP, 3, states["start"], states["start"], states["end"], logits, "fine-tuning stage6", {})


def probe(weight):
    logits = suffix_logits(classifier(weight), _Rows())
    measured = calibrated_loss_and_accuracy(logits, LABELS)
    return Kept("probe", 9, 64, *measured, regularisation=0.1, logits=logits)


IDENTITY, MIXED = [[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.4], [0.7, 0.3]]


def test_what_is_better_is_kept():
    useless = [[1.0, 1.0], [0.0, 0.0]]
    before, tuned = probe(useless), tuned_from(useless, IDENTITY)
    kept, hopeful = keep(tuned, before, DATA, PLAIN, WEIGHTS, QUIET)
    assert hopeful and calibrated_loss_and_accuracy(kept.logits, LABELS)[0] == kept.loss
    assert (kept.stage, kept.share, kept.tuned, kept.step) == ("fine-tuning stage6", 1.0, tuned, STEP)
    assert kept.loss < before.loss and kept.validation_accuracy > before.validation_accuracy
    assert kept.points_over_probe == pytest.approx(100 * (kept.validation_accuracy - before.validation_accuracy))
    assert tuned.suffix[0].weight.tolist() == IDENTITY


def test_a_step_that_saw_a_part_of_the_photos_is_compared_on_it():
    part = np.arange(0, len(LABELS), 4)  # of one class alone, of which the probe knows the most
    seen = _Rows()
    seen._rows = seen._rows[part]
    data = SimpleNamespace(
        activations=lambda split, boundary: seen,
        labels={"validation": LABELS[part]},
        image_size=64,
        validation_rows=part,
    )
    always_first = [[1.0, 1.0], [0.0, 0.0]]
    before, tuned = probe(always_first), tuned_from(always_first, always_first)
    tuned = dataclasses.replace(tuned, logits=suffix_logits(classifier(IDENTITY), seen))
    assert before.loss > calibrated_loss_and_accuracy(tuned.logits, LABELS[part])[0]
    assert keep(tuned, before, data, PLAIN, WEIGHTS, QUIET)[0] is before
    known = keep(tuned_from(always_first, IDENTITY), probe(MIXED), DATA, PLAIN, WEIGHTS, QUIET)[0]
    assert not np.isnan(known.logits).any()
    forced, _ = keep(tuned, before, data, Recipe.make(photos="x", keep="last"), WEIGHTS, QUIET)
    assert (~np.isnan(forced.logits).any(axis=1)).nonzero()[0].tolist() == part.tolist()
    on_the_part = calibrated_loss_and_accuracy(before.logits[part], LABELS[part])[1]
    assert on_the_part > before.validation_accuracy + 0.3
    assert forced.points_over_probe == pytest.approx(100 * (forced.validation_accuracy - on_the_part))


def test_what_is_not_better_is_undone():
    before, tuned = probe(IDENTITY), tuned_from(MIXED, [[0.5, 0.5], [0.8, 0.2]])
    assert keep(tuned, before, DATA, PLAIN, WEIGHTS, QUIET)[0] is before
    assert torch.equal(tuned.suffix[0].weight, tuned.before["0.weight"])
    # Unless the last weights are asked for.
    asked = Recipe.make(photos="x", keep="last")
    assert keep(tuned, before, DATA, asked, WEIGHTS, QUIET)[0].share == 1.0


def test_what_is_worse_by_chance_alone_leaves_hope_for_a_deeper_step():
    worse = np.array([0.4, 0.1, 0.9, 0.2])
    assert not clearly_more(worse + [0.5, -0.4, 0.3, 0.1], worse)  # 0.12 on the mean, give or take 0.2
    assert clearly_more(worse + [0.2, 0.3, 0.2, 0.1], worse)
    assert not clearly_more(worse, worse) and not clearly_more(worse - 1, worse)
    assert not clearly_more(np.array([2.0]), np.array([1.0]))  # of one photo nothing is clear
    _, hopeful = keep(tuned_from(MIXED, [[0.5, 0.5], [0.8, 0.2]]), probe(IDENTITY), DATA, PLAIN, WEIGHTS, QUIET)
    assert not hopeful  # it is worse on every photo


def test_a_part_of_the_way_is_kept_where_it_is_the_best():
    beyond = [[-1.0, 2.0], [2.0, -1.0]]  # half of the way there knows nothing, a quarter does
    kept, _ = keep(tuned_from(IDENTITY, beyond), probe(MIXED), DATA, PLAIN, WEIGHTS, QUIET)
    assert kept.share == 0.25


@pytest.mark.parametrize(
    ("regularisation", "share", "expected"),
    [
        (None, 0.25, [[1.5, 0.0], [0.0, 2.0]]),
        (3.0, 0.25, [[2.25, 0.0], [0.0, 2.75]]),  # from a probe of all photos, where training started from one
        (3.0, 1.0, [[3.0, 0.0], [0.0, 5.0]]),
    ],
)
def test_a_refit_starts_at_the_end_and_goes_as_far_as_was_kept(monkeypatch, tmp_path, regularisation, share, expected):
    tuned, seen, probes = tuned_from(IDENTITY, MIXED), [], []
    tuned = dataclasses.replace(tuned, regularisation=regularisation)

    def trained(suffix, rows, labels, validation, *others):
        seen.append((suffix[0].weight.tolist(), others[2], validation))
        return {"0.weight": torch.tensor([[3.0, 0.0], [0.0, 5.0]]), "0.bias": torch.zeros(2)}, []

    def fitted(suffix, boundary, step, data, recipe, weights, chosen, split):
        probes.append((chosen, split))
        return LinearHead(np.array([[2, 0], [0, 2]], np.float32), np.zeros(2, np.float32))

    monkeypatch.setattr(refitting, "fine_tune", trained)
    monkeypatch.setattr(refitting, "softer_probe", fitted)
    refitting._train_on(tuned, share, DATA, RECIPE, WEIGHTS, tmp_path)
    ((start, settings, validation),) = seen
    assert start == torch.tensor(MIXED).tolist() and validation is None
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (2, 8, RECIPE.learning_rate / 4)
    assert tuned.suffix[0].weight.tolist() == expected
    assert probes == ([(3.0, LEARNING)] if regularisation and share < 1 else [])

from types import SimpleNamespace

import numpy as np
import pytest

from headstart.recipe import Recipe, Step
from headstart.training import stages as module
from headstart.training.stages import fine_tuning

RECIPE = Recipe.make(photos="x")
STEP = Step(unfreeze="stage6", epochs=4, num_views=2, batch_size=8, seconds=1)


@pytest.mark.parametrize(("chosen", "start"), [(0.3, 3.0), (1e-6, 1.0)])
def test_training_starts_from_a_softer_probe_and_never_from_a_hard_one(monkeypatch, chosen, start):
    tried = []
    monkeypatch.setattr(module, "fit_probe", lambda *given: (tried.append(given[-1]), (None, []))[1])
    features = SimpleNamespace(some_features=lambda views, rows, split: (np.zeros((2, 3)), np.arange(2)))
    seen = SimpleNamespace(whole=features)
    module.softer_probe(None, 3, STEP, seen, RECIPE, np.ones(2, np.float32), chosen)
    assert tried == [(pytest.approx(start),)]


def test_batches_are_those_planned_unless_the_recipe_has_its_own():
    # A recipe of before batches were planned has its own, beside steps that name none.
    assert fine_tuning(Recipe.make(photos="x", batch_size=32), STEP.batch_size, epochs=1).batch_size == 32
    assert fine_tuning(RECIPE, STEP.batch_size, epochs=1).batch_size == 8

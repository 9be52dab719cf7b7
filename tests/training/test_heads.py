from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from headstart.console import Console
from headstart.evaluation.calibration import calibrated_loss_and_accuracy
from headstart.network.backbones import backbone_named, build
from headstart.recipe import Recipe, Step
from headstart.training.data import LEARNING
from headstart.training.finetuning import suffix_logits
from headstart.training.heads import Blend, blend_again, choose_blend, head_of, set_head
from headstart.training.keeping import Kept, Tuned, keep
from headstart.training.probe import LinearHead, fit_probe, loss_and_accuracy
from headstart.training.state import trained_state

WEIGHTS = np.ones(3, np.float32)
COUNTS = {"train": 60, "validation": 45, LEARNING: 105}
LABELS = {split: np.arange(count) % 3 for split, count in COUNTS.items()}


class Rows:
    """Activations of some photos of a split: three numbers that tell the class, with noise, and three of noise."""

    def __init__(self, split, chosen=None):
        labels = LABELS[split]
        noise = np.random.default_rng(len(labels)).normal(0, 0.5, (len(labels), 3))
        self._rows = np.hstack([np.eye(3)[labels] + noise, noise[:, ::-1]]).astype(np.float32)
        self._rows = self._rows if chosen is None else self._rows[chosen]

    def __len__(self):
        return len(self._rows)

    def take(self, indices):
        return self._rows[indices]


def data():
    """Photos that are their own positions; two of three training photos are used for a head."""
    return SimpleNamespace(
        labels=LABELS,
        photos={split: list(range(count)) for split, count in COUNTS.items()},
        some_rows=lambda most, split: np.arange(COUNTS[split]) if split == LEARNING else np.arange(0, 60, 2),
        embedder=SimpleNamespace(rows=lambda photos, view, boundary: Rows(splits[len(photos)], photos)),
        activations=lambda split, boundary: Rows(split),
        validation_rows=np.arange(COUNTS["validation"]),
        image_size=64,
    )


splits = {30: "train", COUNTS[LEARNING]: LEARNING}


def tuned_suffix():
    """Layers that tell the classes apart, and a head that was trained too shortly to make use of it."""
    torch.manual_seed(0)
    suffix = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    with torch.no_grad():
        suffix[0].weight[:3, :3] = 3 * torch.eye(3)
        suffix[-1].weight.mul_(0.1)
    return suffix


def test_a_head_goes_in_and_out_of_networks_and_their_suffixes():
    network = build(backbone_named("lite0"), 4)
    head = LinearHead(
        np.random.default_rng(0).normal(size=(4, 1280)).astype(np.float32), np.arange(4, dtype=np.float32)
    )
    set_head(network, head)
    assert np.array_equal(network.get_submodule("classifier").get_parameter("weight").detach().numpy(), head.weight)
    found = head_of(network)
    assert np.array_equal(found.weight, head.weight) and np.array_equal(found.bias, head.bias)
    set_head(network, LinearHead(0 * head.weight, head.bias))
    assert found.weight.any()  # a copy


def test_a_blend_is_the_mean_of_two_heads_each_at_its_temperature():
    draw = np.random.default_rng(1)
    one, other = (
        LinearHead(draw.normal(size=(3, 5)).astype(np.float32), draw.normal(size=3).astype(np.float32)) for _ in "ab"
    )
    features = draw.normal(size=(7, 5)).astype(np.float32)
    blended = Blend(one, 0.1, 2.0, 0.5).of(one, other)
    expected = ((features @ one.weight.T + one.bias) / 2.0 + (features @ other.weight.T + other.bias) / 0.5) / 2
    np.testing.assert_allclose(features @ blended.weight.T + blended.bias, expected, rtol=1e-4, atol=1e-5)


def test_the_fit_is_on_tuned_features_and_chosen_on_validation_photos():
    suffix = tuned_suffix()
    before, logits = trained_state(suffix), suffix_logits(suffix, Rows("validation"))
    blend, head, blended = choose_blend(suffix, data(), 3, logits, WEIGHTS)
    assert all(torch.equal(value, before[name]) for name, value in trained_state(suffix).items())
    assert loss_and_accuracy(blended, LABELS["validation"])[0] < loss_and_accuracy(logits, LABELS["validation"])[0]
    # The same by hand: features are what the layers before the classifier make of the rows that were chosen.
    with torch.no_grad():
        train, validation = (
            np.maximum(suffix[0](torch.from_numpy(rows.take(slice(None)))).numpy(), 0)
            for rows in (Rows("train", np.arange(0, 60, 2)), Rows("validation"))
        )
    fitted, _ = fit_probe(
        Held(train), LABELS["train"][::2], Held(train), LABELS["train"][::2], WEIGHTS, (blend.regularisation,)
    )
    np.testing.assert_allclose(head.weight, blend.of(head_of(suffix), fitted).weight, rtol=0, atol=0.1)
    np.testing.assert_allclose(blended, validation @ head.weight.T + head.bias, rtol=1e-4, atol=1e-4)


class Held(Rows):
    def __init__(self, rows):
        self._rows, self.shape = rows, rows.shape


def test_blended_again_it_has_learnt_from_validation_photos_by_the_same_rule():
    suffix = tuned_suffix()
    blend, head, _ = choose_blend(suffix, data(), 3, suffix_logits(suffix, Rows("validation")), WEIGHTS)
    trained = head_of(suffix)
    blend_again(suffix, blend, data(), 3, LEARNING, WEIGHTS)
    again = head_of(suffix)
    assert not np.allclose(again.weight, head.weight)
    # The trained head's part in it is what it was: what is left is the fitted one, on all photos.
    rest = again.weight - trained.weight * 0.5 / blend.trained_temperature
    logits = suffix_logits(suffix, Rows(LEARNING))
    assert np.abs(rest).max() > np.abs(trained.weight).max()
    assert loss_and_accuracy(logits, LABELS[LEARNING])[1] > 0.8


def test_the_blend_is_kept_where_it_is_the_best_and_only_of_a_probe():
    suffix = tuned_suffix()
    state, logits = trained_state(suffix), suffix_logits(suffix, Rows("validation"))
    start = {name: 0 * value if name == "0.weight" else value for name, value in state.items()}
    step = Step(unfreeze="stage6", epochs=4, num_views=2, batch_size=8, seconds=1)
    tuned = Tuned(suffix, step, 3, start, start, state, logits, "fine-tuning stage6", {})
    useless, labels = np.zeros((45, 3), np.float32), LABELS["validation"]
    before = Kept("probe", 9, 64, *calibrated_loss_and_accuracy(useless, labels), logits=useless)
    console, said = Console(quiet=True), []
    console.say = said.append
    kept, hopeful = keep(tuned, before, data(), Recipe.make(photos="x"), WEIGHTS, console)
    assert hopeful and kept.share == 1.0 and kept.told()["blended"] and "(the head blended" in said[-1]
    assert np.array_equal(kept.blend.trained.weight, state["3.weight"].numpy())
    assert kept.loss < calibrated_loss_and_accuracy(logits, labels)[0]
    found = suffix_logits(suffix, Rows("validation"))
    np.testing.assert_allclose(kept.logits, found, rtol=1e-3, atol=1e-4)
    plain, _ = keep(tuned, before, data(), Recipe.make(photos="x", head="example"), WEIGHTS, console)
    assert plain.blend is None

import copy

import numpy as np
import pytest
import torch

from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import boundary_before_last_blocks, boundary_of, prefix, set_trainable, suffix
from headstart.network.weights import load_weights
from headstart.training import trainer
from headstart.training.finetuning import ViewRows, fine_tune, suffix_logits
from headstart.training.hardware import hardware
from headstart.training.optimisation import FineTuning, optimiser_of, schedule
from headstart.training.probe import HeldRows
from headstart.training.state import interpolated, load_state, trained_state
from headstart.training.store import Shelf, row_key
from headstart.training.trainer import Trainer

LITE0 = BACKBONES["lite0"]
PREPROCESSING = LITE0.preprocessing("squash", 64)
NUM_PHOTOS, NUM_VIEWS = 24, 2
WEIGHTS = np.ones(3, np.float32)
LABELS = np.arange(NUM_PHOTOS) % 3
SETTINGS = FineTuning(3, 4, 1e-3, 1e-3, optimiser="adamw", patience=5)


@pytest.fixture(scope="module")
def network():
    network = build(LITE0, 3)
    load_weights(network, LITE0)
    return network


@pytest.fixture(scope="module")
def pixels():
    """Views of photos: (views, photos, 3, 64, 64); the classes differ in colour."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 128, (NUM_VIEWS, NUM_PHOTOS, 3, 64, 64), generator=generator).float()
    for number, label in enumerate(LABELS):
        pixels[:, number, label] += 60
    return pixels


@pytest.fixture(scope="module")
def rows(network, pixels, tmp_path_factory):
    """The stored activations of each view at the boundary before the last block."""
    boundary = boundary_before_last_blocks(network, 1)
    frozen = prefix(network, boundary, PREPROCESSING)
    with torch.inference_mode():
        activations = [frozen(view).numpy() for view in pixels]
    shelf = Shelf(tmp_path_factory.mktemp("store"), {}, activations[0].shape[1:])
    for view, values in enumerate(activations):
        with shelf.writer() as writer:
            writer.append([row_key(str(n), str(view)) for n in range(NUM_PHOTOS)], values)
    return [shelf.rows([row_key(str(n), str(view)) for n in range(NUM_PHOTOS)]) for view in range(NUM_VIEWS)]


def new_suffix(network):
    copied = copy.deepcopy(network)
    return suffix(copied, boundary_before_last_blocks(copied, 1), PREPROCESSING, dropout_rate=0.2)


def tune(network, rows, checkpoint, settings=SETTINGS, on_epoch=lambda epoch: None):
    trainable = new_suffix(network)
    best, history = fine_tune(
        trainable, ViewRows(rows), LABELS, rows[0], LABELS, WEIGHTS, settings, 7, checkpoint, on_epoch
    )
    return trainable, best, history


class FloatRows:
    """Rows in float32: held in memory, or recomputed from the pixels through the prefix at every use."""

    def __init__(self, pixels, frozen, recompute):
        self._compute = lambda photo: frozen(pixels[photo : photo + 1])[0]
        with torch.inference_mode():
            self._held = None if recompute else np.stack([self._compute(n).numpy() for n in range(len(pixels))])
            self.shape = (len(pixels), *self._compute(0).shape)
        self.recomputed = 0

    def __len__(self):
        return self.shape[0]

    @torch.inference_mode()
    def take(self, indices):
        if self._held is not None:
            return self._held[indices]
        photos = np.arange(len(self))[indices]
        self.recomputed += len(photos)
        return np.stack([self._compute(photo).numpy() for photo in photos])


def test_stored_activations_train_as_recomputed_ones_do(network, pixels, tmp_path):
    """Fine-tuning from float32 activations gives the weights that recomputing the prefix gives, to the bit."""
    frozen = prefix(network, boundary_before_last_blocks(network, 1), PREPROCESSING)
    ends, recomputed = [], []
    for recompute in (False, True):
        rows = [FloatRows(view, frozen, recompute) for view in pixels]
        settings = FineTuning(1, 8, 1e-3, 1e-3, optimiser="adamw")
        trainable, _, history = tune(network, rows, tmp_path / f"{recompute}.safetensors", settings)
        ends.append((trained_state(trainable), history[0].train_loss))
        recomputed.append(sum(view.recomputed for view in rows))
    assert recomputed == [0, 2 * NUM_PHOTOS]  # each photo once to train, once to validate
    start = trained_state(new_suffix(network))
    assert max(float((ends[0][0][name] - start[name]).abs().max()) for name in start) > 1e-3
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in start)


def test_it_learns_and_writes_its_history(network, rows, tmp_path):
    trainable, best, history = tune(network, rows, tmp_path / "c.safetensors")
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert history[-1].train_loss < history[0].train_loss
    load_state(trainable, best)
    accuracy = float((suffix_logits(trainable, rows[0]).argmax(axis=1) == LABELS).mean())
    assert accuracy == max(epoch.validation_accuracy for epoch in history) > 0.9


class Widest(torch.nn.Module):
    """A classifier that remembers the most rows that passed at once."""

    def __init__(self, num_values):
        super().__init__()
        self.classifier = torch.nn.Linear(num_values, 3)
        self.widest = 0

    def forward(self, batch):
        self.widest = max(self.widest, len(batch))
        return self.classifier(batch)


@pytest.mark.parametrize(("num_values", "widest"), [(500_000, 8), (100_000, 12), (10, 30)])
def test_large_rows_pass_forward_few_at_once(num_values, widest):
    rows = HeldRows([np.random.default_rng(0).random((30, num_values), np.float32)])
    classifier = Widest(num_values)
    logits = suffix_logits(classifier, rows)
    assert classifier.widest == widest
    expected = rows.take(slice(None)) @ classifier.classifier.weight.detach().numpy().T
    assert np.allclose(logits, expected + classifier.classifier.bias.detach().numpy(), atol=1e-3)


def test_the_same_seed_gives_the_same_weights(network, rows, tmp_path):
    _, first, _ = tune(network, rows, tmp_path / "a.safetensors")
    _, second, _ = tune(network, rows, tmp_path / "b.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


class Interrupted(Exception):
    pass


def test_a_run_that_resumes_ends_where_an_uninterrupted_one_does(network, rows, tmp_path):
    whole, best, history = tune(network, rows, tmp_path / "whole.safetensors")

    def interrupt(epoch):
        if epoch.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(network, rows, tmp_path / "part.safetensors", on_epoch=interrupt)
    seen = []
    resumed, best_resumed, history_resumed = tune(network, rows, tmp_path / "part.safetensors", on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    for ours, theirs in zip(history_resumed, history, strict=True):
        assert ours.validation_loss == theirs.validation_loss and ours.train_loss == theirs.train_loss
    assert all(torch.equal(best[name], best_resumed[name]) for name in best)
    ends = [dict(network.named_parameters()) for network in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_training_stops_when_the_validation_loss_stalls(network, rows, tmp_path):
    settings = FineTuning(epochs=30, batch_size=8, learning_rate=0.05, head_learning_rate=0.05, patience=2)
    _, _, history = tune(network, rows, tmp_path / "c.safetensors", settings)
    losses = [epoch.validation_loss for epoch in history]
    assert len(losses) < 30
    assert min(losses[-2:]) >= min(losses[:-2])


def test_the_learning_rate_warms_up_and_falls_to_zero():
    settings = FineTuning(epochs=4, warmup_epochs=1)
    shares = [schedule(step / 40, settings) for step in range(40)]
    assert shares[0] == 0.02 and shares[1] == pytest.approx(0.1)
    assert shares[:11] == sorted(shares[:11]) and max(shares) == shares[10] == 1
    assert shares[10:] == sorted(shares[10:], reverse=True) and shares[-1] < 0.01


def test_interpolation_meets_both_ends():
    start, end = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}
    assert interpolated(start, end, 0.0)["w"].tolist() == [0, 2]
    assert interpolated(start, end, 0.5)["w"].tolist() == [0.5, 3]
    assert interpolated(start, end, 1.0)["w"].tolist() == [1, 4]


def test_views_are_picked_for_each_photo(rows):
    taken = ViewRows(rows).take(np.array([3, 1, 3]), np.array([1, 0, 0]))
    assert taken.dtype == torch.float32
    for found, (photo, view) in zip(taken, [(3, 1), (1, 0), (3, 0)], strict=True):
        assert np.array_equal(found.numpy(), rows[view].take(np.array([photo]))[0].astype(np.float32))


def test_rates_fall_off_with_the_distance_from_the_classifier(network):
    settings = FineTuning(learning_rate=1e-3, head_learning_rate=2e-3, layer_decay=0.5)
    trainable = new_suffix(network)
    set_trainable(trainable)
    optimiser = optimiser_of(trainable, settings)
    rates = {id(value): group["peak"] for group in optimiser.param_groups for value in group["params"]}
    block, head, *_, classifier = trainable.children()
    assert rates[id(classifier.weight)] == rates[id(classifier.bias)] == 2e-3
    assert rates[id(head[0].weight)] == 1e-3
    assert {rates[id(value)] for value in block.parameters() if value.requires_grad} == {5e-4}
    assert all(
        group["weight_decay"] == 0 for group in optimiser.param_groups if any(v.dim() == 1 for v in group["params"])
    )


@pytest.mark.parametrize(
    ("optimiser", "unfreeze", "share"),
    [("lamb", 1, 1), ("lamb", "stage6", 1), ("lamb", "stage4", 17 / 35), ("lamb", "all", 17 / 50), ("adamw", "all", 1)],
)
def test_rates_of_lamb_fall_with_the_number_of_layers_that_train(network, optimiser, unfreeze, share):
    trainable = suffix(copy.deepcopy(network), boundary_of(network, unfreeze), PREPROCESSING)
    settings = FineTuning(optimiser=optimiser, learning_rate=1e-3)
    training = Trainer(trainable, settings, hardware("float32"), steps_per_epoch=1)
    head, *others = (group["peak"] for group in training.optimiser.param_groups)
    assert head == pytest.approx(2e-3 * share)
    assert others[1:] == pytest.approx([1e-3 * share] * len(others[1:]))


@pytest.mark.parametrize("optimiser", ["lamb", "adamw", "adam", "sgd", "rmsprop"])
def test_every_optimiser_resumes_with_averages_and_mixing(network, rows, tmp_path, optimiser):
    settings = FineTuning(
        epochs=2,
        batch_size=8,
        learning_rate=1e-4,
        optimiser=optimiser,
        ema_decay=0.9,
        mixup=0.2,
        cutmix=1.0,
        keep="last",
    )
    whole, kept, _ = tune(network, rows, tmp_path / "whole.safetensors", settings)
    # The average is kept, and it is not the weights that training ended with.
    ended = dict(whole.named_parameters())
    assert any(not torch.equal(kept[name], ended[name]) for name in kept)

    def interrupt(epoch):
        raise Interrupted

    with pytest.raises(Interrupted):
        tune(network, rows, tmp_path / "part.safetensors", settings, interrupt)
    _, resumed, history = tune(network, rows, tmp_path / "part.safetensors", settings)
    assert len(history) == 2
    assert all(torch.equal(kept[name], resumed[name]) for name in kept)


def test_batch_norm_trains_only_where_it_is_asked_to(network, rows, tmp_path):
    for train_batch_norm in (False, True):
        settings = FineTuning(epochs=1, batch_size=8, train_batch_norm=train_batch_norm, keep="last")
        before = {name: value.clone() for name, value in new_suffix(network).named_buffers()}
        trainable, kept, _ = tune(network, rows, tmp_path / f"{train_batch_norm}.safetensors", settings)
        moved = [name for name, value in trainable.named_buffers() if not torch.equal(value, before[name])]
        assert bool(moved) == train_batch_norm
        assert any(name.endswith("running_mean") for name in kept) == train_batch_norm


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_batch_in_pieces_gives_the_gradients_of_the_whole(network, pixels, monkeypatch, mixup):
    settings = FineTuning(batch_size=10, label_smoothing=0.1, mixup=mixup)
    weights = torch.tensor([0.5, 1.0, 2.5])
    photos, found = np.arange(10), []
    for large_row in (trainer._LARGE_ROW, 0):
        monkeypatch.setattr(trainer, "_LARGE_ROW", large_row)
        torch.manual_seed(0)
        training = Trainer(suffix(copy.deepcopy(network), 0, PREPROCESSING), settings, hardware(), 1)
        batch = iter([(photos, pixels[0, :10])])
        measured = training.epoch((0.0, 0.0), 0, batch, LABELS, weights)
        found.append((measured, {name: value.grad for name, value in training.changing.items()}))
    (measured, whole), (measured_in_pieces, in_pieces) = found
    assert measured_in_pieces == pytest.approx(measured, rel=1e-5)
    for name, gradient in whole.items():
        assert torch.allclose(in_pieces[name], gradient, rtol=1e-3, atol=1e-5), name

"""Recorded steps. Where there is no GPU, what filling a batch up changes can be tested all the same: nothing."""

import copy

import numpy as np
import pytest
import torch

from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import boundary_before_last_blocks, suffix
from headstart.training.hardware import Hardware, hardware
from headstart.training.optimisation import FineTuning
from headstart.training.recording import RecordedStep
from headstart.training.trainer import Trainer

LITE0 = BACKBONES["lite0"]
PREPROCESSING = LITE0.preprocessing("squash", 64)
WEIGHTS = torch.tensor([0.5, 1.0, 2.5])
LABELS = np.arange(20) % 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(LITE0, 3)


def trainer_of(network, dropout_rate=0.0, where=None, **settings):
    copied = copy.deepcopy(network)
    last = suffix(copied, boundary_before_last_blocks(copied, 1), PREPROCESSING, dropout_rate)
    where = where or Hardware(torch.device("cpu"), None)
    last.to(where.device).to(memory_format=torch.channels_last)
    return Trainer(last, FineTuning(**settings), where, steps_per_epoch=5)


def rows(count, seed=0):
    return torch.randn(count, 192, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mixed", [False, True])
def test_rows_that_only_fill_a_batch_change_nothing(network, mixed):
    inputs, target = rows(8), torch.from_numpy(LABELS[:8])
    if mixed:
        target = torch.nn.functional.one_hot(target, 3) * 0.7 + 0.1
    found = []
    for filled in (0, 3):
        trainer = trainer_of(network)
        trainer._class_weights = WEIGHTS
        counts = torch.cat([torch.ones(8), torch.zeros(filled)])
        junk = torch.full((filled, *inputs.shape[1:]), 9.0)
        trainer.step(torch.cat([inputs, junk]), torch.cat([target, target[:filled]]), counts)
        found.append((trainer._sums, dict(trainer.changing)))
    (sums, alone), (sums_filled, filled) = found
    assert torch.allclose(sums, sums_filled, rtol=1e-5) and float(sums[0]) > 0
    for name, value in alone.items():
        assert torch.allclose(value, filled[name], atol=1e-6), name


def test_only_steps_that_never_wait_are_recorded(network, monkeypatch):
    assert trainer_of(network).take_step.__name__ == "step"
    monkeypatch.setattr(Trainer, "step", lambda *batch: None)
    trainer = trainer_of(network)
    trainer._where = Hardware(torch.device("cuda"), torch.bfloat16)
    assert trainer._records()
    for settings in ({"optimiser": "adamw"}, {"ema_decay": 0.9}, {"train_batch_norm": True}):
        other = trainer_of(network, **settings)
        other._where = trainer._where
        assert not other._records()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
def test_a_recorded_step_learns_what_plain_steps_learn(network, dropout_rate):
    batches = [(np.arange(start, min(start + 8, 20)), rows(min(8, 20 - start), start)) for start in (0, 8, 16)]
    found = []
    for recorded in (False, True):
        trainer = trainer_of(network, dropout_rate, hardware("float32"), label_smoothing=0.1)
        assert isinstance(trainer.take_step, RecordedStep)
        if not recorded:
            trainer.take_step = trainer.step
        for number in range(3):
            torch.manual_seed(number)
            part = number / 3, (number + 1) / 3
            measured = trainer.epoch(part, number, iter(batches), LABELS, WEIGHTS.cuda())
        found.append((measured, trainer.changing))
    (plainly, plain), (replayed, changed) = found
    # Dropout draws other numbers for a batch that is filled up; without it both are the same but for rounding.
    assert replayed == pytest.approx(plainly, rel=0.5 if dropout_rate else 1e-3)
    if not dropout_rate:
        for name, value in plain.items():
            assert torch.allclose(value, changed[name], atol=1e-4), name

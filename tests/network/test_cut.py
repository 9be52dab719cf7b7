import pytest
import torch
from torch import nn

from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import (
    ActivationsAt,
    boundary_before_last_blocks,
    last_boundary,
    prefix,
    set_trainable,
    suffix,
    units,
)

LITE0 = BACKBONES["lite0"]
PREPROCESSING = LITE0.preprocessing("squash", 64)


def random_network(num_classes: int = 5, drop_path_rate: float = 0.0) -> nn.Module:
    """Random weights, and batch-norm statistics and a classifier that are not the neutral ones."""
    torch.manual_seed(0)
    network = build(LITE0, num_classes, drop_path_rate)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(network.classifier.weight, std=0.02)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return random_network()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1)).float()


def test_units_are_the_stem_the_blocks_and_the_head(network):
    names = [name for name, _ in units(network)]
    assert names[0] == "stem" and names[-1] == "head"
    assert names[1:4] == ["blocks.0.0", "blocks.1.0", "blocks.1.1"]
    assert len(names) == 18  # 16 blocks in Lite0
    assert last_boundary(network) == 18


@pytest.mark.parametrize("boundary", range(19))
def test_suffix_after_prefix_equals_the_whole_network(network, pixels, boundary):
    with torch.inference_mode():
        whole = network((pixels - 127) / 128)
        cut = suffix(network, boundary, PREPROCESSING).eval()(prefix(network, boundary, PREPROCESSING)(pixels))
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


def test_activations_at_several_boundaries_are_those_of_each(network, pixels):
    with torch.inference_mode():
        several = ActivationsAt(network, (3, 16, 18), PREPROCESSING)(pixels)
        for boundary, found in zip((3, 16, 18), several, strict=True):
            torch.testing.assert_close(found, prefix(network, boundary, PREPROCESSING)(pixels), rtol=0, atol=0)


def test_the_default_boundary_leaves_the_last_block_and_the_head_convolution(network):
    boundary = boundary_before_last_blocks(network, 1)
    assert [name for name, _ in units(network)[boundary:]] == ["blocks.6.0", "head"]
    assert boundary_before_last_blocks(network, 99) == 0


def test_batch_norm_stays_frozen_inside_the_trainable_suffix():
    network = random_network()
    boundary = boundary_before_last_blocks(network, 3)
    trainable = suffix(network, boundary, PREPROCESSING, dropout_rate=0.2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = set_trainable(trainable)
    optimiser = torch.optim.SGD(parameters.values(), 0.1)
    activations = prefix(network, boundary, PREPROCESSING)(torch.rand(4, 3, 64, 64) * 255).detach()
    trainable(activations).square().mean().backward()
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    last_blocks = [name for name, _ in units(network)[boundary:-1]]
    assert changed == {
        name
        for name in before
        if (name.startswith((*(f"{block}." for block in last_blocks), "conv_head", "classifier"))) and ".bn" not in name
    }


def test_drop_path_and_dropout_act_only_in_the_trainable_part(pixels):
    network = random_network(drop_path_rate=0.9)
    boundary = boundary_before_last_blocks(network, 3)
    frozen, trainable = (
        prefix(network, boundary, PREPROCESSING),
        suffix(network, boundary, PREPROCESSING, dropout_rate=0.5),
    )
    set_trainable(trainable)
    first, second = frozen(pixels), frozen(pixels)
    assert torch.equal(first, second)
    assert not torch.equal(trainable(first), trainable(first))
    trainable.eval()
    assert torch.equal(trainable(first), trainable(first))

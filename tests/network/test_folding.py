import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn

from headstart.network.backbones import backbone_named, build
from headstart.network.cut import set_trainable, suffix
from headstart.network.folding import _scaled_convolution, frozen_batch_norm_folded

# Conv2dSame pads by the size of its input: 63 pixels give it uneven padding at every stride.
PIXELS = torch.randint(0, 256, (2, 3, 63, 63), generator=torch.Generator().manual_seed(1)).float()


def whole_network(name: str) -> nn.Module:
    """The whole network in training mode, frozen BatchNorm aside, with statistics that are not the neutral ones."""
    torch.manual_seed(0)
    backbone = backbone_named(name)
    network = build(backbone, num_classes=5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    nn.init.normal_(network.classifier.weight, std=0.02)
    whole = suffix(network, 0, backbone.preprocessing("squash", 64))
    set_trainable(whole)
    return whole.double()


def outputs_and_gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    network.zero_grad()
    outputs = network(PIXELS.double())
    outputs.square().sum().backward()
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return {"outputs": outputs.detach(), **{name: value.clone() for name, value in gradients.items()}}


@pytest.mark.parametrize("name", ["lite0", "b0", "v2-b0"])
def test_outputs_and_gradients_are_those_of_the_unfolded_network(name):
    network = whole_network(name)
    plain = outputs_and_gradients(network)
    names = list(network.state_dict())
    norms = [module for module in network.modules() if isinstance(module, BatchNormAct2d)]
    with frozen_batch_norm_folded(network):
        assert list(network.state_dict()) == names
        assert all("forward" in vars(norm) for norm in norms)  # none was missed
        folded = outputs_and_gradients(network)
    assert folded.keys() == plain.keys() and len(plain) > 50
    for key, value in plain.items():
        torch.testing.assert_close(folded[key], value, rtol=1e-8, atol=1e-8 * float(value.abs().max()), msg=key)
    assert not any("forward" in vars(module) for module in network.modules())
    assert all(torch.equal(value, plain[key]) for key, value in outputs_and_gradients(network).items())


def test_in_float32_they_differ_by_rounding():
    network = whole_network("lite0").float()
    with torch.no_grad():
        plain = network(PIXELS)
        with frozen_batch_norm_folded(network):
            folded = network(PIXELS)
    assert 0 < float((folded - plain).abs().max()) < 1e-4 * float(plain.abs().max())


def test_a_batch_norm_that_trains_is_left_alone():
    network = whole_network("lite0")
    set_trainable(network, train_batch_norm=True)
    with frozen_batch_norm_folded(network):
        assert not any("forward" in vars(module) for module in network.modules())


def test_a_failure_inside_leaves_the_network_as_it_was():
    network = whole_network("lite0")
    with pytest.raises(KeyboardInterrupt), frozen_batch_norm_folded(network):
        raise KeyboardInterrupt
    assert not any("forward" in vars(module) for module in network.modules())


def test_padding_and_strides_are_the_convolutions_own():
    torch.manual_seed(0)
    ones, zeros = torch.ones(4, 1, 1, 1), torch.zeros(4)
    for conv in (
        Conv2dSame(2, 4, 3, stride=2, bias=False),
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=False),
    ):
        x = torch.rand(1, 2, 8, 8)
        assert torch.equal(_scaled_convolution(copy.deepcopy(conv), ones, zeros, x), conv(x))

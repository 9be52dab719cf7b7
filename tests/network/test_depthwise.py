import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from headstart.network.depthwise import _convolved, depthwise_without_cudnn


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("bias", [False, True])
def test_it_convolves_as_the_layer_does_forward_and_backward(kind, bias):
    torch.manual_seed(0)
    conv = kind(6, 6, 3, stride=2, padding=0 if kind is Conv2dSame else 1, groups=6, bias=bias)
    conv = conv.to(memory_format=torch.channels_last)
    found = []
    for convolve in (conv, lambda x: _convolved(conv, x)):
        x = torch.linspace(-1, 1, 2 * 6 * 9 * 9).view(2, 6, 9, 9).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        conv.zero_grad()
        y = convolve(x)
        y.square().sum().backward()
        found.append((y, x.grad, conv.weight.grad.clone()))
    for usual, ours in zip(*found, strict=True):
        assert torch.allclose(usual, ours, atol=1e-5)
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)


def test_on_a_cpu_nothing_changes():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1))
    with depthwise_without_cudnn(network):
        assert not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_depthwise_convolutions_alone_change_until_the_end():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)).cuda()
    x = torch.randn(2, 4, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)
    usual = network(x)
    with depthwise_without_cudnn(network):
        assert ["forward" in module.__dict__ for module in network] == [True, False]
        assert torch.allclose(network(x), usual, atol=1e-2)
    assert not any("forward" in module.__dict__ for module in network)

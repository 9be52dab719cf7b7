import copy

import pytest
import torch
from timm.optim.lamb import Lamb as TimmLamb

from headstart.training.lamb import Lamb


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_it_takes_the_steps_that_timm_takes(weight_decay):
    """The same parameters after 20 steps, one of which has no gradient at all and one a gradient of zero."""
    torch.manual_seed(0)
    ours = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4), torch.nn.Linear(4, 4)
    )
    theirs = copy.deepcopy(ours)
    with torch.no_grad():
        for network in (ours, theirs):
            network[2].bias.zero_()  # has no norm to take a share of
    start, steps = copy.deepcopy(ours), []
    for network, kind, settings in (
        (ours, Lamb, {}),
        (theirs, TimmLamb, {"max_grad_norm": None, "always_adapt": True}),
    ):
        optimiser = kind([{"params": network.parameters()}], lr=0.01, weight_decay=weight_decay, **settings)
        draw = torch.Generator().manual_seed(1)
        for _ in range(20):
            optimiser.zero_grad()
            network[:3](torch.randn(5, 3, 3, 3, generator=draw)).square().sum().backward()
            network[0].bias.grad *= 0
            optimiser.step()
        steps.append(dict(network.named_parameters()))
    for name, value in steps[0].items():
        assert torch.allclose(value, steps[1][name], rtol=1e-4, atol=1e-6), name
    assert float((ours[0].weight - start[0].weight).detach().abs().max()) > 0.01
    assert torch.equal(ours[3].bias, start[3].bias)

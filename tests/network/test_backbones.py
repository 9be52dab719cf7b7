import pytest
import torch
from torch import nn

from headstart.errors import HeadstartError
from headstart.network.backbones import (
    BACKBONES,
    IMAGENET,
    LITE_PACKAGE,
    SYMMETRIC,
    backbone_named,
    build,
    num_features,
)
from headstart.network.cut import boundary_of, last_boundary, prefix, set_trainable, suffix, units


def test_each_variant_has_its_row_and_resolution():
    sizes = {name: row.preprocessing("crop").image_size for name, row in BACKBONES.items()}
    assert [sizes[f"b{number}"] for number in range(8)] == [224, 240, 260, 300, 380, 456, 528, 600]
    assert [sizes[f"lite{number}"] for number in range(5)] == [224, 240, 260, 280, 300]
    assert [sizes[f"v2-b{number}"] for number in range(4)] == [224, 240, 260, 300]
    assert [sizes[f"v2-{size}"] for size in "sml"] == [384, 480, 480]
    assert len(sizes) == 20
    assert BACKBONES["b0"].preprocessing("crop", 128).image_size == 128


def test_a_wrong_name_lists_the_valid_ones():
    with pytest.raises(HeadstartError, match=r"--backbone b9: unknown; expected one of lite0, lite1, .*v2-l"):
        backbone_named("b9")


@pytest.mark.parametrize("name", BACKBONES)
def test_the_table_agrees_with_the_module(name):
    import timm

    row = BACKBONES[name]
    with torch.device("meta"):
        network = timm.create_model(row.timm_name)
    assert sum(value.numel() for value in network.parameters()) == row.parameters
    top = network.get_submodule("classifier")
    assert row.parameters - row.parameters_without_top == sum(value.numel() for value in top.parameters())
    assert num_features(network) == network.num_features
    architecture, weights = row.timm_name.split(".")
    record = timm.get_pretrained_cfg(architecture, weights)
    named = {(0.485, 0.456, 0.406): IMAGENET, (0.5, 0.5, 0.5): SYMMETRIC}
    assert row.normalisation in (named[tuple(record.mean)], LITE_PACKAGE)
    assert (row.normalisation == LITE_PACKAGE) == (row.package is not None)


@pytest.mark.parametrize("name", BACKBONES)
def test_each_variant_cuts_at_each_boundary_and_trains_a_step(name):
    torch.manual_seed(0)
    network = build(BACKBONES[name], 3)
    nn.init.normal_(network.get_submodule("classifier").weight, std=0.02)
    preprocessing = BACKBONES[name].preprocessing("squash", 32)
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    with torch.inference_mode():
        whole = suffix(network, 0, preprocessing).eval()(pixels)
        # One pass through the prefix gives what stands at each boundary; what follows must give the same logits.
        activations = prefix(network, 1, preprocessing)(pixels)
        for boundary, (_, unit) in enumerate(units(network)[1:], 1):
            logits = suffix(network, boundary, preprocessing).eval()(activations)
            torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-5)
            activations = unit(activations)
        features = prefix(network, last_boundary(network), preprocessing)(pixels)
        logits = suffix(network, last_boundary(network), preprocessing).eval()(features)
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-5)

    trainable = suffix(network, boundary_of(network, 1), preprocessing)
    changing = set_trainable(trainable)
    before = {key: value.detach().clone() for key, value in changing.items()}
    optimiser = torch.optim.SGD(changing.values(), 0.1)
    activations = prefix(network, boundary_of(network, 1), preprocessing)(pixels).detach()
    # Of the least likely class: random weights may be so sure of another that there is nothing to learn from it.
    nn.functional.cross_entropy(trainable(activations), whole.argmin(dim=1)).backward()
    optimiser.step()
    assert not any(torch.equal(before[key], value) for key, value in changing.items() if key.endswith("conv.weight"))
    assert any(not torch.equal(before[key], value) for key, value in changing.items())


def test_parts_to_unfreeze_go_by_name():
    network = build(BACKBONES["lite0"], 3)
    names = [name for name, _ in units(network)]
    assert boundary_of(network, "all") == 0
    assert boundary_of(network, 0) == last_boundary(network)
    assert names[boundary_of(network, "head") :] == ["head"]
    assert names[boundary_of(network, "stage7") :] == ["blocks.6.0", "head"] == names[boundary_of(network, 1) :]
    assert names[boundary_of(network, "stage6")] == "blocks.5.0"
    with pytest.raises(
        HeadstartError, match=r"--unfreeze block5: expected a number of blocks, or one of all, head, st"
    ):
        boundary_of(network, "block5")

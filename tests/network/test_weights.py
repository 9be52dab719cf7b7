import re

import pytest
import torch

from headstart.errors import HeadstartError
from headstart.network import weights as module
from headstart.network.backbones import BACKBONES, backbone_named, build
from headstart.network.weights import check_sha256, load_weights, packaged_file, place_in_order


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_every_tensor_of_the_installed_weights_is_placed(name):
    backbone = BACKBONES[name]
    network = build(backbone, 7)
    load_weights(network, backbone)
    tensors = list(torch.load(packaged_file(name, backbone.package), weights_only=True).values())[:-2]
    placed = [value for key, value in network.state_dict().items() if not key.startswith("classifier.")]
    assert len(placed) == len(tensors) > 290
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(placed, tensors, strict=True))


def test_the_classifier_starts_at_zero():
    network = build(BACKBONES["lite0"], 7)
    assert network.classifier.weight.shape == (7, 1280)
    assert not network.classifier.weight.any() and not network.classifier.bias.any()


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(HeadstartError, match=r"weights\.pth: is damaged.*expected 579344248a93"):
        check_sha256(path, BACKBONES["lite0"].package.sha256)


def test_one_error_lists_every_mismatch():
    network = build(BACKBONES["lite0"], 7)
    tensors = dict(torch.load(packaged_file("lite0", BACKBONES["lite0"].package), weights_only=True))
    names = list(tensors)
    tensors[names[0]] = torch.zeros(1, 2)
    tensors[names[6]] = torch.zeros(3)
    with pytest.raises(HeadstartError) as caught:
        place_in_order(network, tensors, "here.pth")
    text = str(caught.value)
    assert text.startswith("here.pth: does not fit the network: ")
    assert re.findall(r"for (\S+) ", text) == ["conv_stem.weight", "blocks.0.0.conv_dw.weight"]
    del tensors[names[0]]
    with pytest.raises(HeadstartError, match="293 tensors for 294 places"):
        place_in_order(network, tensors, "here.pth")


def test_missing_weights_name_the_extra(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HeadstartError, match=r"--backbone lite1: .*not installed[\s\S]*headstart\[weights\]"):
        packaged_file("lite1", BACKBONES["lite1"].package)


def test_a_wrong_name_lists_the_valid_ones():
    with pytest.raises(HeadstartError, match="--backbone b9: unknown; expected one of lite0, lite1, lite2"):
        backbone_named("b9")

import numpy as np
import pytest
import torch

from headstart.network.backbones import BACKBONES, Normalise, build
from headstart.network.saliency import overlay, saliency

PREPROCESSING = BACKBONES["lite0"].preprocessing("squash", 64)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = build(BACKBONES["lite0"], 3)
    with torch.no_grad():
        made.get_submodule("classifier").get_parameter("weight").normal_()
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (18, 64, 64, 3), dtype=np.uint8)


def test_maps_are_the_class_activation_maps_that_grad_cam_equals_here(network, pixels):
    classes = np.arange(18) % 3
    maps = saliency(network, PREPROCESSING, pixels, classes)
    assert maps.shape == (18, 2, 2) and maps.dtype == np.float32
    with torch.inference_mode():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        features = network.forward_features(Normalise(PREPROCESSING)(images))
    # Behind pooling and a linear classifier, Grad-CAM is the features weighted by the class's weights (Zhou, 2016).
    weights = network.get_submodule("classifier").get_parameter("weight")[torch.from_numpy(classes)]
    expected = torch.einsum("nchw,nc->nhw", features, weights).relu().numpy()
    highest = expected.max(axis=(1, 2), keepdims=True)
    assert np.allclose(maps, expected / np.where(highest > 0, highest, 1), atol=1e-4)
    assert set(maps.max(axis=(1, 2))) <= {0.0, 1.0}


def test_the_network_is_left_as_it_was(network, pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        before = network(images)
    saliency(network, PREPROCESSING, pixels, np.zeros(18, np.int64))
    with torch.inference_mode():
        assert torch.equal(network(images), before)
    assert not any(module.training or module._forward_hooks for module in network.modules())
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in network.parameters())


def test_no_photos_have_no_maps(network, pixels):
    assert len(saliency(network, PREPROCESSING, pixels[:0], np.zeros(0, np.int64))) == 0


def test_an_overlay_is_bright_where_the_map_is_high():
    photo = np.full((40, 60, 3), 128, np.uint8)
    shown = overlay(photo, np.array([[1, 0], [0, 0]], np.float32))
    assert shown.shape == photo.shape and shown.dtype == np.uint8
    assert shown[:5, :5].mean() > 160 > 60 > shown[-5:, -5:].mean()

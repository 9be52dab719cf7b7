"""Where a network looks: Grad-CAM (Selvaraju et al., 2017)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from headstart.network.backbones import Normalise
from headstart.photos.views import Pixels, Preprocessing

Maps = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]

# Grows evenly in lightness, so that a map reads the same in grey and to the colour-blind.
_COLOURS = "inferno"
# The share of the colours where a map is highest: the photo has to stay visible.
_STRONGEST = 0.6
# Of 16 photos of 256 pixels a single layer's output is 100 MB, in runs whose training was over.
_BATCH_SIZE = 4


def saliency(network: nn.Module, preprocessing: Preprocessing, pixels: Pixels, classes: Classes) -> Maps:
    """Return how much each place of photos speaks for a class, by Grad-CAM on the head convolution's output.

    The network is left as it was: no hook, gradient or mode stays.

    Args:
        network: a timm EfficientNet in evaluation mode.
        preprocessing: what its photos are prepared by.
        pixels: (n, image_size, image_size, 3) RGB in 0-255.
        classes: (n,) class indices, which the maps speak for.

    Returns:
        (n, h, w) at the head convolution's resolution, 0 to 1: the highest place of a map is 1, and a map is 0
        throughout where nothing speaks for the class.
    """
    from captum.attr import LayerGradCam

    normalise, end = Normalise(preprocessing), _End(network)
    grad_cam = LayerGradCam(end, end.features)
    maps = [np.empty((0, 1, 1), np.float32)] if not len(pixels) else []
    for start in range(0, len(pixels), _BATCH_SIZE):
        images = torch.from_numpy(pixels[start : start + _BATCH_SIZE]).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            # Grad-CAM needs no gradient before these features: the long way to them is not recorded.
            features = _features(network, normalise(images))
        targets = torch.from_numpy(classes[start : start + _BATCH_SIZE])
        found = grad_cam.attribute(features.requires_grad_(), targets, relu_attributions=True)
        maps.append(found.detach().squeeze(1).numpy())
    every = np.concatenate(maps).astype(np.float32)
    highest = every.max(axis=(1, 2), keepdims=True, initial=0)
    return every / np.where(highest > 0, highest, np.float32(1))


class _End(nn.Module):
    """What follows the head convolution's output, behind a layer whose output that is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = nn.Identity()
        # A list, because a registered network would change mode with this module.
        self._network = [network]
        self.eval()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        (network,) = self._network
        pooled = network.get_submodule("global_pool")(self.features(features))
        return torch.as_tensor(network.get_submodule("classifier")(pooled))


def _features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2"):  # bn2 holds the activation as well
        images = network.get_submodule(name)(images)
    return images


def overlay(pixels: Pixels, saliency_map: Maps) -> Pixels:
    """Lay a map over its photo: dark where nothing speaks for the class, bright where most does.

    Args:
        pixels: (h, w, 3) RGB in 0-255.
        saliency_map: of any height and width, 0 to 1; it is stretched to the photo.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    from matplotlib import colormaps

    height, width = pixels.shape[:2]
    stretched = Image.fromarray(saliency_map.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    heights = np.clip(np.asarray(stretched), 0, 1)
    colours = 255 * colormaps[_COLOURS](heights)[..., :3]
    # The blend is even, so that the photo's own brightness shows the same way everywhere.
    blended = (1 - _STRONGEST) * pixels.astype(np.float32) + _STRONGEST * colours
    return np.asarray(np.rint(blended), np.uint8)

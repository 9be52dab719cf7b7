"""The classifier as one graph, from a photo of any size to probabilities, for every format that can hold it.

Its resizing is that of `photos/views.py`, as matrix products: Pillow's bicubic filter, which grows with the reduction,
first across and then down, rounded to 8 bits after each. To the bit, wherever a library keeps float64: weights are
computed in it and rounded to Pillow's fixed point, and the products are exact in float32. All arithmetic on sizes is
on tensors, so that exporters keep it in the graph.
"""

from __future__ import annotations

import torch
from torch import nn

from headstart.evaluation.rejection import Rejection
from headstart.network.cut import last_boundary, prefix
from headstart.photos.views import CROP_FRACTION, Preprocessing

# The cubic convolution filter's parameter, as Pillow has it (Keys, 1981, with a = -0.5).
_A = -0.5
# Pillow rounds weights to so many bits after the point. Each is split into a part with the first of them and a rest,
# so that float32, with its 24 bits, adds up 8-bit pixels times either without rounding.
_WEIGHT_BITS, _COARSE_BITS = 22, 12


class PhotoClassifier(nn.Module):
    """Photos (n, height, width, 3), uint8 RGB, to probabilities (n, num_classes) and, with a rejection, acceptance.

    Args:
        network: a timm EfficientNet with its temperature in its classifier; it is shared, not copied.
        preprocessing: of the classifier.
        rejection: when a label is accepted; None for a graph that does not say.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, rejection: Rejection | None) -> None:
        super().__init__()
        self.resize = Resize(preprocessing)
        self.features = prefix(network, last_boundary(network), preprocessing)
        self.classifier = network.get_submodule("classifier")
        self.acceptance = Acceptance(rejection) if rejection is not None else None
        self.eval().requires_grad_(False)

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return probabilities, and acceptance where there is a rejection."""
        features = self.features(self.resize(photos))
        probabilities = self.classifier(features).softmax(dim=1)
        if self.acceptance is None:
            return (probabilities,)
        return probabilities, self.acceptance(probabilities, features)


class Resize(nn.Module):
    """(n, height, width, 3) uint8 photos to (n, 3, image_size, image_size) float32 pixels in 0-255."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._size, self._policy = preprocessing.image_size, preprocessing.resize_policy
        places = torch.arange(self._size, dtype=torch.float64)
        self.register_buffer("places", places, persistent=False)
        fill = torch.tensor([float(round(value)) for value in preprocessing.mean]).view(3, 1, 1)
        self.register_buffer("fill", fill, persistent=False)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Resize by the record's policy."""
        rows = torch.arange(photos.shape[1], dtype=torch.float64)
        columns = torch.arange(photos.shape[2], dtype=torch.float64)
        height, width = rows[-1] + 1, columns[-1] + 1
        shorter, longer = torch.minimum(height, width), torch.maximum(height, width)
        across, inside_across = self._axis(columns, width, shorter, longer)
        down, inside_down = self._axis(rows, height, shorter, longer)
        pixels = photos.permute(0, 3, 1, 2).float()
        pixels = _rounded(*(pixels @ part.T for part in across))
        pixels = _rounded(*(part @ pixels for part in down))
        if self._policy != "letterbox":
            return pixels
        return torch.where(inside_down[:, None] & inside_across, pixels, self.get_buffer("fill"))

    def _axis(
        self, pixels: torch.Tensor, length: torch.Tensor, shorter: torch.Tensor, longer: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the (image_size, length) weights along an axis, split, and which of its places show the photo."""
        places = self.get_buffer("places")
        start, inner, offset = torch.zeros_like(length), torch.full_like(length, self._size), torch.zeros_like(length)
        part = length
        if self._policy == "crop":
            part = CROP_FRACTION * shorter
            start = (length - part) / 2
        elif self._policy == "letterbox":
            inner = torch.clamp(torch.round(length * (self._size / longer)), min=1.0)
            offset = torch.floor((self._size - inner) / 2)
        scale = part / inner
        widened = torch.clamp(scale, min=1.0)
        centre = (start + (places - offset + 0.5) * scale)[:, None]
        # The filter ends at whole pixels.
        first = torch.clamp(torch.floor(centre - 2 * widened + 0.5), min=0.0)
        last = torch.floor(centre + 2 * widened + 0.5)
        weights = _cubic((pixels + 0.5 - centre) / widened) * ((pixels >= first) & (pixels < last))
        # Places beside the photo, which reach no pixel, are filled later: they only must not be divided by 0.
        total = weights.sum(dim=1, keepdim=True)
        weights = weights / torch.where(total.abs() < 1e-6, torch.ones_like(total), total)
        return _split(weights), (places >= offset) & (places < offset + inner)


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    x = distance.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _split(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round weights to Pillow's fixed point; return them as the sum of a coarse part and a rest, in float32."""
    units = torch.floor(weights.abs() * 2**_WEIGHT_BITS + 0.5) * torch.sign(weights)
    coarse = torch.floor(units / 2 ** (_WEIGHT_BITS - _COARSE_BITS) + 0.5) / 2**_COARSE_BITS
    return coarse.float(), (units / 2**_WEIGHT_BITS - coarse).float()


def _rounded(coarse: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Add the sums of both parts and round to 0-255, halves up; without the whole numbers, both fit 24 bits."""
    whole = torch.floor(coarse + 0.5)
    return torch.clamp(whole + torch.floor(coarse + 0.5 - whole + rest), 0.0, 255.0)


class Acceptance(nn.Module):
    """Probabilities (n, num_classes) and features (n, num_features) to whether each label is accepted (n,)."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__()
        self.register_buffer("directions", torch.from_numpy(rejection.directions), persistent=False)
        self._least, self._greatest = rejection.least_probability, rejection.greatest_distance

    def forward(self, probabilities: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Say which labels are accepted."""
        unit = features / torch.clamp(torch.linalg.vector_norm(features, dim=1, keepdim=True), min=1e-6)
        distance = 1 - (unit @ self.get_buffer("directions").T).amax(dim=1)
        return (probabilities.amax(dim=1) >= self._least) & (distance <= self._greatest)

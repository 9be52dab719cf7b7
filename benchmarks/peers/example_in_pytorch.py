"""A peer: the recipe of the Keras example "Image classification via fine-tuning with EfficientNet", in PyTorch.

Frozen: pooled features, batch normalisation, dropout of 0.2 and a dense layer; Adam at 1e-2, batches of 64, 25 epochs.
Then the example's last 20 layers, which are the last block and the head convolution, without batch normalisation: Adam
at 1e-4, 10 epochs. Every photo is rotated by up to 0.15 of a turn and flipped both ways anew in every epoch, and runs
through the whole network. Written to be quick: photos are decoded once and kept in memory, a batch is augmented in one
resampling (the example also shifts photos and changes contrast, which would only take longer), channels last, no
validation between the epochs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lite0 import IMAGE_SIZE, lite0
from peer import Result, parser, seconds_since_start

BATCH_SIZE = 64
ROTATION = 0.15 * 2 * math.pi


@dataclass(frozen=True)
class Photos:
    """Photos in memory: (n, 3, size, size) uint8 pixels and (n,) class indices."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def batches(self, order: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the photos in this order, as float32 pixels from 0 to 255 and labels."""
        for rows in torch.split(order, BATCH_SIZE):
            yield self.pixels[rows].float(), self.labels[rows]


def main() -> None:
    options = _options()
    torch.manual_seed(options.seed)
    train, class_names = decoded(options.photos / "train")
    network = Network(len(class_names))
    fit(network, train, options.epochs_frozen, 1e-2)
    network.unfreeze()
    fit(network, train, options.epochs_tuned, 1e-4)
    torch.save({"network": network.state_dict(), "class_names": class_names}, options.result.with_suffix(".pt"))
    seconds = seconds_since_start()
    Result(accuracy(network, decoded(options.photos / "test")[0]), seconds).write(options.result)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--epochs-frozen", type=int, default=25, help="(25)")
    options.add_argument("--epochs-tuned", type=int, default=10, help="(10)")
    return options.parse_args()


def decoded(folder: Path) -> tuple[Photos, list[str]]:
    """Decode the photos of a folder, squashed to the network's size, in two processes."""
    squash = transforms.Compose([transforms.Resize((IMAGE_SIZE, IMAGE_SIZE)), transforms.PILToTensor()])
    photos = ImageFolder(folder, squash)
    parts = list(DataLoader(photos, BATCH_SIZE, num_workers=2))
    return Photos(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))), photos.classes


class Network(nn.Module):
    """Lite0 and the example's head; until `unfreeze` is called only the head trains."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        body = lite0(0).to(memory_format=torch.channels_last)
        self.frozen = nn.Sequential(body.conv_stem, body.bn1, *body.blocks[:-1])
        self.tuned = nn.Sequential(body.blocks[-1], body.conv_head, body.bn2, body.global_pool)
        dense = nn.Linear(body.num_features, num_classes)
        nn.init.xavier_uniform_(dense.weight)
        nn.init.zeros_(dense.bias)
        # Keras's constants; its momentum of 0.99 counts from the other end.
        normalisation = nn.BatchNorm1d(body.num_features, eps=1e-3, momentum=0.01)
        self.head = nn.Sequential(normalisation, nn.Dropout(0.2), dense)
        self.requires_grad_(False)
        self.head.requires_grad_(True)

    def unfreeze(self) -> None:
        """Let the last block and the head convolution train, but not their batch normalisation."""
        for part in self.tuned.modules():
            if isinstance(part, nn.Conv2d):
                part.requires_grad_(True)

    def train(self, mode: bool = True) -> Network:
        """Only the head knows training: frozen batch normalisation keeps its statistics, as in Keras."""
        super().train(False)
        self.head.train(mode)
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits of (n, 3, size, size) pixels from 0 to 255."""
        pixels = ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            activations = self.frozen(pixels)
        return self.head(self.tuned(activations))


def fit(network: Network, photos: Photos, epochs: int, learning_rate: float) -> None:
    """Train what is trainable for so many epochs."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trainable, learning_rate, eps=1e-7)  # Keras's epsilon
    network.train()
    for number in range(epochs):
        total = 0.0
        for pixels, labels in photos.batches(torch.randperm(len(photos.labels))):
            if len(labels) < 2:
                continue  # batch normalisation of a single photo is undefined
            loss = F.cross_entropy(network(augmented(pixels)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += len(labels) * loss.item()
        print(f"epoch {number + 1} of {epochs}: loss {total / len(photos.labels):.3f}", flush=True)


def augmented(pixels: torch.Tensor) -> torch.Tensor:
    """Rotate and flip each photo of a batch by a draw of its own; beyond its edges it is mirrored, as in Keras."""
    count = len(pixels)
    angles = (2 * torch.rand(count) - 1) * ROTATION
    flip_x, flip_y = 2.0 * torch.randint(0, 2, (2, count)) - 1
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros(count)
    rows = [cosine * flip_x, -sine * flip_x, zero], [sine * flip_y, cosine * flip_y, zero]
    matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


@torch.no_grad()
def accuracy(network: Network, photos: Photos) -> float:
    """Return the share of photos whose class is recognised."""
    network.eval()
    batches = photos.batches(torch.arange(len(photos.labels)))
    return sum(int((network(pixels).argmax(1) == labels).sum()) for pixels, labels in batches) / len(photos.labels)


if __name__ == "__main__":
    main()

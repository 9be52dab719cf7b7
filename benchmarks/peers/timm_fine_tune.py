"""A peer: fine-tuning the whole network with timm's parts, as its users do.

AdamW with layer decay of 0.75, a cosine with warm-up, label smoothing of 0.1, random crops, flips and a light
RandAugment from timm's `create_transform`, 15 epochs in batches of 32, channels last, all training photos. The last
epoch's weights are kept.
"""

from __future__ import annotations

import argparse

import timm.optim
import torch
from timm.data import create_transform
from timm.loss import LabelSmoothingCrossEntropy
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from lite0 import IMAGE_SIZE, MEAN, STD, lite0
from peer import Result, parser, seconds_since_start

BATCH_SIZE = 32
WARMUP_SHARE = 0.1


def main() -> None:
    options = _options()
    torch.manual_seed(options.seed)
    loader = training_loader(options)
    network = lite0(len(loader.dataset.classes)).to(memory_format=torch.channels_last)
    fit(network, loader, options)
    torch.save(
        {"network": network.state_dict(), "class_names": loader.dataset.classes}, options.result.with_suffix(".pt")
    )
    seconds = seconds_since_start()
    Result(accuracy(network, options), seconds).write(options.result)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--epochs", type=int, default=15, help="(15)")
    options.add_argument("--learning-rate", type=float, default=1e-3, help="peak, of the head (0.001)")
    options.add_argument("--weight-decay", type=float, default=0.05, help="(0.05)")
    options.add_argument("--layer-decay", type=float, default=0.75, help="(0.75)")
    return options.parse_args()


def training_loader(options: argparse.Namespace) -> DataLoader:
    """Return the augmented training photos, shuffled."""
    augment = create_transform(
        IMAGE_SIZE,
        is_training=True,
        scale=(0.5, 1.0),
        auto_augment="rand-m5-n2-mstd0.5-inc1",
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
    )
    photos = ImageFolder(options.photos / "train", augment)
    # An incomplete batch would be a noisy step, with noisy statistics; of few photos it is all that there is.
    drop_last = len(photos) > BATCH_SIZE
    return DataLoader(photos, BATCH_SIZE, shuffle=True, drop_last=drop_last, num_workers=2, persistent_workers=True)


def fit(network: nn.Module, loader: DataLoader, options: argparse.Namespace) -> None:
    """Train every layer, with the learning rate changing at every step."""
    optimiser = timm.optim.create_optimizer_v2(
        network,
        opt="adamw",
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        layer_decay=options.layer_decay,
    )
    steps = options.epochs * len(loader)
    warmup = max(1, round(WARMUP_SHARE * steps))
    schedule = CosineLRScheduler(optimiser, t_initial=steps, warmup_t=warmup, warmup_prefix=False, t_in_epochs=False)
    criterion = LabelSmoothingCrossEntropy(0.1)
    network.train()
    step = 0
    for epoch in range(options.epochs):
        for pixels, labels in loader:
            schedule.step_update(step)
            loss = criterion(network(pixels.contiguous(memory_format=torch.channels_last)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
        print(f"epoch {epoch + 1} of {options.epochs}: last loss {loss.item():.3f}", flush=True)


@torch.inference_mode()
def accuracy(network: nn.Module, options: argparse.Namespace) -> float:
    """Return the share of test photos whose class is recognised."""
    network.eval()
    plain = create_transform(IMAGE_SIZE, interpolation="bicubic", crop_pct=0.875, mean=MEAN, std=STD)
    photos = ImageFolder(options.photos / "test", plain)
    correct = 0
    for pixels, labels in DataLoader(photos, BATCH_SIZE, num_workers=2):
        logits = network(pixels.contiguous(memory_format=torch.channels_last))
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(photos)


if __name__ == "__main__":
    main()

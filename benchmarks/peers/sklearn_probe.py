"""A peer: scikit-learn's logistic regression on the frozen network's features, from PyTorch.

Photos are resized to 256 pixels and cropped to 224, and run once through the network: channels last, batches of 32,
inference mode, two decoding processes. Features are standardised; C is chosen of eleven by 5-fold cross-validation, and
the classifier fitted again on all training photos.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lite0 import IMAGE_SIZE, MEAN, STD, lite0
from peer import Result, parser, seconds_since_start

BATCH_SIZE = 32
GRID = np.logspace(-4, 1, 11)


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.manual_seed(options.seed)
    network = lite0(0).eval().to(memory_format=torch.channels_last)
    features, labels, class_names = embedded(network, options.photos / "train")
    classifier = fitted(features, labels, options.seed)
    with options.result.with_suffix(".pickle").open("wb") as file:
        pickle.dump((classifier, class_names), file)
    seconds = seconds_since_start()
    features, labels, _ = embedded(network, options.photos / "test")
    chosen = float(np.ravel(classifier[-1].C_)[0])
    accuracy = float((classifier.predict(features) == labels).mean())
    Result(accuracy, seconds, f"C {chosen:.2g}").write(options.result)


@torch.inference_mode()
def embedded(network: nn.Module, folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return (n, 1280) features, (n,) class indices and the class names of a folder's photos."""
    prepare = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(IMAGE_SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    photos = ImageFolder(folder, prepare)
    loader = DataLoader(photos, BATCH_SIZE, num_workers=2)
    parts = [network(pixels.contiguous(memory_format=torch.channels_last)).numpy() for pixels, _ in loader]
    return np.concatenate(parts), np.array(photos.targets), photos.classes


def fitted(features: np.ndarray, labels: np.ndarray, seed: int) -> Pipeline:
    """Fit the classifier, with the C that cross-validation finds best by log loss."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    regression = LogisticRegressionCV(
        Cs=GRID,
        l1_ratios=(0,),
        cv=folds,
        scoring="neg_log_loss",
        max_iter=1000,
        n_jobs=2,
        use_legacy_attributes=False,
    )
    # The folds are fitted side by side; threads of the linear algebra besides would be more than there are cores.
    with threadpool_limits(1):
        return make_pipeline(StandardScaler(), regression).fit(features, labels)


if __name__ == "__main__":
    main()

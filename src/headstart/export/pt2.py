"""A classifier as an exported PyTorch program: `model.pt2`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from headstart.classifier import Classifier
from headstart.evaluation.metrics import Bools, Probabilities
from headstart.export.graph import PhotoClassifier
from headstart.export.parity import Runtime
from headstart.photos.views import Pixels

_MOST_PHOTOS, _LONGEST_SIDE = 1024, 65535


def exported_program(classifier: Classifier) -> Any:
    """Return the classifier as a `torch.export` program whose batch, height and width are free."""
    graph = PhotoClassifier(classifier.network, classifier.preprocessing, classifier.rejection)
    sizes = {
        0: torch.export.Dim("n", min=1, max=_MOST_PHOTOS),
        1: torch.export.Dim("height", min=1, max=_LONGEST_SIDE),
        2: torch.export.Dim("width", min=1, max=_LONGEST_SIDE),
    }
    example = torch.zeros(2, 96, 80, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's own modules, which it is replacing
        return torch.export.export(graph, (example,), dynamic_shapes={"photos": sizes})


def write(classifier: Classifier, folder: Path) -> None:
    """Write `model.pt2`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported_program(classifier), folder / "model.pt2")


def open_model(path: Path) -> Runtime:
    """Read a program again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()

    @torch.inference_mode()
    def run(photos: Pixels) -> tuple[Probabilities, Bools | None]:
        probabilities, *accepted = module(torch.from_numpy(photos.copy()))
        return probabilities.numpy(), accepted[0].numpy() if accepted else None

    return run

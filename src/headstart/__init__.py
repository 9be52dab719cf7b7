"""Headstart turns a folder of photos into an image classifier by fine-tuning EfficientNet.

import headstart
run = headstart.train("photos", output="run")
classifier = headstart.load("run/classifier")
classifier.predict(["a.jpg", "b.png"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError, PhotoError

if TYPE_CHECKING:
    from headstart.checking import PhotoReport, check
    from headstart.classifier import Classifier, load
    from headstart.comparison import compare
    from headstart.growing import add
    from headstart.recipe import Recipe
    from headstart.report.pictures import plot_history, show_samples, show_views
    from headstart.run import Run, train

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "HeadstartError",
    "PhotoError",
    "PhotoReport",
    "Recipe",
    "Run",
    "__version__",
    "add",
    "check",
    "compare",
    "load",
    "plot_history",
    "show_samples",
    "show_views",
    "train",
]

_HOMES = {
    "Classifier": "headstart.classifier",
    "add": "headstart.growing",
    "check": "headstart.checking",
    "compare": "headstart.comparison",
    "load": "headstart.classifier",
    "PhotoReport": "headstart.checking",
    "Recipe": "headstart.recipe",
    "plot_history": "headstart.report.pictures",
    "show_samples": "headstart.report.pictures",
    "show_views": "headstart.report.pictures",
    "Run": "headstart.run",
    "train": "headstart.run",
}


def __getattr__(name: str) -> Any:
    """Import the heavy parts on first use, so that `headstart --help` answers at once (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    from importlib import import_module

    from headstart.training.process import prepare_process

    prepare_process()
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

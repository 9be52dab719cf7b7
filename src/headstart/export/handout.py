"""What goes with an exported model: its labels, an example that needs no Headstart, and a README."""

from __future__ import annotations

from typing import Any

from headstart.classifier import Classifier
from headstart.export.formats import Format
from headstart.export.measuring import Measured
from headstart.export.parity import Parity
from headstart.photos.views import CROP_FRACTION


def labels_text(classifier: Classifier) -> str:
    """Return the class names in the order of the probabilities, one a line."""
    # A name may hold a line break, and a line is a class.
    return "".join(" ".join(name.splitlines()) + "\n" for name in classifier.class_names)


def example(made: Format, classifier: Classifier) -> str:
    """Return a program that classifies the photo named on its command line."""
    return _rendered("example.py.jinja", made, classifier)


def readme(made: Format, classifier: Classifier, parity: Parity, measured: dict[str, Measured]) -> str:
    """Return the README of an exported model."""
    rejection = classifier.rejection if made.whole else None
    return _rendered(
        "README.md.jinja",
        made,
        classifier,
        parity=parity,
        measured=measured,
        accepts=rejection.told() if rejection is not None else None,
    )


def _rendered(template: str, made: Format, classifier: Classifier, **further: Any) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(  # noqa: S701
        loader=PackageLoader("headstart.export", "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    preprocessing = classifier.preprocessing
    return environment.get_template(template).render(
        made=made,
        model=made.files[0],
        backbone=classifier.backbone,
        num_classes=len(classifier.class_names),
        size=preprocessing.image_size,
        policy=preprocessing.resize_policy,
        decode_short_side=preprocessing.decode_short_side,
        crop_fraction=CROP_FRACTION,
        fill=tuple(round(value) for value in preprocessing.mean),
        says_accepted=made.whole and classifier.rejection is not None,
        **further,
    )

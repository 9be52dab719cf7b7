"""The model card that travels with a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.evaluation.metrics import accuracy_text
from headstart.photos.names import readable_names

if TYPE_CHECKING:
    from headstart.classifier import Classifier

_CARD = """\
# Image classifier: {num_classes} classes

Made by Headstart by {how} EfficientNet ({backbone}).

- **Input**: a photo; it is turned upright, converted to RGB and resized to {size} x {size} pixels ({policy}).
- **Output**: a probability for each class: {classes}.
- **Trained on** {training_photos:,} photos; kept: {kept}.
- **Validation accuracy** (used for choosing): {validation}.
- **Test accuracy** (measured once, after every choice was made): {test}.

## Use

```python
import headstart

classifier = headstart.load("classifier")
classifier.predict(["a.jpg", "b.png"])
```

or `headstart predict classifier PHOTOS`.

## Limits

The numbers hold for photos like those it was trained on. {rejection} {origin}
"""


_NEVER = "It always names one of its classes, also for a photo of something else."
_REJECTS = """It always names a class, also for a photo of something else; the column `accepted` of its predictions says
whether to trust it: {rule}."""
_ORIGINS = {
    "imagenet": "The weights it started from were trained on ImageNet, whose biases it may carry.",
    "none": "It started from random weights and knows nothing but these photos.",
}


def model_card(classifier: Classifier) -> str:
    """Write the card as Markdown."""
    training = classifier.training
    weights = training.get("recipe", {}).get("weights", "imagenet")
    return _CARD.format(
        num_classes=len(classifier.class_names),
        how="training" if weights == "none" else "fine-tuning",
        origin=_ORIGINS.get(weights, f"It started from the weights of {weights}, whose biases it may carry."),
        backbone=classifier.backbone,
        size=classifier.preprocessing.image_size,
        policy=classifier.preprocessing.resize_policy,
        classes=", ".join(f"`{name}`" for name in readable_names(classifier.class_names)),
        rejection=_REJECTS.format(rule=classifier.rejection.told()) if classifier.rejection else _NEVER,
        training_photos=training.get("training_photos", 0),
        kept=training["kept"]["stage"] if "kept" in training else "unknown",
        validation=accuracy_text(training["validation"]) if "validation" in training else "not measured",
        test=accuracy_text(training["test"]) if "test" in training else "not measured",
    )

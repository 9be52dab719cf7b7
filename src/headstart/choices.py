"""The choices that have names, as options, recipes and the code that follows them know them.

They stand here because nothing heavy is imported: the command line offers them at once.
"""

from __future__ import annotations

from typing import Literal

ResizePolicy = Literal["crop", "squash", "letterbox"]
"""How a photo becomes a square."""
Augmentation = Literal["none", "example", "example-full", "photo", "strong"]
"""The policy of the augmented views."""
WantedEngine = Literal["auto", "openvino", "torch"]
"""What runs the frozen network."""
Head = Literal["probe", "example"]
"""What is fitted on the frozen features: the probe, or the Keras example's head."""
ClassWeights = Literal["auto", "none", "balanced"]
"""Whether rare classes weigh more in the loss."""
Optimiser = Literal["lamb", "adamw", "adam", "sgd", "rmsprop"]
"""What takes the steps of training."""
Schedule = Literal["cosine", "constant"]
"""How the learning rate goes on after warm-up."""
Keep = Literal["best", "last"]
"""Which epoch's weights are kept: the best on validation photos, or the last."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Of training's forward pass."""

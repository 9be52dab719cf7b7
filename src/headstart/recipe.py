"""The recipe: every choice of a run as one validated value, to and from TOML."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from headstart.choices import (
    Augmentation,
    ClassWeights,
    Head,
    Keep,
    Optimiser,
    Precision,
    ResizePolicy,
    Schedule,
    WantedEngine,
)
from headstart.errors import HeadstartError, listed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]


_INTEGER = re.compile(r"[+-]?[0-9]+")
_TIME = re.compile(r"(?!0+(\.0*)?[smh])\d+(\.\d*)?[smh]")

# With any of these replaced, a plan no longer fits.
_PLANNED_FROM = {
    "photos",
    "labels",
    "budget",
    "backbone",
    "weights",
    "image_size",
    "probe_views",
    "int8_views",
    "unfreeze",
    "epochs",
    "batch_size",
    "num_views",
    "refit",
}

# What optimisers whose steps are not relative to the weights want instead.
_ABSOLUTE_RATES: dict[str, Any] = {"learning_rate": 5e-4, "head_learning_rate": 2e-4}

# What training from random weights wants instead.
_FROM_SCRATCH: dict[str, Any] = {
    "budget": "none",
    "optimiser": "adamw",
    "unfreeze": "all",
    "epochs": 40,
    "learning_rate": 2e-3,
    "head_learning_rate": 2e-3,
    "augmentation": "photo",
    "batch_size": 32,
    "weight_decay": 0.05,
    "warmup_epochs": 3.0,
    "ema_decay": 0.999,
    "drop_path_rate": 0.1,
    "train_batch_norm": True,
    "patience": 20,
    "refit": False,
}


Part = int | str
"""What trains: a number of blocks counted from the end, with the head convolution; `all`; or the first part by name."""


class Step(BaseModel):
    """One step of fine-tuning: which part trains, in how many epochs, on how many stored views, in which batches.

    `image_size` is that of the photos in pixels, where it is not the plan's; of the training and validation photos one
    in `one_in` of each class is seen. `seconds` are forecast for its training, `head_seconds` for fitting a head on
    what it has tuned; `refit_epochs` is how long it is refitted for, if it is the last: 0 for not at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unfreeze: Part
    epochs: int = Field(ge=1, le=1000)
    num_views: int = Field(ge=1, le=64)
    batch_size: int = Field(default=16, ge=1, le=4096)
    image_size: int | None = Field(None, ge=32, le=1024)
    one_in: int = Field(1, ge=1)
    seconds: float = Field(ge=0)
    head_seconds: float = Field(0.0, ge=0)
    refit_epochs: int = Field(1, ge=0)


class Plan(BaseModel):
    """What was planned for some photos, a computer and a budget; steps go from the last blocks towards the pixels.

    `num_photos` is about how many photos are used where not all are, `searched_rows` how many rows of features the
    probe's regularisation is searched on at most, `int8_views` whether augmented views are computed in 8-bit integers.
    `seconds` is the forecast for the whole run, `closing_seconds` that for what follows the test: labels, report.
    `check` says whether there is time to look for what is wrong with photos and labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=32, le=1024)
    num_photos: int | None = Field(default=None, ge=1)
    probe_views: int = Field(ge=1, le=64)
    searched_rows: int = Field(default=40_000, ge=1)
    int8_views: bool = False
    steps: tuple[Step, ...]
    seconds: float = Field(ge=0, description="forecast for the whole run")
    closing_seconds: float = Field(default=4.0, ge=0)
    check: bool = True


class Recipe(BaseModel):
    """Every choice of a run. The defaults are explained in docs/experiments.md.

    `photos` is a folder, a table of paths and labels, or the name of a dataset. Image size, depth, views, epochs and
    batch size are planned where they are None: `plan` is what was chosen within `budget` for the photos and the
    computer at hand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: str
    labels: str | None = Field(None, description="a table of corrected labels")
    check: bool = Field(True, description="look for what is wrong with photos and labels")
    outsiders: str | None = Field(None, description="a folder of photos of none of the classes, to test rejection on")
    backbone: str = "lite0"
    weights: str = Field("imagenet", description="imagenet, none (training from scratch) or a file")
    image_size: int | None = Field(None, ge=32, le=1024, description="pixels")
    resize_policy: ResizePolicy = "crop"
    seed: int = Field(0, ge=0, lt=2**32)
    validation_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.15, gt=0, lt=1)
    engine: WantedEngine = "auto"
    budget: str = Field("5m", description="time for the whole run, as 90s, 5m or 1h; none: as long as it takes")

    augmentation: Augmentation = "strong"
    num_views: int | None = Field(None, ge=1, le=64, description="of each training photo, the evaluation view included")
    int8_views: bool = Field(True, description="augmented views in 8-bit integers, where that pays and holds")

    head: Head = "probe"
    probe_views: int | None = Field(None, ge=1, le=64, description="of each photo, for the probe")
    class_weights: ClassWeights = "auto"
    min_accuracy: float = Field(0.95, gt=0, lt=1, description="of the predictions that are accepted")

    example_epochs: int = Field(25, ge=1, le=1000, description="of the example's head; so the next two")
    example_batch_size: int = Field(64, ge=1, le=4096)
    example_learning_rate: float = Field(1e-2, gt=0, le=1)

    unfreeze: Part | None = Field(
        None, description="last blocks to train with the head convolution, all, or the first part: stage6; 0: none"
    )
    refit: bool = Field(True, description="on training and validation photos, after every choice is made")
    epochs: int | None = Field(None, ge=1, le=1000)
    batch_size: int | None = Field(None, ge=1, le=4096)
    optimiser: Optimiser = "lamb"
    schedule: Schedule = "cosine"
    learning_rate: float = Field(2e-3, gt=0, le=1, description="peak; with LAMB, of more than 17 layers it is less")
    head_learning_rate: float = Field(2e-3, gt=0, le=1)
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of a unit as a share of the next one's")
    weight_decay: float = Field(0.01, ge=0, le=10)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0, le=10, description="alpha; 0: none")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha; 0: none")
    warmup_epochs: float = Field(1.0, ge=0)
    ema_decay: float = Field(0.0, ge=0, lt=1, description="of averaged weights; 0: none")
    train_batch_norm: bool = False
    patience: int = Field(4, ge=1, description="epochs without a lower validation loss before training stops")
    time_limit: float | None = Field(None, gt=0, description="seconds of training, one epoch at least")
    keep: Keep = "best"
    precision: Precision = "auto"
    dropout_rate: float = Field(0.2, ge=0, lt=1)
    drop_path_rate: float = Field(0.0, ge=0, lt=1)

    plan: Plan | None = None

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        from headstart.network.backbones import backbone_named

        return backbone_named(name).name

    @field_validator("budget", mode="before")
    @classmethod
    def _time(cls, value: Any) -> str:
        text = str(value).strip().lower()
        number = f"{text}s" if text.replace(".", "", 1).isdecimal() else text
        if text != "none" and not _TIME.fullmatch(number):
            raise ValueError("a time such as 90s, 5m or 1h, or none")
        return number

    @field_validator("unfreeze", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) else value
        if isinstance(number, int) and not 0 <= number <= 128:
            raise ValueError("a number of blocks from 0 to 128, or a name such as all, head or stage6")
        return number

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; infinite where there is none."""
        if self.budget == "none":
            return math.inf
        return float(self.budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.budget[-1]]

    @property
    def from_scratch(self) -> bool:
        """Whether training starts from random weights: there is nothing to freeze, and no probe."""
        return self.weights == "none"

    @property
    def refits(self) -> bool:
        """Whether what is chosen is fitted once more: what starts from a probe is, if wanted."""
        return self.refit and self.head == "probe" and not self.from_scratch

    def refits_after(self, step: Step | None) -> bool:
        """Say whether what a step has tuned is fitted once more, or, without a step, a head."""
        return self.refits and (step is None or step.refit_epochs > 0)

    @classmethod
    def make(cls, **choices: Any) -> Recipe:
        """Make a recipe from choices; those that are None take their defaults, which depend on what trains.

        Raises:
            HeadstartError: naming every choice that is unknown or out of range.
        """
        given = {name: value for name, value in choices.items() if value is not None}
        if given.get("weights") == "none":
            given = {**_FROM_SCRATCH, **given}
        elif given.get("optimiser", "lamb") != "lamb":
            given = {**_ABSOLUTE_RATES, **given}
        try:
            made = cls(**given)
        except ValidationError as error:
            faults = [_fault(fault, cls) for fault in error.errors()]
            raise HeadstartError("; ".join(faults) + ".", "See `headstart train --help` for the choices.") from None
        if made.validation_fraction + made.test_fraction >= 1:
            raise HeadstartError(
                "--validation-fraction and --test-fraction: together they take all photos; expected a sum below 1.",
                "Leave at least half of the photos for training.",
            )
        return made

    @classmethod
    def read(cls, path: str | Path, **overrides: Any) -> Recipe:
        """Read a recipe from a TOML file, with some of its choices replaced.

        Raises:
            HeadstartError: when the file is missing, not TOML, or holds choices that are not valid.
        """
        try:
            choices = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise HeadstartError(f"--recipe {path}: cannot be read: {reason}.", "Give a run's recipe.toml.") from None
        except tomllib.TOMLDecodeError as error:
            raise HeadstartError(f"--recipe {path}: is not TOML: {error}.", "Give a run's recipe.toml.") from None
        choices = _changed(choices, overrides)
        if "photos" not in choices:
            raise HeadstartError(f"--recipe {path}: names no photos.", "Give the photos on the command line as well.")
        return cls.make(**choices)

    def changed(self, **choices: Any) -> Recipe:
        """Return a recipe with some choices replaced; with those that a plan was made for, the plan goes.

        Raises:
            HeadstartError: as `make` does.
        """
        return Recipe.make(**_changed(self.model_dump(), choices))

    def to_toml(self) -> str:
        """Write the recipe as TOML; what is left out there has no value here."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def differences(self, other: Recipe) -> list[str]:
        """List the choices in which two recipes differ, as `name: ours, theirs`; a plan only where both have one."""
        apart = {"plan"} if self.plan is None or other.plan is None else set()
        ours, theirs = self.model_dump(exclude=apart), other.model_dump(exclude=apart)
        return [f"{name} {theirs[name]!r} there, {ours[name]!r} here" for name in ours if ours[name] != theirs[name]]


def _changed(choices: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in overrides.items() if value is not None}
    replanned = _PLANNED_FROM & set(given)
    kept = {name: value for name, value in choices.items() if name != "plan" or not replanned}
    return {**kept, **given}


def _fault(fault: Any, model: type[BaseModel]) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "recipe"
    if fault["type"] == "extra_forbidden":
        return f"{name}: no such choice; expected one of {listed(list(model.model_fields), 60)}"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("should be ")
    return f"--{name.replace('_', '-')} {fault['input']}: expected {message}"

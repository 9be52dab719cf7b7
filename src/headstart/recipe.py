"""The recipe: every choice of a run as one validated value, to and from TOML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from headstart.errors import HeadstartError, listed
from headstart.photos.views import Augmentation, ResizePolicy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]


class Recipe(BaseModel):
    """Every choice of a run. The defaults are explained in docs/experiments.md.

    `photos` is a folder, a table of paths and labels, or the name of a dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: str
    backbone: str = "lite0"
    image_size: int | None = Field(None, ge=32, le=1024, description="pixels; the backbone's own where left out")
    resize_policy: ResizePolicy = "crop"
    seed: int = Field(0, ge=0, lt=2**32)
    validation_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.15, gt=0, lt=1)
    engine: Literal["auto", "openvino", "torch"] = "auto"

    augmentation: Augmentation = "photo"
    num_views: int = Field(4, ge=1, le=64, description="views of each training photo, the evaluation view among them")

    head: Literal["probe", "example"] = "probe"
    class_weights: Literal["auto", "none", "balanced"] = "auto"

    unfreeze: int = Field(
        1, ge=0, le=64, description="last blocks to train with the head convolution; 0: the head only"
    )
    epochs: int = Field(12, ge=1, le=1000)
    batch_size: int = Field(32, ge=1, le=4096)
    learning_rate: float = Field(5e-4, gt=0, le=1)
    head_learning_rate: float = Field(5e-4, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=10)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    warmup_epochs: float = Field(1.0, ge=0)
    patience: int = Field(4, ge=1, description="epochs without a lower validation loss before training stops")
    dropout_rate: float = Field(0.2, ge=0, lt=1)
    drop_path_rate: float = Field(0.0, ge=0, lt=1)

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        from headstart.network.backbones import backbone_named

        return backbone_named(name).name

    @classmethod
    def make(cls, **choices: Any) -> Recipe:
        """Make a recipe from choices; those that are None take their defaults.

        Raises:
            HeadstartError: naming every choice that is unknown or out of range.
        """
        given = {name: value for name, value in choices.items() if value is not None}
        if given.get("validation_fraction", 0.15) + given.get("test_fraction", 0.15) >= 1:
            raise HeadstartError(
                "--validation-fraction and --test-fraction: together they take all photos; expected a sum below 1.",
                "Leave at least half of the photos for training.",
            )
        try:
            return cls(**given)
        except ValidationError as error:
            faults = [_fault(fault, cls) for fault in error.errors()]
            raise HeadstartError("; ".join(faults) + ".", "See `headstart train --help` for the choices.") from None

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
        choices.update({name: value for name, value in overrides.items() if value is not None})
        if "photos" not in choices:
            raise HeadstartError(f"--recipe {path}: names no photos.", "Give the photos on the command line as well.")
        return cls.make(**choices)

    def to_toml(self) -> str:
        """Write the recipe as TOML; what is left out there has no value here."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def differences(self, other: Recipe) -> list[str]:
        """List the choices in which two recipes differ, as `name: ours, theirs`."""
        ours, theirs = self.model_dump(), other.model_dump()
        return [f"{name} {theirs[name]!r} there, {ours[name]!r} here" for name in ours if ours[name] != theirs[name]]


def _fault(fault: Any, model: type[BaseModel]) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "recipe"
    if fault["type"] == "extra_forbidden":
        return f"{name}: no such choice; expected one of {listed(list(model.model_fields), 40)}"
    message = fault["msg"].removeprefix("Input ").removeprefix("should be ")
    return f"--{name.replace('_', '-')} {fault['input']!r}: expected {message}"

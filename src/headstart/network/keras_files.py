"""Opening the weights files of Keras, with h5py alone: nothing in them is executed.

The formats are Keras 3's `.weights.h5` and `.keras` (a ZIP of the model's configuration and such a file), and the
legacy HDF5 of Keras 1 and 2, of weights or of whole models.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError


@dataclass(frozen=True)
class Layer:
    """A layer of a file: its name, and its variables (HDF5 datasets), whose numbers are not read yet."""

    name: str
    variables: list[Any]

    @property
    def named_class(self) -> str:
        """The class that Keras named it after by itself: `conv2d` of `conv2d_1`."""
        return _class_and_number(self.name)[0]

    @property
    def kind(self) -> str:
        """Keras's name for a class with such variables, since not every format tells the class."""
        shapes = [variable.shape for variable in self.variables]
        match [len(shape) for shape in shapes]:
            case []:
                return "none"
            case [1, 1, 1, 1]:
                return "batch_normalization"
            case [1, 1, 0]:
                return "normalization"
            case [4] | [4, 1]:
                return "depthwise_conv2d" if shapes[0][3] == 1 else "conv2d"
            case [2] | [2, 1]:
                return "dense"
        return "unknown"


@dataclass(frozen=True)
class KerasFile:
    """What a file holds: `layers` in the model's order, or (`legacy` false) of each class in the model's order.

    `config` lists the layers of the model's configuration, each with `class_name` and `config`; None where the file
    is of weights only.
    """

    layers: list[Layer]
    config: list[dict[str, Any]] | None
    legacy: bool


@contextmanager
def opened_keras(path: Path) -> Iterator[KerasFile]:
    """Open a file of any of the formats; its variables can be read inside the block.

    Raises:
        HeadstartError: when h5py is missing, and when the file is of another format or damaged, here or in the block.
    """
    try:
        import h5py
    except ImportError:
        raise HeadstartError(
            f"{path}: a Keras file needs h5py, which is not installed.",
            "Install it with: pip install 'headstart[keras]'.",
        ) from None
    try:
        source, config = _unpacked(path)
        with h5py.File(source, "r") as file:
            if config is None and "model_config" in file.attrs:
                config = json.loads(file.attrs["model_config"])
            layers = _layers(file)
            if not any(layer.variables for layer in layers):
                raise ValueError("it holds no layers with weights")
            yield KerasFile(layers, None if config is None else config["config"]["layers"], "layers" not in file)
    except HeadstartError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HeadstartError(
            f"{path}: is damaged, or was not written by Keras: {reason}.", "Download or save it again."
        ) from None


def _unpacked(path: Path) -> tuple[Path | io.BytesIO, dict[str, Any] | None]:
    """Return what h5py is to open, and the model's configuration of a `.keras` file."""
    try:
        with path.open("rb") as opened:
            head = opened.read(8)
    except OSError as error:
        raise HeadstartError(f"{path}: cannot be read: {error.strerror}.", "Give a file of Keras weights.") from None
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            return io.BytesIO(archive.read("model.weights.h5")), json.loads(archive.read("config.json"))
    if not head.startswith(b"\x89HDF"):
        raise HeadstartError(
            f"{path}: is not a Keras file (starts with {head!r}); expected HDF5 (.h5, .weights.h5) or .keras.",
            "Download it again, or save it in Keras with model.save_weights('model.weights.h5').",
        )
    return path, None


def _layers(file: Any) -> list[Layer]:
    if "layers" in file:
        names = sorted(file["layers"], key=_class_and_number)
        layers = [Layer(name, _numbered_variables(file["layers"][name])) for name in names]
    else:
        root = file["model_weights"] if "model_weights" in file else file
        layers = [Layer(name, _named_variables(root[name])) for name in _strings(root, "layer_names")]
    for variable in (variable for layer in layers for variable in layer.variables):
        _check_plain(variable, file)
    return layers


def _class_and_number(name: str) -> tuple[str, int]:
    """Split the names that Keras gives: `conv2d`, `conv2d_1` and so on, in the model's order."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdigit() else (name, 0)


def _numbered_variables(group: Any) -> list[Any]:
    variables = group.get("vars", {})
    return [variables[str(number)] for number in range(len(variables))]


def _named_variables(group: Any) -> list[Any]:
    return [group[name] for name in _strings(group, "weight_names")]


def _strings(group: Any, name: str) -> list[str]:
    """Read a list of strings from attributes; Keras splits long ones into `name0`, `name1` and so on."""
    parts = [name] if name in group.attrs else takewhile(group.attrs.__contains__, (f"{name}{n}" for n in count()))
    values = [value for part in parts for value in group.attrs[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _check_plain(variable: Any, file: Any) -> None:
    """Refuse what is not plain numbers in this very file: HDF5 can also point to other files of the computer."""
    elsewhere = variable.external or variable.is_virtual or variable.file.filename != file.filename
    if elsewhere or variable.dtype.kind not in "fiu":
        raise ValueError(f"{variable.name} is not stored as plain numbers")

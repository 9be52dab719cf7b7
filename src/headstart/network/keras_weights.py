"""Reading the weights files of keras.applications into timm's networks.

keras.applications' EfficientNet and timm's `tf_efficientnet` are the same networks with their variables in the same
order; only axes and names differ.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.errors import HeadstartError, listed
from headstart.network.backbones import Channels
from headstart.network.keras_files import KerasFile, Layer, opened_keras

Doubles = npt.NDArray[np.float64]

# The axes of a Keras kernel in PyTorch's order: (h, w, in, out) to (out, in, h, w), and so on.
_KERNEL_AXES = {"conv2d": (3, 2, 0, 1), "depthwise_conv2d": (2, 3, 0, 1), "dense": (1, 0)}
_NORM_VARIABLES = ("weight", "bias", "running_mean", "running_var")  # Keras: gamma, beta, moving mean and variance

# What keras.applications puts before the network; the numbers are ImageNet's, in units of 0-1 pixels.
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_TO_UNIT = {"class_name": "Rescaling", "config": {"scale": 1 / 255, "offset": 0}}
_STORED_NORMALISATION = {"class_name": "Normalization", "config": {}}
_V2_NORMALISATION = {"class_name": "Normalization", "config": {"mean": _MEAN, "variance": [std**2 for std in _STD]}}
_V2_TO_SIGNED_UNIT = {"class_name": "Rescaling", "config": {"scale": 1 / 128, "offset": -1}}
_IMAGENET_EXTRA = {"class_name": "Rescaling", "config": {"scale": [std**-0.5 for std in _STD], "offset": 0}}

# The layers of EfficientNet in Keras. A file that tells of others is another network, whatever its weights look like.
_LAYER_CLASSES = frozenset(
    "InputLayer Rescaling Normalization ZeroPadding2D Conv2D DepthwiseConv2D BatchNormalization Activation Reshape "
    "Multiply Add Dropout GlobalAveragePooling2D GlobalMaxPooling2D Dense".split()
)

_SAVE_ALONE = (
    "Use the file of this variant, saved from the EfficientNet alone: where it is a layer of another model, "
    "model.get_layer(NAME).save_weights('efficientnet.weights.h5')."
)

# The number of convolutions and of features tells the variants apart.
_VARIANTS = {
    (81, 1280): "b0",
    (115, 1280): "b1",
    (115, 1408): "b2",
    (130, 1536): "b3",
    (160, 1792): "b4",
    (194, 2048): "b5",
    (224, 2304): "b6",
    (273, 2560): "b7",
    (91, 1280): "v2-b0",
    (111, 1280): "v2-b1",
    (116, 1408): "v2-b2",
    (136, 1536): "v2-b3",
    (170, 1280): "v2-s",
    (245, 1280): "v2-m",
    (339, 1280): "v2-l",
}

# The files that keras.applications downloads for weights="imagenet", by name and by the MD5 it checks them with.
_OFFICIAL_NAME = re.compile(r"efficientnetb[0-7](_notop)?\.h5")
_OFFICIAL_MD5 = frozenset(
    """
    902e53a9f72be733fc0bcb005b3ebbac 50bc09e76180e00e4465e1a485ddc09d 1d254153d4ab51201f1646940f018540
    74c4e6b3e1f6a1eea24c589628592432 b15cce36ff4dcbd00b6dd88e7857a6ad 111f8e2ac8aa800a7a99e3239f7bfb39
    ffd1fdc53d0ce67064dc6a9c7960ede0 af6d107764bb5b1abb91932881670226 18c95ad55216b8f92d7e70b3a046e2fc
    ebc24e6d6c33eaebbd558eafbeedf1ba ace28f2a6363774853a83a0b21b9421a 38879255a25d3c92d5e44e04ae6cec6f
    165f6e37dce68623721b423839de8be5 9ecce42647a20130c1f39a5d4cb75743 8c03f828fec3ef71311cd463b6759d99
    cbcfe4450ddf6f3ad90b1b398090fe4a
    """.split()
)


@dataclass(frozen=True)
class KerasWeights:
    """What a Keras file holds, for a timm network.

    `tensors` are float32 under timm's names: all but the classifier's for a file without the top. With inputs
    `(pixels - mean) / std`, per channel and in units of 0-255 pixels, the network sees what Keras's would.
    """

    tensors: dict[str, torch.Tensor]
    mean: Channels
    std: Channels


@dataclass(frozen=True)
class _Place:
    """A module of the network and its tensors' names, in the order of Keras's variables."""

    kind: str
    tensors: list[str]


def read_keras(path: Path, network: nn.Module) -> KerasWeights:
    """Read a file of keras.applications' EfficientNet or EfficientNetV2 for a timm network of the same variant.

    The formats are Keras 3's `.weights.h5` and `.keras`, and the legacy HDF5 of weights (the official downloads) and
    of whole models. The classifier's shape is the file's own; every other tensor must fit the network.

    The pixels' mean and standard deviation come from the layers before the first convolution:

    - A file with the model's configuration (`.keras`, a legacy whole model) tells them with their numbers.
    - A file of weights names its layers, and they have keras.applications' numbers: `Rescaling` by 1/255, the stored
      `Normalization`, and where a second `Rescaling` is named, that by 1/sqrt(standard deviation). Keras adds that
      one for weights="imagenet" because the official files store standard deviations as the variance.
    - The official files themselves, known by their name (`efficientnetb0.h5`, `efficientnetb0_notop.h5`, to b7) or
      their MD5, were written before that layer existed and name one `Rescaling`; Keras loads them into a model with
      two, which their published accuracy belongs to, and so they are read here.

    Raises:
        HeadstartError: when h5py is missing, when the file is of another format or damaged, and when it does not fit
            the network: one error that lists every mismatch, or names the variant that the file belongs to.
    """
    with opened_keras(path) as file:
        _check_variant(file.layers, network, path)
        tensors = _placed(file.layers, network, path)
        mean, std = _pixel_statistics(_before_convolutions(file, path), file.layers)
        return KerasWeights(tensors, mean, std)


def keras_parameter_count(network: nn.Module, include_top: bool) -> int:
    """Count a timm network's parameters as Keras's `Model.count_params` does.

    Keras counts BatchNorm's moving statistics, and in EfficientNet (not in V2, where they are constants) the
    normalisation layer's mean, variance and count: 7 numbers.
    """
    stored = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    count = sum(tensor.numel() for name, tensor in stored.items() if include_top or not name.startswith("classifier."))
    return count if _is_v2(network) else count + 7


def _is_v2(network: nn.Module) -> bool:
    # V2 begins with fused blocks, which have no depthwise convolution.
    first = next(network.get_submodule("blocks.0").children())
    return not any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in first.modules())


def _places(network: nn.Module) -> list[_Place]:
    """List where the file's variables belong, all but the classifier's, in the order of the layers."""
    places = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            kind = "depthwise_conv2d" if module.groups > 1 else "conv2d"
            variables = ("weight",) if module.bias is None else ("weight", "bias")
            places.append(_Place(kind, [f"{name}.{variable}" for variable in variables]))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            places.append(_Place("batch_normalization", [f"{name}.{variable}" for variable in _NORM_VARIABLES]))
    return places


def _check_variant(layers: list[Layer], network: nn.Module, path: Path) -> None:
    convolutions = [layer.variables[0].shape for layer in layers if layer.kind.endswith("conv2d")]
    # Keras 3 lists each class by itself: the last one may be depthwise, whose last axis is 1, and is not the head's.
    features = next((shape[3] for shape in reversed(convolutions) if shape[3] > 1), 0)
    given = _VARIANTS.get((len(convolutions), features))
    kernels = [tensor for tensor in network.state_dict().values() if tensor.ndim == 4]
    expected = _VARIANTS.get((len(kernels), kernels[-1].shape[0]))
    if given is not None and given != expected:
        raise HeadstartError(
            f"{path}: holds EfficientNet {given}, and the network is {expected or 'another one'}.",
            f"Use it with {given}" + (f", or the file of {expected}." if expected else "."),
        )


def _placed(layers: list[Layer], network: nn.Module, path: Path) -> dict[str, torch.Tensor]:
    """Read every variable to its place.

    Raises:
        HeadstartError: one that lists every mismatch of count and shape.
    """
    state = network.state_dict()
    places = _places(network)
    pairs: list[tuple[Layer, _Place]] = []
    mismatches = [
        f"{layer.name} {[variable.shape for variable in layer.variables]} has no place"
        for layer in layers
        if layer.kind == "unknown"
    ]
    for kind in ("conv2d", "depthwise_conv2d", "batch_normalization"):
        given = [layer for layer in layers if layer.kind == kind]
        expected = [place for place in places if place.kind == kind]
        if len(given) != len(expected):
            mismatches.append(f"{len(given)} layers like {kind} for {len(expected)} places")
        pairs.extend(zip(given, expected, strict=False))
    for layer, place in pairs:
        mismatches.extend(_misfits(layer, place, state))
    dense = [layer for layer in layers if layer.kind == "dense"]
    mismatches.extend(_classifier_misfits(dense, int(state["bn2.weight"].numel())))
    if mismatches:
        raise HeadstartError(
            f"{path}: does not fit the network: {listed(mismatches, len(mismatches))}.",
            _SAVE_ALONE,
        )
    pairs.extend((layer, _Place("dense", ["classifier.weight", "classifier.bias"])) for layer in dense)
    return {
        name: _tensor(variable, layer.kind)
        for layer, place in pairs
        for name, variable in zip(place.tensors, layer.variables, strict=True)
    }


def _misfits(layer: Layer, place: _Place, state: dict[str, torch.Tensor]) -> list[str]:
    if len(layer.variables) != len(place.tensors):
        return [f"{layer.name} of {len(layer.variables)} variables for {' and '.join(place.tensors)}"]
    shapes = [tuple(variable.shape[axis] for axis in _axes(variable, layer.kind)) for variable in layer.variables]
    return [
        f"{layer.name} {shape} for {name} {tuple(state[name].shape)}"
        for shape, name in zip(shapes, place.tensors, strict=True)
        if shape != tuple(state[name].shape)
    ]


def _classifier_misfits(dense: list[Layer], num_features: int) -> list[str]:
    """Check the top, of any number of classes, if the file has one."""
    if len(dense) > 1:
        return [f"{len(dense)} layers like dense for one classifier: {listed([layer.name for layer in dense])}"]
    return [
        f"{layer.name} {[variable.shape for variable in layer.variables]} for a classifier of {num_features} features"
        for layer in dense
        if len(layer.variables) != 2 or layer.variables[0].shape != (num_features, layer.variables[1].shape[0])
    ]


def _axes(variable: Any, kind: str) -> tuple[int, ...]:
    return _KERNEL_AXES[kind] if len(variable.shape) > 1 else (0,)


def _tensor(variable: Any, kind: str) -> torch.Tensor:
    values = np.asarray(variable[()], np.float32).transpose(_axes(variable, kind))
    return torch.from_numpy(np.ascontiguousarray(values))


def _before_convolutions(file: KerasFile, path: Path) -> list[dict[str, Any]]:
    """List the layers that prepare pixels, as the model's configuration describes them or would.

    Raises:
        HeadstartError: when there are none, or others that no EfficientNet has.
    """
    before = _conventional(file, path) if file.config is None else _described(file.config, path)
    if not before:
        raise HeadstartError(
            f"{path}: does not tell how pixels are scaled; expected the Rescaling layers of keras.applications.",
            "Save the model with them (include_preprocessing=True), once each.",
        )
    return before


def _described(config: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    classes = [layer["class_name"] for layer in config]
    others = sorted(set(classes) - _LAYER_CLASSES)
    if others:
        raise HeadstartError(f"{path}: has layers that EfficientNet has not: {listed(others)}.", _SAVE_ALONE)
    before = config[: classes.index("Conv2D")]
    return [layer for layer in before if layer["class_name"] in ("Rescaling", "Normalization")]


def _conventional(file: KerasFile, path: Path) -> list[dict[str, Any]]:
    """Take the layers of keras.applications by their names, which a file of weights tells."""
    names = [layer.named_class for layer in file.layers]
    rescalings = names.count("rescaling")
    if any(layer.kind == "normalization" for layer in file.layers) and rescalings in (1, 2):
        # Keras 3's format is younger than the extra layer: where it names one layer, there was one.
        extra = rescalings == 2 or (file.legacy and _is_official(path))
        return [_TO_UNIT, _STORED_NORMALISATION] + [_IMAGENET_EXTRA] * extra
    if rescalings == 1:
        return [_TO_UNIT, _V2_NORMALISATION] if "normalization" in names else [_V2_TO_SIGNED_UNIT]
    return []


def _is_official(path: Path) -> bool:
    if _OFFICIAL_NAME.fullmatch(path.name):
        return True
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() in _OFFICIAL_MD5


def _pixel_statistics(before: list[dict[str, Any]], layers: list[Layer]) -> tuple[Channels, Channels]:
    """Join the layers before the first convolution, each `pixels * scale + offset`, into one mean and deviation."""
    scale, offset = np.ones(3), np.zeros(3)
    for layer in before:
        its_scale, its_offset = _scale_and_offset(layer, layers)
        scale, offset = scale * its_scale, offset * its_scale + its_offset
    red, green, blue = (float(value) for value in -offset / scale)
    mean = red, green, blue
    red, green, blue = (float(value) for value in 1 / scale)
    return mean, (red, green, blue)


def _scale_and_offset(layer: dict[str, Any], layers: list[Layer]) -> tuple[Doubles, Doubles]:
    settings = layer["config"]
    if layer["class_name"] == "Rescaling":
        return _per_channel(settings["scale"]), _per_channel(settings["offset"])
    if settings.get("mean") is not None:
        mean, variance = _per_channel(settings["mean"]), _per_channel(settings["variance"])
    else:
        stored = [found for found in layers if found.kind == "normalization"][0]
        mean, variance = (_per_channel(variable[()]) for variable in stored.variables[:2])
    # The least deviation is Keras's own.
    std = np.maximum(np.sqrt(variance), 1e-7)
    return 1 / std, -mean / std


def _per_channel(values: Any) -> Doubles:
    return np.broadcast_to(np.asarray(values, np.float64).reshape(-1), (3,))

"""The same network in Keras: plain layers with readable names, made by walking timm's modules."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.errors import HeadstartError
from headstart.export.silence import talk_held_back
from headstart.photos.views import Preprocessing

Array = npt.NDArray[np.float32]

# What a block runs, in order: a name, the convolution's and the norm's; "se" alone is squeeze-and-excitation.
_BLOCKS: dict[str, tuple[tuple[str, str, str] | str, ...]] = {
    "DepthwiseSeparableConv": (("depthwise", "conv_dw", "bn1"), "se", ("project", "conv_pw", "bn2")),
    "InvertedResidual": (
        ("expand", "conv_pw", "bn1"),
        ("depthwise", "conv_dw", "bn2"),
        "se",
        ("project", "conv_pwl", "bn3"),
    ),
    "EdgeResidual": (("expand", "conv_exp", "bn1"), "se", ("project", "conv_pwl", "bn2")),
    "ConvBnAct": (("project", "conv", "bn1"),),
}
_ACTIVATIONS = {"SiLU": "silu", "ReLU6": "relu6", "ReLU": "relu", "Sigmoid": "sigmoid", "Identity": "linear"}


@contextmanager
def keras_ready() -> Iterator[Any]:
    """Yield the Keras module, on the CPU and with channels last inside the block.

    Keras runs on PyTorch unless it is imported already or $KERAS_BACKEND says otherwise.

    Raises:
        HeadstartError: when Keras or its backend is not installed.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Keras imports TensorFlow where it is, which is talkative
    try:
        with talk_held_back():
            import keras
    except ImportError as error:
        raise HeadstartError(
            f"the export to Keras needs {error.name}, which is not installed.",
            "Install it with: pip install 'headstart[keras]', and unset $KERAS_BACKEND or set it to torch.",
        ) from None
    data_format = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        with keras.device("cpu:0"), warnings.catch_warnings():
            # Keras copies PyTorch's tensors in a way that NumPy deprecates.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            yield keras
    finally:
        keras.config.set_image_data_format(data_format)


def keras_model(network: nn.Module, preprocessing: Preprocessing, keras: Any) -> Any:
    """Build a timm EfficientNet, Lite or V2 as a Keras model with the same weights.

    Its input is (n, image_size, image_size, 3) RGB pixels in 0-255, which it normalises; its output is
    (n, num_classes) probabilities.

    Raises:
        HeadstartError: when the network has a block or an activation of another family.
    """
    layers = keras.layers
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    pixels = keras.Input((preprocessing.image_size, preprocessing.image_size, 3), name="pixels")
    x = layers.Rescaling((1 / std).tolist(), (-mean / std).tolist(), name="normalise")(pixels)
    x = _conv_norm(network, ("stem", "conv_stem", "bn1"), x, "", layers)
    for stage, blocks in enumerate(network.get_submodule("blocks").children(), 1):
        for number, block in enumerate(blocks.children(), 1):
            x = _block(block, x, f"block{stage}_{number}_", layers)
    x = _conv_norm(network, ("head", "conv_head", "bn2"), x, "", layers)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    classifier = network.get_submodule("classifier")
    weight, bias = _array(classifier, "weight"), _array(classifier, "bias")
    dense = layers.Dense(len(bias), activation="softmax", name="probabilities")
    return keras.Model(pixels, _applied(dense, x, weight.T, bias), name="classifier")


def _block(block: Any, x: Any, name: str, layers: Any) -> Any:
    steps = _BLOCKS.get(type(block).__name__)
    if steps is None:
        raise _unknown(block)
    shortcut = x
    for step in steps:
        if isinstance(step, str):
            x = _squeeze_excite(block.se, x, f"{name}se_", layers)
        else:
            x = _conv_norm(block, step, x, name, layers)
    return layers.Add(name=f"{name}add")([x, shortcut]) if block.has_skip else x


def _conv_norm(parent: nn.Module, step: tuple[str, str, str], x: Any, prefix: str, layers: Any) -> Any:
    """Add a convolution, its BatchNorm and its activation."""
    name, conv, norm = step
    x = _conv(parent.get_submodule(conv), x, f"{prefix}{name}_conv", layers)
    module: Any = parent.get_submodule(norm)
    layer = layers.BatchNormalization(epsilon=module.eps, name=f"{prefix}{name}_norm")
    x = _applied(layer, x, *(_array(module, key) for key in ("weight", "bias", "running_mean", "running_var")))
    activation = _activation(module.act)
    return x if activation == "linear" else layers.Activation(activation, name=f"{prefix}{name}_{activation}")(x)


def _conv(conv: Any, x: Any, name: str, layers: Any, activation: str = "linear") -> Any:
    """Add a convolution. Keras's `same` padding is TensorFlow's, which timm's `tf_` networks have."""
    settings = {"padding": "same", "use_bias": conv.bias is not None, "activation": activation, "name": name}
    kernel = _array(conv, "weight")
    if conv.groups == 1:
        layer = layers.Conv2D(conv.out_channels, conv.kernel_size, conv.stride, **settings)
        kernel = kernel.transpose(2, 3, 1, 0)
    else:
        layer = layers.DepthwiseConv2D(conv.kernel_size, conv.stride, **settings)
        kernel = kernel.transpose(2, 3, 0, 1)
    return _applied(layer, x, kernel, *([] if conv.bias is None else [_array(conv, "bias")]))


def _squeeze_excite(module: Any, x: Any, name: str, layers: Any) -> Any:
    if isinstance(module, nn.Identity):
        return x
    scale = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}squeeze")(x)
    scale = _conv(module.conv_reduce, scale, f"{name}reduce", layers, _activation(module.act1))
    scale = _conv(module.conv_expand, scale, f"{name}expand", layers, _activation(module.gate))
    return layers.Multiply(name=f"{name}excite")([x, scale])


def _activation(module: nn.Module) -> str:
    name = _ACTIVATIONS.get(type(module).__name__)
    if name is None:
        raise _unknown(module)
    return name


def _applied(layer: Any, x: Any, *arrays: Array) -> Any:
    """Apply a layer, which makes its variables, and give them their values."""
    x = layer(x)
    layer.set_weights(list(arrays))
    return x


def _array(module: nn.Module, name: str) -> Array:
    tensor: torch.Tensor = getattr(module, name)
    return tensor.detach().float().cpu().numpy()


def _unknown(module: nn.Module) -> HeadstartError:
    return HeadstartError(
        f"the export to Keras has no layer for {type(module).__name__}; expected EfficientNet, Lite or V2.",
        "Export a classifier with one of the backbones.",
    )

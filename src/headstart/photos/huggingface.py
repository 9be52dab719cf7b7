"""Datasets of Hugging Face: from its hub, or from a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headstart.atomic import folder_written_whole
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.examples import (
    TABLE,
    Example,
    chosen_splits,
    failures_told,
    feature_named,
    missing_extra,
    write_examples,
)

HF = "hf:"
_NAME = re.compile(r"(?P<name>.+?)(:(?P<split>\w[\w.-]*))?")
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_IMAGES = ("image", "img")
# CIFAR-100 has its hundred classes as fine_label and twenty groups of them as coarse_label.
_LABELS = ("label", "labels", "fine_label")


def huggingface_table(source: str, cache: Path, console: Console) -> Path:
    """Write a dataset of Hugging Face out as photos, once.

    Args:
        source: `hf:NAME` or `hf:NAME:SPLIT`, where NAME is one of the hub's or a folder: one that `save_to_disk`
            wrote, or one that `load_dataset` takes.
        cache: the cache folder. The library keeps what it downloads in its own folder.
        console: where to tell of it.

    Returns:
        A table for `read_catalog`, with the dataset's label names and splits.

    Raises:
        HeadstartError: when the library or the dataset cannot be had, or it is not one of labelled images.
    """
    name, wanted = _parts(source)
    folder = cache / "datasets" / "hf" / _key(name) / (wanted or "all")
    if not (folder / TABLE).exists():
        try:
            import datasets
        except ImportError:
            raise missing_extra(source, "hf") from None
        with (
            failures_told(source),
            folder_written_whole(folder) as draft,
            TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch,
        ):
            loaded = _load(name, Path(scratch), console, datasets)
            write_examples(source, _examples(source, loaded, wanted, datasets), draft, console)
    return folder / TABLE


def absolute_name(source: str) -> str:
    """Make the folder in `hf:FOLDER` absolute; a name of the hub's stays as it is."""
    name, wanted = _parts(source)
    local = Path(name).expanduser()
    return HF + (str(local.resolve()) if local.is_dir() else name) + (f":{wanted}" if wanted else "")


def _parts(source: str) -> tuple[str, str | None]:
    """Split `hf:NAME:SPLIT` into the name and the split, or None."""
    match = _NAME.fullmatch(source.removeprefix(HF))
    name = match["name"] if match else ""
    if match is None or not (Path(name).expanduser().is_dir() or _HUB_NAME.fullmatch(name)):
        raise HeadstartError(
            f"{source}: names no dataset; expected {HF}NAME or {HF}NAME:SPLIT, with a name of the hub's or a folder."
        )
    return name, match["split"]


def _key(name: str) -> str:
    """Name a dataset's folder in the cache: a folder's own changes with its files."""
    local = Path(name).expanduser()
    if not local.is_dir():
        return name.replace("/", "--")
    files = sorted(path for path in local.rglob("*") if path.is_file())
    about = [str(local.resolve())]
    about += [f"{path.relative_to(local)}\t{path.stat().st_size}\t{path.stat().st_mtime_ns}" for path in files]
    digest = hashlib.sha256("\n".join(about).encode(errors="surrogateescape")).hexdigest()
    return f"{local.resolve().name}-{digest[:16]}"


def _load(name: str, scratch: Path, console: Console, datasets: Any) -> dict[str, Any]:
    """Load a dataset as its splits; what the library converts is put in `scratch`."""
    import huggingface_hub

    # Loading from the hub is counted there by a request of its own, and says what else is installed.
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    if not console.watched:
        datasets.disable_progress_bars()
    local = Path(name).expanduser()
    if not local.is_dir():
        loaded = datasets.load_dataset(name, cache_dir=str(scratch))
    elif (local / "dataset_dict.json").exists() or (local / "dataset_info.json").exists():
        loaded = datasets.load_from_disk(str(local))
    else:
        loaded = datasets.load_dataset(str(local.resolve()), cache_dir=str(scratch))
    return dict(loaded) if isinstance(loaded, dict) else {"all": loaded}


def _examples(source: str, loaded: dict[str, Any], wanted: str | None, datasets: Any) -> Iterator[Example]:
    """Read the examples of some splits, the images as the bytes of their files."""
    for name, split in chosen_splits(source, loaded, wanted).items():
        image, label = _image_and_label(source, loaded[name].features, datasets)
        label_name = getattr(loaded[name].features[label], "int2str", str)
        rows = loaded[name].select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        for row in rows:
            known = row[label] is not None and row[label] != -1
            if row[image] is None:
                continue
            data = row[image]["bytes"] or Path(row[image]["path"]).read_bytes()
            yield Example(data, label_name(row[label]) if known else "", split)


def _image_and_label(source: str, features: Any, datasets: Any) -> tuple[str, str]:
    """Name the features that hold the image and the label, which may be text under its usual name."""
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.ClassLabel) or (name in _LABELS and getattr(feature, "dtype", None) == "string")
    ]
    return (
        feature_named(source, "image", images, _IMAGES, features),
        feature_named(source, "label", labels, _LABELS, features),
    )

"""Datasets of TensorFlow Datasets, read without TensorFlow; a few need it when they are prepared."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
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

TFDS = "tfds:"
# A version belongs to the name, as in mnist:3.0.1.
_NAME = re.compile(r"(?P<name>[\w-]+(/[\w.-]+)?(:\d+\.\d+\.\d+)?)(:(?P<split>\w+))?")


def tfds_table(source: str, cache: Path, console: Console) -> Path:
    """Write a dataset of TensorFlow Datasets out as photos, once for each version.

    Args:
        source: `tfds:NAME` or `tfds:NAME:SPLIT`; a name may have a configuration and a version, as
            `imagenette/320px-v2:1.0.0`.
        cache: the cache folder. The library keeps what it downloads in its own folder.
        console: where to tell of it.

    Returns:
        A table for `read_catalog`, with the dataset's label names and splits.

    Raises:
        HeadstartError: when the library or the dataset cannot be had, or it is not one of labelled images.
    """
    match = _NAME.fullmatch(source.removeprefix(TFDS))
    if match is None:
        raise HeadstartError(f"{source}: names no dataset; expected {TFDS}NAME or {TFDS}NAME:SPLIT.")
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError:
        raise missing_extra(source, "tfds") from None
    tfds.display_progress_bar(console.watched)
    with failures_told(source):
        # It prints to standard output, which may be for our results alone.
        with redirect_stdout(sys.stderr if console.watched else io.StringIO()):
            # Of its formats, this is the one that is read without TensorFlow.
            builder = tfds.builder(match["name"], file_format="array_record")
            image, label = _image_and_label(source, builder.info.features, tfds)
            folder = cache / "datasets" / "tfds" / builder.info.full_name / (match["split"] or "all")
            written = (folder / TABLE).exists()
            if not written:
                builder.download_and_prepare()
        if not written:
            splits = chosen_splits(source, builder.info.splits, match["split"])
            with folder_written_whole(folder) as draft:
                write_examples(source, _examples(builder, image, label, splits, tfds), draft, console)
    return folder / TABLE


def _image_and_label(source: str, features: Any, tfds: Any) -> tuple[str, str]:
    """Name the features that hold the image and the label; a mask is an image too, but has another name."""
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    return (
        feature_named(source, "image", images, ("image",), features),
        feature_named(source, "label", labels, ("label",), features),
    )


def _examples(builder: Any, image: str, label: str, splits: dict[str, str], tfds: Any) -> Iterator[Example]:
    """Read the examples of some splits, the images as the bytes that they are stored in."""
    label_name = builder.info.features[label].int2str
    for name, split in splits.items():
        for example in builder.as_data_source(name, decoders={image: tfds.decode.SkipDecoding()}):
            # The test splits of competitions have -1 for the labels that they keep to themselves.
            known = example[label] >= 0
            yield Example(example[image], label_name(example[label]) if known else "", split)

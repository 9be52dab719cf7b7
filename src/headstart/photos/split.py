"""The split into training, validation and test photos."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from headstart.errors import HeadstartError, listed

SPLITS = ("train", "validation", "test")


def split_photos(
    photos: pd.DataFrame,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    originals: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Give every photo a split, stratified by class; what the user has split stays as it was.

    Photos with the same bytes (the same digest) always go to the same split, and so do copies of one picture where they
    are known: what is measured on a copy of a training photo flatters. The order in which a class is
    dealt out comes from hashing the seed with each digest, so that it depends on the photos alone, not on
    their names or order.

    Args:
        photos: columns path, label, split ("" where the user gave none) and digest.
        seed: the recipe's seed.
        validation_fraction: share of the photos that are dealt out (all but a test split of the user's);
            ignored where the user gave a validation split.
        test_fraction: share of the photos that are dealt out; ignored where the user gave a test split.
        originals: by a photo's digest, the digest that stands for all copies of its picture.

    Returns:
        The same rows with every split filled in.

    Raises:
        HeadstartError: when a class would be left without training, validation or test photos.
    """
    given = set(photos["split"]) - {""}
    has_test, has_validation = "test" in given, "validation" in given
    pool = photos["split"] == ("train" if given else "")
    parts = {} if has_test else {"test": test_fraction}
    if not has_validation:
        parts["validation"] = validation_fraction
    groups = _group(photos[pool], seed, originals or {})
    _check_classes(photos, 1 + len(parts), groups)

    dealt = np.full(len(groups.size), "train", dtype=object)
    for label in range(len(groups.labels)):
        members = groups.order[groups.label[groups.order] == label]
        total = int(groups.size[members].sum())
        start = 0
        for number, (part, fraction) in enumerate(parts.items()):
            # At least one photo for the part, and one group left for each part still to come and training.
            quota, end = max(1, round(total * fraction)), len(members) - (len(parts) - number)
            while quota > 0 and start < end:
                dealt[members[start]] = part
                quota -= int(groups.size[members[start]])
                start += 1
    result = photos.copy()
    result.loc[pool, "split"] = dealt[groups.of_photo]
    return result


@dataclass(frozen=True)
class _Groups:
    """Photos with the same bytes, and known copies of one picture, as one group each.

    `labels` are the classes in order; `label` holds each group's class as an index, the first of them where its
    photos have several, and `size` its number of photos. `order` is the order in which groups are dealt out, and
    `of_photo` each photo's group.
    """

    labels: list[str]
    label: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    of_photo: npt.NDArray[np.int64]


def _group(photos: pd.DataFrame, seed: int, originals: Mapping[str, str]) -> _Groups:
    """Group photos by their bytes, in arrays: a data frame's groups take ten times the memory."""
    keys = np.array([originals.get(digest, digest) for digest in photos["digest"]], "S32")
    digests, of_photo, size = np.unique(keys, return_inverse=True, return_counts=True)
    labels = sorted(set(photos["label"]))
    index = {name: number for number, name in enumerate(labels)}
    label = np.full(len(digests), len(labels))
    np.minimum.at(label, of_photo, [index[name] for name in photos["label"]])
    hashes = [hashlib.sha256(f"{seed}:{digest.decode()}".encode()).digest()[:8] for digest in digests]
    order = np.argsort(np.array([int.from_bytes(value, "big") for value in hashes], np.uint64), kind="stable")
    return _Groups(labels, label, size, order, of_photo)


def _check_classes(photos: pd.DataFrame, needed: int, groups: _Groups) -> None:
    """See that each class has enough different photos to be dealt out."""
    # A photo with two labels is dealt out once, with the first of them.
    counts = dict(zip(groups.labels, np.bincount(groups.label, minlength=len(groups.labels)), strict=True))
    few = [f"{name!r} ({counts.get(name, 0)})" for name in sorted(set(photos["label"])) if counts.get(name, 0) < needed]
    if few:
        use = {1: "train", 2: "train and validate", 3: "train, validate and test"}[needed]
        raise HeadstartError(
            f"too few photos to split in {listed(few)}: each class needs at least {needed} different photos to {use}.",
            "Add photos to these classes, or take their folders out.",
        )


def leaked_into_training(photos: pd.DataFrame) -> pd.Series:
    """Mark photos whose bytes also are in a split that must stay unseen: test, and for training validation.

    Only a split that the user gave can hold such photos.

    Returns:
        A boolean column aligned with `photos`.
    """
    test = set(photos.loc[photos["split"] == "test", "digest"])
    validation = set(photos.loc[photos["split"] == "validation", "digest"])
    in_test = photos["digest"].isin(test) & (photos["split"] != "test")
    in_validation = photos["digest"].isin(validation) & (photos["split"] == "train")
    marked: pd.Series = in_test | in_validation
    return marked

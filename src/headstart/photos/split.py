"""The split into training, validation and test photos."""

from __future__ import annotations

import hashlib

import pandas as pd

from headstart.errors import HeadstartError, listed

SPLITS = ("train", "validation", "test")


def split_photos(photos: pd.DataFrame, seed: int, validation_fraction: float, test_fraction: float) -> pd.DataFrame:
    """Give every photo a split, stratified by class; what the user has split stays as it was.

    Photos with the same bytes (the same digest) always go to the same split. The order in which a class is
    dealt out comes from hashing the seed with each digest, so that it depends on the photos alone, not on
    their names or order.

    Args:
        photos: columns path, label, split ("" where the user gave none) and digest.
        seed: the recipe's seed.
        validation_fraction: share of the photos that are dealt out (all but a test split of the user's);
            ignored where the user gave a validation split.
        test_fraction: share of the photos that are dealt out; ignored where the user gave a test split.

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
    _check_classes(photos, needed=1 + len(parts), pool=pool)

    result = photos.copy()
    result.loc[pool, "split"] = "train"
    groups = photos[pool].groupby("digest", sort=False)["label"].agg(["min", "size"]).reset_index()
    order = groups["digest"].map(lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest())
    groups = groups.loc[order.sort_values(kind="stable").index]
    assigned: dict[str, str] = {}
    for _, members in groups.groupby("min", sort=True):
        remaining = list(zip(members["digest"], members["size"], strict=True))
        total = int(members["size"].sum())
        for part, fraction in parts.items():
            # At least one photo for the part, and one group left for each part still to come and training.
            quota, keep = max(1, round(total * fraction)), len(parts) - list(parts).index(part)
            while quota > 0 and len(remaining) > keep:
                digest, size = remaining.pop(0)
                assigned[digest] = part
                quota -= size
    chosen = result["digest"].map(assigned)
    dealt = pool & chosen.notna()
    result.loc[dealt, "split"] = chosen[dealt]
    return result


def _check_classes(photos: pd.DataFrame, needed: int, pool: pd.Series) -> None:
    """See that each class has enough different photos to be dealt out."""
    classes = sorted(set(photos["label"]))
    # A photo with two labels is dealt out once, with the first of them.
    different = photos[pool].groupby("digest")["label"].min().value_counts().reindex(classes, fill_value=0)
    few = [f"{name!r} ({count})" for name, count in different.items() if count < needed]
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

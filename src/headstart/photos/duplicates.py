"""Copies of one photo: by their bytes, and by how they look; within a class, across classes and across splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart.photos.alignment import SIDE, are_copies
from headstart.photos.decode import decode, read_bytes
from headstart.photos.findings import EVERYTHING, Finding
from headstart.photos.loading import ahead

Ints = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]  # (pairs, 2): rows of the facts
Features = npt.NDArray[np.floating]

# Bits of 64: copies cropped by a twenty-fifth are within 10 nine times of ten (docs/experiments.md).
MOST_BITS = 10
# Flat or tiny pictures look alike to any hash.
LEAST_CONTRAST, LEAST_SIDE = 0.02, 32
# Where photos all show one scene, candidates are legion; the most alike are compared, which takes seconds, not hours.
PAIRS_PER_PHOTO, LEAST_PAIRS = 1, 5000
_PAIRS_AT_ONCE, _ROWS_AT_ONCE = 64, 512
# Of features from which their mean is taken. All pairs are tried, which takes 5 s of two cores at most.
LEAST_SIMILARITY, LEAST_PAIRS_BY_FEATURES, MOST_COMPARED_BY_FEATURES = 0.9, 500, 20_000
_BANDS, _BAND_BITS = 4, 16
_PRIORITY = {"test": 0, "validation": 1, "train": 2, "": 3}
_ONES = np.array([bin(value).count("1") for value in range(1 << _BAND_BITS)], np.uint8)


def near_copies(root: Path, facts: pd.DataFrame) -> tuple[Pairs, list[Finding]]:
    """Find photos that show the same picture though their bytes differ: candidates by fingerprint, looked at again.

    Args:
        root: the folder that paths are relative to.
        facts: columns path, digest, width, height, contrast and fingerprint.

    Returns:
        The pairs, as rows of the facts, and what there is to say where not all were compared.
    """
    rows = _comparable(facts)
    pairs = candidate_pairs(facts["fingerprint"].to_numpy(np.uint64)[rows])
    limit = max(LEAST_PAIRS, PAIRS_PER_PHOTO * len(facts))
    findings = []
    if len(pairs) > limit:
        detail = f"{len(pairs):,} pairs are alike; the {limit:,} most alike were compared"
        findings.append(Finding(EVERYTHING, "near duplicates not all compared", detail))
    return _confirmed(root, facts["path"].to_numpy(object), rows[pairs[:limit]]), findings


def copies_by_features(root: Path, facts: pd.DataFrame, features: Features, known: Pairs) -> Pairs:
    """Find copies that a network sees and a fingerprint does not: cropped or edited further.

    Args:
        root: the folder that paths are relative to.
        facts: as in `near_copies`.
        features: (photos, num_features) pooled features of the same photos.
        known: pairs that need not be looked at again.

    Returns:
        The known pairs and those that were found, as rows of the facts.
    """
    rows = _comparable(facts)
    if not 1 < len(rows) <= MOST_COMPARED_BY_FEATURES:
        return known
    pairs = rows[similar_pairs(features[rows], len(rows) // 4 + LEAST_PAIRS_BY_FEATURES)]
    seen = {(first, second) for first, second in known.tolist()}
    unseen = [pair for pair in pairs.tolist() if tuple(pair) not in seen]
    found = _confirmed(root, facts["path"].to_numpy(object), np.array(unseen, np.int64).reshape(-1, 2))
    return np.concatenate([known, found])


def similar_pairs(features: Features, most: int) -> Pairs:
    """Return the pairs of rows with a cosine similarity of `LEAST_SIMILARITY` or more, the `most` most alike first."""
    centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    found, values = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        similarity = unit[start : start + _ROWS_AT_ONCE] @ unit[start:].T
        first, second = np.nonzero(np.triu(similarity, 1) >= LEAST_SIMILARITY)
        found.append(np.stack([first, second], axis=1) + start)
        values.append(similarity[first, second])
    order = np.argsort(-np.concatenate(values), kind="stable")[:most]
    return np.concatenate(found)[order]


def copy_groups(facts: pd.DataFrame, pairs: Pairs) -> Ints:
    """Return a group's number for each photo: copies of one picture, whether by their bytes or nearly, share one."""
    same_bytes = np.unique(facts["digest"].to_numpy(str), return_inverse=True)[1]
    links = coo_array((np.ones(len(pairs)), (same_bytes[pairs[:, 0]], same_bytes[pairs[:, 1]])), [len(facts)] * 2)
    numbers = connected_components(links, directed=False)[1]
    return np.asarray(numbers[same_bytes], np.int64)


def duplicate_findings(facts: pd.DataFrame, pairs: Pairs) -> list[Finding]:
    """Say which photos are copies.

    Copies with different labels are a conflict of both; copies in different splits are a leak of the one that is less
    worth keeping unseen (test, then validation); other copies are named beside the one that comes first.

    Args:
        facts: columns path, label, split and digest.
        pairs: near copies, as rows of the facts.
    """
    return [*_exact(facts), *_near(facts, pairs)]


def _comparable(facts: pd.DataFrame) -> Ints:
    """Return the rows of photos that can be compared by their looks."""
    # A photo's exact copies look like it; one of them is enough.
    usable = ~facts["digest"].duplicated() & (facts["contrast"] >= LEAST_CONTRAST)
    usable &= facts[["width", "height"]].min(axis=1) >= LEAST_SIDE
    return np.flatnonzero(usable)


def _exact(facts: pd.DataFrame) -> Iterator[Finding]:
    copies = facts[facts["digest"].duplicated(keep=False)]
    for rows in copies.groupby("digest", sort=False).indices.values():
        group = copies.iloc[rows]
        paths, labels = group["path"].tolist(), group["label"].tolist()
        splits = group["split"].tolist()
        if len(set(labels)) > 1:
            for path, label in zip(paths, labels, strict=True):
                others = [f"{p} ({x})" for p, x in zip(paths, labels, strict=True) if x != label]
                yield Finding(path, "label conflict", f"the same bytes as {_first(others)}")
        best = min(splits, key=_PRIORITY.__getitem__)
        # The shortest name, which is the original's beside `1 copy.jpg`.
        kept = min((p for p, s in zip(paths, splits, strict=True) if s == best), key=lambda path: (len(path), path))
        for path, split in zip(paths, splits, strict=True):
            if split != best:
                yield Finding(path, "leak", f"in {split}; the same bytes as {kept} in {best}")
            elif path != kept and len(set(labels)) == 1:
                yield Finding(path, "exact duplicate", f"the same bytes as {kept}")


def _near(facts: pd.DataFrame, pairs: Pairs) -> Iterator[Finding]:
    paths, labels, splits = (facts[name].tolist() for name in ("path", "label", "split"))
    others: dict[tuple[int, str], list[int]] = {}
    for first, second in pairs.tolist():
        if _PRIORITY[splits[first]] > _PRIORITY[splits[second]]:
            first, second = second, first
        if labels[first] != labels[second]:
            others.setdefault((first, "label conflict"), []).append(second)
            others.setdefault((second, "label conflict"), []).append(first)
        if splits[first] != splits[second]:
            others.setdefault((second, "leak"), []).append(first)
        elif labels[first] == labels[second]:
            others.setdefault((second, "near duplicate"), []).append(first)
    for (row, problem), partners in others.items():
        said: Callable[[int], str] = {
            "label conflict": lambda other: f"{paths[other]} ({labels[other]})",
            "leak": lambda other: f"{paths[other]} in {splits[other]}",
            "near duplicate": lambda other: str(paths[other]),
        }[problem]
        where = f"in {splits[row]}; " if problem == "leak" else ""
        yield Finding(paths[row], problem, f"{where}nearly the same picture as {_first([said(p) for p in partners])}")


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def candidate_pairs(fingerprints: npt.NDArray[np.uint64]) -> Pairs:
    """Return the pairs of rows whose fingerprints differ in at most `MOST_BITS`, the most alike first.

    Not all pairs are tried: of four bands of 16 bits, one differs in at most two when all 64 differ in at most eleven,
    so the rows with a band's value, and with each value within two bits of it, are looked up (multi-index hashing;
    Norouzi, Punjani and Fleet, 2012). Of rows with one fingerprint, each is paired with the first and with the last
    before it.
    """
    unique, first, of_row = np.unique(fingerprints, return_index=True, return_inverse=True)
    bands = unique.view(np.uint16).reshape(-1, _BANDS)
    found = [_pairs_by_band(bands, number) for number in range(_BANDS)]
    merged = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)
    distance = _distance(bands, merged)
    pairs = np.concatenate([_equal(of_row, first), first[merged]])
    order = np.argsort(np.concatenate([np.zeros(len(pairs) - len(merged), np.int64), distance]), kind="stable")
    return np.sort(pairs[order], axis=1)


def _equal(of_row: Ints, first: Ints) -> Pairs:
    order = np.argsort(of_row, kind="stable")
    again = np.flatnonzero(of_row[order][1:] == of_row[order][:-1])
    to_previous = np.stack([order[again], order[again + 1]], axis=1)
    to_first = np.stack([first[of_row[order[again + 1]]], order[again + 1]], axis=1)
    return np.unique(np.concatenate([to_previous, to_first]), axis=0)


def _pairs_by_band(bands: npt.NDArray[np.uint16], number: int) -> Pairs:
    values = bands[:, number].astype(np.int64)
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(np.bincount(values, minlength=1 << _BAND_BITS))
    starts = np.concatenate([[0], ends[:-1]])
    flips = [0, *(1 << bit for bit in range(_BAND_BITS))]
    flips += [one | other for one, other in combinations(flips[1:], 2)]
    found = [np.empty((0, 2), np.int64)]
    for flip in flips:
        keys = values ^ flip
        counts = ends[keys] - starts[keys]
        rows = np.repeat(np.arange(len(values)), counts)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        pairs = np.stack([rows, order[starts[keys][rows] + place]], axis=1)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        found.append(pairs[_distance(bands, pairs) <= MOST_BITS])
    return np.concatenate(found)


def _distance(bands: npt.NDArray[np.uint16], pairs: Pairs) -> Ints:
    distance: Ints = _ONES[bands[pairs[:, 0]] ^ bands[pairs[:, 1]]].sum(axis=1, dtype=np.int64)
    return distance


def _confirmed(root: Path, paths: npt.NDArray[np.object_], pairs: Pairs) -> Pairs:
    """Keep the pairs whose pictures match, looked at again; only the photos in question are decoded anew."""
    if not len(pairs):
        return pairs
    rows, places = np.unique(pairs, return_inverse=True)
    pictures = np.stack(list(ahead(paths[rows], lambda path: _picture(root / path))))
    places = places.reshape(-1, 2)
    parts = [places[start : start + _PAIRS_AT_ONCE] for start in range(0, len(places), _PAIRS_AT_ONCE)]
    same = np.concatenate(list(ahead(parts, lambda part: are_copies(pictures[part[:, 0]], pictures[part[:, 1]]))))
    return pairs[same]


def _picture(path: Path) -> npt.NDArray[np.uint8]:
    image = decode(read_bytes(path), SIDE)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))

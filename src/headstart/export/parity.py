"""The gate that every export passes: read again and run in its own library, it says what PyTorch says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Bools, Probabilities, softmax
from headstart.evaluation.rejection import distances_to
from headstart.photos.views import Pixels

TOLERANCE = 1e-3
# Where a library has no float64, resizing rounds one pixel of 20,000 to the other side of Pillow's 8 bits. Now and then
# a photo is near enough to two classes for this to show: of a hundred photos one may differ by up to this.
ROUNDING_TOLERANCE, _ROUNDING_SHARE = 1e-2, 0.01
# Classes whose probabilities differ by less are equal, and either may come first.
_TIE = 1e-6
_BATCH_SIZE = 16

# Runs an export on (n, height, width, 3) uint8 photos: (n, num_classes) probabilities, and (n,) acceptance if it says.
Runtime = Callable[[Pixels], tuple[Probabilities, Bools | None]]


@dataclass(frozen=True)
class Parity:
    """The greatest difference of a probability from PyTorch's, on so many photos, and what these were.

    `first` are the (n,) class indices that the export puts first.
    """

    difference: float
    photos: int
    told: str
    first: npt.NDArray[np.int64]

    def values(self) -> dict[str, Any]:
        """Return what is told of it, as JSON values."""
        return {"difference": self.difference, "photos": self.photos, "told": self.told}


def made_photos(classifier: Classifier) -> list[Pixels]:
    """Make photos where there are none: the self-test's inputs, and noise of other sizes."""
    draw = np.random.default_rng(0)
    size = classifier.preprocessing.image_size
    noise = [draw.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((size, size), (size + 60, size - 20))]
    return [*classifier.selftest()[0], *noise]


def check_parity(
    classifier: Classifier,
    run: Runtime,
    photos: Sequence[Pixels],
    name: str,
    told: str,
    *,
    whole: bool,
    exact: bool,
) -> Parity:
    """Compare an export's probabilities with PyTorch's.

    Args:
        classifier: what was exported.
        run: the export, read again.
        photos: decoded, of any size.
        name: of what was exported, for the error.
        told: what the photos are.
        whole: whether the export resizes photos itself. Then each is given to it as it is, and a few of one size
            together; else it gets the views that the classifier makes.
        exact: whether the export sees the very pixels that the classifier sees.

    Raises:
        HeadstartError: when a probability differs by more than 1e-3 (where it is not exact: more than one photo of a
            hundred by that, or any by more than 1e-2), another class comes first, or a label that is clearly accepted
            is rejected, or the other way round.
    """
    views = views_of(photos, classifier)
    expected, doubt = _expected(classifier, views)
    found, accepted = run_on(run, photos, views, whole)
    differences = np.abs(found - expected).max(axis=1)
    difference = float(differences.max())
    close = difference <= TOLERANCE
    if not exact and not close:
        close = difference <= ROUNDING_TOLERANCE and float((differences > TOLERANCE).mean()) <= _ROUNDING_SHARE
    first = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    changed = int((first < expected.max(axis=1) - _TIE).sum())
    if changed or not close:
        raise HeadstartError(
            f"{name} gives probabilities that differ by {difference:.2g} from PyTorch's (expected at most "
            f"{TOLERANCE:.2g}), and another first class for {changed} of {len(photos)} {told}; nothing was written.",
            "A library computes something else: try another version of it, and please report this.",
        )
    if accepted is not None and doubt is not None:
        wrong = int(((accepted != (doubt > 0)) & (np.abs(doubt) > TOLERANCE)).sum())
        if wrong:
            raise HeadstartError(
                f"{name} accepts or rejects {wrong} of {len(photos)} {told} otherwise than the classifier; nothing was "
                "written.",
                "A library computes something else: try another version of it, and please report this.",
            )
    return Parity(difference, len(photos), told, found.argmax(axis=1))


def views_of(photos: Sequence[Pixels], classifier: Classifier) -> Pixels:
    """Return the (n, image_size, image_size, 3) views that the classifier makes of photos."""
    return np.stack([classifier.view(photo) for photo in photos])


def run_on(run: Runtime, photos: Sequence[Pixels], views: Pixels, whole: bool) -> tuple[Probabilities, Bools | None]:
    """Run an export on photos, or on their views where it does not resize; return what it gives for each."""
    batches = [views[start : start + _BATCH_SIZE] for start in range(0, len(views), _BATCH_SIZE)]
    if whole:
        batches = [photo[None] for photo in photos]
    results = [run(batch) for batch in batches]
    found = np.concatenate([probabilities for probabilities, _ in results])
    parts = [part for _, part in results if part is not None]
    if whole:
        # Photos of one size together give what they give alone.
        alike = [number for number, photo in enumerate(photos) if photo.shape == photos[0].shape][:_BATCH_SIZE]
        found[alike] = run(np.stack([photos[number] for number in alike]))[0]
    return found, np.concatenate(parts) if parts else None


def _expected(classifier: Classifier, views: Pixels) -> tuple[Probabilities, npt.NDArray[np.float64] | None]:
    """Return PyTorch's probabilities, and by how much each label is accepted: negative where it is rejected."""
    rejection = classifier.rejection
    parts = [
        classifier.reference_outputs(views[start : start + _BATCH_SIZE]) for start in range(0, len(views), _BATCH_SIZE)
    ]
    probabilities = softmax(np.concatenate([logits for logits, _ in parts]))
    if rejection is None:
        return probabilities, None
    distances = distances_to(rejection.directions, np.concatenate([features for _, features in parts]))
    by_probability = probabilities.max(axis=1) - rejection.least_probability
    by_distance = rejection.greatest_distance - distances
    return probabilities, np.minimum(by_probability, by_distance).astype(np.float64)

"""What the steps of a run take on this computer, in seconds and in bytes, and how long a step may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headstart.recipe import Part, Recipe, Step
from headstart.training.heads import HELD_ROWS

# What fine-tuning may take of the disk, besides being no more than a third of what is free.
STORED_BYTES = 10 * 10**9
# Stored views: the plain one, and more the longer training is; a short one learns less from many (docs/experiments.md).
FEWEST_VIEWS, MOST_VIEWS, EPOCHS_A_VIEW = 2, 8, 4
# Refitting is on a fifth more photos and half as long as the step, or, where nothing else fits, a quarter.
REFIT_PHOTOS, REFIT_SHARE, SHORT_REFIT = 1.2, 0.5, 0.25
# The probe gains from a plain and two augmented views (docs/experiments.md), if they take a small share of the time.
PROBE_VIEWS, PROBE_SHARE = 3, 0.15
# Judging the probe; the evaluations of searching its regularisation and of fitting it on all rows.
PROBE_SECONDS, SEARCH_EVALUATIONS, FIT_EVALUATIONS = 3.0, 500, 100
# Rows that the regularisation is searched on: of more, it takes minutes, and is the same within a step. What the search
# may take of the time.
FEWEST_SEARCHED, MOST_SEARCHED, SEARCH_SHARE = 5_000, 40_000, 0.15
# Least and most epochs of a step, and least and most steps of the optimiser, which rule where photos are few: with less
# training disturbs more than it teaches, with more it gains nothing. The deepest step gets more than those before it,
# or there are fewer; one that is alone may be as short as they.
EPOCHS_ABOVE, UPDATES_ABOVE = (2, 6), (120, 160)
EPOCHS_OF_LAST, UPDATES_OF_LAST = (4, 16), (200, 500)
MOST_EPOCHS = 60
# Photos are many where an epoch has so many updates. Where nothing else fits, they may be seen once or twice, without a
# refit, which gains little there; or a part of them once.
UPDATES_OF_MANY = 240
# On smaller photos than the probe's a step that short may well be worse than that (docs/experiments.md).
LEAST_UPDATES_SMALLER = 180


@dataclass(frozen=True)
class Rung:
    """A depth to fine-tune at: photos/s of training and embedding, and bytes that a stored view of a photo takes.

    `image_size` is that of the photos, in pixels, where it is not the run's; one photo in `one_in` is trained on.
    """

    part: Part
    boundary: int
    photos_per_second: float
    embedded_per_second: float
    row_bytes: int
    image_size: int | None = None
    one_in: int = 1

    def at(self, image_size: int, own_size: int, decoded_per_second: float) -> Rung:
        """Return the same depth on smaller photos, by the number of their pixels."""
        if image_size == own_size:
            return self
        share = (image_size / own_size) ** 2
        decoding = 1 / decoded_per_second  # which takes as long
        return replace(
            self,
            # A little less than by the pixels: the smaller, the more of the time is not the convolutions'.
            photos_per_second=self.photos_per_second / share**0.9,
            embedded_per_second=1 / (decoding + max(0.0, 1 / self.embedded_per_second - decoding) * share),
            row_bytes=math.ceil(self.row_bytes * share),
            image_size=image_size,
        )


@dataclass(frozen=True)
class Costs:
    """What a plan is made from: numbers of photos, photos/s of embedding and decoding, and room on the disk.

    `logits_per_second` is how many logits L-BFGS evaluates for a head, gradients included; `batch_size` is that of
    fine-tuning. `blends` is whether a head is fitted anew after each step. `in_parts` is how many training photos are
    in a part of one in so many.
    """

    train_photos: int
    validation_photos: int
    test_photos: int
    embedded_per_second: float
    decoded_per_second: float
    logits_per_second: float
    free_bytes: int
    refit: bool
    batch_size: int
    num_classes: int
    blends: bool
    in_parts: Mapping[int, int] = field(default_factory=dict)

    def of_part(self, one_in: int) -> Costs:
        """Return what a part of the training and validation photos costs; the others are only measured afterwards."""
        if one_in == 1:
            return self
        validated = -(-self.validation_photos // one_in)
        return replace(
            self,
            train_photos=self.in_parts[one_in],
            validation_photos=validated,
            test_photos=self.test_photos + self.validation_photos - validated,
        )

    def step(self, rung: Rung, epochs: int, num_views: int, refit_share: float = REFIT_SHARE) -> Step:
        """Return a step with the seconds that its training should take."""
        seconds = self.train_photos * epochs / rung.photos_per_second
        # Validation is a forward pass: a third of a training step.
        seconds += self.validation_photos * (epochs + 4) / (3 * rung.photos_per_second)
        return Step(
            unfreeze=rung.part,
            epochs=epochs,
            num_views=num_views,
            batch_size=self.batch_size,
            image_size=rung.image_size,
            one_in=rung.one_in,
            seconds=round(seconds, 1),
            head_seconds=round(self._head_seconds(rung), 1),
            refit_epochs=max(1, round(refit_share * epochs)) if refit_share else 0,
        )

    def _head_seconds(self, rung: Rung) -> float:
        """Return what fitting a head on tuned features takes: a forward pass of its photos, and the search."""
        rows = min(HELD_ROWS, self.train_photos) if self.blends else 0
        evaluated = SEARCH_EVALUATIONS * rows * self.num_classes
        return rows / (3 * rung.photos_per_second) + evaluated / self.logits_per_second

    def seconds(self, step: Step, rung: Rung) -> float:
        """Return what a step takes in all: its views, its epochs, its head, and the test photos at its depth."""
        viewed = self.train_photos + (self.validation_photos if self.refit and step.refit_epochs else 0)
        reading = (viewed * step.num_views + self.validation_photos) / rung.embedded_per_second
        if rung.boundary == 0:
            reading = (self.train_photos * step.epochs) / self.decoded_per_second
        testing = self.test_photos * (1 / rung.embedded_per_second + 1 / (3 * rung.photos_per_second))
        return step.seconds + step.head_seconds + reading + testing

    def probe_views(self, seconds_left: float) -> int:
        """Return how many views the probe is fitted on: as many as pay, where there is time to embed them."""
        seconds = (PROBE_VIEWS - 1) * (self.train_photos + self.validation_photos) / self.embedded_per_second
        return PROBE_VIEWS if seconds < PROBE_SHARE * seconds_left else 1

    def searched_rows(self, seconds_left: float) -> int:
        """Return how many rows at most the probe's regularisation is searched on."""
        rows = SEARCH_SHARE * seconds_left * self.logits_per_second / (SEARCH_EVALUATIONS * self.num_classes)
        return int(min(MOST_SEARCHED, max(FEWEST_SEARCHED, rows)))

    def probe_seconds(self, num_views: int, searched_rows: int) -> float:
        """Return what the probe takes: views not embedded yet, the search, the fit on all rows, and judging it."""
        photos = self.train_photos + self.validation_photos
        evaluated = SEARCH_EVALUATIONS * min(searched_rows, num_views * photos)
        evaluated += FIT_EVALUATIONS * num_views * photos
        fitting = PROBE_SECONDS + evaluated * self.num_classes / self.logits_per_second
        return (num_views - 1) * photos / self.embedded_per_second + fitting

    def views(self, rung: Rung, epochs: int) -> int:
        """Return how many views to store: one for every few epochs, as far as there is room; 0 where there is none."""
        if rung.boundary == 0:
            return 1
        room = min(STORED_BYTES, self.free_bytes // 3) // max(1, self.view_bytes(rung))
        return min(MOST_VIEWS, max(min(FEWEST_VIEWS, epochs), epochs // EPOCHS_A_VIEW), room)

    def view_bytes(self, rung: Rung) -> int:
        """Return the bytes that one view of every photo takes, and another of those validated on where it refits."""
        return (self.train_photos + 2 * self.validation_photos + self.test_photos) * rung.row_bytes

    def ever_longer(self, rungs: Sequence[Rung], recipe: Recipe) -> Iterator[list[Step]]:
        """Yield the steps of a ladder with more and more epochs; nothing where their views find no room.

        Of a part of the photos there is one way alone: with more time, the part is larger.
        """
        costs = self.of_part(rungs[0].one_in)
        for epochs, refit_share in self._ways(costs.train_photos / costs.batch_size, rungs, recipe):
            steps = []
            for rung, count in zip(rungs, epochs, strict=True):
                views = recipe.num_views or costs.views(rung, count)
                if not views:
                    return
                steps.append(costs.step(rung, count, views, refit_share))
            yield steps

    def _ways(self, updates_per_epoch: float, rungs: Sequence[Rung], recipe: Recipe) -> list[tuple[list[int], float]]:
        """Return the epochs of each rung and the refit's share of them, ever more."""
        if recipe.epochs is not None:
            return [([recipe.epochs] * len(rungs), REFIT_SHARE)]
        limits = [bounds(updates_per_epoch, rung, rungs) for rung in rungs]
        ways: list[tuple[list[int], float]] = []
        if len(rungs) == 1 and updates_per_epoch >= UPDATES_OF_MANY:
            ways = [([1], 0.0), ([2], 0.0)]
        if rungs[0].one_in > 1:
            return ways[:1]
        if len(rungs) == 1 and self.refit:
            ways.append(([limits[0][0]], SHORT_REFIT))
        for share in (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0):
            ways.append(([round(least + share * (most - least)) for least, most in limits], REFIT_SHARE))
        return ways

    def needed(self, steps: Sequence[Step], rungs: Sequence[Rung]) -> float:
        """Return what steps take in all, with the refit of the last one."""
        training = sum(self.of_part(step.one_in).seconds(step, rung_of(step, rungs)) for step in steps)
        if not steps or not self.refit or not steps[-1].refit_epochs:
            return training
        return training + refit_seconds(steps[-1]) + steps[-1].head_seconds


def rung_of(step: Step, rungs: Sequence[Rung]) -> Rung:
    """Return the rung that a step was made of."""
    wanted = step.unfreeze, step.image_size, step.one_in
    return next(rung for rung in rungs if (rung.part, rung.image_size, rung.one_in) == wanted)


def refit_seconds(step: Step) -> float:
    """Return what the epochs of refitting a step should take."""
    return REFIT_PHOTOS * step.seconds * step.refit_epochs / step.epochs


def bounds(updates_per_epoch: float, rung: Rung, rungs: Sequence[Rung]) -> tuple[int, int]:
    """Return the least and the most epochs of a rung's step among the rungs of its ladder."""
    deepest, alone = rung is rungs[-1], len(rungs) == 1
    epochs = EPOCHS_OF_LAST if deepest else EPOCHS_ABOVE
    updates = UPDATES_OF_LAST if deepest else UPDATES_ABOVE
    if alone:
        epochs, updates = (EPOCHS_ABOVE[0], epochs[1]), (UPDATES_ABOVE[0], updates[1])
    if deepest and rung.image_size is not None:
        updates = LEAST_UPDATES_SMALLER, max(LEAST_UPDATES_SMALLER, updates[1])
    least, most = (max(of, math.ceil(by / updates_per_epoch)) for of, by in zip(epochs, updates, strict=True))
    return min(least, MOST_EPOCHS), min(most, MOST_EPOCHS)

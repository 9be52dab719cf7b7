"""Which photos the report shows: chosen from a run's tables alone, the same ones each time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from headstart.report.tables import PREDICTED, RunTables

_SAMPLE, _CLASSES_IN_SAMPLE = 60, 120
_MISTAKES = 24
_PAIRS, _PHOTOS_OF_PAIR = 12, 3
_LOOKED_INTO = 8
_SUSPECTS = 24


@dataclass(frozen=True)
class ShownPhoto:
    """A photo with its label; `other` is the prediction or the suggested label.

    `number` is the prediction's probability, or the label's score, 0 to 1.
    """

    path: str
    label: str
    other: str = ""
    number: float = 0.0


@dataclass(frozen=True)
class ConfusedPair:
    """Photos of `truth` that were taken for `found`: `count` of its `photos` test photos; the surest are shown."""

    truth: str
    found: str
    count: int
    photos: int
    shown: list[ShownPhoto] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """The photos that the report shows, by what they show; for `right` and `wrong`, where the classifier looked."""

    sample: list[ShownPhoto]
    mistakes: list[ShownPhoto]
    pairs: list[ConfusedPair]
    right: list[ShownPhoto]
    wrong: list[ShownPhoto]
    suspects: list[ShownPhoto]

    @property
    def paths(self) -> list[str]:
        """Every photo's path, once each."""
        of_pairs = [photo for pair in self.pairs for photo in pair.shown]
        every = [*self.sample, *self.mistakes, *of_pairs, *self.suspects]
        return list(dict.fromkeys(photo.path for photo in every))


def select(tables: RunTables) -> Selection:
    """Choose the photos of every section."""
    mistakes = _shown(tables.mistakes.head(_MISTAKES), "label", "prediction", "probability")
    return Selection(
        sample=sample_photos(tables.catalog),
        mistakes=mistakes,
        pairs=confused_pairs(tables),
        right=right_photos(tables.predictions),
        wrong=mistakes[:_LOOKED_INTO],
        suspects=_shown(tables.label_issues.head(_SUSPECTS), "given_label", "suggested_label", "score"),
    )


def sample_photos(catalog: pd.DataFrame) -> list[ShownPhoto]:
    """Choose photos of every class: four each of up to 6 classes, two of up to 30, one of up to 120.

    Of more classes, 120 are chosen evenly. What files hold decides which of their photos are shown, so that neither
    names nor dates do.
    """
    names = sorted(set(catalog["label"]))
    each = 4 if len(names) <= 6 else 2 if 2 * len(names) <= _SAMPLE else 1
    shown = set(_spread(names, _CLASSES_IN_SAMPLE))
    drawn = catalog[catalog["label"].isin(shown)].sort_values(["digest", "path"], kind="stable")
    drawn = drawn.groupby("label", sort=False).head(each).sort_values("label", kind="stable")
    return _shown(drawn, "label")


def confused_pairs(tables: RunTables) -> list[ConfusedPair]:
    """Choose the pairs of a class and what it is taken for that are confused most often, with their surest photos."""
    mistakes = tables.mistakes
    photos = tables.predictions["label"].value_counts()
    groups = mistakes.groupby(["label", "prediction"]).size().sort_values(ascending=False, kind="stable").head(_PAIRS)
    pairs = []
    for (truth, found), count in groups.items():
        rows = mistakes[(mistakes["label"] == truth) & (mistakes["prediction"] == found)].head(_PHOTOS_OF_PAIR)
        pairs.append(
            ConfusedPair(
                truth, found, int(count), int(photos[truth]), _shown(rows, "label", "prediction", "probability")
            )
        )
    return pairs


def right_photos(predictions: pd.DataFrame) -> list[ShownPhoto]:
    """Choose photos that were classified rightly: the surest of classes spread evenly, then their next."""
    right = predictions.loc[predictions["label"] == predictions["prediction"], PREDICTED]
    right = right.sort_values(["probability", "path"], ascending=[False, True], kind="stable")
    shown = _spread(sorted(set(right["label"])), _LOOKED_INTO)
    right = right[right["label"].isin(shown)]
    turns = right.assign(turn=right.groupby("label").cumcount()).sort_values(["turn", "label"], kind="stable")
    return _shown(turns.head(_LOOKED_INTO), "label", "prediction", "probability")


def _spread(names: list[str], count: int) -> list[str]:
    if len(names) <= count:
        return names
    return [names[index * len(names) // count] for index in range(count)]


def _shown(rows: pd.DataFrame, label: str, other: str = "", number: str = "") -> list[ShownPhoto]:
    others = rows[other] if other else [""] * len(rows)
    numbers = rows[number] if number else [0.0] * len(rows)
    columns = zip(rows["path"], rows[label], others, numbers, strict=True)
    return [ShownPhoto(path, truth, second, float(value)) for path, truth, second, value in columns]

from dataclasses import replace

import pandas as pd
import pytest

from headstart.report.selection import ShownPhoto, confused_pairs, right_photos, sample_photos, select
from headstart.report.tables import read_tables
from headstart.run_folder import RunFolder


def catalog(num_classes, per_class=6):
    rows = [
        (f"{label}/{index}", f"{label:04}", f"{(7 * index + 3) % 11:032x}")
        for label in range(num_classes)
        for index in range(per_class)
    ]
    return pd.DataFrame(rows, columns=["path", "label", "digest"])


def predictions(*rows):
    return pd.DataFrame(rows, columns=["path", "label", "prediction", "probability"])


def tables_of(made, found):
    return replace(read_tables(RunFolder(made)), predictions=found)


@pytest.mark.parametrize(("num_classes", "shown"), [(3, 12), (6, 24), (7, 14), (30, 60), (31, 31), (120, 120)])
def test_the_sample_has_every_class_alike(num_classes, shown):
    sample = sample_photos(catalog(num_classes))
    counts = pd.Series([photo.label for photo in sample]).value_counts()
    assert len(sample) == shown and counts.nunique() == 1 and len(counts) == num_classes


def test_of_more_classes_the_sample_has_some_of_each_part_of_the_alphabet():
    labels = [int(photo.label) for photo in sample_photos(catalog(1200, 2))]
    assert labels == list(range(0, 1200, 10))


def test_what_files_hold_decides_which_are_in_the_sample():
    shuffled = catalog(4).sample(frac=1, random_state=0)
    sample = sample_photos(shuffled)
    assert sample == sample_photos(catalog(4))
    # Digests of the photos 0 to 5 are 3, 10, 6, 2, 9 and 5.
    assert [photo.path for photo in sample[:4]] == ["0/3", "0/0", "0/5", "0/2"]


def test_pairs_are_the_most_frequent_confusions_with_their_surest_photos(made):
    rows = [(f"{number}", "ant", "bee", number / 10) for number in range(1, 6)]
    rows += [("6", "bee", "cat", 0.5), ("7", "ant", "ant", 0.9)]
    first, second = confused_pairs(tables_of(made, predictions(*rows)))
    assert (first.truth, first.found, first.count, first.photos) == ("ant", "bee", 5, 6)
    assert [photo.path for photo in first.shown] == ["5", "4", "3"]
    assert second.shown == [ShownPhoto("6", "bee", "cat", 0.5)]


def test_right_photos_are_spread_over_classes_surest_first():
    rows = [(f"{label}{index}", label, label, 0.5 + index / 10) for label in "abc" for index in range(4)]
    found = right_photos(predictions(*rows, ("wrong", "a", "b", 1.0)))
    assert [photo.path for photo in found] == ["a3", "b3", "c3", "a2", "b2", "c2", "a1", "b1"]


def test_everything_is_chosen_from_a_runs_tables_the_same_each_time(made):
    selection = select(read_tables(RunFolder(made)))
    assert selection == select(read_tables(RunFolder(made)))
    surest = [photo.number for photo in selection.mistakes]
    assert surest == sorted(surest, reverse=True) and all(photo.label != photo.other for photo in selection.mistakes)
    assert selection.wrong == selection.mistakes[:8]
    scores = [photo.number for photo in selection.suspects]
    assert scores == sorted(scores) and len(scores) == 12
    assert len(set(selection.paths)) == len(selection.paths)


def test_a_run_without_mistakes_or_suspects_shows_none(made):
    tables = tables_of(made, predictions(("1", "ant", "ant", 0.9)))
    selection = select(replace(tables, label_issues=tables.label_issues.head(0)))
    assert (selection.mistakes, selection.pairs, selection.wrong, selection.suspects) == ([], [], [], [])

import itertools

import pandas as pd
import pytest

from headstart.errors import HeadstartError
from headstart.photos.split import SPLITS, leaked_into_training, split_photos


def photos_of(counts, split=""):
    """Make rows for {class: number of photos}, each photo with content of its own."""
    rows = [
        (f"{label}/{split}{number}.jpg", label, split, f"digest {label} {split} {number}")
        for label, count in counts.items()
        for number in range(count)
    ]
    return pd.DataFrame(rows, columns=["path", "label", "split", "digest"], dtype=str)


def copied(photos, label=None):
    """Return the same contents under other paths, in their own class or all in another."""
    copies = photos.assign(path="copies/" + photos["path"])
    return copies if label is None else copies.assign(label=label)


def split_of(photos, seed=0, validation_fraction=0.15, test_fraction=0.15):
    return split_photos(photos, seed, validation_fraction, test_fraction)


def by_path(photos):
    return photos.set_index("path")["split"].to_dict()


def counts_of(photos):
    table = photos.groupby(["label", "split"]).size().unstack(fill_value=0)
    return {label: tuple(int(row.get(name, 0)) for name in SPLITS) for label, row in table.iterrows()}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(100, (70, 15, 15)), (20, (14, 3, 3)), (40, (28, 6, 6)), (7, (5, 1, 1)), (4, (2, 1, 1)), (3, (1, 1, 1))],
)
def test_seventy_fifteen_fifteen(count, expected):
    assert counts_of(split_of(photos_of({"a": count, "b": 100}))) == {"a": expected, "b": (70, 15, 15)}


def test_each_class_is_split_by_the_same_shares():
    result = split_of(photos_of({"a": 20, "b": 200, "c": 60}), validation_fraction=0.1, test_fraction=0.2)
    assert counts_of(result) == {"a": (14, 2, 4), "b": (140, 20, 40), "c": (42, 6, 12)}


def test_large_fractions_leave_each_class_a_training_photo():
    result = split_of(photos_of({"a": 4, "b": 3}), validation_fraction=0.45, test_fraction=0.45)
    assert counts_of(result) == {"a": (1, 1, 2), "b": (1, 1, 1)}


def test_rows_keep_their_order_and_columns_and_the_input_is_left_alone():
    photos = photos_of({"a": 10, "b": 10}).sample(frac=1, random_state=3).assign(width=5)
    before = photos.copy()
    result = split_of(photos)
    pd.testing.assert_frame_equal(photos, before)
    pd.testing.assert_frame_equal(result.drop(columns="split"), before.drop(columns="split"))
    assert set(result["split"]) == set(SPLITS)


def test_same_seed_same_split_and_another_seed_another():
    photos = photos_of({"a": 30, "b": 30})
    splits = [by_path(split_of(photos, seed)) for seed in range(10)]
    assert splits[3] == by_path(split_of(photos, 3))
    assert all(one != other for one, other in itertools.combinations(splits, 2))


def test_split_does_not_depend_on_the_order_of_rows():
    photos = photos_of({"a": 30, "b": 30})
    shuffled = photos.sample(frac=1, random_state=1).reset_index(drop=True)
    assert by_path(split_of(shuffled)) == by_path(split_of(photos))


def test_split_depends_on_contents_and_not_on_names():
    photos = photos_of({"a": 30, "b": 30})
    renamed = photos.assign(path=[f"{number}.jpg" for number in reversed(range(60))])
    assert split_of(renamed)["split"].tolist() == split_of(photos)["split"].tolist()
    other = photos.assign(digest=photos["digest"] + "!")
    assert split_of(other)["split"].tolist() != split_of(photos)["split"].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_copies_never_straddle_splits(seed):
    photos = photos_of({"a": 20, "b": 20})
    result = split_of(pd.concat([photos, copied(photos), copied(copied(photos.iloc[::3]))], ignore_index=True), seed)
    assert (result.groupby("digest")["split"].nunique() == 1).all()
    assert set(counts_of(result)) == {"a", "b"}
    assert all(min(counts) >= 2 for counts in counts_of(result).values())


@pytest.mark.parametrize("seed", range(5))
def test_copies_under_another_label_never_straddle_splits(seed):
    photos = photos_of({"a": 20, "b": 20})
    result = split_of(pd.concat([photos, copied(photos.iloc[:12], label="b")], ignore_index=True), seed)
    assert len(result) == 52
    assert (result.groupby("digest")["split"].nunique() == 1).all()
    assert not leaked_into_training(result).any()


@pytest.mark.parametrize("seed", range(3))
def test_copies_under_another_label_do_not_make_the_order_of_rows_matter(seed):
    photos = photos_of({"a": 20, "b": 20})
    photos = pd.concat([photos, copied(photos.iloc[:12], label="b")], ignore_index=True)
    backwards = photos.iloc[::-1].reset_index(drop=True)
    assert by_path(split_of(backwards, seed)) == by_path(split_of(photos, seed))


@pytest.mark.parametrize("seed", range(3))
def test_class_that_shares_photos_with_another_is_in_every_split_or_refused(seed):
    photos = photos_of({"a": 20, "b": 2})
    photos = pd.concat([photos, copied(photos.iloc[:1], label="b")], ignore_index=True)
    try:
        result = split_of(photos, seed)
    except HeadstartError as error:
        assert "too few photos to split in 'b'" in str(error)
    else:
        assert min(counts_of(result)["b"]) >= 1, counts_of(result)


def test_test_split_of_the_user_is_never_touched():
    photos = pd.concat([photos_of({"a": 20, "b": 40}, "train"), photos_of({"a": 5, "b": 1}, "test")])
    for seed in range(5):
        result = split_of(photos, seed)
        assert (result["split"] == "test").tolist() == (photos["split"] == "test").tolist()
        assert counts_of(result) == {"a": (17, 3, 5), "b": (34, 6, 1)}


def test_validation_split_of_the_user_is_kept():
    photos = pd.concat([photos_of({"a": 20, "b": 40}, "train"), photos_of({"a": 4, "b": 2}, "validation")])
    for seed in range(5):
        result = split_of(photos, seed)
        assert (result["split"] == "validation").tolist() == (photos["split"] == "validation").tolist()
        assert counts_of(result) == {"a": (17, 4, 3), "b": (34, 2, 6)}


def test_complete_split_of_the_user_stays_as_it_is():
    parts = [photos_of({"a": 1, "b": 9}, "train"), photos_of({"a": 2}, "validation"), photos_of({"b": 3}, "test")]
    photos = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(split_of(photos), photos)


def test_only_training_photos_given_are_split_in_three():
    assert counts_of(split_of(photos_of({"a": 20, "b": 40}, "train"))) == {"a": (14, 3, 3), "b": (28, 6, 6)}


def test_too_few_photos_are_refused_with_class_and_count():
    expected = (
        r"^too few photos to split in 'b' \(2\), 'c' \(1\): "
        r"each class needs at least 3 different photos to train, validate and test\.\nAdd photos to these classes"
    )
    with pytest.raises(HeadstartError, match=expected):
        split_of(photos_of({"c": 1, "a": 3, "b": 2}))


def test_copies_do_not_count_as_different_photos():
    photos = photos_of({"a": 3, "b": 2})
    with pytest.raises(HeadstartError, match=r"'b' \(2\)"):
        split_of(pd.concat([photos, copied(photos), copied(copied(photos))], ignore_index=True))


def test_fewer_photos_are_needed_where_the_user_gave_a_test_split():
    test = photos_of({"a": 1, "b": 1}, "test")
    result = split_of(pd.concat([photos_of({"a": 2, "b": 2}, "train"), test], ignore_index=True))
    assert counts_of(result) == {"a": (1, 1, 1), "b": (1, 1, 1)}
    with pytest.raises(HeadstartError, match=r"'b' \(1\): each class needs at least 2 .* to train and validate\."):
        split_of(pd.concat([photos_of({"a": 2, "b": 1}, "train"), test], ignore_index=True))


def test_class_that_is_only_in_test_counts_as_zero():
    photos = pd.concat([photos_of({"a": 5, "b": 5}, "train"), photos_of({"c": 5}, "test")], ignore_index=True)
    with pytest.raises(HeadstartError, match=r"'c' \(0\)"):
        split_of(photos)


def test_leaks_are_photos_whose_bytes_are_in_a_split_that_must_stay_unseen():
    rows = [
        ("train", "own", False),
        ("train", "own", False),
        ("train", "in test", True),
        ("test", "in test", False),
        ("train", "in validation", True),
        ("validation", "in validation", False),
        ("validation", "in both", True),
        ("test", "in both", False),
        ("train", "everywhere", True),
        ("validation", "everywhere", True),
        ("test", "everywhere", False),
        ("test", "twice in test", False),
        ("test", "twice in test", False),
    ]
    photos = pd.DataFrame(rows, columns=["split", "digest", "leaked"], index=range(100, 100 + len(rows)))
    marked = leaked_into_training(photos)
    assert marked.tolist() == photos["leaked"].tolist()
    assert marked.index.equals(photos.index)


def test_training_photo_that_is_also_in_the_test_split_of_the_user_is_marked():
    train, test = photos_of({"a": 10, "b": 10}, "train"), photos_of({"a": 3, "b": 3}, "test")
    leak = copied(test.iloc[[0, 4]]).assign(split="train")
    result = split_of(pd.concat([train, test, leak], ignore_index=True))
    assert result.loc[leaked_into_training(result), "path"].tolist() == leak["path"].tolist()


def test_copies_of_one_picture_stay_together():
    photos = photos_of({"ant": 30, "bee": 30})
    ants = photos.loc[photos["label"] == "ant", "digest"].tolist()
    originals = {digest: min(ants[place // 3 * 3 : place // 3 * 3 + 3]) for place, digest in enumerate(ants)}
    split = split_photos(photos, 0, 0.15, 0.15, originals)
    groups = split[split["label"] == "ant"].groupby(split["digest"].map(originals))["split"].nunique()
    assert len(groups) == 10 and (groups == 1).all()
    assert set(split.loc[split["label"] == "ant", "split"]) == set(SPLITS)
    assert not split.equals(split_of(photos))

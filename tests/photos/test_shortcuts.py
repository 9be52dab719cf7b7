"""Facts that give a class away, and those that do not."""

import numpy as np
import pandas as pd
import pytest

from headstart.photos.shortcuts import shortcut_findings


def table_of(counts, seed=0):
    """Photos whose facts have nothing to do with their class."""
    draw = np.random.default_rng(seed)
    labels = [label for label, count in counts.items() for _ in range(count)]
    size = len(labels)
    return pd.DataFrame(
        {
            "label": labels,
            "digest": [f"{number:032x}" for number in range(size)],
            "width": draw.choice([640, 480, 800, 1024], size),
            "height": draw.choice([480, 640], size),
            "file_size": draw.lognormal(11, 0.4, size).astype(int),
            "camera": draw.choice(["", "Canon", "Apple"], size),
            "taken": draw.uniform(15_000, 20_000, size),
            "grey": draw.random(size) < 0.1,
            "file_format": draw.choice(["JPEG", "PNG"], size, p=[0.9, 0.1]),
        }
    )


def found_in(table):
    return [(found.path, found.severity, found.detail) for found in shortcut_findings(table)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "counts",
    [{"ant": 10, "bee": 10}, {"ant": 200, "bee": 30, "cat": 30}, {f"class {n}": 12 for n in range(60)}],
    ids=["few", "unbalanced", "many classes"],
)
def test_facts_that_have_nothing_to_do_with_the_class_are_no_shortcut(counts, seed):
    assert found_in(table_of(counts, seed)) == []


def test_a_class_of_another_resolution_is_named_with_the_fact():
    table = table_of({"ant": 30, "bee": 30, "cat": 30})
    table.loc[table["label"] == "bee", ["width", "height"]] = 512
    (found,) = found_in(table)
    assert found[:2] == ("bee", "severe")
    assert found[2] == (
        "resolution alone tells it from the other classes with balanced accuracy 1.00 (0.50 is chance): "
        "512 x 512 pixels in 100% of its photos, 0% of the others; width over height 0.94"
    )


def test_a_grey_class_is_named_though_some_others_are_grey_too():
    table = table_of({"ant": 30, "bee": 30, "cat": 30})
    table.loc[table["label"] == "bee", "grey"] = True
    (found,) = found_in(table)
    assert found[0] == "bee" and found[2].startswith("colour alone") and "grey in 100% of its photos" in found[2]


def test_camera_and_date_are_warnings_for_a_network_does_not_see_them():
    table = table_of({"ant": 30, "bee": 30, "cat": 30})
    table.loc[table["label"] == "ant", "camera"] = "Phone"
    table.loc[table["label"] == "cat", "taken"] = np.linspace(16_000, 16_010, 30)
    ant, cat = found_in(table)
    assert ant[:2] == ("ant", "warning") and ant[2].startswith("camera alone") and "Phone in 100%" in ant[2]
    assert cat[:2] == ("cat", "warning") and cat[2].startswith("date alone")
    assert "2013-10-27 00:00 (2013-10-22 12:00 to" in cat[2]


def test_classes_from_two_sources_are_named_when_few_share_each():
    for names, told in (("abcd", ["a", "b", "c", "d"]), ("abcdefgh", [])):
        table = table_of({name: 20 for name in names})
        first = table["label"].isin(list(names[: len(names) // 2]))
        table["width"], table["height"] = np.where(first, 640, 600), 480
        assert [row[0] for row in found_in(table)] == told


def test_a_class_of_smaller_files_is_named_only_when_it_is_all_but_certain():
    table = table_of({"ant": 40, "bee": 40})
    table.loc[table["label"] == "bee", "file_size"] //= 20
    assert [(row[0], row[1]) for row in found_in(table)] == [("ant", "warning"), ("bee", "warning")]
    assert "file size alone" in found_in(table)[0][2]
    table = table_of({"ant": 40, "bee": 40})
    table.loc[table["label"] == "bee", "file_size"] = (table["file_size"] * 0.55).astype(int)
    assert found_in(table) == []


def test_too_few_photos_prove_nothing_and_copies_do_not_count():
    table = table_of({"ant": 30, "bee": 30, "cat": 7})
    table.loc[table["label"] == "cat", "width"] = 100
    assert found_in(table) == []
    table = table_of({"ant": 30, "bee": 30, "cat": 30})
    table.loc[table["label"] == "cat", ["width", "digest"]] = [100, "copy"]
    assert found_in(table) == []


def test_one_class_and_equal_photos_are_no_trouble():
    assert found_in(table_of({"ant": 10})) == []
    table = table_of({"ant": 10, "bee": 10})
    for name in ("width", "height", "file_size", "camera", "grey", "file_format"):
        table[name] = table[name].iloc[0]
    table["taken"] = np.nan
    assert found_in(table) == []

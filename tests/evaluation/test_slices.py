import pandas as pd

from headstart.evaluation.slices import accuracy_by_slice


def table(count: int, wrong: set[int], folder=lambda number: "a") -> pd.DataFrame:
    paths = [f"{folder(number)}/{number}.jpg" for number in range(count)]
    return pd.DataFrame({"path": paths, "correct": [number not in wrong for number in range(count)]})


def test_dark_photos_that_are_wrong_show():
    predictions = table(60, set(range(15)))
    facts = pd.DataFrame({"path": predictions["path"], "brightness": range(60), "sharpness": 1.0})
    facts[["width", "height"]] = 100
    found = accuracy_by_slice(predictions, facts, 0)
    assert [(row["fact"], row["slice"], row["photos"], row["accuracy"]) for row in found] == [
        ("brightness", "darkest third", 20, 0.25),
        ("brightness", "middle third", 20, 1.0),
        ("brightness", "brightest third", 20, 1.0),
    ]
    low, high = found[0]["accuracy_interval"]
    assert 0.1 < low < 0.25 < high < 0.5


def test_folders_below_the_class_are_sources():
    predictions = table(40, set(range(0, 40, 4)), lambda number: f"train/ant/camera{number % 2}")
    found = accuracy_by_slice(predictions, None, 1)
    assert [(row["fact"], row["slice"], row["accuracy"]) for row in found] == [
        ("folder", "camera0", 0.5),
        ("folder", "camera1", 1.0),
    ]


def test_the_class_folder_alone_is_no_source_and_few_photos_say_nothing():
    assert accuracy_by_slice(table(40, set(), lambda number: f"class{number % 4}"), None, 0) == []
    assert accuracy_by_slice(table(12, set(), lambda number: f"x/cam{number % 2}"), None, 0) == []


def test_a_table_s_photos_come_from_the_folders_they_lie_in():
    found = accuracy_by_slice(table(40, set(), lambda number: f"day{number % 2}"), None, None)
    assert [row["slice"] for row in found] == ["day0", "day1"]

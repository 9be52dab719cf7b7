"""Classes and folders as a whole."""

import pandas as pd
import pytest

from headstart.photos.catalog import Catalog, read_catalog
from headstart.photos.classes import class_findings, folder_findings
from headstart.photos.findings import KINDS


def catalog_of(counts, split=""):
    rows = [
        (f"{label}/{number}.jpg", label, split, f"{label}{number}")
        for label, count in counts.items()
        for number in range(count)
    ]
    photos = pd.DataFrame(rows, columns=["path", "label", "split", "digest"])
    return Catalog("", photos, list(counts))


def found_in(catalog):
    return [
        (f.path, f.problem, f.severity or KINDS[f.problem].severity, f.detail)
        for f in class_findings(catalog, catalog.photos)
    ]


def test_large_and_balanced_classes_are_fine():
    assert found_in(catalog_of({"ant": 10, "bee": 29})) == []


def test_small_classes_are_graver_the_smaller():
    assert found_in(catalog_of({"a": 9, "b": 10, "c": 4, "d": 5, "e": 2})) == [
        ("a", "too few photos", "note", "9 photos that can be read and differ"),
        ("c", "too few photos", "warning", "4 photos that can be read and differ"),
        ("d", "too few photos", "note", "5 photos that can be read and differ"),
        ("e", "too few photos", "severe", "2 photos that can be read and differ; training needs at least 3"),
        (".", "unbalanced classes", "note", "10 photos of b, 2 of e"),
    ]


def test_with_splits_of_the_users_two_training_photos_are_enough_to_train():
    assert found_in(catalog_of({"a": 2, "b": 2}, "train"))[0][2] == "warning"


def test_unbalanced_classes_are_told_with_both_ends():
    assert found_in(catalog_of({"a": 300, "b": 30, "c": 100})) == [
        (".", "unbalanced classes", "warning", "300 photos of a, 30 of b")
    ]
    assert found_in(catalog_of({"a": 90, "b": 30}))[0][2] == "note"


def test_copies_do_not_count_towards_a_class():
    catalog = catalog_of({"a": 12, "b": 12})
    catalog.photos["digest"] = catalog.photos["digest"].replace({f"a{number}": "a0" for number in range(8)})
    assert found_in(catalog) == [("a", "too few photos", "note", "5 photos that can be read and differ")]


def test_names_that_differ_by_case_or_spacing():
    names = ["Golden Retriever", "golden_retriever", "GOLDEN-RETRIEVER", "golden retriever 2", "pug", "..", "-"]
    assert found_in(catalog_of(dict.fromkeys(names, 10))) == [
        (name, "similar class names", "warning", "differs from 'Golden Retriever' only by case or spacing")
        for name in ("golden_retriever", "GOLDEN-RETRIEVER")
    ]


def test_a_class_without_test_photos_is_named(write_photos):
    paths = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in ("a", "b") for n in range(10)]
    root = write_photos(*paths, *(f"train/c/{n}.png" for n in range(10)))
    assert found_in(read_catalog(root)) == [("c", "class missing from a split", "warning", "no test photos")]


@pytest.fixture
def folders(write_photos):
    root = write_photos("ant/a.png", "ant/deep/er/b.png", "bee/a.png", "loose.png", "ant/.ipynb_checkpoints/a.png")
    for name in ("cat", "dog/empty/too", "__MACOSX/ant"):
        (root / name).mkdir(parents=True)
    (root / "papers" / "more").mkdir(parents=True)
    (root / "papers" / "more" / "b.txt").write_text("text")
    (root / "papers" / "a.pdf").write_text("text")
    (root / "ant" / "labels.txt").write_text("text")
    return root


def test_folders_that_are_no_classes_are_named(folders):
    assert [(found.path, found.problem, found.detail) for found in folder_findings(read_catalog(folders))] == [
        (".", "ignored", "3 files that are not images"),
        (".", "ignored", "1 photo outside a class folder"),
        ("__MACOSX", "ignored", "a folder that programs make, not a class"),
        ("ant/.ipynb_checkpoints", "ignored", "a folder that programs make, not a class"),
        ("cat", "empty class folder", "no files in it"),
        ("dog", "empty class folder", "no files in it"),
        ("papers", "folder without photos", "2 files, such as a.pdf"),
    ]


def test_folders_within_splits_are_looked_at(write_photos):
    root = write_photos("train/a/1.png", "train/b/1.png", "Test/a/1.png")
    (root / "Test" / "b").mkdir()
    (root / "Test" / "c").mkdir()
    (root / "Test" / "c" / "x.txt").write_text("text")
    found = [(found.path, found.problem) for found in folder_findings(read_catalog(root))]
    assert found == [
        (".", "ignored"),
        ("Test/b", "empty class folder"),
        ("Test/c", "folder without photos"),
    ]


def test_the_folder_of_a_table_is_not_looked_into(folders):
    (folders / "photos.csv").write_text("path,label\nant/a.png,ant\nbee/a.png,bee\n")
    assert list(folder_findings(read_catalog(folders / "photos.csv"))) == []

"""The clean copy."""

import os

import pandas as pd
import pytest

from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.catalog import read_catalog
from headstart.photos.clean import check_target, write_clean
from headstart.photos.findings import Finding, finding_table

QUIET = Console(quiet=True)
FOUND = finding_table(
    [
        Finding("a/2.png", "damaged", ""),
        Finding("b/1.png", "label conflict", ""),
        Finding("a/1.png", "blurry", ""),
        Finding("a", "too few photos", ""),
    ]
)


@pytest.fixture
def catalog(write_photos):
    return read_catalog(
        write_photos("photos/a/1.png", "photos/a/2.png", "photos/b/1.png", "photos/b/deep/2.png") / "photos"
    )


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_copied_without_what_is_left_out_and_stays_as_it_was(catalog, tmp_path):
    before = files_in(catalog.root)
    assert write_clean(catalog, FOUND, tmp_path / "clean", QUIET) == 2
    assert files_in(tmp_path / "clean") == {name: before[name] for name in ("a/1.png", "b/deep/2.png")}
    assert files_in(catalog.root) == before
    assert not os.path.samefile(tmp_path / "clean" / "a" / "1.png", catalog.root / "a" / "1.png")
    assert read_catalog(tmp_path / "clean").photos["label"].tolist() == ["a", "b"]


def test_a_table_of_what_is_kept_reads_as_the_same_photos(catalog, tmp_path):
    assert write_clean(catalog, FOUND, tmp_path / "new" / "clean.csv", QUIET) == 2
    table = pd.read_csv(tmp_path / "new" / "clean.csv")
    assert table.to_numpy().tolist() == [["../photos/a/1.png", "a"], ["../photos/b/deep/2.png", "b"]]
    kept = catalog.photos[catalog.photos["path"].isin(["a/1.png", "b/deep/2.png"])]
    assert read_catalog(tmp_path / "new" / "clean.csv").photos["digest"].tolist() == kept["digest"].tolist()


def test_splits_are_kept(write_photos, tmp_path):
    root = write_photos("in/Train/a/1.png", "in/Train/b/1.png", "in/val/a/1.png", "in/val/b/1.png") / "in"
    catalog = read_catalog(root)
    write_clean(catalog, finding_table([]), tmp_path / "clean", QUIET)
    write_clean(catalog, finding_table([]), tmp_path / "clean.csv", QUIET)
    for target in ("clean", "clean.csv"):
        assert read_catalog(tmp_path / target).photos["split"].tolist() == [
            "train",
            "train",
            "validation",
            "validation",
        ]


def test_the_photos_of_a_table_get_class_folders_wherever_they_lie(write_photos, tmp_path):
    root = write_photos("else/x.png", "tables/x.png", "tables/y/X.png")
    (root / "tables" / "t.csv").write_text("path,label\n../else/x.png,one\nx.png,one\ny/X.png,two\n")
    catalog = read_catalog(root / "tables" / "t.csv")
    assert write_clean(catalog, finding_table([]), tmp_path / "clean", QUIET) == 3
    assert set(files_in(tmp_path / "clean")) == {"one/x.png", "one/x-2.png", "two/X.png"}


def test_class_names_that_cannot_be_folders_are_refused(write_photos, tmp_path):
    root = write_photos("x.png", "y.png")
    (root / "t.csv").write_text("path,label\nx.png,../up\ny.png,fine\n")
    with pytest.raises(HeadstartError, match=r"class names that cannot be folders: \.\./up"):
        write_clean(read_catalog(root / "t.csv"), finding_table([]), tmp_path / "clean", QUIET)
    assert not (tmp_path / "clean").exists()


def test_nothing_is_overwritten(catalog, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "mine.csv").touch()
    with pytest.raises(HeadstartError, match="holds mine.txt; expected a new folder"):
        check_target(tmp_path / "full")
    with pytest.raises(HeadstartError, match="exists already"):
        check_target(tmp_path / "mine.csv")
    with pytest.raises(HeadstartError, match="lies among the photos"):
        check_target(catalog.root / "clean", catalog)
    (tmp_path / "empty").mkdir()
    assert write_clean(catalog, FOUND, tmp_path / "empty", QUIET) == 2


def test_a_copy_of_nothing_is_refused(catalog, tmp_path):
    every = finding_table([Finding(path, "damaged", "") for path in catalog.photos["path"]])
    with pytest.raises(HeadstartError, match="no photo is left"):
        write_clean(catalog, every, tmp_path / "clean", QUIET)
    assert not (tmp_path / "clean").exists()

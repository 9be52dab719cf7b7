import dataclasses
import os
import re
import shutil
import sys
from collections import Counter

import pandas as pd
import pytest

from headstart.errors import HeadstartError
from headstart.photos.catalog import (
    Catalog,
    file_digest,
    natural_key,
    no_problems,
    passed_over,
    photo_files,
    problem_table,
    read_catalog,
)


def rows(catalog):
    return list(catalog.photos[["path", "label", "split"]].itertuples(index=False, name=None))


def refusal(source):
    """Return the text of the error with which `source` is refused."""
    with pytest.raises(HeadstartError) as caught:
        read_catalog(source)
    return str(caught.value)


# Folders


def test_folder_per_class_with_photos_at_any_depth(write_photos):
    root = write_photos("cat/1.png", "cat/2020/may/3.png", "cat/2020/2.jpg", "dog/deep/er/still/4.webp", "dog/5.png")
    catalog = read_catalog(root)
    assert rows(catalog) == [
        ("cat/1.png", "cat", ""),
        ("cat/2020/2.jpg", "cat", ""),
        ("cat/2020/may/3.png", "cat", ""),
        ("dog/5.png", "dog", ""),
        ("dog/deep/er/still/4.webp", "dog", ""),
    ]
    assert catalog.class_names == ["cat", "dog"]
    assert catalog.root == root.resolve()
    assert catalog.ignored == {}
    assert catalog.problems.empty
    assert list(catalog.photos.columns) == ["path", "label", "split", "digest"]
    assert catalog.photos["digest"].str.fullmatch("[0-9a-f]{32}").all()
    assert catalog.photos["digest"].is_unique


@pytest.mark.parametrize("name", ["1.png", "2.JPG", "photo.dat", "photo", "photo.txt"])
def test_images_are_recognised_by_content_whatever_their_suffix(write_photos, write_photo, name):
    root = write_photos("a/0.png", "b/0.png")
    write_photo(root / "a" / name, image_format="JPEG")
    catalog = read_catalog(root)
    assert sorted(catalog.photos["path"]) == sorted(["a/0.png", f"a/{name}", "b/0.png"])
    assert catalog.ignored == {}


def test_png_named_jpg_and_html_named_jpg_both_are_listed(write_photos, write_photo):
    root = write_photos("a/0.png", "b/0.png")
    write_photo(root / "a/png.jpg", image_format="PNG")
    (root / "b/page.jpg").write_text("<!DOCTYPE html>")
    assert list(read_catalog(root).photos["path"]) == ["a/0.png", "a/png.jpg", "b/0.png", "b/page.jpg"]


def test_what_is_not_a_photo_is_passed_over_and_counted(write_photos):
    root = write_photos("a/1.png", "a/2.png", "b/1.png", "loose.png")
    write_photos(
        "a/.hidden.png", "a/._1.png", "a/.ipynb_checkpoints/1-checkpoint.png", ".git/x.png", "__MACOSX/a/1.png"
    )
    for name in ["a/Thumbs.db", "desktop.ini", "a/notes.txt", "b/labels.json", "README"]:
        (root / name).write_text("text")
    catalog = read_catalog(root)
    assert list(catalog.photos["path"]) == ["a/1.png", "a/2.png", "b/1.png"]
    assert catalog.class_names == ["a", "b"]
    assert catalog.ignored == {
        "hidden files and folders": 7,
        "files that are not images": 3,
        "photos outside a class folder": 1,
    }


def test_class_names_are_in_natural_order(write_photos):
    names = ["10", "2", "1", "class10", "class2", "apple", "Banana"]
    root = write_photos(*(f"{name}/0.png" for name in names))
    expected = ["1", "2", "10", "apple", "Banana", "class2", "class10"]
    catalog = read_catalog(root)
    assert catalog.class_names == expected
    assert list(catalog.photos["label"]) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["img10", "img2", "img1"], ["img1", "img2", "img10"]),
        (["b", "A", "a"], ["A", "a", "b"]),
        (["x", "10", "9"], ["9", "10", "x"]),
        (["a01", "a1", "a001"], ["a001", "a01", "a1"]),
        (["v1.10", "v1.9", "v1"], ["v1", "v1.9", "v1.10"]),
        (["²", "b", "1"], ["1", "b", "²"]),
    ],
)
def test_natural_key_orders_numbers_by_value(names, expected):
    assert sorted(names, key=natural_key) == expected


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("TRAIN", "Valid", "Test"), ("training", "validation", "testing")],
)
def test_folder_that_already_is_split(write_photos, train, validation, test):
    root = write_photos(
        f"{train}/a/1.png", f"{train}/b/deep/2.png", f"{validation}/a/3.png", f"{test}/b/4.png", f"{test}/a/5.png"
    )
    write_photos("loose.png", f"{train}/in_no_class.png")
    catalog = read_catalog(root)
    assert sorted(rows(catalog)) == sorted(
        [
            (f"{train}/a/1.png", "a", "train"),
            (f"{train}/b/deep/2.png", "b", "train"),
            (f"{validation}/a/3.png", "a", "validation"),
            (f"{test}/a/5.png", "a", "test"),
            (f"{test}/b/4.png", "b", "test"),
        ]
    )
    assert catalog.class_names == ["a", "b"]
    assert catalog.ignored == {"photos outside a class folder": 2}


def test_split_names_beside_another_class_are_classes(write_photos):
    catalog = read_catalog(write_photos("train/1.png", "bus/1.png", "test/1.png"))
    assert catalog.class_names == ["bus", "test", "train"]
    assert set(catalog.photos["split"]) == {""}


def test_unicode_and_spaces_in_names_are_kept(write_photos):
    root = write_photos("crème brûlée/ünï 犬.png", "b c/1 2.png")
    assert rows(read_catalog(root)) == [
        ("b c/1 2.png", "b c", ""),
        ("crème brûlée/ünï 犬.png", "crème brûlée", ""),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names that are not UTF-8")
def test_file_name_that_is_not_utf_8_is_accounted_for(write_photos):
    root = write_photos("a/1.png", "a/2.png", "b/1.png")
    os.rename(root / "a/2.png", os.fsencode(root / "a") + b"/caf\xe9.png")
    catalog = read_catalog(root)
    assert {"a/1.png", "b/1.png"} <= set(catalog.photos["path"])
    assert len(catalog.photos) + len(catalog.problems) + sum(catalog.ignored.values()) == 3


def test_links_to_folders_are_followed_once(write_photos, write_photo):
    root = write_photos("set/a/1.png", "set/b/1.png") / "set"
    write_photo(root.parent / "elsewhere/1.png")
    (root / "c").symlink_to(root.parent / "elsewhere")
    (root / "d").symlink_to(root.parent / "elsewhere")
    assert list(read_catalog(root).photos["path"]) == ["a/1.png", "b/1.png", "c/1.png"]


@pytest.mark.timeout(20)
def test_loop_of_folder_links_ends(write_photos):
    root = write_photos("a/1.png", "b/1.png")
    (root / "a/back").symlink_to(root)
    (root / "b/over").symlink_to(root / "a")
    catalog = read_catalog(root)
    assert list(catalog.photos["path"]) == ["a/1.png", "b/1.png"]
    assert catalog.ignored == {}


@pytest.mark.timeout(20)
def test_link_to_itself_is_no_photo(write_photos):
    root = write_photos("a/1.png", "b/1.png")
    (root / "a/self").symlink_to("self")
    catalog = read_catalog(root)
    assert list(catalog.photos["path"]) == ["a/1.png", "b/1.png"]
    assert catalog.ignored == {"files that are not images": 1}


def test_file_that_cannot_be_opened_is_a_problem(write_photos):
    root = write_photos("a/1.png", "b/1.png")
    (root / "a/2.png").symlink_to(root / "gone.png")
    catalog = read_catalog(root)
    assert list(catalog.photos["path"]) == ["a/1.png", "b/1.png"]
    assert catalog.problems.values.tolist() == [["a/2.png", "unreadable", "the file cannot be opened"]]


def test_photo_files_come_in_natural_order_files_before_folders(write_photos):
    root = write_photos("10.png", "2.png", "b/1.png", "a/10.png", "a/9.png", "a/x/1.png")
    found = [path.relative_to(root).as_posix() for path in photo_files(root, Counter())]
    assert found == ["2.png", "10.png", "a/9.png", "a/10.png", "a/x/1.png", "b/1.png"]


# What a folder is refused for


def test_missing_folder_is_refused(tmp_path):
    assert f"{tmp_path}/nowhere: no such folder or file" in refusal(tmp_path / "nowhere")


def test_single_photo_is_refused(write_photos):
    path = write_photos("1.png") / "1.png"
    assert "1.png: is a file; expected a folder of photos, or a table ending in .csv, .tsv, .parquet" in refusal(path)


def test_empty_folder_is_refused(tmp_path):
    text = refusal(tmp_path)
    assert f"{tmp_path.resolve()}: holds no photos (it is empty)" in text
    assert "Put the photos of each class in a folder of its own." in text


def test_folder_without_photos_says_what_was_passed_over(tmp_path):
    for name in [".hidden", "a.txt", "b.txt"]:
        (tmp_path / name).write_text("text")
    expected = "holds no photos (ignored 2 files that are not images, 1 hidden file or folder)"
    assert expected in refusal(tmp_path)


def test_what_is_told_of_a_catalog_is_in_the_right_number(write_photos):
    folder = write_photos("a/1.png", "a/2.png", "b/1.png", "b/2.png")
    assert read_catalog(folder).told() == f"Photos      4 photos in 2 classes, 2 a class ({folder.resolve()})"
    (folder / "b" / "2.png").unlink()
    (folder / "b" / "notes.txt").write_text("none")
    catalog = read_catalog(folder)
    assert catalog.told() == f"Photos      3 photos in 2 classes, 1 to 2 a class ({folder.resolve()})"
    assert passed_over(catalog.ignored) == ["1 file that is not an image"]
    assert passed_over({"photos outside a class folder": 1200}) == ["1,200 photos outside a class folder"]


def test_photos_outside_any_folder_are_refused(write_photos):
    assert "has no class folders; expected at least two" in refusal(write_photos("1.png", "2.png"))


def test_one_class_is_refused(write_photos):
    text = refusal(write_photos("a/1.png", "a/2.png"))
    assert "has only one class, 'a'; expected at least two" in text
    assert "Did you mean" not in text


@pytest.mark.parametrize(
    "paths", [["photos/a/1.png", "photos/b/1.png"], ["photos/train/a/1.png", "photos/test/a/1.png"]]
)
def test_folder_one_too_high_is_refused_with_the_right_one(write_photos, paths):
    root = write_photos(*paths)
    text = refusal(root)
    assert "has only one class, 'photos'" in text
    assert f"Did you mean {root.resolve() / 'photos'}?" in text


def test_class_in_test_but_not_in_train_is_refused(write_photos):
    root = write_photos("train/a/1.png", "train/b/1.png", "test/a/2.png", "test/c/2.png", "val/d/1.png")
    assert "no training photos for 'c', 'd', which are in another split" in refusal(root)


# Tables


def test_csv_of_paths_and_labels(write_photos):
    root = write_photos("x/1.png", "x/2.png", "y/deep/3.png")
    table = root / "photos.csv"
    table.write_text("path,label\ny/deep/3.png,dog\nx/1.png,cat\nx/2.png,dog\n")
    catalog = read_catalog(table)
    assert rows(catalog) == [("y/deep/3.png", "dog", ""), ("x/1.png", "cat", ""), ("x/2.png", "dog", "")]
    assert catalog.root == root.resolve()
    assert catalog.class_names == ["cat", "dog"]
    assert catalog.photos["digest"][1] == file_digest(root / "x/1.png")


def test_table_paths_are_relative_to_the_table_or_absolute(write_photos, tmp_path, monkeypatch):
    write_photos("photos/1.png", "photos/2.png", "lists/3.png")
    (tmp_path / "lists/all.csv").write_text(f"path,label\n../photos/1.png,a\n{tmp_path}/photos/2.png,b\n3.png,b\n")
    monkeypatch.chdir("/")
    assert rows(read_catalog(tmp_path / "lists/all.csv")) == [
        ("../photos/1.png", "a", ""),
        (f"{tmp_path}/photos/2.png", "b", ""),
        ("3.png", "b", ""),
    ]


def test_table_splits_go_by_any_usual_name(write_photos):
    root = write_photos("1.png", "2.png", "3.png", "4.png", "5.png")
    lines = ["1.png,a,Train", "2.png,b,training", "3.png,a,VAL", "4.png,b,valid", "5.png,a,test"]
    (root / "t.csv").write_text("\n".join(["path,label,split", *lines]))
    expected = ["train", "train", "validation", "validation", "test"]
    assert list(read_catalog(root / "t.csv").photos["split"]) == expected


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".CSV"])
def test_labels_of_every_kind_of_table_stay_text(write_photos, suffix):
    labels = ["007", "NA", "null", "1.0", "True", "a b"]
    names = [f"{number}.png" for number in range(len(labels))]
    table = write_photos(*names) / f"table{suffix}"
    frame = pd.DataFrame({"path": names, "label": labels, "split": "train", "note": "not read"})
    if suffix == ".parquet":
        frame.to_parquet(table)
    else:
        frame.to_csv(table, sep="\t" if suffix == ".tsv" else ",", index=False)
    catalog = read_catalog(table)
    assert rows(catalog) == [(name, label, "train") for name, label in zip(names, labels, strict=True)]
    assert catalog.class_names == ["1.0", "007", "a b", "NA", "null", "True"]


def test_parquet_with_numbers_and_categories_as_labels(write_photos):
    root = write_photos("1.png", "2.png")
    frame = pd.DataFrame({"path": ["1.png", "2.png"], "label": [7, 10]})
    frame.to_parquet(root / "numbers.parquet")
    frame.assign(label=pd.Categorical(["x", "y"])).to_parquet(root / "categories.parquet")
    assert read_catalog(root / "numbers.parquet").class_names == ["7", "10"]
    assert read_catalog(root / "categories.parquet").class_names == ["x", "y"]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [(["x", None], object), ([1, None], "Int64"), ([1.0, None], "float64"), (["x", None], "category")],
)
def test_parquet_with_an_absent_label_is_refused(write_photos, column, dtype):
    root = write_photos("1.png", "2.png")
    frame = pd.DataFrame({"path": ["1.png", "2.png"], "label": pd.Series(column, dtype=dtype)})
    frame.to_parquet(root / "t.parquet")
    assert "no path or no label in line 3" in refusal(root / "t.parquet")


def test_csv_as_spreadsheets_write_it(write_photos):
    root = write_photos("1.png", "2.png", "ü, 3.png")
    text = 'Path , Label\r\n1.png, café \r\n2.png,dog\r\n"ü, 3.png","dog"\r\n'
    (root / "t.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert rows(read_catalog(root / "t.csv")) == [("1.png", "café", ""), ("2.png", "dog", ""), ("ü, 3.png", "dog", "")]


def test_the_same_row_twice_is_one_photo(write_photos):
    root = write_photos("1.png", "2.png")
    (root / "t.csv").write_text("path,label\n1.png,a\n2.png,b\n1.png,a\n")
    assert rows(read_catalog(root / "t.csv")) == [("1.png", "a", ""), ("2.png", "b", "")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,class\n1.png,a\n", "has no column path and no column label (found: file, class)"),
        ("path,klass\n1.png,a\n", "has no column label (found: path, klass)"),
        ("path;label\n1.png;a\n", "has no column path and no column label (found: path;label)"),
        ("", "cannot be read as a table: No columns to parse from file"),
        ("path,label\n1.png,a\ngone.png,b\nx/gone.png,b\n", "2 paths in it not found: gone.png, x/gone.png."),
        ("path,label\n1.png,a\n.,b\n", "1 path in it not found"),
        ("path,label\n1.png,a\n2.png,\n3.png, \n", "no path or no label in line 3, 4."),
        ("path,label\n1.png,a\n,b\n", "no path or no label in line 3."),
        ("path,label\n1.png,a\n2.png\n", "no path or no label in line 3."),
        ("path,label\n1.png,a\n\n\n2.png,\n", "no path or no label in line 5."),
        ("path,label,split\n1.png,a,train\n2.png,b,holdout\n", "unknown split 'holdout'."),
        ("path,label,split\n1.png,a,train\n2.png,b,\n", "1 line without a split, while others have one."),
        ("path,label\n1.png,a\n2.png,b\n1.png,b\n", "1 photo with more than one label or split: 1.png."),
        (
            "path,label,split\n1.png,a,train\n2.png,b,train\n1.png,a,test\n",
            "1 photo with more than one label or split: 1.png.",
        ),
        ("path,label\n1.png,a\n2.png,a\n", "has only one class, 'a'"),
        ("path,label,split\n1.png,a,train\n2.png,b,train\n3.png,c,test\n", "no training photos for 'c'"),
        ("path,label,split\n1.png,a,test\n2.png,b,test\n", "no training photos for 'a', 'b'"),
    ],
)
def test_table_is_refused_by_name_and_reason(write_photos, text, expected):
    table = write_photos("1.png", "2.png", "3.png").resolve() / "t.csv"
    table.write_text(text)
    message = refusal(table)
    assert message.startswith(f"{table}: ")
    assert expected in message


def test_missing_path_says_what_paths_are_relative_to(write_photos):
    root = write_photos("1.png").resolve()
    (root / "t.csv").write_text("path,label\n1.png,a\ngone.png,b\n")
    assert f"Paths are read relative to the table's own folder, {root}." in refusal(root / "t.csv")


def test_two_spellings_of_one_path_do_not_give_it_two_labels(write_photos):
    root = write_photos("a/1.png", "2.png")
    (root / "t.csv").write_text("path,label\na/1.png,x\n./a/1.png,y\n2.png,y\n")
    assert "with more than one label or split" in refusal(root / "t.csv")


def test_label_with_an_unquoted_comma_is_refused(write_photos):
    root = write_photos("1.png", "2.png")
    (root / "t.csv").write_text("path,label\n1.png,dogs, brown\n2.png,cats\n")
    assert re.search(r"t\.csv: cannot be read as a table", refusal(root / "t.csv"))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_file_that_is_no_table_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00\x01 not a table \x00")
    assert f"{name}: cannot be read as a table: " in refusal(tmp_path / name)


# Digests


def test_file_digest_is_blake2b_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert file_digest(tmp_path / "a") == "cae66941d9efbd404e4d88758ea67670"
    (tmp_path / "b").write_bytes(b"\0" * (3 << 20))
    (tmp_path / "c").write_bytes(b"\0" * (3 << 20) + b"1")
    assert file_digest(tmp_path / "b") != file_digest(tmp_path / "c")
    assert file_digest(tmp_path / "gone") == ""


def test_equal_photos_have_equal_digests(write_photos):
    root = write_photos("a/1.png", "b/1.png")
    shutil.copy(root / "a/1.png", root / "b/copy.png")
    digests = read_catalog(root).photos.set_index("path")["digest"]
    assert digests["a/1.png"] == digests["b/copy.png"] != digests["b/1.png"]


def test_catalog_digest_is_stable_wherever_the_folder_lies(write_photos):
    root = write_photos("photos/a/1.png", "photos/a/2.png", "photos/b/1.png") / "photos"
    shutil.copytree(root, root.parent / "moved")
    first = read_catalog(root)
    assert re.fullmatch("[0-9a-f]{64}", first.digest)
    assert first.digest == read_catalog(root).digest == read_catalog(root.parent / "moved").digest


def test_catalog_digest_changes_with_one_byte_a_label_a_path_or_a_split(write_photos):
    root = write_photos("1.png", "2.png", "3.png")
    table = root / "t.csv"
    digests = []

    def read(text):
        table.write_text(text)
        digests.append(read_catalog(table).digest)

    read("path,label\n1.png,a\n2.png,b\n3.png,b\n")
    read("path,label\n1.png,a\n2.png,b\n3.png,a\n")
    read("path,label,split\n1.png,a,train\n2.png,b,train\n3.png,b,train\n")
    (root / "3.png").rename(root / "4.png")
    read("path,label\n1.png,a\n2.png,b\n4.png,b\n")
    with (root / "4.png").open("ab") as file:
        file.write(b"\0")
    read("path,label\n1.png,a\n2.png,b\n4.png,b\n")
    assert len(set(digests)) == 5


def test_catalog_digest_does_not_depend_on_the_order_of_rows(write_photos):
    root = write_photos("1.png", "2.png", "3.png")
    (root / "a.csv").write_text("path,label\n1.png,a\n2.png,b\n3.png,b\n")
    (root / "b.csv").write_text("path,label\n3.png,b\n1.png,a\n2.png,b\n")
    assert read_catalog(root / "a.csv").digest == read_catalog(root / "b.csv").digest


# Problems


def test_without_takes_photos_out_and_keeps_why(tmp_path):
    photos = pd.DataFrame({"path": ["1", "2", "3"], "label": list("aab"), "split": "", "digest": list("xyz")})
    known = problem_table([("0", "unreadable", "the file cannot be opened")])
    catalog = Catalog(tmp_path, photos, ["a", "b"], known)
    found = problem_table([("2", "unreadable", "empty file"), ("not in it", "leak", "same bytes")])
    smaller = catalog.without(found)
    assert smaller.photos.to_dict("list") == {
        "path": ["1", "3"],
        "label": ["a", "b"],
        "split": ["", ""],
        "digest": ["x", "z"],
    }
    assert list(smaller.photos.index) == [0, 1]
    assert smaller.problems.values.tolist() == [*known.values.tolist(), *found.values.tolist()]
    assert len(catalog.photos) == 3
    assert len(catalog.problems) == 1


def test_no_problems_is_an_empty_table_that_rows_can_be_added_to():
    assert list(no_problems().columns) == list(problem_table([]).columns) == ["path", "problem", "detail"]
    both = pd.concat([no_problems(), problem_table([("a", "b", "c")])], ignore_index=True)
    assert both.values.tolist() == [["a", "b", "c"]]


def test_catalog_is_immutable(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Catalog(tmp_path, no_problems(), []).root = tmp_path


def test_a_part_is_an_equal_share_of_each_class_and_split(write_photos):
    names = [f"train/cat/{n}.png" for n in range(40)] + [f"train/dog/{n}.png" for n in range(12)]
    catalog = read_catalog(write_photos(*names, *(f"test/{label}/{n}.png" for label in ("cat", "dog") for n in (0, 1))))
    part = catalog.part(28)  # half of them, but no class loses its last ten
    counts = Counter(zip(part.photos["label"], part.photos["split"], strict=True))
    assert counts == {("cat", "train"): 20, ("dog", "train"): 10, ("cat", "test"): 2, ("dog", "test"): 2}
    assert set(part.photos["path"]) < set(catalog.part(40).photos["path"])
    assert part.class_names == catalog.class_names and part.digest == catalog.part(28).digest

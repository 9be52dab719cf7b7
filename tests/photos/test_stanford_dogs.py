"""Stanford Dogs from archives of the same make as the originals, served on the loopback interface."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.catalog import read_catalog
from headstart.photos.download import Archive
from headstart.photos.names import readable
from headstart.photos.stanford_dogs import IMAGES, LISTS, stanford_dogs_table
from making import make_photo

BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02089078-black-and-tan_coonhound")
SPLITS = {"train": 4, "test": 2}


def photo_names(split):
    first = 0 if split == "train" else SPLITS["train"]
    return [f"{breed}/{breed[:9]}_{first + number}.jpg" for breed in BREEDS for number in range(SPLITS[split])]


def mat_file(names) -> bytes:
    """A list as the authors wrote it: a column of cells with names, another with annotations, and labels from 1."""
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    annotations = np.empty((len(names), 1), object)
    annotations[:, 0] = [name.removesuffix(".jpg") for name in names]
    labels = np.array([[1 + BREEDS.index(name.split("/")[0])] for name in names], np.uint8)
    file = io.BytesIO()
    savemat(file, {"file_list": cells, "annotation_list": annotations, "labels": labels})
    return file.getvalue()


def jpeg(hue, number) -> bytes:
    file = io.BytesIO()
    make_photo(100 * hue + number, hue).save(file, "JPEG")
    return file.getvalue()


def tar_file(files) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def photo_files():
    names = [name for split in SPLITS for name in photo_names(split)]
    files = {f"Images/{name}": jpeg(BREEDS.index(name.split("/")[0]), number) for number, name in enumerate(names)}
    return {**files, "Images/n02085620-Chihuahua/n02085620_999.jpg": jpeg(0, 999)}


@pytest.fixture
def archives(site):
    """Both archives at a site; one of their photos is in neither list."""

    def serve(files):
        site.files["/images.tar"] = tar_file(files)
        lists = {f"{split}_list.mat": mat_file(photo_names(split)) for split in SPLITS}
        site.files["/lists.tar"] = tar_file({**lists, "file_list.mat": mat_file([])})
        return {
            name: Archive(f"{site.url}/{name}.tar", hashlib.sha256(data).hexdigest(), len(data))
            for name, data in (("images", site.files["/images.tar"]), ("lists", site.files["/lists.tar"]))
        }

    return serve


def test_the_official_split_and_the_breeds_are_kept(tmp_path, archives, site, capsys):
    files = photo_files()
    table = stanford_dogs_table(tmp_path, Console(), **archives(files))
    assert table == tmp_path / "datasets/stanford-dogs/photos.csv"
    rows = pd.read_csv(table)
    assert rows.columns.tolist() == ["path", "label", "split"]
    for split, count in SPLITS.items():
        chosen = rows[rows["split"] == split]
        assert chosen["path"].tolist() == [f"Images/{name}" for name in photo_names(split)]
        assert chosen["label"].value_counts().to_dict() == {
            "Chihuahua": count,
            "Japanese spaniel": count,
            "black-and-tan coonhound": count,
        }
    assert (table.parent / rows["path"][0]).read_bytes() == files[rows["path"][0]]
    catalog = read_catalog(table)
    assert catalog.class_names == ["black-and-tan coonhound", "Chihuahua", "Japanese spaniel"]
    assert catalog.photos["split"].value_counts().to_dict() == {"train": 12, "test": 6}
    assert capsys.readouterr().out.startswith("Dataset     stanford-dogs: 0 MB from http://127.0.0.1:")


def test_it_is_downloaded_once_and_the_archives_are_not_kept(tmp_path, archives, site):
    found = archives(photo_files())
    for _ in range(2):
        stanford_dogs_table(tmp_path, Console(), **found)
    assert [path for path, _ in site.requests] == ["/lists.tar", "/images.tar"]
    assert [path.name for path in (tmp_path / "datasets").iterdir() if path.is_dir()] == ["stanford-dogs"]


def test_an_interrupted_one_leaves_no_folder_and_goes_on(tmp_path, archives, site):
    found = archives({**photo_files(), "Images/large": bytes(200_000)})
    site.cut_after = 100_000
    with pytest.raises(HeadstartError, match="the connection broke"):
        stanford_dogs_table(tmp_path, Console(quiet=True), **found)
    assert not (tmp_path / "datasets/stanford-dogs").exists()
    site.cut_after = None
    assert len(read_catalog(stanford_dogs_table(tmp_path, Console(quiet=True), **found)).photos) == 18
    assert site.requests == [("/lists.tar", None), ("/images.tar", None), ("/images.tar", "bytes=65536-")]


def test_a_photo_that_is_listed_and_not_there_is_told_and_nothing_stays(tmp_path, archives):
    files = photo_files()
    del files["Images/n02085620-Chihuahua/n02085620_2.jpg"]
    with pytest.raises(HeadstartError, match=r"1 photo of its lists not in its archive: Images/.*_2.jpg"):
        stanford_dogs_table(tmp_path, Console(), **archives(files))
    assert not (tmp_path / "datasets/stanford-dogs").exists()


def test_an_archive_that_reaches_outside_leaves_nothing(tmp_path, archives):
    with pytest.raises(HeadstartError, match="'../../evil.jpg'"):
        stanford_dogs_table(tmp_path, Console(), **archives({**photo_files(), "../../evil.jpg": b"evil"}))
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("n02085782-Japanese_spaniel", "Japanese spaniel"),
        ("n02089078-black-and-tan_coonhound", "black-and-tan coonhound"),
        ("n02116738-African_hunting_dog", "African hunting dog"),
    ],
)
def test_breeds_read_well(folder, name):
    assert readable(folder) == name


def test_the_originals_are_those_of_the_authors():
    assert [archive.url for archive in (IMAGES, LISTS)] == [
        "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
        "http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar",
    ]
    assert all(len(bytes.fromhex(archive.sha256)) == 32 for archive in (IMAGES, LISTS))


def test_the_checksums_are_those_of_tensorflow_datasets():
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")
    recorded = (Path(tfds.__file__).parent / "datasets/stanford_dogs/checksums.tsv").read_text().splitlines()
    assert {f"{archive.url}\t{archive.size}\t{archive.sha256}\t{archive.name}" for archive in (IMAGES, LISTS)} <= set(
        recorded
    )

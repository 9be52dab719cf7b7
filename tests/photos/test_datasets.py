from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.evaluation.evaluate import evaluate
from headstart.photos.catalog import read_catalog
from headstart.photos.datasets import absolute_source, digits_folder, is_dataset, read_photos
from headstart.recipe import Recipe
from making import make_photos


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    digits_folder(cache)
    return cache


def test_digits_are_a_folder_per_class_with_all_1797_photos(cache):
    folder = digits_folder(cache)
    assert folder == cache / "datasets/digits"
    counts = {path.name: len(list(path.iterdir())) for path in folder.iterdir()}
    assert counts == {
        "0": 178,
        "1": 182,
        "2": 177,
        "3": 183,
        "4": 181,
        "5": 182,
        "6": 181,
        "7": 179,
        "8": 174,
        "9": 180,
    }
    assert [path.name for path in (cache / "datasets").iterdir()] == ["digits"]


def test_digits_have_the_pixels_of_scikit_learn_scaled_to_255(cache):
    digits = load_digits()
    for index in (0, 1, 1796):
        with Image.open(digits_folder(cache) / str(digits.target[index]) / f"{index:04d}.png") as image:
            assert image.mode == "L"
            pixels = np.asarray(image)
        assert pixels.tolist() == np.rint(digits.images[index] * 255 / 16).tolist()


def test_digits_read_as_a_catalog(cache):
    catalog = read_catalog(digits_folder(cache))
    assert catalog.class_names == list("0123456789")
    assert len(catalog.photos) == 1797
    assert catalog.ignored == {}
    assert catalog.problems.empty


def test_digits_are_written_once(cache):
    folder = digits_folder(cache)
    before = folder.stat().st_mtime_ns
    (folder / "0/0000.png").unlink()
    assert digits_folder(cache) == folder
    assert folder.stat().st_mtime_ns == before
    assert not (folder / "0/0000.png").exists()


def test_digits_that_were_interrupted_are_written_anew(tmp_path, monkeypatch):
    def fail(image, path):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            digits_folder(tmp_path)
    assert list((tmp_path / "datasets").iterdir()) == []
    assert len(list(digits_folder(tmp_path).rglob("*.png"))) == 1797


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", True),
        ("stanford-dogs", True),
        ("tfds:mnist", True),
        ("hf:someone/something:train", True),
        ("tfds:", True),
        ("stanford-dog", False),
        ("./digits", False),
        ("/photos/digits", False),
        ("photos.csv", False),
    ],
)
def test_names_are_told_from_paths(name, expected):
    assert is_dataset(name) == expected


def test_only_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["digits", "stanford-dogs", "tfds:mnist:test", "hf:someone/something"]
    assert [absolute_source(name) for name in names] == names
    assert absolute_source("./digits") == str(tmp_path / "digits")
    assert absolute_source(Path("digits")) == str(tmp_path / "digits")


def test_photos_are_read_by_name_and_by_path(cache, write_photos):
    assert read_photos("digits", cache, Console()).class_names == list("0123456789")
    folder = write_photos("a/1.png", "b/2.png")
    assert read_photos(str(folder), cache, Console()).class_names == ["a", "b"]
    with pytest.raises(HeadstartError) as error:
        read_photos("stanford-dog", cache, Console())
    assert error.value.problem.startswith("stanford-dog: no such folder or file")
    assert "stanford-dogs, tfds:NAME or hf:NAME" in error.value.fix


def test_a_folder_with_a_dataset_s_name_is_read_where_it_is_given_as_a_path(cache, write_photos, monkeypatch, capsys):
    monkeypatch.chdir(write_photos("digits/a/1.png", "digits/b/2.png"))
    assert read_photos("digits", cache, Console()).class_names == list("0123456789")
    assert "for the folder beside you give ./digits" in capsys.readouterr().err
    for path in ("./digits", Path("digits")):
        assert len(read_photos(path, cache, Console()).photos) == 2
    assert capsys.readouterr().err == ""


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def fail(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(HeadstartError, match="digits: cannot be written into the cache .*: No space left on device"):
        read_photos("digits", tmp_path, Console())


def test_a_dataset_is_trained_and_measured_on_by_its_name(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    folder = make_photos(tmp_path / "photos")
    rows = [(str(path), path.parent.name) for path in sorted(folder.rglob("*.png"))]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    columns = {"image": [path for path, _ in rows], "label": [label for _, label in rows]}
    datasets.Dataset.from_dict(columns, datasets.Features(features)).save_to_disk(tmp_path / "made")
    source = f"hf:{tmp_path / 'made'}"
    run = headstart.train(source, tmp_path / "run", image_size=64, unfreeze=0, num_views=1, quiet=True)
    assert Recipe.read(run.folder / "recipe.toml").photos == source
    assert run.metrics["test"]["photos"] == 6
    assert evaluate(run.classifier, source, None, Console(quiet=True))["photos"] == 30

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from headstart.photos.catalog import read_catalog
from headstart.photos.datasets import digits_folder


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

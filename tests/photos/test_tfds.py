"""Datasets of TensorFlow Datasets, built on the spot."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.datasets import read_photos
from making import make_photo

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")

CLASSES = ["ant", "bee", "cat"]


def png(seed, hue) -> bytes:
    file = io.BytesIO()
    make_photo(seed, hue).save(file, "PNG")
    return file.getvalue()


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of small pictures with an image, a label, and two features that are neither."""

    VERSION = tfds.core.Version("1.2.0")
    SPLITS = {"train": 6, "validation": 3, "test": 3, "extra": 3}
    FEATURES = {
        "id": tfds.features.Text(),
        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.FEATURES))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name, count) for name, count in self.SPLITS.items()}

    def _generate_examples(self, name, count):
        for number in range(count):
            mask = io.BytesIO()
            make_photo(number, 0).convert("L").save(mask, "PNG")
            mask.seek(0)
            values = {
                "id": f"{name}{number}",
                "segmentation_mask": mask,
                "image": io.BytesIO(png(self.seed(name, number), number % 3)),
                "label": self.label(number),
            }
            yield number, {key: values[key] for key in self.FEATURES}

    @staticmethod
    def seed(name, number):
        return 100 * list(Made.SPLITS).index(name) + number

    def label(self, number):
        return number % 3


class MadeOfTrainingPhotos(Made, skip_registration=True):
    SPLITS = {"train": 6}


class MadeWithHiddenLabels(Made, skip_registration=True):
    SPLITS = {"train": 6, "test": 3}

    def label(self, number):
        return -1 if number == 2 else number % 3


class MadeWithoutLabel(Made, skip_registration=True):
    FEATURES = {name: Made.FEATURES[name] for name in ("id", "image")}


class MadeOfParts(Made, skip_registration=True):
    SPLITS = {"test": 3, "extra": 3}


class MadeHere(Made):
    """One that the library knows by its code, and that is not prepared yet."""


class MadeOfArrays(Made):
    """One with images as arrays, which the library encodes with TensorFlow."""

    def _generate_examples(self, name, count):
        for number, example in super()._generate_examples(name, count):
            yield number, {**example, "image": np.zeros((4, 4, 3), np.uint8)}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Build a dataset in a folder of its own, where the library then finds it by its name."""
    from tensorflow_datasets.core import constants

    data = tmp_path / "tfds"
    monkeypatch.setattr(constants, "DATA_DIR", str(data))

    def build(builder):
        builder(data_dir=data, file_format="array_record").download_and_prepare()
        return f"tfds:{builder.name}"

    return build


def read(source, cache):
    return read_photos(source, cache, Console(quiet=True))


def test_images_labels_and_splits_are_those_of_the_dataset(built, tmp_path, capfd):
    source = built(Made)
    capfd.readouterr()
    catalog = read_photos(source, tmp_path / "cache", Console())
    assert catalog.root == tmp_path / "cache/datasets/tfds/made/1.2.0/all"
    assert catalog.class_names == CLASSES
    assert catalog.photos["split"].value_counts().to_dict() == {"train": 6, "validation": 3, "test": 3}
    assert catalog.photos["label"].value_counts().to_dict() == {"ant": 4, "bee": 4, "cat": 4}
    expected = {png(Made.seed(name, number), number % 3) for name in ("train", "test") for number in range(3)}
    photos = {(catalog.root / path).read_bytes() for path in catalog.photos["path"]}
    assert expected < photos
    assert all(path.endswith(".png") for path in catalog.photos["path"])
    assert capfd.readouterr() == ("Dataset     tfds:made: 12 photos written out\n", "")


def test_one_that_is_not_prepared_yet_is_prepared(built, tmp_path, capfd):
    catalog = read_photos("tfds:made_here", tmp_path / "cache", Console())
    assert catalog.photos["split"].value_counts().to_dict() == {"train": 6, "validation": 3, "test": 3}
    assert capfd.readouterr() == ("Dataset     tfds:made_here: 12 photos written out\n", "")


def test_one_that_needs_tensorflow_to_be_prepared_says_so(tmp_path):
    # In a process of its own: the library does not ask for TensorFlow again where anything has imported it.
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
from pathlib import Path
from test_tfds import HeadstartError, read
class Missing:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
sys.meta_path.insert(0, Missing)
try:
    read("tfds:made_of_arrays", Path({str(tmp_path / "cache")!r}))
except HeadstartError as error:
    print(error)
"""
    result = run_apart(program, tmp_path)
    problem, fix = result.stdout.splitlines()
    assert (
        problem.startswith("tfds:made_of_arrays: cannot be read: ModuleNotFoundError: ")
        and "tensorflow" in problem[40:]
    )
    assert fix.endswith("pip install tensorflow")


def run_apart(program, tmp_path):
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds")}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return result


def test_it_is_written_once(built, tmp_path):
    source = built(Made)
    first = read(source, tmp_path)
    (first.root / first.photos["path"][0]).write_bytes(b"changed")
    assert read(source, tmp_path).digest != first.digest


def test_one_split_is_left_to_be_divided(built, tmp_path):
    source = built(Made)
    assert read(f"{source}:extra", tmp_path).photos["split"].tolist() == [""] * 3
    assert read(f"{source}:1.2.0:test", tmp_path).photos["split"].tolist() == [""] * 3
    assert read(built(MadeOfTrainingPhotos), tmp_path).photos["split"].tolist() == [""] * 6


def test_examples_without_a_label_are_left_out(built, tmp_path, capsys):
    catalog = read_photos(built(MadeWithHiddenLabels), tmp_path, Console())
    assert catalog.photos["label"].value_counts().to_dict() == {"ant": 3, "bee": 3, "cat": 1}
    assert capsys.readouterr().out.endswith("7 photos written out, 2 without a label left out\n")


@pytest.mark.parametrize(
    ("builder", "rest", "message"),
    [
        (MadeWithoutLabel, "", r"has no label; its features are .*(id \(Text\), image|image \(Image\), id)"),
        (MadeOfParts, "", r"its splits are .*extra.*, none of them for training"),
        (Made, ":dev", "has no split 'dev'; expected one of .*train"),
        (None, "tfds:nosuchdataset", "cannot be read: DatasetNotFoundError: Dataset nosuchdataset not found"),
        (None, "tfds:", "names no dataset; expected tfds:NAME or tfds:NAME:SPLIT"),
        (None, "tfds:../made", "names no dataset"),
    ],
)
def test_what_cannot_be_used_is_told_and_leaves_nothing(built, tmp_path, builder, rest, message):
    source = built(builder) + rest if builder else rest
    with pytest.raises(HeadstartError, match=message):
        read(source, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_interrupted_writing_leaves_nothing(built, tmp_path, monkeypatch):
    source = built(Made)
    written = []

    def write_bytes(path, data):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(HeadstartError, match="tfds:made: cannot be read: .*No space left on device"):
            read(source, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(read(source, tmp_path / "cache").photos) == 12


def test_a_missing_library_is_told_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(HeadstartError) as error:
        read("tfds:mnist", tmp_path)
    assert error.value.fix == "pip install 'headstart[tfds]'"


def test_it_needs_no_tensorflow_and_no_connection(built, tmp_path):
    built(Made)
    program = f"""
import json, socket, sys
socket.socket.connect = lambda *arguments: sys.exit(f"connected to {{arguments[1:]}}")
from pathlib import Path
from headstart.console import Console
from headstart.photos.datasets import read_photos
catalog = read_photos("tfds:made", Path({str(tmp_path / "cache")!r}), Console(quiet=True))
print(json.dumps([len(catalog.photos), "tensorflow" in sys.modules]))
"""
    result = run_apart(program, tmp_path)
    assert json.loads(result.stdout) == [12, False]

"""Datasets of Hugging Face, made on the spot: no test reaches the hub."""

import io
import json
import os
import socket
import subprocess
import sys

import pytest

from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.datasets import absolute_source, read_photos
from making import make_photo, make_photos

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch):
    def connect(*address):
        raise AssertionError(f"connected to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


def jpeg(number) -> bytes:
    file = io.BytesIO()
    make_photo(number, number % 3).save(file, "JPEG")
    return file.getvalue()


def make(count=6, first=0, image="image", label="label", labels=None, **columns):
    """A dataset with a picture, a class label, and the columns given with their features."""
    numbers = range(first, first + count)
    labels = labels or [number % 3 for number in numbers]
    features = {image: datasets.Image(), label: datasets.ClassLabel(names=CLASSES)}
    features.update({name: feature for name, (feature, _) in columns.items()})
    values = {image: [{"bytes": jpeg(number), "path": None} for number in numbers], label: labels}
    values.update({name: cells for name, (_, cells) in columns.items()})
    return datasets.Dataset.from_dict(values, datasets.Features(features))


def saved(dataset, folder) -> str:
    dataset.save_to_disk(folder)
    return f"hf:{folder}"


def read(source, cache):
    return read_photos(source, cache, Console(quiet=True))


def test_images_labels_and_splits_are_those_of_the_dataset(tmp_path, capfd):
    made = datasets.DatasetDict({"train": make(), "valid": make(3, 6), "test": make(3, 9), "extra": make(3, 12)})
    source = saved(made, tmp_path / "made")
    capfd.readouterr()
    catalog = read_photos(source, tmp_path / "cache", Console())
    assert catalog.class_names == CLASSES
    assert catalog.photos["split"].value_counts().to_dict() == {"train": 6, "validation": 3, "test": 3}
    for number, row in enumerate(catalog.photos.itertuples()):
        assert (catalog.root / row.path).read_bytes() == jpeg(number)
        assert row.label == CLASSES[number % 3]
        assert row.path.endswith(".jpg")
    assert capfd.readouterr() == (f"Dataset     {source}: 12 photos written out\n", "")


def test_it_is_written_once_and_again_when_its_files_change(tmp_path):
    source = saved(make(), tmp_path / "made")
    first = read(source, tmp_path / "cache")
    (first.root / first.photos["path"][0]).write_bytes(b"changed")
    assert read(source, tmp_path / "cache").digest != first.digest
    saved(make(9), tmp_path / "made")
    assert len(read(source, tmp_path / "cache").photos) == 9


def test_one_split_is_left_to_be_divided(tmp_path):
    source = saved(datasets.DatasetDict({"train": make(), "extra": make(3, 6)}), tmp_path / "made")
    assert read(f"{source}:extra", tmp_path / "cache").photos["split"].tolist() == [""] * 3
    assert read(saved(make(), tmp_path / "lone"), tmp_path / "cache").photos["split"].tolist() == [""] * 6


def test_a_folder_of_images_is_read_as_the_library_does(tmp_path):
    make_photos(tmp_path / "photos/train", count=2)
    make_photos(tmp_path / "photos/test", count=1)
    catalog = read(f"hf:{tmp_path / 'photos'}", tmp_path / "cache")
    assert catalog.class_names == CLASSES
    assert catalog.photos["split"].value_counts().to_dict() == {"train": 6, "test": 3}
    assert {(catalog.root / path).read_bytes() for path in catalog.photos["path"]} == {
        path.read_bytes() for path in (tmp_path / "photos").rglob("*.png")
    }
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".arrow"]


def test_features_go_by_their_usual_names(tmp_path):
    several = make(
        image="img",
        label="fine_label",
        coarse_label=(datasets.ClassLabel(names=["a", "b"]), [0] * 6),
        mask=(datasets.Image(), [{"bytes": jpeg(number), "path": None} for number in range(6)]),
    )
    catalog = read(saved(several, tmp_path / "several"), tmp_path / "cache")
    assert catalog.class_names == CLASSES
    text = datasets.Dataset.from_dict(
        {"image": [{"bytes": jpeg(number), "path": None} for number in range(4)], "label": ["x", "y", "x", ""]},
        datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    catalog = read(saved(text, tmp_path / "text"), tmp_path / "cache")
    assert catalog.photos["label"].tolist() == ["x", "y", "x"]


def test_examples_without_a_label_are_left_out(tmp_path, capsys):
    source = saved(make(labels=[0, 1, 2, None, -1, 0]), tmp_path / "made")
    assert read_photos(source, tmp_path / "cache", Console()).photos["label"].tolist() == ["ant", "bee", "cat", "ant"]
    assert capsys.readouterr().out.endswith("4 photos written out, 2 without a label left out\n")


@pytest.mark.parametrize(
    ("change", "rest", "message"),
    [
        (lambda made: made.remove_columns("label"), "", r"has no label; its features are image \(Image\)\."),
        (lambda made: made.remove_columns("image"), "", r"has no image; its features are label \(ClassLabel\)\."),
        (
            lambda made: made.rename_column("label", "a").add_column("b", [0] * 6).cast_column("b", classes()),
            "",
            r"has more than one label, and none called label; its features are .*b \(ClassLabel\)",
        ),
        (lambda made: made, ":dev", "has no split 'dev'; expected one of all"),
        (
            lambda made: datasets.DatasetDict({"a": made, "b": made}),
            "",
            r"its splits are a, b, none of them for training; .*\nName one: hf:.*:a",
        ),
    ],
    ids=["no label", "no image", "two labels", "no such split", "no training split"],
)
def test_what_cannot_be_used_is_told_and_leaves_nothing(tmp_path, change, rest, message):
    source = saved(change(make()), tmp_path / "made") + rest
    with pytest.raises(HeadstartError, match=message):
        read(source, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def classes():
    return datasets.ClassLabel(names=CLASSES)


@pytest.mark.parametrize("source", ["hf:", "hf:no folder", "hf:../../made", "hf:/nowhere/made"])
def test_a_name_that_is_none_is_told(tmp_path, source):
    with pytest.raises(HeadstartError, match=f"{source}: names no dataset; expected hf:NAME or hf:NAME:SPLIT"):
        read(source, tmp_path / "cache")


def test_a_hub_out_of_reach_is_told(tmp_path):
    program = f"""
from pathlib import Path
from headstart.console import Console
from headstart.photos.datasets import read_photos
read_photos("hf:someone/something", Path({str(tmp_path)!r}), Console(quiet=True))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert "HeadstartError: hf:someone/something: cannot be read: " in result.stderr
    assert "Check the name, the connection" in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name == "photos.csv"]


def test_a_missing_library_is_told_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(HeadstartError) as error:
        read("hf:someone/something", tmp_path)
    assert error.value.fix == "pip install 'headstart[hf]'"


def test_reading_a_folder_tries_no_connection_and_counts_nowhere(tmp_path):
    source = saved(datasets.DatasetDict({"train": make()}), tmp_path / "made")
    program = f"""
import json, socket, sys
socket.socket.connect = lambda *arguments: sys.exit(f"connected to {{arguments[1:]}}")
from pathlib import Path
from headstart.console import Console
from headstart.photos.datasets import read_photos
catalog = read_photos({source!r}, Path({str(tmp_path / "cache")!r}), Console(quiet=True))
import datasets, huggingface_hub
counted = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
print(json.dumps([len(catalog.photos), counted, huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [6, False, True]


def test_a_folder_in_a_name_is_made_absolute(tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute_source("hf:made") == f"hf:{tmp_path / 'made'}"
    assert absolute_source("hf:made:train") == f"hf:{tmp_path / 'made'}:train"
    assert absolute_source("hf:someone/made:train") == "hf:someone/made:train"

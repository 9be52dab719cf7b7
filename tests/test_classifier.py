import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import headstart
from headstart import HeadstartError
from making import make_photo


@pytest.fixture(scope="module")
def classifier(finished):
    return headstart.load(finished[0] / "classifier")


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[0] / "classifier", tmp_path / "classifier")
    return tmp_path / "classifier"


def test_it_carries_all_that_it_needs(finished, classifier):
    record = json.loads((finished[0] / "classifier" / "classifier.json").read_text())
    assert record["class_names"] == classifier.class_names == ["ant", "bee", "cat"]
    assert record["preprocessing"] == {
        "image_size": 64,
        "resize_policy": "crop",
        "interpolation": "bicubic",
        "mean": [127.0, 127.0, 127.0],
        "std": [128.0, 128.0, 128.0],
    }
    assert record["training"]["test"]["photos"] == 6
    assert set(record["versions"]) == {"python", "headstart", "torch", "timm", "openvino", "pillow", "numpy"}


def test_predict_is_a_table_in_the_order_given_with_errors_as_rows(finished, classifier, tmp_path):
    photos = finished[1]
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    paths = [photos / "cat/1.png", tmp_path / "broken.jpg", photos / "ant/2.png", tmp_path / "gone.png"]
    table = classifier.predict(paths)
    assert table.columns.tolist() == [
        "path",
        "label",
        "probability",
        "accepted",
        "error",
        "label_2",
        "probability_2",
        "label_3",
        "probability_3",
    ]
    assert table["path"].tolist() == [str(path) for path in paths]
    assert table["label"].tolist() == ["cat", None, "ant", None]
    assert table["error"][0] == "" and "not an image" in table["error"][1] and table["error"][3] == "no such file"
    assert table["probability"].isna().tolist() == [False, True, False, True]
    assert classifier.predict(paths[:1], top_k=1).columns.tolist() == [
        "path",
        "label",
        "probability",
        "accepted",
        "error",
    ]
    assert len(classifier.predict([])) == 0
    assert len(classifier.predict(str(paths[0]))) == 1


def test_many_photos_keep_their_order_whatever_fails(finished, classifier, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    good = sorted(finished[1].rglob("*.png"))
    draw = np.random.default_rng(0)
    paths = [broken if draw.random() < 0.4 else good[draw.integers(len(good))] for _ in range(60)]
    table = classifier.predict(paths)
    assert table["path"].tolist() == [str(path) for path in paths]
    assert (table["error"] != "").tolist() == [path == broken for path in paths]
    alone = {path: classifier.predict_proba([path])[0].max() for path in set(paths) - {broken}}
    expected = [alone.get(path, np.nan) for path in paths]
    assert np.allclose(table["probability"].astype(float), expected, atol=1e-6, equal_nan=True)


def test_arrays_and_files_give_the_same(finished, classifier):
    path = finished[1] / "bee/3.png"
    pixels = np.asarray(Image.open(path))
    from_file = classifier.predict_proba([path])
    assert from_file.shape == (1, 3) and from_file.dtype == np.float32
    assert np.array_equal(classifier.predict_proba(pixels), from_file)
    assert np.array_equal(classifier.predict_proba(np.stack([pixels, pixels])), np.repeat(from_file, 2, axis=0))
    assert classifier.predict_proba(np.empty((0, 8, 8, 3), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((1, 3, 8, 8), np.uint8)], ids=str
)
def test_other_arrays_are_refused(classifier, array):
    with pytest.raises(HeadstartError, match=r"expected \(n, height, width, 3\) uint8"):
        classifier.predict_proba(array)


def test_probabilities_of_an_unreadable_photo_are_refused(classifier, tmp_path):
    with pytest.raises(HeadstartError, match=r"gone\.png \(no such file\)"):
        classifier.predict_proba([tmp_path / "gone.png"])


def test_saving_and_loading_changes_nothing(finished, classifier, tmp_path):
    classifier.save(tmp_path / "copy")
    again = headstart.load(tmp_path / "copy")
    for name in ("weights.safetensors", "selftest.safetensors", "README.md"):
        assert (tmp_path / "copy" / name).read_bytes() == (finished[0] / "classifier" / name).read_bytes()
    photo = finished[1] / "ant/1.png"
    assert np.array_equal(again.predict_proba([photo]), classifier.predict_proba([photo]))


def test_engines_agree(finished):
    photos = sorted(finished[1].rglob("*.png"))[:9]
    found = [
        headstart.load(finished[0] / "classifier", engine).predict_proba(photos) for engine in ("openvino", "torch")
    ]
    assert np.abs(found[0] - found[1]).max() < 1e-3


def test_changed_weights_fail_the_self_test(copied):
    weights = load_file(copied / "weights.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + np.array([0.5, 0, 0], np.float32)
    save_file(weights, copied / "weights.safetensors")
    with pytest.raises(HeadstartError, match="self-test failed: PyTorch gives logits that differ"):
        headstart.load(copied)


def test_changed_preprocessing_fails_the_self_test(copied):
    path = copied / "classifier.json"
    path.write_text(path.read_text().replace("127.0", "0.0"))
    with pytest.raises(HeadstartError, match="self-test failed"):
        headstart.load(copied)


@pytest.mark.parametrize("name", ["classifier.json", "weights.safetensors", "selftest.safetensors"])
def test_missing_and_damaged_files_are_named(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(HeadstartError, match="is damaged"):
        headstart.load(copied)
    (copied / name).unlink()
    with pytest.raises(HeadstartError, match="is not a classifier"):
        headstart.load(copied)


def test_a_run_folder_will_do_and_anything_else_is_refused(finished, tmp_path):
    assert headstart.load(finished[0]).class_names == ["ant", "bee", "cat"]
    with pytest.raises(HeadstartError, match=r"is not a classifier \(classifier\.json is missing\)"):
        headstart.load(tmp_path)


def test_the_model_card_says_what_was_measured(finished):
    card = (finished[0] / "classifier" / "README.md").read_text()
    assert "Test accuracy** (measured once, after every choice was made): 100.0% (95% interval 61.0 to 100.0" in card
    assert "`ant`, `bee`, `cat`" in card


def test_orientation_is_applied_in_prediction(classifier, tmp_path):
    upright = make_photo(5, 1, (60, 40))
    upright.save(tmp_path / "upright.png")
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    table = classifier.predict([tmp_path / "upright.png", tmp_path / "turned.png"])
    assert isinstance(table, pd.DataFrame)
    assert table["probability"][0] == pytest.approx(table["probability"][1], abs=1e-6)

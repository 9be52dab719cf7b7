"""Classifiers exported to Keras, read by Keras itself."""

import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import headstart
from headstart import Classifier, HeadstartError
from headstart.export import keras as export_module
from headstart.export.keras import FILES, export_keras
from headstart.export.keras_model import keras_model, keras_ready
from headstart.network.keras_weights import read_keras
from headstart.photos.decode import decode
from headstart.photos.views import Preprocessing, evaluation_view
from making import make_photo

NAMES = ["ant", "bee", "cat", "dog"]


def small_classifier(timm_name: str, **preprocessing) -> Classifier:
    """A classifier with random weights, its statistics and its top included."""
    torch.manual_seed(0)
    network = timm.create_model(timm_name, num_classes=len(NAMES))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
        if getattr(module, "has_skip", False):
            # What a block adds to its input stays small, as in trained networks: else rounding grows with the depth.
            last = [child for child in module.children() if isinstance(child, torch.nn.BatchNorm2d)][-1]
            torch.nn.init.uniform_(last.weight, 0.1, 0.3)
    torch.nn.init.normal_(network.classifier.weight, std=0.5)
    settings = {"image_size": 64, "mean": (120.0, 110.0, 100.0), "std": (60.0, 55.0, 50.0), **preprocessing}
    return Classifier(network, NAMES, Preprocessing(**settings), "b0", {}, "torch")


def probabilities_of(folder, pixels: np.ndarray) -> np.ndarray:
    with keras_ready() as keras, torch.no_grad():
        model = keras.models.load_model(folder / "model.keras")
        return keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False))


@pytest.fixture(scope="module")
def classifier(finished):
    return headstart.load(finished[0], "torch")


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "keras"
    assert export_keras(classifier, folder) < 1e-5
    return folder


def test_a_fine_tuned_classifier_gives_the_same_in_keras(finished, classifier, exported):
    assert {path.name for path in exported.iterdir()} == set(FILES)
    assert (exported / "labels.txt").read_text() == "ant\nbee\ncat\n"
    paths = sorted(finished[1].rglob("*.png"))
    views = [evaluation_view(decode(path.read_bytes(), 99), classifier.preprocessing) for path in paths]
    found = probabilities_of(exported, np.stack(views))
    expected = classifier.predict_proba(paths)
    assert np.abs(found - expected).max() < 1e-5
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_the_example_runs_by_itself_and_agrees(finished, classifier, exported):
    path = finished[1] / "cat" / "1.png"
    command = [sys.executable, str(exported / "example.py"), str(path)]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KERAS_BACKEND")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    expected = classifier.predict_proba([path])[0]
    order = np.argsort(-expected)
    assert result.stdout.splitlines() == [f"{expected[i]:6.1%}  {classifier.class_names[i]}" for i in order]


@pytest.mark.parametrize("policy", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(90, 50), (30, 200)], ids=str)
def test_the_example_prepares_photos_as_the_classifier_does(policy, size, tmp_path):
    classifier = small_classifier("tf_efficientnet_lite0", resize_policy=policy)
    program: dict = {"__name__": "example", "__file__": "example.py"}
    exec(export_module._example(classifier), program)
    photo = make_photo(3, 1, size)
    found = np.asarray(program["resize"](program["upright_rgb"](photo)))
    assert np.array_equal(found, evaluation_view(photo, classifier.preprocessing))
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    assert set(np.asarray(program["upright_rgb"](clear)).flat) == {255}
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.png", exif=exif)
    assert program["upright_rgb"](Image.open(tmp_path / "turned.png")).size == size[::-1]


@pytest.mark.parametrize("timm_name", ["tf_efficientnet_b0", "tf_efficientnetv2_b0", "tf_efficientnet_lite4"])
def test_every_family_is_the_same_in_keras(timm_name, tmp_path):
    classifier = small_classifier(timm_name)
    assert export_keras(classifier, tmp_path / "keras") < 1e-5
    pixels = np.random.default_rng(5).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = headstart.classifier.softmax(classifier.reference_logits(pixels))
    assert np.ptp(expected) > 0.1
    assert np.abs(probabilities_of(tmp_path / "keras", pixels) - expected).max() < 1e-5


def test_an_export_can_be_read_back_to_the_bit(tmp_path):
    classifier = small_classifier("tf_efficientnet_b0")
    export_keras(classifier, tmp_path / "keras")
    weights = read_keras(tmp_path / "keras" / "model.keras", classifier.network)
    state = classifier.network.state_dict()
    assert {name for name in state if "num_batches" not in name} == set(weights.tensors)
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.tensors.items())
    assert np.allclose(weights.mean, classifier.preprocessing.mean)
    assert np.allclose(weights.std, classifier.preprocessing.std)


def test_the_layers_are_plain_and_have_readable_names():
    classifier = small_classifier("tf_efficientnet_b0")
    with keras_ready() as keras:
        layers = keras_model(classifier.network, classifier.preprocessing, keras).layers
    assert {type(layer).__module__.split(".")[0] for layer in layers} == {"keras"}
    assert [layer.name for layer in layers[:5]] == ["pixels", "normalise", "stem_conv", "stem_norm", "stem_silu"]
    assert "block2_1_expand_conv" in {layer.name for layer in layers}
    assert "Lambda" not in {type(layer).__name__ for layer in layers}


def test_a_model_that_says_something_else_is_not_handed_over(classifier, tmp_path, monkeypatch):
    def other(network, preprocessing, keras):
        model = keras_model(network, preprocessing, keras)
        layer = model.get_layer("probabilities")
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, bias + np.array([0.02, 0, 0], np.float32)])
        return model

    monkeypatch.setattr(export_module, "keras_model", other)
    with pytest.raises(HeadstartError, match=r"Keras model gives probabilities that differ by 0\.00\d+ from PyTorch's"):
        export_keras(classifier, tmp_path / "new" / "keras")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_earlier_export_stays_when_the_next_one_fails(classifier, tmp_path, monkeypatch):
    folder = tmp_path / "keras"
    folder.mkdir()
    (folder / "labels.txt").write_text("mine\n")
    monkeypatch.setattr(
        export_module, "_predictor", lambda path, keras: lambda pixels: np.full((len(pixels), 3), np.nan)
    )
    with pytest.raises(HeadstartError, match="differ by nan"):
        export_keras(classifier, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["keras"]
    assert (folder / "labels.txt").read_text() == "mine\n"


def test_other_folders_are_never_replaced(classifier, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(HeadstartError, match=r"holds thesis\.tex; expected a new folder or an earlier export"):
        export_keras(classifier, tmp_path)
    with pytest.raises(HeadstartError, match="is a file; expected"):
        export_keras(classifier, tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_without_keras_the_extra_is_named(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(HeadstartError, match=r"needs keras[\s\S]*pip install 'headstart\[keras\]'"):
        export_keras(classifier, tmp_path / "keras")
    assert list(tmp_path.iterdir()) == []


def test_networks_of_other_families_are_refused(tmp_path):
    classifier = small_classifier("mobilenetv3_small_050")
    with pytest.raises(HeadstartError, match="has no layer for"):
        export_keras(classifier, tmp_path / "keras")
    assert list(tmp_path.iterdir()) == []


def test_keras_is_left_as_it_was():
    with keras_ready() as keras:
        assert keras.config.image_data_format() == "channels_last"
    keras.config.set_image_data_format("channels_first")
    try:
        with keras_ready():
            assert keras.config.image_data_format() == "channels_last"
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")


def test_the_command_line_exports(finished, tmp_path, capsys, monkeypatch):
    from headstart.cli import main

    folder = tmp_path / "keras"
    monkeypatch.setattr(sys, "argv", ["headstart", "export", str(finished[0]), "--format", "keras", "-o", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"{folder}: probabilities are within ")
    assert {path.name for path in folder.iterdir()} == set(FILES)

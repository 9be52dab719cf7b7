"""Files that Keras itself writes, read into timm's networks; the weights are random, the names and shapes Keras's."""

import json
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch

from headstart.errors import HeadstartError
from headstart.network.keras_weights import KerasWeights, keras_parameter_count, read_keras

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras  # noqa: E402
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group  # noqa: E402

SIZE = 64
CLASSES = 7
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Of EfficientNet with and without its top of 1,000 classes, as Keras counts.
COUNTS = {
    "b0": (5_330_571, 4_049_571),
    "b1": (7_856_239, 6_575_239),
    "b2": (9_177_569, 7_768_569),
    "b3": (12_320_535, 10_783_535),
    "b4": (19_466_823, 17_673_823),
    "b5": (30_562_527, 28_513_527),
    "b6": (43_265_143, 40_960_143),
    "b7": (66_658_687, 64_097_687),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Keras copies PyTorch's tensors in a way that NumPy deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield


def application(name: str):
    family, variant = ("EfficientNetV2", name[3:]) if name.startswith("v2-") else ("EfficientNet", name)
    return getattr(keras.applications, family + variant.upper())


def random_model(name: str, **options):
    """The model of keras.applications, its BatchNorm and normalisation as random as its kernels."""
    options = {"weights": None, "input_shape": (SIZE, SIZE, 3), "classes": CLASSES, **options}
    model = application(name)(classifier_activation=None, **options)
    randomise(model)
    return model


def randomise(model) -> None:
    draw = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # What a block adds to its input stays small, as in trained networks: else rounding grows with the depth.
            gamma = (0.1, 0.3) if "project" in layer.name else (0.5, 1.5)
            for variable, (low, high) in zip(layer.weights, (gamma, (-0.2, 0.2), (-0.2, 0.2), (0.5, 1.5)), strict=True):
                variable.assign(draw.uniform(low, high, variable.shape).astype(np.float32))
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            for variable, low, high in zip(layer.weights[:2], (0.3, 0.1), (0.6, 0.4), strict=True):
                variable.assign(draw.uniform(low, high, 3).astype(np.float32))
            layer.finalize_state()


def network_named(name: str, num_classes: int = CLASSES) -> torch.nn.Module:
    timm_name = f"tf_efficientnet_{name}" if not name.startswith("v2-") else f"tf_efficientnetv2_{name[3:]}"
    return timm.create_model(timm_name, num_classes=num_classes).eval()


def save_legacy(model, path: Path) -> Path:
    """Write a legacy file of weights, as Keras 2 did and the official files are."""
    with h5py.File(path, "w") as file, quiet():
        save_weights_to_hdf5_group(file, model)
    return path


def saved(model, path: Path) -> Path:
    with quiet():
        model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)


@torch.inference_mode()
def outputs_of_network(name: str, weights: KerasWeights) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features and logits of timm's network with these weights."""
    network = network_named(name)
    missing, unexpected = network.load_state_dict(weights.tensors, strict=False)
    assert not unexpected and all(key.startswith("classifier.") or "num_batches" in key for key in missing)
    images = torch.from_numpy((pixels() - np.float32(weights.mean)) / np.float32(weights.std)).permute(0, 3, 1, 2)
    features = network.forward_head(network.forward_features(images), pre_logits=True)
    return features.numpy(), network.classifier(features).numpy()


@torch.inference_mode()
def assert_agree(model, weights: KerasWeights, name: str) -> None:
    """Compare features, and logits where the model has them, with Keras's own."""
    outputs = [model.get_layer("avg_pool").output, model.output]
    expected = [output.cpu().numpy() for output in keras.Model(model.input, outputs)(pixels(), training=False)]
    found = list(outputs_of_network(name, weights))
    if "classifier.weight" not in weights.tensors:
        found[1] = found[0]
    for ours, keras_own in zip(found, expected, strict=True):
        assert np.ptp(keras_own) > 1e-2
        assert np.abs(ours - keras_own).max() <= 1e-4 * np.abs(keras_own).max()


@pytest.fixture(scope="module")
def b0():
    return random_model("b0")


@pytest.fixture(scope="module")
def b0_file(b0, tmp_path_factory) -> Path:
    return saved(b0, tmp_path_factory.mktemp("b0") / "b0.weights.h5")


@pytest.mark.parametrize("file", ["b0.weights.h5", "b0.keras", "whole.h5", "legacy.h5"])
def test_every_format_gives_the_network_that_keras_has(b0, tmp_path, file):
    path = tmp_path / file
    save_legacy(b0, path) if file == "legacy.h5" else saved(b0, path)
    assert_agree(b0, read_keras(path, network_named("b0")), "b0")


@pytest.mark.parametrize("name", ["b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2-b0", "v2-s"])
def test_every_variant_gives_the_network_that_keras_has(tmp_path, name):
    model = random_model(name)
    path = saved(model, tmp_path / f"{name}.weights.h5")
    assert_agree(model, read_keras(path, network_named(name)), name)
    assert keras_parameter_count(network_named(name), include_top=True) == model.count_params()
    path.unlink()  # pytest keeps the folders of a few sessions


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted_as_keras_does(name):
    with torch.device("meta"):
        network = network_named(name, 1000)
    assert tuple(keras_parameter_count(network, include_top) for include_top in (True, False)) == COUNTS[name]


@pytest.mark.parametrize("name", ["b0", "v2-b0"])
def test_keras_counts_the_same(name):
    network = network_named(name, 1000)
    for include_top in (True, False):
        model = application(name)(weights=None, include_top=include_top, input_shape=(SIZE, SIZE, 3))
        assert model.count_params() == keras_parameter_count(network, include_top)


def test_a_file_without_the_top_has_all_but_the_classifier(tmp_path):
    model = random_model("b0", include_top=False, pooling="avg")
    for path in (saved(model, tmp_path / "b0_notop.weights.h5"), save_legacy(model, tmp_path / "legacy_notop.h5")):
        network = network_named("b0")
        weights = read_keras(path, network)
        missing = set(network.state_dict()) - set(weights.tensors)
        assert {name for name in missing if "num_batches" not in name} == {"classifier.weight", "classifier.bias"}
        assert_agree(model, weights, "b0")


def test_the_file_may_have_other_classes_than_the_network(b0_file):
    weights = read_keras(b0_file, network_named("b0", 3))
    assert weights.tensors["classifier.weight"].shape == (CLASSES, 1280)
    assert weights.tensors["classifier.bias"].shape == (CLASSES,)
    assert {tensor.dtype for tensor in weights.tensors.values()} == {torch.float32}


def imagenet_like(path: Path) -> Path:
    """An official file made on the spot: one rescaling, and standard deviations stored as the variance."""
    model = random_model("b0", include_top=False)
    normalisation = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    normalisation.set_weights([MEAN.astype(np.float32), STD.astype(np.float32), np.array(0)])
    return save_legacy(model, path)


def loaded_as_imagenet(path: Path, monkeypatch):
    from keras.src.applications import efficientnet

    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda name, *rest, **options: str(path))
    return keras.applications.EfficientNetB0(include_top=False, input_shape=(SIZE, SIZE, 3), pooling="avg")


def assert_normalises_as(weights: KerasWeights, mean: np.ndarray, std: np.ndarray) -> None:
    assert np.allclose(weights.mean, mean, rtol=1e-5) and np.allclose(weights.std, std, rtol=1e-5)


def test_the_official_files_are_read_as_keras_loads_them_for_imagenet(tmp_path, monkeypatch):
    path = imagenet_like(tmp_path / "efficientnetb0_notop.h5")
    model = loaded_as_imagenet(path, monkeypatch)
    weights = read_keras(path, network_named("b0"))
    assert_normalises_as(weights, 255 * MEAN, 255 * STD)
    assert_agree(model, weights, "b0")


@pytest.mark.parametrize("file", ["efficientnetb0.weights.h5", "efficientnetb0.keras", "whole.h5", "legacy.h5"])
def test_a_model_that_was_made_for_imagenet_is_read_with_its_extra_layer(tmp_path, monkeypatch, file):
    model = loaded_as_imagenet(imagenet_like(tmp_path / "efficientnetb0_notop.h5"), monkeypatch)
    path = tmp_path / file
    save_legacy(model, path) if file == "legacy.h5" else saved(model, path)
    assert_normalises_as(read_keras(path, network_named("b0")), 255 * MEAN, 255 * STD)


@pytest.mark.parametrize("file", ["efficientnetb0.weights.h5", "efficientnetb0.keras", "efficientnetb0.h5", "mine.h5"])
def test_a_model_that_was_given_the_file_as_weights_has_no_extra_layer(tmp_path, file):
    official = imagenet_like(tmp_path / "official.h5")
    model = keras.applications.EfficientNetB0(include_top=False, input_shape=(SIZE, SIZE, 3), weights=str(official))
    path = tmp_path / file
    save_legacy(model, path) if file == "mine.h5" else saved(model, path)
    assert_normalises_as(read_keras(path, network_named("b0")), 255 * MEAN, 255 * np.sqrt(STD))


def test_a_renamed_official_file_is_known_by_its_md5(tmp_path, monkeypatch):
    import hashlib

    from headstart.network import keras_weights

    path = imagenet_like(tmp_path / "renamed.h5")
    assert_normalises_as(read_keras(path, network_named("b0")), 255 * MEAN, 255 * np.sqrt(STD))
    monkeypatch.setattr(keras_weights, "_OFFICIAL_MD5", {hashlib.md5(path.read_bytes()).hexdigest()})
    assert_normalises_as(read_keras(path, network_named("b0")), 255 * MEAN, 255 * STD)


def test_the_official_files_are_those_that_keras_checks():
    from keras.src.applications.efficientnet import WEIGHTS_HASHES

    from headstart.network.keras_weights import _OFFICIAL_MD5

    assert {hash for pair in WEIGHTS_HASHES.values() for hash in pair} == _OFFICIAL_MD5


def test_a_file_of_another_variant_says_so(b0_file):
    with pytest.raises(HeadstartError, match="holds EfficientNet b0, and the network is b1"):
        read_keras(b0_file, network_named("b1"))
    with pytest.raises(HeadstartError, match="holds EfficientNet b0, and the network is another one"):
        read_keras(b0_file, network_named("lite0"))


def test_one_error_lists_every_mismatch(b0_file, tmp_path):
    path = Path(shutil.copy(b0_file, tmp_path))
    with h5py.File(path, "r+") as file:
        layers = file["layers"]
        for name, shape in (("conv2d/vars/0", (1, 1, 3, 32)), ("batch_normalization_3/vars/2", (5,))):
            del layers[name]
            layers[name] = np.zeros(shape, np.float32)
        del layers["dense/vars/0"]
        layers["dense/vars/0"] = np.zeros((9, CLASSES), np.float32)
        layers["odd/vars/0"] = np.zeros((2, 2, 2), np.float32)
    with pytest.raises(HeadstartError) as caught:
        read_keras(path, network_named("b0"))
    assert caught.value.problem == (
        f"{path}: does not fit the network: odd [(2, 2, 2)] has no place, "
        "conv2d (32, 3, 1, 1) for conv_stem.weight (32, 3, 3, 3), "
        "batch_normalization_3 (5,) for blocks.1.0.bn1.running_mean (96,), "
        "dense [(9, 7), (7,)] for a classifier of 1280 features."
    )
    with h5py.File(path, "r+") as file:
        del file["layers/batch_normalization_48"]
    with pytest.raises(HeadstartError, match="48 layers like batch_normalization for 49 places"):
        read_keras(path, network_named("b0"))


def test_a_network_inside_another_model_is_refused_with_the_way_out(b0, tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    outer = keras.Model(inputs, keras.layers.Dense(2)(b0(inputs)))
    for path in (saved(outer, tmp_path / "a.weights.h5"), saved(outer, tmp_path / "a.keras")):
        with pytest.raises(HeadstartError, match=r"does not fit[\s\S]*get_layer\(NAME\)\.save_weights"):
            read_keras(path, network_named("b0"))


@pytest.mark.parametrize("place", ["start", "end"])
def test_other_layers_of_the_configuration_are_refused(tmp_path, b0, place):
    path = saved(b0, tmp_path / "b0.keras")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    layer = {"class_name": "Lambda", "config": {"function": "anything"}}
    config["config"]["layers"].insert(1 if place == "start" else len(config["config"]["layers"]), layer)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, "config.json": json.dumps(config)}.items():
            archive.writestr(name, data)
    with pytest.raises(HeadstartError, match="has layers that EfficientNet has not: Lambda"):
        read_keras(path, network_named("b0"))


def test_a_model_without_its_rescaling_is_refused(tmp_path):
    model = random_model("v2-b0", include_preprocessing=False)
    with pytest.raises(HeadstartError, match="does not tell how pixels are scaled"):
        read_keras(saved(model, tmp_path / "a.weights.h5"), network_named("v2-b0"))


@pytest.mark.parametrize(
    "content", [b"", b"<html>Not found</html>", b"PK\x03\x04 no archive", b"\x89HDF\r\n\x1a\n torn"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    with pytest.raises(HeadstartError, match=r"file\.h5: is (not a Keras file \(starts with|damaged, or was not)"):
        read_keras(path, network_named("b0"))
    with pytest.raises(HeadstartError, match=r"gone\.h5: cannot be read: No such file"):
        read_keras(tmp_path / "gone.h5", network_named("b0"))


def test_torn_and_foreign_files_are_refused(b0_file, tmp_path):
    content = b0_file.read_bytes()
    path = tmp_path / "torn.weights.h5"
    for share in (0.001, 0.3, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(HeadstartError, match="is damaged, or was not written by Keras"):
            read_keras(path, network_named("b0"))
    with h5py.File(path, "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(HeadstartError, match="it holds no layers with weights"):
        read_keras(path, network_named("b0"))


def test_a_file_that_points_to_others_is_refused(b0_file, tmp_path):
    path = Path(shutil.copy(b0_file, tmp_path / "linked.weights.h5"))
    (tmp_path / "secret").write_bytes(bytes(32 * 4))
    with h5py.File(path, "r+") as file:
        del file["layers/batch_normalization/vars/0"]
        outside = [(str(tmp_path / "secret"), 0, 32 * 4)]
        file.create_dataset("layers/batch_normalization/vars/0", (32,), np.float32, external=outside)
    with pytest.raises(HeadstartError, match="batch_normalization/vars/0 is not stored as plain numbers"):
        read_keras(path, network_named("b0"))
    with h5py.File(path, "r+") as file:
        del file["layers/batch_normalization"]
        file["layers/batch_normalization"] = h5py.ExternalLink(str(b0_file), "layers/batch_normalization")
    with pytest.raises(HeadstartError, match="is not stored as plain numbers"):
        read_keras(path, network_named("b0"))


def test_without_h5py_the_extra_is_named(b0_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(HeadstartError, match=r"needs h5py[\s\S]*pip install 'headstart\[keras\]'"):
        read_keras(b0_file, network_named("b0"))

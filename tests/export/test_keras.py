"""Classifiers as Keras models, plain and readable."""

import numpy as np
import pytest
import torch

import headstart
from headstart import HeadstartError
from headstart.export.keras import write
from headstart.export.keras_model import keras_model, keras_ready
from headstart.network.keras_weights import read_keras
from making import small_classifier


def probabilities_of(folder, pixels: np.ndarray) -> np.ndarray:
    with keras_ready() as keras, torch.no_grad():
        model = keras.models.load_model(folder / "model.keras")
        return keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False))


@pytest.mark.parametrize("timm_name", ["tf_efficientnet_b0", "tf_efficientnetv2_b0", "tf_efficientnet_lite4"])
def test_every_family_is_the_same_in_keras(timm_name, tmp_path):
    classifier = small_classifier(timm_name)
    write(classifier, tmp_path)
    pixels = np.random.default_rng(5).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = headstart.classifier.softmax(classifier.reference_logits(pixels))
    assert np.ptp(expected) > 0.1
    assert np.abs(probabilities_of(tmp_path, pixels) - expected).max() < 1e-5


def test_an_export_can_be_read_back_to_the_bit(tmp_path):
    classifier = small_classifier("tf_efficientnet_b0")
    write(classifier, tmp_path)
    weights = read_keras(tmp_path / "model.keras", classifier.network)
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


def test_networks_of_other_families_are_refused(tmp_path):
    classifier = small_classifier("mobilenetv3_small_050")
    with pytest.raises(HeadstartError, match="has no layer for"):
        write(classifier, tmp_path)
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

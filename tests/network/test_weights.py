import re

import pytest
import torch

from headstart.errors import HeadstartError
from headstart.network import weights as module
from headstart.network.backbones import BACKBONES, backbone_named, build
from headstart.network.weights import check_sha256, load_weights, packaged_file, place_in_order


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_every_tensor_of_the_installed_weights_is_placed(name):
    backbone = BACKBONES[name]
    network = build(backbone, 7)
    load_weights(network, backbone)
    tensors = list(torch.load(packaged_file(name, backbone.package), weights_only=True).values())[:-2]
    placed = [value for key, value in network.state_dict().items() if not key.startswith("classifier.")]
    assert len(placed) == len(tensors) > 290
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(placed, tensors, strict=True))


def test_the_classifier_starts_at_zero():
    network = build(BACKBONES["lite0"], 7)
    assert network.classifier.weight.shape == (7, 1280)
    assert not network.classifier.weight.any() and not network.classifier.bias.any()


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(HeadstartError, match=r"weights\.pth: is damaged.*expected 579344248a93"):
        check_sha256(path, BACKBONES["lite0"].package.sha256)


def test_one_error_lists_every_mismatch():
    network = build(BACKBONES["lite0"], 7)
    tensors = dict(torch.load(packaged_file("lite0", BACKBONES["lite0"].package), weights_only=True))
    names = list(tensors)
    tensors[names[0]] = torch.zeros(1, 2)
    tensors[names[6]] = torch.zeros(3)
    with pytest.raises(HeadstartError) as caught:
        place_in_order(network, tensors, "here.pth")
    text = str(caught.value)
    assert text.startswith("here.pth: does not fit the network: ")
    assert re.findall(r"for (\S+) ", text) == ["conv_stem.weight", "blocks.0.0.conv_dw.weight"]
    del tensors[names[0]]
    with pytest.raises(HeadstartError, match="293 tensors for 294 places"):
        place_in_order(network, tensors, "here.pth")


def test_missing_weights_name_the_extra(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HeadstartError, match=r"--backbone lite1: .*not installed[\s\S]*headstart\[weights\]"):
        packaged_file("lite1", BACKBONES["lite1"].package)


def test_a_wrong_name_lists_the_valid_ones():
    with pytest.raises(HeadstartError, match="--backbone b9: unknown; expected one of lite0, lite1, lite2"):
        backbone_named("b9")


def test_random_weights_are_left_as_they_are():
    network = build(BACKBONES["b0"], 3)
    before = network.conv_stem.weight.clone()
    weights = load_weights(network, BACKBONES["b0"], "none")
    assert (weights.identity, weights.normalisation) == ("none", BACKBONES["b0"].normalisation)
    assert torch.equal(network.conv_stem.weight, before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_under_timms_names_find_their_places(tmp_path, suffix):
    import timm
    from safetensors.torch import save_file

    given = timm.create_model("tf_efficientnet_lite0", num_classes=5).state_dict()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": given}, path)
    else:
        save_file(given, path)
    network = build(BACKBONES["lite0"], 3)
    weights = load_weights(network, BACKBONES["lite0"], str(path))
    assert weights.told == f"weights of mine{suffix}" and len(weights.identity) == 64
    placed = network.state_dict()
    assert all(torch.equal(placed[name], value) for name, value in given.items() if "classifier" not in name)
    assert placed["classifier.weight"].shape == (3, 1280)
    # The same file in another variant: one error that lists what does not fit.
    with pytest.raises(HeadstartError, match=r"does not fit the network: .*no place for .*blocks|no tensor for"):
        load_weights(build(BACKBONES["b0"], 3), BACKBONES["b0"], str(path))


def test_the_packages_file_is_read_by_its_order(tmp_path):
    path = packaged_file("lite0", BACKBONES["lite0"].package)
    network, other = build(BACKBONES["lite0"], 3), build(BACKBONES["lite0"], 3)
    load_weights(network, BACKBONES["lite0"], str(path))
    load_weights(other, BACKBONES["lite0"])
    assert torch.equal(network.conv_head.weight, other.conv_head.weight)


class Evil:
    def __reduce__(self):
        return (print, ("run by the file",))


def test_what_is_not_tensors_is_refused(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "weights.txt").write_text("")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("evil.pth", "holds more than tensors"),
        ("text.safetensors", "cannot be read as named tensors"),
        ("list.pth", "it holds something else"),
        ("weights.txt", "unknown kind of file"),
        ("absent.pth", "no such file; expected imagenet, none or a file"),
    ):
        with pytest.raises(HeadstartError, match=message):
            load_weights(build(BACKBONES["lite0"], 3), BACKBONES["lite0"], str(tmp_path / name))
    assert "run by the file" not in capsys.readouterr().out


def test_offline_the_hubs_weights_say_what_works(monkeypatch):
    import huggingface_hub

    class Offline:
        def model_info(self, repository, timeout):
            raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "HfApi", Offline)
    with pytest.raises(
        HeadstartError, match=r"b0: its weights are not on this computer[\s\S]*here: lite0, lite1, lite2"
    ):
        load_weights(build(BACKBONES["b0"], 3), BACKBONES["b0"])


@pytest.mark.parametrize("damaged", [False, True])
def test_the_hubs_weights_are_cached_and_checked(monkeypatch, tmp_path, damaged):
    """The hub keeps a file under its SHA-256, linked from the snapshot; a file that does not match is removed."""
    import hashlib

    import huggingface_hub
    from safetensors.torch import save_file

    given = build(BACKBONES["b0"], 1000).state_dict()
    save_file(given, tmp_path / "made.safetensors")
    digest = hashlib.sha256((tmp_path / "made.safetensors").read_bytes()).hexdigest()
    blob = tmp_path / ("0" * 64 if damaged else digest)
    (tmp_path / "made.safetensors").rename(blob)
    (tmp_path / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repository, file: str(tmp_path / "model.safetensors")
    )
    network = build(BACKBONES["b0"], 3)
    if damaged:
        with pytest.raises(HeadstartError, match="downloaded weights are damaged"):
            load_weights(network, BACKBONES["b0"])
        assert not blob.exists()
    else:
        assert load_weights(network, BACKBONES["b0"]).identity == digest
        assert torch.equal(network.conv_head.weight, given["conv_head.weight"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_weights_bring_their_own_normalisation(tmp_path, monkeypatch):
    """Photos give the logits that Keras gives: its pixels' convention becomes the preprocessing record."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="the extra keras is not installed")
    import numpy as np

    from headstart.network.cut import last_boundary, prefix

    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(include_top=False, weights=None, pooling="avg", input_shape=(64, 64, 3))
    model.save_weights(tmp_path / "mine.weights.h5")
    network = build(BACKBONES["b0"], 3)
    weights = load_weights(network, BACKBONES["b0"], str(tmp_path / "mine.weights.h5"))
    # weights=None: pixels are only divided by 255, whatever the table says of the pretrained ones.
    assert weights.normalisation == (pytest.approx((0, 0, 0), abs=1e-3), pytest.approx((255,) * 3, rel=1e-4))
    preprocessing = BACKBONES["b0"].preprocessing("squash", 64, weights.normalisation)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    with torch.inference_mode():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        ours = prefix(network, last_boundary(network), preprocessing)(images).numpy()
        theirs = model(pixels).cpu().numpy()
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()

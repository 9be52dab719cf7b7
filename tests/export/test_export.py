"""Classifiers in every format, read again by each format's own library."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart import HeadstartError
from headstart.console import Console
from headstart.export import export as module
from headstart.export import onnx, parity
from headstart.export.export import export
from headstart.export.formats import FORMATS
from headstart.export.graph import Resize
from headstart.export.handout import example
from headstart.export.photos import photos_to_compare
from headstart.export.silence import talk_held_back
from headstart.photos.decode import decode
from headstart.photos.views import Preprocessing, evaluation_view
from making import make_photo, make_photos, small_classifier

LITERT_IS_HERE = all(importlib.util.find_spec(name) for name in ("tensorflow", "ai_edge_litert"))
HERE = [name for name in FORMATS if name != "litert" or LITERT_IS_HERE]
EVERY = [
    pytest.param(name, marks=pytest.mark.skipif(name not in HERE, reason="TensorFlow or LiteRT is not installed"))
    for name in FORMATS
]
OTHERS = {"labels.txt", "example.py", "README.md", "export.json"}


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The finished run in every format: its name to what `export` returned, and the folder."""
    root = tmp_path_factory.mktemp("exported")
    return {name: (export(finished[0], name, root / name, quiet=True), root / name) for name in HERE}


@pytest.fixture(scope="module")
def photos(finished):
    """Decoded photos of several sizes: the run's own, and odd ones."""
    own = [np.asarray(decode(path.read_bytes(), 99)) for path in sorted(finished[1].rglob("*.png"))[::6]]
    return [*own, *(np.asarray(make_photo(40 + n, n, size)) for n, size in enumerate([(64, 64), (31, 200), (300, 97)]))]


@pytest.mark.parametrize("name", EVERY)
def test_it_says_what_the_classifier_says(exported, finished, photos, name):
    result, folder = exported[name]
    made, classifier = FORMATS[name], headstart.load(finished[0], "torch")
    assert {path.name for path in folder.iterdir()} == {*made.files, *OTHERS}
    assert result.parity.told == "validation photos" and result.parity.difference < 1e-4
    run = made.open(folder / made.files[0])
    expected = classifier.predict_proba(photos[0])
    for photo in photos:
        view = photo if made.whole else evaluation_view(Image.fromarray(photo), classifier.preprocessing)
        expected = classifier.predict_proba(photo)
        assert np.abs(run(view[None])[0] - expected).max() < 1e-3
        assert run(np.stack([view] * 5))[0].shape == (5, 3)
    assert (folder / "labels.txt").read_text() == "ant\nbee\ncat\n"


@pytest.mark.parametrize("name", [name for name, made in FORMATS.items() if made.whole])
def test_acceptance_is_in_the_graph(exported, finished, name):
    folder = exported[name][1]
    run = FORMATS[name].open(folder / FORMATS[name].files[0])
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (80, 80, 3), dtype=np.uint8) for _ in range(3)]
    paths = sorted(finished[1].rglob("*.png"))[:4]
    classifier = headstart.load(finished[0], "torch")
    assert classifier.rejection is not None
    own = [np.asarray(decode(path.read_bytes(), 99)) for path in paths]
    found = [bool(run(photo[None])[1][0]) for photo in own]
    assert found == classifier.predict(paths)["accepted"].tolist()
    assert not all(bool(run(photo[None])[1][0]) for photo in noise)


@pytest.mark.parametrize("name", EVERY)
def test_the_example_runs_by_itself_and_agrees(exported, finished, name):
    folder, path = exported[name][1], finished[1] / "cat" / "1.png"
    hidden = ("PYTHONPATH", "KERAS_BACKEND")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    command = [sys.executable, "-I", str(folder / "example.py"), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    classifier = headstart.load(finished[0], "torch")
    expected = classifier.predict_proba([path])[0]
    lines = [f"{expected[i]:6.1%}  {classifier.class_names[i]}" for i in np.argsort(-expected)]
    assert result.stdout.splitlines()[:3] == lines
    assert "headstart" not in (folder / "example.py").read_text()


def test_the_example_ends_with_a_line_where_there_is_no_photo(exported, finished, tmp_path):
    (tmp_path / "text.jpg").write_text("nothing")
    whole = (finished[1] / "cat" / "1.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    program = exported["pt2"][1] / "example.py"
    for arguments in ([tmp_path / "gone.jpg"], [tmp_path / "text.jpg"], [tmp_path / "half.png"], [tmp_path], []):
        command = [sys.executable, "-I", str(program), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        (line,) = result.stderr.splitlines()
        assert (result.returncode, result.stdout) == (2, "")
        assert line.startswith(f"{arguments[0]}: cannot be read: " if arguments else "usage: ")


@pytest.mark.parametrize(("recorded", "in_recipe"), [(True, "true"), (False, "true"), (None, "true"), (None, "false")])
def test_what_was_not_refitted_has_not_learnt_from_its_validation_photos(finished, tmp_path, recorded, in_recipe):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    classifier = headstart.load(run, "torch")
    assert classifier.training["kept"].pop("refitted") is True
    if recorded is not None:
        classifier.training["kept"]["refitted"] = recorded
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("refit = true", f"refit = {in_recipe}"))
    table = photos_to_compare(classifier, run, None, Console(True))
    assert table.of("validation", classifier).learnt_from is (recorded is not False and in_recipe == "true")
    assert table.of("train", classifier).learnt_from is True


def test_what_was_measured_is_told(exported):
    for name in HERE:
        result, folder = exported[name]
        record = json.loads((folder / "export.json").read_text())
        measured = record["measured"]["float32"]
        sizes = sum((folder / file).stat().st_size for file in FORMATS[name].files)
        assert measured["bytes"] == sizes and measured["accuracy"] == 1.0 and measured["photos"] == 6
        assert measured["milliseconds"] > 0 and measured["photos_per_second"] > 0
        readme = (folder / "README.md").read_text()
        assert f"{sizes / 1e6:.1f} MB" in readme
        # The run was refitted on its validation photos.
        assert measured["learnt_from"] is True
        assert "Accuracy on 6 validation photos, on which the classifier was fitted as well: it is for" in readme
        assert record["parity"]["difference"] == result.parity.difference


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_is_smaller_and_as_accurate(finished, exported, tmp_path, capsys, name):
    result = export(finished[0], name, tmp_path / "int8", int8=True, max_drop=20)
    assert set(result.measured) == {"float32", "int8"}
    assert result.measured["int8"].bytes < 0.5 * result.measured["float32"].bytes
    printed = capsys.readouterr().out
    assert "points below float32" in printed and printed.count("% of 6 photos that it was fitted on; ") == 2
    run = FORMATS[name].open(tmp_path / "int8" / FORMATS[name].files[0])
    assert run(np.zeros((2, 50, 70, 3), np.uint8))[0].shape == (2, 3)
    assert {path.name for path in (tmp_path / "int8").iterdir()} == {*FORMATS[name].files, *OTHERS}


def test_int8_that_costs_too_much_is_not_handed_over(finished, tmp_path, monkeypatch):
    """Accuracy is really measured: a writer that gives every class alike is found out, and the gentler one is kept."""

    def spoilt(model, photos):
        def write(path: Path, constant: bool) -> None:
            import onnx as library

            network = library.load(model)
            if constant:
                names = {tensor.name: tensor for tensor in network.graph.initializer}
                gemm = next(node for node in network.graph.node if node.op_type == "Gemm")
                weight = names[gemm.input[1]]
                zeros = np.zeros(list(weight.dims), np.float32)
                weight.CopyFrom(library.numpy_helper.from_array(zeros, weight.name))
            library.save(network, path)

        yield "int8", lambda path: write(path, True)
        if keeps_one:
            yield "int8 mixed", lambda path: write(path, False)

    monkeypatch.setattr(module, "quantised", spoilt)
    keeps_one = False
    with pytest.raises(HeadstartError, match=r"--int8: costs more accuracy than --max-drop 0\.5 [\s\S]*int8 66\.7"):
        export(finished[0], "onnx", tmp_path / "new", int8=True, quiet=True)
    assert list(tmp_path.iterdir()) == []
    keeps_one = True
    assert set(export(finished[0], "onnx", tmp_path / "new", int8=True, quiet=True).measured) == {
        "float32",
        "int8 mixed",
    }


@pytest.mark.parametrize("policy", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(90, 50), (30, 200), (96, 96), (500, 375), (1, 1), (2000, 3), (701, 700)], ids=str)
def test_the_graph_resizes_to_the_bit(policy, size):
    record = Preprocessing(image_size=96, resize_policy=policy, mean=(127, 127, 127), std=(128, 128, 128))
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = Resize(record)(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, evaluation_view(Image.fromarray(pixels), record))


@pytest.mark.parametrize("policy", ["crop", "squash", "letterbox"])
def test_the_graph_resizes_as_the_classifier_does(policy, tmp_path):
    classifier = small_classifier("tf_efficientnet_lite0", resize_policy=policy)
    onnx.write(classifier, tmp_path)
    run = onnx.open_model(tmp_path / "model.onnx")
    for number, size in enumerate([(90, 50), (30, 200), (64, 64), (500, 375), (1, 1), (2000, 3), (700, 701)]):
        photo = np.asarray(make_photo(number, 1, size))
        assert np.abs(run(photo[None])[0] - classifier.predict_proba(photo)).max() < 1e-3, size


@pytest.mark.parametrize("policy", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(90, 50), (30, 200), (900, 700)], ids=str)
def test_the_example_prepares_photos_as_the_classifier_does(policy, size, tmp_path):
    classifier = small_classifier("tf_efficientnet_lite0", resize_policy=policy)
    program: dict = {"__name__": "example", "__file__": "example.py"}
    exec(example(FORMATS["keras"], classifier), program)
    photo = make_photo(3, 1, size)
    for suffix in ("png", "jpg"):
        photo.save(tmp_path / f"photo.{suffix}")
        expected = decode((tmp_path / f"photo.{suffix}").read_bytes(), classifier.preprocessing.decode_short_side)
        upright = program["read_upright"](tmp_path / f"photo.{suffix}")
        assert np.array_equal(np.asarray(upright), np.asarray(expected))
        view = evaluation_view(expected, classifier.preprocessing)
        assert np.array_equal(np.asarray(program["resize"](upright)), view)
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert set(np.asarray(program["read_upright"](tmp_path / "clear.png")).flat) == {255}
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.png", exif=exif)
    assert program["read_upright"](tmp_path / "turned.png").size == size[::-1]


@pytest.mark.parametrize("name", [name for name in HERE if not FORMATS[name].whole])
def test_exports_by_way_of_tensorflow_are_quiet(finished, tmp_path, name):
    arguments = ["export", str(finished[0]), "--format", name, "-o", str(tmp_path / "new")]
    command = [sys.executable, "-m", "headstart", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_talk_is_held_back_unless_something_fails(capfd):
    with talk_held_back():
        os.write(2, b"oneDNN custom operations are on")
        os.write(2, b"W0000: no CUDA")
    assert capfd.readouterr().err == ""
    with pytest.raises(RuntimeError, match="broken"), talk_held_back():
        os.write(2, b"E0000: what it was\n")
        raise RuntimeError("broken")
    assert capfd.readouterr().err == "E0000: what it was\n"
    with pytest.raises(HeadstartError), talk_held_back():
        os.write(2, b"noise")
        raise HeadstartError("told")
    assert capfd.readouterr().err == ""


# What is not handed over


def test_a_model_that_says_something_else_is_not_handed_over(finished, tmp_path, monkeypatch):
    made = FORMATS["pt2"]

    def opened(path):
        run = made.open(path)
        return lambda photos: (run(photos)[0] + np.float32([0.002, -0.002, 0]), None)

    monkeypatch.setitem(FORMATS, "pt2", module.Format(**{**vars(made), "open": opened}))
    with pytest.raises(HeadstartError, match=r"PyTorch model gives probabilities that differ by 0\.00\d+ from"):
        export(finished[0], "pt2", tmp_path / "new", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_another_acceptance_is_not_handed_over(finished):
    classifier = headstart.load(finished[0], "torch")

    def run(pixels):
        return classifier.predict_proba(pixels), np.zeros(len(pixels), bool)

    accepted = classifier.predict(sorted(finished[1].rglob("ant/*.png")))["accepted"].to_numpy(bool)
    assert accepted.any()
    photos = [np.asarray(decode(path.read_bytes(), 99)) for path in sorted(finished[1].rglob("ant/*.png"))]
    with pytest.raises(HeadstartError, match=f"accepts or rejects {accepted.sum()} of 10 photos otherwise"):
        parity.check_parity(classifier, run, photos, "it", "photos", whole=True, exact=True)


def test_an_earlier_export_stays_when_the_next_one_fails(finished, tmp_path, monkeypatch):
    folder = tmp_path / "pt2"
    folder.mkdir()
    (folder / "labels.txt").write_text("mine\n")
    made = FORMATS["pt2"]
    broken = {**vars(made), "open": lambda path: lambda photos: (np.full((len(photos), 3), np.nan), None)}
    monkeypatch.setitem(FORMATS, "pt2", module.Format(**broken))
    with pytest.raises(HeadstartError, match="differ by nan"):
        export(finished[0], "pt2", folder, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["pt2"]
    assert (folder / "labels.txt").read_text() == "mine\n"


def test_other_folders_are_never_replaced(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(HeadstartError, match=r"holds thesis\.tex; expected a new folder or an earlier export"):
        export(finished[0], "pt2", tmp_path, quiet=True)
    with pytest.raises(HeadstartError, match="is a file; expected"):
        export(finished[0], "pt2", tmp_path / "thesis.tex", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("openvino", "onnxscript", "onnx"), ("keras", "keras", "keras")],
)
def test_a_missing_library_is_named(finished, tmp_path, monkeypatch, name, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(HeadstartError, match=rf"needs {missing}[\s\S]*pip install 'headstart\[{extra}\]'"):
        export(finished[0], name, tmp_path / "new", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_litert_says_what_it_needs(finished, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else real(name))
    with pytest.raises(HeadstartError, match=r"needs tensorflow[\s\S]*'headstart\[litert\]'[\s\S]*another Python"):
        export(finished[0], "litert", tmp_path / "new", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_int8_of_other_formats_is_refused(finished, tmp_path):
    with pytest.raises(HeadstartError, match="--int8: is not possible with --format keras; expected onnx or openvino"):
        export(finished[0], "keras", tmp_path / "new", int8=True, quiet=True)


# Photos


def test_a_classifier_alone_is_compared_on_made_images(finished, tmp_path, capsys):
    result = export(_alone(finished, tmp_path), "pt2", tmp_path / "new", quiet=True)
    assert result.parity.told == "made images" and result.measured == {}
    assert "Give labelled photos with --photos" in capsys.readouterr().err
    with pytest.raises(HeadstartError, match="--int8: needs the training and validation photos"):
        export(_alone(finished, tmp_path), "onnx", tmp_path / "int8", int8=True, quiet=True)


def test_photos_may_be_given(finished, tmp_path):
    alone = _alone(finished, tmp_path)
    given = make_photos(tmp_path / "given", ("ant", "bee"), 5)
    result = export(alone, "pt2", tmp_path / "new", photos=str(given), quiet=True)
    assert result.parity.photos == 6 and result.measured["float32"].photos == 6
    assert result.measured["float32"].learnt_from is None
    assert "which may have been trained on: it is for comparing" in (tmp_path / "new" / "README.md").read_text()
    classifier = headstart.load(alone, "torch")
    table = photos_to_compare(classifier, alone, str(given), Console(True))
    assert len(table.of("train", classifier)) == 4
    assert table.of("validation", classifier).labels.tolist() == [0, 0, 0, 1, 1, 1]
    other = make_photos(tmp_path / "other", ("ant", "wasp"), 2)
    with pytest.raises(HeadstartError, match=r"--photos .*other: has classes that the classifier does not know: wasp"):
        export(alone, "pt2", tmp_path / "again", photos=str(other), quiet=True)


def _alone(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[0] / "classifier", tmp_path / "alone", dirs_exist_ok=True))


def test_the_command_line_exports(finished, tmp_path, capsys, monkeypatch):
    from headstart.cli import main

    command = ["headstart", "export", str(finished[0]), "--format", "pt2", "-o", str(tmp_path / "pt2"), "--json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr()
    assert json.loads(told.out)["parity"]["photos"] == 6
    assert "the same first class for all" in told.err


def test_without_float64_one_photo_of_a_hundred_may_be_resized_to_other_roundings(finished):
    classifier = headstart.load(finished[0], "torch")
    photos = [np.asarray(make_photo(number, number % 3)) for number in range(100)]
    exact = {photo.tobytes(): classifier.predict_proba(photo)[0] for photo in photos}

    def shifted(count, by):
        changed = {photo.tobytes() for photo in photos[:count]}
        # Towards the class that is first anyway: no other comes first by it.
        towards = {key: np.where(row == row.max(), by, -by / 2) for key, row in exact.items()}

        def run(pixels):
            keys = [image.tobytes() for image in pixels]
            return np.stack([exact[key] + (towards[key] if key in changed else 0) for key in keys]), None

        return run

    found = parity.check_parity(classifier, shifted(1, 0.005), photos, "it", "photos", whole=True, exact=False)
    assert found.difference == pytest.approx(0.005, abs=1e-4)
    for count, by, strict in ((2, 0.005, False), (1, 0.02, False), (1, 0.005, True)):
        with pytest.raises(HeadstartError, match="another first class for 0 of 100 photos"):
            parity.check_parity(classifier, shifted(count, by), photos, "it", "photos", whole=True, exact=strict)

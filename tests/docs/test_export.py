"""The page about exports: its commands run, one format after the other."""

import importlib.util
import shutil

import pytest

from docs.commands import blocks_of, run_block

BLOCKS = blocks_of("export.md")


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """What the page presumes: a run and a photo."""
    run, photos = finished
    root = tmp_path_factory.mktemp("export")
    shutil.copytree(run, root / "run")
    shutil.copy(photos / "bee" / "0.png", root / "photo.jpg")
    return root


def test_the_page_has_a_command_for_each_format():
    text = "".join(block for _, block in BLOCKS)
    for name in ("onnx", "openvino", "pt2", "keras", "litert"):
        assert f"--format {name} " in text
    assert len(BLOCKS) == 8


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_commands_of_the_page_run(folder, number):
    kind, text = BLOCKS[number]
    if "litert" in text and not importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is not installed")
    if number == 1 and not (folder / "for-onnx").exists():
        run_block(*BLOCKS[0], folder)
    # On photos as small as these, the tiny network's accuracy is a matter of chance.
    printed = run_block(kind, text.replace("--int8 -o", "--int8 --max-drop 20 -o"), folder)
    if "example.py" in text:
        assert "%  bee" in printed.splitlines()[-3]
    if kind == "python":
        last = printed.splitlines()[-1]
        assert last == "(1, 3) (1,)" or float(last.split()[0]) < 1e-3

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from headstart.training.hardware import Hardware, hardware, same_for_all


def test_one_process_keeps_all_to_itself():
    where = hardware("float32")
    network = nn.Linear(2, 2)
    assert where.forward_of(network) is network
    assert where.share(torch.arange(5).numpy()).tolist() == [0, 1, 2, 3, 4]
    assert same_for_all({"a": 1}) == {"a": 1}


def test_images_are_placed_channels_last_and_precision_is_chosen():
    where = Hardware(torch.device("cpu"), torch.bfloat16)
    assert where.place(torch.rand(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    with where.autocast():
        assert nn.Linear(3, 2)(torch.rand(1, 3)).dtype == torch.bfloat16
    assert not where.scaler().is_enabled()


def test_products_in_bfloat16_last_as_long_as_the_context_and_are_close():
    backend = torch.backends.mkldnn
    if not hasattr(getattr(backend, "conv", None), "fp32_precision"):
        pytest.skip("PyTorch has no switch for them before 2.9")
    convolution, photos = nn.Conv2d(64, 64, 1), torch.rand(4, 64, 16, 16)
    before, exact = backend.conv.fp32_precision, convolution(photos)
    with Hardware(torch.device("cpu"), None, bfloat16_products=True).products():
        assert backend.conv.fp32_precision == "bf16"
        rounded = convolution(photos)
    assert backend.conv.fp32_precision == before
    assert torch.equal(convolution(photos), exact) and torch.allclose(rounded, exact, atol=0.02)
    with Hardware(torch.device("cpu"), None).products():
        assert torch.equal(convolution(photos), exact)
    assert not hardware("float32").bfloat16_products and not hardware("bfloat16").bfloat16_products


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want a GPU each")
def test_two_processes_train_as_one_does(photos, tmp_path, cache):
    """`accelerate launch` on the same batches: each process takes half, and their gradients are averaged."""
    choices = ["--image-size=64", "--num-views=1", "--epochs=2", "--batch-size=8", "--dropout-rate=0", "--keep=last"]
    choices += ["--precision=float32"]  # in bfloat16 rounding would part them
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    launch += ["--dynamo_backend=no", "--main_process_port=0", "-m", "headstart"]
    for name, start in (("one", ["headstart"]), ("two", launch)):
        command = [sys.executable, "-m", *start, "train", str(photos), "-o", str(tmp_path / name), *choices]
        done = subprocess.run([*command, "--cache", str(cache)], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Classifier ") == 1  # the first process alone speaks
    histories = [pd.read_csv(Path(tmp_path / name / "history.csv")) for name in ("one", "two")]
    for column in ("validation_loss", "validation_accuracy"):
        assert histories[1][column].tolist() == pytest.approx(histories[0][column].tolist(), rel=1e-3)

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
    assert where.forward_of(network, 10) is network or where.device.type == "cuda"
    assert where.share(torch.arange(5).numpy()).tolist() == [0, 1, 2, 3, 4]
    assert same_for_all({"a": 1}) == {"a": 1}


def test_images_are_placed_channels_last_and_precision_is_chosen():
    where = Hardware(torch.device("cpu"), torch.bfloat16)
    assert where.place(torch.rand(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    with where.autocast():
        assert nn.Linear(3, 2)(torch.rand(1, 3)).dtype == torch.bfloat16
    assert not where.scaler().is_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want a GPU each")
def test_two_processes_train_as_one_does(photos, tmp_path, cache):
    """`accelerate launch` on the same batches: each process takes half, and their gradients are averaged."""
    choices = ["--image-size=64", "--num-views=1", "--epochs=2", "--batch-size=8", "--dropout-rate=0", "--keep=last"]
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

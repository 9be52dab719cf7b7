import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from headstart import HeadstartError
from headstart.network.cut import InFloat16
from headstart.training import engines as module
from headstart.training.engines import choose_engine, open_engine


class Sums(nn.Module):
    """Two outputs that tell which picture they came from."""

    def forward(self, pixels):
        return pixels.mean(dim=(2, 3)), pixels[:, :1, :2, :2] * 2.0


PIXELS = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_outputs_come_in_order_with_their_tags_whatever_the_batch(name, tmp_path):
    engine = open_engine(choose_engine(name), Sums().eval(), 8, tmp_path)
    sizes = [engine.batch_size, 1, engine.batch_size, 2]
    ends = np.cumsum(sizes)
    pixels = np.concatenate([PIXELS] * 3)[: ends[-1]]
    batches = [(f"batch {n}", pixels[end - size : end]) for n, (end, size) in enumerate(zip(ends, sizes, strict=True))]
    found = list(engine.run(iter(batches)))
    assert [tag for tag, _ in found] == ["batch 0", "batch 1", "batch 2", "batch 3"]
    for (_, given), (_, (means, corners)) in zip(batches, found, strict=True):
        assert means.dtype == np.float32
        assert np.allclose(means, given.mean(axis=(1, 2)), atol=1e-3)
        assert np.allclose(corners[:, 0], 2.0 * given[:, :2, :2, 0], atol=1e-3)
    assert list(engine.run(iter([]))) == []


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_outputs_in_float16_are_what_the_store_would_make_of_them(name, tmp_path):
    class Large(nn.Module):
        """Channel means, and others far beyond float16's range on both sides."""

        def forward(self, pixels):
            means = pixels.mean(dim=(2, 3))
            return means, (means - 127.5) * 1e6

    def run(network):
        engine = open_engine(choose_engine(name), network.eval(), 8, tmp_path)
        [(_, outputs)] = engine.run([(0, PIXELS[:3])])
        return outputs

    limit = np.finfo(np.float16).max
    plain, half = run(Large()), run(InFloat16(Large()))
    for found, values in zip(half, plain, strict=True):
        assert np.array_equal(found.astype(np.float16), np.clip(values, -limit, limit).astype(np.float16))
    assert set(np.abs(half[1]).ravel()) == {limit}


def test_a_converted_network_is_kept_and_found_again(tmp_path):
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor))

        def forward(self, pixels):
            return (pixels.mean(dim=(2, 3)) * self.factor,)

    for factor, count in ((1.0, 1), (1.0, 1), (2.0, 2)):
        engine = open_engine(choose_engine("openvino"), Scaled(factor).eval(), 8, tmp_path)
        [(_, (means,))] = engine.run([(0, PIXELS[:1])])
        assert np.allclose(means, factor * PIXELS[:1].mean(axis=(1, 2)), atol=1e-2)
        assert len(list(tmp_path.glob("engines/*/model.xml"))) == count


_CONVERT = """
import socket, sys, torch
from pathlib import Path
socket.socket.connect = lambda *arguments: sys.exit(f"connected to {arguments[1:]}")
from headstart.training.engines import choose_engine, open_engine
network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten()).eval()
open_engine(choose_engine("openvino"), network, 8, Path(sys.argv[1]))
print(sorted(name for name in sys.modules if "openvino_telemetry" in name))
"""


def test_openvino_reports_to_no_one(tmp_path):
    """OpenVINO's telemetry leaves its marks in the home folder as soon as it is imported; here it never is."""
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "CI": ""}
    (tmp_path / "home").mkdir()
    command = [sys.executable, "-W", "ignore", "-c", _CONVERT, str(tmp_path / "cache")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
    assert list((tmp_path / "home").iterdir()) == []
    assert len(list(tmp_path.glob("cache/engines/*/model.xml"))) == 1


def test_the_torch_engine_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    engine = module._TorchEngine(choose_engine("torch"), network)
    list(engine.run([(0, PIXELS[:2])]))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network[0].weight.is_contiguous()


def test_the_choice_and_its_reason_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "_openvino_has_bfloat16", lambda: True)
    choice = choose_engine()
    assert (choice.name, choice.precision) == ("openvino", "bfloat16")
    assert str(choice).startswith("openvino on cpu, bfloat16 (no GPU, and OpenVINO")
    monkeypatch.setattr(module, "_openvino_has_bfloat16", lambda: False)
    assert choose_engine().precision == "float32"
    assert str(choose_engine("torch")) == "torch on cpu, float32 (asked for)"
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert str(choose_engine()) == "torch on cpu, float32 (OpenVINO is not installed)"
    with pytest.raises(HeadstartError, match="--engine openvino: OpenVINO is not installed"):
        choose_engine("openvino")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(choose_engine()) == "torch on cuda, float16 (a CUDA GPU is here)"


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_one_batch_at_a_time_from_several_threads_gives_what_run_gives(name, tmp_path):
    engine = open_engine(choose_engine(name), Sums().eval(), 8, tmp_path)
    assert engine.lanes >= 1
    batches = [PIXELS[start : start + size] for size in range(1, engine.batch_size + 1) for start in range(3)]
    expected = dict(engine.run(enumerate(batches)))
    with ThreadPoolExecutor(engine.lanes) as pool:
        for number, outputs in enumerate(pool.map(engine.infer, batches)):
            for found, wanted in zip(outputs, expected[number], strict=True):
                assert found.dtype == wanted.dtype
                np.testing.assert_array_equal(found, wanted)


def test_a_network_that_gives_a_photo_alone_other_numbers_is_not_used(tmp_path):
    class OfTheBatch(nn.Module):
        def forward(self, pixels):
            return (pixels.mean(dim=(2, 3)) + 0 * pixels.sum() + pixels.shape[0],)

    engine = open_engine(choose_engine("openvino"), OfTheBatch().eval(), 8, tmp_path)
    ((_, (wanted,)),) = engine.run([(None, PIXELS[:1])])
    np.testing.assert_array_equal(engine.infer(PIXELS[:1])[0], wanted)

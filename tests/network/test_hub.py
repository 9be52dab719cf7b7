"""The hub's weights through its real client, from a hub on loopback that serves one repository."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safetensors.torch import save_file

from headstart.network.backbones import BACKBONES, build

REPOSITORY = f"timm/{BACKBONES['b0'].timm_name}"
PROGRAM = """
import sys
from headstart.network.backbones import BACKBONES, build
from headstart.network.weights import load_weights, where_from
network = build(BACKBONES["b0"], 3)
before = where_from(BACKBONES["b0"])
weights = load_weights(network, BACKBONES["b0"])
print(before, where_from(BACKBONES["b0"]), weights.identity, float(network.conv_head.weight.detach().sum()))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    network = build(BACKBONES["b0"], 1000)
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    save_file(network.state_dict(), path)
    return path.read_bytes(), float(network.conv_head.weight.detach().sum())


@pytest.fixture
def hub(made):
    content, _ = made
    asked = []

    class Handler(BaseHTTPRequestHandler):
        told = hashlib.sha256(content).hexdigest()

        def do_HEAD(self):
            self._answer(send=False)

        def do_GET(self):
            self._answer(send=True)

        def _answer(self, send):
            asked.append((self.command, self.path))
            if self.path.startswith(f"/api/models/{REPOSITORY}"):
                body, kind = b'{"id": "%s", "sha": "%s"}' % (REPOSITORY.encode(), b"a" * 40), "application/json"
            elif self.path == f"/{REPOSITORY}/resolve/main/model.safetensors":
                body, kind = content, "application/octet-stream"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            headers = {"Content-Type": kind, "Content-Length": len(body), "ETag": f'"{self.told}"'}
            headers |= {"X-Repo-Commit": "a" * 40, "X-Linked-Etag": f'"{self.told}"', "X-Linked-Size": len(body)}
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            if send:
                self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, Handler, asked
    server.shutdown()
    thread.join()
    server.server_close()


def run(server, home):
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_weights_are_downloaded_once_and_then_work_offline(hub, made, tmp_path):
    server, _, asked = hub
    first = run(server, tmp_path)
    assert first.returncode == 0, first.stderr
    digest, total = hashlib.sha256(made[0]).hexdigest(), made[1]
    assert first.stdout.split()[:4] == ["('hub',", "False)", "('hub',", "True)"]
    assert first.stdout.split()[4] == digest and float(first.stdout.split()[5]) == pytest.approx(total, rel=1e-4)
    asked.clear()
    again = run(server, tmp_path)
    assert again.returncode == 0 and digest in again.stdout
    assert asked == []  # from the cache, without asking anyone


def test_a_download_that_is_not_what_the_hub_promised_is_removed(hub, tmp_path):
    server, handler, _ = hub
    handler.told = "0" * 64
    done = run(server, tmp_path)
    assert done.returncode != 0 and "the downloaded weights are damaged" in done.stderr
    assert not list((tmp_path / "hub").rglob("blobs/" + "0" * 64))


def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=60)
    assert "b0: its weights are not on this computer" in done.stderr and "lite0" in done.stderr

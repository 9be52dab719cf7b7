"""The page about serving: its commands run, in order, against the server that they start."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """What the page presumes: two runs and two photos."""
    run, photos = finished
    for name in ("run", "other-run"):
        shutil.copytree(run / "classifier", tmp_path / name / "classifier")
    for name, label in (("photo.jpg", "bee"), ("other.jpg", "cat")):
        shutil.copy(photos / label / "0.png", tmp_path / name)
    return tmp_path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(command: str, folder: Path, environment: dict[str, str], port: int):
    """Start a server by its command and stop it in the end."""
    words = command.replace("headstart", f"exec {sys.executable} -m headstart", 1)
    process = subprocess.Popen(
        ["bash", "-c", words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                break
        assert process.poll() is None and time.monotonic() < until, process.communicate()
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0


def run(kind: str, text: str, folder: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_page_run(folder):
    port = free_port()
    blocks = [(kind, text.replace(":8000", f":{port}").replace("8001", str(port))) for kind, text in BLOCKS]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    install, two, asking, python, v2, token = [text for _, text in blocks]
    assert [kind for kind, _ in blocks] == ["sh", "sh", "sh", "python", "python", "sh"]
    assert install.splitlines()[0] == "pip install '.[serve]'"

    with started(f"{install.splitlines()[1]} --port {port}", folder, environment, port):
        pass
    with started(two.strip(), folder, environment, port):
        answers = run("sh", asking.replace("curl ", "curl -sSf "), folder, environment)
        assert answers.count('"label": "bee", "probability"') >= 4 and answers.count('"model": "night"') == 1
        assert (folder / "explained.png").read_bytes().startswith(b"\x89PNG")
        label, probability = run("python", python, folder, environment).split()
        assert label == "bee" and 0 < float(probability) <= 1
        assert run("python", v2, folder, environment) == "['bee']\n"

    export, serve, curl = token.strip().splitlines()
    environment["HEADSTART_TOKEN"] = run("sh", f'{export}\necho "$HEADSTART_TOKEN"', folder, environment).strip()
    # On this computer alone, whatever the page says: a test opens nothing to a network.
    with started(serve.replace("0.0.0.0", "127.0.0.1") + f" --port {port}", folder, environment, port):
        assert '"name": "run"' in run("sh", curl.replace("curl ", "curl -sSf "), folder, environment)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401

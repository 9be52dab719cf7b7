"""Many clients at once, clients that leave, and the server's end."""

import io
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import headstart
from serve.serving import Serving, code, everything, post_head, slow_photo

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def slow() -> bytes:
    return slow_photo()


@pytest.fixture
def label_of_slow(finished, slow) -> str:
    classifier = headstart.load(finished[0])
    (probabilities,) = classifier.predict_proba(np.asarray(Image.open(io.BytesIO(slow))))
    return classifier.class_names[probabilities.argmax()]


def form_of(data: bytes, count: int) -> list:
    return [("photos", (f"{number}.png", data)) for number in range(count)]


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, server: Serving, files: list) -> None:
        super().__init__()
        self._url, self._files = f"http://127.0.0.1:{server.port}/v1/predict", files
        self.answer: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self.answer = httpx.post(self._url, files=self._files, timeout=60)

    def result(self) -> httpx.Response:
        self.join(60)
        assert self.answer is not None
        return self.answer


def test_beyond_the_queue_work_is_refused_and_later_taken(server, photo, slow, label_of_slow):
    first = Asking(server, form_of(slow, 4))
    server.wait_for_depth("run", 4)
    refused = server.client.post("/v1/predict", files=form_of(photo.read_bytes(), 4))
    assert code(refused) == (503, "overloaded") and int(refused.headers["retry-after"]) >= 1
    # Another model has a queue of its own.
    assert server.client.post("/v1/predict?model=other", content=photo.read_bytes(), headers=PNG).status_code == 200
    assert [row["label"] for row in first.result().json()["predictions"]] == [label_of_slow] * 4
    assert server.client.post("/v1/predict", files=form_of(photo.read_bytes(), 4)).status_code == 200


def test_a_client_that_leaves_frees_its_places(server, photo, slow):
    computed, gone = (
        'headstart_batch_size_sum{model="run"}',
        'headstart_requests_total{route="/v1/predict",status="499"}',
    )
    before, gone_before = server.metric(computed), server.metric(gone)
    request = httpx.Request("POST", "http://a/v1/predict", files=form_of(slow, 4))
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: {request.headers['content-type']}\r\n"
    with server.connect() as connection:
        connection.sendall(
            f"{head}Content-Length: {request.headers['content-length']}\r\n\r\n".encode() + request.read()
        )
        server.wait_for_depth("run", 4)
    server.wait_for_depth("run", 0)
    answer = server.client.post("/v1/predict", files=form_of(photo.read_bytes(), 4))
    assert answer.status_code == 200
    assert server.metric(computed) == before + 4  # and none of those that nobody waits for
    assert server.metric(gone) == gone_before + 1


def test_a_client_that_leaves_while_it_sends(server):
    left = 'headstart_requests_total{route="/v1/predict",status="499"}'
    before = server.metric(left)
    with server.connect() as connection:
        connection.sendall(post_head(1000) + b"x")
    while server.metric(left) == before:  # the test's own time limit ends this
        pass


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells what state a connection has")
def test_a_client_that_does_not_read_is_let_go(server):
    """Its answers fill every buffer: the server waits a second, then ends the connection."""
    with server.connect() as connection:
        ends = [f"{port:04X}" for port in (server.port, connection.getsockname()[1])]

        def is_established() -> bool:
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return ["01"] == [line[3] for line in lines if [end.split(":")[1] for end in line[1:3]] == ends]

        assert is_established()
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        until = time.monotonic() + 120
        while is_established():
            assert time.monotonic() < until
    assert server.client.get("/healthz").status_code == 200


def test_sixteen_clients_at_once_get_their_own_answers(guarded, finished):
    _, folder = finished
    names = {"ant": 0, "bee": 0, "cat": 0}
    wrong = []

    def ask(label: str) -> None:
        with httpx.Client(base_url=guarded.client.base_url, timeout=60) as client:
            for path in sorted((folder / label).iterdir()):
                headers = {**PNG, "Authorization": "Bearer correct-horse"}
                rows = client.post("/v1/predict", content=path.read_bytes(), headers=headers).json()["predictions"]
                if rows[0]["label"] != label:
                    wrong.append(path)

    threads = [threading.Thread(target=ask, args=(list(names)[number % 3],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_sigterm_answers_what_was_taken_in_and_ends_with_0(finished, photo, slow, label_of_slow):
    serving = Serving(finished[0], "--queue", 64)
    idle = serving.connect()
    taken = Asking(serving, form_of(slow, 16))
    serving.wait_for_depth("run", 16)
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.stdout.readline().startswith("Stopping")
    assert code(serving.client.get("/readyz")) == (503, "draining")
    assert serving.client.get("/healthz").status_code == 200
    refused = serving.client.post("/v1/predict", content=photo.read_bytes(), headers=PNG)
    assert code(refused) == (503, "draining") and "retry-after" in refused.headers
    assert [row["label"] for row in taken.result().json()["predictions"]] == [label_of_slow] * 16
    assert everything(idle) == b""
    idle.close()
    assert serving.process.wait(60) == 0
    assert serving.stop() == ""


def test_a_second_signal_ends_it_at_once(finished, slow):
    serving = Serving(finished[0], "--queue", 64)
    with serving.connect() as slow_client:
        slow_client.sendall(post_head(1000) + b"x")  # would hold the end up for its five seconds
        serving.client.get("/readyz")
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.stdout.readline().startswith("Stopping")
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(60) == 0
    serving.stop()


def test_what_is_said_on_start(server, guarded):
    assert [line.split()[0] for line in server.lines] == ["Model", "Model", "Limits", "Token", "Serving"]
    assert "run: 3 classes, lite0, " in server.lines[0] and "other: 3 classes" in server.lines[1]
    limits = "4 photos and 1 MB a request, 26,000,000 pixels a photo, 1 s to send it, 4 photos waiting"
    assert server.lines[2].split(maxsplit=1)[1] == limits
    assert server.lines[3] == "Token      none: programs of this computer alone may use it"
    assert re.search(r"http://127\.0\.0\.1:\d+ \(stop with Ctrl-C\)", server.lines[4])
    assert "correct-horse" not in "".join(guarded.lines)


@pytest.mark.parametrize("library", ["fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"])
def test_a_library_that_is_missing_is_named(library):
    program = (
        f"import sys; sys.modules[{library!r}] = None; sys.argv = ['headstart', 'serve', 'run']\n"
        "from headstart.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and f"headstart serve needs {library}, which is not installed." in ended.stderr
    assert ended.stderr.endswith("Install it with: pip install 'headstart[serve]'\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["RUN", "RUN/classifier"], "there is a classifier of the name run already"),
        (["a/b=RUN"], "the name 'a/b' cannot stand in an address"),
        (["RUN", "--max-body", "much"], "--max-body much: expected a size such as 64MB"),
        (["RUN", "--max-photos", "0"], "--max-photos 0: expected more than 0"),
        (["RUN", "--queue", "3"], "--queue 3: expected 64 or more"),
        (["RUN", "--max-pixels", "999999999"], "--max-pixels 999999999: expected at most"),
        (["RUN", "--token", "two words"], "--token: is empty or has characters that a header cannot hold"),
        (["RUN", "--port", "PORT"], "--host 127.0.0.1 --port PORT: cannot listen there"),
        (["missing"], "missing: no such folder; expected a classifier or its run"),
    ],
)
def test_mistakes_at_the_start(server, finished, arguments, problem):
    named = {"RUN": str(finished[0]), "PORT": str(server.port)}
    for name, value in named.items():
        arguments = [argument.replace(name, value) for argument in arguments]
        problem = problem.replace(name, value)
    command = [sys.executable, "-m", "headstart", "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and problem in ended.stderr and len(ended.stderr.strip().splitlines()) <= 2

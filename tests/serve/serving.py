"""A real server for tests: `headstart serve` as a process of its own, on a free port."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
from PIL import Image


class Serving:
    """The running server; `client` speaks HTTP to it, `lines` is what it said while starting."""

    def __init__(self, *arguments: object, port: int = 0) -> None:
        command = [sys.executable, "-m", "headstart", "serve", *map(str, arguments), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(r"(http://\S+):(\d+) ", line):
                break
        else:
            raise AssertionError(self.process.communicate()[1])
        self.port = int(found[2])
        self.client = httpx.Client(base_url=f"{found[1]}:{found[2]}", timeout=60)

    def stop(self) -> str:
        """End it and return what it wrote to standard error."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        errors = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0
        return errors

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(30)
        return connection

    def metric(self, line: str) -> float:
        """Return a metric's value: the number after this name with its labels; 0 where it is not there yet."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_for_depth(self, model: str, wanted: int) -> None:
        """Wait until so many photos wait for a model."""
        until = time.monotonic() + 30
        while self.metric(f'headstart_queue_depth{{model="{model}"}}') != wanted:
            assert time.monotonic() < until


def code(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an error, whose form is checked."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"code", "message"}
    message = answer.json()["error"]["message"]
    assert message.endswith(".") and not re.search(r"Traceback|site-packages|headstart/", message)
    return answer.status_code, answer.json()["error"]["code"]


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def slow_photo() -> bytes:
    """A photo of a few KB that takes a while to decode: 25 megapixels."""
    return encoded(Image.fromarray(np.full((5000, 5000, 3), (200, 30, 30), np.uint8)))


def post_head(length: int, path: str = "/v1/predict") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n".encode()


def everything(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    found = b""
    while data := connection.recv(65536):
        found += data
    return found

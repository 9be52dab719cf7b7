import contextlib
import itertools
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image


@pytest.fixture
def write_photo():
    """Return a function that writes a small photo, of another colour each time unless one is given."""
    numbers = itertools.count()

    def write(path, colour=None, image_format=None):
        number = next(numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = colour or (number * 37 % 256, number * 101 % 256, number // 256)
        Image.new("RGB", (16, 12), colour).save(path, image_format)
        return path

    return write


@pytest.fixture
def write_photos(write_photo, tmp_path):
    """Return a function that writes photos, all different, at paths relative to a new folder; returns it."""

    def write(*paths):
        for path in paths:
            write_photo(tmp_path / path)
        return tmp_path

    return write


@dataclass
class Site:
    """A small server on the loopback interface: what it serves, how it behaves, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    takes_ranges: bool = True
    cut_after: int | None = None
    status: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site():
    """A server whose files are served by HTTP, by ranges where they are wanted."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers["Range"]
            site.requests.append((self.path, wanted))
            if site.status:
                self.send_error(site.status)
                return
            data = site.files[self.path]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.takes_ranges else 0
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # A client may have read enough.
                self.wfile.write(data[start : site.cut_after])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()

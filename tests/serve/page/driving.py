"""A server in a process of its own, and a browser at its page."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.serving import Serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

# Chromium writes this into the console itself for every answer that is an error.
ANSWER = r"Failed to load resource: the server responded with a status of {}"
NO_ANSWER = r"Failed to load resource: net::ERR_"


@contextmanager
def serving(*arguments: object, port: int = 0) -> Iterator[Serving]:
    """Run `headstart serve` with these arguments."""
    running = Serving(*arguments, port=port)
    try:
        yield running
    finally:
        assert running.stop() == ""


def address_of(server: Serving) -> str:
    return f"http://127.0.0.1:{server.port}"


def choose(page, *paths: Path) -> None:
    page.locator("#files").set_input_files([str(path) for path in paths])


def drop(page, files: list[tuple[str, str, bytes]]) -> None:
    """Drop files made in the page: name, type, content."""
    page.evaluate(
        """(files) => {
          const dataTransfer = new DataTransfer();
          for (const [name, type, text] of files)
            dataTransfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
          const event = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
          document.querySelector("#drop").dispatchEvent(event);
        }""",
        [[name, kind, base64.b64encode(content).decode()] for name, kind, content in files],
    )


def drop_paths(page, *paths: Path) -> None:
    """Drop files and folders as a file manager does."""
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def said(page) -> str:
    return page.locator("#status").inner_text()


def labels(page) -> list[str]:
    """The labels of the cards."""
    return page.locator("#cards .verdict").all_inner_texts()


def rows(page) -> list[list[str]]:
    """The cells of the table that have text: name, label, probability, accepted."""
    return page.evaluate(
        """[...document.querySelectorAll("#table tbody tr")].map(
          (row) => [...row.cells].slice(1).map((cell) => cell.innerText.trim()))"""
    )

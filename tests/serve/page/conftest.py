"""The page of a server with a classifier of three classes, in Chromium."""

import json
import re
import shutil
from pathlib import Path

import pytest

from making import landscape, make_photo
from serve.page.driving import ARGUMENTS, CHROMIUM, FAKE_CAMERA, address_of, serving

pytest.importorskip("fastapi", reason="headstart[serve] is not installed")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if CHROMIUM is None and here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="chromium is not installed"))


@pytest.fixture(scope="module")
def launch():
    """Return a function that starts Chromium with further arguments."""
    # Not for the session: while Playwright is open, nothing else may run a loop of asyncio in this thread.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = []

        def started(*arguments):
            opened.append(playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments]))
            return opened[-1]

        yield started
        for browser in opened:
            browser.close()


@pytest.fixture(scope="module")
def browser(launch):
    return launch(*FAKE_CAMERA)


@pytest.fixture(scope="session")
def server(finished):
    """One model, with the limits that servers have by default."""
    with serving(f"things={finished[0]}") as running:
        yield running


@pytest.fixture(scope="session")
def odd_classifier(finished, tmp_path_factory):
    """The classifier with names that are no plain words, and without a rule of acceptance."""
    folder = tmp_path_factory.mktemp("odd") / "classifier"
    shutil.copytree(finished[0] / "classifier", folder)
    record = json.loads((folder / "classifier.json").read_text())
    record |= {"class_names": ['=1+1,"ant"', "<b>bee</b>", "@cat"], "rejection": None}
    (folder / "classifier.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens a page, and check at the end that it asked no other host and did not complain.

    `expected` says what Chromium itself will write into the console.
    """
    opened, complaints, requests = [], [], []

    def visit(at=server, expected=None, using=browser, address=None, **options):
        context = using.new_context(reduced_motion="reduce", **options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(30000)

        def complain(text):
            if expected is None or not re.match(expected, text):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text))
        page.on("pageerror", lambda error: complain(f"error: {error}"))
        page.on("request", lambda request: requests.append((address or address_of(at), request.url)))
        page.goto(address or address_of(at))
        return page

    yield visit
    for context in opened:
        context.close()
    assert complaints == []
    assert [url for at, url in requests if not url.startswith((at + "/", "blob:", "data:"))] == []


@pytest.fixture
def three(tmp_path):
    """A photo of each class that no training has seen."""
    paths = []
    for hue, name in enumerate(("red", "green", "blue")):
        paths.append(tmp_path / f"{name}.png")
        make_photo(77000 + hue, hue, (400, 300)).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def stranger(finished, tmp_path_factory):
    """A photo that the classifier does not accept."""
    import headstart

    path = tmp_path_factory.mktemp("stranger") / "stranger.png"
    landscape(300, 200).save(path)
    (accepted,) = headstart.load(finished[0]).predict([path]).accepted
    assert not accepted
    return path


@pytest.fixture(scope="session")
def truth(finished):
    """Return what the classifier says of photos without any server."""
    import headstart

    return headstart.load(finished[0]).predict

"""What can go wrong, provoked on a real server, and what the page says of it."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import expect

from making import make_photo, scene
from serve.page.driving import ANSWER, NO_ANSWER, choose, drop, drop_paths, labels, serving


def alert(page):
    return page.locator("#notice")


def reasons(page):
    return page.locator("#cards .reason").all_inner_texts()


def test_each_photo_that_cannot_be_read_has_its_own_reason(open_page, three, tmp_path):
    page = open_page(expected=ANSWER.format("4(15|22)"))
    whole = three[0].read_bytes()
    files = [
        ("torn.png", "image/png", whole[: len(whole) // 2]),
        ("page.jpg", "image/jpeg", b"<!doctype html><title>404</title>"),
        ("empty.jpg", "image/jpeg", b""),
    ]
    drop(page, files)
    expect(page.locator("#status")).to_have_text("3 photos: 3 could not be read.")
    assert labels(page) == ["Cannot be read"] * 3
    found = reasons(page)
    assert len(set(found)) == 3 and all(len(reason) > 8 for reason in found)
    expect(page.get_by_role("button", name="Where it looked in torn.png")).to_be_disabled()
    expect(page.get_by_role("button", name="Go on with")).to_be_hidden()  # they stay unreadable
    # Beside a photo that can be read they are rows of one answer.
    page.get_by_role("button", name="Clear").click()
    drop(page, [*files, ("red.png", "image/png", whole)])
    expect(page.locator("#status")).to_have_text("4 photos: 1 accepted, 3 could not be read.")
    assert labels(page) == [*["Cannot be read"] * 3, "ant"] and reasons(page) == [*found, ""]


@pytest.fixture(scope="module")
def strict(finished):
    """A server that takes little."""
    arguments = ["--max-body", "600KB", "--max-photos", "2", "--queue", "2", "--max-pixels", "500000"]
    with serving(finished[0], *arguments) as running:
        yield running


def test_a_file_that_is_too_large_is_told_of_and_not_sent(open_page, strict, three):
    page = open_page(strict, expected=ANSWER.format(503))  # three photos may be one more than may wait
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    drop(page, [("large.jpg", "image/jpeg", b"\xff\xd8\xff" + bytes(700 << 10))])
    expect(page.locator("#status")).to_have_text("1 photo: 1 not classified.")
    assert labels(page) == ["Not classified"]
    assert reasons(page) == ["The file has 700 KB. The server takes up to 600 KB."]
    assert asked == []
    choose(page, *three)
    expect(page.locator("#status")).to_have_text("4 photos: 3 accepted, 1 not classified.")
    assert len(asked) >= 2  # two photos a request, as the server allows


def test_a_photo_of_too_many_pixels_is_not_shown_either(open_page, strict, tmp_path):
    make_photo(1, 0, (1000, 800)).save(tmp_path / "vast.png")
    page = open_page(strict, expected=ANSWER.format(422))
    choose(page, tmp_path / "vast.png")
    expect(page.locator("#status")).to_have_text("1 photo: 1 could not be read.")
    assert "500,000" in reasons(page)[0]
    expect(page.locator(".instead")).to_have_text("No preview of this PNG file")


@contextmanager
def busy(server, paths):
    """Keep a server's queue full inside the block: others send it photos as fast as it answers."""
    photos = [("photos", (path.name, path.read_bytes(), "image/jpeg")) for path in paths]
    over = threading.Event()

    def ask():
        with httpx.Client(base_url=server.client.base_url, timeout=60) as client:
            while not over.is_set():
                assert client.post("/v1/predict", files=photos).status_code in (200, 503)

    with ThreadPoolExecutor(3) as others:
        asking = [others.submit(ask) for _ in range(3)]
        try:
            yield
        finally:
            over.set()
    for one in asking:
        one.result()


def test_a_busy_server_is_waited_for(open_page, strict, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(24)]
    for number, path in enumerate(paths):
        scene(number, (700, 700)).save(path)
    page = open_page(strict, expected=ANSWER.format(503))
    page.evaluate(
        """() => { window.told = [];
          new MutationObserver(() => told.push(document.querySelector("#status").textContent))
            .observe(document.querySelector("#status"), { childList: true }); }"""
    )
    with busy(strict, paths[:2]), page.expect_response(lambda response: response.status == 503, timeout=60_000) as met:
        choose(page, *paths)
    assert met.value.headers["retry-after"]
    expect(page.locator("#status")).to_have_text(re.compile("^24 photos: "), timeout=120_000)
    assert page.locator("#table tbody .number").filter(has_text="%").count() == 24
    assert any(re.match(r"The server is busy\. Going on in \d+ second", text) for text in page.evaluate("told"))


def test_a_server_that_is_gone_and_comes_back(open_page, finished, three):
    with serving(finished[0]) as first:
        page = open_page(first, expected=NO_ANSWER)
        choose(page, three[0])
        expect(page.locator("#status")).to_have_text("1 photo: 1 accepted.")
        first.stop()
        choose(page, three[1])
        drop_paths(page, three[2])
        expect(alert(page)).to_contain_text("The server does not answer.")
        expect(page.locator("#status")).to_have_text("3 photos: 1 accepted, 2 not classified.")
        page.get_by_role("button", name="Where it looked in red.png").click()
        expect(page.locator(".note").last).to_have_text("The server does not answer.")
        with serving(finished[0], port=first.port):
            # A browser does not send a file that has changed: that must not be taken for a server that is gone.
            three[2].write_bytes(three[2].read_bytes() + b"more")
            page.get_by_role("button", name="Go on with 2 photos").click()
            expect(page.locator("#status")).to_have_text("3 photos: 2 accepted, 1 not classified.")
            expect(alert(page)).to_have_text("")
            assert sorted(labels(page)) == ["Not classified", "ant", "bee"]
            changed = "It could not be sent. The file may have been moved or changed since."
            assert changed in reasons(page)


def test_the_token_is_asked_for_kept_and_asked_for_again(open_page, finished, three):
    with serving(finished[0], "--token", "secret-1") as first:
        page = open_page(first, expected=f"{ANSWER.format(401)}|{NO_ANSWER}")
        dialog = page.get_by_role("dialog", name="Access token")
        expect(dialog).to_be_visible()
        dialog.get_by_role("button", name="Cancel").click()
        expect(page.locator("#loading")).to_contain_text("The token is missing")
        page.get_by_role("button", name="Try again").click()
        dialog.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("The server does not take the token that was given.")
        dialog.get_by_label("Token").fill("two words")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text("no spaces")
        dialog.get_by_label("Token").fill("secret-1")
        dialog.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        with page.expect_request("**/v1/predict*") as asked:
            choose(page, three[0])
        assert asked.value.header_value("authorization") == "Bearer secret-1"
        assert "secret" not in asked.value.url
        expect(page.locator("#status")).to_have_text("1 photo: 1 accepted.")
        assert page.evaluate("[{ ...sessionStorage }, { ...localStorage }, document.cookie]") == [
            {"headstart-token": "secret-1"},
            {},
            "",
        ]
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(dialog).to_be_hidden()
        first.stop()
        with serving(finished[0], "--token", "secret-2", port=first.port):
            choose(page, *three)
            expect(dialog).to_be_visible()
            dialog.get_by_label("Token").fill("secret-2")
            page.keyboard.press("Enter")
            # It goes on where it stopped.
            expect(page.locator("#status")).to_have_text("3 photos: 3 accepted.")

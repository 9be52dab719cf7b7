"""The camera: asked for on demand, a photo at a time or live, and released."""

import re

from playwright.sync_api import expect

from serve.page.driving import labels


def notice(page):
    return page.locator("#notice")


def open_camera(page):
    page.get_by_role("button", name="Use the camera").click()


def test_a_photo_is_taken_and_the_camera_released(open_page):
    page = open_page()
    page.evaluate(
        """() => { window.asked = 0; const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = (wanted) => { asked += 1; return ask(wanted); }; }"""
    )
    expect(page.get_by_role("group", name="Camera")).to_be_hidden()
    assert page.evaluate("asked") == 0
    open_camera(page)
    expect(page.get_by_role("group", name="Camera")).to_be_visible()
    page.wait_for_function("() => document.querySelector('#video').videoWidth > 0")
    page.evaluate("window.track = document.querySelector('#video').srcObject.getVideoTracks()[0]")
    take = page.get_by_role("button", name="Take a photo")
    expect(take).to_be_focused()
    take.click()
    expect(page.locator("#status")).to_have_text(re.compile("^1 photo: 1 (accepted|none of these)"))
    assert page.locator("#cards h3").all_inner_texts() == ["camera 1.jpg"]
    take.click()
    expect(page.locator("#cards h3")).to_have_text(["camera 2.jpg", "camera 1.jpg"])
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.get_by_role("group", name="Camera")).to_be_hidden()
    assert page.evaluate("[track.readyState, document.querySelector('#video').srcObject, asked]") == ["ended", None, 1]
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()
    assert len(labels(page)) == 2


def test_live_has_one_request_in_flight_and_adds_no_photos(open_page):
    page = open_page()
    open_now, most, done = set(), [0], [0]

    def started(request):
        if "/v1/predict" in request.url:
            open_now.add(request)
            most[0] = max(most[0], len(open_now))

    def finished(request):
        if request in open_now:
            open_now.discard(request)
            done[0] += 1

    page.on("request", started)
    page.on("requestfinished", finished)
    open_camera(page)
    live = page.get_by_role("button", name="Live")
    live.click()
    expect(page.get_by_role("group", name="Live result").get_by_role("listitem")).to_have_count(3)
    for _ in range(3):
        with page.expect_response("**/v1/predict*"):
            pass
    assert live.get_attribute("aria-pressed") == "true" and most[0] == 1 and done[0] >= 2
    expect(page.locator("#results")).to_be_hidden()
    live.click()
    assert live.get_attribute("aria-pressed") == "false"
    expect(page.get_by_role("group", name="Live result")).to_be_hidden()
    before = done[0] + len(open_now)
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("#status")).to_have_text(re.compile("^1 photo: "))
    assert done[0] <= before + 1 and most[0] <= 2


def test_a_refused_camera(open_page, launch):
    refusing = launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny")
    page = open_page(using=refusing)
    open_camera(page)
    expect(notice(page)).to_contain_text("The camera was refused.")
    expect(page.get_by_role("group", name="Camera")).to_be_hidden()


def test_no_camera(open_page, launch):
    page = open_page(using=launch("--use-fake-ui-for-media-stream"))
    open_camera(page)
    expect(notice(page)).to_have_text("No camera was found. Plug one in, then try again.")


def test_a_page_that_is_not_secure_has_no_camera(open_page, launch, server):
    address = f"http://photos.test:{server.port}"
    page = open_page(using=launch("--host-resolver-rules=MAP photos.test 127.0.0.1"), address=address)
    open_camera(page)
    expect(notice(page)).to_have_text(
        f"The camera works only on a secure page: https, or http on localhost. This page came from {address}."
    )

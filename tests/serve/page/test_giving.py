"""Photos come to the page by choice, drop, paste, as folders, one by one and by the hundred."""

import base64
import re

import pytest
from playwright.sync_api import expect

from making import make_photo
from serve.page.driving import choose, drop, drop_paths, labels, rows, said


def test_chosen_photos_are_shown_as_the_classifier_sees_them(open_page, three, truth):
    page = open_page()
    choose(page, *three)
    expect(page.locator("#status")).to_have_text("3 photos: 3 accepted.")
    expected = truth(three)
    assert labels(page) == list(expected.label)
    assert page.locator("#cards h3").all_inner_texts() == ["red.png", "green.png", "blue.png"]
    shares = page.locator("#cards .second").all_inner_texts()
    assert [float(share.strip("%")) for share in shares] == pytest.approx(100 * expected.probability, abs=0.2)
    bars = page.locator("#cards li .bars").first.locator("li")
    assert bars.count() == 3  # as many as there are classes
    assert bars.locator(".class").all_inner_texts()[1] == expected.label_2[0]
    widths = bars.locator(".fill").evaluate_all("all => all.map(one => parseFloat(one.style.inlineSize))")
    assert widths == sorted(widths, reverse=True) and sum(widths) == pytest.approx(100, abs=0.1)


def test_later_photos_come_first(open_page, three):
    page = open_page()
    choose(page, three[0])
    choose(page, three[1])
    expect(page.locator("#status")).to_have_text("2 photos: 2 accepted.")
    assert page.locator("#cards h3").all_inner_texts() == ["green.png", "red.png"]


def test_the_photo_is_shown_upright_and_small(open_page, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn it right to see it
    make_photo(5, 0, (1600, 1200)).save(tmp_path / "turned.jpg", exif=exif)
    page = open_page()
    choose(page, tmp_path / "turned.jpg")
    image = page.get_by_role("img", name="turned.jpg")
    expect(image).to_have_attribute("src", re.compile("^blob:"))
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [540, 720]


def test_dropped_files(open_page, three):
    page = open_page()
    drop(page, [(path.name, "image/png", path.read_bytes()) for path in three])
    expect(page.locator("#status")).to_have_text("3 photos: 3 accepted.")
    assert labels(page) == ["ant", "bee", "cat"]


def test_dropped_folders_are_read_to_the_bottom(open_page, tmp_path):
    names = ["folder/a.png", "folder/inner/b.png", "folder/inner/deeper/c.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo(3, 1).save(tmp_path / name)
    (tmp_path / "folder/notes.txt").write_text("no photo")
    (tmp_path / "folder/.DS_Store").write_bytes(b"\0")
    page = open_page()
    drop_paths(page, tmp_path / "folder")
    expect(page.locator("#status")).to_have_text("3 photos: 3 accepted.")
    assert sorted(page.locator("#cards h3").all_inner_texts()) == names
    expect(page.get_by_role("alert").first).to_have_text("1 file left out, no photo by name or type: folder/notes.txt.")


def test_nothing_usable_in_a_drop(open_page):
    page = open_page()
    drop(page, [("notes.txt", "text/plain", b"no photo")])
    expect(page.get_by_role("alert").first).to_have_text(
        "Nothing here is a photo. 1 file left out, no photo by name or type: notes.txt."
    )
    expect(page.locator("#results")).to_be_hidden()
    drop(page, [])
    expect(page.get_by_role("alert").first).to_have_text("There is no photo in this.")


def test_a_paste(open_page, server, three):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (text) => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(three[2].read_bytes()).decode(),
    )
    page.keyboard.press("Control+v")
    expect(page.locator("#status")).to_have_text("1 photo: 1 accepted.")
    assert page.locator("#cards h3").all_inner_texts() == ["pasted 1.png"] and labels(page) == ["cat"]
    page.evaluate("navigator.clipboard.writeText('words')")
    page.keyboard.press("Control+v")
    expect(page.get_by_role("alert").first).to_have_text("There is no photo in what was pasted.")


def test_what_browsers_do_not_show_is_classified_all_the_same(open_page, tmp_path):
    make_photo(1, 1).save(tmp_path / "scan.tif")
    page = open_page()
    choose(page, tmp_path / "scan.tif")
    expect(page.locator("#status")).to_have_text("1 photo: 1 accepted.")
    assert labels(page) == ["bee"]
    expect(page.locator(".instead")).to_have_text("No preview of this TIF file")


@pytest.fixture(scope="module")
def two_hundred(tmp_path_factory, truth):
    """Two hundred photos, and what the classifier says of them."""
    folder = tmp_path_factory.mktemp("many")
    paths = [folder / f"photo {number}.jpg" for number in range(200)]
    for number, path in enumerate(paths):
        make_photo(50_000 + number, number % 3, (160, 120)).save(path)
    return paths, truth(paths)


def test_two_hundred_photos_stream_in_two_small_requests_at_a_time(open_page, two_hundred):
    paths, expected = two_hundred
    page = open_page()
    sizes, open_now, most = [], set(), [0]

    def started(request):
        if "/v1/predict" in request.url:
            open_now.add(request)
            most[0] = max(most[0], len(open_now))

    def finished(request):
        if request in open_now:
            open_now.discard(request)
            sizes.append(len(request.response().json()["predictions"]))

    page.on("request", started)
    page.on("requestfinished", finished)
    page.evaluate(
        """() => { window.announced = []; window.shifts = 0;
          new MutationObserver(() => announced.push(document.querySelector("#announcer").textContent))
            .observe(document.querySelector("#announcer"), { childList: true });
          new PerformanceObserver((list) => { for (const entry of list.getEntries())
            if (!entry.hadRecentInput) window.shifts += entry.value; }).observe({ type: "layout-shift" }); }"""
    )
    choose(page, *paths)
    expect(page.locator("#table")).to_be_visible()
    page.evaluate("window.shifts = 0")
    accepted = int(expected.accepted.sum())
    end = f"200 photos: {accepted} accepted, {200 - accepted} none of these."
    expect(page.locator("#status")).to_have_text(end, timeout=120_000)
    found = rows(page)
    assert [name for name, *_ in found] == [path.name for path in paths]
    told = [label.splitlines()[-1].removeprefix("closest: ") for _, label, *_ in found]
    assert told == list(expected.label)
    assert [yes == "yes" for *_, yes in found] == list(expected.accepted)
    assert page.evaluate("window.shifts") == 0  # nothing moved when results came
    assert sum(sizes) == 200 and max(sizes) == 4 and most[0] == 2
    announced = page.evaluate("announced")
    assert announced[0] == "Classifying 200 photos." and announced[-1] == end
    assert len(announced) < 20  # summaries
    # Pictures of what is in sight only.
    last = page.locator("#table img").last
    assert page.locator("#table img[src]").count() < 60 and last.get_attribute("src") is None
    last.scroll_into_view_if_needed()
    expect(last).to_have_attribute("src", re.compile("^blob:"))


def test_cancel_keeps_what_is_there_and_go_on_gets_the_rest(open_page, two_hundred):
    paths, expected = two_hundred
    page = open_page()
    choose(page, *paths)
    expect(page.locator("#table tbody tr").first.locator(".number")).not_to_be_empty()
    page.get_by_role("button", name="Cancel").click()
    resume = page.get_by_role("button", name="Go on with")
    expect(resume).to_be_visible()
    expect(page.locator("#status")).to_contain_text("not classified")
    left = int(resume.inner_text().split()[3])
    assert 0 < left < 200 and f"{left} not classified" in said(page)
    resume.click()
    expect(page.locator("#status")).to_contain_text(f"200 photos: {expected.accepted.sum()} acc", timeout=120_000)
    expect(resume).to_be_hidden()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#results")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "choose"

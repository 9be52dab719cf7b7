"""The report as a browser shows it."""

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from contrast import contrast, luminance
from headstart.report.charts import _shades
from headstart.report.page import report_again
from report.made_run import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# Every colour that text has in the page, in HTML and in SVG; counts within the matrix stand on shades.
TEXT_COLOURS = """[...new Set([...document.querySelectorAll("main *")]
  .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .map(element => element.namespaceURI.endsWith("svg")
    ? getComputedStyle(element).fill : getComputedStyle(element).color))]"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return report_again(make_run(tmp_path_factory.mktemp("browser"), num_classes=20, per_class=10))


@pytest.fixture
def open_page(browser, report):
    """Return a function that opens the report, and checks at the end that it complained of and asked for nothing."""
    opened, complaints, requests = [], [], []

    def visit(file=report, **options):
        page = browser.new_page(**options)
        opened.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def answer(route):
            requests.append(route.request.url)
            route.continue_()

        page.route("**/*", answer)
        page.goto(file.as_uri())
        return page

    yield visit
    for page in opened:
        page.close()
    assert complaints == []
    assert [url for url in requests if not re.match(r"file:.*/report\.html$|data:", url)] == []


def test_contrast_is_what_the_guidelines_say():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_off_its_ground(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) > 0.9) == (scheme == "light") and (luminance(ground) < 0.02) == (scheme == "dark")
    colours = page.evaluate(TEXT_COLOURS)
    assert len(colours) >= 5  # ink, faint, links, severe, warning
    assert {colour: round(contrast(colour, ground), 1) for colour in colours if contrast(colour, ground) < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_counts_stand_off_the_shades_of_the_matrix(open_page, scheme):
    page = open_page(color_scheme=scheme)
    style = page.evaluate("(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))")
    ink, ground = ([int(value) for value in re.findall(r"\d+", colour)[:3]] for colour in style)
    for red, green, blue, alpha in _shades(np.array([[9, 0], [9, 0]])).reshape(4, 4).tolist():
        mixed = [
            alpha / 255 * top + (1 - alpha / 255) * below for top, below in zip((red, green, blue), ground, strict=True)
        ]
        shown = f"rgb({', '.join(str(round(value)) for value in mixed)})"
        assert contrast(shown, f"rgb{tuple(ink)}") >= 4.5


def test_a_phone_scrolls_downwards_only(open_page):
    page = open_page(viewport={"width": 320, "height": 640}, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    # What is wider has a box of its own, which the keyboard reaches.
    boxes = page.evaluate(
        """[...document.querySelectorAll(".box")].map(box => [box.scrollWidth > box.clientWidth, box.tabIndex])"""
    )
    assert any(wider for wider, _ in boxes) and {index for _, index in boxes} == {0}
    inside = page.evaluate(
        """[...document.querySelectorAll("main *")].filter(element => !element.closest(".box, pre, svg")
          && element.getBoundingClientRect().right > 321).map(element => element.outerHTML.slice(0, 90))"""
    )
    assert [found for found in inside if 'class="box' not in found] == []


def shades(page, box):
    """Return how far the median pixel of a box's first column, and of its last, is from the page's ground."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ground = [int(value) for value in re.findall(r"\d+", colour)]
    with Image.open(io.BytesIO(box.screenshot())) as shot:
        pixels = np.asarray(shot.convert("RGB"), np.int64)
    return [int(np.abs(np.median(pixels[:, column], axis=0) - ground).max()) for column in (0, -1)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_shade_says_on_which_side_a_table_goes_on(open_page, scheme):
    page = open_page(viewport={"width": 390, "height": 800}, color_scheme=scheme, java_script_enabled=False)
    box = page.get_by_role("region", name="Stages")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    left, right = shades(page, box)
    assert left == 0 and right > 30
    box.evaluate("box => { box.scrollLeft = box.scrollWidth }")
    left, right = shades(page, box)
    assert left > 30 and right == 0
    page.set_viewport_size({"width": 1200, "height": 800})
    assert shades(page, box) == [0, 0]


def test_no_word_of_a_table_is_broken_on_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 800})
    words = page.evaluate(
        """[...document.querySelectorAll("td:not(.path):not(.text), thead th")].flatMap(cell => {
          const words = [], walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) for (const found of walker.currentNode.data.matchAll(/\\w+/g)) {
            const range = document.createRange();
            range.setStart(walker.currentNode, found.index);
            range.setEnd(walker.currentNode, found.index + found[0].length);
            words.push([found[0], range.getClientRects().length]);
          }
          return words;
        })"""
    )
    assert "brightness" in [word for word, _ in words]
    assert [word for word, lines in words if lines != 1] == []


def test_every_picture_is_shown_and_told_in_words(open_page):
    page = open_page()
    pictures = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.alt])")
    assert len(pictures) > 50 and all(width > 0 and len(told) > 10 for width, told in pictures)
    drawings = page.evaluate(
        """[...document.querySelectorAll("svg")].map(
          svg => [svg.getAttribute("role"), svg.ariaLabel, svg.getBoundingClientRect().width])"""
    )
    assert len(drawings) == 5
    assert all(role == "img" and len(told) > 30 and width > 200 for role, told, width in drawings)


def column(table, number):
    return table.evaluate(f"table => [...table.tBodies[0].rows].map(row => row.cells[{number}].textContent)")


def test_tables_are_sorted_by_click_and_by_keyboard(open_page):
    page = open_page()
    table = page.locator("#classes ~ .box table").first
    headings = table.locator("th[scope=col]")
    written = column(table, 1)
    headings.nth(1).get_by_role("button").click()
    assert headings.nth(1).get_attribute("aria-sort") == "ascending"
    assert column(table, 1) == sorted(written, key=float)
    headings.nth(1).get_by_role("button").click()
    assert headings.nth(1).get_attribute("aria-sort") == "descending"
    assert column(table, 1) == sorted(written, key=float, reverse=True)
    headings.nth(0).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert headings.nth(0).get_attribute("aria-sort") == "ascending"
    assert headings.nth(1).get_attribute("aria-sort") is None
    names = column(table, 0)
    kinds = [name for name in names if name.startswith("kind ")]
    assert kinds == sorted(kinds) and names != written
    page.keyboard.press("Space")
    assert headings.nth(0).get_attribute("aria-sort") == "descending"
    assert column(table, 0) == names[::-1]


def test_without_scripts_everything_can_be_read(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("th button").count() == 0
    assert page.locator("#classes ~ .box table").first.locator("tbody tr").count() == 20


def test_print_is_dark_on_white_and_whole(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    style = page.evaluate("(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))")
    assert style == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert page.locator("nav").is_hidden()
    cut = page.evaluate(
        "[...document.querySelectorAll('.tall')].filter(box => box.scrollHeight > box.clientHeight + 1)"
    )
    assert cut == []

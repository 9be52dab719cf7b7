"""By keyboard alone, in words for screen readers, in both colour schemes, on a phone."""

import re

import pytest
from playwright.sync_api import expect

from contrast import contrast, luminance
from making import make_photo
from serve.page.driving import ANSWER, choose, drop, labels

# Of each text that is seen: its colour, and the colour of the ground that it stands on.
TEXTS = """() => {
  const seen = new Map();
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!element.checkVisibility({ visibilityProperty: true }) || element.closest(".unseen")) continue;
    let ground = element;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
    seen.set(pair.join(), [...pair, element.textContent.trim().slice(0, 40)]);
  }
  return [...seen.values()];
}"""


@pytest.fixture
def dozen(tmp_path):
    paths = [tmp_path / f"photo {number} with a rather long name of its own.png" for number in range(12)]
    for number, path in enumerate(paths):
        make_photo(70_000 + number, number % 3, (160, 120)).save(path)
    return paths


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_off_its_ground(open_page, scheme, three, stranger, dozen):
    page = open_page(color_scheme=scheme, expected=ANSWER.format(415))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) > 0.9) == (scheme == "light") and (luminance(ground) < 0.02) == (scheme == "dark")
    choose(page, *three, stranger)
    drop(page, [("page.jpg", "image/jpeg", b"<!doctype html>")])
    drop(page, [("notes.txt", "text/plain", b"no photo")])
    expect(page.locator("#status")).to_have_text("5 photos: 3 accepted, 1 none of these, 1 could not be read.")
    found = page.evaluate(TEXTS)
    choose(page, *dozen)
    expect(page.locator("#status")).to_contain_text("17 photos: ")
    found += page.evaluate(TEXTS)
    assert len({(colour, ground) for colour, ground, _ in found}) >= 6
    assert [(text, round(contrast(*pair), 1)) for *pair, text in found if contrast(*pair) < 4.5] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_downwards_only(open_page, scheme, three, stranger, dozen):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme=scheme)

    def beyond():
        return page.evaluate(
            """[document.documentElement.scrollWidth, ...[...document.querySelectorAll("#page *")].filter((one) =>
              one.checkVisibility() && !one.closest(".unseen") && one.getBoundingClientRect().right > 360.5)
              .map((one) => one.outerHTML.slice(0, 90))]"""
        )

    assert beyond() == [360]
    choose(page, *three, stranger)
    expect(page.locator("#status")).to_have_text("4 photos: 3 accepted, 1 none of these.")
    assert beyond() == [360]
    page.get_by_role("button", name="Use the camera").tap()
    expect(page.get_by_role("group", name="Camera")).to_be_visible()
    assert beyond() == [360]
    choose(page, *dozen)
    expect(page.locator("#status")).to_contain_text("16 photos: ")
    assert beyond() == [360]
    # It stays a table, and fingers can hit what is in it.
    expect(page.get_by_role("row")).to_have_count(17)
    page.get_by_role("button", name=dozen[3].name).tap()
    expect(page.get_by_role("dialog", name="One photo")).to_be_visible()
    assert beyond() == [360]


def press_tab_until(page, name, most=80):
    """Press Tab until what is focused has this name; whatever is focused on the way has a name and is seen to be."""
    for _ in range(most):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => { const one = document.activeElement; const style = getComputedStyle(one);
              return [one.getAttribute("aria-label") ?? one.textContent.trim(), style.outlineStyle, one.tagName]; }"""
        )
        if found[2] == "BODY":
            continue  # past the end, on the way to the beginning
        assert found[0] and found[1] != "none", found
        if re.fullmatch(name, found[0]):
            return
    raise AssertionError(f"Tab never comes to {name}")


def test_everything_by_keyboard(open_page, three, dozen):
    page = open_page()
    # Playwright takes a moment to catch file dialogs: it is told before the first key.
    page.on("filechooser", lambda _: None)
    press_tab_until(page, "Choose photos")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(path) for path in three])
    expect(page.locator("#status")).to_have_text("3 photos: 3 accepted.")
    press_tab_until(page, "Where it looked in green.png")
    page.keyboard.press("Space")
    expect(page.get_by_role("img", name="Where the model looked in green.png for bee")).to_be_visible()
    press_tab_until(page, "Remove green.png")
    page.keyboard.press("Enter")
    assert labels(page) == ["ant", "cat"]
    expect(page.get_by_role("button", name="Remove blue.png")).to_be_focused()
    press_tab_until(page, "Clear")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()
    choose(page, *dozen)
    expect(page.locator("#status")).to_contain_text("12 photos: ")
    press_tab_until(page, "Probability")
    page.keyboard.press("Enter")
    heading = page.get_by_role("columnheader", name="Probability")
    assert heading.get_attribute("aria-sort") == "ascending"
    expect(heading.get_by_role("button")).to_be_focused()
    press_tab_until(page, "photo 7 .*")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="One photo")
    expect(dialog).to_be_visible()
    press_tab_until(page, "Next|Close")  # focus stays within
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name=dozen[7].name)).to_be_focused()
    press_tab_until(page, "Use the camera")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Take a photo")).to_be_focused()
    press_tab_until(page, "Stop the camera")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Camera")).to_be_hidden()


@pytest.mark.parametrize(("wish", "duration"), [("reduce", "0s"), ("no-preference", "0.2s")])
def test_bars_move_only_for_those_who_do_not_mind(open_page, three, wish, duration):
    page = open_page()
    page.emulate_media(reduced_motion=wish)
    choose(page, three[0])
    fill = page.locator("#cards .fill").first
    expect(fill).to_have_css("transition-duration", duration)
    moving = "!!document.getAnimations().length || getComputedStyle(document.body).animationName !== 'none'"
    assert wish == "no-preference" or not page.evaluate(moving)


def test_it_is_told_in_words(open_page, three, stranger):
    page = open_page()
    choose(page, *three, stranger)
    expect(page.locator("#announcer")).to_have_text("4 photos: 3 accepted, 1 none of these.")
    expect(page.locator("#announcer")).to_have_role("status")
    assert page.locator("html").get_attribute("lang") == "en"
    levels = page.evaluate(
        """[...document.querySelectorAll("h1, h2, h3")].filter((one) => one.checkVisibility())
          .map((one) => one.tagName)"""
    )
    assert levels == ["H1", "H2", "H2", "H3", "H3", "H3", "H3"]
    for role in ("banner", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("region", name="Results").get_by_role("list", name="Most likely classes")).to_have_count(4)
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, dialog, progress, video, summary")].filter((one) =>
          !one.ariaLabel && !one.getAttribute("aria-labelledby") && !one.labels?.length && !one.textContent.trim())
          .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    text = page.locator("body").inner_text()
    assert "keeps none of them" in re.sub(r"\s+", " ", text)
    assert [character for character in text if ord(character) > 0x2FFF] == []


def test_results_do_not_move_cards(open_page, three, stranger, tmp_path):
    page = open_page(expected=ANSWER.format(422))
    page.evaluate(
        """() => { window.places = [];
          new MutationObserver(() => places.push([...document.querySelectorAll(".card")].map((card) => {
              const box = card.getBoundingClientRect();
              return [box.top + scrollY, box.height].map(Math.round).join(); })
            .join(" "))).observe(document.querySelector("#cards"), { childList: true, subtree: true }); }"""
    )
    torn = tmp_path / "torn.png"
    torn.write_bytes(three[0].read_bytes()[:200])
    choose(page, *three, stranger, torn)
    expect(page.locator("#status")).to_have_text("5 photos: 3 accepted, 1 none of these, 1 could not be read.")
    expect(page.get_by_role("img", name="red.png")).to_be_visible()
    places = page.evaluate("places.filter((place) => place)")
    assert len(places) >= 2 and len(set(places)) == 1

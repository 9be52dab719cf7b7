"""What is shown of results: none of these, Grad-CAM, the table, the CSV file, several models."""

import csv
import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from making import make_photo
from serve.page.driving import choose, labels, rows, serving


def test_none_of_these_comes_first_then_the_closest_class_and_why(open_page, stranger, truth):
    page = open_page()
    choose(page, stranger)
    expect(page.locator("#status")).to_have_text("1 photo: 1 none of these.")
    (row,) = truth([stranger]).itertuples()
    assert labels(page) == ["None of these"]
    second = page.locator("#cards .second").inner_text()
    assert (label := re.fullmatch(r"Closest: (\w+), ([\d.]+)%", second)) and label[1] == row.label
    why = page.locator("#cards .note")
    expect(why).to_have_text("Unlike the training photos, or unsure.")
    assert why.evaluate("note => note.offsetHeight < 2 * parseFloat(getComputedStyle(note).fontSize)")  # on one line
    assert float(label[2]) == pytest.approx(100 * row.probability, abs=0.2)


def test_where_it_looked_is_asked_on_demand_and_once(open_page, three):
    page = open_page()
    asked = []
    page.on("request", lambda request: asked.append(request) if "/v1/explain" in request.url else None)
    choose(page, three[1])
    expect(page.locator("#status")).to_have_text("1 photo: 1 accepted.")
    expect(page.get_by_role("img", name="green.png")).to_be_visible()
    assert asked == []
    look = page.get_by_role("button", name="Where it looked in green.png")
    look.click()
    image = page.get_by_role("img", name="Where the model looked in green.png for bee")
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 64]
    assert look.get_attribute("aria-pressed") == "true" and len(asked) == 1
    look.click()
    expect(page.get_by_role("img", name="green.png", exact=True)).to_be_visible()
    assert look.get_attribute("aria-pressed") == "false"


@pytest.fixture(scope="module")
def dozen(tmp_path_factory, stranger):
    """Twelve photos whose names a careless CSV would spoil, one that is rejected, one that cannot be read."""
    folder = tmp_path_factory.mktemp("dozen")
    names = ["=1+1.png", "+2.png", "-3.png", "@sum.png", 'a "b".png', "c, d.png", "10.png", "9.png", "é.png", "犬.png"]
    for number, name in enumerate(names):
        make_photo(60_000 + number, number % 3, (160, 120)).save(folder / name)
    (folder / "stranger.png").write_bytes(stranger.read_bytes())
    (folder / "torn.png").write_bytes((folder / "9.png").read_bytes()[:200])
    return [folder / name for name in (*names, "stranger.png", "torn.png")]


def wait_for_table(page, count):
    expect(page.locator("#status")).to_have_text(re.compile(rf"^{count} photos: "))


TORN = r"Failed to load resource: the server responded with a status of 422"


def test_the_table_sorts_by_every_heading(open_page, dozen, truth):
    page = open_page(expected=TORN)
    choose(page, *dozen)
    wait_for_table(page, 12)
    assert [row[0] for row in rows(page)] == [path.name for path in dozen]
    names = ("Name", "Label", "Probability", "Accepted")
    headings = {name: page.get_by_role("columnheader", name=name) for name in names}

    def sort(name):
        headings[name].get_by_role("button").click()
        return rows(page)

    numbers = [float(row[2].strip("%")) for row in sort("Probability")[:-1]]
    assert numbers == sorted(numbers)
    numbers = [float(row[2].strip("%")) for row in sort("Probability")[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert rows(page)[-1][0] == "torn.png"  # what has no value lies last either way
    assert headings["Probability"].get_attribute("aria-sort") == "descending"
    names = [row[0] for row in sort("Name")]
    assert names.index("9.png") < names.index("10.png")
    assert headings["Probability"].get_attribute("aria-sort") is None
    assert headings["Name"].get_attribute("aria-sort") == "ascending"
    assert [row[3] for row in sort("Accepted")[:11]] == sorted(row[3] for row in rows(page)[:11])
    judged = [row[1].splitlines()[0] for row in sort("Label")[:11]]
    assert judged == sorted(judged) and "none of these" in judged


def test_a_row_opens_its_card(open_page, dozen):
    page = open_page(expected=TORN)
    choose(page, *dozen)
    wait_for_table(page, 12)
    page.get_by_role("button", name="c, d.png").click()
    dialog = page.get_by_role("dialog", name="One photo")
    expect(dialog.get_by_role("heading", name="c, d.png")).to_be_visible()
    expect(dialog.get_by_role("listitem")).to_have_count(3)
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_role("heading", name="10.png")).to_be_visible()
    dialog.get_by_role("button", name=re.compile("^Where it looked")).click()
    expect(dialog.get_by_role("img", name=re.compile("^Where the model looked in 10.png"))).to_be_visible()
    dialog.get_by_role("button", name="Remove 10.png").click()
    expect(dialog).to_be_hidden()
    assert page.locator("#table tbody tr").count() == 11
    assert page.evaluate("document.activeElement.textContent") == "9.png"


def downloaded(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    assert text.count("\r\n") == text.count("\n")
    return download.value.suggested_filename, list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_csv_file_says_what_predict_says(open_page, dozen, truth):
    page = open_page(expected=TORN)
    choose(page, *dozen)
    wait_for_table(page, 12)
    name, found = downloaded(page)
    expected = truth(dozen)
    assert name == "things.csv"
    assert list(found[0]) == ["name", *expected.columns[1:]]
    harmless = ["'=1+1.png", "'+2.png", "'-3.png", "'@sum.png", 'a "b".png', "c, d.png"]
    assert [row["name"] for row in found] == [*harmless, *(path.name for path in dozen[6:])]
    assert [row["label"] for row in found[:-1]] == list(expected.label[:-1])
    assert [row["accepted"] for row in found] == [*map(str, expected.accepted[:-1]), ""]
    numbers = [float(row["probability_2"]) for row in found[:-1]]
    assert numbers == pytest.approx(list(expected.probability_2[:-1]), abs=2e-3)
    assert found[-1]["label"] == "" and found[-1]["error"] != ""
    assert [row["error"] for row in found[:-1]] == [""] * 11


@pytest.fixture(scope="module")
def two_models(finished, odd_classifier):
    with serving(f"things={finished[0]}", f"odd={odd_classifier}") as running:
        yield running


def test_another_model_classifies_again_and_its_names_are_text(open_page, two_models, three):
    page = open_page(two_models)
    expect(page.get_by_role("heading", level=1)).to_have_text("things")
    expect(page.locator("#accepts")).to_contain_text("Accepted: ")
    choose(page, *three)
    expect(page.locator("#status")).to_have_text("3 photos: 3 accepted.")
    assert labels(page) == ["ant", "bee", "cat"]
    page.get_by_label("Model").select_option("odd")
    expect(page.get_by_role("heading", level=1)).to_have_text("odd")
    # Without a rule of acceptance nothing is said of it.
    expect(page.locator("#status")).to_have_text("3 photos: 3 classified.")
    assert labels(page) == ['=1+1,"ant"', "<b>bee</b>", "@cat"]
    assert page.locator("#class-names li").all_inner_texts() == ['=1+1,"ant"', "<b>bee</b>", "@cat"]
    name, found = downloaded(page)
    assert name == "odd.csv"
    assert [row["label"] for row in found] == ['\'=1+1,"ant"', "<b>bee</b>", "'@cat"]
    assert [row["accepted"] for row in found] == ["", "", ""]
    page.get_by_role("button", name="Where it looked in red.png").click()
    expect(page.get_by_role("img", name="Where the model looked in red.png for =1+1")).to_be_visible()


def test_another_model_empties_the_table_first(open_page, two_models, dozen):
    page = open_page(two_models, expected=TORN)
    choose(page, *dozen)
    wait_for_table(page, 12)
    page.get_by_label("Model").select_option("odd")
    expect(page.locator("#status")).to_have_text("12 photos: 11 classified, 1 could not be read.")
    expect(page.get_by_role("columnheader", name="Accepted")).to_be_hidden()
    assert {row[1] for row in rows(page)[:11]} == {'=1+1,"ant"', "<b>bee</b>", "@cat"}
    assert {row[3] for row in rows(page)} == {""}


def test_one_model_offers_no_choice(open_page):
    page = open_page()
    expect(page.get_by_role("heading", level=1)).to_have_text("things")
    assert page.title() == "things: Headstart"
    expect(page.get_by_label("Model")).to_be_hidden()
    expect(page.locator("#classes")).to_have_attribute("open", "")  # few are shown at once
    assert page.locator("#class-names li").all_inner_texts() == ["ant", "bee", "cat"]

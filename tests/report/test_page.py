import re
import shutil

import pandas as pd
import pytest

from headstart import HeadstartError
from headstart.report.page import report_again

CHROMIUM = shutil.which("chromium")


def test_the_page_shows_what_was_measured(finished):
    page = (finished[0] / "report.html").read_text()
    assert "100.0% (95% interval 61.0 to 100.0, 6 photos)" in page
    for heading in ("Stages, on validation photos", "Curves", "Confusion matrix", "Classes, worst first", "Recipe"):
        assert heading in page
    assert page.count("<img ") == page.count('alt="') == 2


def test_mistakes_and_problems_are_listed(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    predictions.loc[0, "prediction"] = "bee" if predictions.loc[0, "label"] != "bee" else "cat"
    predictions.to_csv(tmp_path / "run" / "predictions.csv", index=False)
    (tmp_path / "run" / "problems.csv").write_text("path,problem,detail\na<b>.jpg,unreadable,empty file\n")
    page = report_again(tmp_path / "run").read_text()
    assert "1 of 6 test photos" in page and predictions.loc[0, "path"] in page
    assert "a&lt;b&gt;.jpg" in page and "empty file" in page


def test_class_names_are_readable_and_one_may_be_called_na(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    names = {"ant": "n02085782-Japanese_spaniel", "bee": "NA", "cat": "cat"}
    for file in ("predictions.csv", "metrics.json", "catalog.csv"):
        text = (tmp_path / "run" / file).read_text()
        for old, new in names.items():
            text = re.sub(rf"(?<=[\",]){old}(?=[\",\n])", new, text)
        (tmp_path / "run" / file).write_text(text)
    page = report_again(tmp_path / "run").read_text()
    classes = page[page.index("Classes, worst first") : page.index("Recipe")]
    assert re.findall(r"<tr><td>([^<]*)</td>", classes) == ["NA", "cat", "Japanese spaniel"]
    assert "Surest mistakes" not in page  # a missing value would differ from itself


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(HeadstartError, match="is not a finished run"):
        report_again(tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_it_without_errors_or_requests(finished):
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 800})
            complaints, requests = [], []
            page.on("console", lambda message, kept=complaints: kept.append(message.text))
            page.on("pageerror", lambda error, kept=complaints: kept.append(str(error)))
            page.on("request", lambda request, kept=requests: kept.append(request.url))
            page.goto((finished[0] / "report.html").as_uri())
            assert page.title() == "Headstart report: run"
            assert complaints == []
            assert [url for url in requests if not re.match(r"file:|data:", url)] == []
            widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
            assert len(widths) == 2 and min(widths) > 300
            # Nothing sticks out sideways on a phone, and text stands off its background.
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            colours = page.evaluate("(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))")
            ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
            assert (ink < 150 and paper > 600) if scheme == "light" else (ink > 600 and paper < 150)
            page.close()
        browser.close()

import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from headstart import HeadstartError
from headstart.evaluation.second_opinion import opinion_text
from headstart.report.page import report_again
from report.made_run import HOSTILE, make_run, noise

ALWAYS = ["next", "work", "photos", "stages", "confusion", "classes", "recipe"]
EVERY = [*ALWAYS[:-1], "mistakes", "looks", "suspects", "calibration", "rejection", "slices", "notes", "recipe"]
NEW_KEYS = "majority comparison slices calibration rejection label_issues checked notes machine planned_seconds".split()


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    def attributes(self, tag):
        return [found for name, found in self.elements if name == tag]

    @property
    def sections(self):
        return [found["id"] for found in self.attributes("h2")]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def bare(made, path):
    """Copy a run and take away all that older runs lack."""
    shutil.copytree(made, path)
    shutil.rmtree(path / "pictures")
    (path / "label_issues.csv").unlink()
    metrics = json.loads((path / "metrics.json").read_text())
    for part in ("validation", "test"):
        del metrics[part]["macro_f1_interval"]
    left = {name: value for name, value in metrics.items() if name not in NEW_KEYS}
    (path / "metrics.json").write_text(json.dumps(left))
    pd.read_csv(path / "predictions.csv").drop(columns="accepted").to_csv(path / "predictions.csv", index=False)
    pd.read_csv(path / "problems.csv")[["path", "problem", "detail"]].to_csv(path / "problems.csv", index=False)
    return path


def test_a_trained_run_shows_what_was_measured(finished):
    page = Page((finished[0] / "report.html").read_text())
    assert [name for name in page.sections if name in ALWAYS] == ALWAYS
    assert "100.0% 95% interval 61.0 to 100.0, 6 photos" in page.text
    assert "Of 100 new photos like these it should classify about 100 rightly" in page.text
    assert "kept: " in page.text and "fine-tuning stage6 and what follows: 2 epochs, 2 views" in page.text


def test_a_run_with_everything_has_every_section(made):
    text = report_again(made).read_text()
    page = Page(text)
    assert page.sections == EVERY
    assert [found["href"] for found in page.attributes("a")] == [f"#{name}" for name in EVERY]
    assert len(page.attributes("svg")) == 5
    for tag, name in (("svg", "aria-label"), ("img", "alt")):
        assert all(len(found[name]) > 10 for found in page.attributes(tag))
    # Every colour of a drawing is the page's.
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert {colour for drawing in drawings for colour in re.findall(r": (#[0-9a-f]{6})", drawing)} == set()
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for told in (
        "Macro F1 0.705 95% interval 0.665 to 0.745",
        "25 severe problems, 50 warnings, 25 notes.",
        "McNemar's test: p = 0.0003.",
        "188 s in all; 200 s were forecast (-6%).",
        "temperature of 1.31",
        "200 photos of other things: 33.0% accepted. AUROC 0.710",
        "memory 15.6 GiB accelerator none",
        "6 of 20 test photos were classified wrongly",
    ):
        assert told in page.text, told


def test_a_run_with_nothing_new_leaves_it_out(made, tmp_path):
    page = Page(report_again(bare(made, tmp_path / "run")).read_text())
    assert page.sections == [*ALWAYS[:-1], "mistakes", "recipe"]
    assert page.attributes("img") == []
    assert "truncated" in page.text and "Severity" not in page.text
    # Mistakes are told where they cannot be shown.
    assert pd.read_csv(made / "predictions.csv").query("not correct")["path"].iloc[0] in page.text


def with_issues(made, path, **issues):
    """Copy a run with other numbers of label issues; return the section on labels of its report, tags and all."""
    shutil.copytree(made, path)
    metrics = json.loads((made / "metrics.json").read_text())
    metrics["label_issues"] = {"photos": 300, "listed": 12, "opinion": None} | issues
    (path / "metrics.json").write_text(json.dumps(metrics))
    text = report_again(path).read_text()
    return text[text.index('<h2 id="suspects">') : text.index('<h2 id="calibration">')]


def test_where_no_label_looks_wrong_the_report_says_so(made, tmp_path):
    section = with_issues(made, tmp_path / "run", suspects=0)
    assert "Labels: none looks wrong" in section and "None of 300 labels looks wrong." in section
    assert "may be wrong" not in section
    assert section.index("The least certain labels") < section.index("<li>")
    assert section.count("<li>") == 12


def test_only_as_many_labels_as_may_be_wrong_are_shown_as_such(made, tmp_path):
    section = with_issues(made, tmp_path / "run", suspects=5)
    assert "Of 300 labels, 5 may be wrong." in section
    wrong, hard = section.split("The least certain of the other labels")
    assert (wrong.count("<li>"), hard.count("<li>")) == (5, 7)


def test_the_report_says_how_far_to_trust_the_probe_that_doubts_labels(made, tmp_path):
    opinion = {"photos": 240, "probe_accuracy": 0.89, "network_accuracy": 0.98, "doubted": 10, "confirmed": 9}
    section = with_issues(made, tmp_path / "run", suspects=25, opinion=opinion | {"training": 22})
    assert opinion_text(opinion | {"training": 22}) in section
    assert "about 20 are likely labelled rightly" in section


def test_tables_may_be_empty(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    for name in ("problems.csv", "history.csv", "label_issues.csv"):
        header = (made / name).read_text().splitlines()[0]
        (tmp_path / "run" / name).write_text(header + "\n")
    metrics = json.loads((made / "metrics.json").read_text())
    metrics |= {"comparison": None, "slices": [], "notes": []}
    metrics["rejection"] |= {"outsiders": None, "curve": []}
    metrics["calibration"]["test"]["after"]["bins"] = []
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    page = Page(report_again(tmp_path / "run").read_text())
    assert page.sections == [name for name in EVERY if name not in ("suspects", "slices", "notes")]
    assert "Problems of files" not in page.text and "Curves" not in page.text


def test_names_are_never_markup(made):
    text = report_again(made).read_text()
    page = Page(text)
    assert HOSTILE in page.text and "photo <i> & long_" in page.text
    assert len(page.attributes("script")) == 1
    assert not {"b", "i"} & {tag for tag, _ in page.elements}
    assert "{{ 7 * 7 }}" in page.text


def test_a_report_made_again_is_the_same_without_the_photos(made, tmp_path):
    before = report_again(made).read_bytes()
    shutil.copytree(made, tmp_path / "run")
    assert report_again(tmp_path / "run").read_bytes() == before
    assert [path for path in tmp_path.iterdir() if path.name != "run"] == []


def test_mistakes_and_problems_are_listed(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    predictions.loc[0, "prediction"] = "bee" if predictions.loc[0, "label"] != "bee" else "cat"
    predictions.to_csv(tmp_path / "run" / "predictions.csv", index=False)
    (tmp_path / "run" / "problems.csv").write_text("path,problem,detail\na<b>.jpg,unreadable,empty file\n")
    page = report_again(tmp_path / "run").read_text()
    assert "1 of 6 test photos was" in page and predictions.loc[0, "path"] in page
    assert "a&lt;b&gt;.jpg" in page and "empty file" in page


def test_class_names_are_readable_and_one_may_be_called_na(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    names = {"ant": "n02085782-Japanese_spaniel", "bee": "NA", "cat": "cat"}
    for file in ("predictions.csv", "metrics.json", "catalog.csv"):
        text = (tmp_path / "run" / file).read_text()
        for old, new in names.items():
            text = re.sub(rf"(?<=[\",(]){old}(?=[\",\n)])", new, text)
        (tmp_path / "run" / file).write_text(text)
    page = report_again(tmp_path / "run").read_text()
    classes = page[page.index('id="classes"') : page.index('id="recipe"')]
    assert re.findall(r'<th scope="row">([^<]*)</th>', classes)[:3] == ["NA", "cat", "Japanese spaniel"]
    assert "Surest mistakes" not in page  # a missing value would differ from itself


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(HeadstartError, match="is not a finished run"):
        report_again(tmp_path)


def test_noisy_photos_of_many_classes_stay_below_5_mb(tmp_path):
    run = make_run(tmp_path, num_classes=120, per_class=40, make=noise)
    assert len(list((run / "pictures").glob("*.jpg"))) > 190
    report = report_again(run)
    assert 500_000 < report.stat().st_size <= 5_000_000
    page = Page(report.read_text())
    assert len(page.attributes("img")) > 200
    assert len(page.attributes("li")) < 300


def test_thousands_of_classes_and_problems_are_cut_and_said_to_be(tmp_path):
    from PIL import Image

    run = make_run(tmp_path, 600, 5, make=lambda seed: Image.new("RGB", (8, 8)), pictures=False)
    problems = pd.read_csv(run / "problems.csv")
    pd.concat([problems] * 30).to_csv(run / "problems.csv", index=False)
    page = Page(report_again(run).read_text())
    assert page.text.count("The first 500 of 600; all are in") == 2
    assert "The first 100 of 3,000; all are in problems.csv." in page.text
    assert len(page.attributes("tr")) < 1_200

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from headstart.report.charts import confusion_chart, coverage_chart, reliability_chart, similarity_order
from headstart.report.inline_svg import BLUE, inline_svg


def drawn():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], "o-", color=BLUE)
    axes.set_title('<b onclick="x">$a$ & 大</b>', color="0.3")
    axes.axvline(1.5, color="0.6")
    return figure


def test_ink_becomes_the_pages_and_ids_the_figures_own():
    svg = inline_svg(drawn, "first", 'a "quoted" <thing>')
    ElementTree.fromstring(svg)
    assert svg.startswith('<svg viewBox="0 0 216 144" width="288" height="192" fill="currentColor" role="img"')
    assert 'aria-label="a &#34;quoted&#34; &lt;thing&gt;"' in svg
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
    assert "currentColor" in svg and "var(--mark)" in svg and "var(--faint)" in svg
    assert "&lt;b onclick=" in svg and "$a$" in svg and "font-family" not in svg and "<style" not in svg
    identifiers = re.findall(r' id="([^"]*)"', svg)
    assert identifiers and all(name.startswith("first-") for name in identifiers)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) == set(identifiers)
    assert svg == inline_svg(drawn, "first", 'a "quoted" <thing>')


def test_classes_taken_for_each_other_stand_side_by_side():
    counts = 10 * np.eye(6, dtype=np.int64)
    for one, other in ((0, 3), (1, 4), (2, 5)):
        counts[one, other] = 4
    order = similarity_order(counts, np.zeros((6, 6)))
    assert sorted(order) == list(range(6))
    assert {frozenset(order[start : start + 2]) for start in (0, 2, 4)} == {
        frozenset(pair) for pair in ((0, 3), (1, 4), (2, 5))
    }


@pytest.mark.parametrize("number", [2, 1001])
def test_too_few_or_too_many_classes_stay_in_order(number):
    assert similarity_order(np.eye(number, dtype=np.int64), np.zeros((number, number))) == list(range(number))


def test_classes_that_are_never_confused_can_be_ordered():
    assert sorted(similarity_order(np.eye(4, dtype=np.int64), np.eye(4))) == [0, 1, 2, 3]


def test_a_matrix_shows_mistakes_in_another_colour_and_nothing_where_there_is_nothing():
    axes = confusion_chart(np.array([[9, 1], [0, 0]]), ["ant", "b" * 40]).axes[0]
    right, wrong, none, empty = axes.images[0].get_array().reshape(4, 4)
    assert right[2] > right[0] and wrong[0] > wrong[2]
    assert right[3] > wrong[3] > 0 == none[3] == empty[3]
    assert [text.get_text() for text in axes.texts] == ["9", "1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "b" * 23 + "…"]


@pytest.mark.parametrize(("number", "named", "counted"), [(25, True, True), (130, True, False), (1000, False, False)])
def test_a_matrix_of_many_classes_stays_readable(number, named, counted):
    figure = confusion_chart(np.eye(number, dtype=np.int64), [f"class {index}" for index in range(number)])
    axes = figure.axes[0]
    assert bool(axes.texts) == counted
    assert ([label.get_text() for label in axes.get_yticklabels()][-1] == f"class {number - 1}") == named
    assert max(figure.get_size_inches()) < 16


def test_reliability_leaves_empty_bins_out():
    bins = [{"confidence": 0.5, "accuracy": 0.4, "photos": 3}, {"confidence": 0.9, "accuracy": 0, "photos": 0}]
    axes = reliability_chart({"bins": bins}, {"bins": bins[:1]}).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 100], [50], [50]]


def test_coverage_has_the_threshold_and_no_noise_at_its_start():
    curve = [{"coverage": number / 1000, "accuracy": 1 - number / 5000} for number in range(1, 1001)]
    axes = coverage_chart(curve, 0.95, {"coverage": 0.25, "accuracy": 0.95}).axes[0]
    wanted, shown, point = axes.lines
    assert list(wanted.get_ydata()) == [95, 95] and (list(point.get_xdata()), list(point.get_ydata())) == ([25], [95])
    assert 100 < len(shown.get_xdata()) <= 201 and shown.get_xdata()[0] == 5 and shown.get_xdata()[-1] == 100
    assert len(coverage_chart([], 0.95, None).axes[0].lines) == 2

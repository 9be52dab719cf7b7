"""Corrected labels, from the table that a run writes to a run with them."""

import pandas as pd
import pytest

import headstart
from headstart import HeadstartError
from headstart.photos.catalog import read_catalog
from headstart.photos.corrections import corrected


@pytest.fixture
def catalog(photos):
    return read_catalog(photos)


def write(tmp_path, *rows: str, header: str = "path,label"):
    (tmp_path / "c.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return tmp_path / "c.csv"


def test_labels_are_replaced_and_counted(catalog, tmp_path):
    table = write(tmp_path, "ant/0.png,bee", "ant/1.png,ant", "ant/2.png,")
    found, changed = corrected(catalog, table)
    labels = dict(zip(found.photos["path"], found.photos["label"], strict=True))
    assert changed == 1 and labels["ant/0.png"] == "bee" and labels["ant/2.png"] == "ant"
    assert found.digest != catalog.digest and found.class_names == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["ant/99.png,bee"], "1 path in it not among the photos: ant/99.png"),
        (["ant/0.png,wasp"], "no photo has the label 'wasp'; expected one of 'ant', 'bee', 'cat'"),
        (["ant/0.png,bee", "ant/0.png,cat"], "more than one label for ant/0.png"),
    ],
)
def test_mistakes_are_named(catalog, tmp_path, rows, message):
    with pytest.raises(HeadstartError, match=message):
        corrected(catalog, write(tmp_path, *rows))


def test_a_table_without_the_columns_and_no_table_at_all(catalog, tmp_path):
    with pytest.raises(HeadstartError, match="has no column label"):
        corrected(catalog, write(tmp_path, "ant/0.png", header="path"))
    with pytest.raises(HeadstartError, match="no such file"):
        corrected(catalog, tmp_path / "none.csv")


def test_corrections_go_from_one_run_into_the_next(photos, tmp_path):
    (photos / "ant" / "9.png").rename(photos / "bee" / "stray.png")
    small = {"image_size": 64, "unfreeze": 0, "quiet": True}
    first = headstart.train(photos, tmp_path / "first", **small)
    issues = pd.read_csv(first.folder / "label_issues.csv", dtype=str, keep_default_na=False)
    assert issues.columns.tolist() == ["path", "given_label", "suggested_label", "score", "label"]
    assert issues.iloc[0][["path", "given_label", "suggested_label"]].tolist() == ["bee/stray.png", "bee", "ant"]
    issues.loc[0, "label"] = issues.loc[0, "suggested_label"]
    issues.to_csv(tmp_path / "mended.csv", index=False)
    second = headstart.train(photos, tmp_path / "second", labels=tmp_path / "mended.csv", **small)
    catalog = pd.read_csv(second.folder / "catalog.csv")
    assert catalog.set_index("path")["label"]["bee/stray.png"] == "ant"
    assert second.metrics["label_issues"]["listed"] == 0

import json
from dataclasses import replace

import pandas as pd
import pytest

from headstart.photos.findings import Finding, finding_table
from headstart.report.next_steps import next_steps
from headstart.report.tables import RunTables

RECIPE = {"budget": "5m", "plan": {"steps": [{"unfreeze": "stage6", "epochs": 4}]}}


def per_class(name, f1, photos=1000):
    return {"class": name, "precision": f1, "recall": f1, "f1": f1, "photos": photos}


@pytest.fixture
def metrics():
    """Numbers of which nothing stands out."""
    test = {
        "photos": 3000,
        "accuracy": 0.9,
        "accuracy_interval": [0.89, 0.91],
        "macro_f1": 0.9,
        "per_class": [per_class("n02085782-ant", 0.9), per_class("bee", 0.9), per_class("cat", 0.9)],
    }
    calibration = {"before": {"ece": 0.2, "bins": []}, "after": {"ece": 0.01, "bins": []}}
    return {
        "test": test,
        "majority": {"class": "bee", "accuracy": 0.34},
        "checked": {"severe": 0, "warning": 0, "note": 7},
        "label_issues": {"photos": 3000, "suspects": 0},
        "slices": [{"fact": "size", "slice": "smallest third", "accuracy": 0.88, "accuracy_interval": [0.8, 0.9]}],
        "calibration": {"temperature": 1.5, "test": calibration},
        "rejection": {"min_accuracy": 0.95, "reached": True, "outsiders": {"auroc": 0.95, "accepted": 0.05}},
    }


@pytest.fixture
def tables():
    names = ["n02085782-ant"] * 10 + ["bee"] * 40 + ["cat"] * 40
    numbers = [str(number) for number in range(90)]
    catalog = pd.DataFrame({"path": numbers, "label": names, "split": "train", "digest": numbers})
    predictions = pd.DataFrame({"path": numbers, "label": names, "prediction": names, "probability": [0.9] * 90})
    history = pd.DataFrame({"stage": ["probe", *["fine-tuning"] * 4], "validation_loss": [2, 1, 0.8, 0.7, 0.6]})
    issues = pd.DataFrame({"path": [], "given_label": [], "suggested_label": [], "score": []})
    return RunTables(catalog, finding_table([]), history, predictions, issues)


def told(metrics, tables, recipe=RECIPE):
    (sentence,) = next_steps(metrics, tables, recipe)
    return sentence


def test_nothing_is_told_where_nothing_stands_out(metrics, tables):
    assert next_steps(metrics, tables, RECIPE) == []


def test_nothing_needs_to_have_been_checked(metrics, tables):
    bare = {"test": metrics["test"]}
    assert next_steps(bare, tables, {}) == []


def test_no_better_than_always_the_same_answer(metrics, tables):
    metrics["majority"]["accuracy"] = 0.895
    assert told(metrics, tables).startswith("It may be no better than always answering bee, which is right for 90%")


def test_severe_problems_come_before_warnings(metrics, tables):
    metrics["checked"] |= {"severe": 3, "warning": 1}
    kinds = ("truncated", "truncated", "leak", "blurry")
    problems = finding_table([Finding(str(number), kind, "") for number, kind in enumerate(kinds)])
    assert "3 severe problems: truncated (2), leak (1)." in told(metrics, replace(tables, problems=problems))
    metrics["checked"]["severe"] = 0
    assert told(metrics, tables).startswith("Look through 1 warning about the photos")


def test_files_left_out_by_an_older_run(metrics, tables):
    del metrics["checked"]
    rows = {"path": ["a"], "problem": ["unreadable"], "severity": [""], "detail": [""], "suggestion": [""]}
    assert told(metrics, replace(tables, problems=pd.DataFrame(rows))).startswith("Look through the 1 file that")


def test_label_suspects(metrics, tables):
    metrics["label_issues"]["suspects"] = 12
    assert told(metrics, tables).startswith("Check the labels of 12 photos of 3,000 that may be wrong")
    assert "after all" not in told(metrics, tables)
    metrics["label_issues"]["opinion"] = {"doubted": 8, "confirmed": 6, "training": 10}
    assert told(metrics, tables).endswith("--labels label_issues.csv. About 8 of them are likely right after all.")


def test_time_ran_out(metrics, tables):
    nothing = {"budget": "20s", "plan": {"steps": []}}
    assert "in 20s there was no room for fine-tuning" in told(metrics, tables, nothing)
    assert next_steps(metrics, tables, nothing | {"unfreeze": 0}) == []
    cut = {"budget": "5m", "plan": {"steps": [{"unfreeze": "stage6", "epochs": 9}]}}
    assert "after 4 of 9 epochs. Try a budget above 5m." in told(metrics, tables, cut)
    # It stopped because it got no better, not because time was over.
    tables.history.loc[4, "validation_loss"] = 0.75
    assert next_steps(metrics, tables, cut) == []


def test_weak_classes_want_photos_where_they_have_few(metrics, tables):
    metrics["test"]["per_class"] = [per_class("n02085782-ant", 0.5), per_class("bee", 0.95), per_class("cat", 0.95)]
    assert "Add photos of ant (10 training photos, F1 0.50): fewer than" in told(metrics, tables)
    metrics["test"]["per_class"] = [per_class("n02085782-ant", 0.95), per_class("bee", 0.5), per_class("cat", 0.95)]
    assert "Look at the mistakes with bee (F1 0.50): worse than the rest" in told(metrics, tables)
    metrics["test"]["per_class"][1]["photos"] = 4  # too few to judge by
    assert next_steps(metrics, tables, RECIPE) == []


def test_confused_pairs(metrics, tables):
    tables.predictions.loc[10:14, "prediction"] = "cat"
    assert "Tell apart bee from cat (5 of 40 taken for it):" in told(metrics, tables)


def test_slices_that_do_worse(metrics, tables):
    metrics["slices"][0]["accuracy_interval"] = [0.8, 0.88]
    assert "size: smallest third (88%)" in told(metrics, tables)


def test_too_few_test_photos(metrics, tables):
    metrics["test"] |= {"photos": 100, "accuracy_interval": [0.82, 0.95]}
    assert "100 tell the accuracy within 6 points to either side only; about 400 would" in told(metrics, tables)


def test_probabilities_that_are_off(metrics, tables):
    metrics["calibration"]["test"]["after"]["ece"] = 0.08
    assert "they are 8 points off on average" in told(metrics, tables)


def test_rejection_that_does_not_do(metrics, tables):
    metrics["rejection"] |= {"reached": False, "outsiders": {"auroc": 0.7, "accepted": 0.4}}
    first, second = next_steps(metrics, tables, RECIPE)
    assert "no threshold makes 95% of the accepted photos right" in first
    assert "it accepts 40% of photos that belong to no class" in second


def test_of_a_made_run_everything_is_told(made):
    from headstart.report.tables import read_tables
    from headstart.run_folder import RunFolder

    metrics = json.loads((made / "metrics.json").read_text())
    steps = next_steps(metrics, read_tables(RunFolder(made)), RECIPE)
    assert len(steps) >= 6 and max(map(len, steps)) < 500

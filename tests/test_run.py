import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart
from headstart import HeadstartError
from headstart.recipe import Recipe
from making import make_photo, make_photos

SMALL = {"image_size": 64, "epochs": 2, "num_views": 2, "quiet": True}


def test_a_run_leaves_all_its_files(finished):
    run, _ = finished
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "recipe.toml",
        "catalog.csv",
        "problems.csv",
        "facts.csv",
        "label_issues.csv",
        "pictures",
        "history.csv",
        "metrics.json",
        "predictions.csv",
        "curves.png",
        "confusion.png",
        "report.html",
        "classifier",
        "checkpoints",
    }
    assert {path.name for path in (run / "classifier").iterdir()} == {
        "classifier.json",
        "weights.safetensors",
        "selftest.safetensors",
        "rejection.safetensors",
        "README.md",
    }
    for picture in ("curves.png", "confusion.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 300


def test_the_numbers_hang_together(finished):
    run, _ = finished
    metrics = json.loads((run / "metrics.json").read_text())
    catalog = pd.read_csv(run / "catalog.csv")
    assert catalog["split"].value_counts().to_dict() == {"train": 18, "validation": 6, "test": 6}
    predictions = pd.read_csv(run / "predictions.csv")
    assert sorted(predictions["path"]) == sorted(catalog.loc[catalog["split"] == "test", "path"])
    assert metrics["test"]["accuracy"] == (predictions["label"] == predictions["prediction"]).mean() == 1.0
    assert np.allclose(predictions[["p(ant)", "p(bee)", "p(cat)"]].sum(axis=1), 1, atol=1e-4)
    assert metrics["test"]["photos"] == metrics["validation"]["photos"] == 6
    assert set(metrics["stages"]) == {"probe", "fine-tuning stage6"}
    history = pd.read_csv(run / "history.csv")
    assert history[history["stage"] == "fine-tuning stage6"]["epoch"].tolist() == [1, 2]
    assert history.columns.tolist() == [
        "stage",
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "seconds",
        "regularisation",
    ]
    kept = metrics["kept"]
    best = max(stage["validation"]["accuracy"] for stage in metrics["stages"].values())
    assert metrics["validation"]["accuracy"] >= best
    assert metrics["validation"]["accuracy"] == kept["validation_accuracy"]


def test_the_classifier_agrees_with_the_predictions_of_the_run(finished):
    run, photos = finished
    predictions = pd.read_csv(run / "predictions.csv")
    classifier = headstart.load(run / "classifier")
    probabilities = classifier.predict_proba([photos / path for path in predictions["path"]])
    stored = predictions[[f"p({name})" for name in classifier.class_names]].to_numpy()
    assert np.abs(probabilities - stored).max() < 0.01


def test_the_recipe_runs_again_to_the_same_numbers(finished, tmp_path):
    run, _ = finished
    again = headstart.train(recipe=run / "recipe.toml", output=tmp_path / "again", quiet=True)
    first = json.loads((run / "metrics.json").read_text())
    for part in ("validation", "test", "kept"):
        assert again.metrics[part] == first[part]
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert (
        headstart.train(recipe=run / "recipe.toml", output=tmp_path / "other", seed=5, epochs=1, quiet=True).metrics[
            "catalog_digest"
        ]
        == first["catalog_digest"]
    )
    assert Recipe.read(tmp_path / "other" / "recipe.toml").seed == 5


def test_a_finished_run_is_shown_and_not_repeated(finished, capsys):
    run, photos = finished
    before = (run / "metrics.json").stat().st_mtime_ns
    result = headstart.train(photos, run, **{**SMALL, "quiet": False})
    assert (run / "metrics.json").stat().st_mtime_ns == before
    assert "is finished already" in capsys.readouterr().out
    assert result.metrics["test"]["accuracy"] == 1.0 and len(result.history) > 2


def test_another_recipe_is_refused(finished):
    run, photos = finished
    with pytest.raises(HeadstartError, match=r"holds a run of another recipe: epochs 2 there, 3 here"):
        headstart.train(photos, run, **{**SMALL, "epochs": 3})


def test_changed_photos_are_refused_where_a_run_is_finished(finished, tmp_path):
    run, photos = finished
    shutil.copytree(photos, tmp_path / "photos")
    first = headstart.train(tmp_path / "photos", tmp_path / "run", unfreeze=0, image_size=64, num_views=1, quiet=True)
    assert first.metrics["kept"]["stage"] == "probe" and set(first.metrics["stages"]) == {"probe"}
    make_photo(77, 0).save(tmp_path / "photos" / "ant" / "new.png")
    with pytest.raises(HeadstartError, match="its photos have changed since"):
        headstart.train(tmp_path / "photos", tmp_path / "run", unfreeze=0, image_size=64, num_views=1, quiet=True)


def test_a_folder_of_other_things_is_refused(photos, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(HeadstartError, match="holds files and is not a run"):
        headstart.train(photos, tmp_path / "thesis", **SMALL)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    with pytest.raises(HeadstartError, match="is a file; expected a folder"):
        headstart.train(photos, tmp_path / "thesis" / "chapter.txt", **SMALL)


def test_unreadable_photos_are_named_and_left_out(photos, tmp_path, capsys):
    (photos / "ant" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a jpeg")
    (photos / "bee" / "empty.png").write_bytes(b"")
    (photos / "bee" / "notes.txt").write_text("not a photo")
    run = headstart.train(photos, tmp_path / "run", **SMALL)
    problems = pd.read_csv(run.folder / "problems.csv")
    severe = problems[problems["severity"] == "severe"]
    assert severe[["path", "problem"]].to_numpy().tolist() == [
        ["ant/broken.jpg", "truncated"],
        ["bee/empty.png", "empty file"],
    ]
    assert len(pd.read_csv(run.folder / "catalog.csv")) == 30
    assert "2 files left out, see problems.csv: ant/broken.jpg" in capsys.readouterr().err


def test_a_test_folder_of_the_users_is_the_test_split_and_never_trained_on(tmp_path):
    root = tmp_path / "photos"
    make_photos(root / "Train")
    make_photos(root / "TEST", count=3)  # the same bytes as three training photos of each class
    run = headstart.train(root, tmp_path / "run", **SMALL)
    catalog = pd.read_csv(run.folder / "catalog.csv")
    test = catalog[catalog["split"] == "test"]
    assert len(test) == 9 and all(path.startswith("TEST/") for path in test["path"])
    assert not set(test["digest"]) & set(catalog.loc[catalog["split"] != "test", "digest"])
    problems = pd.read_csv(run.folder / "problems.csv")
    assert (problems["problem"] == "leak").sum() == 9 == (problems["severity"] == "severe").sum()


def test_the_example_head_and_a_table_of_paths(photos, tmp_path):
    rows = [(str(path.relative_to(tmp_path)), path.parent.name) for path in sorted(photos.rglob("*.png"))]
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(tmp_path / "photos.csv", index=False)
    run = headstart.train(tmp_path / "photos.csv", tmp_path / "run", head="example", unfreeze=1, **SMALL)
    assert set(run.metrics["stages"]) == {"example head", "fine-tuning last block"}
    assert (run.history["stage"] == "example head").sum() == 25
    # It is not fitted again on validation photos, and says so.
    assert run.classifier.training["training_photos"] == 18


def test_rare_classes_weigh_more(tmp_path, capsys):
    root = make_photos(tmp_path / "photos", count=4)
    for number in range(20):
        make_photo(500 + number, 0).save(root / "ant" / f"more{number}.png")
    headstart.train(root, tmp_path / "run", **{**SMALL, "quiet": False, "unfreeze": 0})
    assert "rare classes weigh more in the loss (training classes have 2 to 16 photos)" in capsys.readouterr().out


def test_no_photos_at_all_is_a_clear_error(tmp_path):
    with pytest.raises(HeadstartError, match="no photos given"):
        headstart.train(output=tmp_path / "run")
    assert not Path(tmp_path / "run").exists()


@pytest.mark.shared
def test_real_photos_reach_the_accuracy_to_expect(shared, tmp_path):
    """Hand signs, which ImageNet has none of; seen: 84 to 92% by seed."""
    run = headstart.train(shared / "signs", tmp_path / "run", num_views=1, unfreeze=0, image_size=128, quiet=True)
    assert run.metrics["test"]["accuracy"] > 0.7
    assert run.metrics["test"]["photos"] == 120


def test_from_scratch_everything_trains_and_a_killed_run_ends_the_same(photos, tmp_path, monkeypatch, capsys):
    from headstart.training import progress

    choices = {"weights": "none", "image_size": 32, "epochs": 3, "batch_size": 8, "precision": "float32"}
    whole = headstart.train(photos, tmp_path / "whole", **choices)
    told = capsys.readouterr().out
    assert "Training from scratch: 3,374,851 of 3,374,851 parameters, from pixels" in told and "photos/s" in told
    assert "Probe" not in told and "Engine" not in told
    assert set(whole.metrics["stages"]) == {"from scratch"}
    assert whole.metrics["stages"]["from scratch"]["parameters"] == 3_374_851
    assert whole.metrics["kept"]["stage"] == "from scratch"
    assert "started from random weights" in (tmp_path / "whole" / "classifier" / "README.md").read_text()

    # Stopped right after the second epoch's checkpoint, as a power cut would.
    add = progress.Progress.add

    def interrupted(progress, epoch, position):
        add(progress, epoch, position)
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.Progress, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        headstart.train(photos, tmp_path / "part", quiet=True, **choices)
    monkeypatch.setattr(progress.Progress, "add", add)
    headstart.train(photos, tmp_path / "part", quiet=True, **choices)
    weights = "classifier/weights.safetensors"
    assert (tmp_path / "part" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    history = [pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("whole", "part")]
    pd.testing.assert_frame_equal(*history)


def test_the_whole_network_is_fine_tuned_from_the_probe(photos, tmp_path, capsys):
    run = headstart.train(photos, tmp_path / "run", unfreeze="all", image_size=64, epochs=2, mixup=0.2, num_views=2)
    told = capsys.readouterr().out
    assert "Fine-tuning the whole network: 3,332,835 of 3,374,851 parameters, from pixels" in told
    assert "augmented view" not in told  # they are made anew in each epoch
    assert set(run.metrics["stages"]) == {"probe", "fine-tuning all"}
    assert run.metrics["validation"]["accuracy"] == 1.0
    predictions = pd.read_csv(run.folder / "predictions.csv")
    probabilities = run.classifier.predict_proba([photos / path for path in predictions["path"]])
    assert np.abs(probabilities - predictions[["p(ant)", "p(bee)", "p(cat)"]].to_numpy()).max() < 0.05


def test_unreadable_photos_are_found_where_nothing_is_embedded(photos, tmp_path):
    (photos / "ant" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a jpeg")
    run = headstart.train(photos, tmp_path / "run", weights="none", image_size=32, epochs=1, quiet=True)
    problems = pd.read_csv(run.folder / "problems.csv")
    assert problems.loc[problems["severity"] == "severe", "path"].tolist() == ["ant/broken.jpg"]


def test_a_time_limit_ends_training_and_is_told(photos, tmp_path, capsys):
    run = headstart.train(photos, tmp_path / "run", image_size=64, epochs=9, num_views=1, time_limit=1e-3)
    assert run.metrics["stages"]["fine-tuning stage6"]["epochs"] == 1
    assert "stopped after 1 of 9 epochs: --time-limit" in capsys.readouterr().out


def test_weights_of_another_run_are_a_start(finished, tmp_path):
    run, photos = finished
    weights = run / "classifier" / "weights.safetensors"
    again = headstart.train(
        photos, tmp_path / "run", weights=weights, unfreeze=0, image_size=64, num_views=1, quiet=True
    )
    assert Recipe.read(again.folder / "recipe.toml").weights == str(weights)
    # What is passed on names the file, not where it lay.
    assert again.classifier.training["recipe"]["weights"] == "weights.safetensors"
    assert "started from the weights of weights.safetensors" in (again.folder / "classifier" / "README.md").read_text()
    with pytest.raises(HeadstartError, match=r"weights\.safetensors: does not fit the network: no tensor for"):
        headstart.train(photos, tmp_path / "b0", weights=weights, backbone="b0", image_size=64, quiet=True)


def test_a_check_that_takes_too_much_of_the_budget_is_left_out_and_stays_so(photos, tmp_path, capsys, monkeypatch):
    from headstart import checking

    with monkeypatch.context() as patched:
        patched.setattr(checking, "_BUDGET_SHARE", 1e-9)
        run = headstart.train(photos, tmp_path / "run", image_size=64, unfreeze=0, budget="60s")
    assert "Check       left out: 30 photos would take " in capsys.readouterr().out
    assert run.metrics["checked"] is None and "label_issues" not in run.metrics
    again = headstart.train(recipe=run.folder / "recipe.toml", output=tmp_path / "again", quiet=True)
    assert again.metrics["checked"] is None and again.metrics["test"] == run.metrics["test"]


@pytest.mark.parametrize("refit", [True, False])
def test_of_many_photos_a_part_is_searched_and_all_are_fitted(photos, tmp_path, capsys, monkeypatch, refit):
    from headstart.training import costs, refitting, stages

    choices = {"image_size": 64, "unfreeze": 0, "probe_views": 1, "refit": refit, "quiet": False}
    whole = headstart.train(photos, tmp_path / "whole", **choices)
    assert " rows)" not in capsys.readouterr().out
    monkeypatch.setattr(costs, "MOST_SEARCHED", 12)
    seen, fit_probe = [], stages.fit_probe

    def fitted(*given, **named):
        seen.append(given[1])
        return fit_probe(*given, **named)

    monkeypatch.setattr(stages, "fit_probe", fitted)
    monkeypatch.setattr(refitting, "fit_probe", fitted)
    part = headstart.train(photos, tmp_path / "part", **choices)
    assert re.search(r"validation loss, on 9 of 18 rows\)", capsys.readouterr().out)
    assert [len(labels) for labels in seen] == [9, 24 if refit else 18]
    assert whole.metrics["test"]["accuracy"] == part.metrics["test"]["accuracy"] == 1.0
    found = part.classifier.predict(sorted(photos.rglob("*.png")))
    assert (found["label"] == [Path(path).parent.name for path in found["path"]]).all()


def test_of_too_many_photos_for_the_budget_a_part_is_used(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headstart.photos.catalog._LEAST_OF_A_PART", 4)
    with monkeypatch.context() as slow:
        # As on a computer where 30 photos are very many, and the time is enough for half of them.
        slow.setattr("headstart.run.EMBEDDING_SHARE", 1e-9)
        slow.setattr("headstart.run.size_in_time", lambda *given: 64)
        slow.setattr("headstart.run.count_in_time", lambda *given: 15)
        run = headstart.train(photos, tmp_path / "run", unfreeze=0)
    told = capsys.readouterr().out
    assert "about 15 of the photos are used, an equal share of each class: all would take too long" in told
    used = pd.read_csv(run.folder / "catalog.csv")
    assert used["label"].value_counts().tolist() == [5, 5, 5]
    # The recipe repeats it without measuring anything.
    again = headstart.train(recipe=run.folder / "recipe.toml", output=tmp_path / "again")
    assert pd.read_csv(again.folder / "catalog.csv").equals(used)

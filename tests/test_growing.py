"""Adding photos and classes to a finished run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import headstart
from headstart import HeadstartError, growing
from making import make_photo, make_photos


def catalog_of(run) -> pd.DataFrame:
    return pd.read_csv(run / "catalog.csv")


@pytest.fixture
def more(tmp_path):
    """New photos: two of an old class, eight of a new one, and one that the run has seen."""
    root = tmp_path / "more"
    for name in ("ant", "dog"):
        (root / name).mkdir(parents=True)
    make_photo(0, 0).save(root / "ant" / "seen.png")
    for number in range(2):
        make_photo(700 + number, 0).save(root / "ant" / f"{number}.png")
    for number in range(8):
        make_photo(800 + number, 1).convert("L").save(root / "dog" / f"{number}.png")
    return root


def test_the_new_folder_is_named_after_the_run_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "run-3").mkdir()
    monkeypatch.chdir(tmp_path)
    assert growing._next_folder(Path("run-2")) == Path("run-4")
    assert growing._next_folder(Path("deep/run")) == Path("deep/run-2")
    monkeypatch.chdir(tmp_path / "run-3")
    assert growing._next_folder(Path(".")) == tmp_path / "run-4"


def test_new_photos_and_a_new_class(finished, more, tmp_path, capsys):
    run, photos = finished
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    grown = headstart.add(run, more, tmp_path / "grown")
    told = capsys.readouterr().out
    assert "10 photos, 1 are in the run already; new classes: dog" in told
    assert "100.0% before, 100.0% now of the 6 old test photos; " in told
    old, new = catalog_of(run), catalog_of(grown.folder)
    kept = dict(zip(new["digest"], new["split"], strict=True))
    assert [kept[digest] for digest in old["digest"]] == old["split"].tolist()
    added = new[~new["digest"].isin(set(old["digest"]))]
    assert added.groupby(["label", "split"]).size().to_dict() == {
        ("ant", "train"): 2,
        ("dog", "test"): 1,
        ("dog", "train"): 6,
        ("dog", "validation"): 1,
    }
    assert grown.classifier.class_names == ["ant", "bee", "cat", "dog"]
    assert grown.classifier.predict(more / "dog" / "1.png")["label"][0] == "dog"
    # The run that it grew from is as it was.
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    metrics = json.loads((grown.folder / "metrics.json").read_text())
    assert metrics["grown"]["added"] == 10 and metrics["grown"]["new_test_photos"] == 1
    report = (grown.folder / "report.html").read_text()
    assert 'href="#grown"' in report and "the classifier now and the classifier before are right on the same" in report
    asked = report[report.index("<h3>Asked</h3>") : report.index("<h3>Planned</h3>")]
    terms = re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", asked)
    assert terms[:2] == [("earlier run", run.name), ("new photos", str(more.resolve()))]
    assert not {"photos", "budget", "weights to start from"} & {term for term, _ in terms}
    assert report.count('<th scope="row">old</th>') == 2 and report.count('<th scope="row">new</th>') == 1
    again = headstart.train(recipe=grown.folder / "recipe.toml", output=tmp_path / "again", quiet=True)
    assert again.metrics["test"] == metrics["test"]


@pytest.mark.parametrize("moment", ["photos.csv", "recipe.toml", "metrics.json"])
def test_a_killed_add_is_gone_on_with(finished, more, tmp_path, moment):
    """SIGKILL as soon as a file is there, then the same command: no second folder, and the same numbers."""
    run = shutil.copytree(finished[0], tmp_path / "run")
    command = [sys.executable, "-m", "headstart", "add", str(run), str(more)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while victim.poll() is None and not (tmp_path / "run-2" / moment).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert (tmp_path / "run-2" / moment).exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    assert "of the 6 old test photos" in again.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "run", "run-2"]
    whole = headstart.add(run, more, tmp_path / "whole", quiet=True)
    resumed = json.loads((tmp_path / "run-2" / "metrics.json").read_text())
    assert {name: resumed[name] for name in ("test", "grown")} == {
        name: whole.metrics[name] for name in ("test", "grown")
    }


def test_only_new_photos_are_embedded_where_the_probe_was_kept(photos, more, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    run = headstart.train(photos, tmp_path / "run", unfreeze=0, image_size=64, quiet=True)
    grown = headstart.add(run.folder, more)
    assert grown.folder == tmp_path / "run-2"
    assert "Embedding   10 photos" in capsys.readouterr().out
    third = make_photos(tmp_path / "third", ("bee",), count=1)
    make_photo(901, 1).save(third / "bee" / "0.png")
    assert headstart.add(grown.folder, third, quiet=True).folder == tmp_path / "run-3"
    assert len(catalog_of(tmp_path / "run-3")) == 41


def test_what_cannot_grow_is_said(finished, tmp_path):
    run, photos = finished
    with pytest.raises(HeadstartError, match="all of its 30 photos are in the run already"):
        headstart.add(run, photos, tmp_path / "grown")
    with pytest.raises(HeadstartError, match="is not a finished run"):
        headstart.add(photos, photos)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    new = make_photos(tmp_path / "new", ("bee",), count=1)
    make_photo(902, 1).save(new / "bee" / "0.png")
    with pytest.raises(HeadstartError, match="holds files already"):
        headstart.add(run, new, tmp_path / "full")
    (new / "eel").mkdir()
    make_photo(903, 2).save(new / "eel" / "0.png")
    with pytest.raises(HeadstartError, match=r"too few photos to split in 'eel' \(1\)"):
        headstart.add(run, new, tmp_path / "grown")
    assert not (tmp_path / "grown").exists()

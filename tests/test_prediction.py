"""Many photos: interrupted and gone on with, sorted and put back, watched for, labelled in sidecars."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

import headstart
from headstart import HeadstartError
from headstart.console import Console
from headstart.filing import Filing
from headstart.prediction import Counts, predict_to
from headstart.sidecars import is_ours, sidecar_of, xmp
from headstart.sorting import LOG, NOT_ACCEPTED, Sorter, folder_name, read_log, undo
from headstart.watching import Stop, watch
from making import make_photo, make_photos

DEADLINE = 120


@pytest.fixture(scope="module")
def classifier(finished):
    return headstart.load(finished[0])


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of three classes, one that cannot be read, and one of nothing that the classifier knows."""
    folder = make_photos(tmp_path / "photos", count=4)
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


def listed(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "headstart", "predict", *map(str, arguments)]


def until(condition, process=None) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None), process and process.communicate()
        time.sleep(0.005)


# Interrupted


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_killed_command_goes_on_without_a_lost_or_doubled_row(finished, tmp_path, suffix):
    photos = make_photos(tmp_path / "photos", ("ant", "bee"), 600)
    output, whole = tmp_path / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    victim = subprocess.Popen(command(finished[0], photos, "-o", output, "-q"), stderr=subprocess.PIPE)
    until(lambda: any(path.stat().st_size > 0 for path in tmp_path.glob(".out*.jsonl")), victim)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert not output.exists()
    (ledger,) = tmp_path.glob(".out*.jsonl")
    assert 0 < len(ledger.read_bytes().splitlines()) < 1200
    with ledger.open("a") as file:
        file.write('{"path": "torn')
    again = subprocess.run(command(finished[0], photos, "-o", output), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "Going on where an interrupted command stopped: " in again.stderr and "warning" not in again.stderr
    subprocess.run(command(finished[0], photos, "-o", whole, "-q"), check=True)
    read = {"csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True), "parquet": pd.read_parquet}[
        suffix
    ]
    first, second = read(output), read(whole)
    assert len(first) == 1200 and first["path"].is_unique
    pd.testing.assert_frame_equal(first, second)
    assert [path.name for path in tmp_path.glob(".out*")] == []


def test_another_classifier_or_top_k_does_not_go_on_with_the_rows(classifier, photos, tmp_path):
    class Stop(Exception):
        pass

    def stop(rows):
        raise Stop

    with pytest.raises(Stop):
        predict_to(classifier, listed(photos), tmp_path / "out.csv", 2, Console(True), afterwards=stop)
    counts = predict_to(classifier, listed(photos), tmp_path / "out.csv", 1, Console(True))
    assert counts == Counts(13, 1, 12)
    assert list(pd.read_csv(tmp_path / "out.csv").columns) == ["path", "label", "probability", "accepted", "error"]
    assert len(list(tmp_path.glob(".out*.jsonl"))) == 1  # that of the first


def test_a_name_with_a_nul_is_a_row_with_an_error(classifier, photos):
    table = classifier.predict(["nul\0.jpg", photos / "ant" / "0.png"])
    assert table["error"].tolist() == ["no such file: the name has a character that no name of a file can have", ""]


def test_a_path_given_twice_has_two_rows(classifier, photos, tmp_path):
    path = str(photos / "ant" / "0.png")
    assert predict_to(classifier, [path, path], tmp_path / "out.csv", 1, Console(True)).photos == 2


def test_progress_is_told_photo_by_photo_before_the_first_rows_are_written(classifier, photos, tmp_path):
    told = []

    class Watched(Console):
        @contextmanager
        def progress(self, label, total, unit="photos"):
            yield told.append

    def written(rows):
        assert told == [1] * 13

    predict_to(classifier, listed(photos), tmp_path / "out.csv", 1, Watched(True), afterwards=written)
    assert told == [1] * 13


# Sorted


def test_photos_are_moved_into_class_folders_and_put_back(classifier, photos, tmp_path):
    before = {path: Path(path).read_bytes() for path in listed(photos)}
    target = tmp_path / "sorted"
    (target / "ant").mkdir(parents=True)
    (target / "ant" / "0.png").write_text("in the way")
    filing = Filing(classifier.class_names, target, None, False)
    predict_to(classifier, listed(photos), tmp_path / "out.csv", 1, Console(True), afterwards=filing)
    assert listed(photos) == [str(photos / "broken.jpg")]  # what cannot be read stays
    table = pd.read_csv(tmp_path / "out.csv").dropna(subset="label")
    for row in table.to_dict("records"):
        folder = row["label"] if row["accepted"] else NOT_ACCEPTED
        places = [path for path in (target / folder).iterdir() if path.read_bytes() == before[row["path"]]]
        assert len(places) == 1
    assert (target / "ant" / "0.png").read_text() == "in the way"
    assert (target / "ant" / "0-2.png").exists()
    (photos / "bee" / "0.png").write_text("new")
    said = Said()
    assert undo(target, said) == 11
    assert len(said.warnings) == 1 and "there is another file at" in said.warnings[0]
    (photos / "bee" / "0.png").unlink()
    assert undo(target / LOG, said) == 1
    assert {path: Path(path).read_bytes() for path in listed(photos)} == before
    assert listed(target) == [str(target / "ant" / "0.png")]


def test_a_sidecar_goes_where_its_photo_goes(classifier, photos, tmp_path):
    foreign = sidecar_of(photos / "ant" / "1.png")
    foreign.write_text('<x:xmpmeta xmlns:x="adobe:ns:meta/"/>')
    names = [path for path in listed(photos) if not path.endswith(".xmp")]
    filing = Filing(classifier.class_names, tmp_path / "sorted", None, True)
    predict_to(classifier, names, tmp_path / "out.csv", 1, Console(True), afterwards=filing)
    (place,) = (line for line in read_log(tmp_path / "sorted" / LOG) if line.source.endswith("ant/1.png"))
    assert not foreign.exists()
    assert sidecar_of(Path(place.target)).read_text() == '<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    said = Said()
    filing.tell(said)
    assert said.warnings == [f"1 sidecar of other programs left alone: {sidecar_of(Path(place.target))}"]
    undo(tmp_path / "sorted", said)
    assert foreign.read_text() == '<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    assert [path for path in listed(photos) if path.endswith(".xmp")] == [str(foreign)]


class Said(Console):
    """A console that keeps warnings."""

    def __init__(self) -> None:
        super().__init__(True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_copies_are_removed_only_where_their_photo_is_there(classifier, photos, tmp_path):
    target = tmp_path / "sorted"
    filing = Filing(classifier.class_names, None, target, True)
    predict_to(classifier, listed(photos), None, 1, Console(True), afterwards=filing)
    assert len(listed(photos)) == 13
    copies = {line.source: Path(line.target) for line in read_log(target / LOG)}
    assert len(copies) == 12 and all(sidecar_of(copy).exists() for copy in copies.values())
    gone, changed = photos / "ant" / "1.png", photos / "ant" / "2.png"
    gone.unlink()
    copies[str(changed)].write_text("edited")
    said = Said()
    assert undo(target, said) == 10
    assert sorted(warning.split(": left where it is: ")[1][:9] for warning in said.warnings) == [
        "it is not",
        "the photo",
    ]
    left = {copies[str(gone)], copies[str(changed)]}
    assert set(map(Path, listed(target))) == {*left, *map(sidecar_of, left), target / LOG}


@pytest.mark.parametrize("option", ["--move-to", "--copy-to"])
def test_sorting_again_has_nothing_to_do_and_says_so(finished, photos, tmp_path, option):
    output, target = tmp_path / "out.csv", tmp_path / "sorted"

    def sorted_again(*names) -> str:
        arguments = command(finished[0], *(names or [photos]), "-o", output, option, target)
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, input="\n".join(before))
        assert done.returncode == 0, done.stderr
        return done.stderr

    before = listed(photos)
    verb = "moved" if option == "--move-to" else "copied"
    assert f"12 photos {verb} to {target}: " in sorted_again()
    written, placed = output.read_bytes(), listed(target)
    for names in ([photos], [f"{photos}/*/*.png"], ["-"], before):
        error = sorted_again(*names)
        assert f"0 photos {verb} to {target}, 12 there already\n" in error
        assert listed(target) == placed
        assert output.read_bytes() == written or option == "--copy-to"  # which classifies what it is given
        end = f"{output} stays as it was" if option == "--move-to" else "in the place of an earlier file"
        assert error.splitlines()[-1].endswith(end)
    make_photo(5000, 1).save(photos / "bee" / "new.png")
    assert f"1 photo {verb} to {target}, 12 there already: bee 1; undo with" in sorted_again()


def test_a_kill_between_log_and_move_is_mended(classifier, photos, tmp_path):
    """Every state that a kill can leave: logged and not moved, linked and not unlinked, moved."""
    target = tmp_path / "sorted"
    rows = classifier.predict(sorted(photos.glob("ant/*.png")))
    Sorter(target, "move", classifier.class_names)(rows)
    places = {line.source: Path(line.target) for line in read_log(target / LOG)}
    first, second, *_ = places
    shutil.move(places[first], first)
    os.link(places[second], second)
    with (target / LOG).open("a") as log:
        log.write('{"action": "move", "sou')
    sorter = Sorter(target, "move", classifier.class_names)
    sorter(rows)
    assert sorted(map(Path, sorter.sorted.values())) == sorted(places.values())
    assert list(photos.glob("ant/*.png")) == []
    assert sorted(path for path in listed(target) if LOG not in path) == sorted(map(str, places.values()))
    assert undo(target, Console(True)) == 4
    assert len(list(photos.glob("ant/*.png"))) == 4


def test_a_killed_move_of_many_photos_ends_as_a_whole_one(finished, tmp_path):
    photos = make_photos(tmp_path / "photos", ("ant", "bee"), 400)
    arguments = (finished[0], photos, "-o", tmp_path / "out.csv", "--move-to", tmp_path / "sorted", "-q")
    victim = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE)
    log = tmp_path / "sorted" / LOG
    until(lambda: log.exists() and log.stat().st_size > 0, victim)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert not (tmp_path / "out.csv").exists()
    again = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert listed(photos) == []
    assert len([path for path in listed(tmp_path / "sorted") if LOG not in path]) == 800
    table = pd.read_csv(tmp_path / "out.csv")
    assert len(table) == 800 and table["path"].is_unique
    undone = subprocess.run(
        [sys.executable, "-m", "headstart", "undo", str(tmp_path / "sorted")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert undone.stdout == "800 photos put back or removed\n"
    assert len(listed(photos)) == 800 and not (tmp_path / "sorted").exists()


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("cat", "cat"),
        ("a/b", "a_b"),
        ("..", "_"),
        ("", "_"),
        (".x", "_.x"),
        ("a:b?", "a_b_"),
        ("not accepted", "_not accepted"),
    ],
)
def test_folders_of_classes_can_be_held_by_every_system(label, folder):
    assert folder_name(label) == folder


def test_what_cannot_be_sorted_is_refused(tmp_path):
    with pytest.raises(HeadstartError, match="classes 'a/b' and 'A:B' would both go to the folder 'A_B'"):
        Sorter(tmp_path / "sorted", "move", ["a/b", "A:B"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HeadstartError, match="--copy-to .*file: is a file; expected a folder"):
        Sorter(tmp_path / "file", "copy", ["a"])
    with pytest.raises(HeadstartError, match="--move-to and --copy-to: expected one of them"):
        Filing(["a"], tmp_path / "a", tmp_path / "b", False)
    with pytest.raises(HeadstartError, match=f"expected the {LOG} of a sorted folder"):
        undo(tmp_path / "nowhere", Console(True))
    with pytest.raises(HeadstartError, match="file: is not a log of sorted photos"):
        (tmp_path / "file").write_text("mine\n")
        undo(tmp_path / "file", Console(True))
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


# Sidecars


def test_sidecars_hold_the_label_and_leave_others_alone(classifier, photos, tmp_path):
    foreign = sidecar_of(photos / "ant" / "0.png")
    foreign.write_text('<x:xmpmeta xmlns:x="adobe:ns:meta/"/>')
    filing = Filing(classifier.class_names, None, None, True)
    names = [path for path in listed(photos) if not path.endswith(".xmp")]
    for _ in range(2):  # ours are written again
        predict_to(classifier, names, tmp_path / "out.csv", 1, Console(True), afterwards=filing)
    assert foreign.read_text() == '<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    said = Said()
    filing.tell(said)
    assert said.warnings == [f"2 sidecars of other programs left alone: {foreign}, {foreign}"]
    table = pd.read_csv(tmp_path / "out.csv").set_index("path")
    path = photos / "bee" / "1.png"
    root = ElementTree.parse(sidecar_of(path)).getroot()
    texts = {
        element.tag.split("}")[1]: element.text for element in root.iter() if element.text and element.text.strip()
    }
    row = table.loc[str(path)]
    expected = {"label": row["label"], "probability": f"{row['probability']:.4f}", "accepted": str(row["accepted"])}
    assert texts == {**expected, **({"li": row["label"]} if row["accepted"] else {})}
    assert not sidecar_of(photos / "broken.jpg").exists()


def test_a_label_is_text_and_no_keyword_where_it_is_not_accepted(tmp_path):
    for label, accepted in (("<cat> & 'dog'", True), ("猫", None), ("a\x00b", True)):
        (tmp_path / "a.xmp").write_bytes(xmp(label, 0.5, accepted))
        root = ElementTree.parse(tmp_path / "a.xmp").getroot()
        assert [element.text for element in root.iter() if element.tag.endswith("}li")] == [label.replace("\x00", "")]
        assert is_ours(tmp_path / "a.xmp")
    (tmp_path / "a.xmp").write_bytes(xmp("cat", 0.5, False))
    assert b"subject" not in (tmp_path / "a.xmp").read_bytes() and is_ours(tmp_path / "a.xmp")


# Watched


def test_photos_are_classified_as_they_arrive(finished, tmp_path):
    folder, output = tmp_path / "camera", tmp_path / "rows.csv"
    folder.mkdir()
    make_photo(1, 0).save(folder / "first.png")
    arguments = command(finished[0], "--watch", folder, "-o", output, "--move-to", folder / "sorted")
    watcher = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rows() -> int:
        return len(output.read_text().splitlines()) - 1 if output.exists() else 0

    try:
        until(lambda: rows() == 1, watcher)
        # One that grows while it is looked at: half of it is not classified.
        whole = tmp_path / "whole.png"
        make_photo(2, 1, (400, 300)).save(whole)
        data = whole.read_bytes()
        with (folder / "second.png").open("wb") as file:
            for start in range(0, len(data), max(1, len(data) // 5)):
                file.write(data[start : start + max(1, len(data) // 5)])
                file.flush()
                time.sleep(0.3)
        until(lambda: rows() == 2, watcher)
    finally:
        watcher.send_signal(signal.SIGINT)
    out, error = watcher.communicate(timeout=DEADLINE)
    assert watcher.returncode == 0 and out == "", error
    table = pd.read_csv(output)
    assert [Path(path).name for path in table["path"]] == ["first.png", "second.png"]
    assert table["error"].isna().all()
    assert "2 photos classified" in error and "2 photos moved to" in error
    # Again: what has a row is not classified again, and what was sorted is not looked at.
    make_photo(3, 2).save(folder / "third.png")
    watcher = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: rows() == 3, watcher)
    finally:
        watcher.send_signal(signal.SIGTERM)
    assert "1 photo classified" in watcher.communicate(timeout=DEADLINE)[1] and watcher.returncode == 0


def test_a_torn_row_is_written_again(classifier, tmp_path):
    folder = make_photos(tmp_path / "photos", ("ant",), 3)
    output = tmp_path / "rows.jsonl"
    stop = Stop()

    def enough(rows):
        stop.wanted = len(output.read_text().splitlines()) >= 3

    watch(classifier, folder, output, 1, stop, Console(True), afterwards=enough)
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:2]) + lines[2][:20])
    stop.wanted = False
    watch(classifier, folder, output, 1, stop, Console(True), afterwards=enough)
    assert sorted(json.loads(line)["path"] for line in output.read_text().splitlines()) == listed(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--watch", "nowhere"], "--watch nowhere: no such folder"),
        (["--watch", ".", "-o", "x.parquet"], "unknown suffix; expected one of .csv, .jsonl"),
        (["--watch", ".", "photos"], "got photos and --watch; expected one of them"),
        ([], "expected photos, or --watch FOLDER"),
        (["photos", "--move-to", "a", "--copy-to", "b"], "--move-to and --copy-to: expected one of them"),
        (["--watch", ".", "-o", "thesis.csv"], "thesis.csv: is not a table of predictions"),
    ],
)
def test_what_does_not_go_together_is_refused(finished, tmp_path, arguments, message):
    (tmp_path / "thesis.csv").write_text("year,title\n2026,mine")
    (tmp_path / "photos").mkdir()
    result = subprocess.run(command(finished[0], *arguments), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert (tmp_path / "thesis.csv").read_text() == "year,title\n2026,mine"

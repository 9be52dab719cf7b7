"""`headstart check` as a user meets it."""

import json
import shutil
import sys

import pandas as pd
import pytest

import headstart
from headstart.cli import main
from headstart.errors import HeadstartError
from making import make_scenes


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run the command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["headstart", "check", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def good(tmp_path):
    return make_scenes(tmp_path / "photos")


@pytest.fixture
def bad(good):
    shutil.copy(good / "ant" / "0.jpg", good / "bee" / "ant.jpg")
    (good / "cat" / "broken.jpg").write_bytes(b"nothing")
    return good


def test_good_photos_are_told_so(command, good, tmp_path):
    code, output, errors = command("photos", "--strict")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "Photos      36 photos in 3 classes, 12 a class (photos)"
    assert lines[1].startswith("Checked     36 photos in ")
    assert lines[2:] == ["", "Problems    none found", "Table       headstart-check/problems.csv"]
    assert (tmp_path / "headstart-check" / "problems.csv").read_text() == "path,problem,severity,detail,suggestion\n"


def test_bad_photos_are_named_counted_and_written(command, bad, tmp_path):
    code, output, errors = command("photos", "-o", "found")
    assert (code, errors) == (0, "")
    assert output.splitlines()[2:] == [
        "",
        "Severe",
        "  label conflict (2)",
        "    ant/0.jpg: the same bytes as bee/ant.jpg (bee)",
        "    bee/ant.jpg: the same bytes as ant/0.jpg (ant)",
        "    -> Decide which class is right, and delete the other copies.",
        "  not an image (1)",
        "    cat/broken.jpg: not an image that can be read (starts with b'nothing')",
        "    -> Get the photo again from where it came, or delete it; training leaves it out.",
        "",
        "Problems    3 severe, 0 warnings, 0 notes",
        "Table       found/problems.csv",
    ]
    table = pd.read_csv(tmp_path / "found" / "problems.csv")
    assert table["path"].tolist() == ["ant/0.jpg", "bee/ant.jpg", "cat/broken.jpg"]


def test_strict_exits_with_1_when_something_severe_is_found(command, bad):
    assert command("photos", "--strict", "--quiet")[:2] == (1, "")


def test_json_is_alone_on_standard_output(command, bad):
    code, output, _ = command("photos", "--json")
    told = json.loads(output)
    assert code == 0 and told["counts"] == {"severe": 3, "warning": 0, "note": 0}
    assert (told["photos"], told["classes"], told["clean"]) == (38, 3, None)
    assert told["problems"][0] == {
        "path": "ant/0.jpg",
        "problem": "label conflict",
        "severity": "severe",
        "detail": "the same bytes as bee/ant.jpg (bee)",
        "suggestion": "Decide which class is right, and delete the other copies.",
    }


def test_a_class_that_a_clean_copy_loses_is_named(command, good):
    shutil.copytree(good / "ant", good / "emmet")
    code, output, errors = command("photos", "--fix", "clean")
    assert code == 0 and "Clean copy  clean: 24 photos, without 24 label conflict" in output
    assert "the clean copy has no photo of ant, emmet: all of their photos are left out" in errors


def test_a_clean_copy_of_good_photos_is_all_of_them(command, good):
    assert (
        command("photos", "--fix", "clean")[1].splitlines()[-1] == "Clean copy  clean: 36 photos, nothing is left out"
    )


def test_a_clean_copy_checks_well(command, bad, tmp_path):
    code, output, _ = command("photos", "--fix", "clean")
    assert code == 0
    assert output.splitlines()[-1] == "Clean copy  clean: 35 photos, without 2 label conflict, 1 not an image"
    report = headstart.check(tmp_path / "clean", tmp_path / "again", quiet=True)
    assert (report.photos, len(report.problems), report.severe) == (35, 0, False)
    assert len(list(bad.rglob("*.jpg"))) == 38


def test_checks_again_over_its_own_table_and_never_over_another(command, good, tmp_path):
    assert command("photos")[0] == command("photos")[0] == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "problems.csv").write_text("path,problem,detail\n")
    code, output, errors = command("photos", "-o", "run")
    assert code == 2 and output == "" and "run: holds a problems.csv of something else" in errors


@pytest.mark.parametrize("target", ["full", "full.csv", "photos/clean", "photos"])
def test_a_target_that_holds_something_is_refused_before_the_work(command, good, tmp_path, target):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "full.csv").touch()
    code, output, errors = command("photos", "--fix", target)
    assert code == 2 and output == "" and errors.startswith(f"headstart: --fix {target}: ")
    assert not (tmp_path / "headstart-check").exists()


def test_tables_are_checked_too(good, tmp_path):
    rows = "".join(f"photos/{label}/{n}.jpg,{label}\n" for label in ("ant", "bee") for n in range(12))
    (tmp_path / "t.csv").write_text("path,label\n" + rows)
    report = headstart.check(tmp_path / "t.csv", tmp_path / "out", quiet=True)
    assert (report.photos, report.classes, len(report.problems)) == (24, 2, 0)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(HeadstartError, match="no such folder or file"):
        headstart.check(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()

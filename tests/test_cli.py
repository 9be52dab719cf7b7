"""The command line as a user meets it: real processes, real files."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import pytest
from PIL import Image

from headstart.choices import Augmentation
from headstart.cli import main
from headstart.recipe import Recipe
from making import make_photos

SMALL = ["--image-size", "64", "--epochs", "2", "--num-views", "2"]


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


def process(*arguments, **options) -> subprocess.CompletedProcess:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "headstart", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)


@pytest.fixture
def headstart(capsys, monkeypatch):
    """Run the command line in this process, which saves the seconds that PyTorch takes to import."""

    def run(*arguments, input="") -> Result:
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(input)), "utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(ended.value.code or 0, *capsys.readouterr())

    return run


def refused(result: Result) -> str:
    """A user's mistake: exit code 2, one or two lines, no traceback, nothing on standard output."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2 and lines[0].startswith("headstart: "), result.stderr
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["demo"],
        ["check"],
        ["compare"],
        ["predict"],
        ["evaluate"],
        ["show"],
        ["serve"],
        ["export"],
        ["report"],
        ["cache"],
    ],
)
def test_help_tells_what_a_command_does_without_heavy_imports(command):
    program = (
        "import sys; from headstart.cli import main\n"
        f"sys.argv = ['headstart', *{command!r}, '--help']\n"
        "heavy = {'torch', 'timm', 'openvino', 'pandas', 'matplotlib', 'keras', 'fastapi', 'uvicorn'}\n"
        "try: main()\n"
        "finally: print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "Usage: headstart" in result.stdout
    assert "HEAVY []" in result.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_help_of_train_is_short_and_names_every_choice_whole(headstart, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = headstart("train", "--help").stdout.splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= columns
    headings = [line.rstrip(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Arguments",
        "Options",
        "Photos and splits",
        "Time and depth",
        "The network",
        "Fine-tuning in detail",
        "Output",
    ]
    start = lines.index("Options:") + 1
    first = [line.split()[0] for line in lines[start : lines.index("Photos and splits:") - 1]]
    assert first == ["-o,", "--budget", "--backbone", "--min-accuracy", "--labels", "--recipe", "-h,"]
    named = {word for line in lines for word in line.split() if word.startswith("--")}
    internal = {"photos", "plan", "example_epochs", "example_batch_size", "example_learning_rate"}
    assert named >= {f"--{name.replace('_', '-')}" for name in set(Recipe.model_fields) - internal}


def test_help_names_every_command_with_a_whole_sentence(headstart):
    text = headstart("--help").stdout
    assert "..." not in text.partition("Commands:")[2]
    assert headstart().stdout == text


def test_version(headstart):
    assert headstart("--version").stdout == "headstart 0.1.0\n"


def test_train_prints_its_story_and_json_is_alone_on_standard_output(photos, tmp_path):
    result = process("train", photos, "-o", tmp_path / "run", *SMALL)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    starts = ["Photos", "Network", "Engine", "Embedding", "Split", "Probe", "Fine-tuning", "Kept", "Validation", "Test"]
    positions = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in starts]
    assert positions == sorted(positions)
    assert "30 photos in 3 classes, 10 a class (" in result.stdout
    assert lines[-1] == f"Classifier  {tmp_path / 'run' / 'classifier'}"
    assert result.stderr == ""
    quiet = process("train", photos, "-o", tmp_path / "run", *SMALL, "--quiet", "--json")
    assert json.loads(quiet.stdout)["test"]["photos"] == 6
    assert quiet.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "nowhere: no such folder or file"),
        (["train"], "no photos given"),
        (["train", "PHOTOS", "--backbone", "b9"], "--backbone b9: unknown; expected one of lite0, lite1, lite2"),
        (["train", "PHOTOS", "--epochs", "0"], "--epochs 0: expected greater than or equal to 1"),
        (["train", "PHOTOS", "--recipe", "gone.toml"], "--recipe gone.toml: cannot be read"),
        (["train", "PHOTOS", "--validation-fraction", "0.6", "--test-fraction", "0.5"], "expected a sum below 1"),
        (["train", "PHOTOS", "--seed", "-1"], "--seed -1: expected greater than or equal to 0"),
        # Before photos are read: that there are none does not matter.
        (
            ["train", "nowhere", "--unfreeze", "stage99"],
            "--unfreeze stage99: expected a number of blocks, or one",
        ),
        (["train", "nowhere", "--unfreeze", "-3"], "--unfreeze -3: expected a number of blocks from 0 to 128"),
        (["train", "nowhere", "--unfreeze", "500"], "--unfreeze 500: expected a number of blocks from 0 to 128"),
        (["train", "nowhere", "--weights", "gone.safetensors"], "--weights gone.safetensors: no such file"),
        (["train", "nowhere", "--weights", "TABLE"], "catalog.csv: unknown kind of file; expected one of .safetensors"),
        (["train", "nowhere", "--weights", "WEIGHTS", "--backbone", "b0"], "safetensors: does not fit the network: no"),
        (["train", "nowhere", "--labels", "gone.csv"], "--labels gone.csv: no such file"),
        (["train", "nowhere", "--outsiders", "gone"], "--outsiders gone: no such folder"),
        (["train", "PHOTOS", "--log", "paper"], "--log paper: no such log; expected tensorboard or mlflow"),
        (["train", "nowhere", "-o", "new/deeper/run"], "nowhere: no such folder or file"),
        (["compare", "nowhere"], "nowhere: no such folder or file"),
        (["compare", "PHOTOS", "--headstart", "unfreeze=stage99"], "--unfreeze stage99: expected a number of blocks"),
        (["compare", "nowhere", "--scratch", "test_fraction=0.9"], "expected a sum below 1"),
        (["predict", "nowhere", "PHOTOS"], "nowhere: no such folder; expected a classifier"),
        (["predict", "RUN", "gone.jpg"], "gone.jpg: no such file or folder, and nothing matches it"),
        (["predict", "RUN", "PHOTOS", "-o", "out.txt"], "-o out.txt: unknown suffix; expected one of .csv, .jsonl"),
        (["evaluate", "RUN", "nowhere"], "nowhere: no such folder or file"),
        (["show", "nowhere"], "nowhere: no such folder or file"),
        (["show", "PHOTOS", "-o", "out.jpg"], "-o out.jpg: unknown suffix; expected .png"),
        (["show", "PHOTOS", "-o", "/dev/null/out.png"], "-o /dev/null/out.png: cannot be written"),
        (["compare", "PHOTOS", "--scratch", "epochs"], "--scratch epochs: expected NAME=VALUE"),
        (["show", "PHOTOS", "--augmentation", "none", "--image-size", "64"], "--augmentation, --image-size: for the"),
        (["show", "PHOTOS", "--augmented", "--photo", "gone.jpg"], "gone.jpg: no such file"),
        (["export", "nowhere", "--format", "keras"], "nowhere: no such folder; expected a classifier"),
        (["export", "RUN", "--format", "keras", "-o", "PHOTOS"], "photos: holds ant, bee, cat; expected a new folder"),
        (["report", "nowhere"], "nowhere: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_two_lines(headstart, arguments, message, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, folder = finished
    places = {"PHOTOS": folder, "RUN": run, "TABLE": run / "catalog.csv"}
    places["WEIGHTS"] = run / "classifier" / "weights.safetensors"
    result = headstart(*[places.get(argument, argument) for argument in arguments])
    assert message in refused(result)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_paths_are_told_as_they_were_given(headstart, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mended.csv").write_text("path,label\nant/0.png,ant\n")
    make_photos(tmp_path / "others", ("dog",), 3)
    files = ["--labels", "mended.csv", "--outsiders", "others"]
    result = headstart("train", "photos", "-o", "run", *SMALL, "--unfreeze", "0", *files)
    assert result.returncode == 0, result.stderr
    assert "30 photos in 3 classes, 10 a class (photos)" in result.stdout
    assert "0 labels corrected by mended.csv" in result.stdout
    assert result.stdout.endswith("Report      run/report.html\nClassifier  run/classifier\n")
    assert str(tmp_path) not in result.stdout + result.stderr
    recipe = Recipe.read("run/recipe.toml")
    assert recipe.photos == str(photos) and recipe.outsiders == str(tmp_path / "others")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such-option"], "No such option: --no-such-option"),
        (["--engine", "tpu"], "Invalid value for '--engine': 'tpu' is not one of 'auto', 'openvino', 'torch'."),
        (["--epochs", "few"], "Invalid value for '--epochs': "),
    ],
)
def test_mistakes_in_a_command_are_told_like_all_others(headstart, arguments, message):
    told = refused(headstart("train", *arguments)).splitlines()
    assert told[0].startswith(f"headstart: {message}") and "Value error" not in told[0]
    assert told[1].endswith(" train --help`.")


def test_predict_writes_every_format_alike(headstart, finished, tmp_path):
    run, photos = finished
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    arguments = [photos / "ant", tmp_path / "broken.jpg", f"{photos}/bee/[0-2].png", "-"]
    listed = f"{photos / 'cat' / '0.png'}\n{tmp_path / 'gone.png'}\n"
    tables = {}
    for suffix in ("csv", "jsonl", "parquet"):
        result = headstart("predict", run, *arguments, "-o", tmp_path / f"out.{suffix}", input=listed)
        assert result.returncode == 0 and result.stdout == ""
        assert "2 photos of 16 could not be read" in result.stderr
    tables["csv"] = pd.read_csv(tmp_path / "out.csv")
    tables["jsonl"] = pd.read_json(tmp_path / "out.jsonl", lines=True)
    tables["parquet"] = pd.read_parquet(tmp_path / "out.parquet")
    names = [str(photos / "ant" / f"{n}.png") for n in range(10)] + [str(tmp_path / "broken.jpg")]
    names += [str(photos / "bee" / f"{n}.png") for n in range(3)] + listed.split()
    for table in tables.values():
        assert table["path"].tolist() == names
        assert table["label"].fillna("").tolist() == ["ant"] * 10 + [""] + ["bee"] * 3 + ["cat", ""]
        assert table["error"].fillna("")[15] == "no such file"
        assert table["probability"].round(4).equals(tables["parquet"]["probability"].round(4))
        assert table.columns.tolist()[:5] == ["path", "label", "probability", "accepted", "error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg", "out.csv", "out.jsonl", "out.parquet"]


def test_predict_prints_csv_or_json_lines(headstart, finished):
    run, photos = finished
    result = headstart("predict", run, photos / "cat" / "1.png", "--top-k", "2")
    header, row = result.stdout.splitlines()
    assert header == "path,label,probability,accepted,error,label_2,probability_2"
    path, label, probability, *_ = row.split(",")
    assert (path, label) == (str(photos / "cat" / "1.png"), "cat") and 0.5 < float(probability) <= 1
    lines = headstart("predict", run, photos / "cat", "--json").stdout.splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["cat"] * 10


def test_predict_reads_names_that_end_in_nuls(headstart, finished, tmp_path):
    odd = tmp_path / "one\nname\r"
    odd.write_bytes((finished[1] / "bee" / "0.png").read_bytes())
    result = headstart("predict", finished[0], "-", "--json", input=f"{odd}\0{finished[1] / 'cat' / '0.png'}\0")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["path"], row["label"]) for row in rows] == [
        (str(odd), "bee"),
        (str(finished[1] / "cat" / "0.png"), "cat"),
    ]
    assert result.stderr.splitlines()[-1].startswith("2 photos: 2 accepted, 0 could not be read")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_names_that_no_file_can_have_are_rows_with_an_error(headstart, finished, tmp_path, suffix):
    names = ["a" * 5000, "caf\udce9.jpg", str(finished[1] / "cat" / "0.png")]
    output = tmp_path / f"out.{suffix}"
    result = headstart("predict", finished[0], "-", "-o", output, input="\n".join(names))
    assert result.returncode == 0
    last = f"3 photos: 1 accepted, 2 could not be read; rows in {output}"
    assert result.stderr.splitlines()[-1] == last
    if suffix == "parquet":
        table = pd.read_parquet(output)
        assert table["path"].tolist() == [names[0], "caf\\udce9.jpg", names[2]]
        assert table["error"].tolist() == ["cannot be read: File name too long", "no such file", ""]


def test_predict_prints_names_that_are_no_text_as_they_are(finished, tmp_path):
    command = [sys.executable, "-m", "headstart", "predict", str(finished[0]), "-"]
    result = subprocess.run(command, input=b"caf\xe9.jpg\n", capture_output=True, check=False)
    assert result.returncode == 2 and result.stdout.splitlines()[1].startswith(b"caf\xe9.jpg,"), result.stderr


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_predict_of_no_names_writes_a_table_without_rows(headstart, finished, tmp_path, suffix):
    output = tmp_path / f"out.{suffix}"
    result = headstart("predict", finished[0], "-", "-o", output)
    assert (result.returncode, result.stderr) == (0, f"No photos to classify; rows in {output}\n")
    if suffix == "parquet":
        assert pd.read_parquet(output).columns.tolist()[:3] == ["path", "label", "probability"]
    else:
        assert output.read_text().startswith("path,label,probability" if suffix == "csv" else "")


def test_predict_ends_with_what_it_did_and_says_what_it_replaced(headstart, finished, tmp_path):
    arguments = ["predict", finished[0], finished[1] / "cat", "-o", tmp_path / "out.csv"]
    assert headstart(*arguments).stderr == f"10 photos: 10 accepted, 0 could not be read; rows in {tmp_path}/out.csv\n"
    again = headstart(*arguments).stderr
    assert again.endswith(f"rows in {tmp_path}/out.csv, in the place of an earlier file\n")
    assert headstart(*arguments, "--quiet").stderr == ""


def test_predict_of_nothing_readable_exits_with_2(headstart, finished, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    result = headstart("predict", finished[0], tmp_path / "broken.jpg")
    assert result.returncode == 2 and "none of the photos could be read" in result.stderr
    assert len(result.stdout.splitlines()) == 2  # the row with its error is there all the same


def test_evaluate_measures_and_refuses_unknown_classes(headstart, finished, tmp_path):
    run, photos = finished
    result = headstart("evaluate", run, photos, "--json", "-o", tmp_path / "measured")
    metrics = json.loads(result.stdout)
    assert metrics["photos"] == 30 and metrics["accuracy"] == 1.0 and metrics["unreadable"] == 0
    assert metrics["calibration"]["ece"] >= 0 and metrics["accepted"]["photos"] == 30
    assert "Accepted " in result.stderr and "ECE" in result.stderr
    table = pd.read_csv(tmp_path / "measured" / "predictions.csv")
    assert table["accepted"].sum() == metrics["accepted"]["accepted"]
    written = {path.name for path in (tmp_path / "measured").iterdir()}
    assert written == {"metrics.json", "predictions.csv", "problems.csv", "confusion.png"}
    # 24 of the 30 taught the run or were chosen by, and the other 6 were its test photos.
    assert metrics["learnt_from"] == 24
    assert result.stderr.splitlines()[-1].startswith(
        "warning: 24 of these 30 photos were training or validation photos"
    )
    other = make_photos(tmp_path / "other", ("ant", "Bee"), 2)
    message = refused(headstart("evaluate", run, other))
    assert "has classes that the classifier does not know: 'Bee'; expected only 'ant', 'bee', 'cat'" in message


def test_evaluate_on_photos_that_a_run_has_not_learnt_from_warns_of_nothing(headstart, finished, tmp_path):
    run, photos = finished
    catalog = pd.read_csv(run / "catalog.csv", dtype=str)
    for path in catalog[catalog["split"] == "test"]["path"]:
        (tmp_path / "test" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / path, tmp_path / "test" / path)
    result = headstart("evaluate", run / "classifier", tmp_path / "test", "--json")
    assert json.loads(result.stdout)["learnt_from"] == 0 and "warning" not in result.stderr
    alone = shutil.copytree(run / "classifier", tmp_path / "alone" / "classifier")
    result = headstart("evaluate", alone, photos, "--json")
    assert json.loads(result.stdout)["learnt_from"] is None and "warning" not in result.stderr


def test_show_draws_samples_and_views(headstart, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert headstart("show", photos).stdout == "samples.png\n"
    views = ["--augmented", "--image-size", "32", "--resize-policy", "squash", "--seed", "2", "-o", "views.png"]
    for policy in get_args(Augmentation):
        assert headstart("show", photos, *views, "--augmentation", policy).stdout == "views.png\n"
    assert headstart("show", photos / "ant" / "0.png", *views).returncode == 0
    assert headstart("show", photos, *views, "--photo", "ant/0.png").returncode == 0
    for name in ("samples.png", "views.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG" and min(image.size) > 600


def test_report_is_made_again_from_the_files_alone(headstart, finished):
    run, _ = finished
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert headstart("report", run).stdout == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text() == before


def test_cache_shows_its_size_and_clears(headstart, photos, tmp_path):
    cache = tmp_path / "cache"
    arguments = [photos, *SMALL, "--unfreeze", "0", "--cache", cache]
    assert headstart("train", *arguments, "-o", tmp_path / "run").returncode == 0
    (cache / "mine.txt").write_text("not headstart's")
    sizes = json.loads(headstart("cache", "--cache", cache, "--json").stdout)
    assert sizes["folder"] == str(cache) and sizes["bytes"]["activations"] > 30 * 1280 * 2
    shown = headstart("cache", "--clear", "--cache", cache).stdout.splitlines()
    assert shown == [str(cache), "  total        0.0 MB"]
    assert [path.name for path in cache.iterdir()] == ["mine.txt"]


@pytest.fixture
def interruptible():
    """Let processes hear Ctrl-C, which they do not where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("arguments", "imported", "goes_on"),
    [
        (["train", "PHOTOS", "-o", "out"], "typer", True),
        (["train", "PHOTOS", "-o", "out"], "torch.nn", True),
        (["add", "RUN", "PHOTOS", "-o", "out"], "pandas", True),
        (["predict", "RUN", "-", "-o", "out.csv"], "headstart.prediction", True),
        (["predict", "RUN", "-"], "numpy", False),
        (["evaluate", "RUN", "PHOTOS"], "torch", False),
    ],
)
def test_ctrl_c_says_one_line_and_leaves_nothing_from_the_imports_on(arguments, imported, goes_on, finished, tmp_path):
    """Python tells of each import as it is done, which is when the signal comes."""
    places = {"PHOTOS": str(finished[1]), "RUN": str(finished[0])}
    command = [sys.executable, "-X", "importtime", "-m", "headstart"]
    command += [places.get(argument, argument) for argument in arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == imported:
                break
        process.send_signal(signal.SIGINT)
        told = [line for line in process.stderr if not line.startswith("import time:")]
        assert process.stdout.read() == ""
    after = "; the same command goes on where it stopped" if goes_on else ""
    assert told == [f"headstart: interrupted{after}.\n"]
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("interruptible")
def test_a_run_that_ctrl_c_interrupts_goes_on_by_the_same_command(photos, tmp_path):
    command = [sys.executable, "-m", "headstart", "train", str(photos), "-o", str(tmp_path / "run"), *SMALL]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        for line in process.stdout:
            if line.startswith("Probe"):
                break
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert (process.returncode, told) == (130, "headstart: interrupted; the same command goes on where it stopped.\n")
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "0 photos, 30 were in the store or are copies" in resumed.stdout


@pytest.mark.parametrize("moment", ["embedding", "fine-tuning"])
def test_a_killed_run_resumes_to_the_same_numbers(photos, tmp_path, moment):
    """SIGKILL in the middle, then the same command: what was done is kept, and the end is the same."""
    arguments = ["train", str(photos), "--image-size", "64", "--epochs", "6", "--num-views", "3", "--patience", "6"]
    whole = process(*arguments, "-o", tmp_path / "whole", "--cache", tmp_path / "cache whole", "--json")
    cache, run = tmp_path / "cache", tmp_path / "run"
    command = [sys.executable, "-m", "headstart", *arguments, "-o", str(run), "--cache", str(cache)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while victim.poll() is None and time.monotonic() < deadline:
        embedded = any(file.stat().st_size > 1000 for file in cache.glob("activations/*/*.rows.open"))
        tuned = any(run.glob("checkpoints/*.safetensors"))
        if (embedded and moment == "embedding") or (tuned and moment == "fine-tuning"):
            break
        time.sleep(0.001)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (run / "metrics.json").exists()
    resumed = process(*arguments, "-o", run, "--cache", cache, "--json")
    assert resumed.returncode == 0, resumed.stderr
    if moment == "fine-tuning":
        assert "Embedding   0 photos, 30 were in the store or are copies" in resumed.stderr
    first, second = json.loads(whole.stdout), json.loads(resumed.stdout)
    for part in ("validation", "test", "kept"):
        assert first[part] == second[part]
    histories = [pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (tmp_path / "whole", run)]
    assert histories[0].equals(histories[1])


def test_two_processes_share_a_cache_and_not_a_run(photos, tmp_path):
    command = [sys.executable, "-m", "headstart", "train", str(photos), *SMALL, "--cache", str(tmp_path / "cache")]
    outputs = [tmp_path / "a", tmp_path / "b", tmp_path / "a"]
    processes = []
    for output in outputs:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen([*command, "-o", str(output), "--json"], **options))
    results = [process.communicate(timeout=240) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes[1] == 0
    assert sorted([codes[0], codes[2]]) in ([0, 0], [0, 2])  # the second on one run waits for no one, or came late
    loser = next((error for (_, error), code in zip(results, codes, strict=True) if code == 2), "")
    assert not loser or "another process is working on this run" in loser
    numbers = [json.loads(output)["test"] for (output, _), code in zip(results, codes, strict=True) if code == 0]
    assert all(number == numbers[0] for number in numbers)


@pytest.mark.parametrize("name", ["spa ce ünï", "$dollar$ & <b>", "-dash"])
def test_odd_class_and_file_names_survive(headstart, tmp_path, name):
    root = make_photos(tmp_path / "photos", (name, "plain"), 8)
    Image.new("RGB", (30, 30), "red").save(root / name / 'it\'s, "quoted".png')
    result = headstart("train", root, "-o", tmp_path / "run", *SMALL, "--unfreeze", "0", "--json")
    assert result.returncode == 0, result.stderr
    assert {row["class"] for row in json.loads(result.stdout)["test"]["per_class"]} == {name, "plain"}
    catalog = pd.read_csv(tmp_path / "run" / "catalog.csv")
    assert f'{name}/it\'s, "quoted".png' in set(catalog["path"])
    assert "<b>" not in (tmp_path / "run" / "report.html").read_text()

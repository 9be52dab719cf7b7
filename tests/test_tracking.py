"""What is logged, read back by the tools that it is for, is what `history.csv` and `metrics.json` hold."""

import math
import shutil
import sys
from pathlib import Path

import pytest

import headstart
from headstart import HeadstartError
from headstart.cli import main
from headstart.console import Console
from headstart.recipe import Recipe
from headstart.run import Run
from headstart.run_folder import RunFolder
from headstart.tracking import LOGS, History
from headstart.training.progress import Epoch

SMALL = {"image_size": 64, "epochs": 2, "num_views": 2, "unfreeze": "stage6", "quiet": True}
# MLflow's own call, of SQLAlchemy 2.1; where Headstart opens a database it is kept quiet.
OPENING = "ignore:The ``noload`` loader strategy:DeprecationWarning"

Points = dict[tuple[str, int], float]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def written(run: Run) -> Points:
    """Every value of the run's own files, by its name and step in a log."""
    values = {
        (f"{row['stage']}/{name}", row["epoch"]): row[name]
        for row in run.history.to_dict("records")
        for name in run.history.columns[2:]
        if not math.isnan(row[name])
    }
    for split in ("validation", "test"):
        for name in ("photos", "accuracy", "macro_f1", "log_loss"):
            values[f"{split}/{name}", 0] = run.metrics[split][name]
    return values


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def tensorboard_points(folder: Path) -> Points:
    read = events(folder)
    points = [(name, point) for name in read.Tags()["scalars"] for point in read.Scalars(name)]
    assert len(points) == len({(name, point.step) for name, point in points})
    return {(name, point.step): point.value for name, point in points}


def mlflow_runs(address: str):
    from mlflow import MlflowClient

    client = MlflowClient(address)
    return client, client.search_runs([client.get_experiment_by_name("headstart").experiment_id])


def mlflow_points(client, run) -> Points:
    points = [point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)]
    assert len(points) == len({(point.key, point.step) for point in points})
    return {(point.key, point.step): point.value for point in points}


@pytest.mark.filterwarnings(OPENING)
def test_the_logs_hold_what_the_files_hold_also_of_a_run_that_was_interrupted(photos, tmp_path, monkeypatch, capsys):
    from headstart.training import progress

    add = progress.Progress.add

    def interrupted(progress, epoch, position):
        add(progress, epoch, position)
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    folder, logs = tmp_path / "run", ("tensorboard", "mlflow")
    with monkeypatch.context() as patched:
        patched.setattr(progress.Progress, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            headstart.train(photos, folder, log=logs, **SMALL)
    # What was known by then has been logged.
    early = tensorboard_points(folder)
    assert early["fine-tuning stage6/train_loss", 1] > 0 and early["probe/regularisation", 1] > 1
    assert ("fine-tuning stage6/train_loss", 2) not in early and ("test/accuracy", 0) not in early
    client, runs = mlflow_runs(f"sqlite:///{folder}/mlflow/mlflow.db")
    assert [run.info.status for run in runs] == ["KILLED"]
    assert mlflow_points(client, runs[0]) == pytest.approx(early)

    run = headstart.train(photos, folder, log=logs, **SMALL)
    expected = written(run)
    assert tensorboard_points(folder) == pytest.approx(expected, rel=1e-5)
    text = events(folder).Tensors("recipe/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text == f"```toml\n{(folder / 'recipe.toml').read_text()}```"

    client, runs = mlflow_runs(f"sqlite:///{folder}/mlflow/mlflow.db")
    assert [(found.info.run_name, found.info.status) for found in runs] == [("run", "FINISHED")]
    points = mlflow_points(client, runs[0])
    # The probe was fitted anew, to the same numbers in another time; what was logged first stays.
    again = {name for name in expected if name[0] == "probe/seconds"}
    assert {name: points[name] for name in expected if name not in again} == pytest.approx(
        {name: value for name, value in expected.items() if name not in again}, rel=1e-5
    )
    assert set(points) == set(expected)
    params = runs[0].data.params
    assert (params["photos"], params["epochs"], params["plan.probe_views"]) == (str(photos), "2", "3")
    assert {file.path for file in client.list_artifacts(runs[0].info.run_id)} == {"recipe.toml", "report.html"}
    # Nothing was told of it, nothing lies elsewhere, and nothing was sent.
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "run"}
    from mlflow.telemetry import get_telemetry_client

    assert get_telemetry_client() is None


@pytest.mark.filterwarnings(OPENING)
def test_a_run_goes_to_the_users_server(photos, tmp_path, monkeypatch):
    server = f"sqlite:///{tmp_path}/server.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.chdir(tmp_path)
    choices = ["--image-size", "64", "--unfreeze", "0", "--probe-views", "1", "--no-refit", "--quiet"]
    monkeypatch.setattr(sys, "argv", ["headstart", "train", str(photos), "-o", "run", "--log", "mlflow", *choices])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    client, (run,) = mlflow_runs(server)
    assert run.info.status == "FINISHED" and run.data.params["refit"] == "False"
    history = Run(tmp_path / "run", {}).history
    losses = [point.value for point in client.get_metric_history(run.info.run_id, "probe/validation_loss")]
    assert losses == pytest.approx(history["validation_loss"].tolist(), rel=1e-5)
    assert [path.name for path in (tmp_path / "run" / "mlflow").iterdir()] == ["run_id"]


@pytest.mark.filterwarnings(OPENING)
def test_a_run_folder_that_was_deleted_is_not_taken_for_the_new_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder, recipe = RunFolder(tmp_path / "run"), Recipe.make(photos="photos")
    for loss in (1.0, 2.0):
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.path.mkdir()
        folder.recipe.write_text(recipe.to_toml())
        with History("mlflow", Console()) as history:
            history.begin(folder, recipe)
            history.add("probe", Epoch(1, loss, 0.5, 1.0, 0.5, 1e-3, 2.0))
    assert capsys.readouterr() == ("", "")
    client, (run,) = mlflow_runs(f"sqlite:///{folder.path}/mlflow/mlflow.db?timeout=5")
    assert run.data.metrics["probe/train_loss"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_server_that_does_not_answer_is_told_before_any_work(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(HeadstartError, match=r"--log mlflow: \$MLFLOW_TRACKING_URI is http://127.0.0.1:9: .*\nSet it"):
        headstart.train(photos, tmp_path / "run", log="mlflow")
    assert not (tmp_path / "run").exists()


def test_an_unknown_log_is_told_before_any_work(photos, tmp_path, monkeypatch, capsys):
    with pytest.raises(HeadstartError, match="--log wandb: no such log; expected tensorboard or mlflow") as error:
        headstart.train(photos, tmp_path / "run", log=("tensorboard", "wandb"))
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "argv", ["headstart", "train", str(photos), "--log", "wandb"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err == f"headstart: {error.value}\n"


@pytest.mark.parametrize("name", LOGS)
def test_a_missing_package_is_told_before_any_work(name, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(HeadstartError, match=rf"--log {name}: needs the package {name}.*") as error:
        headstart.train(photos, tmp_path / "run", log=(name,))
    assert error.value.fix == f"Install it with: pip install 'headstart[{name}]'."
    assert not (tmp_path / "run").exists()
    # Of several processes, only the first one logs, and needs it.
    monkeypatch.setenv("RANK", "1")
    with History((name,), Console()) as history:
        history.begin(None, None)
        history.add("probe", Epoch(1, 1.0, 0.5, 1.0, 0.5, 1e-3, 2.0))
    assert history.table()["epoch"].tolist() == [1]


def test_a_log_that_fails_is_given_up_and_the_others_go_on(monkeypatch, capsys):
    said = []

    class Good:
        def begin(self, folder, recipe):
            said.append("begin")

        def add(self, values, step):
            said.append((values, step))

        def finish(self, folder):
            said.append("finish")

        def close(self, status):
            said.append(status)

    class Full(Good):
        def add(self, values, step):
            raise OSError("no space left on device")

    monkeypatch.setattr("headstart.tracking.LOGS", {"full": Full, "good": Good})
    with pytest.raises(ZeroDivisionError), History(("full", "good"), Console()) as history:
        history.begin(None, None)
        history.add("probe", Epoch(1, 1.0, 0.5, math.nan, 0.5, 1e-3, 2.0))
        history.add("probe", Epoch(2, 0.5, 0.5, math.nan, 0.5, 1e-3, 2.0))
        raise ZeroDivisionError
    shared = {"probe/train_accuracy": 0.5, "probe/validation_accuracy": 0.5, "probe/learning_rate": 1e-3}
    first, second = ({**shared, "probe/train_loss": loss, "probe/seconds": 2.0} for loss in (1.0, 0.5))
    assert said == ["begin", "begin", (first, 1), (second, 2), "FAILED"]
    assert capsys.readouterr().err == "warning: --log full: given up, and the run goes on: no space left on device\n"

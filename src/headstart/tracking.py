"""What a run measures, as it comes: the table `history.csv`, and the logs that other tools read.

TensorBoard's event files are written by PyTorch (https://pytorch.org/docs/stable/tensorboard.html), MLflow's runs by
its client (https://mlflow.org/docs/latest/ml/tracking/). Both are extras, imported only where they are asked for.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from random import random
from types import TracebackType
from typing import Any, Protocol

import pandas as pd

from headstart import __version__
from headstart.atomic import write_text
from headstart.console import Console
from headstart.errors import HeadstartError, listed
from headstart.recipe import Recipe
from headstart.run_folder import RunFolder
from headstart.training.hardware import process_number
from headstart.training.probe import ProbeStep
from headstart.training.progress import Epoch

_VALUES = (*(field.name for field in fields(Epoch) if field.name != "epoch"), "regularisation")


class Log(Protocol):
    """Where another tool finds a run; it is made before the run begins, and raises ImportError where it cannot be."""

    def begin(self, folder: RunFolder, recipe: Recipe) -> None:
        """Open the log of a run, or open it again where the run is resumed."""
        ...

    def add(self, values: dict[str, float], step: int) -> None:
        """Log values by their names; a resumed run logs those of before again."""
        ...

    def finish(self, folder: RunFolder) -> None:
        """Log what a finished run leaves behind."""
        ...

    def close(self, status: str) -> None:
        """Close the log: the run is FINISHED, FAILED or KILLED."""
        ...


class TensorBoardLog:
    """TensorBoard's event files, in the run folder's `tensorboard`."""

    def __init__(self) -> None:
        import tensorboard  # noqa: F401 - PyTorch's writer needs it
        from torch.utils.tensorboard import SummaryWriter

        self._writer_class = SummaryWriter

    def begin(self, folder: RunFolder, recipe: Recipe) -> None:
        """Open a new event file, which hides what an interrupted run has logged: all of it is logged again."""
        self._writer = self._writer_class(str(folder.path / "tensorboard"), purge_step=0)
        self._writer.add_text("recipe", f"```toml\n{recipe.to_toml()}```", 0)

    def add(self, values: dict[str, float], step: int) -> None:
        """Write scalars, and through to the disk, for someone may be watching."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, folder: RunFolder) -> None:
        """Leave the folder's files where they are: TensorBoard shows none of them."""

    def close(self, status: str) -> None:
        """Close the event file."""
        self._writer.close()


class MlflowLog:
    """A run in the experiment `headstart` of $MLFLOW_TRACKING_URI, or of a database in the run folder's `mlflow`.

    The database is SQLite: MLflow's folders of files are deprecated, and refused since 3.13
    (https://github.com/mlflow/mlflow/issues/18534).
    """

    def __init__(self) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # MLflow's own 7 retries would hold up the run for minutes where the server is not there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client_class, self._refused = MlflowClient, MlflowException
        self._server = os.environ.get("MLFLOW_TRACKING_URI")
        self._run = ""
        self._logged: set[tuple[str, int]] = set()
        if self._server:
            try:
                with _quiet_database():
                    self._client = MlflowClient(self._server)
                    self._experiment = self._found_or_made(None)
            except MlflowException as error:
                raise HeadstartError(
                    f"--log mlflow: $MLFLOW_TRACKING_URI is {self._server}: {_first_line(error)}",
                    "Set it to a server that answers, or unset it to log into the run folder.",
                ) from None

    def begin(self, folder: RunFolder, recipe: Recipe) -> None:
        """Make a run with the recipe's choices as its parameters, or go on with that of the interrupted run."""
        from mlflow.entities import Param

        place = folder.path.resolve() / "mlflow"
        place.mkdir(exist_ok=True)
        if not self._server:
            # MLflow keeps databases open by their address, so each opening has its own: a run folder that was deleted
            # and made again in the same process would be taken for the old one. It differs by how many seconds to wait
            # for other readers.
            address = f"sqlite:///{(place / 'mlflow.db').as_posix()}?timeout={30 + random():.9f}"
            with _quiet_database():
                self._client = self._client_class(address)
                self._experiment = self._found_or_made((place / "artifacts").as_uri())
        self._run = self._resumed(place / "run_id") or self._begun(place)
        choices = recipe.model_dump(mode="json", exclude={"plan"}, exclude_none=True)
        if recipe.plan:
            choices |= {f"plan.{name}": value for name, value in recipe.plan.model_dump(mode="json").items()}
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in choices.items()])
        self._client.log_artifact(self._run, str(folder.recipe))

    def add(self, values: dict[str, float], step: int) -> None:
        """Log metrics that the run does not have yet."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if (name, step) not in self._logged}
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in new.items()])

    def finish(self, folder: RunFolder) -> None:
        """Log the report."""
        self._client.log_artifact(self._run, str(folder.report))

    def close(self, status: str) -> None:
        """End the run, if it came to one."""
        if self._run:
            self._client.set_terminated(self._run, status)

    def _found_or_made(self, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name("headstart")
        return str(found.experiment_id if found else self._client.create_experiment("headstart", artifacts))

    def _resumed(self, file: Path) -> str | None:
        """Return the run that the file names, if it is still there, and note what it has."""
        if not file.exists():
            return None
        run_id = file.read_text(encoding="utf-8")
        try:
            run = self._client.get_run(run_id)
        except self._refused:
            return None
        if run.info.lifecycle_stage != "active":
            return None
        self._client.update_run(run_id, status="RUNNING")
        for name in run.data.metrics:
            self._logged |= {(name, metric.step) for metric in self._client.get_metric_history(run_id, name)}
        return run_id

    def _begun(self, place: Path) -> str:
        tags = {"headstart": __version__}
        run = self._client.create_run(self._experiment, tags=tags, run_name=place.parent.name)
        write_text(place / "run_id", run.info.run_id)
        return str(run.info.run_id)


LOGS: dict[str, Callable[[], Log]] = {"tensorboard": TensorBoardLog, "mlflow": MlflowLog}
"""Each by its name, which is also that of its package and of its extra."""


class History:
    """Each epoch of each stage, for the probe each strength of regularisation: kept, and logged when it is known.

    A log that fails in the middle of a run is given up with a warning, because training is worth more.
    """

    def __init__(self, logs: Sequence[str], console: Console) -> None:
        """Import what the logs need, and reach their server.

        Args:
            logs: names, of `LOGS`; where several processes train together, the first one logs.
            console: where warnings go.

        Raises:
            HeadstartError: for an unknown name, a missing package, and a server that does not answer.
        """
        names = [logs] if isinstance(logs, str) else list(dict.fromkeys(logs))
        unknown = [name for name in names if name not in LOGS]
        if unknown:
            raise HeadstartError(f"--log {listed(unknown)}: no such log; expected {' or '.join(LOGS)}.")
        self._console = console
        self._rows: list[dict[str, Any]] = []
        self._asked_for = {name: _made(name) for name in names if process_number() == 0}
        self._open: dict[str, Log] = {}

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._each(lambda log: log.close(status))

    def begin(self, folder: RunFolder, recipe: Recipe) -> None:
        """Open the logs of a run that has begun in its folder, whose recipe is planned."""
        self._open = dict(self._asked_for)
        self._each(lambda log: log.begin(folder, recipe))

    def add(self, stage: str, epoch: Epoch | ProbeStep) -> None:
        """Add an epoch to a stage, or the probe's next strength, which counts as one."""
        number = 1 + sum(row["stage"] == stage for row in self._rows)
        row = {"stage": stage, "epoch": number, **asdict(epoch)}
        self._rows.append(row)
        values = {f"{stage}/{name}": row[name] for name in _VALUES if not math.isnan(row.get(name, math.nan))}
        self._each(lambda log: log.add(values, row["epoch"]))

    def table(self) -> pd.DataFrame:
        """Make the table of every epoch of every stage."""
        return pd.DataFrame(self._rows).reindex(columns=["stage", "epoch", *_VALUES])

    def finish(self, folder: RunFolder, metrics: dict[str, Any]) -> None:
        """Log what a finished run measured on validation and test photos, and its files."""
        values = {
            f"{split}/{name}": float(value)
            for split in ("validation", "test")
            for name, value in metrics[split].items()
            if isinstance(value, (int, float))
        }
        self._each(lambda log: log.add(values, 0))
        self._each(lambda log: log.finish(folder))

    def _each(self, act: Callable[[Log], None]) -> None:
        for name, log in list(self._open.items()):
            try:
                act(log)
            except Exception as error:  # whatever another library, its disk or its server raises
                del self._open[name]
                self._console.warn(f"--log {name}: given up, and the run goes on: {_first_line(error)}")


def _made(name: str) -> Log:
    try:
        return LOGS[name]()
    except ImportError as error:
        raise HeadstartError(
            f"--log {name}: needs the package {name}, which cannot be imported: {_first_line(error)}",
            f"Install it with: pip install 'headstart[{name}]'.",
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def _quiet_database() -> Iterator[None]:
    """Let MLflow open a database with no more ado: no lines about it, no warnings for MLflow's authors, no folder."""
    log = logging.getLogger("mlflow.store.db.utils")
    level, aside = log.level, Path("mlruns")
    there = aside.exists()
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\.store\.")
            yield
    finally:
        log.setLevel(level)
        # Some versions of MLflow make a folder for artefacts here, and do not use it.
        if not there and aside.is_dir() and not any(aside.iterdir()):
            aside.rmdir()

"""Who takes part: Headstart, at several budgets, and its peers; their virtual environments and their commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HEADSTART = "headstart"
_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]


@dataclass(frozen=True)
class Contestant:
    """One way from a folder of photos to a classifier.

    `environment` names its requirements file and its script; `label` is what the report calls it.
    """

    name: str
    environment: str
    label: str
    budget: str = ""


PEERS = (
    Contestant("keras_example", "keras_example", "Keras example, in Keras (time only, extrapolated)"),
    Contestant("example_in_pytorch", "example_in_pytorch", "Keras example, in PyTorch"),
    Contestant("fastai_fine_tune", "fastai_fine_tune", "fastai, fine_tune(5)"),
    Contestant("timm_fine_tune", "timm_fine_tune", "timm, 15 epochs of all layers"),
    Contestant("sklearn_probe", "sklearn_probe", "scikit-learn on PyTorch features"),
)


def everyone(budgets: list[str]) -> list[Contestant]:
    """Return Headstart with each budget and with its defaults, and every peer."""
    limited = [Contestant(f"{HEADSTART} {budget}", HEADSTART, f"Headstart, {budget}", budget) for budget in budgets]
    return [*limited, Contestant(HEADSTART, HEADSTART, "Headstart"), *PEERS]


def prepare(environments: Path, name: str) -> None:
    """Make a virtual environment by its requirements file, unless it is there; install Headstart as it is now."""
    folder, wanted = environments / name, _HERE / "requirements" / f"{name}.txt"
    done = folder / "requirements.txt"
    if not (done.is_file() and done.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8")):
        venv.create(folder, with_pip=True, clear=True)
        _pip(folder, "-r", str(wanted), *([str(_REPOSITORY)] if name == HEADSTART else []))
        shutil.copyfile(wanted, done)
    if name == HEADSTART:
        _pip(folder, str(_REPOSITORY))  # what it needs now
        _pip(folder, "--no-deps", "--force-reinstall", str(_REPOSITORY))


def _pip(folder: Path, *arguments: str) -> None:
    program = [str(_program(folder, "python")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*program, *arguments], check=True)


def _program(folder: Path, name: str) -> Path:
    return folder / "Scripts" / f"{name}.exe" if sys.platform == "win32" else folder / "bin" / name


def command(contestant: Contestant, environments: Path, photos: Path, work: Path, seed: int) -> list[str]:
    """Return the command that trains and tests in an empty folder `work`."""
    folder = environments / contestant.environment
    if contestant.environment != HEADSTART:
        script = _HERE / f"{contestant.environment}.py"
        arguments = [_program(folder, "python"), script, photos, work / "result.json", "--seed", seed]
    else:
        run, cache = work / "run", work / "cache"
        arguments = [_program(folder, HEADSTART), "train", photos, "-o", run, "--cache", cache, "--seed", seed]
        arguments += ["--budget", contestant.budget] if contestant.budget else []
    return [str(argument) for argument in arguments]


def outcome(contestant: Contestant, work: Path, began: float, wall_seconds: float) -> tuple[float | None, float, str]:
    """Read what a contestant left: test accuracy, the seconds from its start to the saved model, and notes.

    A peer says itself when its model was saved, which is before it is tested. Headstart's lies in its folder once it is
    tested; labels and the report come after it. `began` is when it was started, in seconds since the epoch.
    """
    if contestant.environment == HEADSTART:
        metrics = json.loads((work / "run" / "metrics.json").read_text(encoding="utf-8"))
        saved = (work / "run" / "classifier" / "classifier.json").stat().st_mtime
        return metrics["test"]["accuracy"], saved - began, f"{wall_seconds:.1f} s to the end of the command"
    result = json.loads((work / "result.json").read_text(encoding="utf-8"))
    return result["test_accuracy"], result["seconds"], result["notes"]

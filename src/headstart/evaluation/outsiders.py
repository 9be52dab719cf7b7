"""Outsiders: photos of none of the classes, on which rejection is tested."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headstart.classifier import Classifier
from headstart.console import Console
from headstart.errors import HeadstartError, counted
from headstart.evaluation.rejection import told_apart
from headstart.photos.catalog import photo_files


def outsider_photos(folder: str | Path) -> list[Path]:
    """List the photos in a folder, at any depth.

    Raises:
        HeadstartError: when it is no folder, or holds none.
    """
    path = Path(folder).expanduser()
    found = list(photo_files(path, Counter())) if path.is_dir() else []
    if not found:
        what = "holds no photos" if path.is_dir() else "no such folder"
        raise HeadstartError(
            f"--outsiders {folder}: {what}; expected a folder with photos of none of the classes.", "Check the path."
        )
    return found


def measure_outsiders(
    classifier: Classifier, folder: str | Path, predictions: pd.DataFrame, console: Console
) -> dict[str, Any]:
    """Measure how well a classifier tells photos of other things from the test photos.

    Args:
        classifier: with a rule of acceptance.
        folder: of the outsiders.
        predictions: of the test photos, with the column strangeness.
        console: shows progress, and says what came out.

    Returns:
        JSON values: photos that could be read, auroc (0.5 to 1), and the share that is accepted all the same.
    """
    paths = outsider_photos(folder)
    strangeness, accepted = [], 0
    with console.progress("outsiders", len(paths)) as advance:
        for prediction in classifier.stream(paths):
            advance(1)
            if prediction.strangeness is not None:
                strangeness.append(prediction.strangeness)
                accepted += bool(prediction.accepted)
    if not strangeness:
        raise HeadstartError(f"--outsiders {folder}: none of its photos could be read.", "Check the files.")
    auroc = told_apart(predictions["strangeness"].to_numpy(np.float64), np.array(strangeness))
    share = accepted / len(strangeness)
    console.say(
        f"Outsiders   {100 * (1 - share):.1f}% of {counted(len(strangeness), 'photo')} rejected; AUROC {auroc:.3f}"
    )
    return {"photos": len(strangeness), "auroc": auroc, "accepted": share}

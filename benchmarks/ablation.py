"""Try variants of the recipe on several sets and seeds, on training photos only.

Of each set (from `sets.py`) the photos in `train` are split anew by each seed: 55% to train, 15% to validate, 30% to
measure on. A file of variants is TOML: a table for each, named as it shall be called, with the recipe's choices.
Outcomes are appended to a CSV file, and what stands there already is not run again.

python benchmarks/ablation.py SETS VARIANTS.toml RESULTS.csv --sets signs digits --seeds 0 1 2
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import tomllib

import headstart
from headstart.training.process import prepare_process
from variants import append, done, parser

KEY = ["variant", "set", "seed"]
SPLIT = {"validation_fraction": 0.15, "test_fraction": 0.3}


def main() -> None:
    options = parser(__doc__).parse_args()
    prepare_process()
    variants = tomllib.loads(options.variants.read_text(encoding="utf-8"))
    seen = done(options.results, KEY)
    for seed in options.seeds:
        for variant, choices in variants.items():
            for name in options.names:
                if (variant, name, seed) not in seen:
                    outcome = measured(options.sets / name / "train", options.results.parent, seed, choices)
                    append(options.results, dict(zip(KEY, (variant, name, seed), strict=True)) | outcome)
    print(summary(pd.read_csv(options.results)))


def measured(photos: Path, folder: Path, seed: int, choices: dict[str, object]) -> dict[str, float]:
    """Train once; return accuracies in percent on the photos held out, and seconds."""
    run = headstart.train(
        photos, folder / "ablation-run", cache=folder / "ablation-cache", quiet=True, seed=seed, **SPLIT, **choices
    )
    shutil.rmtree(run.folder)
    metrics = run.metrics
    tuning = [stage for name, stage in metrics["stages"].items() if name != "probe"]
    return {
        "accuracy": 100 * metrics["test"]["accuracy"],
        "log_loss": metrics["test"]["log_loss"],
        "validation": 100 * metrics["validation"]["accuracy"],
        "share": metrics["kept"]["share"],
        "seconds": sum(stage["seconds"] for stage in tuning),
        "photos": metrics["test"]["photos"],
    }


def summary(results: pd.DataFrame) -> str:
    """Return the mean accuracy over seeds by variant and set, and over the sets."""
    table = results.pivot_table("accuracy", "variant", "set", "mean")
    table["mean"] = table.mean(axis=1)
    table["seconds"] = results.groupby("variant")["seconds"].mean()
    return table.round(2).to_string()


if __name__ == "__main__":
    main()

"""A run folder with everything in it, made without training: tiny photos and random but fixed predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from headstart.atomic import write_table
from headstart.evaluation.metrics import measure, prediction_table, softmax, wilson_interval
from headstart.network.backbones import BACKBONES, build
from headstart.photos.findings import Finding, finding_table
from headstart.recipe import Plan, Recipe, Step
from headstart.report.thumbnails import write_thumbnails
from headstart.run_folder import RunFolder
from making import make_photo

HOSTILE = '<script>alert("1")</script> & $a$ {{ 7 * 7 }}'
IMAGE_SIZE = 64


def class_names(count: int) -> list[str]:
    """Names of every kind: one hostile, one long, one that looks like a missing value."""
    special = [HOSTILE, "NA", "a_very_long_class_name_" + "without_an_end_" * 6, "Größe 大きさ"]
    return sorted([*special[: max(0, count - 1)], *(f"kind {number:03}" for number in range(count))][:count])


def noise(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture that does not compress."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def make_run(root: Path, num_classes: int = 5, per_class: int = 20, make=make_photo, pictures: bool = True) -> Path:
    """Make photos and the folder of a finished run on them; return the run folder."""
    folder, names = RunFolder(root / "run"), class_names(num_classes)
    folder.path.mkdir(parents=True)
    catalog = _make_photos(root / "photos", names, per_class, make)
    write_table(folder.catalog, catalog)
    test = catalog[catalog["split"] == "test"]
    labels = np.array([names.index(label) for label in test["label"]], np.int64)
    probabilities = _probabilities(labels, num_classes)
    predictions = prediction_table(list(test["path"]), labels, probabilities, names)
    predictions.insert(5, "accepted", predictions["probability"] > 0.5)
    write_table(folder.predictions, predictions)
    write_table(folder.problems, _problems(catalog))
    write_table(folder.history, _history())
    write_table(folder.path / "label_issues.csv", _label_issues(catalog, names))
    folder.recipe.write_text(_recipe(root / "photos").to_toml(), encoding="utf-8")
    folder.metrics.write_text(json.dumps(_metrics(measure(labels, probabilities, names), predictions)))
    if pictures:
        make_pictures(root)
    return folder.path


def make_pictures(root: Path) -> None:
    backbone = BACKBONES["lite0"]
    folder = RunFolder(root / "run")
    torch.manual_seed(0)
    network = build(backbone, len(set(pd.read_csv(folder.catalog, keep_default_na=False)["label"])))
    with torch.no_grad():
        network.get_submodule("classifier").get_parameter("weight").normal_()
    write_thumbnails(folder, root / "photos", network, backbone.preprocessing("crop", IMAGE_SIZE))


def _make_photos(root: Path, names: list[str], per_class: int, make) -> pd.DataFrame:
    rows = []
    for number, name in enumerate(names):
        (root / f"{number:03}").mkdir(parents=True)
        for index in range(per_class):
            # Paths are of the kind that breaks pages: long, and with odd letters.
            path = f"{number:03}/photo <i> & {'long_' * 12}{index:03}.jpg"
            picture = make(1000 * number + index, number % 3) if make is make_photo else make(1000 * number + index)
            picture.save(root / path, quality=90)
            split = ("test", "validation", "train")[min(index % 5, 2)]
            rows.append((path, name, split, f"{(7919 * (1000 * number + index)) % 10007:032x}"))
    return pd.DataFrame(rows, columns=["path", "label", "split", "digest"])


def _probabilities(labels: np.ndarray, num_classes: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 1, (len(labels), num_classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2.5 + 0.5 * np.log(num_classes)
    # Every third photo of a class has something of one of its neighbours.
    third = np.arange(len(labels)) % 3 == 0
    logits[third, (labels[third] ^ 1) % num_classes] += 3.2 + 0.5 * np.log(num_classes)
    return softmax(logits)


def _problems(catalog: pd.DataFrame) -> pd.DataFrame:
    kinds = ("truncated", "exact duplicate", "near duplicate", "rotated by EXIF")
    found = [
        Finding(path, kinds[number % 4], "of <b>something</b>") for number, path in enumerate(catalog["path"][:100])
    ]
    return finding_table(found)


def _history() -> pd.DataFrame:
    rows = []
    for stage, epochs, start in (("probe", 6, 0.4), ("fine-tuning stage6", 5, 0.7), ("fine-tuning stage4", 9, 0.8)):
        for epoch in range(1, epochs + 1):
            share = start + 0.1 * epoch / epochs
            rows.append((stage, epoch, 2 * (1 - share), share + 0.05, 2.2 * (1 - share), share, 1e-4, 1.0, 1.0))
    columns = ["stage", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    return pd.DataFrame(rows, columns=[*columns, "learning_rate", "seconds", "regularisation"])


def _label_issues(catalog: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    suspects = catalog[catalog["split"] == "train"].iloc[::5].head(30)
    suggested = [names[(names.index(label) + 1) % len(names)] for label in suspects["label"]]
    return pd.DataFrame(
        {
            "path": suspects["path"],
            "given_label": suspects["label"],
            "suggested_label": suggested,
            "score": np.linspace(0.4, 0.01, len(suspects)),
            "label": "",
        }
    )


def _recipe(photos: Path) -> Recipe:
    steps = (
        Step(unfreeze="stage6", epochs=5, num_views=5, seconds=20),
        Step(unfreeze="stage4", epochs=12, num_views=8, seconds=80),
    )
    plan = Plan(image_size=256, probe_views=3, steps=steps, seconds=200)
    return Recipe.make(photos=str(photos), plan=plan)


def _metrics(test: dict, predictions: pd.DataFrame) -> dict:
    accuracy, photos = test["accuracy"], test["photos"]
    f1 = test["macro_f1"]
    test = test | {"macro_f1_interval": [max(0, f1 - 0.04), min(1, f1 + 0.04)]}
    stages = {}
    for name, share in (("probe", 0.7), ("fine-tuning stage6", 0.8), ("fine-tuning stage4", 0.85)):
        interval = list(wilson_interval(round(share * photos), photos))
        validation = {"accuracy": share, "accuracy_interval": interval, "log_loss": 2 - share, "photos": photos}
        stages[name] = {"validation": validation, "seconds": 20 * share}
    bins = [{"confidence": (n + 0.5) / 10, "accuracy": (n + 0.2) / 10.5, "photos": 5 * n} for n in range(10)]
    before, after = {"ece": 0.134, "bins": bins}, {"ece": 0.071, "bins": [row | {"photos": 7} for row in bins]}
    order = predictions.sort_values("probability", ascending=False)["correct"].to_numpy(float)
    right = np.cumsum(order) / np.arange(1, photos + 1)
    curve = [{"coverage": (n + 1) / photos, "accuracy": float(share)} for n, share in enumerate(right)]
    slices = [("brightness", "darkest third"), ("brightness", "brightest third"), ("folder", "camera_" * 15)]
    return {
        "validation": test,
        "test": test,
        "stages": stages,
        "kept": {"stage": "fine-tuning stage4", "validation_accuracy": 0.85, "share": 1.0, "points_over_probe": 15.0},
        "planned_seconds": 200.0,
        "seconds": {"scanning": 0.4, "embedding": 31.2, "fine-tuning": 120.5, "total": 188.1},
        "catalog_digest": "0",
        "versions": {"python": "3.11.7", "headstart": "0.1.0", "torch": "2.6.0"},
        "majority": {"class": predictions["label"].iloc[0], "accuracy": 1 / len(test["per_class"])},
        "comparison": {
            "first": "probe",
            "second": "fine-tuning stage4",
            "first_accuracy": 0.7,
            "second_accuracy": accuracy,
            "only_first": 3,
            "only_second": 21,
            "p_value": 0.0003,
            "told": "Fine-tuning is better than the probe: 21 test photos right against 3.",
        },
        "slices": [
            {"fact": fact, "slice": name, "photos": photos // 3, "accuracy": 0.2, "accuracy_interval": [0.1, 0.3]}
            for fact, name in slices
        ],
        "calibration": {
            "temperature": 1.31,
            "validation": {"before": before, "after": after},
            "test": {"before": before, "after": after},
        },
        "rejection": {
            "min_accuracy": 0.95,
            "reached": False,
            "told": "No threshold reaches 95% on validation photos; the best accepts 20% of them.",
            "validation": {"coverage": 0.2, "accuracy": 0.91},
            "test": {"coverage": 0.25, "accuracy": 0.9, "photos": photos, "accepted": photos // 4},
            "curve": curve,
            "outsiders": {"photos": 200, "auroc": 0.71, "accepted": 0.33},
        },
        "label_issues": {"photos": 300, "suspects": 30},
        "checked": {"severe": 25, "warning": 50, "note": 25},
        "notes": ["The weights come from ImageNet, which may hold these very photos <b>."],
        "machine": {"processor": "Some CPU", "cores": 2, "memory_gib": 15.6, "accelerator": None},
    }

"""`headstart export`: a classifier in another library's format, handed over once it is proved to be the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.atomic import write_json, write_text
from headstart.classifier import Classifier, load, versions
from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.export.folder import export_folder
from headstart.export.formats import Format, format_named
from headstart.export.handout import example, labels_text, readme
from headstart.export.measuring import Measured, measure_export, told_measured
from headstart.export.parity import Parity, check_parity, made_photos, run_on, views_of
from headstart.export.photos import Labelled, PhotoTable, photos_to_compare
from headstart.export.quantisation import MOST_PHOTOS, quantised
from headstart.machine import machine

_OTHER_FILES = ("labels.txt", "example.py", "README.md", "export.json")


@dataclass(frozen=True)
class Exported:
    """What was written: its folder, how equal it was proved to be, and what was measured, by precision."""

    folder: Path
    parity: Parity
    measured: dict[str, Measured]

    def told(self) -> dict[str, Any]:
        """Return what was proved and measured, as JSON values."""
        measured = {name: vars(found) for name, found in self.measured.items()}
        return {"parity": self.parity.values(), "measured": measured}


def export(
    classifier: str | Path,
    format_name: str,
    output: str | Path = "headstart-export",
    *,
    photos: str | None = None,
    int8: bool = False,
    max_drop: float = 0.5,
    quiet: bool = False,
    console: Console | None = None,
) -> Exported:
    """Write a classifier's folder for another library, whole or not at all.

    Args:
        classifier: a classifier's folder, or its run's.
        format_name: see `FORMATS`.
        output: a new folder, or an earlier export.
        photos: labelled photos to compare on; those of the run unless told.
        int8: whether to compute in 8-bit integers.
        max_drop: of accuracy on validation photos that int8 may cost, in points.
        quiet: whether to print nothing but warnings.
        console: where to print; standard output unless told.

    Raises:
        HeadstartError: when a library is missing, when the folder holds anything but an earlier export, when the export
            says something else than PyTorch, and when int8 costs more than `max_drop`.
    """
    console, made = console or Console(quiet), format_named(format_name)
    if int8 and made.from_onnx is None:
        raise HeadstartError(
            f"--int8: is not possible with --format {format_name}; expected onnx or openvino.", "Leave it out."
        )
    loaded, folder = load(classifier, "torch"), Path(output)
    table = photos_to_compare(loaded, Path(classifier), photos, console)
    if table is None:
        if int8:
            raise HeadstartError(
                "--int8: needs the training and validation photos, and those of the run are not here.",
                "Give labelled photos with --photos.",
            )
        console.warn(
            "the photos that it was trained on are not here: compared on made images alone. "
            "Give labelled photos with --photos."
        )
    validation = table.of("validation", loaded) if table else None
    with export_folder(folder, (*made.files, *_OTHER_FILES)) as draft:
        console.say(f"Writing     {made.title}: {', '.join(made.files)}")
        made.write(loaded, draft)
        model = draft / made.files[0]
        pixels, told = (validation.photos, table.told) if table and validation else (made_photos(loaded), "made images")
        run = made.open(model)
        parity = check_parity(loaded, run, pixels, f"the {made.title} model", told, whole=made.whole, exact=made.exact)
        console.say(
            f"Equal       on {parity.photos:,} {told}: the same first class for all, probabilities within "
            f"{parity.difference:.1g} of PyTorch's"
        )
        measured: dict[str, Measured] = {}
        if validation:
            measured["float32"] = measure_export(made, model, run, loaded, validation, parity.first)
            console.say(f"float32     {told_measured(measured['float32'])}")
        if int8 and table and validation:
            name, found = _int8(made, model, loaded, table, validation, measured["float32"], max_drop, console)
            measured[name] = found
        for file in set(draft.iterdir()) - {draft / name for name in made.files}:
            file.unlink()  # what the model was made of
        exported = Exported(folder, parity, measured)
        _hand_out(made, draft, loaded, exported)
    console.say(f"Written     {folder}: {', '.join((*made.files, *_OTHER_FILES))}")
    return exported


def _int8(
    made: Format,
    model: Path,
    classifier: Classifier,
    table: PhotoTable,
    validation: Labelled,
    float32: Measured,
    max_drop: float,
    console: Console,
) -> tuple[str, Measured]:
    """Put the first int8 model in place that is accurate enough."""
    assert made.from_onnx is not None  # noqa: S101
    training = table.of("train", classifier, MOST_PHOTOS)
    views, tried = views_of(validation.photos, classifier), []
    for name, write in quantised(model.with_name("model.onnx"), training.photos):
        draft = model.with_name("int8.onnx")
        write(draft)
        made.from_onnx(draft)
        files = {draft.with_suffix(Path(file).suffix): model.with_name(file) for file in made.files}
        opened = next(iter(files))
        run = made.open(opened)
        first = run_on(run, validation.photos, views, made.whole)[0].argmax(axis=1)
        found = measure_export(made, opened, run, classifier, validation, first)
        drop = 100 * (float32.accuracy - found.accuracy)
        console.say(f"{name:<11} {told_measured(found)}; {drop:.1f} points below float32")
        if drop <= max_drop:
            for file, place in files.items():
                file.replace(place)
            return name, found
        tried.append(f"{name} {drop:.1f}")
    raise HeadstartError(
        f"--int8: costs more accuracy than --max-drop {max_drop:g} on {len(validation):,} {table.told} "
        f"(points: {', '.join(tried)}); nothing was written.",
        "Leave --int8 out, allow more with --max-drop, or train a Lite network (--backbone lite0), made for it.",
    )


def _hand_out(made: Format, draft: Path, classifier: Classifier, exported: Exported) -> None:
    """Write what goes with the model's files."""
    write_text(draft / "labels.txt", labels_text(classifier))
    write_text(draft / "example.py", example(made, classifier))
    write_text(draft / "README.md", readme(made, classifier, exported.parity, exported.measured))
    record = {
        "format": made.title,
        "class_names": classifier.class_names,
        "preprocessing": classifier.preprocessing.model_dump(mode="json"),
        **exported.told(),
        "versions": versions(),
        "machine": machine(),
    }
    write_json(draft / "export.json", record)

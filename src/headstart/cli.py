"""The command line: thin commands whose docstrings are their help."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from headstart.choices import (
    Augmentation,
    ClassWeights,
    Head,
    Keep,
    Optimiser,
    Precision,
    ResizePolicy,
    Schedule,
    WantedEngine,
)
from headstart.errors import HeadstartError
from headstart.help import CommandsInFull, GroupedHelp, option

app = typer.Typer(
    name="headstart",
    cls=CommandsInFull,
    help="Turn a folder of photos into an image classifier by fine-tuning EfficientNet, on the computer at hand.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich's boxes cut long names and take three times the lines.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


class ExportFormat(str, Enum):
    """What a classifier is exported to."""

    onnx = "onnx"
    openvino = "openvino"
    pt2 = "pt2"
    keras = "keras"
    litert = "litert"


# The headings of `train --help`.
_PHOTOS, _DEPTH, _NETWORK = "Photos and splits", "Time and depth", "The network"
_DETAIL, _OUTPUT = "Fine-tuning in detail", "Output"

Cache = Annotated[
    Path | None, typer.Option(help="Cache folder (or $HEADSTART_CACHE).", show_default="the platform's own")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
EngineOption = Annotated[WantedEngine, typer.Option(help="What runs the frozen network.")]
ARM_HELP = "A choice of this arm as NAME=VALUE, for example {}; may be repeated."
PHOTOS_HELP = (
    "A folder with a folder per class, a CSV/TSV/Parquet table, or a dataset: digits, stanford-dogs, "
    "tfds:NAME, hf:NAME."
)
# A full disk, a quota, a disk or folder that cannot be written: the user's to mend.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
PREDICT_HELP = "Photos, folders, patterns, or - for a list of paths on standard input."


@app.command(cls=GroupedHelp)
def train(
    photos: Annotated[str | None, typer.Argument(help=PHOTOS_HELP)] = None,
    output: Annotated[Path, option("", "The run folder.", "headstart-run", "--output", "-o")] = Path("headstart-run"),
    budget: Annotated[str | None, option("", "For the whole run: 90s, 5m, 1h or none.", "5m", metavar="TIME")] = None,
    backbone: Annotated[str | None, option("", "See `headstart backbones`.", "lite0", metavar="NAME")] = None,
    min_accuracy: Annotated[float | None, option("", "Of accepted predictions, 0 to 1.", "0.95")] = None,
    labels: Annotated[Path | None, option("", "Corrected labels: label_issues.csv, filled in.")] = None,
    recipe: Annotated[Path | None, option("", "Repeat a recipe.toml; options override it.")] = None,
    image_size: Annotated[int | None, option(_PHOTOS, "Pixels.", "a seventh above the usual")] = None,
    resize_policy: Annotated[ResizePolicy | None, option(_PHOTOS, "How a photo becomes a square.", "crop")] = None,
    augmentation: Annotated[
        Augmentation | None, option(_PHOTOS, "Of training photos.", "strong; from scratch photo")
    ] = None,
    check: Annotated[bool | None, option(_PHOTOS, "Look for bad photos, copies, labels.", "check")] = None,
    outsiders: Annotated[Path | None, option(_PHOTOS, "Photos of no class, to test rejection on.")] = None,
    validation_fraction: Annotated[float | None, option(_PHOTOS, "Of the photos, 0 to 1.", "0.15")] = None,
    test_fraction: Annotated[float | None, option(_PHOTOS, "Of the photos, 0 to 1.", "0.15")] = None,
    seed: Annotated[int | None, option(_PHOTOS, "Of the split and all that is random.", "0")] = None,
    unfreeze: Annotated[
        str | None,
        option(_DEPTH, "How many last blocks train; or from where: stage6, head, all.", metavar="PART"),
    ] = None,
    epochs: Annotated[int | None, option(_DEPTH, "Of each step of fine-tuning, at most.")] = None,
    num_views: Annotated[int | None, option(_DEPTH, "Of each photo, for fine-tuning.")] = None,
    probe_views: Annotated[int | None, option(_DEPTH, "Of each photo, for the probe.")] = None,
    time_limit: Annotated[float | None, option(_DEPTH, "Seconds of training, one epoch at least.")] = None,
    patience: Annotated[int | None, option(_DEPTH, "Epochs without a lower loss.", "4; from scratch 20")] = None,
    refit: Annotated[bool | None, option(_DEPTH, "Fit on validation photos too.", "refit")] = None,
    weights: Annotated[str | None, option(_NETWORK, "imagenet, none (from scratch) or a file.")] = None,
    head: Annotated[Head | None, option(_NETWORK, "What is fitted first; example: Keras's.", "probe")] = None,
    dropout_rate: Annotated[float | None, option(_NETWORK, "Before the classifier.", "0.2")] = None,
    drop_path_rate: Annotated[float | None, option(_NETWORK, "In trained blocks.", "0; from scratch 0.1")] = None,
    engine: Annotated[WantedEngine | None, option(_NETWORK, "What runs the frozen part.", "auto")] = None,
    int8_views: Annotated[bool | None, option(_NETWORK, "Augmented ones in 8 bits.", "where that pays")] = None,
    precision: Annotated[Precision | None, option(_NETWORK, "Of training's forward pass.", "auto")] = None,
    batch_size: Annotated[int | None, option(_DETAIL, "Photos a step.", "8 or 16; from scratch 32")] = None,
    optimiser: Annotated[Optimiser | None, option(_DETAIL, "What takes the steps.", "lamb; scratch adamw")] = None,
    learning_rate: Annotated[float | None, option(_DETAIL, "Peak.", "0.002; tuning by others 0.0005")] = None,
    head_learning_rate: Annotated[float | None, option(_DETAIL, "The head's.", "0.002; by others 0.0002")] = None,
    layer_decay: Annotated[float | None, option(_DETAIL, "A block's rate over that of the next.", "1")] = None,
    schedule: Annotated[Schedule | None, option(_DETAIL, "Of the rate after warm-up.", "cosine")] = None,
    warmup_epochs: Annotated[float | None, option(_DETAIL, "Until the peak.", "1; from scratch 3")] = None,
    weight_decay: Annotated[float | None, option(_DETAIL, "Of matrices.", "0.01; from scratch 0.05")] = None,
    label_smoothing: Annotated[float | None, option(_DETAIL, "0 to 1.", "0.1")] = None,
    mixup: Annotated[float | None, option(_DETAIL, "Alpha of MixUp.", "0: none")] = None,
    cutmix: Annotated[float | None, option(_DETAIL, "Alpha of CutMix.", "0: none")] = None,
    class_weights: Annotated[ClassWeights | None, option(_DETAIL, "Weigh rare classes more.", "auto")] = None,
    ema_decay: Annotated[float | None, option(_DETAIL, "Of averaged weights.", "0; from scratch 0.999")] = None,
    train_batch_norm: Annotated[bool | None, option(_DETAIL, "BatchNorm trains too.", "only from scratch")] = None,
    keep: Annotated[Keep | None, option(_DETAIL, "Which epoch's weights.", "best")] = None,
    log: Annotated[list[str] | None, option(_OUTPUT, "tensorboard, mlflow; may be repeated.", metavar="NAME")] = None,
    profile: Annotated[bool, option(_OUTPUT, "Tell where the time went.", "", "--profile")] = False,
    cache: Annotated[Path | None, option(_OUTPUT, "Cache folder.", "$HEADSTART_CACHE, or usual")] = None,
    quiet: Annotated[bool, option(_OUTPUT, "Print warnings and errors only.", "", "--quiet", "-q")] = False,
    as_json: Annotated[bool, option(_OUTPUT, "Print the result as JSON.", "", "--json")] = False,
) -> None:
    """Train a classifier on a folder of photos.

    What is left out is planned within the budget, or as in [ ]. An interrupted run is resumed by the same command.
    """
    choices = {
        name: value
        for name, value in locals().items()
        if name not in ("photos", "output", "recipe", "profile", "log", "cache", "quiet", "as_json")
        and value is not None
    }
    _train(photos, output, recipe, cache, quiet, as_json, choices, profile, log or ())


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("headstart-demo"),
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the whole main job on 1,797 handwritten digits, which come with the install.

    The same as `headstart train digits --budget 60s -o headstart-demo`.
    """
    _train("digits", output, None, cache, quiet, as_json, {"budget": "60s"})


def _train(
    photos: str | None,
    output: Path,
    recipe: Path | None,
    cache: Path | None,
    quiet: bool,
    as_json: bool,
    choices: dict[str, Any],
    profile: bool = False,
    logs: Sequence[str] = (),
) -> None:
    started = time.perf_counter()  # before the imports, which take seconds: a budget is of the whole command
    from headstart.console import Console
    from headstart.run import train as run_train

    console = Console(quiet, sys.stderr if as_json else None)
    told: dict[str, Any] = {"profile": profile, "log": logs, "console": console, "started": started}
    run = run_train(photos, output, recipe=recipe, cache=cache, **told, **choices)
    if as_json:
        print(json.dumps({"run": str(run.folder), **run.metrics}))


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="A finished run's folder, which stays as it is.")],
    photos: Annotated[str, typer.Argument(help=f"New photos, of old classes or new ones. {PHOTOS_HELP}")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new run folder.", show_default="RUN-2, RUN-3, ...")
    ] = None,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Add photos, or classes, to a finished run: only new photos are embedded, and a probe is fitted on all.

    Old photos keep their splits; the accuracy on the old test photos is shown before and after.
    """
    from headstart.console import Console
    from headstart.growing import add as run_add

    grown = run_add(run, photos, output, cache=cache, console=Console(quiet, sys.stderr if as_json else None))
    if as_json:
        print(json.dumps({"run": str(grown.folder), **grown.metrics}))


@app.command()
def check(
    photos: Annotated[str, typer.Argument(help=PHOTOS_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for problems.csv.")] = Path(
        "headstart-check"
    ),
    fix: Annotated[
        Path | None,
        typer.Option(metavar="TARGET", help="Write a clean copy: a new folder, or a table where it ends in .csv."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when something severe is found.")] = False,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Look for what spoils training: broken files, copies, leaks, label conflicts, bad photos, shortcuts.

    Your files are never changed; --fix writes a copy without the broken files, surplus copies and contradictory labels.
    """
    from headstart.checking import check as run_check
    from headstart.console import Console

    console = Console(quiet, sys.stderr if as_json else None)
    report = run_check(photos, output, fix=fix, cache=cache, console=console)
    if as_json:
        print(json.dumps(report.told(), ensure_ascii=False))
    if strict and report.severe:
        raise typer.Exit(1)


@app.command()
def predict(
    classifier: Annotated[Path, typer.Argument(help="A classifier's folder, or its run's.")],
    paths: Annotated[list[str] | None, typer.Argument(help=PREDICT_HELP)] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=".csv, .jsonl or .parquet; CSV on standard output if none."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to name for each photo.")] = 5,
    watch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Classify the photos in a folder, and those that arrive.")
    ] = None,
    move_to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Move photos there, into a folder for each class.")
    ] = None,
    copy_to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Copy them instead.")] = None,
    write_metadata: Annotated[
        bool, typer.Option("--write-metadata", help="Put each label into an XMP sidecar: PHOTO.xmp.")
    ] = False,
    engine: EngineOption = "auto",
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Classify photos: one row a photo, in the order given, with its error where it cannot be read.

    With -o, a command that was interrupted goes on where it stopped.
    """
    from headstart.classifier import load
    from headstart.console import Console
    from headstart.filing import Filing
    from headstart.prediction import listed_paths, predict_to

    if paths and watch is not None:
        raise HeadstartError("predict: got photos and --watch; expected one of them.", "Leave one of them out.")
    if not paths and watch is None:
        raise HeadstartError("predict: expected photos, or --watch FOLDER.", "headstart predict CLASSIFIER photos")
    _use_cache(cache)
    console = Console(quiet, sys.stderr)
    loaded = load(classifier, engine)
    filing = Filing(loaded.class_names, move_to, copy_to, write_metadata)
    if watch is not None:
        from headstart.watching import stopped_by_signals
        from headstart.watching import watch as run_watch

        with stopped_by_signals() as stop:
            run_watch(loaded, watch, output, top_k, stop, console, as_json, filing, filing.root)
        filing.tell(console)
        return
    # Listed first, so that a mistake in them is told before any row and the bar knows its end; not so the paths on
    # standard input, of which there may be no end.
    listing = filing.left_to_do(listed_paths(paths or [], sys.stdin, filing.dealt_with))
    names = listing if "-" in (paths or []) else list(listing)
    counts = predict_to(loaded, names, output, top_k, console, as_json, filing, filing.anything_there)
    filing.tell(console)
    console.say(counts.told())
    if counts.photos and counts.unreadable == counts.photos and not filing.anything_there():
        raise HeadstartError("none of the photos could be read; see the column error.", "Check the paths.")


@app.command()
def undo(log: Annotated[Path, typer.Argument(help="A folder that photos were sorted into, or the log in it.")]) -> None:
    """Put photos back that `predict --move-to` moved, and remove the copies that `--copy-to` made."""
    from headstart.console import Console
    from headstart.errors import counted
    from headstart.sorting import undo as run_undo

    print(f"{counted(run_undo(log, Console()), 'photo')} put back or removed")


@app.command()
def evaluate(
    classifier: Annotated[Path, typer.Argument(help="A classifier's folder, or its run's.")],
    photos: Annotated[str, typer.Argument(help=f"Labelled photos. {PHOTOS_HELP}")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder for metrics.json, predictions.csv, confusion.png."),
    ] = None,
    engine: EngineOption = "auto",
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a classifier on labelled photos; where they are split, on the test photos."""
    from headstart.classifier import load
    from headstart.console import Console
    from headstart.evaluation.evaluate import evaluate as run_evaluate

    _use_cache(cache)
    console = Console(quiet, sys.stderr if as_json else None)
    metrics = run_evaluate(load(classifier, engine), photos, output, console, classifier)
    if as_json:
        print(json.dumps(metrics))


@app.command()
def serve(
    classifiers: Annotated[
        list[str],
        typer.Argument(metavar="CLASSIFIER...", help="Classifiers' folders, or their runs'; NAME=FOLDER to name one."),
    ],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="HEADSTART_TOKEN", help="What clients have to show; better in the variable."),
    ] = None,
    max_body: Annotated[str, typer.Option(help="Of one request, such as 64MB.")] = "64MB",
    max_pixels: Annotated[int, typer.Option(help="Of one photo.")] = 100_000_000,
    max_photos: Annotated[int, typer.Option(help="Of one request.")] = 64,
    receive_timeout: Annotated[float, typer.Option(help="For a request to arrive, in seconds.")] = 30,
    queue: Annotated[int, typer.Option(help="Photos that may wait for a classifier.")] = 256,
    engine: EngineOption = "auto",
    log_requests: Annotated[bool, typer.Option("--log-requests", help="Print a line for each request.")] = False,
    cache: Cache = None,
    quiet: Quiet = False,
) -> None:
    """Serve classifiers over HTTP: a page to try them, JSON, and the Open Inference Protocol.

    Photos of many requests share the engine's batches. It needs the extra `serve`.
    """
    from headstart.console import Console
    from headstart.serve import serve_ready
    from headstart.serve.limits import Limits, parse_size

    _use_cache(cache)
    limits = Limits(parse_size(max_body), max_pixels, max_photos, receive_timeout, queue)
    run_serve = serve_ready()
    run_serve(classifiers, host, port, token, limits, engine, Console(quiet), log_requests)


@app.command()
def show(
    photos: Annotated[str, typer.Argument(help="What `train` takes; with --augmented also one photo.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A PNG file.")] = Path("samples.png"),
    augmented: Annotated[bool, typer.Option("--augmented", help="Show one photo's views instead.")] = False,
    photo: Annotated[
        str | None, typer.Option(help="The photo whose views to show.", show_default="one drawn by the seed")
    ] = None,
    augmentation: Annotated[
        Augmentation | None, typer.Option(help="Policy of the augmented views.", show_default="strong")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Of the views, in pixels.", show_default="as training's")
    ] = None,
    resize_policy: Annotated[
        ResizePolicy | None, typer.Option(help="How a photo becomes a square.", show_default="crop")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Which photos; and which views.")] = 0,
    cache: Cache = None,
) -> None:
    """Draw nine photos with their labels, or with --augmented nine views of one photo, as training sees it."""
    of_views = {"photo": photo, "augmentation": augmentation, "image_size": image_size, "resize_policy": resize_policy}
    choices: dict[str, Any] = {name: value for name, value in of_views.items() if value is not None}
    if choices and not augmented:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in choices)
        raise HeadstartError(f"{named}: for the views of one photo only.", "Add --augmented.")
    if output.suffix.lower() != ".png":
        raise HeadstartError(f"-o {output}: unknown suffix; expected .png.", "Name the file accordingly.")
    from headstart.report.figure import write_picture
    from headstart.report.pictures import show_samples, show_views

    _use_cache(cache)
    picture = show_views(photos, seed=seed, **choices) if augmented else show_samples(photos, seed)
    try:
        write_picture(picture, output)
    except OSError as error:
        raise HeadstartError(f"-o {output}: cannot be written: {error.strerror}.", "Choose another with -o.") from None
    print(output)


@app.command()
def export(
    classifier: Annotated[Path, typer.Argument(help="A classifier's folder, or its run's.")],
    export_format: Annotated[
        ExportFormat, typer.Option("--format", help="The library; pt2 is a torch.export program.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path("headstart-export"),
    photos: Annotated[
        str | None, typer.Option(help="Labelled photos to compare on.", show_default="those of the run")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Compute in 8-bit integers: onnx and openvino.")] = False,
    max_drop: Annotated[float, typer.Option(min=0.0, max=100.0, help="Points of accuracy that --int8 may cost.")] = 0.5,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a classifier for another library, with its labels and an example, once both give the same numbers."""
    from headstart.console import Console
    from headstart.export.export import export as run_export

    _use_cache(cache)
    console = Console(quiet, sys.stderr if as_json else None)
    exported = run_export(
        classifier, export_format.value, output, photos=photos, int8=int8, max_drop=max_drop, console=console
    )
    if as_json:
        print(json.dumps({"folder": str(exported.folder), **exported.told()}))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A finished run's folder.")]) -> None:
    """Make a run's report.html again, from the run folder's files."""
    from headstart.report.page import report_again

    print(report_again(run))


@app.command()
def compare(
    photos: Annotated[str, typer.Argument(help="As for `headstart train`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of all four runs.")] = Path(
        "headstart-compare"
    ),
    backbone: Annotated[str, typer.Option(help="See `headstart backbones`.")] = "lite0",
    weights: Annotated[str, typer.Option(help="Of all but the arm from scratch.")] = "imagenet",
    image_size: Annotated[int | None, typer.Option(help="Pixels.", show_default="the backbone's own")] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds of training for each arm, one epoch at least.", show_default="none")
    ] = None,
    scratch: Annotated[list[str] | None, typer.Option(help=ARM_HELP.format("epochs=10"))] = None,
    frozen: Annotated[list[str] | None, typer.Option(help=ARM_HELP.format("example_epochs=10"))] = None,
    tuned: Annotated[list[str] | None, typer.Option(help=ARM_HELP.format("learning_rate=0.001"))] = None,
    headstart: Annotated[list[str] | None, typer.Option(help=ARM_HELP.format("unfreeze=2"))] = None,
    seed: Annotated[int, typer.Option(help="Of the split and of all that is random.")] = 0,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train the same network from scratch, frozen, and fine-tuned as the Keras example does, then Headstart's way."""
    from headstart.comparison import compare as run_compare
    from headstart.console import Console

    given = {"scratch": scratch, "frozen": frozen, "tuned": tuned, "headstart": headstart}
    overrides = {name: _choices(name, pairs or []) for name, pairs in given.items()}
    for name in ("frozen", "tuned", "headstart"):
        overrides[name].setdefault("weights", weights)
    console = Console(quiet, sys.stderr if as_json else None)
    shared = {"backbone": backbone, "image_size": image_size, "seed": seed}
    table = run_compare(
        photos, output, overrides=overrides, time_limit=time_limit, cache=cache, console=console, **shared
    )
    if as_json:
        print(table.to_json(orient="records"))


def _choices(option: str, pairs: list[str]) -> dict[str, str]:
    """Read choices of a recipe given as NAME=VALUE."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise HeadstartError(f"--{option} {wrong[0]}: expected NAME=VALUE.", "For example: --scratch epochs=10")
    return {name.strip().replace("-", "_"): value for name, value in (pair.split("=", 1) for pair in pairs)}


@app.command()
def backbones(
    name: Annotated[str | None, typer.Argument(help="One of them.", show_default="all")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Its stages, its top, and what replaces it.")] = False,
    unfreeze: Annotated[str, typer.Option(help="What trains, as for `headstart train`.")] = "1",
    num_classes: Annotated[int, typer.Option(min=2, help="Of the classifier in the top's place.")] = 10,
) -> None:
    """List the backbones, and whether their weights are on this computer; or show what one is made of."""
    from headstart.network.backbones import backbone_named
    from headstart.network.summary import backbones_text, summary_text

    if name is None and not summary:
        print(backbones_text())
        return
    part = int(unfreeze) if unfreeze.isdecimal() else unfreeze
    print(summary_text(backbone_named(name or "lite0"), part, num_classes))


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is stored.")] = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Show where stored activations are and how much room they take, or clear them."""
    from headstart.cache import cache_folder, cache_size, clear_cache

    folder = cache_folder(cache)
    if clear:
        clear_cache(folder)
    sizes = cache_size(folder)
    if as_json:
        print(json.dumps({"folder": str(folder), "bytes": sizes}))
        return
    print(folder)
    for name, size in {**sizes, "total": sum(sizes.values())}.items():
        print(f"  {name:<12} {size / 1e6:,.1f} MB")


def _use_cache(folder: Path | None) -> None:
    """Let an option stand for the environment variable in this process."""
    if folder is not None:
        import os

        from headstart.cache import ENVIRONMENT_VARIABLE, cache_folder

        os.environ[ENVIRONMENT_VARIABLE] = str(cache_folder(folder))


def _version(show: bool) -> None:
    if show:
        from headstart import __version__

        print(f"headstart {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options before any command."""
    if context.invoked_subcommand is None:
        print(context.get_help())


# What the library that reads the command raises of a mistake in it; only its subclass has a public name everywhere.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line: user errors are told in a line or two, with exit code 2.

    Raises:
        KeyboardInterrupt: of Ctrl-C, which `headstart.__main__` tells, as it may come before this module is here.
    """
    from headstart.interruption import EXIT_CODE
    from headstart.training.process import prepare_process

    prepare_process()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk is told
    except HeadstartError as error:
        _refuse(str(error))
    except _UsageError as error:
        _refuse(_usage_text(error))
    except typer.Abort as error:
        # Older libraries raise this of Ctrl-C, newer ones return its exit code.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = EXIT_CODE
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does: nothing is wrong, and nothing more can be said.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        _refuse(
            f"{error.filename or 'the disk'}: {error.strerror}.\n"
            "Make room, or write elsewhere; what was done stays, and the same command goes on."
        )
    if code == EXIT_CODE:
        raise KeyboardInterrupt
    sys.exit(code)


def _refuse(text: str) -> NoReturn:
    print(f"headstart: {text}", file=sys.stderr)
    sys.exit(2)


def _usage_text(error: Any) -> str:
    """Return what is wrong with a command, as our own errors say it."""
    # The words that pydantic puts first say nothing to a user.
    problem = error.format_message().replace("Value error, ", "").replace("Input should be", "expected")
    command = error.ctx.command_path if error.ctx else "headstart"
    return f"{problem}\nSee `{command} --help`."

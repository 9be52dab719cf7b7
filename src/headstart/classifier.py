"""The artefact: a classifier as a folder, and its use.

`classifier.json` holds class names, preprocessing, backbone, versions and how it was trained;
`weights.safetensors` the network under timm's names, with its temperature built into the classifier;
`rejection.safetensors` what a photo is accepted or rejected by; `selftest.safetensors` a few inputs and the logits they
gave, which are compared on loading; `README.md` a model card. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.atomic import folder_written_whole, write_json, write_text
from headstart.errors import HeadstartError, listed
from headstart.evaluation.metrics import Probabilities, softmax
from headstart.evaluation.rejection import Rejection, distances_to
from headstart.network.backbones import backbone_named, build
from headstart.network.cut import last_boundary, prefix
from headstart.photos.decode import MAX_PIXELS, decode
from headstart.photos.drawing import seen
from headstart.photos.loading import batched, spread
from headstart.photos.views import Pixels, Preprocessing, evaluation_view
from headstart.training.engines import Engine, Outputs, choose_engine, open_engine

FORMAT_VERSION = 1
Floats = npt.NDArray[np.float32]

# How far an engine's logits may lie from the stored ones, as a share of their spread.
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one photo: its probabilities (num_classes,), or why it could not be read.

    `accepted` says whether its label is to be trusted, and `strangeness` is the higher the less so; None from a
    classifier that does not know when to reject.
    """

    path: str
    probabilities: Floats | None
    error: str = ""
    accepted: bool | None = None
    strangeness: float | None = None


class Classifier:
    """A trained network with its preprocessing and class names.

    Args:
        network: in float32, evaluation mode; its logits are in the order of `class_names`.
        class_names: in the order of the logits.
        preprocessing: how photos become the network's input.
        backbone: its name in the table of backbones.
        training: how it was trained and what it measured; JSON values.
        engine: what to run on.
        rejection: when a prediction is accepted.
    """

    def __init__(
        self,
        network: nn.Module,
        class_names: list[str],
        preprocessing: Preprocessing,
        backbone: str,
        training: dict[str, Any],
        engine: Literal["auto", "openvino", "torch"] = "auto",
        rejection: Rejection | None = None,
    ) -> None:
        self.network = network.eval()
        self.class_names = class_names
        self.preprocessing = preprocessing
        self.backbone = backbone
        self.training = training
        self.rejection = rejection
        self.engine_choice = choose_engine(engine)
        self._engine: Engine | None = None
        self._selftest: tuple[Pixels, Floats] | None = None

    def __repr__(self) -> str:
        return (
            f"Classifier({len(self.class_names)} classes: {listed(self.class_names)}; {self.backbone}, "
            f"{self.preprocessing.image_size} pixels)"
        )

    def predict(self, photos: Iterable[str | Path] | str | Path, top_k: int = 5) -> pd.DataFrame:
        """Classify photo files.

        Returns:
            A row a photo in the order given: path, label, probability (0 to 1), accepted (False where the label is
            likely wrong, or the photo is of none of the classes), error ("" where it could be read), then label_2,
            probability_2 and so on up to `top_k` or the number of classes. A photo that cannot be read has its reason
            in `error` and no label.
        """
        paths = [photos] if isinstance(photos, str | Path) else list(photos)
        return prediction_rows(list(self.stream(paths)), self.class_names, top_k)

    def predict_proba(self, photos: Iterable[str | Path] | str | Path | npt.NDArray[Any]) -> Probabilities:
        """Return (n, num_classes) float32 probabilities of photo files or of pixels.

        Args:
            photos: paths, or one (h, w, 3) or many (n, h, w, 3) RGB images of any size as uint8 in 0-255,
                which are resized as photos are.

        Raises:
            HeadstartError: when the array is not uint8 RGB, or when a photo cannot be read (`predict` has a
                row with its error instead).
        """
        if isinstance(photos, np.ndarray):
            return self._probabilities_of(self.view(image) for image in _checked_array(photos))
        paths = [photos] if isinstance(photos, str | Path) else list(photos)
        predictions = list(self.stream(paths))
        unread = [f"{prediction.path} ({prediction.error})" for prediction in predictions if prediction.error]
        if unread:
            raise HeadstartError(
                f"cannot read {listed(unread)}; expected photos only.",
                "Leave them out, or use predict(), which returns a row with the error for each.",
            )
        found = [prediction.probabilities for prediction in predictions if prediction.probabilities is not None]
        return np.stack(found) if found else np.empty((0, len(self.class_names)), np.float32)

    def stream(self, paths: Iterable[str | Path]) -> Iterator[Prediction]:
        """Classify photo files one after another, in order and in bounded memory.

        Many photos in a list are decoded in processes; those from an iterator, whose number is not known, in threads.
        """
        count = len(paths) if isinstance(paths, Sequence) else 0
        waiting: list[Prediction | None] = []  # in order; None stands for a photo that is in the engine

        def readable() -> Iterator[tuple[str, Pixels]]:
            for path, view in spread(paths, partial(seen, preprocessing=self.preprocessing), count):
                if isinstance(view, str):
                    waiting.append(Prediction(path, None, view))
                else:
                    waiting.append(None)
                    yield path, view

        engine = self.engine()
        for tags, outputs in engine.run(batched(readable(), engine.batch_size)):
            for prediction in self.predictions(tags, outputs):
                while (failed := waiting.pop(0)) is not None:
                    yield failed
                yield prediction
        yield from (failed for failed in waiting if failed is not None)

    def view(self, photo: bytes | npt.NDArray[np.uint8], max_pixels: int = MAX_PIXELS) -> Pixels:
        """Return the network's view of a photo: (image_size, image_size, 3) uint8, RGB in 0-255.

        Args:
            photo: the bytes of an image file, or (h, w, 3) RGB in 0-255 of any size.
            max_pixels: the most that a file's image may have.

        Raises:
            PhotoError: when the file cannot be decoded whole, or has more pixels.
        """
        if isinstance(photo, np.ndarray):
            from PIL import Image

            return evaluation_view(Image.fromarray(photo), self.preprocessing)
        return evaluation_view(decode(photo, self.preprocessing.decode_short_side, max_pixels), self.preprocessing)

    def engine(self) -> Engine:
        """Return the engine that this classifier runs on; it is opened, and put to the self-test, at the first call.

        Its outputs, logits and features, are what `predictions` takes.

        Raises:
            HeadstartError: when it gives other logits than the classifier did when it was saved.
        """
        if self._engine is None:
            from headstart.cache import cache_folder

            whole = _Whole(self.network, self.preprocessing)
            size = self.preprocessing.image_size
            engine = open_engine(self.engine_choice, whole, size, cache_folder())
            if self._selftest is not None:
                pixels, expected = self._selftest
                found = [rows for _, (rows, _) in engine.run(batched(enumerate(pixels), engine.batch_size))]
                name = f"engine {self.engine_choice.name}"
                _compare(np.concatenate(found), expected, name, _TOLERANCE[self.engine_choice.precision])
            self._engine = engine
        return self._engine

    def predictions(self, paths: Sequence[str], outputs: Outputs) -> list[Prediction]:
        """Say what the engine's outputs of one batch mean: a prediction for each of its photos, in order.

        Args:
            paths: of the batch's photos, or other names for them.
            outputs: logits (n, num_classes) and features (n, num_features), as the engine gave them.
        """
        logits, features = outputs
        probabilities = softmax(logits)
        accepted, strangeness = self._accepted(probabilities, features)
        rows = zip(paths, probabilities, accepted, strangeness, strict=True)
        return [Prediction(path, row, "", trusted, strange) for path, row, trusted, strange in rows]

    def save(self, folder: Path) -> None:
        """Write the classifier's folder, whole or not at all."""
        pixels, logits = self.selftest()
        with folder_written_whole(folder) as draft:
            tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
            save_file(tensors, draft / "weights.safetensors")
            selftest = {"pixels": torch.from_numpy(pixels), "logits": torch.from_numpy(logits)}
            save_file(selftest, draft / "selftest.safetensors")
            if self.rejection is not None:
                directions = torch.from_numpy(self.rejection.directions)
                save_file({"directions": directions}, draft / "rejection.safetensors")
            write_json(
                draft / "classifier.json",
                {
                    "format": FORMAT_VERSION,
                    "class_names": self.class_names,
                    "backbone": self.backbone,
                    "preprocessing": self.preprocessing.model_dump(mode="json"),
                    "rejection": self.rejection.settings() if self.rejection else None,
                    "versions": versions(),
                    "training": self.training,
                },
            )
            from headstart.report.card import model_card

            write_text(draft / "README.md", model_card(self))
            for file in draft.glob("*.safetensors"):
                # safetensors makes them for the owner alone; who may read the rest, a server's account, needs them.
                shutil.copymode(draft / "classifier.json", file)

    def check(self) -> None:
        """Compare the network's logits on the self-test's inputs with those it gave when it was saved.

        Raises:
            HeadstartError: when they differ.
        """
        if self._selftest is None:
            return
        pixels, expected = self._selftest
        _compare(self.reference_logits(pixels), expected, "PyTorch", _TOLERANCE["float32"])

    def selftest(self) -> tuple[Pixels, Floats]:
        """Return the self-test: (n, image_size, image_size, 3) uint8 inputs and the (n, num_classes) logits they gave.

        A new classifier's are made from smooth random fields: they excite the network, and no user's photo leaves
        with it.
        """
        if self._selftest is not None:
            return self._selftest
        from PIL import Image

        draw = np.random.default_rng(0)
        size = self.preprocessing.image_size
        fields = draw.integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
        pixels = np.stack([np.asarray(Image.fromarray(field).resize((size, size))) for field in fields])
        return pixels, self.reference_logits(pixels)

    def reference_logits(self, pixels: Pixels) -> Floats:
        """Return the logits (n, num_classes) that PyTorch gives for (n, image_size, image_size, 3) RGB in 0-255."""
        return self.reference_outputs(pixels)[0]

    @torch.inference_mode()
    def reference_outputs(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Return what `reference_logits` does, and the (n, num_features) pooled features below them."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        logits, features = _Whole(self.network, self.preprocessing)(images)
        return logits.numpy(), features.numpy()

    def _probabilities_of(self, views: Iterable[Pixels]) -> Probabilities:
        engine = self.engine()
        parts = [softmax(logits) for _, (logits, _) in engine.run(batched(enumerate(views), engine.batch_size))]
        return np.concatenate(parts) if parts else np.empty((0, len(self.class_names)), np.float32)

    def _accepted(self, probabilities: Probabilities, features: Floats) -> tuple[Sequence[Any], Sequence[Any]]:
        """Say for each photo whether to accept its label, and how strange it is; None where that is not known."""
        if self.rejection is None:
            return [None] * len(features), [None] * len(features)
        confidence, distances = probabilities.max(axis=1), distances_to(self.rejection.directions, features)
        accepted = self.rejection.accepts(confidence, distances)
        return accepted.tolist(), self.rejection.strangeness(confidence, distances).tolist()


class _Whole(nn.Module):
    """The whole network behind its normalisation: pixels in 0-255 to logits, and to the pooled features below them."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.features = prefix(network, last_boundary(network), preprocessing)
        self.classifier = network.get_submodule("classifier")
        self.eval().requires_grad_(False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(pixels)
        return self.classifier(features), features


def load(folder: str | Path, engine: Literal["auto", "openvino", "torch"] = "auto") -> Classifier:
    """Load a classifier's folder and run its self-test.

    Raises:
        HeadstartError: when the folder is not a classifier, is damaged, or gives other logits than it did.
    """
    path = Path(folder)
    if not path.exists():
        raise HeadstartError(f"{path}: no such folder; expected a classifier or its run.", "Give its folder.")
    if not (path / "classifier.json").exists() and (path / "classifier" / "classifier.json").exists():
        path = path / "classifier"  # a run folder will do
    try:
        record = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
        if record["format"] > FORMAT_VERSION:
            raise HeadstartError(
                f"{path}: was written by a newer Headstart (format {record['format']}, expected {FORMAT_VERSION}).",
                "Install that version: pip install --upgrade headstart.",
            )
        network = build(backbone_named(record["backbone"]), len(record["class_names"]))
        network.load_state_dict(load_file(path / "weights.safetensors"))
        classifier = Classifier(
            network,
            record["class_names"],
            Preprocessing(**record["preprocessing"]),
            record["backbone"],
            record["training"],
            engine,
            _read_rejection(path, record.get("rejection")),
        )
        with safe_open(path / "selftest.safetensors", "numpy") as file:
            classifier._selftest = file.get_tensor("pixels"), file.get_tensor("logits")
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else str(error)
        raise HeadstartError(
            f"{folder}: is not a classifier ({missing} is missing); expected the classifier folder of a run.",
            "Give RUN/classifier of a finished `headstart train PHOTOS -o RUN`.",
        ) from None
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HeadstartError(f"{folder}: is damaged: {reason}.", "Copy it again whole, or train again.") from None
    classifier.check()
    return classifier


def _read_rejection(path: Path, settings: dict[str, Any] | None) -> Rejection | None:
    if settings is None:
        return None
    return Rejection.read(settings, load_file(path / "rejection.safetensors")["directions"].numpy())


def prediction_rows(predictions: list[Prediction], class_names: list[str], top_k: int) -> pd.DataFrame:
    """Make the table of `Classifier.predict`."""
    shown = max(1, min(top_k, len(class_names)))
    names = np.array(class_names, dtype=object)
    rows: list[list[Any]] = []
    for prediction in predictions:
        if prediction.probabilities is None:
            rows.append([prediction.path, None, None, None, prediction.error, *[None] * (2 * (shown - 1))])
            continue
        order = np.argsort(-prediction.probabilities, kind="stable")[:shown]
        best = [(names[i], float(prediction.probabilities[i])) for i in order]
        rest = [value for pair in best[1:] for value in pair]
        rows.append([prediction.path, *best[0], prediction.accepted, "", *rest])
    columns = ["path", "label", "probability", "accepted", "error"]
    columns += [f"{kind}_{rank}" for rank in range(2, shown + 1) for kind in ("label", "probability")]
    return prediction_types(pd.DataFrame(rows, columns=columns, dtype=object))


def prediction_types(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table of predictions its types, which do not depend on whether all rows lack a value."""
    kinds = {name: "float64" for name in table.columns if name.startswith("probability")}
    return table.astype({**kinds, "accepted": "boolean"})


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on, as far as it is installed."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("headstart", "torch", "timm", "openvino", "pillow", "numpy"):
        with suppress(PackageNotFoundError):  # OpenVINO may be
            found[name] = version(name)
    return found


def _checked_array(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    images = pixels[None] if pixels.ndim == 3 else pixels
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise HeadstartError(
            f"array of shape {pixels.shape} and type {pixels.dtype}; expected (n, height, width, 3) uint8, "
            "RGB in 0-255, not scaled and not normalised.",
            "For pixels in 0-1, pass (pixels * 255).round().astype('uint8').",
        )
    return images


def _compare(found: Floats, expected: Floats, what: str, tolerance: float) -> None:
    spread = max(1e-3, float(expected.max() - expected.min()))
    difference = float(np.abs(found - expected).max()) / spread
    if not difference <= tolerance:
        raise HeadstartError(
            f"self-test failed: {what} gives logits that differ by {difference:.2g} of their spread from those "
            f"stored with the classifier; expected at most {tolerance:.2g}.",
            "The classifier is damaged, or a library computes something else: see its versions in classifier.json.",
        )

"""A peer: the Keras example "Image classification via fine-tuning with EfficientNet" in Keras itself, for its speed.

`keras.applications` has EfficientNetB0, whose weights are a download; random ones take as long, so there is no
accuracy. Each stage's first epochs are run, and the rest is taken to last as long as the last of them: **its time is
extrapolated**. The example validates in every epoch; here it does not, which is to its advantage.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from keras import layers

from peer import Result, parser, seconds_since_start

IMAGE_SIZE, BATCH_SIZE = 224, 64


def main() -> None:
    options = _options()
    keras.utils.set_random_seed(options.seed)
    photos, num_classes = training_photos(options)
    model = frozen_model(num_classes)
    compile_for(model, 1e-2)
    beyond = fit(model, photos, options.epochs_frozen, options.measured_epochs)
    unfreeze(model)
    compile_for(model, 1e-4)
    beyond += fit(model, photos, options.epochs_tuned, options.measured_epochs)
    model.save(options.result.with_suffix(".keras"))
    epochs = f"{options.measured_epochs} of {options.epochs_frozen} and of {options.epochs_tuned} epochs"
    notes = f"EfficientNetB0; time extrapolated from {epochs}; random weights, so no accuracy"
    Result(None, seconds_since_start() + beyond, notes).write(options.result)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--epochs-frozen", type=int, default=25, help="(25)")
    options.add_argument("--epochs-tuned", type=int, default=10, help="(10)")
    options.add_argument("--measured-epochs", type=int, default=2, help="of each stage; the rest is extrapolated (2)")
    return options.parse_args()


def training_photos(options: argparse.Namespace) -> tuple[tf.data.Dataset, int]:
    """Return the training photos in batches, squashed and augmented as in the example, and the number of classes."""
    photos = keras.utils.image_dataset_from_directory(
        options.photos / "train",
        label_mode="categorical",
        image_size=(IMAGE_SIZE, IMAGE_SIZE),
        batch_size=BATCH_SIZE,
        seed=options.seed,
    )
    augmentation = [
        layers.RandomRotation(factor=0.15),
        layers.RandomTranslation(height_factor=0.1, width_factor=0.1),
        layers.RandomFlip(),
        layers.RandomContrast(factor=0.1),
    ]

    def augmented(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for layer in augmentation:
            images = layer(images)
        return images, labels

    return photos.map(augmented, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE), len(
        photos.class_names
    )


def frozen_model(num_classes: int) -> keras.Model:
    """Build the example's model: the frozen network, and its head, which trains."""
    inputs = layers.Input(shape=(IMAGE_SIZE, IMAGE_SIZE, 3))
    body = keras.applications.EfficientNetB0(include_top=False, input_tensor=inputs, weights=None)
    body.trainable = False
    values = layers.GlobalAveragePooling2D(name="avg_pool")(body.output)
    values = layers.BatchNormalization()(values)
    values = layers.Dropout(0.2, name="top_dropout")(values)
    outputs = layers.Dense(num_classes, activation="softmax", name="pred")(values)
    return keras.Model(inputs, outputs, name="EfficientNet")


def unfreeze(model: keras.Model) -> None:
    """Let the last 20 layers train, but not their batch normalisation."""
    for layer in model.layers[-20:]:
        if not isinstance(layer, layers.BatchNormalization):
            layer.trainable = True


def compile_for(model: keras.Model, learning_rate: float) -> None:
    """Set the optimiser and the loss.

    Keras compiles with XLA by itself, which on a CPU took over ten times as long as TensorFlow's own kernels (128
    photos, two cores): it is turned off, to the peer's advantage.
    """
    optimiser = keras.optimizers.Adam(learning_rate=learning_rate)
    model.compile(optimizer=optimiser, loss="categorical_crossentropy", metrics=["accuracy"], jit_compile=False)


class Timer(keras.callbacks.Callback):
    """Keeps how long the last epoch took."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self._started


def fit(model: keras.Model, photos: tf.data.Dataset, epochs: int, measured: int) -> float:
    """Train for the measured epochs; return the seconds that the others would take.

    The first epoch also compiles, so the last one measured stands for those that are not run.
    """
    timer = Timer()
    model.fit(photos, epochs=min(measured, epochs), verbose=2, callbacks=[timer])
    return timer.seconds * max(0, epochs - measured)


if __name__ == "__main__":
    main()

"""Backbones: MobileNet, which others trained on a million photos, cut where one likes, and a head on its features.

The network is that of Howard et al. 2017, arXiv:1704.04861, as `keras.applications` has it. It takes three channels
from -1 to 1. Its photos are those of ImageNet, 1,000 classes.
"""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import cnn
from helpers.datasets import PHOTO_SIZES, fetch
from helpers.experiment import result_row
from helpers.files import check_size
from helpers.images import Split
from helpers.messages import listed
from helpers.store import sha256
from helpers.tasks import Task, subsample
from helpers.training import Recipe, Trainer, Training, predict
from helpers.transfer import Features, Row, target_seed

if TYPE_CHECKING:
    import keras
    from sklearn.preprocessing import StandardScaler

WIDTHS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}  # as the published files spell them
PARAMETERS = {0.25: 218_544, 0.5: 829_536, 0.75: 1_832_976, 1.0: 3_228_864}  # without the top, by width
WEIGHTS = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/"
BLOCKS = 13


def weights_file(width: float = 0.25, weights: str = "imagenet") -> Path | None:
    """Return the file of MobileNet's weights without its top, None for `"random"`.

    `"imagenet"` is the published file for 224 pixels, which fits every size: from `$TRANSFER_TUTORIAL_DATA`, else from
    Keras's cache, after fetching it there. Anything else is the path of such a file. Only numbers are read from it.
    Raises ValueError for another width or file, DownloadError if the published one cannot be had.
    """
    if isinstance(width, bool) or width not in WIDTHS:
        raise ValueError(f"backbone_width: {width!r} has no published weights; allowed are {listed(WIDTHS)}")
    if weights == "random":
        return None
    if weights == "imagenet":
        name = f"mobilenet_{WIDTHS[width]}_224_tf_no_top.h5"
        instead = "set TRANSFER_TUTORIAL_DATA to a folder that holds it"
        path = fetch("models", name, WEIGHTS + name, "backbone_weights", f"MobileNet's {name}", instead)
    else:
        path = Path(os.path.expanduser(str(weights)))
        if not path.is_file():
            raise ValueError(f'backbone_weights: there is no file {weights!r}; give "imagenet", "random" or a file')
    if _parameters(path) != PARAMETERS[width]:
        raise ValueError(
            f"backbone_weights: {path.name!r} is damaged or holds something else than the weights of MobileNet of "
            f"width {width} without its top; give that .h5 file as Keras publishes it"
        )
    return path


def weights_facts(width: float, weights: str) -> dict[str, str | None]:
    """Return what a run records of its backbone: the file of the weights and its SHA-256, None for random weights."""
    path = weights_file(width, weights)
    return {"file": path.name if path else None, "sha256": sha256(path) if path else None}


def mobilenet(size: int, width: float = 0.25, weights: Path | None = None, seed: int = 0) -> "keras.Model":
    """Build MobileNet without its top for images `(size, size, 3)` from -1 to 1; without weights, `seed` draws them."""
    from helpers.backend import keras

    check_size(size, "photo_size", PHOTO_SIZES)
    model = keras.applications.MobileNet(
        input_shape=(size, size, 3), alpha=width, include_top=False, weights=weights and str(weights)
    )
    if weights is None:
        cnn.initialize(model, seed)
    return model


def extractor(
    backbone: "keras.Model",
    image_shape: tuple[int, int, int],
    block: int = BLOCKS,
    rescale: bool = True,
    pooled: bool = True,
) -> "keras.Model":
    """Return a network from images as they come, uint8 of one or three channels, to feature maps after a block.

    It enlarges and rescales the images, and averages each map over its four quarters, those of the last block, of
    which the photo is all that is left, as a whole: `(2, 2, channels)` and `(1, 1, channels)`. Without `rescale` the
    backbone is fed 0 to 255; without `pooled` the maps stay as they are.
    """
    from helpers.backend import keras

    size, layers = backbone.input_shape[1], keras.layers
    image = keras.Input(image_shape, dtype="uint8")
    photo = image if image_shape[0] == size else layers.Resizing(size, size)(image)
    if image_shape[2] == 1:
        photo = layers.Concatenate()([photo] * 3)
    photo = layers.Rescaling(1 / 127.5, offset=-1)(photo) if rescale else layers.Rescaling(1)(photo)
    until = keras.Model(backbone.input, backbone.get_layer(f"conv_pw_{block}_relu").output)
    maps = until(photo, training=False)
    if not pooled:
        return keras.Model(image, maps)
    if block == BLOCKS:
        return keras.Model(image, layers.GlobalAveragePooling2D(keepdims=True)(maps))
    return keras.Model(image, layers.AveragePooling2D(max(1, maps.shape[1] // 2))(maps))


class Head:
    """The course's head on features of a backbone, compiled once, and trained from fresh weights any number of times.

    Each feature is shifted and scaled to mean 0 and standard deviation 1 over the training images first: those of an
    untrained backbone are near 1e-16, on which no head learns. `scaler` keeps how, for the last training.
    """

    def __init__(self, feature_shape: tuple[int, int, int], architecture: cnn.Architecture, recipe: Recipe) -> None:
        from helpers.backend import keras

        layers = [keras.Input(feature_shape), *cnn.head_layers(architecture)]
        self.trainer = Trainer(keras.Sequential(layers, name="head"), recipe)
        self.scaler: StandardScaler

    def train(self, train: Split, test: Split, seed: int) -> tuple[Training, np.ndarray]:
        """Train on features with their labels; return the training and the probabilities for the test features.

        What is drawn follows from `target_seed(seed)`, as for the other networks of the course.
        """
        from sklearn.preprocessing import StandardScaler

        self.scaler = StandardScaler().fit(_flat(train))
        draws = target_seed(seed)
        cnn.initialize(self.trainer.model, draws)
        training = self.trainer.train(self._scaled(train), draws)
        return training, predict(self.trainer.model, self._scaled(test).images)

    def row(
        self, task: Task, strategy: str, labels_per_class: int | str, seed: int, train: Features, test: Features
    ) -> tuple[Row, np.ndarray]:
        """Train at a label budget, drawn from the features of the training images; return the result row and the
        probabilities for the test images.
        """
        few = subsample(train, labels_per_class, seed)
        training, probabilities = self.train(few, test, seed)
        training = replace(training, extract_seconds=train.seconds * len(few) / len(train))
        return result_row(task, strategy, labels_per_class, seed, training, probabilities), probabilities

    def network(self) -> "keras.Model":
        """Return the head as it was last trained, with its shift and scale as a layer: features to probabilities."""
        from helpers.backend import keras

        model, scaler = self.trainer.model, self.scaler
        shift, scale = (moments.reshape(model.input_shape[1:]) for moments in (scaler.mean_, scaler.scale_**2))
        scaled = keras.layers.Normalization((1, 2, 3), mean=shift, variance=scale)
        return keras.Sequential([keras.Input(model.input_shape[1:]), scaled, *model.layers], name="scaled_head")

    def _scaled(self, features: Split) -> Split:
        return Split(self.scaler.transform(_flat(features)).reshape(features.images.shape), features.labels)


def _flat(features: Split) -> np.ndarray:
    return features.images[:].reshape(len(features), -1)


def _parameters(path: Path) -> int:
    """Count the numbers in all arrays of an HDF5 file, none if it is no such file; reads none of them."""
    import h5py

    found = list[int]()
    with suppress(OSError, RuntimeError, ValueError, KeyError), h5py.File(path) as file:
        file.visititems(lambda _, item: found.append(getattr(item, "size", None) or 0))  # a group has none
    return sum(found) if path.suffix in (".h5", ".hdf5") else 0  # by which Keras knows how to read it

"""Backbones: MobileNet, pretrained on a million photos and cut at a chosen depth, with a head on its features.

The network is MobileNet (Howard et al. 2017, arXiv:1704.04861) as built by `keras.applications`. It takes images with
three channels and values from -1 to 1, and was trained on ImageNet's 1,000 classes.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers import cnn
from helpers.datasets import fetch
from helpers.experiment import Plan, compare, result_row
from helpers.files import as_uint8, check_size
from helpers.folders import PACKAGE
from helpers.images import Dataset, Split
from helpers.messages import listed
from helpers.photos import SIZES, Photos
from helpers.store import sha256
from helpers.tasks import Task, budgets_for, subsample
from helpers.training import Recipe, Trainer, Training, predict
from helpers.transfer import STRATEGIES, Features, Networks, Repetition, Row, extract_features, target_seed

if TYPE_CHECKING:
    import keras
    from sklearn.preprocessing import StandardScaler

WIDTHS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}  # as written in the names of the published files
PARAMETERS = {0.25: 218_544, 0.5: 829_536, 0.75: 1_832_976, 1.0: 3_228_864}  # without the top, by width
WEIGHTS = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/"
PACKAGED = PACKAGE / "data" / "mobilenet_2_5_224_tf_no_top.h5"
PACKAGED_SHA256 = "dbdb03ee2a22fd895301636cd328b234bb3a9952358f436d82f46b81e0d5b0bf"
BLOCKS = 13
CUTS = {3: (4, 4), 6: (2, 2), BLOCKS: (2, 1)}  # for digits: rows and columns to which a block's maps are averaged
SMALL = 32  # pixels: size of photos for the course's small network


def weights_file(width: float = 0.25, weights: str = "imagenet") -> Path | None:
    """Return the path of the weights file for MobileNet without its top, or None for `"random"`.

    `"imagenet"` means the published file for 224 pixels, which works at every size. The file for width 0.25 comes with
    the package; files for other widths come from `$TRANSFER_TUTORIAL_DATA`, or are downloaded into Keras's cache. Any
    other `weights` are the path of a weights file, of which only the arrays are read, never any code. Raises ValueError
    for an unknown width or a damaged file, and DownloadError if the published file cannot be downloaded.
    """
    if isinstance(width, bool) or width not in WIDTHS:
        raise ValueError(f"backbone_width: {width!r} has no published weights; allowed: {listed(WIDTHS)}")
    if weights == "random":
        return None
    if weights != "imagenet":
        path = Path(os.path.expanduser(str(weights)))
        if not path.is_file():
            raise ValueError(f'backbone_weights: there is no file {weights!r}; use "imagenet", "random" or a path')
    elif width == 0.25:
        path = PACKAGED
    else:
        name = f"mobilenet_{WIDTHS[width]}_224_tf_no_top.h5"
        instead = "set TRANSFER_TUTORIAL_DATA to a folder that contains it"
        path = fetch("models", name, WEIGHTS + name, "backbone_weights", f"MobileNet's {name}", instead)
    count, whole = _numbers(path)
    others = {number: other for other, number in PARAMETERS.items() if other != width}
    if whole and count in others:
        raise ValueError(
            f"backbone_weights: {path.name!r} is for backbone_width {others[count]}, not {width}; change one of them"
        )
    if not whole or count != PARAMETERS[width] or (path.name == PACKAGED.name and sha256(path) != PACKAGED_SHA256):
        raise ValueError(
            f"backbone_weights: {path.name!r} is damaged or does not contain MobileNet's weights for width {width} "
            "without the top; use the .h5 file that Keras publishes"
        )
    return path


def _numbers(path: Path) -> tuple[int, bool]:
    """Count the numbers in an HDF5 file's arrays, and tell whether the file is readable and all numbers are finite."""
    import h5py

    found = list[np.ndarray]()
    try:
        with h5py.File(path) as file:
            file.visititems(lambda _, item: found.append(np.ravel(item)) if isinstance(item, h5py.Dataset) else None)
        known = path.suffix in (".h5", ".hdf5")  # Keras chooses its reader by the suffix
        return sum(map(len, found)), known and all(np.isfinite(numbers).all() for numbers in found)
    except Exception:  # h5py and NumPy raise a dozen kinds of errors for damaged files
        return 0, False


def weights_facts(width: float, weights: str) -> dict[str, str | None]:
    """Return the record of a run's backbone: the weights file and its SHA-256, both None for random weights."""
    path = weights_file(width, weights)
    return {"file": path.name if path else None, "sha256": sha256(path) if path else None}


def mobilenet(size: int, width: float = 0.25, weights: Path | None = None, seed: int = 0) -> "keras.Model":
    """Build MobileNet without its top, for images `(size, size, 3)` with values from -1 to 1.

    Without a weights file, the weights are random and depend on `seed`.
    """
    from helpers.backend import keras

    check_size(size, SIZES)
    model = keras.applications.MobileNet(
        input_shape=(size, size, 3), alpha=width, include_top=False, weights=weights and str(weights)
    )
    if weights is None:
        cnn.initialize(model, seed)
    return model


def extractor(
    backbone: "keras.Model",
    image_shape: tuple[int, ...],
    block: int = BLOCKS,
    cells: tuple[int, int] | None = None,
) -> "keras.Model":
    """Return a network that turns raw images, uint8 with one or three channels, into the feature maps after a block.

    It enlarges and rescales the images, then averages each map down to the rows and columns in `cells`: 2 x 2 by
    default, or a single cell after the last block. Its output for each image is `(rows, columns, channels)`.
    """
    from helpers.backend import keras

    size, layers = backbone.input_shape[1], keras.layers
    image = keras.Input(image_shape, dtype="uint8")
    photo = image if image_shape[0] == size else layers.Resizing(size, size)(image)
    if image_shape[2] == 1:
        photo = layers.Concatenate()([photo] * 3)
    until = keras.Model(backbone.input, backbone.get_layer(f"conv_pw_{block}_relu").output)
    maps = until(layers.Rescaling(1 / 127.5, offset=-1)(photo), training=False)
    rows, columns = cells or ((1, 1) if block == BLOCKS else (2, 2))
    height, width = maps.shape[1:3]
    return keras.Model(image, layers.AveragePooling2D((max(1, height // rows), max(1, width // columns)))(maps))


class Head:
    """The course's head on a backbone's features, compiled once, then trained from fresh weights any number of times.

    Each feature is first standardized over the training images, because an untrained backbone's features are around
    1e-16, too small for a head to learn from. `scaler` comes from the latest training run.
    """

    def __init__(self, feature_shape: tuple[int, int, int], architecture: cnn.Architecture, recipe: Recipe) -> None:
        from helpers.backend import keras

        layers = [keras.Input(feature_shape), *cnn.head_layers(architecture)]
        self.trainer = Trainer(keras.Sequential(layers, name="head"), recipe)
        self.scaler: StandardScaler

    def train(self, train: Split, test: Split, seed: int) -> tuple[Training, np.ndarray]:
        """Train on labeled features; return the training record and the probabilities for the test features.

        All random draws come from `target_seed(seed)`, as they do for the course's other networks.
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
        """Train on a label budget drawn from the training features; return the result row and test probabilities."""
        few = subsample(train, labels_per_class, seed)
        training, probabilities = self.train(few, test, seed)
        training = replace(training, extract_seconds=train.seconds * len(few) / len(train))
        return result_row(task, strategy, labels_per_class, seed, training, probabilities), probabilities

    def _scaled(self, features: Split) -> Split:
        return Split(self.scaler.transform(_flat(features)).reshape(features.images.shape), features.labels)


def _flat(features: Split) -> np.ndarray:
    return features.images[:].reshape(len(features), -1)


def compare_cuts(
    dataset: Dataset, plan: Plan, architecture: cnn.Architecture, recipe: Recipe, folder: Path, backbone: "keras.Model"
) -> pd.DataFrame:
    """Return the rows of `experiment.compare`, plus rows for heads on a backbone cut at three depths.

    All heads get the same number of features per image: if a cut has more maps, each is averaged over larger areas.
    """
    comparison = compare(dataset, plan, architecture, recipe, folder)
    rows = list[Row]()
    for block, cells in CUTS.items():
        cut = extractor(backbone, dataset.train.images.shape[1:], block, cells)
        head = Head(cut.output_shape[1:], replace(architecture, classes=len(plan.target_classes)), recipe)
        test = extract_features(cut, comparison.target.test, "float32")
        for seed in plan.seeds:
            _, target = plan.tasks(dataset, seed)
            for budget in plan.labels_per_class:  # drawn from all images, like the images of the other strategies
                train = extract_features(cut, subsample(target.train, budget, seed), "float32")
                rows.append(head.row(target, f"block {block}", budget, seed, train, test)[0])
    return pd.concat([comparison.results, pd.DataFrame(rows)], ignore_index=True)


def compare_photos(
    photos: Photos,
    labels_per_class: Sequence[int | str],
    seeds: Sequence[int],
    architecture: cnn.Architecture,
    recipe: Recipe,
    backbone: "keras.Model",
) -> pd.DataFrame:
    """Train three strategies on photos, and return one row per training run.

    `frozen` is a head on the backbone, `random-frozen` the same head on the same network with random weights, and
    `scratch` the course's small network on 32-pixel photos. A budget larger than the smallest class becomes "all".
    """
    from helpers.backend import keras

    small = replace(photos, images=as_uint8(photos.images, "a photo", SMALL))
    architecture = replace(architecture, image_shape=small.images.shape[1:], classes=len(photos.classes))
    networks, everything = Networks(architecture, recipe), Split(photos.images, photos.labels)
    shape = photos.images.shape[1:]
    untrained = keras.models.clone_model(backbone)
    known, control = extractor(backbone, shape), extractor(untrained, shape)
    head = Head(known.output_shape[1:], architecture, recipe)
    frozen = extract_features(known, everything, "float32")
    rows = list[Row]()
    for seed in tqdm(seeds, desc="seeds"):
        cnn.initialize(untrained, target_seed(seed))
        features = {"frozen": frozen, "random-frozen": extract_features(control, everything, "float32")}
        (train, _, test), task = photos.split(seed), small.task(seed)
        for budget in budgets_for(task.train, labels_per_class):
            images = subsample(task.train, budget, seed)
            training, scores = networks.train(STRATEGIES["scratch"], Repetition(seed, task), images)
            rows.append(result_row(task, "scratch", budget, seed, training, scores))
            for name, of_all in features.items():
                parts = (replace(of_all, images=of_all.images[n], labels=of_all.labels[n]) for n in (train, test))
                rows.append(head.row(task, name, budget, seed, *parts)[0])
    return pd.DataFrame(rows)

"""The network: a feature extractor with two convolutions, a classifier head, and the two joined together.

The extractor ends at the max-pool, and the head starts with dropout, so the extractor's output is a fixed function of
the image and can be cached. Dropout still acts on the cached output in every update.
"""

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from helpers.messages import check_counts

if TYPE_CHECKING:
    import keras

CONVOLUTIONS = ("conv1", "conv2")
LAST_FEATURE_LAYER = "pool"


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network; the defaults are the published ones. `image_shape` is `(height, width, channels)`;
    kernels and pools are square.
    """

    image_shape: tuple[int, ...] = (28, 28, 1)
    classes: int = 5
    filters: int = 32
    kernel_size: int = 3
    pool_size: int = 2
    dense_units: int = 128

    def __post_init__(self) -> None:
        """Raise ValueError for a size below 1, or an image too small for the convolutions and the pool."""
        sizes = ("filters", "kernel_size", "pool_size", "dense_units")
        check_counts(**{name: getattr(self, name) for name in sizes})
        size = min(self.image_shape[:2])
        if size - 2 * (self.kernel_size - 1) < self.pool_size:
            raise ValueError(
                f"kernel_size: {self.kernel_size} and pool_size {self.pool_size} leave nothing of an image of {size} "
                "pixels after two convolutions; use smaller sizes"
            )


def feature_layers(architecture: Architecture) -> list["keras.Layer"]:
    """Return the layers of the feature extractor, from images to feature maps; all of them are deterministic."""
    from helpers.backend import keras

    return [
        keras.layers.Rescaling(1 / 255, name="rescale"),
        keras.layers.Conv2D(architecture.filters, architecture.kernel_size, name="conv1"),
        keras.layers.ReLU(name="relu1"),
        keras.layers.Conv2D(architecture.filters, architecture.kernel_size, name="conv2"),
        keras.layers.ReLU(name="relu2"),
        keras.layers.MaxPooling2D(architecture.pool_size, name=LAST_FEATURE_LAYER),
    ]


def head_layers(architecture: Architecture) -> list["keras.Layer"]:
    """Return the layers of the classifier head, from feature maps to one probability per class."""
    from helpers.backend import keras

    return [
        keras.layers.Dropout(0.25, name="dropout1"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(architecture.dense_units, name="dense1"),
        keras.layers.ReLU(name="relu3"),
        keras.layers.Dropout(0.2, name="dropout2"),
        keras.layers.Dense(architecture.classes, activation="softmax", name="scores"),
    ]


def build_cnn(architecture: Architecture, seed: int = 0) -> "keras.Sequential":
    """Build the whole network, from uint8 images to probabilities, with initial weights drawn from `seed`."""
    from helpers.backend import keras

    image = keras.Input(architecture.image_shape, dtype="uint8")
    model = keras.Sequential([image, *feature_layers(architecture), *head_layers(architecture)], name="cnn")
    initialize(model, seed)
    return model


def cut(model: "keras.Sequential") -> tuple["keras.Sequential", "keras.Sequential"]:
    """Cut a network after the max-pool into (feature extractor, head), which share its layers and weights."""
    from helpers.backend import keras

    names = [layer.name for layer in model.layers]
    after = names.index(LAST_FEATURE_LAYER) + 1
    image = keras.Input(model.input_shape[1:], dtype="uint8")
    extractor = keras.Sequential([image, *model.layers[:after]], name="extractor")
    features = keras.Input(extractor.output_shape[1:])
    return extractor, keras.Sequential([features, *model.layers[after:]], name="head")


def initialize(model: "keras.Model", seed: int) -> None:
    """Draw all weights anew, as in a freshly built network; a layer's draw depends only on `seed` and the layer's name.

    This way, a separate head starts from the same weights as the head inside the whole network, and a compiled model
    can be reused.
    """
    for layer in model.layers:
        for role in ("kernel", "bias"):
            variable = getattr(layer, role, None)
            if variable is not None:
                own = role if hasattr(layer, f"{role}_initializer") else "depthwise"  # as depthwise layers call it
                initializer = getattr(layer, f"{own}_initializer")
                config = initializer.get_config()
                if "seed" in config:
                    config["seed"] = zlib.crc32(f"{seed} {layer.name} {role}".encode())
                variable.assign(type(initializer).from_config(config)(variable.shape, dtype=variable.dtype))


def layer_costs(model: "keras.Model") -> pd.DataFrame:
    """Count parameters and multiply-adds per image for each layer: columns layer, output, parameters, multiply_adds.

    A convolution or dense layer uses each kernel weight once per output position; the other layers have no kernel.
    """
    rows = []
    for layer in model.layers:
        shape = tuple(layer.output.shape[1:])
        kernel = getattr(layer, "kernel", None)
        weights = 0 if kernel is None else int(kernel.numpy().size)
        positions = shape[0] * shape[1] if len(shape) == 3 else 1
        rows.append((layer.name, shape, layer.count_params(), weights * positions))
    return pd.DataFrame(rows, columns=["layer", "output", "parameters", "multiply_adds"])

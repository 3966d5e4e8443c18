"""A small network, a short recipe and result rows, which several test files use."""

import pandas as pd

from helpers.backend import keras
from helpers.cnn import Architecture
from helpers.training import Recipe

SMALL = Architecture(image_shape=(8, 8, 1), filters=4, dense_units=16)
ADAM = Recipe(optimizer="adam", learning_rate=3e-3, batch_size=32, epochs=1, min_updates=20)


def without_dropout(model: keras.Model) -> keras.Model:
    for name in ("dropout1", "dropout2"):
        model.get_layer(name).rate = 0.0
    return model


def result_rows(strategy: str, errors: list[float], budget: int | str = 10, task: str = "target", **seconds: float):
    """Make one row per seed, with 1,000 test images; seconds default to 0."""
    table = pd.DataFrame({"seed": range(len(errors)), "test_errors": errors})
    table = table.assign(task=task, strategy=strategy, labels_per_class=budget)
    table["test_accuracy"] = 1 - table["test_errors"] / 1000
    unpaid = dict.fromkeys(("train_seconds", "pretrain_seconds", "extract_seconds"), 0.0)
    return table.assign(**{**unpaid, **seconds})

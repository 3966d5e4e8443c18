"""Exercises of lesson 06, which also uses `trainable` from lesson 04."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from helpers.checks.replies import STILL_THERE, exercise

if TYPE_CHECKING:
    import keras


@exercise("0 becomes -1, 255 becomes 1, and all values in between keep their relative position")
def rescaled(answer: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """Check a function that rescales pixels from 0 to 255 into numbers from -1 to 1."""
    pixels, dark = np.array([0, 51, 255], np.uint8), np.array([10, 51, 102], np.uint8)
    value = answer(pixels.copy())
    if value is None:
        return "your function returns nothing"
    given = np.asarray(value, float)
    mistakes = [
        (pixels / 255, "that ranges from 0 to 1, as in our own network; MobileNet expects black at -1"),
        (pixels / 255 - 0.5, "the middle is right, but the range is only -0.5 to 0.5"),
        (pixels / 127.5, "that ranges from 0 to 2; black belongs at -1"),
        (pixels / 128 - 1, "255 becomes 0.992; divide by half of 255, not of 256"),
        (1 - pixels / 127.5, "black and white are swapped"),
    ]
    for wrong, meaning in mistakes:
        if np.allclose(given, wrong):
            return meaning
    if not np.allclose(given, answer(pixels.astype(float))):
        return "pixels are uint8, which wraps around beyond 255 and below 0: convert them to floats first"
    if not np.allclose(given, pixels / 127.5 - 1):
        return f"the pixels {pixels.tolist()} become {np.round(given, 2).tolist()}"
    if not np.allclose(given := np.asarray(answer(dark.copy()), float), dark / 127.5 - 1):
        become = f"in a dark photo, the pixels {dark.tolist()} become {np.round(given, 2).tolist()}"
        return f"{become}: a pixel's new value must not depend on the others"
    return None


@exercise("model.layers lists a nested network as a single layer, which has layers of its own")
def freeze_normalization(answer: Callable[["keras.Model"], None]) -> str | None:
    """Check a function that freezes all batch normalization in a network, including nested networks."""
    from helpers.backend import keras

    dense, normalization = keras.layers.Dense, keras.layers.BatchNormalization
    inner = keras.Sequential([keras.Input((2,)), dense(2, name="dense"), normalization(name="inside")])
    model = keras.Sequential([keras.Input((2,)), inner, normalization(name="outside"), dense(1, name="last")])
    try:
        answer(model)
    except ValueError as error:
        if "No such layer" in str(error):
            return "that does not work with nested networks; go through all layers, and look for networks among them"
        raise
    switches = {layer.name: layer.trainable for layer in (*inner.layers, *model.layers) if layer is not inner}
    if not (switches["dense"] and switches["last"] and inner.trainable):
        return "your function freezes a dense layer, or the whole nested network; freeze only normalization layers"
    if not switches["inside"]:
        return None if not switches["outside"] else "the nested network is right, but the layers around it are left out"
    return STILL_THERE if not switches["outside"] else "your function leaves every normalization layer trainable"

"""Exercises of lesson 04; lesson 06 uses `trainable` too."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from helpers import cnn
from helpers.checks.replies import STILL_THERE, count, exercise

if TYPE_CHECKING:
    import keras

BATCH = np.arange(256, dtype="uint8").reshape(4, 8, 8, 1), np.arange(4)  # images and labels
WRONG_LOSS = "you compile again, but with a loss that does not fit integer labels; use sparse_categorical_crossentropy"


@exercise("frozen layers are not trained; all others are")
def trainable(
    answer: int, model: "keras.Model", frozen: Sequence[str], below: "keras.Model | None" = None
) -> str | None:
    """Check the number of parameters that stay trainable when the named layers are frozen.

    `below` is the network whose features are the model's input, if there is one; all of it is frozen.
    """
    layers = {layer.name: layer for layer in model.layers if layer.get_weights()}
    counts = {name: layer.count_params() for name, layer in layers.items()}
    biases = {
        name: sum(math.prod(weight.shape) for weight in layer.weights if weight.name == "bias")
        for name, layer in layers.items()
    }
    everything, frozen_count = sum(counts.values()), sum(counts[name] for name in frozen)
    right, all_biases = everything - frozen_count, sum(biases.values())
    mistakes = {
        len(layers) - len(frozen): "that is the number of layers; count their parameters",
        right - all_biases + sum(biases[name] for name in frozen): "the biases are left out; they are trained too",
        everything - all_biases: "those are the weights of all layers, without their biases",
        **{right - biases[name]: f"the biases of {name} are left out" for name in layers if name not in frozen},
        right + sum(biases[name] for name in frozen): "the biases of a frozen layer are frozen too",
    }
    for names in [*([name] for name in layers), [name for name in cnn.CONVOLUTIONS if name in layers]]:
        rest = everything - sum(counts[name] for name in names)
        mistakes[rest] = f"that is what remains without {' and '.join(names)}"
    if frozen:
        mistakes[frozen_count] = "that is the number of frozen parameters"
        mistakes[everything] = "that is the number of all parameters; subtract the frozen ones"
    if below is not None:
        frozen_below = below.count_params()
        mistakes[frozen_below] = "that is the size of the network below, which is frozen"
        mistakes[right + frozen_below] = "that also counts the network below, which is frozen"
    return count(answer, right, mistakes)


@exercise("set trainable to False for the dense layers and to True for the others; then compile, as in exercise 1")
def freeze_head(answer: Callable[["keras.Model"], None]) -> str | None:
    """Check a function that freezes the head of a trained network, so that updates move only the convolutions."""
    for before in (True, False):  # convolutions must end up trainable, even if they were frozen before
        model = _trained()
        for layer in model.layers:
            layer.trainable = before
        answer(model)
        switches = {layer.name: layer.trainable for layer in model.layers if layer.get_weights()}
        if before and all(switches.values()):
            return "after your function runs, all layers are still trainable"
        if frozen := [name for name in cnn.CONVOLUTIONS if not switches[name]]:
            leaves = "your function freezes {}" if before else "{} was frozen, and your function leaves it that way"
            return leaves.format(frozen[0]) + "; it should be trained"
        if heads := [name for name, on in switches.items() if on and name not in cnn.CONVOLUTIONS]:
            return f"{heads[0]} {'is still trainable' if before else 'was frozen, and your function unfreezes it'}"
    moved = _moved(model)
    if moved is None:
        return WRONG_LOSS
    if moved["dense1"]:
        return "the switches are right, but the next update still moves dense1: they take effect when you compile again"
    return None if moved["conv1"] else "after your function runs, nothing moves, not even the convolutions"


@exercise("in one row of the first table above, the layer is switched off but moves anyway")
def freeze_convolutions(answer: Callable[["keras.Model"], None]) -> str | None:
    """Check a function that freezes the convolutions of a trained network, so that updates move only the head."""
    model = _trained()
    answer(model)
    switches = {layer.name: layer.trainable for layer in model.layers if layer.get_weights()}
    moved = _moved(model)
    if moved is None:
        return WRONG_LOSS
    if on := [name for name in cnn.CONVOLUTIONS if switches[name]]:
        return f"{on[0]} is still trainable"
    if off := [name for name, switch in switches.items() if not switch and name not in cnn.CONVOLUTIONS]:
        return f"{off[0]} belongs to the head, and your function freezes it"
    if any(moved[name] for name in cnn.CONVOLUTIONS):
        return STILL_THERE
    return None if moved["scores"] else "after your function runs, nothing moves, not even the head"


def _trained() -> "keras.Model":
    """Return a smaller version of the course's network, compiled and trained for one update."""
    model = cnn.build_cnn(cnn.Architecture(image_shape=(8, 8, 1), filters=2, dense_units=4))
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    model.train_on_batch(*BATCH)
    return model


def _moved(model: "keras.Model") -> dict[str, bool] | None:
    """Return which layers one more update moves; return None if the model was compiled with an unsuitable loss."""
    layers = [layer for layer in model.layers if layer.get_weights()]
    before = [[weights.copy() for weights in layer.get_weights()] for layer in layers]
    try:
        model.train_on_batch(*BATCH)
    except ValueError:
        return None
    return {
        layer.name: any(map(np.any, map(np.subtract, layer.get_weights(), weights)))
        for layer, weights in zip(layers, before, strict=True)
    }

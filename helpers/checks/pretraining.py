"""Exercises of lesson 03."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from helpers.checks.replies import STILL_THERE, close, count, exercise, meaning


@exercise("an epoch needs enough batches to show every image once; the last batch counts even if it is not full")
def updates(answer: int, images: int, batch_size: int, epochs: int) -> str | None:
    """Check the number of updates in a training run."""
    batches = math.ceil(images / batch_size)
    return count(
        answer,
        epochs * batches,
        {
            epochs * math.ceil(images / 128): f"that is for batches of 128; these have {batch_size}",
            images: "that is the number of images; an update uses a whole batch",
            epochs * images: "an update uses a whole batch, not a single image",
            epochs * (images // batch_size): "the images left over at the end of an epoch form a batch, too",
            math.ceil(epochs * images / batch_size): "the images left over in each epoch form a batch of their own",
            images // batch_size: f"that is for one epoch without its last batch; there are {epochs}",
            batches: f"that is for one epoch; there are {epochs}",
        },
    )


@exercise(
    "return the negative natural logarithm of the probability that the network gave to the right class; without a "
    "return statement, a function returns nothing"
)
def cross_entropy(answer: Callable[[Sequence[float], int], float]) -> str | None:
    """Check a function of (probabilities, label) that returns the cross-entropy of one image."""
    probabilities, label = [0.3, 0.1, 0.2, 0.4], 2
    value = answer(probabilities, label)
    if np.size(value) != 1:
        return f"your function returns {np.size(value)} numbers; an image has only one loss, for the right class"
    mistakes = {
        math.log(0.2): "the sign is wrong: a loss must fall when the network gets better",
        -math.log10(0.2): "that is the logarithm to base 10; take the natural one",
        -math.log2(0.2): "that is the logarithm to base 2; take the natural one",
        -math.log(0.4): "that uses the probability of the most likely class, not of the right one",
        -math.log(0.1): "that uses the class before the right one; labels count from 0",
        -sum(map(math.log, probabilities)): "that adds up all classes; only the right one counts",
        0.2: "that is the probability itself; take its logarithm",
        0.8: "one minus the probability falls too, but the cross-entropy is a logarithm",
    }
    if mistake := meaning(value, mistakes):
        return mistake
    for label, probability in enumerate(probabilities):
        if not close(value := answer(probabilities, label), -math.log(probability)):
            return f"for the probabilities {probabilities} and the label {label}, your function gives {value:.4g}"
    return None


@exercise("the slope depends on the current weight; work out two updates with pencil and paper")
def descended(answer: Callable[[float, int], float]) -> str | None:
    """Check a function of (learning_rate, updates) that returns where plain gradient descent takes a weight that starts
    at 1, if the loss is the weight's square.
    """
    value = answer(0.1, 3)
    mistakes = {
        1 - 3 * 0.2: STILL_THERE,
        1.2**3: "the weight climbs; a step goes against the slope",
        0.9**3: "the slope of the square is twice the weight",
        0.8: "that is one update, however many are asked for",
        0.8**2: "that is one update too few",
        0.8**4: "that is one update too many",
    }
    if mistake := meaning(value, mistakes):
        return mistake
    for rate, number in ((0.1, 3), (0.1, 0), (0.25, 2)):
        if not close(value := answer(rate, number), (1 - 2 * rate) ** number):
            return f"after {number} updates at a learning rate of {rate}, your weight is {value:.4g}"
    return None

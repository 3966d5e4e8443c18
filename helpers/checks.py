"""Exercises that answer back: a check says in the learner's terms what is wrong with an answer, or that it is right.

Each check takes the learner's answer, three dots as long as there is none, and returns a `Reply`, which a notebook
shows as text. No check raises: an answer of the wrong kind is a wrong answer.
"""

import functools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import cnn
from helpers.training import Recipe

if TYPE_CHECKING:
    import keras

LINE = 88  # characters


@dataclass(frozen=True)
class Reply:
    """What a check has to say; `right` is None while there is no answer."""

    right: bool | None
    text: str

    def __repr__(self) -> str:
        """Return the text alone, in lines that a notebook shows whole: it would break longer ones inside a word."""
        return textwrap.fill(self.text, LINE)


def exercise(hint: str) -> Callable[[Callable[..., str | None]], Callable[..., Reply]]:
    """Make a check of a function that returns what is wrong with an answer, or None if nothing is."""

    def decorate(complaint: Callable[..., str | None]) -> Callable[..., Reply]:
        @functools.wraps(complaint)
        def check(answer: Any, *facts: Any) -> Reply:
            try:
                wrong = _NOTHING if answer is ... else complaint(answer, *facts)
            except Exception as error:  # whatever a learner's answer or function does
                wrong = f"that does not work as an answer ({type(error).__name__}: {error})"
            if wrong is _NOTHING:
                return Reply(None, f"Not answered yet: put your answer in place of the three dots. Hint: {hint}.")
            return Reply(True, "Right.") if wrong is None else Reply(False, f"Not yet: {wrong}. Hint: {hint}.")

        return check

    return decorate


_NOTHING = "nothing"


@exercise("each list names labels of the dataset, and no label may be in both")
def tasks(answer: tuple[Sequence[int], Sequence[int]], classes: Sequence[int]) -> str | None:
    """Check two lists of labels: the larger the source task, all labels used, none in both."""
    try:
        source, target = (list(labels) for labels in answer)
    except (TypeError, ValueError):
        return "the answer is two lists of labels, ([...], [...]): the source task's and the target task's"
    if both := sorted(set(source) & set(target)):
        return f"your split holds the label {both[0]} in both tasks"
    for name, labels in (("source", source), ("target", target)):
        if twice := [label for label in labels if labels.count(label) > 1]:
            return f"your {name} task names the label {twice[0]} twice"
    if unknown := sorted({*source, *target} - set(classes)):
        return f"the dataset has no label {unknown[0]}"
    if left := sorted(set(classes) - {*source, *target}):
        return f"the label {left[0]} is in neither task"
    if len(target) != 3:
        return f"the target task should have three classes, yours has {len(target)}"
    return None


@exercise("count the most frequent class of the training labels, then look how often the test labels are that class")
def baseline(answer: float, training_labels: np.ndarray, test_labels: np.ndarray) -> str | None:
    """Check the accuracy of always answering with the most frequent training class, a share between 0 and 1."""
    known, counts = np.unique(training_labels, return_counts=True)
    favourite = known[counts.argmax()]
    right, on_training = (np.mean(labels == favourite) for labels in (test_labels, training_labels))
    if 1 < answer <= 100:
        return "accuracy is a share between 0 and 1 here, not a percentage"
    if _close(answer, on_training) and not _close(on_training, right):
        return "that is its accuracy on the training labels; a result is reported on test labels"
    if _close(answer, 1 / len(np.unique(test_labels))) and not _close(answer, right):
        return "that is what guessing reaches when all classes are equally frequent, and they are not quite"
    return None if _close(answer, right) else f"always the same answer is not right for {answer:.1%} of the test images"


@exercise("each filter has one weight per pixel of its kernel and input channel, and one bias")
def parameters(answer: int, filters: int, kernel_size: int, channels: int) -> str | None:
    """Check the number of parameters of a convolution."""
    weights = filters * kernel_size**2 * channels
    return _count(
        answer,
        weights + filters,
        {
            weights: "you have counted the weights and left out the biases, one per filter",
            weights + 1: "every filter has a bias of its own",
            filters * (kernel_size**2 + 1): "every filter looks at all channels of its input",
            filters * (kernel_size * channels + 1): "a kernel is a square",
        },
    )


@exercise("every weight of a kernel is used once at every position of the output; biases multiply nothing")
def multiply_adds(answer: int, image_size: int, filters: int, kernel_size: int, channels: int) -> str | None:
    """Check the number of multiply-adds of a convolution without padding on a square image."""
    positions, weights = (image_size - kernel_size + 1) ** 2, filters * kernel_size**2 * channels
    return _count(
        answer,
        positions * weights,
        {
            image_size**2 * weights: f"a kernel of {kernel_size} pixels does not fit at the image's edge: the output "
            "is smaller than the image",
            weights: "that is the number of weights; each is used at many positions",
            positions * (weights + filters): "adding a bias is not a multiplication",
        },
    )


@exercise(
    "each epoch needs as many batches as it takes to show every image, and the last of them counts like the others"
)
def updates(answer: int, images: int, batch_size: int, epochs: int) -> str | None:
    """Check the number of updates of a training."""
    recipe = Recipe(batch_size=batch_size, epochs=epochs, min_updates=1)
    return _count(
        answer,
        recipe.updates(images),
        {
            epochs * (images // batch_size): "the images left over at the end of an epoch make a batch too",
            math.ceil(images / batch_size): f"that is one epoch; there are {epochs}",
            math.ceil(epochs * images / batch_size): "what an epoch leaves over is a batch of its own, in each epoch",
            epochs * images: "an update looks at a whole batch, not at one image",
        },
    )


@exercise(
    "return the negative natural logarithm of the probability that the network gave to the right class; a function "
    "without return answers nothing"
)
def cross_entropy(answer: Callable[[Sequence[float], int], float]) -> str | None:
    """Check a function of (probabilities, label) that returns the cross-entropy of one image."""
    probabilities, label = [0.7, 0.2, 0.1], 1
    value = answer(probabilities, label)
    if value is None:
        return _NOTHING
    if _close(value, math.log(0.2)):
        return "the sign is wrong: a loss must fall when the network gets better"
    if _close(value, -math.log10(0.2)):
        return "that is the logarithm to base 10; take the natural one"
    if _close(value, -math.log(0.7)):
        return "that is the probability of the class that it found most likely, not of the right class"
    for label, probability in enumerate(probabilities):
        if not _close(value := answer(probabilities, label), -math.log(probability)):
            return f"for probabilities {probabilities} and the label {label} your function gives {value:.3f}"
    return None


@exercise("what is frozen is not trained, all the rest is")
def trainable(answer: int, model: "keras.Model", frozen: Sequence[str]) -> str | None:
    """Check the number of parameters that stay trainable when the layers named are frozen."""
    counts = {layer.name: layer.count_params() for layer in model.layers}
    gone = sum(counts[name] for name in frozen)
    return _count(
        answer,
        model.count_params() - gone,
        {
            gone: "that is how many are frozen",
            model.count_params(): "that is all of them; freezing takes some away",
        },
    )


@exercise("go through model.layers, and set trainable to False for the dense layers and to True for the others")
def freeze_head(answer: Callable[["keras.Model"], None]) -> str | None:
    """Check a function that freezes the head of a network and leaves the convolutions trainable."""
    model = cnn.build_cnn(cnn.Architecture(image_shape=(8, 8, 1), filters=2, dense_units=4))
    answer(model)
    switches = {layer.name: layer.trainable for layer in model.layers if layer.get_weights()}
    if all(switches.values()):
        return "after your function all layers are still trainable" if answer.__code__.co_names else _NOTHING
    if convolutions := [name for name in cnn.CONVOLUTIONS if not switches[name]]:
        return f"your function freezes {convolutions[0]}, which should be trained"
    if heads := [name for name, on in switches.items() if on and name not in cnn.CONVOLUTIONS]:
        return f"{heads[0]} is still trainable"
    return None


@exercise("0 becomes -1, 255 becomes 1, and what lies between keeps its place between them")
def rescaled(answer: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """Check a function from pixels of 0 to 255 to numbers from -1 to 1."""
    pixels = np.array([0, 51, 255], np.uint8)
    value = answer(pixels)
    if value is None:
        return _NOTHING
    given = np.asarray(value, float)
    if np.allclose(given, pixels / 127.5 - 1):
        return None
    if np.allclose(given, pixels / 255):
        return "that goes from 0 to 1, as our own network has it; MobileNet expects its black at -1"
    if np.allclose(given, pixels / 255 - 0.5):
        return "the middle is right, but it goes from -0.5 to 0.5 only"
    if np.allclose(given, (pixels - np.uint8(127)) / 127.5):
        return "pixels are uint8: below zero they start again at 255, so make them floats before you subtract"
    return f"the pixels {pixels.tolist()} become {np.round(given, 2).tolist()}"


@exercise("subtract seed by seed first, then hand the differences to interval")
def paired(answer: tuple[float, float, float], one: Sequence[float], other: Sequence[float]) -> str | None:
    """Check the mean difference `one - other`, paired by seed, with its 95 % interval: (mean, low, high)."""
    from helpers.statistics import interval  # SciPy takes its time, and lesson 01 needs none of it

    if not isinstance(answer, Sequence | np.ndarray) or len(answer) != 3:
        return "the answer has three numbers, (mean, low, high)"
    mean, low, high = answer
    right = interval(np.subtract(one, other))
    if _close(mean, -right[0]) and not _close(mean, 0):
        return "the sign is turned round: it is the first minus the second"
    if not _close(mean, right[0]):
        return f"the mean difference is not {mean:.2f}"
    if _close(low, right[1]) and _close(high, right[2]):
        return None
    halves = [interval(values)[2] - float(np.mean(values)) for values in (one, other)]
    unpaired = math.hypot(*halves)
    if any(_close(high - mean, half) for half in (halves[0] - halves[1], halves[1] - halves[0], sum(halves))):
        return "you have taken two intervals and then combined their ends; take the differences first"
    if _close(high - mean, unpaired):
        return "you have combined two separate intervals; the luck of a seed that both share cancels if you pair first"
    half = (right[2] - right[0]) * math.sqrt((len(one) - 1) / len(one))
    if _close(high - mean, half):
        return "you have divided by n where the spread of a sample needs n - 1"
    return f"the mean is right, the interval from {low:.2f} to {high:.2f} is not"


@exercise('one of "better", "worse", "as good", "no detectable difference"; look at zero and at the margin')
def word(answer: str, low: float, high: float, margin: float) -> str | None:
    """Check the word for an interval of a difference in percentage points."""
    from helpers.statistics import finding  # SciPy takes its time, and lesson 01 needs none of it

    row = {"strategy": "", "difference": (low + high) / 2, "difference_low": low, "difference_high": high}
    right = finding(row, margin)
    reasons = {
        "as good": "the interval reaches beyond the margin, so equality is not shown",
        "better": "zero, or worse than zero, lies in the interval",
        "worse": "zero, or better than zero, lies in the interval",
        "no detectable difference": "the interval says more than that",
    }
    given = answer.strip().lower()
    if given not in reasons:
        return f"{answer!r} is not one of the words"
    return None if given == right else reasons[given]


def _count(answer: float, right: int, mistakes: dict[int, str]) -> str | None:
    if isinstance(answer, bool) or answer != int(answer):
        return f"{answer!r} is not a whole number"
    answer = int(answer)
    return None if answer == right else mistakes.get(answer, f"it is not {answer:,}")


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=2e-3, abs_tol=5e-4)

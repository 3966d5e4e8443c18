"""Exercises of lesson 05."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import cnn
from helpers.checks.replies import NOTHING, STILL_THERE, close, exercise, meaning
from helpers.images import Split
from helpers.statistics import Interval, finding, interval

if TYPE_CHECKING:
    import keras


@exercise("subtract seed by seed first, then pass the differences to interval")
def paired(answer: tuple[float, float, float], one: Sequence[float], other: Sequence[float]) -> str | None:
    """Check the mean difference `one - other`, paired by seed, with its 95% interval: (mean, low, high)."""
    if not isinstance(answer, Sequence | np.ndarray) or len(answer) != 3:
        return "the answer should have three numbers, (mean, low, high)"
    mean, low, high = answer
    right = interval(np.subtract(one, other))
    if close(low, right[0]) and close(mean, right[1]):
        return "the mean comes first, then the ends of the interval"
    if close(mean, -right[0]) and not close(mean, 0):
        return "the sign is flipped: subtract the second from the first"
    if close(100 * mean, right[0]):
        return "that is a share; the accuracies are in percent, so the difference is in percentage points"
    if not close(mean, right[0]):
        return f"the mean difference is not {mean:.4g}"
    if close(low, right[1]) and close(high, right[2]):
        return None
    if close(low, right[2]) and close(high, right[1]):
        return "the lower end comes before the upper one"
    if close(low, high):
        return "low and high are the two ends of the interval, not its half-width"
    width, half = high - mean, right[2] - right[0]
    halves = [interval(values)[2] - float(np.mean(values)) for values in (one, other)]
    seeds, spread = len(one), float(np.std(np.subtract(one, other), ddof=1))
    if any(close(width, ends) for ends in (halves[0] - halves[1], halves[1] - halves[0], sum(halves))):
        return "that combines the ends of two intervals; take the differences first"
    mistakes = {
        math.hypot(*halves): "that combines two separate intervals; both strategies share the luck of a seed, which "
        "cancels out if you pair first",
        half * math.sqrt((seeds - 1) / seeds): "that divides by n; for the spread of a sample, divide by n - 1",
        spread: "that is the standard deviation of the differences, not the interval of their mean",
        spread / math.sqrt(seeds): "that is the standard error; an interval is several times as wide",
        1.96 * spread / math.sqrt(seeds): f"1.96 is for many seeds; for {seeds}, use the t-distribution",
    }
    if mistake := meaning(width, mistakes):
        return mistake
    if max(abs(low - right[1]), abs(high - right[2])) < 0.06:
        return "the ends of the interval are rounded too far; give two decimals"
    return f"the mean is right, but the interval from {low:.4g} to {high:.4g} is not"


@exercise('"better", "worse", "as good" or "no detectable difference"? Is 1 in the interval? If so, see the margin')
def word(answer: str, low: float, high: float) -> str | None:
    """Check the word for the interval of an error ratio; the interval must not have zero width."""
    right, given = finding(Interval(math.sqrt(low * high), low, high)), answer.strip().lower()
    says_more = "1 is not in the interval, so you can say more"
    beyond = "the interval reaches beyond the margin, so it does not show equality"
    reasons = {
        "as good": says_more if right in ("better", "worse") else beyond,
        "better": "the interval reaches 1 or above, so it may be no better",
        "worse": "the interval reaches 1 or below, so it may be no worse",
        "no detectable difference": "all of the interval lies within the margin" if right == "as good" else says_more,
    }
    if given not in reasons:
        return f"{answer!r} is not one of the words"
    return None if given == right else reasons[given]


@exercise("print the seeds of each strategy, in the order in which they appear")
def by_seed(answer: Callable[[Mapping[int, float], Mapping[int, float]], Sequence[float]]) -> str | None:
    """Check a function of two dicts {seed: accuracy} that returns the differences, first minus second, seed by seed."""
    one, other = {3: 90.0, 1: 95.0, 2: 97.0}, {1: 96.5, 3: 86.0, 2: 91.0}  # tells all mistakes below apart
    right = sorted(one[seed] - other[seed] for seed in one)
    try:
        value = answer(one, other)
    except KeyError:
        return "the seeds need not be 0, 1 and 2; take them from the first argument"
    if value is None:
        return "your function returns nothing"
    given = np.ravel(list(value.values()) if isinstance(value, Mapping) else value).astype(float)
    if given.size != len(one):
        return f"for three seeds, your function returns {given.size} number{'s' * (given.size != 1)}"
    if np.allclose(given, np.subtract(list(one.values()), list(other.values()))):
        return STILL_THERE
    if np.allclose(sorted(given), right):
        return None
    if np.allclose(sorted(-given), right):
        return "the sign is flipped: subtract the second from the first"
    if np.allclose(sorted(given), sorted(np.subtract(sorted(one.values()), sorted(other.values())))):
        return "that pairs the worst with the worst; pair the results of the same seed"
    return f"the differences are {right} in some order; yours are {np.round(given, 2).tolist()}"


@exercise("in this order: clone_model, set_weights, freeze the copy's features, add a new head, compile, fit, evaluate")
def transfer(
    answer: tuple[Any, Any, Any], given: "keras.Model", original: "keras.Model", few: Split, test: Split
) -> str | None:
    """Check a finished transfer: (the network, the baseline, the test accuracies of both).

    The network takes images or the cached features; it and the baseline were trained on `few`. `given` is the
    pretrained network that the learner used, `original` an untouched copy. Nothing is trained here.
    """
    network, baseline, accuracies = answer
    if network is ...:
        return NOTHING
    return (
        _wrong_features(network, given, original, few)
        or _wrong_head(network, original, few)
        or _wrong_baseline(baseline, network, original)
        or _wrong_accuracies(accuracies, {"transferred": network, "scratch": baseline}, original, few, test)
    )


def _wrong_features(network: Any, given: "keras.Model", original: "keras.Model", few: Split) -> str | None:
    """Say what is wrong with the features of a transferred network: they must be copied, frozen, and unchanged."""
    if not hasattr(network, "layers"):
        return "transferred is not a Keras model"
    givens, convolutions = [*_layers(given)], _with_kernels(network, 4)
    if shared := [layer.name for layer in _with_kernels(network) if any(layer is one for one in givens)]:
        return f"{shared[0]} is a layer of the pretrained network itself, so a change to one affects both; use a copy"
    if any(map(np.any, map(np.subtract, given.get_weights(), original.get_weights()))):
        return "the pretrained network itself has changed; load it again, and train a copy"
    if not convolutions and _takes_features(network, original, few):
        return None
    if network.input_shape[1:] != few.images.shape[1:]:
        return f"transferred takes {network.input_shape[1:]}, which fits neither the images nor the max-pool's features"
    kept = _with_kernels(original, 4)
    if [layer.kernel.shape for layer in convolutions] != [layer.kernel.shape for layer in kept]:
        return f"transferred has {len(convolutions)} convolutions whose shapes differ from the pretrained ones"
    now, then = (np.concatenate([np.ravel(layer.kernel) for layer in layers]) for layers in (convolutions, kept))
    trainable = [layer.name for layer in convolutions if layer.trainable_weights]
    if np.array_equal(now, then):
        return f"{trainable[0]} is still trainable" if trainable else None
    if np.corrcoef(now, then)[0, 1] < 0.3:
        return "the convolutions do not have the pretrained weights; clone_model copies layers without their weights"
    late = "they are frozen now, but were not when you compiled and trained it"
    how = f"{trainable[0]} is trainable" if trainable else late
    return f"the features moved while the network was trained: {how}"


def _wrong_head(network: "keras.Model", original: "keras.Model", few: Split) -> str | None:
    """Say what is wrong with a transferred network's head: it must be new, with one output per target class."""
    if (outputs := network.output_shape[-1]) != (classes := len(np.unique(few.labels))):
        return f"transferred has {outputs} outputs, but the target task has {classes} classes"
    for layer in _with_kernels(network, 2):
        for old in _with_kernels(original, 2):
            if layer.kernel.shape == old.kernel.shape:
                alike = np.corrcoef(np.ravel(layer.kernel), np.ravel(old.kernel))[0, 1]
                if alike > max(0.2, 6 / math.sqrt(math.prod(layer.kernel.shape))):  # rare for new weights
                    return (
                        f"the weights of {layer.name} resemble the old head's (correlation {alike:.2f}): they were "
                        "kept, or drawn with the seed of pretraining; a new task needs new weights"
                    )
    return None


def _wrong_baseline(baseline: Any, network: "keras.Model", original: "keras.Model") -> str | None:
    """Say what is wrong with the baseline: it must be an ordinary network, all of it trained."""
    if baseline is ... or baseline is None:
        return "there is no baseline: without scratch, nobody knows whether transfer helped"
    if not hasattr(baseline, "layers"):
        return "scratch is not a Keras model"
    if baseline is network:
        return "scratch is the transferred network; the baseline must share nothing with it"
    if frozen := [layer.name for layer in _with_kernels(baseline) if not layer.trainable_weights]:
        return f"{frozen[0]} of scratch is frozen; the baseline must train all its layers"
    known = [np.asarray(layer.kernel) for layer in _with_kernels(original)]
    if any(np.array_equal(layer.kernel, kernel) for layer in _with_kernels(baseline) for kernel in known):
        return "scratch has pretrained weights; the baseline must learn from the same few images alone"
    return None


def _wrong_accuracies(
    accuracies: Any, networks: Mapping[str, "keras.Model"], original: "keras.Model", few: Split, test: Split
) -> str | None:
    """Say what is wrong with the accuracies of both networks: they must be on the test images, between 0 and 1."""
    if accuracies is ...:
        return "both networks are there; now put their accuracies on the test images into my_accuracies"
    if np.shape(accuracies) != (2,):
        return "my_accuracies should have two numbers, for transferred and for scratch"
    for (name, network), said in zip(networks.items(), accuracies, strict=True):
        on_few, on_test = (_accuracy(network, original, split) for split in (few, test))
        if on_few < 1.5 / len(np.unique(few.labels)):
            return f"{name} gets only {on_few:.0%} of its own training images right; was it trained?"
        if not 0 <= said <= 1:
            return "an accuracy is a share between 0 and 1"
        if not abs(said - on_test) < 0.003:
            if abs(said - on_few) < 0.003:
                return f"{said:.1%} is the accuracy of {name} on the images it was trained on; only new images count"
            return f"on the test images as they are, {name} gets {on_test:.1%} right, not {said:.1%}"
    return None


def _accuracy(network: "keras.Model", original: "keras.Model", split: Split) -> float:
    """Return a network's accuracy on images, or on their pretrained features if it takes features."""
    inputs = split.images[:]
    if _takes_features(network, original, split):
        inputs = cnn.cut(original)[0].predict(inputs, verbose=0).reshape(-1, *network.input_shape[1:])
    return float(np.mean(network.predict(inputs, verbose=0).argmax(axis=1) == split.labels))


def _takes_features(network: "keras.Model", original: "keras.Model", split: Split) -> bool:
    """Tell whether a network takes the feature maps, flattened or not, instead of images."""
    inputs, features = network.input_shape[1:], original.get_layer(cnn.LAST_FEATURE_LAYER).output.shape[1:]
    return bool(inputs != split.images.shape[1:] and math.prod(inputs) == math.prod(features))


def _layers(model: "keras.Model") -> Iterator["keras.Layer"]:
    """Yield the layers of a network, including those of nested networks."""
    for layer in model.layers:
        yield from _layers(layer) if hasattr(layer, "layers") else [layer]


def _with_kernels(model: "keras.Model", dimensions: int = 0) -> list["keras.Layer"]:
    """Return the layers whose kernel has this many dimensions: 4 for convolutions, 2 for dense layers, 0 for both."""
    layers = (layer for layer in _layers(model) if hasattr(layer, "kernel"))
    return [layer for layer in layers if dimensions in (0, len(layer.kernel.shape))]

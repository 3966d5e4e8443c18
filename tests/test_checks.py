"""Exercises: right answers pass, typical mistakes are recognized, and a missing answer is not an error."""

import itertools
import math
import re
import statistics

import nbformat
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, LeaveOneOut, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from helpers import checks, cnn
from helpers.backend import keras
from helpers.checks import replies
from helpers.datasets import load_dataset
from helpers.images import Split
from helpers.runner.notebooks import lessons
from helpers.statistics import interval
from helpers.tasks import split_tasks, subsample

CLASSES = list(range(10))
TRAINING, TEST = np.repeat([0, 1, 2], [40, 30, 30]), np.repeat([0, 1, 2], [30, 35, 35])
NETWORK = cnn.build_cnn(cnn.Architecture())  # 320, 9,248, 589,952 and 645 parameters
HEAD = cnn.cut(NETWORK)[1]
COMPILED = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy"}
STANDING_STILL = COMPILED | {"optimizer": keras.optimizers.SGD(0.0)}

ONE, OTHER = [97.8, 98.4, 97.9], [96.0, 96.3, 96.1]
DIFFERENCE = MEAN, LOW, HIGH = interval(np.subtract(ONE, OTHER))
SPREAD = statistics.stdev(np.subtract(ONE, OTHER))
UNPAIRED = math.hypot(*(interval(values)[2] - statistics.mean(values) for values in (ONE, OTHER)))
ENDS = interval(ONE)[2] - interval(OTHER)[2] - MEAN


def around(half):
    """Return an interval around the mean difference."""
    return MEAN, MEAN - half, MEAN + half


def cross_entropy(probabilities, label):
    return -math.log(probabilities[label])


def freezing(*names, **compiled):
    """Make a function that freezes the named layers, unfreezes all others, and optionally recompiles the model."""

    def freeze(model):
        for layer in model.layers:
            layer.trainable = layer.name not in names
        if compiled:
            model.compile(**compiled)

    return freeze


def freeze_all(model):
    model.trainable = False


def freeze_head_alone(model):
    model.get_layer("dense1").trainable = model.get_layer("scores").trainable = False


def toggle_head(model):
    for layer in model.layers:
        layer.trainable = layer.name in cnn.CONVOLUTIONS or not layer.trainable


def freeze_normalization(model, inside=True, outside=True):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            freeze_normalization(layer, inside=False, outside=inside)
        elif isinstance(layer, keras.layers.BatchNormalization) and outside:
            layer.trainable = False


def dealt(training=slice(200, None), validation=slice(100, 200), test=slice(0, 100), shuffled=True, seeded=True):
    def three_parts(number, seed):
        order = np.random.default_rng(seed if seeded else 0).permutation(number) if shuffled else np.arange(number)
        return order[training], order[validation], order[test]

    return three_parts


def convolved(smaller=0, turned=False, factor=1):
    def convolve(image, kernel):
        kernel = kernel[::-1, ::-1] if turned else kernel
        rows, columns = (side - len(kernel) + 1 - smaller for side in image.shape)
        windows = [[image[r : r + 3, c : c + 3] for c in range(columns)] for r in range(rows)]
        return factor * np.array([[np.sum(window * kernel) for window in row] for row in windows])

    return convolve


def differences(pair):
    """Make a function that takes two dicts of accuracy by seed, and computes differences from their values."""
    return lambda one, other: pair(list(one.values()), list(other.values()))


def cheap_test(scaled=None, over_test=False, on=None):
    """Make a cheap test with a leak: scaled in advance, over test images, or fitted to the images it is tested on."""

    def test(features, labels, test_features, test_labels):
        model = make_pipeline(StandardScaler(), LogisticRegression())
        if scaled is not None:
            fitted = np.concatenate([*itertools.compress((features, test_features), scaled)])
            scaler, model = StandardScaler().fit(fitted), LogisticRegression()
            features, test_features = scaler.transform(features), scaler.transform(test_features)
        if over_test:
            features, labels = np.concatenate([features, test_features]), np.concatenate([labels, test_labels])
        if on:
            parts = {"train": (features, labels), "test": (test_features, test_labels)}
            return model.fit(features, labels).score(*parts[on])
        return cross_val_score(model, features, labels, cv=5).mean()

    return test


def by_hand(features, labels, *_):
    """Cross-validate without a pipeline, in handmade folds."""
    right = []
    for held_out in np.array_split(np.random.default_rng(1).permutation(len(labels)), 4):
        rest = np.setdiff1d(np.arange(len(labels)), held_out)
        mean, spread = features[rest].mean(axis=0), features[rest].std(axis=0)
        model = LogisticRegression().fit((features[rest] - mean) / spread, labels[rest])
        right.append(model.score((features[held_out] - mean) / spread, labels[held_out]))
    return sum(right) / 4


RIGHT = {  # check, facts, the right answer
    "tasks": (checks.tasks, (CLASSES,), (CLASSES[:7], CLASSES[7:])),
    "baseline": (checks.baseline, (TRAINING, TEST), (0, 0.3)),
    "baseline of similar shares": (checks.baseline, (TRAINING, np.repeat([0, 1, 2], [47, 60, 36])), (0, 0.329)),
    "baseline of the same images": (checks.baseline, (TRAINING, TRAINING), (0, 0.4)),
    "three_parts": (checks.three_parts, (), dealt()),
    "parameters": (checks.parameters, (64, 5, 3), 64 * 76),
    "multiply_adds": (checks.multiply_adds, (28, 64, 5, 1), 24 * 24 * 64 * 25),
    "multiply_adds in color": (checks.multiply_adds, (32, 64, 5, 3), 28**2 * 64 * 75),
    "convolved": (checks.convolved, (), convolved()),
    "updates": (checks.updates, (1000, 64, 3), 48),
    "cross_entropy": (checks.cross_entropy, (), cross_entropy),
    "descended": (checks.descended, (), lambda rate, updates: (1 - 2 * rate) ** updates),
    "trainable": (checks.trainable, (NETWORK, ["conv2"]), 600_165 - 9_248),
    "trainable, with a network below": (checks.trainable, (HEAD, [], NETWORK), 590_597),
    "freeze_convolutions": (checks.freeze_convolutions, (), freezing(*cnn.CONVOLUTIONS, **COMPILED)),
    "freeze_head": (checks.freeze_head, (), freezing("dense1", "scores", **COMPILED)),
    "paired": (checks.paired, (ONE, OTHER), DIFFERENCE),
    "by_seed": (checks.by_seed, (), lambda one, other: [one[seed] - other[seed] for seed in one]),
    "word": (checks.word, (0.75, 1.1), "no detectable difference"),
    "rescaled": (checks.rescaled, (), lambda pixels: pixels / 127.5 - 1),
    "freeze_normalization": (checks.freeze_normalization, (), freeze_normalization),
    "standard_error": (checks.standard_error, (), lambda share, images: (share * (1 - share) / images) ** 0.5),
    "leaks": (checks.leaks, (), cheap_test()),
    "regret": (checks.regret, (), lambda accuracies, chosen: 100 * (max(accuracies.values()) - accuracies[chosen])),
}
WRONG = {  # wrong answers, by the reply to them
    "tasks": {
        "source task lists class 0 twice": ([0, *CLASSES[:7]], CLASSES[7:]),
        "puts class 6 in both tasks": (CLASSES[:7], CLASSES[6:]),
        "no class 10": (CLASSES[:7], [7, 8, 9, 10]),
        "no class '7'": (CLASSES[:7], ["7", 8, 9]),
        "class 6 is in neither": (CLASSES[:6], CLASSES[7:]),
        "should have three classes, but yours has 5.": (CLASSES[:5], CLASSES[5:]),
        "yours has 7; the source task comes first": (CLASSES[7:], CLASSES[:7]),
        "should be two lists of classes": {"source": CLASSES[:7], "target": CLASSES[7:]},
    },
    "baseline": {
        "should have two parts, (label, share)": 0.3,
        "not a percentage": (0, 30),
        "the label's share of the training images": (0, 0.4),
        "most frequent label, which is a different one": (0, 0.35),
        "a guess among 3 classes is right": (0, 1 / 3),
        "its share of the test images is not 0.103": (0, 0.103),
        "no training image has the label 7": (7, 0.3),
        "1 is most frequent among the test images": (1, 0.35),
        "does not work as an answer": (0, "a third"),
    },
    "baseline of similar shares": {"rounded too far": (0, 0.33)},
    "baseline of the same images": {"30 training images have the label 2": (2, 0.3)},
    "three_parts": {
        "100 of 1000 images are in both the training part and the test part": dealt(slice(0, 800), slice(800, 900)),
        "100 of 1000 images are in both the validation part and the test part": dealt(validation=slice(0, 100)),
        "contain 900 of 1000": dealt(training=slice(300, None)),
        "contain [700, 200, 100]": dealt(slice(300, None), slice(100, 300)),
        "are neighbors": dealt(shuffled=False),
        "a different seed draws the same": dealt(seeded=False),
        "returns 2 parts": lambda number, seed: dealt()(number, seed)[:2],
    },
    "parameters": {
        "add the biases": 64 * 75,
        "that is for one filter": 76,
        "for 3 x 3 kernels": 64 * 28,
        "32 filters of 3 x 3 on 32 channels": 9248,
        "for 64 input channels, as in a second": 64 * (25 * 64 + 1),
        "all channels": 64 * 26,
        "a kernel is a square": 64 * 16,
        "the number is not 12": 12,
        "not a whole number": 4864.5,
        "as 2 numbers; write one number, without a comma": (4, 864),
        "without quotes": "4864",
    },
    "multiply_adds": {
        "so the output is smaller than the image": 28 * 28 * 64 * 25,
        "the number of weights": 64 * 25,
        "not a multiplication": 24 * 24 * 64 * 26,
        "fits in 24 positions along a side of 28 pixels.": 23 * 23 * 64 * 25,
        "in just as many along the other side": 24 * 64 * 25,
        "count as one multiply-add": 2 * 24 * 24 * 64 * 25,
    },
    "multiply_adds in color": {"looks at all channels": 28**2 * 64 * 25},
    "convolved": {
        "rotates the kernel by 180": convolved(turned=True),
        "its numbers are not": convolved(factor=2),
        "your map is 1 x 3, not 3 x 5": convolved(smaller=2),
        "beyond the edge, where the window is smaller": convolved(smaller=-2),
        "your map is one number": lambda image, kernel: np.sum(image[:3, :3] * kernel),
    },
    "updates": {
        "left over at the end of an epoch": 45,
        "one epoch without its last batch": 15,
        "for batches of 128; these have 64": 24,
        "the number of images": 1000,
        "in each epoch": 47,
    },
    "cross_entropy": {
        "the sign is wrong": lambda probabilities, label: math.log(probabilities[label]),
        "to base 10": lambda probabilities, label: -math.log10(probabilities[label]),
        "of the most likely class": lambda probabilities, label: -math.log(max(probabilities)),
        "labels count from 0": lambda probabilities, label: -math.log(probabilities[label - 1]),
        "adds up all classes": lambda probabilities, label: -sum(map(math.log, probabilities)),
        "the probability itself": lambda probabilities, label: probabilities[label],
        "returns 4 numbers": lambda probabilities, label: -np.log(probabilities),
        "the label 0, your function gives 1.609": lambda probabilities, label: -math.log(probabilities[2]),
        "IndexError": lambda probabilities, label: -math.log(probabilities[label + 7]),
    },
    "descended": {
        "against the slope": lambda rate, updates: (1 + 2 * rate) ** updates,
        "twice the weight": lambda rate, updates: (1 - rate) ** updates,
        "one update too few": lambda rate, updates: (1 - 2 * rate) ** (updates - 1),
        "one update too many": lambda rate, updates: (1 - 2 * rate) ** (updates + 1),
        "that is one update, however": lambda rate, updates: 1 - 2 * rate,
        "after 2 updates at a learning rate of 0.25, your weight is 0.64": lambda rate, updates: 0.8**updates,
    },
    "trainable": {
        "the number of frozen parameters": 9_248,
        "without conv1 and conv2": 590_597,
        "without conv1.": 599_845,
        "the biases are left out": 600_165 - 9_248 - 32 - 128 - 5,
        "of all layers, without their biases": 600_165 - 2 * 32 - 128 - 5,
        "of a frozen layer are frozen too": 600_165 - 9_248 + 32,
        "the number of layers": 3,
        "the number is not 590,918": 590_918,
    },
    "trainable, with a network below": {
        "the size of the network below, which": 600_165,
        "also counts the network below": 600_165 + 590_597,
        "of all layers, without their biases": 590_597 - 133,
    },
    "freeze_convolutions": {
        "conv2 is still trainable": freezing("conv1", **COMPILED),
        "dense1 belongs to the head": freeze_all,
        "nothing moves, not even the head": freezing(*cnn.CONVOLUTIONS, **STANDING_STILL),
        "a loss that does not fit integer labels": freezing(*cnn.CONVOLUTIONS, optimizer="sgd", loss="mse"),
    },
    "freeze_head": {
        "freezes conv1; it should be trained": freeze_all,
        "dense1 is still trainable": freezing("scores"),
        "all layers are still trainable": freezing("dense"),
        "still moves dense1": freezing("dense1", "scores"),
        "nothing moves, not even the convolutions": freezing(
            "dense1", "scores", **COMPILED | {"optimizer": keras.optimizers.SGD(0.0)}
        ),
        "a loss that does not fit integer labels": freezing("dense1", "scores", optimizer="sgd", loss="mse"),
        "conv1 was frozen, and your function leaves it that way": freeze_head_alone,
        "dense1 was frozen, and your function unfreezes it": toggle_head,
    },
    "paired": {
        "the sign is flipped": interval(np.subtract(OTHER, ONE)),
        "the mean difference is not 2.5.": (2.5, 1, 4),
        "two separate intervals": around(UNPAIRED),
        "the ends of two intervals": around(ENDS),
        "the mean comes first": (LOW, MEAN, HIGH),
        "that is a share": tuple(value / 100 for value in DIFFERENCE),
        "the lower end comes before": (MEAN, HIGH, LOW),
        "not its half-width": (MEAN, HIGH - MEAN, HIGH - MEAN),
        "the standard error": around(SPREAD / math.sqrt(3)),
        "1.96 is for many seeds": around(1.96 * SPREAD / math.sqrt(3)),
        "should have three numbers": MEAN,
        "divide by n - 1": around((HIGH - MEAN) * math.sqrt(2 / 3)),
        "from 1 to 3.5 is not": (MEAN, 1, 3.5),
        "rounded too far": (MEAN, round(LOW, 1), round(HIGH, 1)),
    },
    "by_seed": {
        "the sign is flipped": lambda one, other: [other[seed] - one[seed] for seed in one],
        "the worst with the worst": differences(lambda one, other: np.subtract(sorted(one), sorted(other))),
        "yours are [-1.0, 9.0, 0.5]": differences(lambda one, other: np.subtract(one, other[::-1])),
        "yours are [4.0, 1.5, 6.0]": lambda one, other: [abs(one[seed] - other[seed]) for seed in one],
        "returns 1 number.": lambda one, other: 2.33,
        "need not be 0, 1 and 2": lambda one, other: [one[seed] - other[seed] for seed in range(3)],
    },
    "word": {"'equal' is not one of the words": "equal"},
    "rescaled": {
        "from 0 to 1": lambda pixels: pixels / 255,
        "below 0: convert them to floats": lambda pixels: (pixels - np.uint8(127)) / 127.5,
        "wraps around": lambda pixels: pixels * np.uint8(2) / 255 - 1,
        "half of 255, not of 256": lambda pixels: pixels / 128 - 1,
        "black and white": lambda pixels: 1 - pixels / 127.5,
        "must not depend on the others": lambda pixels: 2 * (pixels / pixels.max()) - 1,
        "become [0.0, 51.0, 255.0]": lambda pixels: pixels,
    },
    "freeze_normalization": {
        "freezes a dense layer": freeze_all,
        "the layers around it are left out": lambda model: freeze_normalization(model, outside=False),
        "not work with nested networks": lambda model: model.get_layer("upper"),
        "leaves every normalization layer trainable": lambda model: freeze_normalization(model, False, False),
    },
    "standard_error": {
        "take its square root": lambda share, images: share * (1 - share) / images,
        "the standard deviation of a single answer": lambda share, images: math.sqrt(share * (1 - share)),
        "belongs under the square root, too": lambda share, images: math.sqrt(share * (1 - share)) / images,
        "p where p (1 - p) belongs": lambda share, images: math.sqrt(share / images),
        "1.96 standard errors": lambda share, images: 1.96 * math.sqrt(share * (1 - share) / images),
        "in percentage points": lambda share, images: 100 * math.sqrt(share * (1 - share) / images),
        "divides by n - 1": lambda share, images: math.sqrt(share * (1 - share) / (images - 1)),
        "0.5 and 400 images, the standard error is 0.025, not 0.02": lambda share, images: 0.4 / math.sqrt(images),
    },
    "leaks": {
        "changes with the labels of the test images": cheap_test(over_test=True),
        "right on the test images; save them for the end": cheap_test(on="test"),
        "the scaling has seen them": cheap_test(scaled=(True, True)),
        "features of the test images": cheap_test(scaled=(False, True)),
        "before the folds are made": cheap_test(scaled=(True, False)),
        "images that the classifier was fitted on": cheap_test(on="train"),
        "the scaling is missing": lambda features, labels, *_: cross_val_score(
            LogisticRegression(), features, labels, cv=5
        ).mean(),
        "returns 5 numbers": lambda features, labels, *_: cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression()), features, labels, cv=5
        ),
        "a share lies between 0 and 1": lambda *given: 100 * cheap_test()(*given),
    },
    "regret": {
        "the sign is flipped": lambda accuracies, chosen: 100 * (accuracies[chosen] - max(accuracies.values())),
        "that is a share; regret": lambda accuracies, chosen: max(accuracies.values()) - accuracies[chosen],
        "a share, and its sign": lambda accuracies, chosen: accuracies[chosen] - max(accuracies.values()),
        "to a different start": lambda accuracies, chosen: 100 * (accuracies["scratch"] - accuracies[chosen]),
        "to the mean, not": lambda accuracies, chosen: 100 * (np.mean(list(accuracies.values())) - accuracies[chosen]),
        "a plain difference": lambda accuracies, chosen: 100 * (1 - accuracies[chosen] / max(accuracies.values())),
        "has a regret of 0, not -3": lambda accuracies, chosen: (
            100 * (max(share for name, share in accuracies.items() if name != chosen) - accuracies[chosen])
        ),
        "the regret is 7 points, not 5": lambda accuracies, chosen: 5,
    },
}


@pytest.mark.parametrize(("check", "facts", "answer"), RIGHT.values(), ids=RIGHT)
def test_the_right_answer_is_right_and_three_dots_are_no_answer_yet(check, facts, answer):
    assert check(answer, *facts) == checks.Reply(True, "Right.")
    assert check(..., *facts).right is None
    assert repr(check(..., *facts)) == "Not answered yet: replace the three dots with your answer."


@pytest.mark.parametrize(("exercise", "said"), [(name, said) for name in WRONG for said in WRONG[name]])
def test_a_wrong_answer_is_told_what_is_wrong_and_given_a_hint(exercise, said):
    check, facts, _ = RIGHT[exercise]
    reply = check(WRONG[exercise][said], *facts)
    assert reply.right is False
    assert said in reply.text and "Hint: " in reply.text


def test_a_planted_bug_is_no_answer_until_its_code_is_edited_and_then_gets_a_hint():
    check = replies.exercise("count again")(lambda answer: replies.STILL_THERE if answer() == 1 else None)
    for _ in range(2):
        reply = check(lambda: 1)
        assert reply == checks.Reply(None, f"Not answered yet: {replies.STILL_THERE}.")
    assert check(lambda: 2 - 1) == checks.Reply(False, f"Not yet: {replies.STILL_THERE}. Hint: count again.")
    assert check(lambda: 2).right


def test_an_answer_may_be_written_in_other_ways():
    assert checks.parameters(4864.0, 64, 5, 3).right
    assert checks.by_seed(lambda one, other: {seed: one[seed] - other[seed] for seed in other}).right
    assert checks.word(" No detectable difference ", 0.75, 1.1).right
    assert checks.leaks(by_hand).right
    for folds in (StratifiedKFold(3, shuffle=True), KFold(10), LeaveOneOut()):
        model = Pipeline([("scale", MinMaxScaler()), ("classify", LogisticRegression(C=100, max_iter=1000))])
        assert checks.leaks(lambda x, y, *_, m=model, f=folds: (cross_val_predict(m, x, y, cv=f) == y).mean()).right


def test_half_an_answer_is_none_yet_and_neither_is_a_function_without_code():
    def not_written(*arguments):
        """Do what an exercise asks for."""

    assert checks.tasks(([...], [7, 8, 9]), CLASSES).right is None
    assert checks.baseline((..., 0.3), TRAINING, TEST).right is None
    assert checks.cross_entropy(lambda *arguments: None).right is None
    assert checks.freeze_head(not_written).right is None


@pytest.mark.parametrize("check", [checks.cross_entropy, checks.three_parts, checks.by_seed])
def test_a_function_that_forgets_to_return_is_told_so(check):
    def without_return(*arguments):
        len(arguments)

    assert "your function returns nothing" in check(without_return).text


def test_labels_may_be_names_and_equally_frequent():
    assert checks.baseline(("a", 0.5), np.array(["a", "a", "b"]), np.array(["a", "b"])).right
    reply = checks.tasks(([0, 1], ["ant", "bee", "cup"]), ["ant", "bee", "cup", "dog", "egg"])
    assert "the dataset has no class 0" in reply.text
    balanced = np.repeat(CLASSES, 5)
    assert all(checks.baseline((label, 0.1), balanced, balanced).right for label in CLASSES)


@pytest.mark.parametrize(("low", "high"), [(0.75, 1.1), (0.9, 1.15), (0.85, 0.95), (0.5, 0.9), (1.1, 2)])
def test_one_word_fits_an_interval_and_what_is_said_of_the_others_is_true(low, high):
    true = {
        "all of the interval lies within the margin": low >= 0.8 and high <= 1.25,
        "the interval reaches beyond the margin": low < 0.8 or high > 1.25,
        "the interval reaches 1 or above": high >= 1,
        "the interval reaches 1 or below": low <= 1,
        "1 is not in the interval": not low <= 1 <= high,
    }
    words = ("as good", "better", "worse", "no detectable difference")
    replies = [checks.word(given, low, high) for given in words]
    assert sum(reply.right for reply in replies) == 1
    for reply in replies:
        assert reply.right or [holds for said, holds in true.items() if said in reply.text] == [True], reply.text


# A learner's own transfer


@pytest.fixture(scope="module")
def facts() -> dict:
    """Return a pretrained network of digits, a few images, test images, and an ordinary network trained on the few."""
    source, target = split_tasks(load_dataset("digits"), CLASSES[5:], CLASSES[:5])
    original = cnn.build_cnn(cnn.Architecture(source.image_shape, filters=8, dense_units=32))
    few = subsample(target.train, 20)
    fit(original, subsample(source.train, 50))
    return {"original": original, "few": few, "test": target.test, "scratch": fit(copied(original, False), few)}


def copied(model: keras.Model, weights: bool = True) -> keras.Model:
    copy = keras.models.clone_model(model)
    if weights:
        copy.set_weights(model.get_weights())
    return copy


def fit(model: keras.Model, split: Split, epochs: int = 15) -> keras.Model:
    """Train a network in few steps, without a graph, which takes longer to make than to use here."""
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(split.images, split.labels, batch_size=len(split), epochs=epochs, verbose=0)
    return model


def with_new_head(below: list, shape: tuple[int, ...]) -> keras.Model:
    head = [keras.layers.Flatten(), keras.layers.Dense(32, "relu"), keras.layers.Dense(5, "softmax")]
    return keras.Sequential([keras.Input(shape), *below, *head])


def copied_extractor(given: keras.Model, few: Split) -> keras.Model:
    extractor = keras.Sequential([keras.Input(few.images.shape[1:]), *copied(given).layers[:6]])
    extractor.trainable = False
    return fit(with_new_head([extractor], few.images.shape[1:]), few)


def functional(given: keras.Model, few: Split, late: bool = False, frozen: bool = True) -> keras.Model:
    copy = copied(given)
    features = keras.Model(copy.inputs, copy.get_layer("pool").output)
    features.trainable = not frozen or late
    hidden = keras.layers.Dense(32, "relu")(keras.layers.Flatten()(features.output))
    model = keras.Model(features.inputs, keras.layers.Dense(5, "softmax")(hidden))
    if late:
        fit(model, few, 2)
        features.trainable = False
    return fit(model, few)


def cached(given: keras.Model, few: Split) -> keras.Model:
    features = keras.Model(given.inputs, given.get_layer("pool").output).predict(few.images, verbose=0)
    return fit(with_new_head([], features.shape[1:]), Split(features, few.labels))


def shared(given: keras.Model, few: Split) -> keras.Model:
    for layer in given.layers[:6]:
        layer.trainable = False
    return fit(with_new_head(given.layers[:6], few.images.shape[1:]), few)


def with_old_head(given: keras.Model, few: Split) -> keras.Model:
    copy = copied(given)
    for layer in copy.layers[:6]:
        layer.trainable = False
    return fit(copy, few)


def without_weights(given: keras.Model, few: Split) -> keras.Model:
    return copied_extractor(copied(given, False), few)


def accuracies(facts: dict, split: str, *models: keras.Model) -> list[float]:
    """Return the accuracy of each network on the few images or on the test images."""
    images, labels = facts[split].images, facts[split].labels
    extractor, shares = cnn.cut(facts["original"])[0], []
    for model in models:
        inputs = images if model.input_shape == facts["original"].input_shape else extractor.predict(images, verbose=0)
        shares.append(float(np.mean(model.predict(inputs, verbose=0).argmax(axis=1) == labels)))
    return shares


def reply_to_transfer(facts: dict, make, on: str = "test", scratch=None) -> checks.Reply:
    given = copied(facts["original"])
    transferred, scratch = make(given, facts["few"]), facts["scratch"] if scratch is None else scratch
    answer = transferred, scratch, accuracies(facts, on, transferred, facts["scratch"])
    return checks.transfer(answer, given, facts["original"], facts["few"], facts["test"])


@pytest.mark.parametrize("style", [copied_extractor, functional, cached])
def test_a_transfer_in_any_style_is_right(facts, style):
    assert reply_to_transfer(facts, style) == checks.Reply(True, "Right.")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda given, few: functional(given, few, late=True), "were not when you compiled and trained it"),
        (
            lambda given, few: functional(given, few, frozen=False),
            "moved while the network was trained: conv1 is train",
        ),
        (shared, "conv1 is a layer of the pretrained network itself"),
        (with_old_head, "resemble the old head"),
        (without_weights, "do not have the pretrained weights"),
    ],
)
def test_a_transfer_with_a_mistake_is_told_which(facts, make, said):
    reply = reply_to_transfer(facts, make)
    assert reply.right is False and said in reply.text


def test_a_transfer_without_a_baseline_or_with_accuracies_of_other_images_is_not_right_yet(facts):
    made, frozen = (make(facts["original"], facts["few"]) for make in (cached, functional))
    nothing = checks.transfer((..., ..., ...), *[facts[name] for name in ("original", "original", "few", "test")])
    assert nothing.right is None
    for changed, said in (
        ({"scratch": ...}, "there is no baseline"),
        ({"scratch": frozen}, "conv1 of scratch is frozen"),
        ({"on": "few"}, "on the images it was trained on"),
    ):
        assert said in reply_to_transfer(facts, lambda *_: made, **changed).text


# The exercises in the lessons


def exercises() -> list:
    """Return every checked exercise of the lessons with the folded answer below it."""
    pairs = []
    for lesson in lessons():
        for cell, folded in itertools.pairwise(nbformat.read(lesson.path, as_version=4).cells):
            if cell.cell_type == "code" and "\nchecks." in cell.source:
                name = re.search(r"checks\.\w+", cell.source)[0]
                pairs.append(pytest.param(cell.source, folded.source, id=f"{lesson.name} {name}"))
    assert len(pairs) == 22
    return pairs


def reply_to(code: str, names: dict) -> checks.Reply:
    """Run an exercise, which ends with its check."""
    *answer, check = code.splitlines()
    names = dict(names)
    exec("\n".join(answer), names)
    return eval(check, names)


@pytest.fixture(scope="module")
def lesson_names() -> dict:
    """Return the names defined by the cells before the exercises, run on the digits."""
    everything = load_dataset("digits")
    source, target = split_tasks(everything, CLASSES[5:], CLASSES[:5])
    height, _, channels = source.image_shape
    network = backbone = original = cnn.build_cnn(cnn.Architecture(source.image_shape))
    pretrained, few = copied(original), subsample(target.train, 20)
    seeds, heads = [0], {("-1 to 1", 0): keras.Sequential([keras.Input((256,)), keras.layers.Dense(5)])}
    sklearn = {one.__name__: one for one in (LogisticRegression, StandardScaler, cross_val_score, make_pipeline)}
    return {"checks": checks, "np": np, "keras": keras, "interval": interval, **sklearn, **locals()}


@pytest.mark.parametrize(("exercise", "folded"), exercises())
def test_the_folded_answer_is_right_when_it_is_pasted_above_the_check_or_in_place_of_the_dots(
    exercise, folded, lesson_names
):
    block, piece = re.search(r"```python\n(.+?)```", folded, re.DOTALL), re.search("`(.+?)`", folded)
    pasted = block[1] + exercise.splitlines()[-1] if block else exercise.replace("...", piece[1], 1)
    assert reply_to(pasted, lesson_names) == checks.Reply(True, "Right.")


def test_an_exercise_in_each_lesson_has_a_planted_bug_that_is_no_answer_yet(lesson_names):
    planted = [exercise for exercise in exercises() if "..." not in exercise.values[0]]
    assert [exercise.id[:2] for exercise in planted] == ["01", "02", "03", "04", "05", "06", "07"]
    for exercise in planted:
        reply = reply_to(exercise.values[0], lesson_names)
        assert reply.right is None and "the planted bug is still there" in reply.text

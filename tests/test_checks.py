"""Exercises: the right answer is right, typical wrong ones are told apart, and none at all is no error."""

import itertools
import math
import re
import statistics

import nbformat
import numpy as np
import pytest

from helpers import checks, cnn
from helpers.backbones import Head
from helpers.datasets import load_dataset
from helpers.runner.notebooks import lessons
from helpers.statistics import interval
from helpers.tasks import split_tasks
from helpers.training import RECIPES

CLASSES = list(range(10))
TRAINING, TEST = np.repeat([0, 1, 2], [40, 30, 30]), np.repeat([0, 1, 2], [30, 35, 35])
ONE, OTHER = [97.8, 98.4, 97.9], [96.0, 96.3, 96.1]


def cross_entropy(probabilities, label):
    return -math.log(probabilities[label])


def freeze_a_layer_that_is_not_there(model):
    for layer in model.layers:
        layer.trainable = layer.name != "dense"


def freeze_head(model):
    for layer in model.layers:
        layer.trainable = layer.name not in ("dense1", "scores")


def freeze_all(model):
    model.trainable = False


def freeze_scores(model):
    model.get_layer("scores").trainable = False


DIFFERENCE = interval(np.subtract(ONE, OTHER))
HALF = DIFFERENCE[2] - DIFFERENCE[0]
UNPAIRED = math.hypot(*(interval(values)[2] - statistics.mean(values) for values in (ONE, OTHER)))
MEAN = DIFFERENCE[0]
ENDS = interval(ONE)[2] - interval(OTHER)[2] - MEAN

CASES = [  # check, facts, the right answer, wrong answers with what is said of each
    (
        checks.tasks,
        (CLASSES,),
        ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9]),
        {
            "source task names the label 0 twice": ([0, 0, 1, 2, 3, 4, 5, 6], [7, 8, 9]),
            "the label 6 in both tasks": ([0, 1, 2, 3, 4, 5, 6], [6, 7, 8, 9]),
            "no label 10": ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10]),
            "the label 6 is in neither": ([0, 1, 2, 3, 4, 5], [7, 8, 9]),
            "should have three classes, yours has 5": (CLASSES[:5], CLASSES[5:]),
            "is two lists of labels": 7,
        },
    ),
    (
        checks.baseline,
        (TRAINING, TEST),
        0.3,
        {
            "not a percentage": 30,
            "on the training labels": 0.4,
            "equally frequent": 1 / 3,
            "not right for 10.0%": 0.1,
            "does not work as an answer": "a third",
        },
    ),
    (
        checks.parameters,
        (64, 5, 3),
        64 * 76,
        {
            "left out the biases": 64 * 75,
            "a bias of its own": 64 * 75 + 1,
            "all channels": 64 * 26,
            "a kernel is a square": 64 * 16,
            "it is not 12": 12,
            "not a whole number": 4864.5,
        },
    ),
    (
        checks.multiply_adds,
        (28, 64, 5, 1),
        24 * 24 * 64 * 25,
        {
            "does not fit at the image's edge": 28 * 28 * 64 * 25,
            "the number of weights": 64 * 25,
            "not a multiplication": 24 * 24 * 64 * 26,
        },
    ),
    (
        checks.updates,
        (1000, 64, 3),
        48,
        {
            "left over at the end of an epoch": 45,
            "that is one epoch": 16,
            "a whole batch": 3000,
            "in each epoch": 47,
            "it is not 46": 46,
        },
    ),
    (
        checks.cross_entropy,
        (),
        cross_entropy,
        {
            "the sign is wrong": lambda probabilities, label: math.log(probabilities[label]),
            "to base 10": lambda probabilities, label: -math.log10(probabilities[label]),
            "found most likely": lambda probabilities, label: -math.log(max(probabilities)),
            "your function gives 0.300": lambda probabilities, label: 1 - probabilities[label],
            "the label 0 your function gives 1.609": lambda probabilities, label: -math.log(probabilities[1]),
            "IndexError": lambda probabilities, label: -math.log(probabilities[label + 7]),
        },
    ),
    (
        checks.freeze_head,
        (),
        freeze_head,
        {
            "freezes conv1, which should be trained": freeze_all,
            "dense1 is still trainable": freeze_scores,
            "all layers are still trainable": freeze_a_layer_that_is_not_there,
        },
    ),
    (
        checks.paired,
        (ONE, OTHER),
        DIFFERENCE,
        {
            "turned round": interval(np.subtract(OTHER, ONE)),
            "the mean difference is not 2.50": (2.5, 1, 4),
            "two separate intervals": (MEAN, MEAN - UNPAIRED, MEAN + UNPAIRED),
            "combined their ends": (MEAN, MEAN - ENDS, MEAN + ENDS),
            "has three numbers": MEAN,
            "needs n - 1": (MEAN, MEAN - HALF * math.sqrt(2 / 3), MEAN + HALF * math.sqrt(2 / 3)),
            "from 1.00 to 3.00 is not": (MEAN, 1, 3),
        },
    ),
    (
        checks.word,
        (-0.35, 0.3, 0.2),
        "no detectable difference",
        {
            "beyond the margin": "as good",
            "zero, or worse": "better",
            "zero, or better": "worse",
            "'equal' is not one of the words": "equal",
        },
    ),
    (
        checks.rescaled,
        (),
        lambda pixels: pixels / 127.5 - 1,
        {
            "from 0 to 1": lambda pixels: pixels / 255,
            "from -0.5 to 0.5": lambda pixels: pixels / 255 - 0.5,
            "start again at 255": lambda pixels: (pixels - np.uint8(127)) / 127.5,
            "become [0.0, 51.0, 255.0]": lambda pixels: pixels,
        },
    ),
    (checks.word, (-0.1, 0.2, 0.2), "as good", {"says more than that": "no detectable difference"}),
    (checks.word, (0.3, 0.9, 0.2), "better", {"beyond the margin": "as good"}),
]
WRONG = [
    pytest.param(check, facts, answer, said, id=f"{check.__name__}: {said}")
    for check, facts, _, mistakes in CASES
    for said, answer in mistakes.items()
]


def exercises() -> list:
    """Every checked exercise of the lessons with the folded answer below it."""
    found = []
    for lesson in lessons():
        cells = nbformat.read(lesson.path, as_version=4).cells
        for cell, folded in itertools.pairwise(cells):
            if cell.cell_type == "code" and "..." in cell.source and "\nchecks." in cell.source:
                name = re.search(r"checks\.\w+", cell.source)[0]
                found.append(pytest.param(cell.source, folded.source, id=f"{lesson.name} {name}"))
    assert len(found) == 12
    return found


def pasted(exercise: str, folded: str) -> str:
    """Put a block of code above the check; else the first piece of code in place of the dots."""
    block, piece = re.search(r"```python\n(.+?)```", folded, re.DOTALL), re.search("`(.+?)`", folded)
    assert piece, f"no code in {folded!r}"
    return block[1] + exercise.splitlines()[-1] if block else exercise.replace("...", piece[1], 1)


@pytest.fixture(scope="module")
def lesson_names() -> dict:
    """What the cells before the exercises have defined, on the digits."""
    everything = load_dataset("digits")
    source, _ = split_tasks(everything, CLASSES[5:], CLASSES[:5])
    height, _, channels = source.image_shape
    whole = cnn.build_cnn(cnn.Architecture(source.image_shape))
    head = Head((1, 1, 256), cnn.Architecture(classes=2), RECIPES["fast"])
    return {"checks": checks, "np": np, "interval": interval, **locals()}


@pytest.mark.parametrize(("exercise", "folded"), exercises())
def test_the_folded_answer_is_right_when_it_is_pasted(exercise, folded, lesson_names):
    *answer, check = pasted(exercise, folded).splitlines()
    names = dict(lesson_names)
    exec("\n".join(answer), names)
    assert eval(check, names) == checks.Reply(True, "Right.")


@pytest.mark.parametrize(("check", "facts", "answer"), [case[:3] for case in CASES])
def test_the_right_answer_is_right(check, facts, answer):
    assert check(answer, *facts) == checks.Reply(True, "Right.")


@pytest.mark.parametrize(("check", "facts", "answer", "said"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong_and_given_a_hint(check, facts, answer, said):
    reply = check(answer, *facts)
    assert reply.right is False
    assert said in reply.text and "Hint: " in reply.text


@pytest.mark.parametrize(("check", "facts"), [case[:2] for case in CASES])
def test_three_dots_are_no_answer_yet(check, facts):
    reply = check(..., *facts)
    assert reply.right is None
    assert repr(reply).startswith("Not answered yet")


def test_an_answer_may_be_written_otherwise():
    assert checks.parameters(4864.0, 64, 5, 3).right
    assert checks.word(" No detectable difference ", -0.35, 0.3, 0.2).right


def test_a_reply_has_no_line_that_a_notebook_would_break():
    reply = checks.paired((MEAN, MEAN - UNPAIRED, MEAN + UNPAIRED), ONE, OTHER)
    assert max(map(len, repr(reply).splitlines())) <= 88
    assert repr(reply).split() == reply.text.split()


@pytest.mark.parametrize("labels", [[-7, 10**9], ["a", "b"]])
def test_the_baseline_takes_labels_of_any_kind(labels):
    assert checks.baseline(0.5, np.array(labels)[[0, 0, 1]], np.array(labels)).right


@pytest.mark.parametrize("check", [checks.cross_entropy, checks.freeze_head, checks.rescaled])
def test_a_function_that_does_nothing_is_no_answer_yet(check):
    assert check(lambda *arguments: None).right is None


def test_the_trainable_parameters_of_the_published_network_with_its_first_convolution_frozen():
    model = cnn.build_cnn(cnn.Architecture())
    assert checks.trainable(600_165 - 320, model, ["conv1"]).right
    assert "how many are frozen" in checks.trainable(320, model, ["conv1"]).text
    assert "all of them" in checks.trainable(600_165, model, ["conv1"]).text

"""Exercises of lesson 07."""

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from helpers.checks.replies import STILL_THERE, close, exercise, meaning

GIANT, TINY, RIGHT = 1e6, 1e-4, 0.9  # factors for made-up features; lowest accuracy that counts as right


@exercise("one answer, right or wrong, has the variance p (1 - p); the mean of n answers has 1 / n of that variance")
def standard_error(answer: Callable[[float, int], float]) -> str | None:
    """Check a function of (share of right answers, number of images) that returns the standard error of the share."""
    share, images = 0.8, 50
    value = answer(share, images)
    variance = share * (1 - share)
    mistakes = {
        variance / images: "that is the variance of the share; take its square root",
        math.sqrt(variance): "that is the standard deviation of a single answer; the mean of many varies less",
        math.sqrt(variance) / images: "the number of images belongs under the square root, too",
        math.sqrt(share / images): "that has p where p (1 - p) belongs",
        1.96 * math.sqrt(variance / images): "that is half the width of a 95% interval, 1.96 standard errors",
        100 * math.sqrt(variance / images): "that is in percentage points; return a share instead",
        math.sqrt(variance / (images - 1)): "that divides by n - 1, which is for a variance estimated from a sample",
    }
    if mistake := meaning(value, mistakes):
        return mistake
    for share, images in ((0.8, 50), (0.5, 400)):
        if not close(given := answer(share, images), right := math.sqrt(share * (1 - share) / images)):
            return f"for a share of {share} and {images} images, the standard error is {right:.3f}, not {given:.4g}"
    return None


@exercise("make the folds from the labeled images alone, and fit everything, even the scaling, within each fold")
def leaks(answer: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]) -> str | None:
    """Check a function of (features, labels, test_features, test_labels) that cross-validates a classifier.

    Made-up features tell the leaks apart: a test without leaks gets all images right, however its folds are drawn. In
    some trials, the labels of the test images are swapped; in others, each image has one feature so large that scaling
    fitted on this image hides what the feature says about the other images.
    """

    def share(features: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
        with warnings.catch_warnings(action="ignore"):  # about fits that do not converge
            return float(np.mean(answer(features.copy(), labels.copy(), test.copy(), test_labels.copy())))

    def right(*made_up: np.ndarray) -> bool:
        return share(*made_up) >= RIGHT

    draws = np.random.default_rng(0)
    labels, test_labels = (draws.permutation(np.repeat([0, 1], [3 * n, 2 * n])).astype(np.int32) for n in (8, 4))
    number, both = len(labels), len(labels) + len(test_labels)
    features, test = (np.repeat(2.0 * of[:, None] - 1, both, axis=1) for of in (labels, test_labels))
    giants = np.where(np.eye(both), GIANT, 1.0)  # each image has one giant feature
    value = answer(features.copy(), labels.copy(), test.copy(), test_labels.copy())
    if value is None:
        return "your function returns nothing"
    if np.size(value) > 1:
        return f"your function returns {np.size(value)} numbers, one per fold; return their mean"
    if not 0 <= float(value) <= 1:
        return f"your function returns {float(value):.4g}, but a share lies between 0 and 1"
    if (swapped := share(features, labels, test, 1 - test_labels)) < 1 - RIGHT:
        return "that is how often the classifier is right on the test images; save them for the end"
    if swapped < RIGHT:
        scaled = not right(features * giants[:number], labels, test * giants[number:], test_labels)
        return STILL_THERE if scaled else "your score changes with the labels of the test images: the folds use them"
    if not right(features[:, number:], labels, (test * giants[number:])[:, number:], test_labels):
        return "your score changes with the features of the test images: the scaling has seen them"
    if not right(TINY * features, labels, TINY * test, test_labels):
        return "features in small units count for nothing in your test: the scaling is missing"
    if not right((features * giants[:number])[:, :number], labels, test[:, :number], test_labels):
        return (
            "the scaling is fitted before the folds are made, so it has seen the images that a fold holds out; or you "
            "scale each image by its own length, but the exercise scales each feature"
        )
    noise, few = draws.normal(size=(both, 300)), np.arange(number) % 2
    if right(noise[:number], few, noise[number:], test_labels):
        return "your score is high even for pure noise: it comes from images that the classifier was fitted on"
    return None


@exercise("find the best accuracy first; the chosen start may be the best one itself")
def regret(answer: Callable[[Mapping[str, float], str], float]) -> str | None:
    """Check a function of ({start: test accuracy}, chosen start) that returns the regret in percentage points."""
    accuracies, chosen = {"pixels": 0.84, "scratch": 0.88, "middle": 0.91, "end": 0.79}, "pixels"
    value = answer(accuracies, chosen)
    mistakes = {
        -7: "the sign is flipped: regret is never negative",
        0.07: "that is a share; regret is counted in percentage points",
        -0.07: "that is a share, and its sign is flipped: regret is counted in percentage points and never negative",
        4: "that is the distance to a different start, not to the best",
        100 * (np.mean(list(accuracies.values())) - 0.84): "that is the distance to the mean, not to the best",
        100 * (0.91 - 0.84) / 0.91: "that is relative to the best accuracy; regret is a plain difference",
    }
    if mistake := meaning(value, mistakes):
        return mistake
    if not close(value, 7):
        return f"the best start gets 91% right, the chosen one 84%; the regret is 7 points, not {value:.4g}"
    if not close(best := answer(accuracies, "middle"), 0):
        return (
            f"choosing the best start has a regret of 0, not {best:.4g}; compare with all starts, even the chosen one"
        )
    return None

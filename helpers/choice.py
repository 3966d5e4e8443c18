"""Choose a start: cheap tests of features on training labels alone, a rule, and its regret.

A start is a set of features: those of a source task, random ones, MobileNet's, or the pixels themselves. The tests are
compared in Renggli et al. 2022, "Which model to transfer? Finding the needle in the growing haystack".
"""

import time

import numpy as np

from helpers.images import Split
from helpers.tasks import subsample

FOLDS = 5
MOST_TESTED = 100  # images of each class that the cheap tests look at, so that they stay cheap
SQUARED_NORM = 100.0  # of features on average, as large as that of MNIST's pixels from 0 to 1


def few_for_tests(split: Split, labels_per_class: int | str, seed: int = 0) -> Split:
    """Return the images of a label budget, or the first hundred of each class if it has more."""
    smallest = int(np.bincount(split.labels).min())
    return subsample(split, min(MOST_TESTED, smallest if labels_per_class == "all" else int(labels_per_class)), seed)


def cheap_tests(features: Split, seed: int = 0) -> dict[str, float]:
    """Test features `(n, ...)` on their labels: the higher a score, the better the features seem.

    `logistic`: cross-validated accuracy of a logistic regression, `likelihood`: its mean log-likelihood per image,
    `neighbor`: leave-one-out accuracy of the nearest neighbor, `logme`: `logme`. For each, `<test>_seconds` are those
    of one core. `tested` counts the images. The seed draws the folds. Raises ValueError if a class has a single image.
    """
    scores: dict[str, float] = {"tested": len(features)}
    start = time.process_time()
    coordinates = _coordinates(features)
    shared = time.process_time() - start
    tests = {
        "logistic,likelihood": lambda: cross_validate(coordinates, features.labels, seed),
        "neighbor": lambda: (nearest_neighbor(coordinates, features.labels),),
        "logme": lambda: (logme(coordinates, features.labels),),
    }
    for names, test in tests.items():
        start = time.process_time()
        values = test()
        seconds = shared + time.process_time() - start
        for name, value in zip(names.split(","), values, strict=True):
            scores |= {name: value, f"{name}_seconds": seconds}
    return scores


def cross_validate(coordinates: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return accuracy and mean log-likelihood of a logistic regression on images held out, in at most five folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        raise ValueError("labels: a class has a single image; cross-validation needs two or more of each")
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=1000)
    probabilities = cross_val_predict(model, coordinates, labels, cv=folds, method="predict_proba")
    of_label = probabilities[np.arange(len(labels)), labels]
    return float((probabilities.argmax(axis=1) == labels).mean()), float(np.log(of_label.clip(1e-12)).mean())


def nearest_neighbor(coordinates: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose nearest other image has the same label."""
    squares = (coordinates**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * coordinates @ coordinates.T
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(axis=1)] == labels).mean())


def logme(coordinates: np.ndarray, labels: np.ndarray) -> float:
    """Return the log of the maximum evidence of features `(n, d)`, per image and averaged over classes.

    Each class is a target of 0 and 1 for Bayesian linear regression, whose two precisions `alpha` and `beta` are raised
    to the evidence's maximum by fixed-point iteration: You et al. 2021, "LogME: practical assessment of pre-trained
    models for transfer learning", equation 2 and algorithm 1.
    """
    images = len(labels)
    left, singular, _ = np.linalg.svd(coordinates, full_matrices=False)
    squares, evidences = singular**2, []
    for label in np.unique(labels):
        target = (labels == label).astype(float)
        parts = (left.T @ target) ** 2
        outside = target @ target - parts.sum()  # of what no weights can explain
        alpha, beta = 1.0, 1.0
        for _ in range(100):
            shrunk = alpha + beta * squares
            weights = (beta**2 * squares * parts / shrunk**2).sum()  # squared norm of the posterior's mean
            residual = outside + (alpha**2 * parts / shrunk**2).sum()
            used = (beta * squares / shrunk).sum()  # effective number of weights
            before, alpha, beta = alpha / beta, used / weights, (images - used) / residual
            if abs(alpha / beta - before) <= 1e-3 * before:
                break
        shrunk = alpha + beta * squares
        weights = (beta**2 * squares * parts / shrunk**2).sum()
        residual = outside + (alpha**2 * parts / shrunk**2).sum()
        evidence = images * np.log(beta / (2 * np.pi)) + (np.log(alpha) - np.log(shrunk)).sum()
        evidences.append((evidence - beta * residual - alpha * weights) / (2 * images))
    return float(np.mean(evidences))


def _coordinates(features: Split) -> np.ndarray:
    """Return features as `(n, at most n)` with the same distances and inner products, centered, on a common scale.

    None of the tests can tell the difference, and all are faster: feature maps have thousands of numbers per image.
    """
    flat = features.images[:].reshape(len(features), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    left, singular, _ = np.linalg.svd(flat, full_matrices=False)
    coordinates = left * singular
    return coordinates * np.sqrt(SQUARED_NORM * len(flat) / max((singular**2).sum(), 1e-12))

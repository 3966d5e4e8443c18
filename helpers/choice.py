"""Choose a start: cheap tests of features on training labels alone, a rule, and its regret.

A start is a set of features: those of a source task, random ones, MobileNet's, or the pixels themselves. Renggli et al.
2022, "Which model to transfer? Finding the needle in the growing haystack", compare such tests and such rules.
"""

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from helpers.images import Split
from helpers.tasks import budget_size, subsample

FOLDS = 5
MOST_TESTED = 100  # images of each class that the cheap tests look at, so that they stay cheap
SQUARED_NORM = 100.0  # of features on average, as large as that of MNIST's pixels from 0 to 1
MARGINS = (np.inf, 2.0, 1.0, 0.5, 0.0)  # from which a rule takes its own; the last is to trust the test alone
TASK, START = ["target", "labels_per_class", "seed"], ["source", "strategy"]  # columns of result rows


@dataclass(frozen=True)
class Rule:
    """A usual start; by how many standard errors another's `logistic` test must be higher to be taken instead; and what
    to do with the features of a source task with few labels per class, and from `many` on.
    """

    start: str
    margin: float
    few: str
    then: str
    many: int = 50

    def choose(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return source and strategy for each task, from result rows with cheap tests, whose errors are not looked at.

        The tests of a source task's features are in its row of `frozen`.
        """
        tested = rows.dropna(subset="logistic").sort_values("logistic", kind="stable").set_index(TASK)
        usual = tested[tested["strategy"] == self.start]
        best = tested[~tested.index.duplicated(keep="last")].loc[usual.index]
        needed = self.margin * np.sqrt(usual["logistic"] * (1 - usual["logistic"]) / usual["tested"])
        higher = best["logistic"] > usual["logistic"] + needed.fillna(np.inf)
        chosen = usual[START].where(~higher, best[START]).reset_index()
        enough = chosen["labels_per_class"].map(budget_size) >= self.many
        transferred = np.where(enough, self.then, self.few)
        return chosen.assign(strategy=chosen["strategy"].where(chosen["strategy"] != "frozen", transferred))


def make_rule(rows: pd.DataFrame) -> Rule:
    """Return the rule that would have had the least regret on these rows: first its start, then its strategies for the
    features of source tasks, then its margin.
    """
    accuracy = 1 - rows["errors"] / rows["images"]
    transferred = rows["source"].notna()
    enough = rows["labels_per_class"].map(budget_size) >= Rule.many

    def best(some: pd.Series) -> str:
        return str(accuracy[some].groupby(rows["strategy"]).mean().idxmax())

    rule = Rule(best(~transferred), 0.0, best(transferred & ~enough), best(transferred & enough))
    rules = [replace(rule, margin=margin) for margin in MARGINS]
    return min(rules, key=lambda rule: float(regret(rows, rule.choose(rows)).mean()))


def regret(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.Series:
    """Return by task how many points of test accuracy the chosen rows are behind the best one in hindsight."""
    accuracy = 100 * (1 - rows["errors"] / rows["images"])
    best = accuracy.groupby([rows[name] for name in TASK]).max()
    reached = rows.assign(accuracy=accuracy).merge(chosen[TASK + START], on=TASK + START).set_index(TASK)["accuracy"]
    return (best - reached).dropna()


def few_for_tests(split: Split, labels_per_class: int | str, seed: int = 0) -> Split:
    """Return the images of a label budget, or the first hundred of each class if it has more."""
    smallest = int(np.bincount(split.labels).min())
    return subsample(split, min(MOST_TESTED, smallest if labels_per_class == "all" else int(labels_per_class)), seed)


def cheap_tests(features: Split, seed: int = 0) -> dict[str, float]:
    """Test features `(n, ...)` on their labels: the higher a score, the better the features seem.

    `logistic` is the cross-validated accuracy of a logistic regression, `likelihood` its mean log-likelihood per image,
    `neighbor` the accuracy of the nearest neighbor, `logme` see there; `<test>_seconds` are those of one core. `tested`
    counts the images. The seed draws the folds. Raises ValueError if a class has a single image.
    """
    start = time.process_time()
    coordinates, labels = _coordinates(features), features.labels
    shared = time.process_time() - start
    scores: dict[str, float] = {"tested": len(labels)}
    validated, neighbor, evidence = partial(cross_validate, seed=seed), nearest_neighbor, logme
    for names, test in ((("logistic", "likelihood"), validated), (("neighbor",), neighbor), (("logme",), evidence)):
        start = time.process_time()
        scores |= zip(names, np.atleast_1d(test(coordinates, labels)).tolist(), strict=True)
        scores[f"{names[0]}_seconds"] = shared + time.process_time() - start
    return scores


def cross_validate(coordinates: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return accuracy and mean log-likelihood of a logistic regression on images held out, in at most five folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        raise ValueError("labels: a class has a single image; give two or more of each, to learn and to check")
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
        evidence = images * np.log(beta / (2 * np.pi)) - images  # beta * residual + alpha * weights are `images` here
        evidences.append((evidence + (np.log(alpha) - np.log(alpha + beta * squares)).sum()) / (2 * images))
    return float(np.mean(evidences))


def _coordinates(features: Split) -> np.ndarray:
    """Return features as `(n, at most n)` with the same distances and inner products, centered, on a common scale.

    None of the tests can tell the difference, and all are faster: feature maps have thousands of numbers per image.
    """
    flat = features.images[:].reshape(len(features), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    left, singular, _ = np.linalg.svd(flat, full_matrices=False)
    coordinates: np.ndarray = left * singular
    coordinates *= np.sqrt(SQUARED_NORM * len(flat) / max((singular**2).sum(), 1e-12))
    return coordinates

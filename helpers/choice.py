"""Choose a start: cheap tests of features on training labels alone, a rule, and its regret.

A start is a set of features: a source task's, random ones, MobileNet's, or the pixels themselves. Renggli et al. 2022,
"Which model to transfer? Finding the needle in the growing haystack", compare tests and rules of this kind.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from helpers.images import Split
from helpers.tasks import budget_size, subsample

TASK, START = ["target", "labels_per_class", "seed"], ["source", "strategy"]  # columns of result rows


@dataclass(frozen=True)
class Rule:
    """A rule for choosing a start: keep the usual `start`, unless a different one beats it in the `logistic` test by
    more than `margin` standard errors. If a source task is chosen, its features are used with the strategy `few`, or
    with the strategy `then` if there are at least `many` labels per class.
    """

    start: str
    margin: float
    few: str
    then: str
    many: int = 50

    def choose(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the chosen source and strategy for each task, judging by the rows' cheap tests, never by their errors.

        The tests of a source task's features are in its `frozen` row.
        """
        tested = rows.dropna(subset="logistic").sort_values("logistic", kind="stable").set_index(TASK)
        usual = tested[tested["strategy"] == self.start]
        best = tested[~tested.index.duplicated(keep="last")].loc[usual.index]
        needed = self.margin * np.sqrt(usual["logistic"] * (1 - usual["logistic"]) / usual["tested"])
        higher = best["logistic"] > usual["logistic"] + needed  # False if `needed` is infinity times zero
        chosen = usual[START].where(~higher, best[START]).reset_index()
        transferred = np.where(chosen["labels_per_class"].map(budget_size) >= self.many, self.then, self.few)
        return chosen.assign(strategy=chosen["strategy"].where(chosen["strategy"] != "frozen", transferred))


RULE = Rule("mobilenet 6", 3.0, "head-first", "fine-tuned")


def make_rule(rows: pd.DataFrame) -> Rule:
    """Find the rule with the least regret on these rows: start first, then strategies for source tasks, then margin.

    Among margins with the same regret, the smallest wins, so that the rule trusts the tests as far as the rows allow.
    """
    accuracy, transferred = 1 - rows["errors"] / rows["images"], rows["source"].notna()
    enough = rows["labels_per_class"].map(budget_size) >= Rule.many

    def best(some: pd.Series) -> str:
        return str(accuracy[some].groupby(rows["strategy"]).mean().idxmax())

    rule = Rule(best(~transferred), 0.0, best(transferred & ~enough), best(transferred & enough))
    rules = [replace(rule, margin=margin) for margin in (0.0, 0.5, 1.0, 2.0, 3.0, np.inf)]
    return min(rules, key=lambda rule: float(regret(rows, rule.choose(rows)).mean()))


def regret(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.Series:
    """Return, by task, how many points of test accuracy the chosen rows fall short of the rows that turned out best."""
    accuracy = 100 * (1 - rows["errors"] / rows["images"])
    best = accuracy.groupby([rows[name] for name in TASK]).max()
    reached = rows.assign(accuracy=accuracy).merge(chosen[TASK + START], on=TASK + START).set_index(TASK)["accuracy"]
    return (best - reached).dropna()


def few_for_tests(split: Split, labels_per_class: int | str, seed: int = 0) -> Split:
    """Return a label budget's images, but at most a hundred per class, so that cheap tests stay cheap."""
    most = int(np.bincount(split.labels).min()) if labels_per_class == "all" else int(labels_per_class)
    return subsample(split, min(100, most), seed)


def cheap_tests(features: Split, seed: int = 0) -> dict[str, float]:
    """Score labeled features `(n, ...)` in several tests: the higher the score, the better the features seem.

    `logistic` is the cross-validated accuracy of a logistic regression (the seed draws the folds), `neighbor` the
    accuracy of the nearest neighbor, and `logme` the log evidence of a linear regression. `<test>_seconds` is the time
    that a test takes on one core, and `tested` the number of images.
    """
    scores = {"tested": float(len(features))}
    tests: dict[str, tuple[Callable[..., float], bool]] = {
        "neighbor": (nearest_neighbor, True),
        "logme": (logme, False),
        "logistic": (partial(cross_validate, seed=seed), True),
    }
    for name, (test, centered) in tests.items():
        start = time.process_time()
        scores[name] = test(_coordinates(features, centered), features.labels)
        scores[f"{name}_seconds"] = time.process_time() - start
    return scores


def cross_validate(coordinates: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    """Return the accuracy of a logistic regression on held-out images, in at most five folds.

    Raises ValueError if a class has only one image.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        raise ValueError(
            "labels: one class has only one image; use at least two per class, one to learn from and one to test on"
        )
    folds = StratifiedKFold(min(5, smallest), shuffle=True, random_state=seed)
    return float((cross_val_predict(LogisticRegression(max_iter=1000), coordinates, labels, cv=folds) == labels).mean())


def nearest_neighbor(coordinates: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose nearest neighbor has the same label."""
    squares = (coordinates**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * coordinates @ coordinates.T
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(axis=1)] == labels).mean())


def logme(coordinates: np.ndarray, labels: np.ndarray) -> float:
    """Return the log of the maximum evidence of features `(n, d)`, per image and averaged over classes.

    Each class, coded as 0 or 1, is the target of a Bayesian linear regression: You et al. 2021, "LogME: practical
    assessment of pre-trained models for transfer learning", equation 2. There is no intercept, so don't center the
    features.
    """
    from sklearn.linear_model import BayesianRidge

    no_prior = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}  # for the two precisions
    model = BayesianRidge(tol=1e-5, fit_intercept=False, compute_score=True, **no_prior)
    evidences = [model.fit(coordinates, labels == label).scores_[-1] for label in np.unique(labels)]
    return float(np.mean(evidences)) / len(labels)


def _coordinates(features: Split, centered: bool = True) -> np.ndarray:
    """Scale features, and reduce them to at most one column per image with the same geometry, to speed up the tests."""
    flat = features.images[:].reshape(len(features), -1).astype(np.float64)
    if centered:
        flat -= flat.mean(axis=0)
    left, singular, _ = np.linalg.svd(flat, full_matrices=False)
    coordinates: np.ndarray = left * singular
    coordinates *= np.sqrt(100 * len(flat) / max((singular**2).sum(), 1e-12))  # the scale of MNIST's pixels / 255
    return coordinates

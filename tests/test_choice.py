"""Choosing a start: what the cheap tests measure; neither they nor the rule see a test image."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneOut, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from helpers import choice
from helpers.images import Split


@pytest.fixture(scope="module")
def features() -> Split:
    """Make thirty 4 x 4 maps with 3 filters, for three slightly different classes."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(3, dtype=np.int32), 10)
    means = rng.normal(size=(3, 4, 4, 3))
    return Split((9 + 0.5 * means[labels] + rng.normal(size=(30, 4, 4, 3))).astype("float32"), labels)


def test_logistic_regression_and_nearest_neighbor_are_those_of_scikit_learn_on_the_whole_features(features):
    scores, flat = choice.cheap_tests(features, seed=7), features.images.reshape(30, -1).astype(float)
    flat -= flat.mean(axis=0)
    flat *= np.sqrt(100 / (flat**2).sum(axis=1).mean())  # on the scale of pixels
    folds = StratifiedKFold(5, shuffle=True, random_state=7)
    logistic = cross_val_score(LogisticRegression(max_iter=1000), flat, features.labels, cv=folds)
    nearest = cross_val_score(KNeighborsClassifier(1), flat, features.labels, cv=LeaveOneOut())
    assert (scores["logistic"], scores["neighbor"]) == pytest.approx((logistic.mean(), nearest.mean()))


def test_logme_is_the_largest_log_density_that_a_bayesian_linear_regression_gives_the_labels(features):
    some = features.images.reshape(30, -1)[:, :8].astype(float)  # fewer features than images, then as many
    for matrix in (some, choice._coordinates(features, centered=False)):
        evidences = []
        for label in range(3):

            def density(logs, target=features.labels == label, matrix=matrix):
                covariance = np.exp(logs[0]) * matrix @ matrix.T + np.exp(logs[1]) * np.eye(30)
                return -multivariate_normal.logpdf(target.astype(float), np.zeros(30), covariance)

            evidences.append(-minimize(density, [-2.0, -2.0], method="Nelder-Mead").fun / 30)
        assert choice.logme(matrix, features.labels) == pytest.approx(np.mean(evidences), abs=1e-4)


def test_every_test_prefers_features_that_tell_the_classes_apart(features):
    mixed = Split(features.images, np.random.default_rng(1).permutation(features.labels))
    good, bad = choice.cheap_tests(features), choice.cheap_tests(mixed)
    assert all(good[name] > bad[name] for name in ("logistic", "neighbor", "logme"))
    assert good["tested"] == 30


def test_a_class_with_a_single_image_is_refused(features):
    with pytest.raises(ValueError, match="labels: one class has only one image"):
        choice.cheap_tests(Split(features.images[:11], features.labels[:11]))


# The rule


def task_rows(budget: int | str, errors: list[int], **logistic: float) -> pd.DataFrame:
    """Make the rows of one task, tested on 50 images and judged on 100; `source` is frozen, then head-first."""
    rows = [(np.nan, name, score) for name, score in logistic.items() if name != "source"]
    rows += [(3.0, "frozen", logistic["source"]), (3.0, "head-first", np.nan)]
    table = pd.DataFrame(rows, columns=["source", "strategy", "logistic"])
    return table.assign(tested=50.0, target=1, labels_per_class=budget, seed=0, images=100, errors=errors)


RULE = choice.Rule("mobilenet", 1.0, "frozen", "head-first")  # one standard error of 0.80 over 50 images is 0.057


@pytest.mark.parametrize(
    ("budget", "scores", "strategy"),
    [
        (10, {"mobilenet": 0.80, "pixels": 0.84, "source": 0.85}, "mobilenet"),
        (10, {"mobilenet": 0.80, "pixels": 0.88, "source": 0.85}, "pixels"),
        (10, {"mobilenet": 0.80, "pixels": 0.84, "source": 0.86}, "frozen"),
        (50, {"mobilenet": 0.80, "pixels": 0.84, "source": 0.86}, "head-first"),
        ("all", {"mobilenet": 1.00, "pixels": 1.00, "source": 1.00}, "mobilenet"),
    ],
)
def test_the_rule_leaves_its_usual_start_only_for_one_that_tests_better_and_sees_no_errors(budget, scores, strategy):
    rows = task_rows(budget, [0] * 4, **scores)
    (chosen,) = RULE.choose(rows.drop(columns=["errors", "images"])).itertuples()
    assert (chosen.strategy, chosen.source == 3) == (strategy, strategy in ("frozen", "head-first"))


def test_regret_is_counted_in_points_behind_the_best_row_of_the_same_task():
    rows = task_rows(10, [30, 20, 10], mobilenet=0.80, source=0.86)
    assert choice.regret(rows, RULE.choose(rows)).to_dict() == {(1, 10, 0): pytest.approx(10)}  # frozen, not head-first
    assert choice.regret(rows, rows.tail(1)).tolist() == [0]


def test_a_rule_trusts_the_cheap_test_only_where_it_was_right():
    usual = task_rows(50, [5, 90, 20, 10], mobilenet=0.60, pixels=0.60, source=0.60)
    for errors, tested, margin in (([30, 20, 25], 0.62, 0.0), ([10, 20, 25], 0.77, 3.0), ([10, 20, 25], 0.95, np.inf)):
        rows = pd.concat([task_rows(10, errors, mobilenet=0.60, source=tested), usual], ignore_index=True)
        assert choice.make_rule(rows) == choice.Rule("mobilenet", margin, "frozen", "head-first")

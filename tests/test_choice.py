"""Choosing a start: what the cheap tests measure, and that neither they nor the rule see a test image."""

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

TESTS = ("logistic", "likelihood", "neighbor", "logme")


@pytest.fixture(scope="module")
def features() -> Split:
    """Thirty maps of 4 x 4 with 3 filters, of three classes that differ a little."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(3, dtype=np.int32), 10)
    means = rng.normal(size=(3, 4, 4, 3))
    return Split((0.5 * means[labels] + rng.normal(size=(30, 4, 4, 3))).astype("float32"), labels)


def test_shortened_features_keep_all_distances_up_to_a_common_scale(features):
    flat = features.images.reshape(30, -1).astype(float)
    short = choice._coordinates(features)
    assert short.shape == (30, 30)
    ratio = np.linalg.norm(short[:, None] - short, axis=2)[~np.eye(30, dtype=bool)]
    ratio /= np.linalg.norm(flat[:, None] - flat, axis=2)[~np.eye(30, dtype=bool)]
    np.testing.assert_allclose(ratio, ratio[0])
    assert (short**2).sum(axis=1).mean() == pytest.approx(100)


def test_logistic_regression_and_nearest_neighbor_are_those_of_scikit_learn_on_the_whole_features(features):
    scores, flat = choice.cheap_tests(features, seed=4), features.images.reshape(30, -1).astype(float)
    flat -= flat.mean(axis=0)
    flat *= np.sqrt(100 / (flat**2).sum(axis=1).mean())
    folds, model = StratifiedKFold(5, shuffle=True, random_state=4), LogisticRegression(max_iter=1000)
    accuracy, likelihood = (
        cross_val_score(model, flat, features.labels, cv=folds, scoring=scoring).mean()
        for scoring in ("accuracy", "neg_log_loss")
    )
    assert scores["logistic"] == pytest.approx(accuracy)
    assert scores["likelihood"] == pytest.approx(likelihood, abs=1e-3)
    nearest = cross_val_score(KNeighborsClassifier(1), flat, features.labels, cv=LeaveOneOut()).mean()
    assert scores["neighbor"] == pytest.approx(nearest)


def test_logme_is_the_largest_log_density_that_a_bayesian_linear_regression_gives_the_labels(features):
    some = features.images.reshape(30, -1)[:, :8].astype(float)  # fewer features than images, and more, just below
    for matrix in (some, choice._coordinates(features)):
        evidences = []
        for label in range(3):
            target = (features.labels == label).astype(float)

            def density(logs, target=target, matrix=matrix):
                covariance = np.exp(logs[0]) * matrix @ matrix.T + np.exp(logs[1]) * np.eye(30)
                return -multivariate_normal.logpdf(target, np.zeros(30), covariance)

            evidences.append(-minimize(density, [-2.0, -2.0], method="Nelder-Mead").fun / 30)
        assert choice.logme(matrix, features.labels) == pytest.approx(np.mean(evidences), abs=2e-3)


def test_every_test_prefers_features_that_tell_the_classes_apart(features):
    mixed = Split(features.images, np.random.default_rng(1).permutation(features.labels))
    good, bad = choice.cheap_tests(features), choice.cheap_tests(mixed)
    assert all(good[name] > bad[name] for name in TESTS)
    assert good["tested"] == 30


def test_a_class_with_a_single_image_is_refused(features):
    with pytest.raises(ValueError, match="labels: a class has a single image"):
        choice.cheap_tests(Split(features.images[:11], features.labels[:11]))


# The rule


def task_rows(budget: int | str = 10, **logistic: float) -> pd.DataFrame:
    """Make the rows of one task with 50 images tested: MobileNet, pixels, and source task 3, whose errors are drawn."""
    rng, rows = np.random.default_rng(0), []
    for name, score in logistic.items():
        for strategy in ("frozen", "head-first") if name == "source" else (name,):
            tests = {"logistic": score, "tested": 50.0} if strategy != "head-first" else {}
            rows.append({"source": 3.0 if name == "source" else np.nan, "strategy": strategy, **tests})
    table = pd.DataFrame(rows).assign(target=1, labels_per_class=budget, seed=0, images=100)
    return table.assign(errors=rng.integers(0, 100, len(table)))


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
def test_the_rule_leaves_its_usual_start_only_for_one_that_tests_better_by_the_margin(budget, scores, strategy):
    (chosen,) = RULE.choose(task_rows(budget, **scores)).itertuples()
    assert chosen.strategy == strategy
    assert (chosen.source == 3) == (strategy in ("frozen", "head-first"))


def test_the_rule_sees_no_test_image():
    rows = task_rows(mobilenet=0.80, pixels=0.84, source=0.86)
    pd.testing.assert_frame_equal(RULE.choose(rows), RULE.choose(rows.drop(columns=["errors", "images"])))


def test_regret_is_counted_in_points_behind_the_best_row_of_the_same_task():
    rows = task_rows(mobilenet=0.80, source=0.86).assign(errors=[30, 20, 10])
    assert choice.regret(rows, RULE.choose(rows)).to_dict() == {(1, 10, 0): pytest.approx(10)}  # frozen, not head-first
    assert choice.regret(rows, rows.tail(1)).tolist() == [0]


def test_a_rule_trusts_the_cheap_test_only_where_it_was_right():
    right = task_rows(mobilenet=0.60, source=0.62).assign(errors=[30, 20, 25])
    wrong = task_rows(mobilenet=0.60, source=0.95).assign(errors=[10, 20, 25])
    usual = task_rows(50, mobilenet=0.60, pixels=0.60, source=0.60).assign(errors=[5, 90, 20, 10])
    assert choice.make_rule(pd.concat([right, usual], ignore_index=True)) == choice.Rule(
        "mobilenet", 0.0, "frozen", "head-first"
    )
    assert choice.make_rule(pd.concat([wrong, usual], ignore_index=True)).margin == np.inf

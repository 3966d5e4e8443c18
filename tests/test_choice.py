"""Choosing a start: what the cheap tests measure, and that neither they nor the rule see a test image."""

import numpy as np
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

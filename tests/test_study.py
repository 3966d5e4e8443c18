"""The study behind "Does it hold?": what it trains, and what it chooses."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import study
from study import Job

from helpers.cnn import CONVOLUTIONS, Architecture, build_cnn
from helpers.statistics import interval
from helpers.transfer import SourceNetwork

ON_DIGITS = Job("seeds", 0, budgets=(5,), dataset="digits")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return study.stored()


def test_shuffled_kernels_keep_their_values_and_lose_their_shape():
    base = SourceNetwork(build_cnn(Architecture((8, 8, 1), 5), seed=1), {}, pd.DataFrame(), "base")
    before = {name: base.model.get_layer(name).get_weights() for name in CONVOLUTIONS}
    mixed = study.shuffled(base, seed=0)
    assert mixed.file != base.file
    for name, (kernels, bias) in before.items():
        after, same = mixed.model.get_layer(name).get_weights()
        flat, moved = (each.reshape(-1, each.shape[-1]) for each in (kernels, after))
        np.testing.assert_array_equal(np.sort(flat, axis=0), np.sort(moved, axis=0))
        assert (flat != moved).mean() > 0.5
        np.testing.assert_array_equal(bias, same)


def test_shuffled_labels_are_the_same_labels_on_other_images():
    (source, target), (mixed, same) = ON_DIGITS.tasks(), replace(ON_DIGITS, control="shuffled labels").tasks()
    np.testing.assert_array_equal(source.train.images[:], mixed.train.images[:])
    np.testing.assert_array_equal(np.bincount(source.train.labels), np.bincount(mixed.train.labels))
    assert 0.7 < (source.train.labels != mixed.train.labels).mean() < 0.9  # four of five, by chance
    assert target.fingerprint == same.fingerprint


def test_tuning_never_sees_a_test_image():
    _, target = ON_DIGITS.tasks()
    _, tuned_on = replace(ON_DIGITS, judged_on="validation").tasks()
    np.testing.assert_array_equal(tuned_on.test.images[:], target.validation.images[:])


def test_tuning_takes_the_fewest_validation_errors_and_the_recipe_when_several_are_equal():
    tried = [(0.0015, 1, 7), (0.005, 1, 4), (0.005, 2, 4), (0.015, 2, 4)]
    setting = {"question": "tuning", "task": "target", "strategy": "frozen", "labels_per_class": "10"}
    table = pd.DataFrame(tried, columns=["learning_rate", "length", "errors"]).assign(**setting, seed=3)
    (best,) = study.chosen(table)
    assert (best.learning_rate, best.length, best.budgets, best.judged_on) == (0.005, 1, (10,), "test")
    (best,) = study.chosen(table.assign(errors=[7, 4, 4, 3]))
    assert (best.learning_rate, best.length) == (0.015, 2)


def test_a_job_done_before_is_not_trained_again_and_gives_equal_rows(tmp_path, monkeypatch):
    first, wrong = study.train(ON_DIGITS, tmp_path)
    on_target = first[first["task"] == "target"].set_index("strategy")
    assert {name: wrong[name, "5"].sum() for name in ON_DIGITS.strategies} == on_target["errors"].to_dict()
    monkeypatch.setattr(study.Networks, "train", None)  # calling it would fail
    again, _ = study.train(ON_DIGITS, tmp_path)
    pd.testing.assert_frame_equal(first, again)


def test_intervals_over_images_too_are_wider_where_the_images_matter():
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.3  # the same images with every seed
    wrong = [{("scratch", "10"): hard, ("frozen", "10"): hard & (rng.random(400) < 0.5)} for _ in range(10)]
    (row,) = study.image_intervals(wrong).itertuples()
    by_seed = [100 * (each["scratch", "10"].mean() - each["frozen", "10"].mean()) for each in wrong]
    np.testing.assert_allclose((row.difference, row.t_low, row.t_high), interval(by_seed), atol=1e-3)
    of_seeds, of_both = row.seeds_high - row.seeds_low, row.both_high - row.both_low
    assert 0.6 < of_seeds / (row.t_high - row.t_low) < 1  # percentiles of ten seeds are narrower than t
    assert of_both > 1.5 * of_seeds
    assert row.both_low < row.difference < row.both_high


def test_every_training_is_stored_once(rows):
    assert not rows.duplicated(study.KEYS).any()
    assert rows["errors"].between(0, rows["images"]).all()
    on_target = rows[rows["task"] == "target"].groupby("question").size()
    tuning = 3 * 2 * 5 * 5 * 3  # rates, lengths, seeds, strategies, budgets
    expected = {"seeds": 10 * 5 * 8, "controls": 3 * 10 * 2 * 3, "tasks": 10 * 3 * 3 * 2, "backbone": 10 * 8}
    assert on_target.to_dict() == {**expected, "tuning": tuning, "tuned": tuning // 6}


def test_the_tuned_trainings_are_those_that_the_tuning_chose(rows):
    tuned = rows[rows["question"] == "tuned"].set_index(["strategy", "labels_per_class", "seed"])
    for job in study.chosen(rows):
        row = tuned.loc[(job.strategies[0], str(job.budgets[0]), job.seed)]
        assert (row["learning_rate"], row["length"]) == (job.learning_rate, job.length)


def test_the_same_three_seeds_with_other_threads_lie_within_the_intervals_of_lesson_05(rows):
    lesson = pd.read_csv(study.STORED / "lesson_05.csv")
    lesson = lesson[lesson["task"] == "target"]
    here = rows[(rows["question"] == "seeds") & rows["seed"].isin(lesson["seed"]) & (rows["task"] == "target")]
    keys = ["labels_per_class", "strategy"]
    means = (1 - here["errors"] / here["images"]).groupby([here[key] for key in keys]).mean()
    intervals = {key: interval(accuracy) for key, accuracy in lesson.groupby(keys)["test_accuracy"]}
    assert len(intervals) == 15
    assert all(low < means[key] < high for key, (_, low, high) in intervals.items())

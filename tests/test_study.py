"""The study behind "Does it hold?": what it trains, what it chooses, and that the page says what the rows say."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study
import study_page
from study import Job

from helpers.cnn import CONVOLUTIONS, Architecture, build_cnn
from helpers.statistics import Finding, interval
from helpers.transfer import STRATEGIES, SourceNetwork

ROOT = Path(__file__).resolve().parents[1]
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


def test_a_control_pretrains_at_a_tenth_of_the_rate():
    rates = [replace(ON_DIGITS, control=control).pretraining.learning_rate for control in study.CONTROLS]
    assert rates == [0.005, 0.005, 0.0005]


def test_tuning_never_sees_a_test_image():
    _, target = ON_DIGITS.tasks()
    _, tuned_on = replace(ON_DIGITS, judged_on="validation").tasks()
    np.testing.assert_array_equal(tuned_on.test.images[:], target.validation.images[:])


def test_a_longer_recipe_makes_that_many_times_the_updates():
    longer = replace(ON_DIGITS, length=2).recipe
    assert [longer.updates(images) for images in (50, 48_000)] == [400, 2000]


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


@pytest.mark.parametrize(
    ("few", "many", "kind"),
    [
        ("better", "better", "the same"),
        ("no detectable difference", "better", "nothing can be told"),
        ("cannot tell", "worse", "nothing can be told"),
        ("better", "no detectable difference", "another finding"),
        ("as good", "worse", "another finding"),
        ("worse", "better", "the opposite"),
    ],
)
def test_findings_of_few_seeds_are_told_apart_from_wrong_ones(few, many, kind):
    assert study_page.kind(Finding(few), Finding(many)) == kind


def test_every_training_is_stored_once(rows):
    assert not rows.duplicated(study.KEYS).any()
    assert rows["errors"].between(0, rows["images"]).all()
    on_target = rows[rows["task"] == "target"].groupby("question").size()
    tuning = 3 * 2 * 5 * 5 * 3  # rates, lengths, seeds, strategies, budgets
    expected = {"seeds": 10 * 5 * 8, "controls": 3 * 10 * 2 * 3, "tasks": 10 * 3 * 3 * 2, "backbone": 10 * 8}
    assert on_target.to_dict() == {**expected, "tuning": tuning, "tuned": tuning // 6}


def test_the_page_says_what_the_rows_say(rows, tmp_path, monkeypatch):
    written = study_page.PAGE.read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"\*\*[^*]+\*\*\n\n!", "**...**\n\n!", written), encoding="utf-8")
    (tmp_path / "study").mkdir()
    monkeypatch.setattr(study_page, "PAGE", page)
    monkeypatch.setattr(study_page, "DOCS", tmp_path)
    study_page.write(rows, pd.read_csv(study.STORED / "intervals.csv"))
    assert page.read_text(encoding="utf-8") == written
    assert {path.name for path in (tmp_path / "study").iterdir()} == {path.name for path in study.STORED.glob("*.png")}


def test_what_is_quoted_elsewhere_stands_in_the_findings_and_tables():
    page = study_page.PAGE.read_text(encoding="utf-8")
    computed = "".join(re.findall(r"(?s)written by tools/study.py -->(.*?)<!-- end -->", page))
    summary = page.split("## What does not hold")[1].split("## Ten seeds")[0].replace("within 0.2 points", "")
    quoted = re.findall(r"\d+\.\d+", summary)
    assert len(quoted) >= 5 and not [number for number in quoted if number not in computed]
    assert "better: 0.66 (0.59 to 0.75)" in computed and "0.61 to 0.78 times the errors of scratch" in computed
    for path in ("README.md", "docs/index.md"):
        assert "(0.66, from 0.59 to 0.75)" in (ROOT / path).read_text(encoding="utf-8")
    lesson = (ROOT / "notebooks" / "05_transfer_comparison.ipynb").read_text(encoding="utf-8")
    assert "With 50, 55 of the sets find that too, with 10 only 25." in lesson
    assert "| 50 | `frozen` | better | 55 | 65 | 0 | 0 |" in computed
    assert "| 10 | `frozen` | better | 25 | 95 | 0 | 0 |" in computed
    assert "`frozen` makes 0.61 to 0.78 times the errors of `scratch` at 50 labels" in lesson


def test_the_same_three_seeds_with_other_threads_lie_within_the_intervals_of_lesson_05(rows):
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    told = re.findall(r"(?m)^\| `([\w-]+)` \| (\d.*%.*) \|$", page)
    at = study_page.about(study_page.readable(rows), "seeds", 3, study_page.DEFAULT)
    means = 100 * study_page.across(study_page.by_seed(at).mean(axis=1))
    for name, cells in told:
        accuracies, half_widths = np.array(re.findall(r"([\d.]+)% ± ([\d.]+)", cells), float).T
        assert (np.abs(means.loc[name] - accuracies) < half_widths).all(), name
    assert len(told) == len(STRATEGIES)

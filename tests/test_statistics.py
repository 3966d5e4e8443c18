"""Statistics: intervals by hand, and findings that claim no more than the numbers show."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from small import result_rows as rows

from helpers import statistics
from helpers.folders import REPOSITORY
from helpers.statistics import Finding, Interval

# Intervals


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [
        ([1, 2, 3], 2, 2.484138),  # Student's t for 2 degrees of freedom is 4.302653; the standard error 1 / √3
        ([0, 1], 0.5, 6.353102),  # t for 1 degree of freedom is 12.706205; the standard error is 1 / 2
        ([0.5], 0.5, math.nan),
    ],
)
def test_an_interval_is_that_of_students_t_and_one_value_has_none(values: list[float], mean: float, half: float):
    expected = pytest.approx((mean, mean - half, mean + half), abs=1e-6, nan_ok=True)
    assert statistics.interval(values) == expected


# Summaries, on a table made by hand: 1,000 test images, three seeds


def summarized(*tables: pd.DataFrame) -> pd.DataFrame:
    summary = statistics.summarize(pd.concat(tables, ignore_index=True))
    return summary.set_index(["labels_per_class", "strategy"])


def test_accuracy_is_the_mean_over_seeds_with_its_interval_and_of_the_target_task_alone():
    row = summarized(rows("scratch", [500] * 3, task="source"), rows("scratch", [10, 20, 30])).loc[10, "scratch"]
    assert row["seeds"] == 3
    ends = row[["accuracy", "accuracy_low", "accuracy_high"]].tolist()
    assert ends == pytest.approx([0.98, 0.98 - 0.02484138, 0.98 + 0.02484138], abs=1e-8)


@pytest.mark.parametrize("order", [1, -1])
def test_the_difference_to_scratch_is_paired_by_the_seeds_number_and_in_percentage_points(order: int):
    # seeds differ by 5 points, frozen from scratch by 1, 2 and 3: unpaired, the interval would be far wider
    row = summarized(rows("scratch", [20, 70, 120]), rows("frozen", [10, 50, 90])[::order]).loc[10, "frozen"]
    ends = row[["difference", "difference_low", "difference_high"]].tolist()
    assert ends == pytest.approx([2, 2 - 2.484138, 2 + 2.484138], abs=1e-6)


def test_the_error_ratio_is_a_geometric_mean_over_seeds_with_half_an_error_added():
    # (4 + 1/2) / (8 + 1/2 + 1/2 ...) is awkward by hand, so: 7.5 / 30 = 1/4, 15 / 30 = 1/2 and 30 / 30 = 1
    table = summarized(rows("scratch", [29.5, 29.5, 29.5]), rows("frozen", [7, 14.5, 29.5]))
    row = table.loc[10, "frozen"]
    width = 4.302653 / math.sqrt(3) * math.log(2)  # the logarithms are -2, -1 and 0 times log 2
    assert row["error_ratio"] == pytest.approx(1 / 2)
    assert row["error_ratio_low"] == pytest.approx(math.exp(-width) / 2, rel=1e-6)
    assert row["error_ratio_high"] == pytest.approx(math.exp(width) / 2, rel=1e-6)
    without_errors = summarized(rows("scratch", [4, 4]), rows("frozen", [0, 0])).loc[10, "frozen"]
    assert without_errors["error_ratio"] == pytest.approx(0.5 / 4.5)


def test_scratch_is_not_compared_with_itself_nor_anything_without_it():
    with_it, without = summarized(rows("scratch", [1, 2])), summarized(rows("frozen", [1, 2]))
    columns = [f"{name}{end}" for name in ("difference", "error_ratio") for end in ("", "_low", "_high")]
    assert with_it.loc[(10, "scratch"), columns].isna().all()
    assert without.loc[(10, "frozen"), columns].isna().all()


def test_another_baseline_may_take_the_place_of_scratch():
    table = pd.concat([rows("scratch", [29, 31]), rows("frozen", [9, 11])], ignore_index=True)
    row, baseline = (row for _, row in statistics.summarize(table, baseline="frozen").iterrows())
    assert row["difference"] == pytest.approx(-2)
    assert baseline["finding"] is Finding.BASELINE


def test_each_budget_is_compared_with_scratch_at_that_budget():
    few = rows("scratch", [30, 30]), rows("frozen", [10, 10])
    table = summarized(*few, rows("scratch", [5, 5], "all"), rows("frozen", [7, 7], "all"))
    assert table["difference"].dropna().to_dict() == pytest.approx({(10, "frozen"): 2.0, ("all", "frozen"): -0.2})


def test_seconds_are_medians_without_and_with_what_is_paid_once():
    seconds = {"train_seconds": [1.0, 2.0, 9.0], "pretrain_seconds": [30.0] * 3, "extract_seconds": [4.0, 2.0, 3.0]}
    row = summarized(rows("frozen", [1, 1, 1], **seconds)).loc[10, "frozen"]
    assert (row["train_seconds"], row["target_seconds"], row["total_seconds"]) == (2.0, 5.0, 35.0)  # 35, 34 and 42


# Findings


@pytest.mark.parametrize(
    ("low", "high", "finding"),
    [
        (0.4, 0.9, "better"),
        (0.85, 0.95, "better"),  # within the margin, but still a difference
        (1.1, 1.9, "worse"),
        (0.8, 1.25, "as good"),  # the margin itself counts as within
        (0.79, 1.1, "no detectable difference"),
        (0.9, 1.26, "no detectable difference"),
        (0.5, 1.0, "no detectable difference"),  # an interval that ends at 1 detects nothing
        (0.7, 0.7, "cannot tell"),  # the same for every seed
        (math.nan, math.nan, "cannot tell"),  # one seed, or no baseline
    ],
)
def test_the_finding_follows_from_the_interval_of_the_error_ratio(low: float, high: float, finding: str):
    assert statistics.finding(Interval(math.sqrt(low * high), low, high)) is Finding(finding)


def test_a_finding_agrees_with_its_p_value():
    row = summarized(rows("scratch", [30, 32, 34]), rows("frozen", [10, 13, 14])).loc[10, "frozen"]
    logs = np.log(np.divide([10.5, 13.5, 14.5], [30.5, 32.5, 34.5]))
    t = logs.mean() / (logs.std(ddof=1) / math.sqrt(3))
    assert row["p_value"] == pytest.approx(1 + t / math.sqrt(t**2 + 2))  # Student's t, two-sided, 2 degrees of freedom
    assert row["finding"] is Finding.BETTER and row["p_value"] < 0.05


# Multiple comparisons

KNOWN = ("scratch", "frozen", "fine-tuned", "random-frozen", "reused-head")  # at all label budgets of the study


def test_holm_multiplies_the_smallest_p_value_by_their_number_the_next_by_one_less():
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, math.nan, 0.02]), [0.04, 0.03, math.nan, 0.04])
    np.testing.assert_allclose(statistics.holm([0.5, 0.9]), [1, 1])


def marked(errors: np.ndarray) -> np.ndarray:
    """Return which comparisons Holm marks, for errors of shape `(tables, seeds, baselines, 1 + strategies)`."""
    logs = np.log((errors[..., 1:] + 0.5) / (errors[..., :1] + 0.5)).reshape(*errors.shape[:2], -1)
    return np.array([statistics.holm(p_values) < 0.05 for p_values in ttest_1samp(logs, 0, axis=1).pvalue])


@pytest.mark.parametrize("usual", [500, 150, 15])
def test_where_nothing_differs_holm_seldom_marks_anything(usual: int):
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.3, (1000, 10, 8, 1)) + rng.normal(0, 0.15, (1000, 10, 8, 5))  # by seed, and by strategy
    assert marked(rng.binomial(5139, usual / 5139 * np.exp(luck))).any(axis=1).mean() <= 0.07


def test_ten_seeds_mark_what_the_study_found_with_50_labels_in_most_tables_like_its_own():
    study = pd.read_csv(REPOSITORY / "docs/study/trainings.csv", keep_default_na=False)
    study = study[(study["question"] == "seeds") & (study["task"] == "target")]
    errors = study.pivot(index="seed", columns=["labels_per_class", "strategy"], values="errors")
    places = list(product(dict.fromkeys(study["labels_per_class"]), KNOWN))
    logs = np.log(errors[places])
    drawn = np.random.default_rng(0).multivariate_normal(logs.mean(), logs.cov(), (1000, 10))
    found = marked(np.exp(drawn).round().reshape(1000, 10, -1, len(KNOWN)))
    compared = [place for place in places if place[1] != "scratch"]
    assert found[:, compared.index(("50", "frozen"))].mean() >= 0.8


GROUPS = {  # errors of frozen, with scratch at 30, 32, 34 errors, and the finding
    "a": ([10, 13, 14], Finding.BETTER),
    "b": ([50, 53, 54], Finding.WORSE),
    "c": ([30, 32, 35], Finding.AS_GOOD),
    "d": ([10, 33, 60], Finding.NO_DIFFERENCE),
    "e": ([30, 32, 34], Finding.CANNOT_TELL),
}


def test_the_findings_of_many_groups_are_those_of_their_summaries():
    tables = {
        group: pd.concat([rows("frozen", errors), rows("scratch", [30, 32, 34])]).assign(group=group)
        for group, (errors, _) in GROUPS.items()
    }
    of_groups = statistics.findings(pd.concat(tables.values(), ignore_index=True), ["group", "labels_per_class"])
    assert of_groups.to_dict() == {(group, 10): finding for group, (_, finding) in GROUPS.items()}
    for group, table in tables.items():
        assert summarized(table).loc[(10, "frozen"), "finding"] is of_groups[group, 10]


# The published claim


def claim(errors: list[int], *strategies: str) -> statistics.Claim:
    """Check the claim when scratch makes 20 errors of 1,000 in 30 s; transfer takes 3 s, 2 s, and 20 s."""
    seconds = {"train_seconds": 3.0, "extract_seconds": 2.0, "pretrain_seconds": 20.0}
    scratch = rows("scratch", [20] * len(errors), "all", train_seconds=30.0)
    transfers = [rows(strategy, errors, "all", **seconds) for strategy in strategies or ("frozen",)]
    return statistics.published_claim(statistics.summarize(pd.concat([scratch, *transfers])))


def test_the_published_claim_is_checked_for_the_published_variant_and_its_seconds_are_compared_with_those_of_scratch():
    assert claim([20, 21])[1:] == (30 / 5, 30 / 25)  # on the target task, and in total
    assert claim([20, 21]).checked["strategy"] == "frozen"
    assert claim([20, 21], "frozen", "reused-head").checked["strategy"] == "reused-head"
    assert statistics.published_claim(statistics.summarize(rows("frozen", [1, 2, 3]))) is None


@pytest.mark.parametrize("largest", [50, "all"])
def test_the_published_claim_is_checked_at_the_largest_budget_in_whatever_order(largest: int | str):
    few = pd.concat([rows("scratch", [100, 100], 10), rows("frozen", [200, 201], 10)])
    many = pd.concat([rows("scratch", [20, 20], largest), rows("frozen", [10, 11], largest)])
    for results in (pd.concat([few, many]), pd.concat([many, few])):
        with np.errstate(invalid="ignore"):  # this table has no seconds
            checked = statistics.published_claim(statistics.summarize(results))
        assert checked.checked["finding"] is Finding.BETTER and checked.checked["labels_per_class"] == largest


def test_strategies_come_in_one_order_and_others_behind_them():
    given = ["block 6", "frozen", "block 3", "scratch, learning_rate 0.1", "scratch", "frozen"]
    assert statistics.in_order(given) == ["scratch, learning_rate 0.1", "scratch", "frozen", "block 6", "block 3"]

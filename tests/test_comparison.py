"""The comparison: fair and repeatable trainings, intervals by hand, and verdicts that say no more than the numbers."""

import math
import weakref
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import comparison, data
from helpers.cnn import Architecture
from helpers.comparison import Comparison, Plan
from helpers.data import Dataset, Task
from helpers.training import Recipe
from helpers.transfer import Networks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras on NumPy
SMALL = Architecture(image_shape=(8, 8, 1), filters=4, dense_units=16)
ADAM = Recipe(optimizer="adam", learning_rate=3e-3, batch_size=32, epochs=1, min_updates=20)
PLAN = Plan([5, 6, 7, 8, 9], [0, 1, 2, 3, 4], labels_per_class=[5, "all"], seeds=[0, 1])
FIVE = ["scratch", "frozen", "fine-tuned", "random-frozen", "reused-head"]


@pytest.fixture(scope="module")
def compared(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Compare all strategies on the digits, in a few seconds."""
    return comparison.compare(digits, PLAN, SMALL, ADAM, tmp_path_factory.mktemp("runs"), progress=False)


# What is trained


def test_there_is_one_row_for_each_training(compared: Comparison):
    target = compared.results[compared.results["task"] == "target"]
    trained = list(zip(target["seed"], target["labels_per_class"], target["strategy"], strict=True))
    assert len(trained) == 20
    assert set(trained) == set(product([0, 1], [5, "all"], FIVE))
    assert compared.left_out == {}


def test_pretraining_is_a_row_of_its_own_for_each_seed(compared: Comparison):
    source = compared.results[compared.results["task"] == "source"]
    assert source["seed"].tolist() == [0, 1]
    assert set(source["strategy"]) == {"scratch"}
    assert set(source["classes"]) == {"5 6 7 8 9"}


def test_no_row_lacks_a_value(compared: Comparison):
    assert not compared.results.isna().any().any()
    assert compared.results.columns.tolist() == [
        *("task", "classes", "strategy", "labels_per_class", "seed", "optimizer", "learning_rate", "updates"),
        *("test_images", "test_errors", "test_accuracy", "train_seconds", "pretrain_seconds", "extract_seconds"),
    ]
    assert (compared.results["train_seconds"] > 0).all()


def test_one_set_of_cached_features_is_in_memory_at_a_time(digits: Dataset, tmp_path: Path, monkeypatch):
    earlier, extract = [], Networks.features

    def features(*arguments):
        assert not [each for each in earlier if each() is not None], "features of another budget or kind are still held"
        train, test = extract(*arguments)
        earlier.append(weakref.ref(train))
        return train, test

    monkeypatch.setattr(Networks, "features", features)
    comparison.compare(digits, replace(PLAN, seeds=[0]), SMALL, ADAM, tmp_path, progress=False)
    assert len(earlier) == 4  # two kinds at two budgets


def test_all_strategies_get_the_same_number_of_updates_at_a_budget(compared: Comparison, tasks: tuple[Task, Task]):
    target = compared.results[compared.results["task"] == "target"]
    updates = {budget: set(rows["updates"]) for budget, rows in target.groupby("labels_per_class")}
    assert updates == {5: {20}, "all": {math.ceil(len(tasks[1].train) / 32)}}


def test_errors_are_those_of_the_probabilities_on_the_test_split(compared: Comparison):
    target = compared.results[compared.results["task"] == "target"]
    assert len(compared.probabilities) == len(target)
    for _, row in target.iterrows():
        probabilities = compared.probabilities[row["strategy"], row["labels_per_class"], row["seed"]]
        assert row["test_errors"] == (probabilities.argmax(axis=1) != compared.target.test.labels).sum()
        assert row["test_accuracy"] == pytest.approx(1 - row["test_errors"] / len(compared.target.test))


def test_only_those_who_use_pretraining_or_extraction_pay_for_it(compared: Comparison):
    source, target = (compared.results[compared.results["task"] == task] for task in ("source", "target"))
    assert not source[["pretrain_seconds", "extract_seconds"]].any().any()
    paid = dict(zip(source["seed"], source["train_seconds"], strict=True))
    for _, row in target.iterrows():
        pretrained = row["strategy"] in ("frozen", "fine-tuned", "reused-head")
        assert row["pretrain_seconds"] == (paid[row["seed"]] if pretrained else 0)
        assert (row["extract_seconds"] > 0) == (row["strategy"] in ("frozen", "random-frozen", "reused-head"))


def test_the_same_again_gives_the_same_errors_whatever_else_is_compared(
    compared: Comparison, digits: Dataset, run_folder: Path
):
    again = comparison.compare(
        digits, replace(PLAN, seeds=[1], labels_per_class=[5]), SMALL, ADAM, run_folder, progress=False
    )
    before = compared.results[(compared.results["seed"] == 1) & (compared.results["labels_per_class"] != "all")]
    pretraining = compared.results[(compared.results["seed"] == 1) & (compared.results["task"] == "source")]
    expected = pd.concat([pretraining, before])
    assert again.results["strategy"].tolist() == expected["strategy"].tolist()
    assert again.results["test_errors"].tolist() == expected["test_errors"].tolist()
    for key, probabilities in again.probabilities.items():
        assert np.array_equal(probabilities, compared.probabilities[key])


def test_class_sets_of_other_sizes_leave_the_reused_head_out_with_a_reason(digits: Dataset, run_folder: Path):
    plan = Plan([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], ["frozen", "reused-head"], labels_per_class=["all"], seeds=[0])
    longer = replace(ADAM, min_updates=200)
    found = comparison.compare(digits, plan, SMALL, longer, run_folder, progress=False)
    pretraining, frozen = (row for _, row in found.results.iterrows())
    assert (pretraining["strategy"], pretraining["classes"]) == ("scratch", "0 1 2 3 4 5 6")
    assert (frozen["strategy"], frozen["classes"]) == ("frozen", "7 8 9")
    assert "7 outputs and the target task 3 classes" in found.left_out["reused-head"]
    assert found.probabilities["frozen", "all", 0].shape == (len(found.target.test), 3)
    assert frozen["test_accuracy"] > 0.6  # by chance 0.33


# Bad plans


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels_per_class": [5, 5]}, r"labels_per_class: \[5, 5\] holds an entry twice; give each once"),
        ({"labels_per_class": ["all", 5, "all"]}, "labels_per_class: .* holds an entry twice"),
        ({"labels_per_class": []}, r"labels_per_class: \[\] is not a list with at least one entry"),
        ({"labels_per_class": "all"}, "labels_per_class: 'all' is not a list"),
        ({"labels_per_class": 10}, "labels_per_class: 10 is not a list"),
        ({"labels_per_class": [5, 1000]}, "labels_per_class: 1000 is more than the smallest class has; at most"),
        ({"labels_per_class": [0]}, "labels_per_class: 0 is not a label budget"),
        ({"labels_per_class": [-5]}, "labels_per_class: -5 is not a label budget"),
        ({"labels_per_class": ["few"]}, "labels_per_class: 'few' is not a label budget"),
        ({"labels_per_class": [2.5]}, "labels_per_class: 2.5 is not a label budget"),
        ({"seeds": [1, 1]}, r"seeds: \[1, 1\] holds an entry twice; give each once"),
        ({"seeds": []}, r"seeds: \[\] is not a list with at least one entry"),
        ({"seeds": 3}, "seeds: 3 is not a list"),
        ({"seeds": [-1]}, "seeds: -1 is not a seed; give a whole number from 0 to 4294967295"),
        ({"seeds": [0.5]}, "seeds: 0.5 is not a seed"),
        ({"seeds": ["0"]}, "seeds: '0' is not a seed"),
        ({"seeds": [True]}, "seeds: True is not a seed"),
        ({"seeds": [2**32]}, "seeds: 4294967296 is not a seed"),
        ({"strategies": ["scratch", "froze"]}, "strategies: 'froze' is not known; allowed are scratch, frozen"),
        ({"strategies": ["scratch", "scratch"]}, "strategies: .* names one twice"),
        ({"strategies": []}, r"strategies: \[\] is not a list of strategies"),
        ({"strategies": "scratch"}, "strategies: 'scratch' is not a list of strategies"),
        ({"source_classes": [5, 6, 0]}, "source_classes and target_classes both hold 0"),
        ({"source_classes": [5]}, r"source_classes: \[5\] is not allowed; give two or more labels"),
        ({"target_classes": 4}, "target_classes: 4 is not a list of labels"),
        ({"target_classes": [4, 11]}, "target_classes: digits has no label 11"),
        ({"validation_fraction": 1.5}, "validation_fraction: 1.5 is not allowed"),
        ({"frozen_convs": 3}, "frozen_convs: 3 is not allowed; give 0, 1 or 2"),
        ({"target_classes": [0, 1], "strategies": ["reused-head"]}, "strategies: .*reused-head.* cannot be reused"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_plan_that_cannot_be_carried_out_is_refused_before_training(digits, run_folder: Path, changed, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        comparison.compare(digits, replace(PLAN, **changed), SMALL, ADAM, run_folder, progress=False)
    assert not run_folder.exists()


def test_a_sound_plan_is_accepted(digits: Dataset):
    Plan([5, 6, 7, 8, 9], [0, 1, 2, 3, 4]).check(digits)


def test_checking_a_plan_does_not_import_tensorflow(python):
    finished = python(
        "import sys, helpers\n"
        "from helpers import cnn, comparison, data, runs, training, transfer\n"
        "architecture, recipe = cnn.Architecture((8, 8, 1)), training.Recipe()\n"
        "comparison.Plan([5, 6], [0, 1]).check(data.load_dataset('digits'))\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert (finished.stdout, finished.stderr) == ("[]\n", "")


# Intervals


def test_the_interval_of_1_2_3_is_2_plus_or_minus_2_484138():
    # Student's t for 95 % and 2 degrees of freedom is 4.302653; the standard error is 1 / sqrt(3)
    assert comparison.interval([1, 2, 3]) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_the_interval_of_two_values_is_six_times_as_wide_as_their_distance():
    # t for 1 degree of freedom is 12.706205; the standard error of 0 and 1 is 1 / 2
    assert comparison.interval([0, 1]) == pytest.approx((0.5, 0.5 - 6.353102, 0.5 + 6.353102), abs=1e-6)


def test_equal_values_have_an_interval_without_width():
    assert comparison.interval([0.98, 0.98, 0.98]) == pytest.approx((0.98, 0.98, 0.98))


def test_one_value_has_no_interval():
    mean, low, high = comparison.interval([0.5])
    assert mean == 0.5
    assert math.isnan(low) and math.isnan(high)


# Summaries, on a table made by hand: 1,000 test images, three seeds


def rows(strategy: str, errors: list[int], budget: int | str = 10, task: str = "target", **seconds: list[float]):
    table = pd.DataFrame({"seed": range(len(errors)), "test_errors": errors})
    table = table.assign(task=task, strategy=strategy, labels_per_class=budget)
    table["test_accuracy"] = 1 - table["test_errors"] / 1000
    for name in ("train_seconds", "pretrain_seconds", "extract_seconds"):
        table[name] = seconds.get(name, [0.0] * len(errors))
    return table


def summarized(*tables: pd.DataFrame) -> pd.DataFrame:
    summary = comparison.summarize(pd.concat(tables, ignore_index=True))
    return summary.set_index(["labels_per_class", "strategy"])


def test_accuracy_is_the_mean_over_seeds_with_its_interval():
    row = summarized(rows("scratch", [10, 20, 30])).loc[10, "scratch"]
    assert row["seeds"] == 3
    assert row["accuracy"] == pytest.approx(0.98)
    assert row["accuracy_low"] == pytest.approx(0.98 - 0.02484138, abs=1e-8)
    assert row["accuracy_high"] == pytest.approx(0.98 + 0.02484138, abs=1e-8)


def test_the_difference_to_scratch_is_paired_by_seed_and_in_percentage_points():
    # seeds differ by 5 points, frozen from scratch by 1, 2 and 3: unpaired, the interval would be far wider
    row = summarized(rows("scratch", [20, 70, 120]), rows("frozen", [10, 50, 90])).loc[10, "frozen"]
    assert row["difference"] == pytest.approx(2)
    assert row["difference_low"] == pytest.approx(2 - 2.484138, abs=1e-6)
    assert row["difference_high"] == pytest.approx(2 + 2.484138, abs=1e-6)


def test_seeds_are_paired_by_their_number_not_by_their_place():
    backwards = rows("frozen", [10, 50, 90])[::-1]
    row = summarized(rows("scratch", [20, 70, 120]), backwards).loc[10, "frozen"]
    assert (row["difference"], row["difference_low"]) == pytest.approx((2, 2 - 2.484138), abs=1e-6)


def test_the_error_ratio_is_a_geometric_mean_over_seeds_with_half_an_error_added():
    # (4 + 1/2) / (8 + 1/2 + 1/2 ...) is awkward by hand, so: 7.5 / 30 = 1/4, 15 / 30 = 1/2 and 30 / 30 = 1
    table = summarized(rows("scratch", [29.5, 29.5, 29.5]), rows("frozen", [7, 14.5, 29.5]))
    row = table.loc[10, "frozen"]
    width = 4.302653 / math.sqrt(3) * math.log(2)  # the logarithms are -2, -1 and 0 times log 2
    assert row["error_ratio"] == pytest.approx(1 / 2)
    assert row["error_ratio_low"] == pytest.approx(math.exp(-width) / 2, rel=1e-6)
    assert row["error_ratio_high"] == pytest.approx(math.exp(width) / 2, rel=1e-6)


def test_there_is_an_error_ratio_where_a_network_makes_no_error():
    row = summarized(rows("scratch", [4, 4]), rows("frozen", [0, 0])).loc[10, "frozen"]
    assert row["error_ratio"] == pytest.approx(0.5 / 4.5)


def test_scratch_is_not_compared_with_itself_nor_anything_without_it():
    with_it, without = summarized(rows("scratch", [1, 2])), summarized(rows("frozen", [1, 2]))
    columns = [f"{name}{end}" for name in ("difference", "error_ratio") for end in ("", "_low", "_high")]
    assert with_it.loc[(10, "scratch"), columns].isna().all()
    assert without.loc[(10, "frozen"), columns].isna().all()


def test_each_budget_is_compared_with_scratch_at_that_budget():
    table = summarized(
        rows("scratch", [30, 30]),
        rows("frozen", [10, 10]),
        rows("scratch", [5, 5], "all"),
        rows("frozen", [7, 7], "all"),
    )
    assert table["difference"].dropna().to_dict() == pytest.approx({(10, "frozen"): 2.0, ("all", "frozen"): -0.2})


def test_the_source_task_is_not_part_of_the_summary():
    table = summarized(rows("scratch", [500, 500], "all", task="source"), rows("scratch", [10, 10], "all"))
    assert table["accuracy"].tolist() == [0.99]


def test_seconds_are_medians_without_and_with_what_is_paid_once():
    table = summarized(
        rows(
            "frozen",
            [1, 1, 1],
            train_seconds=[1.0, 2.0, 9.0],
            pretrain_seconds=[30.0, 30.0, 30.0],
            extract_seconds=[4.0, 2.0, 3.0],
        )
    )
    row = table.loc[10, "frozen"]
    assert (row["train_seconds"], row["target_seconds"], row["total_seconds"]) == (2.0, 5.0, 35.0)  # 35, 34 and 42


def test_a_summary_has_one_row_per_budget_and_strategy_in_the_order_of_the_results(compared: Comparison):
    summary = comparison.summarize(compared.results)
    assert set(zip(summary["labels_per_class"], summary["strategy"], strict=True)) == set(product([5, "all"], FIVE))
    assert summary["labels_per_class"].tolist() == [5] * 5 + ["all"] * 5
    assert set(summary["seeds"]) == {2}


# Verdicts


def row(difference: float, low: float, high: float, ratio: float = 1.0, strategy: str = "frozen") -> pd.Series:
    return pd.Series(
        {
            **{"labels_per_class": 10, "strategy": strategy},
            **{"difference": difference, "difference_low": low, "difference_high": high},
            **{"error_ratio": ratio, "error_ratio_low": ratio / 2, "error_ratio_high": ratio * 2},
        }
    )


@pytest.mark.parametrize(
    ("difference", "low", "high", "finding"),
    [
        (2.0, 1.0, 3.0, "better"),
        (0.3, 0.1, 0.5, "better"),  # partly beyond the margin
        (-2.0, -3.0, -1.0, "worse"),
        (0.0, -0.2, 0.2, "as good"),  # the margin itself counts as within
        (0.1, 0.05, 0.15, "as good"),  # a difference, but one too small to matter
        (0.0, 0.0, 0.0, "cannot tell: the same difference with every seed gives no interval"),
        (1.0, 1.0, 1.0, "cannot tell: the same difference with every seed gives no interval"),
        (0.0, -0.21, 0.1, "no detectable difference"),  # the mean is within the margin, the interval is not
        (0.0, -0.1, 0.21, "no detectable difference"),
        (0.0, -5.0, 5.0, "no detectable difference"),
        (0.5, 0.0, 1.0, "no detectable difference"),  # an end at zero detects nothing
        (-0.5, -1.0, 0.0, "no detectable difference"),
        (1.0, math.nan, math.nan, "cannot tell: one seed gives no interval"),
        (math.nan, math.nan, math.nan, "cannot tell: scratch was not trained"),
    ],
)
def test_the_finding_follows_from_the_interval(difference: float, low: float, high: float, finding: str):
    assert comparison.finding(row(difference, low, high)) == finding


def test_scratch_is_the_baseline():
    assert comparison.finding(row(math.nan, math.nan, math.nan, strategy="scratch")) == "the baseline"


def test_the_margin_can_be_stated():
    assert comparison.finding(row(0.0, -0.5, 0.5), margin=0.5) == "as good"
    assert comparison.finding(row(0.1, 0.05, 0.15), margin=0.1) == "better"


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (row(2.0, 1.0, 3.0, 0.7), "helps: 0.70 times the errors (0.35 to 1.40), +2.00 points (+1.00 to +3.00)"),
        (row(2.0, 1.0, 3.0, 0.5), "halves the errors: 0.50 times the errors (0.25 to 1.00), +2.00 points"),
        (row(2.0, 1.0, 3.0, 0.2), "more than halves the errors: 0.20 times the errors (0.10 to 0.40), +2.00 points"),
        (row(-2.0, -3.0, -1.0, 2.0), "hurts: 2.00 times the errors (1.00 to 4.00), -2.00 points (-3.00 to -1.00)"),
        (row(0.1, -0.1, 0.2), "as good as scratch: +0.10 points (-0.10 to +0.20), all within 0.2 points"),
        (row(0.1, -1.0, 1.2), "no detectable difference to scratch: +0.10 points (-1.00 to +1.20); that is not yet"),
        (row(1.0, math.nan, math.nan), "cannot tell: one seed gives no interval"),
        (row(math.nan, math.nan, math.nan), "cannot tell: scratch was not trained"),
    ],
)
def test_the_verdict_is_worded_from_the_numbers(summary: pd.Series, sentence: str):
    (verdict,) = comparison.verdict(pd.DataFrame([summary]))["verdict"]
    assert verdict.startswith(sentence)


def test_there_is_a_verdict_for_each_strategy_but_scratch_at_each_budget(compared: Comparison):
    verdict = comparison.verdict(comparison.summarize(compared.results))
    others = set(FIVE) - {"scratch"}
    assert verdict.columns.tolist() == ["labels_per_class", "strategy", "finding", "verdict"]
    assert set(zip(verdict["labels_per_class"], verdict["strategy"], strict=True)) == set(product([5, "all"], others))


def test_a_verdict_over_seeds_that_disagree_detects_nothing():
    summary = comparison.summarize(pd.concat([rows("scratch", [20, 20, 20]), rows("frozen", [5, 20, 35])]))
    (verdict,) = comparison.verdict(summary)["finding"]
    assert verdict == "no detectable difference"


# The published claim


def claim(errors: list[int], strategy: str = "frozen") -> dict:
    """Check the claim where scratch makes 20 errors of 1,000 and takes 30 s; transfer 3 s, 2 for extraction, 20 for
    pretraining.
    """
    seeds = len(errors)
    seconds = {"train_seconds": [3.0] * seeds, "extract_seconds": [2.0] * seeds, "pretrain_seconds": [20.0] * seeds}
    scratch = rows("scratch", [20] * seeds, "all", train_seconds=[30.0] * seeds)
    return comparison.published_claim(
        comparison.summarize(pd.concat([scratch, rows(strategy, errors, "all", **seconds)]))
    )


@pytest.mark.parametrize(
    ("errors", "holds"),
    [
        ([20, 20, 21], True),  # as good: -0.03 points, give or take 0.14
        ([10, 11, 10], True),  # better
        ([30, 31, 30], False),  # worse by a point
        ([5, 20, 35], "not shown: no detectable difference, but an interval wider than the margin"),
        ([20, 20, 20], "cannot tell: the same difference with every seed gives no interval"),
        ([20], "cannot tell: one seed gives no interval"),
    ],
)
def test_the_published_claim_holds_where_transfer_is_as_good_or_better(errors: list[int], holds: bool | str):
    assert claim(errors)["same accuracy"] == holds


def test_the_published_claim_of_speed_is_30_s_over_5_s_on_the_target_task_and_over_25_s_in_all():
    checked = claim([20, 21])
    assert checked["on the target task, times faster"] == 6.0
    assert checked["with pretraining, times faster"] == 1.2


def test_the_published_claim_is_checked_for_the_published_variant():
    assert claim([20, 21])["checked for"] == "frozen"
    assert claim([20, 21], "reused-head")["checked for"] == "reused-head"
    both = [rows("scratch", [20, 20], "all"), rows("frozen", [10, 11], "all"), rows("reused-head", [30, 31], "all")]
    with np.errstate(invalid="ignore"):  # no seconds in this table
        checked = comparison.published_claim(comparison.summarize(pd.concat(both)))
    assert (checked["checked for"], checked["same accuracy"]) == ("reused-head", False)


@pytest.mark.parametrize("few_first", [True, False])
@pytest.mark.parametrize("largest", [50, "all"])
def test_the_published_claim_is_checked_at_the_largest_budget_in_whatever_order(few_first: bool, largest: int | str):
    few = pd.concat([rows("scratch", [100, 100], 10), rows("frozen", [200, 201], 10)])
    many = pd.concat([rows("scratch", [20, 20], largest), rows("frozen", [10, 11], largest)])
    results = pd.concat([few, many] if few_first else [many, few])
    with np.errstate(invalid="ignore"):  # no seconds in this table
        checked = comparison.published_claim(comparison.summarize(results))
    assert checked["same accuracy"] is True


def test_the_published_claim_takes_scratch_and_a_transfer():
    summary = comparison.summarize(rows("frozen", [1, 2, 3]))
    assert comparison.published_claim(summary) == {
        "same accuracy": "cannot tell: it takes the strategies scratch, and reused-head or frozen"
    }


# Rankings


def test_rankings_are_by_mean_accuracy_over_the_first_seeds():
    results = pd.concat([rows("scratch", [10, 20, 60]), rows("frozen", [20, 5, 0]), rows("frozen", [999] * 3, "all")])
    assert comparison.rankings(results, 10).values.tolist() == [
        [1, "scratch > frozen"],  # 10 errors and 20
        [2, "frozen > scratch"],  # 30 and 25
        [3, "frozen > scratch"],  # 90 and 25
    ]


def test_strategies_of_equal_accuracy_rank_in_the_order_of_their_appearance():
    results = pd.concat([rows("frozen", [7]), rows("scratch", [7])])
    assert comparison.rankings(results, 10)["ranking"].tolist() == ["frozen > scratch"]


def test_budgets_of_a_comparison_are_nested_for_each_seed(digits: Dataset):
    for seed in PLAN.seeds:
        _, target = PLAN.tasks(digits, seed)
        few, more = (data.subsample(target.train, budget, seed) for budget in (5, 20))
        assert {image.tobytes() for image in few.images} <= {image.tobytes() for image in more.images}

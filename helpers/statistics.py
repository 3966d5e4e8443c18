"""Statistics: turn result rows, one per training run, into means with intervals and into findings.

An effect is the ratio of two strategies' errors, seed by seed. The mean and interval of its logarithm are transformed
back into a geometric mean and its interval (J. Bland and D. Altman, "The use of transformation when comparing two
means", BMJ 312, 1996). An interval accounts for other seeds on the same data and test images, but not for other data.
"""

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from helpers.tasks import budget_size
from helpers.transfer import STRATEGIES

CONFIDENCE = 0.95
MARGIN = (0.8, 1.25)  # two strategies are equally good if the interval of their error ratio lies within it
SMALL = 0.2  # percentage points of accuracy: smaller differences do not matter in practice


class Finding(StrEnum):
    """A finding supported by the interval of an error ratio; the values are the wording in tables."""

    BASELINE = "the baseline"
    BETTER = "better"
    WORSE = "worse"
    AS_GOOD = "as good"
    NO_DIFFERENCE = "no detectable difference"
    CANNOT_TELL = "cannot tell"  # without an interval


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean and its 95% t-interval; the ends are NaN for a single value."""
    numbers = np.asarray(values, float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1) * stats.sem(numbers))
    return Interval(mean, mean - half, mean + half)


def log_ratios(errors: pd.Series, baseline: pd.Series) -> pd.Series:
    """Return the logarithms of error ratios, seed by seed. Half an error is added to each count, so that the ratio
    exists even for a network without errors.
    """
    return np.log((errors + 0.5) / (baseline + 0.5))


def finding(ratio: Interval) -> Finding:
    """Return the first finding that applies to the interval of an error ratio.

    The finding is `BETTER` or `WORSE` if the interval excludes 1, `AS_GOOD` if it lies within the margin. Failing to
    detect a difference does not show equality. Without an interval, or with the same ratio for every seed, nothing can
    be concluded: an interval of zero width says nothing about the next seed.
    """
    if np.isnan(ratio.low) or math.isclose(ratio.low, ratio.high):
        return Finding.CANNOT_TELL
    if ratio.high < 1:
        return Finding.BETTER
    if ratio.low > 1:
        return Finding.WORSE
    low, high = MARGIN
    return Finding.AS_GOOD if low <= ratio.low and ratio.high <= high else Finding.NO_DIFFERENCE


def holm(p_values: Sequence[float] | pd.Series) -> np.ndarray:
    """Return the p-values of several comparisons, adjusted by Holm's method (S. Holm, "A simple sequentially rejective
    multiple test procedure", Scandinavian Journal of Statistics 6, 1979).

    If nothing differs, at most 5% of such sets of comparisons contain an adjusted value below 0.05. NaNs stay NaN.
    """
    known = np.asarray(p_values, float)
    order = np.argsort(known)  # NaNs come last
    left = np.count_nonzero(~np.isnan(known)) - np.arange(len(known))  # comparisons with this p-value or a larger one
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(known[order] * left))
    return adjusted


def in_order(strategies: Iterable[str]) -> list[str]:
    """Return each strategy once, in the order of `STRATEGIES`; others, such as a backbone's cuts, follow as given.

    Anything after a comma, such as the setting of a training run, is ignored.
    """
    places = {name: place for place, name in enumerate(STRATEGIES)}
    return sorted(dict.fromkeys(strategies), key=lambda name: places.get(name.split(",")[0], len(places)))


def summarize(results: pd.DataFrame, task: str = "target", baseline: str = "scratch") -> pd.DataFrame:
    """Summarize a task over seeds: one row per label budget and strategy, in order of appearance.

    Columns: seeds; accuracy with low and high; difference from the baseline in percentage points, paired by seed, with
    low and high; error ratio relative to the baseline, paired on the log scale, with low and high, its finding, and the
    p-value of a paired t-test; median train_seconds for the updates alone, target_seconds with feature extraction,
    total_seconds with pretraining as well.
    """
    target = results[results["task"] == task]
    rows = []
    for (budget, strategy), trainings in target.groupby(["labels_per_class", "strategy"], sort=False):
        compared = target[(target["labels_per_class"] == budget) & (target["strategy"] == baseline)]
        paired = trainings.merge(compared, on="seed", suffixes=("", "_baseline"))
        difference, ratio, p_value = Interval(np.nan, np.nan, np.nan), Interval(np.nan, np.nan, np.nan), np.nan
        if len(paired) and strategy != baseline:
            difference = interval(100 * (paired["test_accuracy"] - paired["test_accuracy_baseline"]))
            logs = log_ratios(paired["test_errors"], paired["test_errors_baseline"])
            ratio = Interval(*np.exp(interval(logs)))
            if finding(ratio) is not Finding.CANNOT_TELL:
                p_value = float(stats.ttest_1samp(logs, 0).pvalue)
        on_target = trainings["train_seconds"] + trainings["extract_seconds"]
        rows.append(
            {
                "labels_per_class": budget,
                "strategy": strategy,
                "seeds": len(trainings),
                **_columns("accuracy", interval(trainings["test_accuracy"])),
                **_columns("difference", difference),
                **_columns("error_ratio", ratio),
                "finding": Finding.BASELINE if strategy == baseline else finding(ratio),
                "p_value": p_value,
                "train_seconds": trainings["train_seconds"].median(),
                "target_seconds": on_target.median(),
                "total_seconds": (on_target + trainings["pretrain_seconds"]).median(),
            }
        )
    return pd.DataFrame(rows)


def _columns(name: str, values: Interval) -> dict[str, float]:
    return {name: values.mean, f"{name}_low": values.low, f"{name}_high": values.high}


def findings(results: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """Compare `frozen` with `scratch` in each group of rows with equal values in the columns `by`; return the findings.

    The findings agree with those of `summarize`, which takes too long for thousands of groups.
    """
    errors = results.pivot(index=[*by, "seed"], columns="strategy", values="test_errors")
    logs = log_ratios(errors["frozen"], errors["scratch"]).dropna().groupby(level=list(by), sort=False)
    return logs.agg(lambda of_group: finding(Interval(*np.exp(interval(of_group)))))


class Claim(NamedTuple):
    """The outcome of checking "transfer reaches the accuracy of an ordinary CNN at a much faster rate".

    It contains the checked row of the summary, and how many times as fast as `scratch` that strategy is: on the target
    task including feature extraction, and in total, including pretraining as well.
    """

    checked: pd.Series
    times_faster_on_target: float
    times_faster_in_all: float


def published_claim(summary: pd.DataFrame) -> Claim | None:
    """Check the published claim at the largest label budget; return None if the necessary strategies were not trained.

    The published variant is `reused-head`; if it was not trained, `frozen` stands in for it.
    """
    largest = max(summary["labels_per_class"], key=budget_size)
    at = summary[summary["labels_per_class"] == largest].set_index("strategy", drop=False)
    checked = next((strategy for strategy in ("reused-head", "frozen") if strategy in at.index), None)
    if checked is None or "scratch" not in at.index:
        return None
    scratch, transfer = at.loc["scratch"], at.loc[checked]
    return Claim(transfer, *(scratch[name] / transfer[name] for name in ("target_seconds", "total_seconds")))

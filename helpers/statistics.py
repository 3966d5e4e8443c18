"""Statistics: result rows, one per training, become means with intervals, findings and a verdict.

An interval says what other seeds would give on the same dataset and test images, not what other data would.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.tasks import Task, budget_size
from helpers.transfer import STRATEGIES

CONFIDENCE = 0.95
MARGIN = 0.2  # percentage points of accuracy within which two strategies count as equally good


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95 % t-interval, `(mean, low, high)`; the ends are NaN for a single value."""
    numbers = np.asarray(values, float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1) * stats.sem(numbers))
    return mean, mean - half, mean + half


def percent(accuracies: Sequence[float] | np.ndarray) -> str:
    """Write the mean of accuracies in percent, and half of its 95 % interval if it has one, as in "97.72 ± 0.81"."""
    mean, low, high = interval(accuracies)
    return f"{100 * mean:.2f}" + (f" ± {50 * (high - low):.2f}" if high - low > 1e-9 else "")


def in_order(strategies: Iterable[str]) -> list[str]:
    """Return each strategy once, in the order of `STRATEGIES`; then others, such as a backbone's cuts, as they come.

    What follows a comma, such as the setting of one training, does not count.
    """
    places = {name: place for place, name in enumerate(STRATEGIES)}
    return sorted(dict.fromkeys(strategies), key=lambda name: places.get(name.split(",")[0], len(places)))


def accuracy_by_class(task: Task, probabilities: Sequence[np.ndarray], split: str = "test") -> pd.Series:
    """Return the share of each class's images that are answered right, of the test or another split, by class.

    It is the mean over several networks, each with probabilities `(n, classes)`.
    """
    labels = getattr(task, split).labels
    right = np.mean([scores.argmax(axis=1) == labels for scores in probabilities], axis=0)
    return pd.Series([right[labels == label].mean() for label in range(len(task.classes))], pd.Index(task.classes))


def summarize(results: pd.DataFrame, task: str = "target") -> pd.DataFrame:
    """Summarize a task over seeds: one row per label budget and strategy, in the order of their appearance.

    Columns: seeds; accuracy with low and high; difference to `scratch` in percentage points, paired by seed, with low
    and high; error ratio to `scratch`, paired on the log, with low and high; medians of the seconds: train_seconds of
    the updates alone, target_seconds with the extraction of features, total_seconds with pretraining too. Half an
    error is added to each count before a ratio is taken, so that it exists where a network makes none.
    """
    target = results[results["task"] == task]
    rows = []
    for (budget, strategy), trainings in target.groupby(["labels_per_class", "strategy"], sort=False):
        baseline = target[(target["labels_per_class"] == budget) & (target["strategy"] == "scratch")]
        paired = trainings.merge(baseline, on="seed", suffixes=("", "_scratch"))
        accuracy = interval(trainings["test_accuracy"])
        difference = ratio = (np.nan,) * 3
        if len(paired) and strategy != "scratch":
            difference = interval(100 * (paired["test_accuracy"] - paired["test_accuracy_scratch"]))
            logs = np.log((paired["test_errors"] + 0.5) / (paired["test_errors_scratch"] + 0.5))
            ratio = tuple(np.exp(interval(logs)))
        on_target = trainings["train_seconds"] + trainings["extract_seconds"]
        rows.append(
            {
                "labels_per_class": budget,
                "strategy": strategy,
                "seeds": len(trainings),
                **dict(zip(("accuracy", "accuracy_low", "accuracy_high"), accuracy, strict=True)),
                **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True)),
                **dict(zip(("error_ratio", "error_ratio_low", "error_ratio_high"), ratio, strict=True)),
                "train_seconds": trainings["train_seconds"].median(),
                "target_seconds": on_target.median(),
                "total_seconds": (on_target + trainings["pretrain_seconds"]).median(),
            }
        )
    return pd.DataFrame(rows)


def finding(row: Mapping[str, Any], margin: float = MARGIN) -> str:
    """Word one row of a summary, from its numbers alone: "as good", "better", "worse", "no detectable difference",
    "cannot tell", the first that applies.

    "as good" needs the whole interval within the margin, in percentage points. Not detecting a difference does not show
    equality. Errors are whole numbers, so a few seeds can all differ by the same. Such an interval has no width and
    says nothing of the next seed.
    """
    low, high = row["difference_low"], row["difference_high"]
    if row["strategy"] == "scratch":
        return "the baseline"
    if np.isnan(row["difference"]):
        return "cannot tell: scratch was not trained"
    if np.isnan(low):
        return "cannot tell: one seed gives no interval"
    if math.isclose(low, high, abs_tol=1e-9):
        return "cannot tell: the same difference with every seed gives no interval"
    if -margin <= low and high <= margin:
        return "as good"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no detectable difference"


def findings(results: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """Return the finding on `frozen` against `scratch` in each group of rows, by its values in the columns `by`.

    The findings are those of `summarize`, which takes too long for thousands of groups.
    """
    accuracy = results.pivot(index=[*by, "seed"], columns="strategy", values="test_accuracy")
    differences = (100 * (accuracy["frozen"] - accuracy["scratch"])).dropna().groupby(level=list(by), sort=False)
    names = ("difference", "difference_low", "difference_high")
    return differences.agg(
        lambda each: finding({"strategy": "frozen", **dict(zip(names, interval(each), strict=True))})
    )


def verdict(summary: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """Word each strategy against `scratch` at each budget: columns labels_per_class, strategy, finding, verdict."""
    rows = []
    for _, row in summary[summary["strategy"] != "scratch"].iterrows():
        found = finding(row, margin)
        rows.append((row["labels_per_class"], row["strategy"], found, _sentence(row, found, margin)))
    return pd.DataFrame(rows, columns=["labels_per_class", "strategy", "finding", "verdict"])


def _sentence(row: pd.Series, found: str, margin: float) -> str:
    points = f"{row['difference']:+.2f} points ({row['difference_low']:+.2f} to {row['difference_high']:+.2f})"
    ratio = f"{row['error_ratio']:.2f} times the errors ({row['error_ratio_low']:.2f} to {row['error_ratio_high']:.2f})"
    if found == "as good":
        return f"as good as scratch: {points}, all within {margin} points"
    if found == "no detectable difference":
        return f"no detectable difference to scratch: {points}; that is not yet equality"
    if found in ("better", "worse"):
        halved = "halves the errors" if row["error_ratio"] >= 0.4 else "more than halves the errors"
        effect = "hurts" if found == "worse" else halved if row["error_ratio"] <= 0.6 else "helps"
        return f"{effect}: {ratio}, {points}"
    return found


def published_claim(summary: pd.DataFrame, margin: float = MARGIN) -> dict[str, bool | float | str]:
    """Check "transfer reaches the accuracy of an ordinary CNN at a much faster rate" at the largest label budget.

    The variant that was published is `reused-head`; `frozen` stands in where it was not trained. Returns which was
    checked; whether the accuracy holds (True, False, or why neither can be said); and how many times faster than
    scratch it is, on the target task with extraction, and with pretraining too.
    """
    largest = max(summary["labels_per_class"], key=budget_size)
    at = summary[summary["labels_per_class"] == largest].set_index("strategy", drop=False)
    checked = next((strategy for strategy in ("reused-head", "frozen") if strategy in at.index), None)
    if checked is None or "scratch" not in at.index:
        return {"same accuracy": "cannot tell: it takes the strategies scratch, and reused-head or frozen"}
    scratch, transfer = at.loc["scratch"], at.loc[checked]
    found = finding(transfer, margin)
    wordings: dict[str, bool | str] = {
        "as good": True,
        "better": True,
        "worse": False,
        "no detectable difference": "not shown: no detectable difference, but an interval wider than the margin",
    }
    return {
        "checked for": checked,
        "same accuracy": wordings.get(found, found),
        "on the target task, times faster": float(f"{scratch['target_seconds'] / transfer['target_seconds']:.2g}"),
        "with pretraining, times faster": float(f"{scratch['total_seconds'] / transfer['total_seconds']:.2g}"),
    }


def headline(summary: pd.DataFrame, margin: float = MARGIN) -> str:
    """Say in one sentence how `frozen` compares with `scratch`; nothing if `frozen` was not trained."""
    found = verdict(summary, margin).query("strategy == 'frozen'")
    words = found["finding"].str.replace(":.*", "", regex=True)  # the reason why nothing can be told stands elsewhere
    budgets = found["labels_per_class"].map(str).groupby(words, sort=False).agg(", ".join)
    said = [f"with {where} labels per class: {what}" for what, where in budgets.items()]
    return f"frozen against scratch, {'; '.join(said)}" if said else ""


def answers(summary: pd.DataFrame, margin: float = MARGIN) -> list[tuple[str, str]]:
    """Answer in words what was asked: pairs of a question and its answer, whose first words say what was found.

    Whether the published conclusion holds comes first, then how `frozen` compares with `scratch` at each budget.
    """
    claim, said = published_claim(summary, margin), []
    if checked := claim.get("checked for"):
        same, most = claim["same accuracy"], max(summary["labels_per_class"], key=budget_size)
        found = f"{same}," if isinstance(same, str) else "holds:" if same else "does not hold:"
        alone, everything = claim["on the target task, times faster"], claim["with pretraining, times faster"]
        times = (
            f"{alone} times as fast as scratch on the target task alone, {everything} times with pretraining counted"
        )
        said = [
            (
                "Published claim: as accurate as an ordinary network",
                f"{found} for {checked} with {most} labels per class",
            ),
            ("Published claim: much faster", f"{times}: medians over the seeds, without an interval"),
        ]
    frozen = verdict(summary, margin).query("strategy == 'frozen'")
    questions = "frozen against scratch, " + frozen["labels_per_class"].map(str) + " labels per class"
    return [*said, *zip(questions, frozen["verdict"], strict=True)]


def limits(summary: pd.DataFrame) -> list[str]:
    """Say what a comparison cannot tell, and for want of what: of strategies, of seeds, of label budgets."""
    trained, budgets = set(summary["strategy"]), sorted(set(summary["labels_per_class"]), key=budget_size)
    said = []
    if "scratch" not in trained:
        said.append("whether transfer helps: scratch, the ordinary network to compare with, was not trained")
    if summary["seeds"].min() < 2:
        said.append("whether other random draws would give the same: one seed gives no interval")
    if "random-frozen" not in trained:
        said.append("whether it is pretraining that helps: random-frozen, the control, was not trained")
    if left := [name for name in STRATEGIES if name not in trained | {"scratch", "random-frozen"}]:
        said.append(f"what {', '.join(left)} would do: not trained")
    if "all" not in budgets:
        said.append(f"the published conclusion with all labels, where it was drawn: the most here are {budgets[-1]}")
    if budgets == ["all"]:
        said.append("what transfer is worth where labels are few: all of them were used")
    return said


def rankings(results: pd.DataFrame, labels_per_class: int | str) -> pd.DataFrame:
    """Rank the strategies at one budget by mean accuracy over the first 1, 2, ... seeds: columns seeds, ranking."""
    at = results[(results["task"] == "target") & (results["labels_per_class"] == labels_per_class)]
    seeds = list(dict.fromkeys(at["seed"]))
    rows = []
    for count in range(1, len(seeds) + 1):
        means = at[at["seed"].isin(seeds[:count])].groupby("strategy", sort=False)["test_accuracy"].mean()
        rows.append((count, " > ".join(means.sort_values(ascending=False, kind="stable").index)))
    return pd.DataFrame(rows, columns=["seeds", "ranking"])

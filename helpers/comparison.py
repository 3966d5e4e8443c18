"""The comparison: strategies by label budget by seed, one tidy row per training; then intervals and a verdict.

At a given label budget and seed all strategies see the same images in the same order, the same number of updates and
the same batch size, and share one recipe. A seed repeats everything: the validation split, pretraining, initial
weights, the images drawn for a budget, the order of batches, dropout. So intervals say what other seeds would give on
the same dataset and test images, not what other data would.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from helpers.cnn import Architecture
from helpers.data import Dataset, Task, check_seed, split_tasks, subsample
from helpers.training import Recipe
from helpers.transfer import (
    STRATEGIES,
    Networks,
    Pretrained,
    Strategy,
    check_frozen_convs,
    pretrained,
    result_row,
    strategies_for,
)

CONFIDENCE = 0.95
MARGIN = 0.2  # percentage points of accuracy within which two strategies count as equally good


@dataclass(frozen=True)
class Plan:
    """What is to be compared; `check` refuses a plan that cannot be carried out, before anything is trained."""

    source_classes: Sequence[int]
    target_classes: Sequence[int]
    strategies: Sequence[str] = tuple(STRATEGIES)
    labels_per_class: Sequence[int | str] = (10, 50, "all")
    seeds: Sequence[int] = (0, 1, 2)
    validation_fraction: float = 0.1
    frozen_convs: int = 2

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for budgets, seeds, strategies or classes that cannot be, for this dataset."""
        for name in ("labels_per_class", "seeds"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"{name}: {values!r} is not a list with at least one entry")
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"{name}: {list(values)} holds an entry twice; give each once")
        for seed in self.seeds:
            check_seed("seeds", seed)
            _, target = self.tasks(dataset, seed)
            for budget in self.labels_per_class:
                subsample(target.train, budget, seed)
        check_frozen_convs(self.frozen_convs)
        strategies, left_out = strategies_for(self.strategies, len(self.source_classes), len(self.target_classes))
        if not strategies:
            raise ValueError(f"strategies: {list(self.strategies)} leaves nothing to compare: {left_out}")

    def tasks(self, dataset: Dataset, seed: int) -> tuple[Task, Task]:
        """Return the source and the target task as this seed splits them."""
        return split_tasks(dataset, self.source_classes, self.target_classes, self.validation_fraction, seed)


@dataclass(frozen=True)
class Comparison:
    """The rows of all trainings, the reasons for strategies left out, the target task, and the probabilities for its
    test images by strategy, budget and seed.
    """

    results: pd.DataFrame
    left_out: dict[str, str]
    target: Task
    probabilities: dict[tuple[str, int | str, int], np.ndarray] = field(repr=False)


def compare(
    dataset: Dataset, plan: Plan, architecture: Architecture, recipe: Recipe, folder: Path, progress: bool = True
) -> Comparison:
    """Train every strategy at every label budget with every seed, on the target task, and test each trained network
    once.

    Pretraining runs once per seed, or is taken from the run folder; its row is `scratch` on the source task.
    `architecture.classes` is set from the plan. The largest thing in memory is one set of cached features.
    """
    plan.check(dataset)
    strategies, left_out = strategies_for(plan.strategies, len(plan.source_classes), len(plan.target_classes))
    source_cnn = replace(architecture, classes=len(plan.source_classes))
    target_cnn = replace(architecture, classes=len(plan.target_classes))
    networks = Networks(target_cnn, recipe, plan.frozen_convs)
    lent = networks if source_cnn == target_cnn else Networks(source_cnn, recipe)
    needs_source = any(strategy.features == "pretrained" for strategy in strategies)
    trainings = len(plan.seeds) * (needs_source + len(plan.labels_per_class) * len(strategies))
    rows, probabilities = [], {}
    with tqdm(total=trainings, desc="trainings", disable=not progress) as bar:
        for seed in plan.seeds:
            source, target = plan.tasks(dataset, seed)
            network = pretrained(folder, source, source_cnn, recipe, seed, lent) if needs_source else None
            del source  # its images are done with
            if network:
                rows.append(network.row)
                bar.update()
            trained = {budget: [] for budget in plan.labels_per_class}
            for row, predicted in _with_seed(networks, strategies, plan.labels_per_class, target, seed, network):
                trained[row["labels_per_class"]].append(row)
                probabilities[row["strategy"], row["labels_per_class"], seed] = predicted
                bar.update()
            rows += [row for at_budget in trained.values() for row in at_budget]
    results = pd.DataFrame(rows).fillna({"pretrain_seconds": 0.0, "extract_seconds": 0.0})
    return Comparison(results, left_out, target, probabilities)


def _with_seed(
    networks: Networks,
    strategies: list[Strategy],
    budgets: Sequence[int | str],
    task: Task,
    seed: int,
    source: Pretrained | None,
) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield each strategy's result row and test probabilities at each budget; all strategies that share frozen
    features share their extraction, and all budgets that of the test images.
    """
    for kind in ("random", "pretrained"):  # one kind at a time, so that only one set of features is in memory
        alike = [strategy for strategy in strategies if strategy.features == kind]
        features = test = None
        for budget in budgets:
            images, features = subsample(task.train, budget, seed), None  # the last set is gone before the next is made
            for strategy in alike:
                cached = strategy.frozen and networks.caches_features
                if cached and features is None:
                    features = networks.features(strategy, task, images, seed, source, test)
                    test = features[1]
                training, predicted = networks.train(strategy, task, images, seed, source, features if cached else None)
                row = result_row(task, strategy.name, budget, seed, networks.recipe, training, predicted)
                row["pretrain_seconds"] = source.row["train_seconds"] if kind == "pretrained" else 0.0
                row["extract_seconds"] = features[0].seconds if cached else 0.0
                yield row, predicted


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % t-interval, `(mean, low, high)`; the ends are NaN for a single value."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Summarize the target task over seeds: one row per label budget and strategy, in the order of their appearance.

    Columns: seeds; accuracy with low and high; difference to `scratch` in percentage points, paired by seed, with low
    and high; error ratio to `scratch`, paired on the log, with low and high; medians of the seconds: train_seconds of
    the updates alone, target_seconds with the extraction of features, which whoever has a pretrained network pays too,
    and total_seconds with pretraining. Half an error is added to each count before a ratio is taken, so that it exists
    where a network makes none.
    """
    target = results[results["task"] == "target"]
    rows = []
    for (budget, strategy), runs in target.groupby(["labels_per_class", "strategy"], sort=False):
        baseline = target[(target["labels_per_class"] == budget) & (target["strategy"] == "scratch")]
        paired = runs.merge(baseline, on="seed", suffixes=("", "_scratch"))
        accuracy = interval(runs["test_accuracy"])
        difference = ratio = (np.nan,) * 3
        if len(paired) and strategy != "scratch":
            difference = interval(100 * (paired["test_accuracy"] - paired["test_accuracy_scratch"]))
            logs = np.log((paired["test_errors"] + 0.5) / (paired["test_errors_scratch"] + 0.5))
            ratio = tuple(np.exp(interval(logs)))
        on_target = runs["train_seconds"] + runs["extract_seconds"]
        rows.append(
            {
                "labels_per_class": budget,
                "strategy": strategy,
                "seeds": len(runs),
                **dict(zip(("accuracy", "accuracy_low", "accuracy_high"), accuracy, strict=True)),
                **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True)),
                **dict(zip(("error_ratio", "error_ratio_low", "error_ratio_high"), ratio, strict=True)),
                "train_seconds": runs["train_seconds"].median(),
                "target_seconds": on_target.median(),
                "total_seconds": (on_target + runs["pretrain_seconds"]).median(),
            }
        )
    return pd.DataFrame(rows)


def finding(row: Mapping[str, Any], margin: float = MARGIN) -> str:
    """Word one row of a summary, from its numbers alone: "as good", "better", "worse", "no detectable difference",
    "cannot tell", the first that applies.

    "as good" needs the whole interval within the margin (in percentage points): not detecting a difference is not
    showing equality. Errors are whole numbers, so a few seeds can all differ by the same; that gives an interval
    without width, which says nothing of the next seed.
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


def verdict(summary: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """Word every strategy against `scratch` at every label budget: columns labels_per_class, strategy, finding,
    verdict.
    """
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

    It is checked for the variant that was published, `reused-head`, or `frozen` where that was not trained. Returns
    which; whether the accuracy holds (True, False, or why neither can be said); and the seconds of scratch over its
    own, on the target task with extraction, and with pretraining too.
    """
    largest = max(summary["labels_per_class"], key=lambda budget: math.inf if budget == "all" else budget)
    at = summary[summary["labels_per_class"] == largest].set_index("strategy", drop=False)
    checked = next((strategy for strategy in ("reused-head", "frozen") if strategy in at.index), None)
    if checked is None or "scratch" not in at.index:
        return {"same accuracy": "cannot tell: it takes the strategies scratch, and reused-head or frozen"}
    scratch, transfer = at.loc["scratch"], at.loc[checked]
    found = finding(transfer, margin)
    wordings = {
        "as good": True,
        "better": True,
        "worse": False,
        "no detectable difference": "not shown: no detectable difference, but an interval wider than the margin",
    }
    return {
        "checked for": checked,
        "same accuracy": wordings.get(found, found),
        "on the target task, times faster": round(scratch["target_seconds"] / transfer["target_seconds"], 1),
        "with pretraining, times faster": round(scratch["total_seconds"] / transfer["total_seconds"], 1),
    }


def rankings(results: pd.DataFrame, labels_per_class: int | str) -> pd.DataFrame:
    """Rank the strategies at one label budget by mean accuracy over the first 1, 2, 3, ... seeds: columns seeds,
    ranking.
    """
    at = results[(results["task"] == "target") & (results["labels_per_class"] == labels_per_class)]
    seeds = list(dict.fromkeys(at["seed"]))
    rows = []
    for count in range(1, len(seeds) + 1):
        means = at[at["seed"].isin(seeds[:count])].groupby("strategy", sort=False)["test_accuracy"].mean()
        rows.append((count, " > ".join(means.sort_values(ascending=False, kind="stable").index)))
    return pd.DataFrame(rows, columns=["seeds", "ranking"])

"""Wording: findings, accuracies, the published claim and rules, as lessons and reports phrase them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.choice import Rule
from helpers.statistics import SMALL, Claim, Finding, interval


def percent(accuracies: Sequence[float] | np.ndarray) -> str:
    """Format mean accuracy in percent, with half of its 95% interval if there is one, as in "97.72 ± 0.81"."""
    mean, low, high = interval(accuracies)
    return f"{100 * mean:.2f}" + (f" ± {50 * (high - low):.2f}" if high - low > 1e-9 else "")


def verdict(row: pd.Series, baseline: str = "scratch") -> tuple[str, str]:
    """Put a summary's row for any strategy but the baseline into words: the finding, and the numbers behind it."""
    times = f"{row['error_ratio']:.2f} times the errors ({row['error_ratio_low']:.2f} to {row['error_ratio_high']:.2f})"
    points = f"{row['difference']:+.2f} points ({row['difference_low']:+.2f} to {row['difference_high']:+.2f})"
    small = max(abs(row["difference_low"]), abs(row["difference_high"])) <= SMALL
    numbers = f"{times}, {points}{', too small to matter in practice' * bool(small)}"
    match row["finding"]:
        case Finding.BETTER:
            return "at least halves the errors" if row["error_ratio_high"] <= 0.5 else "helps", numbers
        case Finding.WORSE:
            return "at least doubles the errors" if row["error_ratio_low"] >= 2 else "hurts", numbers
        case Finding.AS_GOOD:
            return f"as good as {baseline}", numbers
        case Finding.NO_DIFFERENCE:
            return f"no detectable difference from {baseline}", f"{numbers}; that does not show equality"
    if np.isnan(row["error_ratio"]):
        return str(row["finding"]), f"{baseline} was not trained"
    alone = "one seed" if np.isnan(row["error_ratio_low"]) else "the same ratio with every seed"
    return str(row["finding"]), f"{alone} gives no interval"


def verdicts(summary: pd.DataFrame, baseline: str = "scratch") -> pd.DataFrame:
    """Put the verdict on each strategy at each budget into words: columns labels_per_class, strategy, verdict."""
    compared = summary[summary["strategy"] != baseline]
    sentences = [": ".join(verdict(row, baseline)) for _, row in compared.iterrows()]
    return compared[["labels_per_class", "strategy"]].assign(verdict=sentences).reset_index(drop=True)


def claim(checked: Claim | None) -> dict[str, str | float]:
    """Put the outcome of checking the published claim into words, as rows of a table."""
    if checked is None:
        return {"same accuracy": "cannot tell unless scratch and reused-head (or frozen) are trained"}
    return {
        "checked for": f"{checked.checked['strategy']} with {checked.checked['labels_per_class']} labels per class",
        "same accuracy": ": ".join(verdict(checked.checked)),
        "on the target task, times faster": float(f"{checked.times_faster_on_target:.2g}"),
        "with pretraining, times faster": float(f"{checked.times_faster_in_all:.2g}"),
    }


def rule(chooses: Rule) -> list[str]:
    """Put a rule that chooses a start into words, in three lines."""
    leave = (
        "Cross-validate a logistic regression on the features of every start that you have. Switch to the best "
        f"one if its accuracy exceeds the usual start's by more than {chooses.margin:g} standard errors of the latter."
    )
    return [
        f"Start from `{chooses.start}`.",
        leave if np.isfinite(chooses.margin) else "Keep it: no test has proved reliable.",
        f"If your choice is a source task, use `{chooses.few}` with fewer than {chooses.many} labels per class, "
        f"and `{chooses.then}` otherwise.",
    ]

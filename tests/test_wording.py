"""Wording: sentences follow from the numbers."""

import math

import pandas as pd
import pytest

from helpers import wording
from helpers.statistics import Claim, Interval, finding

NAN = math.nan


def row(ratio: float, low: float, high: float, points: float = 1.0) -> pd.Series:
    """Return a row of a summary; the interval of the difference ranges from half to twice the difference."""
    return pd.Series(
        {
            **{"labels_per_class": 10, "strategy": "frozen", "finding": finding(Interval(ratio, low, high))},
            **{"difference": points, "difference_low": points / 2, "difference_high": points * 2},
            **{"error_ratio": ratio, "error_ratio_low": low, "error_ratio_high": high},
        }
    )


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (row(0.6, 0.4, 0.9), "helps: 0.60 times the errors (0.40 to 0.90), +1.00 points (+0.50 to +2.00)"),
        (row(0.3, 0.2, 0.5), "at least halves the errors: 0.30 times the errors (0.20 to 0.50), +1.00 points"),
        (row(1.6, 1.1, 1.9, -1), "hurts: 1.60 times the errors (1.10 to 1.90), -1.00 points (-0.50 to -2.00)"),
        (row(3, 2, 4, -1), "at least doubles the errors: 3.00 times the errors (2.00 to 4.00), -1.00 points"),
        (row(0.6, 0.4, 0.9, 0.1), "helps: 0.60 times the errors (0.40 to 0.90), +0.10 points (+0.05 to +0.20), too sm"),
        (row(0.9, 0.8, 1.1), "as good as scratch: 0.90 times the errors (0.80 to 1.10), +1.00 points (+0.50 to +2.00)"),
        (row(0.9, 0.5, 1.5), "no detectable difference from scratch: 0.90 times the errors (0.50 to 1.50), +1.00"),
        (row(0.7, NAN, NAN), "cannot tell: one seed gives no interval"),
        (row(0.7, 0.7, 0.7), "cannot tell: the same ratio with every seed gives no interval"),
        (row(NAN, NAN, NAN), "cannot tell: scratch was not trained"),
    ],
)
def test_the_verdict_is_worded_from_the_numbers(summary: pd.Series, sentence: str):
    scratch = pd.Series({"labels_per_class": 10, "strategy": "scratch"})
    (verdict,) = wording.verdicts(pd.DataFrame([scratch, summary]))["verdict"]
    assert verdict.startswith(sentence)


def test_the_published_claim_is_told_with_its_verdict():
    table = wording.claim(Claim(row(0.9, 0.5, 1.5), 6.04, 1.26))
    assert table["checked for"] == "frozen with 10 labels per class" and table["same accuracy"].startswith(
        "no detectable difference from scr"
    )
    assert (table["on the target task, times faster"], table["with pretraining, times faster"]) == (6.0, 1.3)
    assert list(wording.claim(None)) == ["same accuracy"]


def test_percent_has_half_of_the_interval_where_there_is_one():
    assert wording.percent([0.97, 0.98, 0.99]) == "98.00 ± 2.48"
    assert wording.percent([0.5]) == wording.percent([0.5, 0.5]) == "50.00"

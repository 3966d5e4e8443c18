"""Wording: what is said follows from the numbers."""

import math

import pandas as pd
import pytest

from helpers import wording
from helpers.statistics import Claim, finding

NAN = math.nan


def row(difference: float, low: float, high: float, ratio: float = 1.0) -> pd.Series:
    """Return a row of a summary; the interval of the ratio reaches from half of it to twice of it."""
    return pd.Series(
        {
            **{"labels_per_class": 10, "strategy": "frozen", "finding": finding(difference, low, high)},
            **{"difference": difference, "difference_low": low, "difference_high": high},
            **{"error_ratio": ratio, "error_ratio_low": ratio / 2, "error_ratio_high": ratio * 2},
        }
    )


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (row(2.0, 1.0, 3.0, 0.7), "helps: 0.70 times the errors (0.35 to 1.40), +2.00 points (+1.00 to +3.00)"),
        (row(2.0, 1.0, 3.0, 0.5), "halves the errors: 0.50 times the errors (0.25 to 1.00), +2.00 points"),
        (row(2.0, 1.0, 3.0, 0.2), "more than halves the errors: 0.20 times the errors (0.10 to 0.40), +2.00 points"),
        (row(-2.0, -3.0, -1.0, 2.0), "hurts: 2.00 times the errors (1.00 to 4.00), -2.00 points (-3.00 to -1.00)"),
        (row(0.1, -0.1, 0.2), "as good as scratch: +0.10 points (-0.10 to +0.20), all within 0.2 points"),
        (row(0.1, -1.0, 1.2), "no detectable difference to scratch: +0.10 points (-1.00 to +1.20); that is not yet"),
        (row(1.0, NAN, NAN), "cannot tell: one seed gives no interval"),
        (row(1.0, 1.0, 1.0), "cannot tell: the same difference with every seed gives no interval"),
        (row(NAN, NAN, NAN), "cannot tell: scratch was not trained"),
    ],
)
def test_the_verdict_is_worded_from_the_numbers(summary: pd.Series, sentence: str):
    scratch = pd.Series({"labels_per_class": 10, "strategy": "scratch"})
    (verdict,) = wording.verdicts(pd.DataFrame([scratch, summary]))["verdict"]
    assert verdict.startswith(sentence)


@pytest.mark.parametrize(
    ("checked", "said"),
    [
        (row(0.1, -0.1, 0.2), True),
        (row(2.0, 1.0, 3.0), True),
        (row(-2.0, -3.0, -1.0), False),
        (row(0.1, -1.0, 1.2), "not shown: no detectable difference, but an interval wider than the margin"),
        (row(1.0, NAN, NAN), "cannot tell: one seed gives no interval"),
    ],
)
def test_the_published_claim_is_said_to_hold_only_where_it_was_shown(checked: pd.Series, said: bool | str):
    table = wording.claim(Claim(checked, 6.04, 1.26))
    assert table["checked for"] == "frozen" and table["same accuracy"] == said
    assert (table["on the target task, times faster"], table["with pretraining, times faster"]) == (6.0, 1.3)
    assert list(wording.claim(None)) == ["same accuracy"]


def test_percent_has_half_of_the_interval_where_there_is_one():
    assert wording.percent([0.97, 0.98, 0.99]) == "98.00 ± 2.48"
    assert wording.percent([0.5]) == wording.percent([0.5, 0.5]) == "50.00"

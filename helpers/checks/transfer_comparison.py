"""Exercises of lesson 05."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from helpers.checks.replies import STILL_THERE, close, exercise, meaning


@exercise("subtract seed by seed first, then hand the differences to interval")
def paired(answer: tuple[float, float, float], one: Sequence[float], other: Sequence[float]) -> str | None:
    """Check the mean difference `one - other`, paired by seed, with its 95 % interval: (mean, low, high)."""
    from helpers.statistics import interval  # SciPy takes its time, and lesson 01 needs none of it

    if not isinstance(answer, Sequence | np.ndarray) or len(answer) != 3:
        return "the answer has three numbers, (mean, low, high)"
    mean, low, high = answer
    right = interval(np.subtract(one, other))
    if close(low, right[0]) and close(mean, right[1]):
        return "the mean comes first, then the ends of the interval"
    if close(mean, -right[0]) and not close(mean, 0):
        return "the sign is flipped: it is the first minus the second"
    if close(100 * mean, right[0]):
        return "that is a share; the accuracies are in percent, so the difference is in percentage points"
    if not close(mean, right[0]):
        return f"the mean difference is not {mean:.4g}"
    if close(low, right[1]) and close(high, right[2]):
        return None
    if close(low, right[2]) and close(high, right[1]):
        return "the lower end comes before the upper one"
    if close(low, high):
        return "low and high are the two ends of the interval, not its half-width"
    width, half = high - mean, right[2] - right[0]
    halves = [interval(values)[2] - float(np.mean(values)) for values in (one, other)]
    seeds, spread = len(one), float(np.std(np.subtract(one, other), ddof=1))
    if any(close(width, ends) for ends in (halves[0] - halves[1], halves[1] - halves[0], sum(halves))):
        return "that combines the ends of two intervals; take the differences first"
    mistakes = {
        math.hypot(*halves): "that combines two separate intervals; the luck of a seed that both share cancels if you "
        "pair first",
        half * math.sqrt((seeds - 1) / seeds): "that divides by n where the spread of a sample needs n - 1",
        spread: "that is the standard deviation of the differences, not the interval of their mean",
        spread / math.sqrt(seeds): "that is the standard error; an interval is several times as wide",
        1.96 * spread / math.sqrt(seeds): f"1.96 is for many seeds; for {seeds} it takes the t-distribution",
    }
    if mistake := meaning(width, mistakes):
        return mistake
    if max(abs(low - right[1]), abs(high - right[2])) < 0.06:
        return "the ends of the interval are rounded too much; give two decimals"
    return f"the mean is right, the interval from {low:.4g} to {high:.4g} is not"


@exercise('one of "better", "worse", "as good", "no detectable difference"; look at 1 first, then at the margin')
def word(answer: str, low: float, high: float) -> str | None:
    """Check the word for an interval of an error ratio, one that has a width."""
    from helpers.statistics import Interval, finding  # SciPy takes its time, and lesson 01 needs none of it

    right, given = finding(Interval(math.sqrt(low * high), low, high)), answer.strip().lower()
    says_more = "1 is not in the interval, which says more"
    beyond = "the interval reaches beyond the margin, so equality is not shown"
    reasons = {
        "as good": says_more if right in ("better", "worse") else beyond,
        "better": "the interval reaches 1 or above, so it may be no better",
        "worse": "the interval reaches 1 or below, so it may be no worse",
        "no detectable difference": "all of the interval lies within the margin" if right == "as good" else says_more,
    }
    if given not in reasons:
        return f"{answer!r} is not one of the words"
    return None if given == right else reasons[given]


@exercise("print the seeds of each strategy, in the order in which they come")
def by_seed(answer: Callable[[Mapping[int, float], Mapping[int, float]], Sequence[float]]) -> str | None:
    """Check a function of two {seed: accuracy} that returns the differences, first minus second, seed by seed."""
    one, other = {3: 90.0, 1: 95.0, 2: 97.0}, {1: 96.5, 3: 86.0, 2: 91.0}  # tells all mistakes below apart
    right = {seed: one[seed] - other[seed] for seed in one}
    try:
        value = answer(one, other)
    except KeyError:
        return "the seeds need not be 0, 1 and 2; take them from one"
    if value is None:
        return "your function returns nothing"
    given = np.ravel(list(value.values()) if isinstance(value, Mapping) else value).astype(float)
    if given.size != len(one):
        return f"for three seeds your function returns {given.size} number{'s' * (given.size != 1)}"
    if np.allclose(given, np.subtract(list(one.values()), list(other.values()))):
        return STILL_THERE
    if np.allclose(sorted(given), sorted(right.values())):
        return None
    if np.allclose(sorted(-given), sorted(right.values())):
        return "the sign is flipped: it is the first minus the second"
    if np.allclose(sorted(given), sorted(np.subtract(sorted(one.values()), sorted(other.values())))):
        return "that pairs the worst with the worst; pair the results of one seed"
    return f"the differences are {sorted(right.values())} in some order, yours are {np.round(given, 2).tolist()}"

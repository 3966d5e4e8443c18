"""Figures of comparisons: test accuracy by label budget, by seconds, and by whatever a sweep varies."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from scipy.optimize import isotonic_regression

from helpers.plots.figures import STYLES, WIDTH, Figure, as_designed, described, new_figure, two_digits
from helpers.statistics import Finding, in_order, interval
from helpers.tasks import budget_size
from helpers.transfer import STRATEGIES
from helpers.wording import percent

SEEDS = ("seed", "seeds")  # parameters whose values are draws, not settings
# Where the budget stands beside a strategy's points, and on which side its name beside the first, so that points close
# to each other keep their labels apart: strategies that train all layers to the right, the others above, below or left.
NAMED_AT_THE_RIGHT = [name for name, strategy in STRATEGIES.items() if not strategy.freezes]
PLACES = {
    "right": cycle([((6, -8), "left", "center"), ((7, 5), "left", "center")]),
    "around": cycle([((0, 6), "center", "bottom"), ((0, -6), "center", "top"), ((-7, -3), "right", "center")]),
}
BUDGET_LABELS = {name: next(PLACES["right" if name in NAMED_AT_THE_RIGHT else "around"]) for name in STRATEGIES}


@as_designed
def accuracy_by_labels(summary: pd.DataFrame, task: str = "target task") -> Figure:
    """Show test accuracy by label budget, one line per strategy with its 95 % interval; `summary` of
    `statistics.summarize`.

    A second panel shows the largest budget on a scale of its own and names the strategies. With one budget there is
    that panel alone. No strategy is named as the best: the text says which differ from `scratch` by the intervals.
    """
    budgets = list(dict.fromkeys(summary["labels_per_class"]))
    largest = max(budgets, key=budget_size)
    strategies = in_order(summary["strategy"])
    seeds = summary["seeds"].max()
    over = "one seed, no interval" if seeds == 1 else f"mean of {seeds} seeds with 95 % interval"
    figure = new_figure(height=4.2)
    if len(budgets) > 1:
        axis, enlarged = figure.subplots(1, 2, width_ratios=(5, 2))
        for position, strategy in enumerate(strategies):
            rows = summary[summary["strategy"] == strategy]
            beside = 0.05 * (position - (len(strategies) - 1) / 2)  # so that no interval hides another
            _accuracies(axis, [budgets.index(budget) + beside for budget in rows["labels_per_class"]], rows, strategy)
        axis.set_xticks(range(len(budgets)), [str(budget) for budget in budgets])
        axis.set(xlabel="labels per class", title=f"{task.capitalize()}, {over}")
        enlarged.set_title(f"{largest} labels, enlarged", fontsize=10)
    else:
        axis = enlarged = figure.subplots()
        enlarged.set_title(f"{task.capitalize()}, {largest} labels per class, {over}")
    at_largest = summary[summary["labels_per_class"] == largest].set_index("strategy")
    for place, strategy in enumerate(strategies):
        _accuracies(enlarged, [place], at_largest.reindex([strategy]), strategy)
    enlarged.set_xlim(-0.6, len(strategies) - 0.4)
    enlarged.set_xticks(range(len(strategies)), strategies, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_ylabel("test accuracy [%]")
    for panel in {axis, enlarged}:
        panel.set_ylim(top=min(panel.get_ylim()[1], 100.5))  # an interval may reach beyond 100 %, an accuracy does not
        panel.grid(alpha=0.3)
    return described(figure, f"Test accuracy by labels per class, {over}: {_by_budget(summary, budgets)}.")


@as_designed
def accuracy_by_depth(summary: pd.DataFrame, cuts: Sequence[str]) -> Figure:
    """Show test accuracy by the place where a backbone is cut, a panel per label budget, with 95 % intervals.

    `cuts` are those strategies of the summary, from the first layers to the last; the others are lines across.
    """
    budgets = list(dict.fromkeys(summary["labels_per_class"]))
    figure = new_figure(height=3.4)
    sentences = []
    for axis, budget in zip(figure.subplots(1, len(budgets), squeeze=False)[0], budgets, strict=True):
        at = summary[summary["labels_per_class"] == budget].set_index("strategy")
        _accuracies(axis, range(len(cuts)), at.loc[list(cuts)], "backbone")
        for strategy, row in at.drop(list(cuts)).iterrows():
            style = {name: STYLES[strategy][name] for name in ("color", "linestyle")}
            axis.axhline(100 * row["accuracy"], label=strategy, linewidth=1, **style)
        axis.set_xticks(range(len(cuts)), cuts)
        axis.set(xlabel="backbone cut after", title=f"{budget} labels per class")
        axis.margins(x=0.15)
        axis.grid(alpha=0.3)
        accuracies = ", ".join(f"{cut} {at.loc[cut, 'accuracy']:.1%}" for cut in cuts)
        sentences.append(f"with {budget} labels per class {accuracies}")
    figure.axes[0].set_ylabel("test accuracy [%]")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return described(figure, f"Test accuracy by depth of the cut: {'; '.join(sentences)}.")


@as_designed
def accuracy_by_seconds(summary: pd.DataFrame, one_off: bool = False) -> Figure:
    """Show test accuracy against the median seconds on the target task, training and extraction of features, one point
    per strategy and budget; `one_off` adds pretraining. `summary` of `statistics.summarize`.
    """
    column = "total_seconds" if one_off else "target_seconds"
    figure = new_figure(height=4.2)
    axis = figure.subplots()
    for strategy, rows in summary.groupby("strategy", sort=False):
        axis.plot(rows[column], 100 * rows["accuracy"], label=strategy, markersize=6, **STYLES[strategy])
        for _, row in rows.iloc[1:].iterrows():
            place, budget = (row[column], 100 * row["accuracy"]), str(row["labels_per_class"])
            beside, ha, va = BUDGET_LABELS[strategy]
            axis.annotate(budget, place, beside, textcoords="offset points", fontsize=8, ha=ha, va=va)
    axis.set_xscale("log")
    axis.margins(0.1)
    first = summary.drop_duplicates("strategy")
    to_the_right = first["strategy"].isin(NAMED_AT_THE_RIGHT)
    for named, side in ((first[to_the_right], "right"), (first[~to_the_right], "left")):
        texts = named["strategy"] + ": " + named["labels_per_class"].astype(str)
        _name_points(axis, texts, named["strategy"], named[column], 100 * named["accuracy"], side)
    low, high = axis.get_xlim()
    axis.set_xlim(low * (low / high) ** 0.2, high * (high / low) ** 0.08)  # room for the names
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    costs = "of training, extraction and pretraining" if one_off else "on the target task: training and extraction"
    axis.set(
        xlabel=f"seconds {costs} (log scale)",
        ylabel="test accuracy [%]",
        title="Points are labelled with the labels per class",
    )
    axis.grid(alpha=0.3)
    ends = summary.groupby("strategy", sort=False)[column].agg(["min", "max"])
    spent = [f"{name} {two_digits(low)} to {two_digits(high)}" for name, low, high in ends.itertuples()]
    return described(figure, f"Accuracy against seconds {costs}. Seconds, medians by budget: {'; '.join(spent)}.")


@as_designed
def accuracy_by_parameter(results: pd.DataFrame, swept: Mapping[str, str]) -> Figure:
    """Show test accuracy over each swept parameter, a row of panels each, with a panel per label budget.

    `results` has a row per training with `test_accuracy`, and may have `strategy`, `labels_per_class` and `seed`;
    `swept` names the column, of text, that holds each parameter. A point is the mean over all else that was swept, and
    over the seeds with a 95 % interval. Where nothing but seeds was swept, each seed is a point beside their mean.
    """
    missing = {name: "" for name in ("strategy", "labels_per_class", "seed") if name not in results}
    rows = results.assign(**missing).astype({"test_accuracy": float})
    budgets = sorted(set(rows["labels_per_class"]), key=budget_size)
    shown = {name: column for name, column in swept.items() if name not in SEEDS} or {"seed": "seed"}
    figure = new_figure(height=3.6 * len(shown), width=max(WIDTH, 2.8 * len(budgets)))
    sentences = []
    for part, (name, column) in zip(figure.subfigures(len(shown), squeeze=False)[:, 0], shown.items(), strict=True):
        groups = {
            f"{budget} labels per class" if budget else "": rows["labels_per_class"] == budget for budget in budgets
        }
        if name == "labels_per_class":
            column, groups = name, {"": rows["labels_per_class"] != ""}
        for axis, (title, chosen) in zip(part.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
            said = _by_seed(axis, rows[chosen]) if name in SEEDS else _by_value(axis, rows[chosen], column)
            axis.set(xlabel="a grey point for each seed" if name in SEEDS else name, title=title)
            axis.set_ylim(top=min(axis.get_ylim()[1], 100.5))
            axis.grid(alpha=0.3)
            sentences.append(f"by {name}{title and ' with '}{title} {said}")
        part.axes[0].set_ylabel("test accuracy [%]")
        if name not in SEEDS and rows["strategy"].nunique() > 1:
            part.legend(*part.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    settings = [column for name, column in shown.items() if name not in SEEDS]
    seeds = rows.groupby([*settings, "strategy", "labels_per_class"])["seed"].nunique().max()
    over = "one seed, no interval" if seeds == 1 else f"means of {seeds} seeds with 95 % intervals"
    return described(figure, f"Test accuracy, {over}: {'; '.join(sentences)}.")


def _by_value(axis: Axes, rows: pd.DataFrame, column: str) -> str:
    """Draw accuracy over the values of a parameter, joined by a line if they are numbers; return what is seen."""
    values, strategies = list(dict.fromkeys(rows[column])), in_order(rows["strategy"])
    numbers = pd.to_numeric(pd.Series(values), errors="coerce").notna().all()
    means = []
    for position, strategy in enumerate(strategies):
        found = _over_seeds(rows[rows["strategy"] == strategy], column)
        beside = 0.05 * (position - (len(strategies) - 1) / 2)
        _accuracies(axis, [values.index(value) + beside for value in found.index], found, strategy, joined=numbers)
        means += list(found["accuracy"])
    shown = range(0, len(values), 1 + len(values) // 20)
    axis.set_xticks(shown, [values[place][:20].replace("$", r"\$") for place in shown])
    axis.set_xlim(-0.5, len(values) - 0.5)
    return f"from {min(means):.1%} to {max(means):.1%}"


def _by_seed(axis: Axes, rows: pd.DataFrame) -> str:
    """Draw each seed's accuracy as a point, and beside them their mean and interval; return what is seen."""
    said, strategies = [], in_order(rows["strategy"])
    for place, strategy in enumerate(strategies):
        at = rows[rows["strategy"] == strategy]
        by_seed = at.groupby("seed")["test_accuracy"].mean()
        axis.plot([place - 0.1] * len(by_seed), 100 * by_seed, "o", color="grey", markersize=3)
        _accuracies(axis, [place + 0.1], _over_seeds(at, "strategy"), strategy)
        said.append(f"{strategy} {percent(by_seed)} %".strip())
    axis.set_xticks(range(len(strategies)), strategies, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.5, len(strategies) - 0.5)
    return ", ".join(said)


def _over_seeds(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return accuracy with the ends of its interval over the seeds, for each value of a column."""
    by_seed = rows.groupby([column, "seed"], sort=False)["test_accuracy"].mean()
    found = {value: interval(accuracies) for value, accuracies in by_seed.groupby(level=0, sort=False)}
    return pd.DataFrame(found, ["accuracy", "accuracy_low", "accuracy_high"]).T


def _accuracies(axis: Axes, places: Sequence[float], rows: pd.DataFrame, strategy: str, joined: bool = True) -> None:
    """Draw a strategy's accuracies in percent, each with its interval, at these places of the x-axis."""
    style = STYLES.get(strategy, {"marker": "o"}) | ({} if joined else {"linestyle": "none"})
    (line,) = axis.plot(places, 100 * rows["accuracy"], label=strategy, markersize=6, linewidth=1, **style)
    ends = 100 * rows["accuracy_low"], 100 * rows["accuracy_high"]
    axis.vlines(places, *ends, color=line.get_color(), alpha=0.35, linewidth=7)


def _name_points(
    axis: Axes, texts: Sequence[str], strategies: Sequence[str], x: Sequence[float], y: Sequence[float], side: str
) -> None:
    """Write a text on the "left" or the "right" of each strategy's point, with a line to it."""
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top)
    heights = _spread(y, 0.06 * (top - bottom))
    for text, strategy, point, height in zip(texts, strategies, zip(x, y, strict=True), heights, strict=True):
        axis.annotate(
            text,
            point,
            xytext=(-12 if side == "left" else 12, height),
            textcoords=("offset points", "data"),
            ha="right" if side == "left" else "left",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": STYLES[strategy]["color"], "lw": 0.8, "shrinkA": 0, "shrinkB": 4},
        )


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Move heights apart, as little as it takes to have `gap` between any two of them, in their order."""
    wanted, gaps = np.asarray(heights, float), gap * np.arange(len(heights))
    order = np.argsort(wanted, kind="stable")
    spread = np.empty(len(wanted))
    spread[order] = isotonic_regression(wanted[order] - gaps).x + gaps
    return spread


def _by_budget(summary: pd.DataFrame, budgets: Sequence[int | str]) -> str:
    """Say in words which strategies differ from `scratch` at each budget, as their intervals tell."""
    sentences = []
    for budget in budgets:
        at = summary[summary["labels_per_class"] == budget]
        shown = at.groupby("finding")["strategy"].agg(", ".join)
        told = [f"{word} than scratch: {shown[word]}" for word in (Finding.BETTER, Finding.WORSE) if word in shown]
        told += [f"as good as scratch: {shown[Finding.AS_GOOD]}"] if Finding.AS_GOOD in shown else []
        low, high = at["accuracy"].min(), at["accuracy"].max()
        if not told and Finding.BASELINE in shown and len(at) > 1:
            told = ["no difference to scratch is shown"]
        sentences.append(", ".join([f"with {budget} labels per class {low:.1%} to {high:.1%}", *told]))
    return "; ".join(sentences)

"""Figures of comparisons: test accuracy by label budget, by seconds, and by whatever a sweep varies."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from helpers.plots.figures import STYLES, Style, as_designed, described, new_figure
from helpers.transfer import STRATEGIES

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

    A second panel shows the largest budget on a scale of its own, the most accurate strategy first, and names the
    strategies. With one budget there is that panel alone.
    """
    budgets = list(dict.fromkeys(summary["labels_per_class"]))
    largest = max(budgets, key=lambda budget: float("inf") if budget == "all" else budget)
    figure = new_figure(height=4.2)
    if len(budgets) > 1:
        axis, enlarged = figure.subplots(1, 2, width_ratios=(5, 2))
        groups = list(summary.groupby("strategy", sort=False))
        for position, (strategy, rows) in enumerate(groups):
            beside = 0.05 * (position - (len(groups) - 1) / 2)  # so that no interval hides another
            _accuracies(axis, [budgets.index(budget) + beside for budget in rows["labels_per_class"]], rows, strategy)
        axis.set_xticks(range(len(budgets)), [str(budget) for budget in budgets])
        enlarged.set_title(f"{largest} labels, enlarged", fontsize=10)
    else:
        axis = enlarged = figure.subplots()
    at_largest = summary[summary["labels_per_class"] == largest].sort_values("accuracy", ascending=False, kind="stable")
    for place, strategy in enumerate(at_largest["strategy"]):
        _accuracies(enlarged, [place], at_largest.iloc[[place]], strategy)
    enlarged.set_xlim(-0.8, len(at_largest) - 0.2)
    enlarged.set_xticks([(len(at_largest) - 1) / 2], [str(largest)])
    seeds = summary["seeds"].max()
    over = "one seed, no interval" if seeds == 1 else f"mean of {seeds} seeds with 95 % interval"
    axis.set(xlabel="labels per class", ylabel="test accuracy [%]", title=f"{task.capitalize()}, {over}")
    for panel in {axis, enlarged}:
        panel.set_ylim(top=min(panel.get_ylim()[1], 100.5))  # an interval may reach beyond 100 %, an accuracy does not
        panel.grid(alpha=0.3)
    names = at_largest["strategy"]
    _name_points(enlarged, names, names, range(len(names)), 100 * at_largest["accuracy"], "edge")
    return described(figure, _by_budget(summary, budgets))


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
    fastest = summary.loc[summary[column].idxmin()]
    return described(
        figure,
        f"Accuracy against seconds {costs}; the cheapest is {fastest['strategy']} "
        f"with {fastest['labels_per_class']} labels per class.",
    )


@as_designed
def accuracy_by_parameter(results: pd.DataFrame, swept: Sequence[str]) -> Figure:
    """Show mean test accuracy over each swept parameter, a panel each, one line per strategy if there are several.

    `results` has a row per training with `test_accuracy`, a column of text per swept parameter, and `strategy` where
    trainings have one; the mean is over all other parameters, seeds and label budgets.
    """
    strategies = results["strategy"] if "strategy" in results else pd.Series("all runs", results.index)
    figure = new_figure(height=3.6 * len(swept))
    sentences = []
    for axis, name in zip(figure.subplots(len(swept), squeeze=False)[:, 0], swept, strict=True):
        values = list(dict.fromkeys(results[name]))
        accuracy = (100 * results["test_accuracy"].astype(float)).groupby([strategies, results[name]], sort=False)
        for strategy, means in accuracy.mean().groupby(level=0, sort=False):
            means = means.droplevel(0).reindex(values).dropna()
            places = [values.index(value) for value in means.index]
            axis.plot(places, means, label=strategy, markersize=5, **STYLES.get(strategy, Style(marker="o")))
            best = means.idxmax()
            sentences.append(f"{strategy}, highest at {name} {best}: {means[best]:.2f} %")
        shown = range(0, len(values), 1 + len(values) // 20)
        axis.set_xticks(shown, [values[place][:20].replace("$", r"\$") for place in shown])
        axis.set(xlabel=name, ylabel="test accuracy [%]")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return described(figure, f"Mean test accuracy by {' and by '.join(swept)}. {'; '.join(sentences)}.")


def _accuracies(axis: Axes, places: Sequence[float], rows: pd.DataFrame, strategy: str) -> None:
    """Draw a strategy's accuracies in percent, each with its interval, at these places of the x-axis."""
    axis.plot(places, 100 * rows["accuracy"], label=strategy, markersize=6, linewidth=1, **STYLES[strategy])
    ends = 100 * rows["accuracy_low"], 100 * rows["accuracy_high"]
    axis.vlines(places, *ends, color=STYLES[strategy]["color"], alpha=0.35, linewidth=7)


def _name_points(
    axis: Axes, texts: Sequence[str], strategies: Sequence[str], x: Sequence[float], y: Sequence[float], side: str
) -> None:
    """Write a text beside each strategy's point, "left", "right" or at the "edge" of the axis, with a line to it."""
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top)
    across, reference = (1.04, "axes fraction") if side == "edge" else (-12 if side == "left" else 12, "offset points")
    heights = _spread(y, 0.06 * (top - bottom))
    for text, strategy, point, height in zip(texts, strategies, zip(x, y, strict=True), heights, strict=True):
        axis.annotate(
            text,
            point,
            xytext=(across, height),
            textcoords=(reference, "data"),
            ha="right" if side == "left" else "left",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": STYLES[strategy]["color"], "lw": 0.8, "shrinkA": 0, "shrinkB": 4},
        )


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Move heights apart, as little as it takes to have `gap` between any two of them, in their order."""
    wanted = np.asarray(heights, float)
    order = np.argsort(wanted, kind="stable")
    groups: list[list[float]] = []  # heights that push each other apart: their middle, their number
    for height in wanted[order]:
        groups.append([height, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (above, more), (below, fewer) = groups.pop(), groups.pop()
            groups.append([(above * more + below * fewer) / (more + fewer), more + fewer])
    spread = np.empty(len(wanted))
    spread[order] = np.concatenate([middle + gap * (np.arange(n) - (n - 1) / 2) for middle, n in groups])
    return spread


def _by_budget(summary: pd.DataFrame, budgets: Sequence[int | str]) -> str:
    """Say in words which strategy is best at each budget."""
    best = []
    for budget in budgets:
        row = summary.loc[summary.loc[summary["labels_per_class"] == budget, "accuracy"].idxmax()]
        best.append(f"with {budget} labels per class {row['strategy']} at {row['accuracy']:.1%}")
    return f"Test accuracy by labels per class. Most accurate: {'; '.join(best)}."

"""Figures of comparisons: errors and seconds by strategy and label budget, accuracy by swept parameter, reliability."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats
from scipy.optimize import isotonic_regression

from helpers.plots.figures import (
    COLORS,
    STYLES,
    WIDTH,
    Figure,
    as_designed,
    headline,
    log_scale,
    new_figure,
    show_rows,
    two_digits,
    with_alt_text,
)
from helpers.statistics import Finding, in_order, interval
from helpers.tasks import budget_size
from helpers.wording import percent

SEEDS = ("seed", "seeds")  # parameters whose values are draws, not settings
MOST_NAMES = 12  # in a legend


@as_designed
def errors_by_labels(summary: pd.DataFrame, task: str = "target task", about: str = "frozen") -> Figure:
    """Show each strategy's share of errors by label budget, on logarithmic axes, with its 95% interval; `summary`
    comes from `statistics.summarize`.

    Equal ratios of errors appear as equal distances. "all" is set apart, because its number of labels differs between
    classes. The title states the finding for the strategy `about` or, if it is missing, for the first strategy compared
    with `scratch`.
    """
    budgets, names = sorted(set(summary["labels_per_class"]), key=budget_size), in_order(summary["strategy"])
    summary = summary.sort_values(["labels_per_class", "strategy"], key=lambda of: of.map([*budgets, *names].index))
    seeds = summary["seeds"].max()
    over = "one seed, no interval" if seeds == 1 else f"mean of {seeds} seeds with 95% intervals"
    if len(budgets) == 1:
        return errors_by_strategy(summary, f"{task.capitalize()}, {over}")
    numbers = [budget_size(budget) for budget in budgets if budget != "all"]
    places = dict(zip(budgets, [*numbers, 5 * max(numbers, default=1)], strict=False))
    figure = new_figure(height=4.8)
    axis = figure.subplots()
    for strategy, offset in _offsets(names).items():
        rows = summary[summary["strategy"] == strategy]
        errors = _errors(rows)
        at = rows["labels_per_class"].map(places) * np.exp(offset)
        style = STYLES.get(strategy, {}) | {"linewidth": 2.2 if strategy in ("scratch", "frozen") else 1.2}
        (line,) = axis.plot(at, errors["at"], label=strategy, markersize=5, **style)
        axis.vlines(at, errors["low"], errors["high"], color=line.get_color(), alpha=0.3, linewidth=3)
    axis.set(xlabel="labels per class", ylabel="errors on new images [%]")
    log_scale(axis.xaxis)
    log_scale(axis.yaxis)
    axis.set_xticks(list(places.values()), list(map(str, places)))
    _name_lines(axis)
    title = textwrap.fill(_finding_in_words(summary, about), 75)
    axis.set_title(f"{title}\n", fontsize=12)
    axis.text(0, 1.02, f"{task.capitalize()}, {over}", transform=axis.transAxes, fontsize=9)
    return with_alt_text(figure, f"Errors by labels per class, {over}: {_by_budget(summary)}.")


def _errors(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the percentage of errors and the ends of its interval, clipped because 0% has no logarithm."""
    errors = 100 - 100 * summary[["accuracy", "accuracy_high", "accuracy_low"]].set_axis(["at", "low", "high"], axis=1)
    return errors.clip(lower=max(errors["at"].min() / 3, 0.01))


def _name_lines(axis: Axes) -> None:
    """Write each line's name to the right of its end, in its color; move names apart just enough to be read."""
    low, high = np.log10(axis.get_ylim())
    rows = [(*np.asarray(line.get_xydata())[-1], line) for line in axis.lines]
    ends = pd.DataFrame(rows, columns=["x", "y", "line"]).sort_values("y", kind="stable")
    gaps = 0.055 * np.arange(len(ends))  # shares of the axis, like the heights
    heights = isotonic_regression((np.log10(ends["y"]) - low) / (high - low) - gaps).x + gaps
    for (x, y, line), height in zip(ends.itertuples(index=False), heights, strict=True):
        axis.annotate(
            line.get_label(),
            (x, y),
            xytext=(1.02, height),
            textcoords="axes fraction",
            va="center",
            color=line.get_color(),
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "lw": 0.6, "shrinkA": 0, "shrinkB": 4},
        )


def _finding_in_words(summary: pd.DataFrame, about: str) -> str:
    """Say at which budgets a strategy is better than, worse than or as good as `scratch`, grouping adjacent ones."""
    compared = in_order(summary["strategy"][summary["finding"] != Finding.BASELINE])
    if not compared:
        return "Errors by labels per class"
    strategy = about if about in compared else compared[0]
    found = summary[summary["strategy"] == strategy].set_index("labels_per_class")["finding"]
    told = list[str]()
    for _, run in found.groupby((found != found.shift()).cumsum(), sort=False):
        where = run.index[0] if len(run) == 1 else f"{run.index[0]} to {run.index[-1]}"
        told.append(f"{run.iloc[0]} with {where}{' labels' * (not told)}")
    return f"{strategy.capitalize()} against scratch: {', '.join(told)}"


@as_designed
def errors_by_strategy(summary: pd.DataFrame, title: str, joined: Sequence[str] = ()) -> Figure:
    """Show each strategy's share of errors with its 95% interval, a panel per label budget.

    `summary` comes from `statistics.summarize`; `joined` names strategies to connect by a line, such as the cuts of a
    backbone.
    """
    names = list(dict.fromkeys(summary["strategy"]))
    panels = summary.assign(**_errors(summary)).groupby("labels_per_class", sort=False)
    figure = new_figure(height=0.33 * len(names) + 1.3)
    axes = figure.subplots(1, panels.ngroups, sharex=True, sharey=True, squeeze=False)[0]
    sentences = []
    for axis, (budget, rows) in zip(axes, panels, strict=True):
        for strategy, at, *ends in rows[["strategy", "at", "low", "high"]].itertuples(index=False):
            color, place = STYLES.get(strategy, STYLES["backbone"])["color"], names.index(strategy)
            axis.plot(ends, [place, place], color=color, alpha=0.35, linewidth=6, solid_capstyle="butt")
            axis.plot(at, place, "o", color=color, markersize=6)
            share = f"{two_digits(at)}%"
            axis.annotate(share, (at, place), (0, 6), textcoords="offset points", ha="center", fontsize=9)
        line = rows.set_index("strategy").loc[list(joined), "at"]
        axis.plot(line, [names.index(name) for name in joined], color=STYLES["backbone"]["color"], linewidth=1)
        axis.set(title=f"{budget} labels per class", xlabel="errors [%]")
        log_scale(axis.xaxis)
        show_rows(axis, names)
        shown = (f"{name} {two_digits(at)}%" for name, at in zip(rows["strategy"], rows["at"], strict=True))
        sentences.append(f"with {budget} labels per class, {', '.join(shown)}")
    headline(figure, title)
    return with_alt_text(figure, f"Share of errors, with 95% intervals: {'; '.join(sentences)}.")


@as_designed
def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 6) -> Figure:
    """Plot how often a network is right against how sure it is, from probabilities `(n, classes)` and labels `(n,)`.

    The images are sorted by their largest probability and divided into bins of equal size; the intervals are Wilson's.
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    figure = new_figure(height=4.2, width=4.2)
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color="grey", linewidth=1)
    along: dict[str, Any] = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
    axis.text(3, 5, "as sure as right", color="grey", fontsize=8, **along)
    said = []
    for part in np.array_split(np.argsort(sure, kind="stable"), min(bins, len(sure))):
        at, share = 100 * sure[part].mean(), 100 * right[part].mean()
        between = stats.binomtest(int(right[part].sum()), len(part)).proportion_ci(method="wilson")
        axis.vlines(at, 100 * between.low, 100 * between.high, color=COLORS[1], alpha=0.35, linewidth=6)
        axis.plot(at, share, "o", color=COLORS[1])
        said.append(f"{share:.0f}% right where it is {at:.0f}% sure")
    axis.set(xlim=(0, 103), ylim=(0, 103), aspect="equal", xlabel="how sure [%]", ylabel="right [%]")
    axis.set_title(f"{sure.mean():.0%} sure on average, {right.mean():.0%} right")
    return with_alt_text(figure, f"About {len(part)} images per point: {', '.join(said)}.")


@as_designed
def seconds_by_strategy(summary: pd.DataFrame) -> Figure:
    """Show each strategy's median seconds, a panel per label budget: a filled point for training and feature extraction
    on the target task, labeled with the errors, and an open point that includes pretraining.

    `summary` comes from `statistics.summarize`.
    """
    names, columns = in_order(summary["strategy"]), ["strategy", "target_seconds", "total_seconds", "accuracy"]
    panels = summary.groupby("labels_per_class", sort=False)
    figure = new_figure(height=0.33 * len(names) + 1.5)
    axes = figure.subplots(1, panels.ngroups, sharex=True, sharey=True, squeeze=False)[0]
    said = []
    for axis, (budget, rows) in zip(axes, panels, strict=True):
        for strategy, own, total, accuracy in rows[columns].itertuples(index=False):
            color, place = STYLES[strategy]["color"], names.index(strategy)
            axis.plot([own, total], [place, place], color=color, linewidth=1, zorder=1)
            axis.plot(total, place, "o", color=color, markerfacecolor="white", markersize=6)
            axis.plot(own, place, "o", color=color, markersize=6)
            errors = f"{two_digits(100 - 100 * accuracy)}%"
            axis.annotate(errors, (own, place), (0, 6), textcoords="offset points", ha="center", fontsize=9)
            said.append(f"{strategy} {two_digits(own)} s, {two_digits(total)} s with pretraining")
        said[-len(rows)] = f"with {budget} labels per class, {said[-len(rows)]}"
        log_scale(axis.xaxis)
        axis.margins(x=0.15)
        axis.set(title=f"{budget} labels per class", xlabel="seconds")
        show_rows(axis, names)
    headline(figure, "Filled: the target task alone; open: with pretraining. Numbers: errors, not seconds")
    return with_alt_text(figure, f"Median seconds by strategy: {'; '.join(said)}.")


@as_designed
def accuracy_by_parameter(results: pd.DataFrame, swept: Mapping[str, str]) -> Figure:
    """Show test accuracy by every swept parameter: a row of panels per parameter, a panel per label budget.

    `results` has a row per training run with `test_accuracy`, and may have `strategy`, `labels_per_class` and `seed`;
    `swept` maps each parameter to the column that contains its values as text. Each point is the mean over the seeds
    and the other parameters, with a 95% interval over the seeds. If the grid is incomplete, each setting of the other
    parameters gets its own line instead. If only seeds were swept, each seed is a point next to the mean.
    """
    missing = {name: "" for name in ("strategy", "labels_per_class", "seed") if name not in results}
    rows = results.assign(**missing).astype({"test_accuracy": float})
    budgets = sorted(set(rows["labels_per_class"]), key=budget_size)
    settings = {name: column for name, column in swept.items() if name not in SEEDS}
    shown, only = settings or {"seed": "seed"}, ""
    if settings:
        seeds = rows.groupby(list(settings.values()))["seed"].agg(set)
        shared = set.intersection(*seeds)
        if shared != set.union(*seeds):
            rows = rows[rows["seed"].isin(shared)] if shared else rows
            only = f"seed {', '.join(map(str, sorted(shared)))} only, as some settings lack the others; " * bool(shared)
            only = only or "settings have different seeds, so they cannot be compared fairly; "
    figure = new_figure(height=3.6 * len(shown), width=max(WIDTH, 2.8 * len(budgets)))
    sentences, counts = [], list[int]()
    for part, (name, column) in zip(figure.subfigures(len(shown), squeeze=False)[:, 0], shown.items(), strict=True):
        panels = {f"{budget} labels per class" if budget else "": [budget] for budget in budgets}
        if name == "labels_per_class":
            column, panels = name, {"": budgets}
        others = {other: its for other, its in settings.items() if other != name}
        compared = _equal_settings(rows, column, others)
        how = f", a line for each setting of {', '.join(others)}" * (compared is not rows)
        for axis, (title, at) in zip(part.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            drawn = compared[compared["labels_per_class"].isin(at)]
            said = _by_seed(axis, drawn) if name in SEEDS else _by_value(axis, drawn, column)
            axis.set(xlabel="a gray point for each seed" if name in SEEDS else name, title=title)
            axis.set_ylim(top=min(axis.get_ylim()[1], 100.5))
            sentences.append(f"by {name}{title and ' with '}{title}{how}, {said}")
        part.axes[0].set_ylabel("test accuracy [%]")
        if name not in SEEDS and 1 < compared["strategy"].nunique() <= MOST_NAMES:
            part.legend(*part.axes[0].get_legend_handles_labels(), loc="outside right upper")
        points = compared.groupby(["strategy", "labels_per_class", *([] if name in SEEDS else [column])])
        counts += [*(points["seed"].nunique() if "seed" in results else points.size())]
    low, high, what = min(counts), max(counts), "seed" if "seed" in results else "row"
    over = f"means of {f'{low} to ' * (low < high)}{high} {what}s" + " with 95% intervals" * (what == "seed")
    over = f"one {what}, no interval" if high == 1 else over
    return with_alt_text(figure, f"Test accuracy, {only}{over}: {'; '.join(sentences)}.")


def _equal_settings(rows: pd.DataFrame, column: str, others: Mapping[str, str]) -> pd.DataFrame:
    """Give each setting of the other parameters its own line if a parameter's values were not all tried with the same
    settings and seeds, because means would then compare different settings as well as different values.
    """
    texts = [f"{name}=" + rows[its] for name, its in others.items()]
    setting = texts[0].str.cat(texts[1:], sep=", ") if texts else pd.Series("", rows.index)
    cells = pd.DataFrame({"setting": setting, "seed": rows["seed"], "value": rows[column]})
    settings, seeds, values = cells.nunique()
    if settings == 1 or len(cells.drop_duplicates()) == settings * seeds * values:
        return rows
    return rows.assign(strategy=rows["strategy"].where(rows["strategy"] == "", rows["strategy"] + ", ") + setting)


def _by_value(axis: Axes, rows: pd.DataFrame, column: str) -> str:
    """Draw accuracy by the values of a parameter, joined by a line if they are numbers; return a description."""
    values = list(dict.fromkeys(rows[column]))
    if numbers := pd.to_numeric(pd.Series(values), errors="coerce").notna().all():
        values.sort(key=float)
    means = list[float]()
    for strategy, offset in _offsets(in_order(rows["strategy"])).items():
        over_seeds = _over_seeds(rows[rows["strategy"] == strategy], column)
        over_seeds = over_seeds.loc[[value for value in values if value in over_seeds.index]]
        places = [values.index(value) + offset for value in over_seeds.index]
        _accuracies(axis, places, over_seeds, strategy, joined=numbers)
        means.extend(over_seeds["accuracy"])
    shown = range(0, len(values), 1 + len(values) // 20)
    axis.set_xticks(shown, [values[place][:20] for place in shown])
    axis.set_xlim(-0.5, len(values) - 0.5)
    return f"from {min(means):.1%} to {max(means):.1%}"


def _by_seed(axis: Axes, rows: pd.DataFrame) -> str:
    """Draw each seed's accuracy as a point next to the mean with its interval; return a description."""
    said, strategies = [], in_order(rows["strategy"])
    for place, strategy in enumerate(strategies):
        at = rows[rows["strategy"] == strategy]
        by_seed = at.groupby("seed")["test_accuracy"].mean()
        axis.plot([place - 0.1] * len(by_seed), 100 * by_seed, "o", color="grey", markersize=3)
        _accuracies(axis, [place + 0.1], _over_seeds(at, "strategy"), strategy)
        said.append(f"{strategy} {percent(by_seed)}%".strip())
    axis.set_xticks(range(len(strategies)), strategies, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.5, len(strategies) - 0.5)
    return ", ".join(said)


def _over_seeds(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the mean accuracy over the seeds with the ends of its interval, a row per value of a column."""
    by_seed = rows.groupby([column, "seed"], sort=False)["test_accuracy"].mean()
    intervals = {value: interval(accuracies) for value, accuracies in by_seed.groupby(level=0, sort=False)}
    return pd.DataFrame(intervals, ["accuracy", "accuracy_low", "accuracy_high"]).T


def _offsets(strategies: Sequence[str]) -> dict[str, float]:
    """Return how far to move each strategy sideways, so that no interval hides a different strategy's."""
    return {strategy: 0.05 * (place - (len(strategies) - 1) / 2) for place, strategy in enumerate(strategies)}


def _accuracies(axis: Axes, places: Sequence[float], rows: pd.DataFrame, strategy: str, joined: bool = True) -> None:
    """Draw a strategy's accuracies in percent with their intervals, at these places on the x-axis."""
    style = STYLES.get(strategy, {"marker": "o"}) | ({} if joined else {"linestyle": "none"})
    (line,) = axis.plot(places, 100 * rows["accuracy"], label=strategy, markersize=6, linewidth=1, **style)
    ends = 100 * rows["accuracy_low"], 100 * rows["accuracy_high"]
    axis.vlines(places, *ends, color=line.get_color(), alpha=0.35, linewidth=7)


def _by_budget(summary: pd.DataFrame) -> str:
    """Say in words which strategies differ from `scratch` at each budget, judging by their intervals."""
    sentences = []
    for budget, at in summary.groupby("labels_per_class", sort=False):
        shown = at.groupby("finding")["strategy"].agg(", ".join)
        told = [f"{word} than scratch: {shown[word]}" for word in (Finding.BETTER, Finding.WORSE) if word in shown]
        told += [f"as good as scratch: {shown[Finding.AS_GOOD]}"] if Finding.AS_GOOD in shown else []
        fewest, most = 1 - at["accuracy"].max(), 1 - at["accuracy"].min()
        if not told and Finding.BASELINE in shown and len(at) > 1:
            told = ["no detectable difference from scratch"]
        sentences.append(", ".join([f"with {budget} labels per class, {fewest:.1%} to {most:.1%}", *told]))
    return "; ".join(sentences)

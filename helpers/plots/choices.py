"""Figures about choosing a start: cheap tests next to test accuracy, and a map of where starts help or hurt."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from helpers.plots.figures import (
    TRAINING,
    VALIDATION,
    Figure,
    as_designed,
    headline,
    new_figure,
    show_rows,
    with_alt_text,
)
from helpers.statistics import Finding
from helpers.tasks import budget_size


@as_designed
def cheap_and_true(scores: pd.DataFrame, title: str) -> Figure:
    """Show each start's accuracy in its cheap test and on test images, best start first, with a tick mark per seed.

    `scores` has a row per start and seed, with the columns strategy, logistic (NaN if there is nothing to test),
    test_accuracy and chosen.
    """
    means = scores.groupby("strategy")[["logistic", "test_accuracy"]].mean()
    names = means.sort_values("test_accuracy", ascending=False, kind="stable").index
    times, seeds = scores.groupby("strategy")["chosen"].sum(), scores["seed"].nunique()
    labels = [f"{name}\nchosen with {times[name]} of {seeds} seeds" if times[name] else name for name in names]
    figure = new_figure(height=0.42 * len(names) + 1.4)
    panels = figure.subplots(1, 2, sharey=True)
    axes = {"logistic": "cheap test, on training labels", "test_accuracy": "test images, after training"}
    for panel, (column, label) in zip(panels, axes.items(), strict=True):
        for place, name in enumerate(names):
            color = VALIDATION if times[name] else TRAINING
            of_start, mean = 100 * scores.loc[scores["strategy"] == name, column], 100 * means.loc[name, column]
            if np.isnan(mean):
                where = {"va": "center", "transform": panel.get_yaxis_transform()}
                panel.text(0.02, place, "nothing to test", color="grey", fontsize=9, **where)
                continue
            panel.plot(of_start, [place] * len(of_start), "|", color=color, markersize=11)
            panel.plot(mean, place, "o", color=color, markersize=6)
            panel.annotate(f"{mean:.1f}", (mean, place), (0, 6), textcoords="offset points", ha="center", fontsize=9)
        panel.set_xlabel(f"{label}: right [%]")
        show_rows(panel, labels)
    headline(figure, title)
    said = [f"{name} {100 * means.loc[name, 'test_accuracy']:.1f}%" for name in names]
    taken = [f"{name} with {count} of {seeds} seeds" for name, count in times.items() if count]
    return with_alt_text(figure, f"Accuracy on test images: {', '.join(said)}. Chosen: {', '.join(taken)}.")


@as_designed
def map_of_pairs(pairs: pd.DataFrame, title: str) -> Figure:
    """Show error ratios as colored cells, with starts as rows, target tasks as columns, and a panel per label budget.

    `pairs` has the columns labels_per_class, start, target, error_ratio and finding. Cells are pale where the finding
    is neither better nor worse.
    """
    budgets = sorted(set(pairs["labels_per_class"]), key=budget_size)
    starts, targets = (list(dict.fromkeys(pairs[name])) for name in ("start", "target"))
    rows, columns = -(-len(budgets) // 2), min(2, len(budgets))
    figure = new_figure(height=rows * (0.3 * len(starts) + 0.5) + 1.6)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, budget in zip(panels.flat, budgets, strict=False):
        at = pairs[pairs["labels_per_class"] == budget].pivot(index="start", columns="target")
        ratio, kind = (
            at[name].reindex(index=starts, columns=targets).to_numpy() for name in ("error_ratio", "finding")
        )
        seen = np.isin(kind.astype(str), (Finding.BETTER, Finding.WORSE))
        panel.imshow(ratio, cmap="PuOr_r", norm=LogNorm(1 / 3, 3), alpha=np.where(seen, 1.0, 0.3), aspect="auto")
        for (row, column), value in np.ndenumerate(ratio):
            if not np.isnan(value):
                color = "white" if seen[row, column] and abs(np.log(value)) > 0.6 else "0.2"
                panel.text(column, row, f"{value:.2f}", ha="center", va="center", size=6.5, color=color)
        panel.set_title(f"{budget} labels per class", fontsize=10)
        panel.set_xticks(range(len(targets)), targets, rotation=60, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(len(starts)), starts)
        panel.tick_params(labelsize=8, length=0)
        panel.grid(visible=False)
    for panel in panels.flat[len(budgets) :]:
        panel.set_axis_off()
    figure.supxlabel("target task", fontsize=10)
    figure.supylabel("start", fontsize=10)
    headline(figure, f"{title}\nOrange: more; purple: fewer; pale: no difference detected")
    low, high = pairs["error_ratio"].min(), pairs["error_ratio"].max()
    by_budget = ", ".join(map(str, budgets))
    what = f"{len(starts)} starts and {len(targets)} target tasks, with {by_budget} labels per class"
    return with_alt_text(figure, f"{title}, from {low:.2f} to {high:.2f}: {what}.")

"""The figure of what the checks said to a class."""

import textwrap

import pandas as pd

from helpers.plots.figures import VALIDATION, Figure, as_designed, described, new_figure

SHOWN = 5  # replies of each exercise
COLOURS = {"right": "#009E73", "no answer": "#999999"}


@as_designed
def misconceptions(counted: pd.DataFrame) -> Figure:
    """Show how many learners got each reply: a row per `exercise` and `reply` with its `learners`."""
    parts = [(str(name), rows.head(SHOWN)) for name, rows in counted.groupby("exercise")]
    sizes = [len(rows) for _, rows in parts]
    figure = new_figure(height=1 + 0.45 * sum(sizes) + 0.3 * len(parts))
    axes = figure.subplots(len(parts), sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (name, rows) in zip(axes, parts, strict=True):
        labels = [textwrap.fill(reply, 55).replace("$", r"\$") for reply in rows["reply"]]
        colours = [COLOURS.get(reply, VALIDATION) for reply in rows["reply"]]
        bars = axis.barh(range(len(rows)), rows["learners"], color=colours)
        axis.bar_label(bars, padding=3)
        axis.set_yticks(range(len(rows)), labels)
        axis.invert_yaxis()
        axis.set_title(name, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("learners")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    first = "; ".join(f"{name}, {rows['reply'].iloc[0]} ({rows['learners'].iloc[0]})" for name, rows in parts)
    return described(figure, f"Learners by what the check replied; the commonest reply to each exercise: {first}.")

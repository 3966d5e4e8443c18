"""The figure of what the checks replied to a class."""

import textwrap

import pandas as pd

from helpers.plots.figures import VALIDATION, Figure, as_designed, new_figure, with_alt_text

MOST_REPLIES = 5  # per exercise


@as_designed
def misconceptions(counted: pd.DataFrame) -> Figure:
    """Show how many learners got each reply, by exercise: `counted` has `exercise`, `reply` and `learners`."""
    rows = counted.groupby("exercise").head(MOST_REPLIES)
    figure = new_figure(height=1 + 0.5 * len(rows))
    axis = figure.subplots()
    labels = [textwrap.fill(text, 60) for text in rows["exercise"] + ": " + rows["reply"]]
    colors = rows["reply"].map({"right": "#009E73", "no answer": "#999999"}).fillna(VALIDATION)
    axis.bar_label(axis.barh(range(len(rows)), rows["learners"], color=colors), padding=3)
    axis.set_yticks(range(len(rows)), labels)
    axis.set(title="learners", ylim=(len(rows) - 0.5, -0.5), xticks=[], frame_on=False)
    first = "; ".join(f"{exercise}, {reply} ({n})" for exercise, reply, n in rows.drop_duplicates("exercise").values)
    text = f"Learners by what the check replied; the commonest reply to each exercise: {first}."
    return with_alt_text(figure, text)

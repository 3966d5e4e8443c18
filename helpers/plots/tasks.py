"""Figures of tasks: their images and classes, the misclassified images, and the replies to learners.

Figures name the original classes, never the labels renumbered from 0.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from helpers.images import Split
from helpers.messages import listed
from helpers.plots.figures import (
    BARE,
    MOST_CLASSES,
    VALIDATION,
    Figure,
    as_designed,
    headline,
    name_classes,
    new_figure,
    show_image,
    show_rows,
    with_alt_text,
    wrapped,
)
from helpers.tasks import Task

MOST_ROWS = 12  # one per class, in a figure of images
MOST_REPLIES = 5  # per exercise


@as_designed
def sample_images(tasks: Sequence[Task], per_class: int = 8) -> Figure:
    """Show the first `per_class` training images of each class: a block per task, a row per class, at most 12 rows."""
    rows = min(MOST_ROWS, max(len(task.classes) for task in tasks))
    figure = new_figure(height=(0.55 if len(tasks) > 1 else 0.9) * rows + 0.6)
    for panel, task in zip(figure.subfigures(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        more = f", {rows} of {len(task.classes)} classes" if len(task.classes) > rows else ""
        headline(panel, f"{task.name} task{more}")
        grid = panel.subplots(rows, per_class, squeeze=False, subplot_kw=BARE)
        for label, (row, name) in enumerate(zip(grid, task.classes, strict=False)):
            row[0].text(-0.3, 0.5, wrapped(name), transform=row[0].transAxes, ha="right", va="center")
            for axis, image in zip(row, task.train.images[task.train.labels == label], strict=False):
                show_image(axis, image)
    classes = " ".join(f"{task.name.capitalize()} task: {listed(task.classes)}." for task in tasks)
    return with_alt_text(figure, f"Training images, one row per class. {classes}")


@as_designed
def neighbors(asked: Split, known: Split, nearest: Mapping[str, np.ndarray]) -> Figure:
    """Show each image in `asked` in a row with its nearest neighbors in `known`, with a block per distance measure.

    `nearest` maps each measure to indices `(n, neighbors)`. A frame marks neighbors of a different class.
    """
    figure, said = new_figure(height=0.75 * len(asked) + 0.4), []
    count = next(iter(nearest.values())).shape[1]
    widths = 1, *[count] * len(nearest)
    first, *others = figure.subplots(1, len(widths), width_ratios=widths, subplot_kw=BARE)
    _grid(first, "new", asked, np.arange(len(asked))[:, None], np.zeros((len(asked), 1), bool))
    for axis, (name, indices) in zip(others, nearest.items(), strict=True):
        other = known.labels[indices] != asked.labels[:, None]
        _grid(axis, f"{name}: {other.sum()} differ", known, indices, other)
        said.append(f"{name}: {other.sum()} of {other.size}")
    text = f"{len(asked)} new images and their nearest known images. Neighbors in other classes: {'; '.join(said)}."
    return with_alt_text(figure, text)


def _grid(axis: Axes, title: str, split: Split, indices: np.ndarray, framed: np.ndarray) -> None:
    """Draw the images at the indices `(rows, columns)` in one panel, and a frame around those `framed`."""
    for (row, column), index in np.ndenumerate(indices):
        show_image(axis, split.images[index], (column + 0.06, column + 0.94, row + 0.94, row + 0.06))
        if framed[row, column]:
            corner, side = (column + 0.06, row + 0.06), 0.88
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=VALIDATION, linewidth=2.5))
    axis.set(xlim=(0, indices.shape[1]), ylim=(len(indices), 0))
    axis.set_title(title, loc="left")


@as_designed
def photos(images: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Show photos `(height, width, 3)` side by side, four in a row, each with its title."""
    rows, columns = -(-len(images) // 4), min(len(images), 4)
    figure = new_figure(height=2.0 * rows, width=1.7 * columns) if columns > 1 else new_figure(3.2, 3.0)
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=BARE)
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        show_image(axis, image)
        axis.set_title(title, fontsize=9)
    return with_alt_text(figure, f"Photos with their titles: {'; '.join(' '.join(title.split()) for title in titles)}.")


@as_designed
def class_counts(tasks: Sequence[Task]) -> Figure:
    """Show how many training, validation and test images each class has, one panel per task."""
    figure = new_figure(height=2.6)
    side_by_side = all(len(task.classes) <= MOST_CLASSES for task in tasks)
    shape = (1, len(tasks)) if side_by_side else (len(tasks), 1)
    axes = figure.subplots(*shape, sharey=True, squeeze=False).flat
    styles = {
        "training": {"color": "#0072B2"},
        "validation": {"color": "#56B4E9"},
        "test": {"facecolor": "#DDDDDD", "edgecolor": "#666666", "hatch": "//"},  # distinct in grayscale
    }
    totals, height = list[int](), 0.0
    for axis, task in zip(axes, tasks, strict=True):
        bottom = np.zeros(len(task.classes), int)
        for (name, style), split in zip(styles.items(), (task.train, task.validation, task.test), strict=True):
            counts = np.bincount(split.labels, minlength=len(task.classes))
            axis.bar(range(len(counts)), counts, bottom=bottom, label=name, width=0.7, **style)
            bottom += counts
        height = max(height, name_classes(axis.xaxis, task.classes))
        axis.set(title=f"{task.name} task", xlabel="class")
        axis.grid(visible=False, axis="x")
        totals.extend(bottom)
    axes[0].set_ylabel("images")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.set_figheight((2.6 + height) * shape[0])
    between = f"between {min(totals)} and {max(totals)} images each"
    return with_alt_text(figure, f"Images per class, stacked by split; the classes have {between}.")


@as_designed
def confusion(task: Task, probabilities: np.ndarray, split: str = "test") -> Figure:
    """Show a confusion matrix, by default for the test split: counts of images by true and predicted class.

    With more than 15 classes, there is no room for numbers, so color shows all counts, including correct ones.
    """
    from sklearn.metrics import confusion_matrix

    labels = getattr(task, split).labels
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(task.classes)))
    side = max(2.7, 0.45 * min(len(counts), MOST_CLASSES))
    figure = new_figure(height=side)
    axis = figure.subplots()
    wrong = np.where(np.eye(len(counts)), 0, counts)
    if len(counts) <= MOST_CLASSES:
        axis.imshow(wrong, cmap="Oranges", vmax=1.5 * max(1, wrong.max()))  # light enough to read the numbers
        for row, column in np.ndindex(counts.shape):
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=9)
    else:
        figure.colorbar(axis.imshow(counts, cmap="Oranges"), label="images")
    below, beside = name_classes(axis.xaxis, task.classes), name_classes(axis.yaxis, task.classes)
    figure.set_size_inches(side + beside + 1.4, side + below + 0.6)
    errors = f"{wrong.sum()} of {counts.sum():,} {split} images are wrong"
    axis.set(title=f"{task.name} task: {errors}", xlabel="predicted class", ylabel="true class")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    return with_alt_text(figure, f"Confusion matrix of classes {listed(task.classes)}: {errors}.")


@as_designed
def mistakes_by_strategy(
    task: Task, probabilities: Mapping[str, np.ndarray], of_class: int | str, shown: int = 8
) -> Figure:
    """Show the first `shown` test images of one class that each strategy gets wrong, a row per strategy.

    The most confident mistakes come first, with the predicted class and its probability.
    """
    figure = new_figure(height=1.15 * len(probabilities) + 0.3)
    axes = figure.subplots(len(probabilities), shown, squeeze=False, subplot_kw=BARE)
    members = np.flatnonzero(task.test.labels == task.classes.index(of_class))
    counts = {}
    for row, (strategy, scores) in zip(axes, probabilities.items(), strict=True):
        predicted = scores.argmax(axis=1)
        wrong = members[predicted[members] != task.test.labels[members]]
        wrong = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")]
        counts[strategy] = len(wrong)
        row[0].text(-0.2, 0.5, f"{strategy}\n{len(wrong)} wrong", transform=row[0].transAxes, ha="right", va="center")
        for axis, image in zip(row, wrong, strict=False):
            show_image(axis, task.test.images[image])
            as_class = f"as {task.classes[predicted[image]]}, {100 * scores[image, predicted[image]]:.0f}%"
            axis.set_title(wrapped(as_class), fontsize=8)
    headline(figure, f"Test images of {of_class}, taken for something else")
    errors = "; ".join(f"{strategy}: {count}" for strategy, count in counts.items())
    return with_alt_text(figure, f"Misclassified images of {of_class}, out of {len(members):,}, by strategy: {errors}.")


@as_designed
def misconceptions(counted: pd.DataFrame) -> Figure:
    """Show how many learners got each reply, by exercise: `counted` has `exercise`, `reply` and `learners`."""
    rows = counted.groupby("exercise").head(MOST_REPLIES)
    figure = new_figure(height=1 + 0.5 * len(rows))
    axis = figure.subplots()
    labels = [textwrap.fill(text, 60) for text in rows["exercise"] + ": " + rows["reply"]]
    colors = rows["reply"].map({"right": "#009E73", "no answer": "#999999"}).fillna(VALIDATION)
    axis.bar_label(axis.barh(range(len(rows)), rows["learners"], color=colors), padding=3)
    show_rows(axis, labels)
    axis.set(title="learners", xticks=[], frame_on=False)
    first = "; ".join(f"{exercise}, {reply} ({n})" for exercise, reply, n in rows.drop_duplicates("exercise").values)
    text = f"Number of learners by the check's reply; the most common reply to each exercise: {first}."
    return with_alt_text(figure, text)

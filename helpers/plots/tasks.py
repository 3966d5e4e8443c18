"""Figures of tasks: their images, their classes, and the images that are taken for something else.

Images are named by the original labels, never by the shifted ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from helpers.datasets import listed
from helpers.plots.figures import described, new_figure, show_image
from helpers.tasks import Task


def sample_images(tasks: Sequence[Task], per_class: int = 8) -> Figure:
    """Show the first `per_class` training images of each class, a block per task, rows named by the original label."""
    columns = max(len(task.classes) for task in tasks)
    figure = new_figure(height=0.55 * columns + 0.6)
    for panel, task in zip(figure.subfigures(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        panel.suptitle(f"{task.name} task: labels {listed(task.classes)}")
        axes = panel.subplots(columns, per_class, squeeze=False)
        for row in range(columns):
            shown = np.flatnonzero(task.train.labels == row)[:per_class] if row < len(task.classes) else []
            for column in range(per_class):
                axes[row, column].set_axis_off()
                if column < len(shown):
                    show_image(axes[row, column], task.train.images[shown[column]])
            if row < len(task.classes):
                axes[row, 0].text(
                    -0.3, 0.5, str(task.classes[row]), transform=axes[row, 0].transAxes, ha="right", va="center"
                )
    return described(
        figure,
        "Training images, one row per class. "
        + " ".join(f"{t.name.capitalize()} task: {listed(t.classes)}." for t in tasks),
    )


def class_counts(tasks: Sequence[Task]) -> Figure:
    """Show how many training, validation and test images each original label has, one panel per task."""
    figure = new_figure(height=2.8)
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    styles = {
        "training": {"color": "#0072B2"},
        "validation": {"color": "#56B4E9"},
        "test": {"facecolor": "#DDDDDD", "edgecolor": "#666666", "hatch": "//"},  # to stand apart in grey
    }
    totals = []
    for axis, task in zip(axes, tasks, strict=True):
        bottom = np.zeros(len(task.classes), int)
        for (name, style), part in zip(styles.items(), (task.train, task.validation, task.test), strict=True):
            counts = np.bincount(part.labels, minlength=len(task.classes))
            axis.bar([str(label) for label in task.classes], counts, bottom=bottom, label=name, width=0.7, **style)
            bottom += counts
        axis.set(title=f"{task.name} task", xlabel="original label")
        totals.extend(bottom)
    axes[0].set_ylabel("images")
    axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return described(
        figure,
        "Images per original label, stacked by split; "
        f"the classes have between {min(totals)} and {max(totals)} images each.",
    )


def confusion(task: Task, probabilities: np.ndarray, split: str = "test") -> Figure:
    """Show how many images of each original label, of the test or another split, are taken for which."""
    from sklearn.metrics import confusion_matrix

    labels = getattr(task, split).labels
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(task.classes)))
    figure = new_figure(height=3.4, width=4.2)
    axis = figure.subplots()
    wrong = np.where(np.eye(len(counts)), 0, counts)
    axis.imshow(wrong, cmap="Oranges", vmax=1.5 * max(1, wrong.max()))  # not so dark that a number is hard to read
    for row, column in np.ndindex(counts.shape):
        axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=9)
    ticks = {"ticks": range(len(task.classes)), "labels": [str(label) for label in task.classes]}
    axis.set_xticks(**ticks)
    axis.set_yticks(**ticks)
    axis.set(title=f"{task.name} task, {split} images", xlabel="predicted label", ylabel="true label")
    return described(
        figure,
        f"Confusion matrix of labels {listed(task.classes)}: "
        f"{wrong.sum()} of {counts.sum():,} {split} images are wrong.",
    )


def mistakes_by_strategy(task: Task, probabilities: Mapping[str, np.ndarray], label: int, shown: int = 8) -> Figure:
    """Show the first `shown` test images of one original label that each strategy gets wrong, a row per strategy.

    The most confident mistakes come first, with what they are taken for and the probability given to that.
    """
    figure = new_figure(height=1.15 * len(probabilities) + 0.3)
    axes = figure.subplots(len(probabilities), shown, squeeze=False)
    of_label = np.flatnonzero(task.test.labels == task.classes.index(label))
    counts = {}
    for row, (strategy, scores) in zip(axes, probabilities.items(), strict=True):
        taken = scores.argmax(axis=1)
        wrong = of_label[taken[of_label] != task.test.labels[of_label]]
        wrong = wrong[np.argsort(-scores[wrong, taken[wrong]], kind="stable")]
        counts[strategy] = len(wrong)
        for axis in row:
            axis.set_axis_off()
        row[0].text(-0.2, 0.5, f"{strategy}\n{len(wrong)} wrong", transform=row[0].transAxes, ha="right", va="center")
        for axis, image in zip(row, wrong, strict=False):
            show_image(axis, task.test.images[image])
            axis.set_title(f"as {task.classes[taken[image]]}, {100 * scores[image, taken[image]]:.0f} %", fontsize=8)
    figure.suptitle(f"Test images of {label}, taken for something else", fontsize=10)
    errors = "; ".join(f"{strategy}: {count}" for strategy, count in counts.items())
    return described(figure, f"Wrong test images of {label}, of {len(of_label):,}, by strategy: {errors}.")

"""One function per figure: each takes results and returns a Matplotlib `Figure`.

A figure carries a sentence of alternative text that says what it shows; IPython puts it into the output's metadata,
and nbconvert into the HTML. Images are named by the original labels, never by the shifted ones.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from helpers.data import Task

if TYPE_CHECKING:
    import ipywidgets
    import keras

# Okabe and Ito's palette, which colour-blind readers can tell apart; marker and line tell the strategies apart in grey.
STYLES = {
    "scratch": {"color": "#000000", "marker": "o", "linestyle": "-"},
    "frozen": {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    "fine-tuned": {"color": "#009E73", "marker": "^", "linestyle": "--"},
    "random-frozen": {"color": "#E69F00", "marker": "D", "linestyle": ":"},
    "reused-head": {"color": "#CC79A7", "marker": "v", "linestyle": "-."},
}
# Where the budget stands beside a strategy's points, and on which side its name beside the first, so that points close
# to each other keep their labels apart: strategies that train all layers to the right, the others above, below or left.
BUDGET_LABELS = {
    "scratch": {"xytext": (6, -8), "ha": "left", "va": "center"},
    "frozen": {"xytext": (0, 6), "ha": "center", "va": "bottom"},
    "fine-tuned": {"xytext": (7, 5), "ha": "left", "va": "center"},
    "random-frozen": {"xytext": (0, -6), "ha": "center", "va": "top"},
    "reused-head": {"xytext": (-7, -3), "ha": "right", "va": "center"},
}
NAMED_AT_THE_RIGHT = ("scratch", "fine-tuned")
TRAINING, VALIDATION = "#0072B2", "#D55E00"
WIDTH = 8.0  # inches


class Described(Figure):
    """A Figure with alternative text: one sentence that says what it shows."""

    alternative_text = ""

    def __repr__(self) -> str:
        """Return what a plain Figure says of itself, its size and its number of axes."""
        return super().__repr__().replace(type(self).__name__, "Figure")


def png(figure: Described) -> tuple[bytes, dict[str, str]]:
    """Render a figure as a PNG image, with its alternative text as the metadata that a notebook's output has."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue(), {"alt": figure.alternative_text}


# Matplotlib's own formatter for notebooks knows nothing of alternative text, so ours takes the more specific class.
if shell := get_ipython():
    shell.display_formatter.formatters["image/png"].for_type(Described, png)


def sample_images(tasks: Sequence[Task], per_class: int = 8) -> Figure:
    """Show the first `per_class` training images of each class, a block per task, rows named by the original label."""
    columns = max(len(task.classes) for task in tasks)
    figure = _figure(height=0.55 * columns + 0.6)
    for panel, task in zip(figure.subfigures(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        panel.suptitle(f"{task.name} task: labels {_listed(task.classes)}")
        axes = panel.subplots(columns, per_class, squeeze=False)
        for row in range(columns):
            shown = np.flatnonzero(task.train.labels == row)[:per_class] if row < len(task.classes) else []
            for column in range(per_class):
                axes[row, column].set_axis_off()
                if column < len(shown):
                    _show(axes[row, column], task.train.images[shown[column]])
            if row < len(task.classes):
                axes[row, 0].text(
                    -0.3, 0.5, str(task.classes[row]), transform=axes[row, 0].transAxes, ha="right", va="center"
                )
    return _described(
        figure,
        "Training images, one row per class. "
        + " ".join(f"{t.name.capitalize()} task: {_listed(t.classes)}." for t in tasks),
    )


def class_counts(tasks: Sequence[Task]) -> Figure:
    """Show how many training, validation and test images each original label has, one panel per task."""
    figure = _figure(height=2.8)
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    styles = {
        "training": {"color": "#0072B2"},
        "validation": {"color": "#56B4E9"},
        "test": {"facecolor": "#DDDDDD", "edgecolor": "#666666", "hatch": "//"},  # to stand apart in grey
    }
    for axis, task in zip(axes, tasks, strict=True):
        bottom = np.zeros(len(task.classes))
        for (name, style), part in zip(styles.items(), (task.train, task.validation, task.test), strict=True):
            counts = np.bincount(part.labels, minlength=len(task.classes))
            axis.bar([str(label) for label in task.classes], counts, bottom=bottom, label=name, width=0.7, **style)
            bottom += counts
        axis.set(title=f"{task.name} task", xlabel="original label")
    axes[0].set_ylabel("images")
    axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    fewest, most = _extremes(tasks)
    return _described(
        figure,
        f"Images per original label, stacked by split; the classes have between {fewest} and {most} images each.",
    )


def network(costs: pd.DataFrame) -> Figure:
    """Draw each layer's share of the parameters beside its share of the multiply-adds; `costs` from
    `cnn.layer_costs`.
    """
    figure = _figure(height=0.32 * len(costs) + 0.9)
    axes = figure.subplots(1, 2, sharey=True)
    names = [
        f"{name}  {'×'.join(map(str, shape))}" for name, shape in zip(costs["layer"], costs["output"], strict=True)
    ]
    for axis, column, color in zip(axes, ("parameters", "multiply_adds"), ("#E69F00", "#0072B2"), strict=True):
        share = 100 * costs[column] / costs[column].sum()
        axis.barh(names, share, color=color)
        for position, (part, count) in enumerate(zip(share, costs[column], strict=True)):
            if count:
                axis.text(part + 1, position, f"{count:,} ({part:.1f} %)", va="center", fontsize=8)
        axis.set(
            title=column.replace("_", "-"), xlabel="share of the total [%]", xlim=(0, 150), xticks=range(0, 101, 25)
        )
    axes[0].invert_yaxis()
    convolutions = costs[costs["layer"].str.startswith("conv")].sum(numeric_only=True) / costs.sum(numeric_only=True)
    return _described(
        figure,
        f"The layers from input to output. The convolutions hold {convolutions['parameters']:.1%} of the parameters "
        f"and do {convolutions['multiply_adds']:.1%} of the multiply-adds.",
    )


def filters(models: Mapping[str, "keras.Model"], layer: str = "conv1") -> Figure:
    """Show the first 32 kernels of a convolution over their first channel, one block of 4 x 8 per network, on one grey
    scale: zero is the middle grey.
    """
    figure = _figure(height=2.6)
    kernels = {title: model.get_layer(layer).kernel.numpy()[:, :, 0, :32] for title, model in models.items()}
    limit = max(np.abs(kernel).max() for kernel in kernels.values())
    for panel, (title, kernel) in zip(
        figure.subfigures(1, len(models), squeeze=False)[0], kernels.items(), strict=True
    ):
        panel.suptitle(f"{title} (dark: negative, bright: positive)", fontsize=10)
        for index, axis in enumerate(panel.subplots(4, 8).flat):
            axis.set_axis_off()
            if index < kernel.shape[-1]:
                axis.imshow(kernel[:, :, index], cmap="gray", vmin=-limit, vmax=limit)
    return _described(
        figure, f"The first convolution's kernels, {' beside '.join(models)}: dark is negative, bright positive."
    )


def feature_maps(image: np.ndarray, maps: np.ndarray, shown: int = 8) -> Figure:
    """Show one image `(height, width, 1)` and the first `shown` of its feature maps `(height, width, filters)`."""
    shown = min(shown, maps.shape[-1])
    figure = _figure(height=1.4)
    axes = figure.subplots(1, shown + 1)
    _show(axes[0], image)
    axes[0].set_title("image", fontsize=9)
    for index, axis in enumerate(axes[1:]):
        axis.set_axis_off()
        axis.imshow(maps[:, :, index], cmap="viridis", vmin=0, vmax=maps.max())
        axis.set_title(f"map {index}", fontsize=9)
    return _described(
        figure, f"One image and {shown} of the {maps.shape[-1]} feature maps that the extractor makes of it."
    )


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Show training and validation accuracy by epoch, one panel per training; histories as `Training.history`."""
    figure = _figure(height=3.0)
    axes = figure.subplots(1, len(histories), sharey=True, squeeze=False)[0]
    names = ("training batches (solid)", TRAINING), ("validation (dashed)", VALIDATION)
    for axis, (title, history) in zip(axes, histories.items(), strict=True):
        axis.plot(history["epoch"], 100 * history["accuracy"], color=TRAINING, marker="o", markersize=3)
        axis.plot(
            history["epoch"],
            100 * history["validation_accuracy"],
            color=VALIDATION,
            marker="s",
            markersize=3,
            linestyle="--",
        )
        axis.set(title=title, xlabel="epochs", ylim=(0, 104))
        axis.grid(alpha=0.3)
        for height, (name, color) in enumerate(names):
            axis.text(0.97, 0.04 + 0.09 * height, name, color=color, ha="right", transform=axis.transAxes)
    axes[0].set_ylabel("accuracy [%]")
    ends = [f"{title}: {history['validation_accuracy'].iloc[-1]:.1%}" for title, history in histories.items()]
    return _described(figure, f"Accuracy by epoch. Validation accuracy at the end: {'; '.join(ends)}.")


def confusion(task: Task, probabilities: np.ndarray, split: str = "test") -> Figure:
    """Show how many images of each original label, of the test or another split, are taken for which."""
    from sklearn.metrics import confusion_matrix

    labels = getattr(task, split).labels
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(task.classes)))
    figure = _figure(height=3.4, width=4.2)
    axis = figure.subplots()
    wrong = np.where(np.eye(len(counts)), 0, counts)
    axis.imshow(wrong, cmap="Oranges", vmax=1.5 * max(1, wrong.max()))  # not so dark that a number is hard to read
    for row, column in np.ndindex(counts.shape):
        axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=9)
    ticks = {"ticks": range(len(task.classes)), "labels": [str(label) for label in task.classes]}
    axis.set_xticks(**ticks)
    axis.set_yticks(**ticks)
    axis.set(title=f"{task.name} task, {split} images", xlabel="predicted label", ylabel="true label")
    return _described(
        figure,
        f"Confusion matrix of labels {_listed(task.classes)}: "
        f"{wrong.sum()} of {counts.sum():,} {split} images are wrong.",
    )


def mistakes_by_strategy(task: Task, probabilities: Mapping[str, np.ndarray], label: int, shown: int = 8) -> Figure:
    """Show the first `shown` test images of one original label that each strategy gets wrong, a row per strategy, the
    most confident mistakes first, with what they are taken for and the probability given to that.
    """
    figure = _figure(height=1.15 * len(probabilities) + 0.3)
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
            _show(axis, task.test.images[image])
            axis.set_title(f"as {task.classes[taken[image]]}, {100 * scores[image, taken[image]]:.0f} %", fontsize=8)
    figure.suptitle(f"Test images of {label}, taken for something else", fontsize=10)
    errors = "; ".join(f"{strategy}: {count}" for strategy, count in counts.items())
    return _described(figure, f"Wrong test images of {label}, of {len(of_label):,}, by strategy: {errors}.")


def browse(draw: Callable[..., Described], **choices: Sequence) -> "ipywidgets.VBox":
    """Return buttons for each argument of `draw` above the figure that it returns, drawn anew at each choice.

    `ipywidgets.interact` shows outputs of any kind, but that can make a headless run wait for ever (nbclient issue
    312). Raises ImportError that says what to install where ipywidgets is missing.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError(
            "these buttons need ipywidgets: run `python -m pip install ipywidgets`, then restart JupyterLab"
        ) from error

    wide = {"description_width": "initial"}
    buttons = {
        name: ipywidgets.ToggleButtons(options=list(values), description=name.replace("_", " "), style=wide)
        for name, values in choices.items()
    }
    picture = ipywidgets.Image(format="png", layout={"object_fit": "contain", "width": "fit-content"})

    def redraw(_: object = None) -> None:
        picture.value = png(draw(**{name: button.value for name, button in buttons.items()}))[0]

    for button in buttons.values():
        button.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*buttons.values(), picture])


def epoch_seconds(seconds: Mapping[str, float]) -> Figure:
    """Show the seconds that one epoch takes in each way of training."""
    figure = _figure(height=0.42 * len(seconds) + 0.8)
    axis = figure.subplots()
    axis.barh(list(seconds), list(seconds.values()), color=TRAINING)
    for position, value in enumerate(seconds.values()):
        axis.text(value, position, f" {value:.1f} s", va="center")
    axis.invert_yaxis()
    axis.set(xlabel="seconds per epoch", xlim=(0, 1.15 * max(seconds.values())))
    return _described(
        figure, "Seconds per epoch: " + "; ".join(f"{name}: {value:.1f}" for name, value in seconds.items()) + "."
    )


def accuracy_by_labels(summary: pd.DataFrame) -> Figure:
    """Show test accuracy by label budget, one line per strategy with its 95 % interval; `summary` of
    `comparison.summarize`.

    A second panel shows the largest budget on a scale of its own, the most accurate strategy first, and names the
    strategies. With one budget there is that panel alone.
    """
    budgets = list(dict.fromkeys(summary["labels_per_class"]))
    largest = max(budgets, key=lambda budget: float("inf") if budget == "all" else budget)
    figure = _figure(height=4.2)
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
    axis.set(xlabel="labels per class", ylabel="test accuracy [%]", title=f"Target task, {_seeds(summary)}")
    for panel in {axis, enlarged}:
        panel.set_ylim(top=min(panel.get_ylim()[1], 100.5))  # an interval may reach beyond 100 %, an accuracy does not
        panel.grid(alpha=0.3)
    names = at_largest["strategy"]
    _name_points(enlarged, names, names, range(len(names)), 100 * at_largest["accuracy"], "edge")
    return _described(figure, _by_budget(summary, budgets))


def accuracy_by_seconds(summary: pd.DataFrame, one_off: bool = False) -> Figure:
    """Show test accuracy against the median seconds on the target task, training and extraction of features, one point
    per strategy and budget; `one_off` adds pretraining. `summary` of `comparison.summarize`.
    """
    column = "total_seconds" if one_off else "target_seconds"
    figure = _figure(height=4.2)
    axis = figure.subplots()
    for strategy, rows in summary.groupby("strategy", sort=False):
        axis.plot(rows[column], 100 * rows["accuracy"], label=strategy, markersize=6, **STYLES[strategy])
        for _, row in rows.iloc[1:].iterrows():
            place, budget = (row[column], 100 * row["accuracy"]), str(row["labels_per_class"])
            axis.annotate(budget, place, textcoords="offset points", fontsize=8, **BUDGET_LABELS[strategy])
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
    return _described(
        figure,
        f"Accuracy against seconds {costs}; the cheapest is {fastest['strategy']} "
        f"with {fastest['labels_per_class']} labels per class.",
    )


def accuracy_by_parameter(results: pd.DataFrame, swept: Sequence[str]) -> Figure:
    """Show mean test accuracy over each swept parameter, a panel each, one line per strategy if there are several.

    `results` has a row per training with `test_accuracy`, a column of text per swept parameter, and `strategy` where
    trainings have one; the mean is over all other parameters, seeds and label budgets.
    """
    strategies = results["strategy"] if "strategy" in results else pd.Series("all runs", results.index)
    figure = _figure(height=3.6 * len(swept))
    sentences = []
    for axis, name in zip(figure.subplots(len(swept), squeeze=False)[:, 0], swept, strict=True):
        values = list(dict.fromkeys(results[name]))
        accuracy = (100 * results["test_accuracy"].astype(float)).groupby([strategies, results[name]], sort=False)
        for strategy, means in accuracy.mean().groupby(level=0, sort=False):
            means = means.droplevel(0).reindex(values).dropna()
            places = [values.index(value) for value in means.index]
            axis.plot(places, means, label=strategy, markersize=5, **STYLES.get(strategy, {"marker": "o"}))
            best = means.idxmax()
            sentences.append(f"{strategy}, highest at {name} {best}: {means[best]:.2f} %")
        shown = range(0, len(values), 1 + len(values) // 20)
        axis.set_xticks(shown, [values[place][:20].replace("$", r"\$") for place in shown])
        axis.set(xlabel=name, ylabel="test accuracy [%]")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return _described(figure, f"Mean test accuracy by {' and by '.join(swept)}. {'; '.join(sentences)}.")


def _figure(height: float, width: float = WIDTH) -> Figure:
    """Make an empty figure that pyplot does not manage, so that a notebook shows it once and does not keep it."""
    return Described(figsize=(width, height), layout="constrained")


def _described(figure: Figure, text: str) -> Figure:
    figure.alternative_text = text
    return figure


def _show(axis: Axes, image: np.ndarray) -> None:
    axis.set_axis_off()
    axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=255)


def _accuracies(axis: Axes, places: Sequence[float], rows: pd.DataFrame, strategy: str) -> None:
    """Draw a strategy's accuracies in percent, each with its interval, at these places of the x-axis."""
    axis.plot(places, 100 * rows["accuracy"], label=strategy, markersize=6, linewidth=1, **STYLES[strategy])
    ends = 100 * rows["accuracy_low"], 100 * rows["accuracy_high"]
    axis.vlines(places, *ends, color=STYLES[strategy]["color"], alpha=0.35, linewidth=7)


def _name_points(
    axis: Axes, texts: Sequence[str], strategies: Sequence[str], x: Sequence[float], y: Sequence[float], side: str
) -> None:
    """Write a text at each strategy's point, to its "left" or "right" or at the right "edge" of the axis, none on
    another; a line leads from the text to the point.
    """
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top)
    across, reference = (1.04, "axes fraction") if side == "edge" else (-12 if side == "left" else 12, "offset points")
    heights = _spread(y, 0.06 * (top - bottom))
    for text, strategy, *point, height in zip(texts, strategies, x, y, heights, strict=True):
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
    heights = np.asarray(heights, float)
    order = np.argsort(heights, kind="stable")
    groups: list[list[float]] = []  # heights that push each other apart: their middle, their number
    for height in heights[order]:
        groups.append([height, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (above, more), (below, fewer) = groups.pop(), groups.pop()
            groups.append([(above * more + below * fewer) / (more + fewer), more + fewer])
    spread = np.empty(len(heights))
    spread[order] = np.concatenate([middle + gap * (np.arange(n) - (n - 1) / 2) for middle, n in groups])
    return spread


def _listed(classes: Sequence[int]) -> str:
    return ", ".join(str(label) for label in classes)


def _extremes(tasks: Sequence[Task]) -> tuple[int, int]:
    """Return the images of the smallest and of the largest class, over all splits."""
    counts = [
        np.bincount(np.concatenate([part.labels for part in (task.train, task.validation, task.test)]))
        for task in tasks
    ]
    return min(int(c.min()) for c in counts), max(int(c.max()) for c in counts)


def _seeds(summary: pd.DataFrame) -> str:
    count = int(summary["seeds"].max())
    return "one seed, no interval" if count == 1 else f"mean of {count} seeds with 95 % interval"


def _by_budget(summary: pd.DataFrame, budgets: list) -> str:
    """Say in words which strategy is best at each budget."""
    best = []
    for budget in budgets:
        row = summary.loc[summary.loc[summary["labels_per_class"] == budget, "accuracy"].idxmax()]
        best.append(f"with {budget} labels per class {row['strategy']} at {row['accuracy']:.1%}")
    return f"Test accuracy by labels per class. Most accurate: {'; '.join(best)}."

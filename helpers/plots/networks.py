"""Figures of networks: their layers, their filters and feature maps, and their training."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.plots.figures import (
    BARE,
    COLORS,
    STYLES,
    TRAINING,
    VALIDATION,
    Figure,
    as_designed,
    headline,
    new_figure,
    show_image,
    show_rows,
    two_digits,
    with_alt_text,
)
from helpers.transfer import named_strategies

if TYPE_CHECKING:
    import keras

FEATURES, HEAD = "#0072B2", "#E69F00"


@as_designed
def network(costs: pd.DataFrame) -> Figure:
    """Draw each layer's share of the parameters and of the multiply-adds; `costs` comes from `cnn.layer_costs`."""
    figure = new_figure(height=0.32 * len(costs) + 0.9)
    axes = figure.subplots(1, 2, sharey=True)
    names = [f"{name}  {_sizes(shape)}" for name, shape in zip(costs["layer"], costs["output"], strict=True)]
    for axis, column, color in zip(axes, ("parameters", "multiply_adds"), ("#E69F00", "#0072B2"), strict=True):
        share = 100 * costs[column] / costs[column].sum()
        axis.barh(range(len(names)), share, color=color)
        for position, (part, count) in enumerate(zip(share, costs[column], strict=True)):
            if count:
                axis.text(part + 1, position, f"{count:,} ({two_digits(part)}%)", va="center", fontsize=8)
        axis.set(title=column.replace("_", "-"), xlabel="share of the total [%]")
        axis.set(xlim=(0, 150), xticks=range(0, 101, 25))
        show_rows(axis, names)
    convolutions = costs[costs["layer"].str.startswith("conv")].sum(numeric_only=True) / costs.sum(numeric_only=True)
    parameters, work = 100 * convolutions[["parameters", "multiply_adds"]]
    finding = f"The convolutions have {parameters:.1f}% of the parameters and do {work:.1f}% of the work"
    headline(figure, finding)
    return with_alt_text(figure, f"The layers from input to output. {finding}.")


@as_designed
def cut_in_two(model: "keras.Model", last: str = "pool") -> Figure:
    """Draw a network cut after its `last` feature layer, with the shape of each layer's output."""
    shown = [layer for layer in model.layers if layer.name == last or layer.count_params()]
    shapes = {"image": model.input_shape[1:], **{layer.name: layer.output.shape[1:] for layer in shown}}
    cut = list(shapes).index(last) + 0.5
    figure = new_figure(height=1.7)
    axis = figure.subplots(subplot_kw=BARE)
    for place, (name, shape) in enumerate(shapes.items()):
        color = "#999999" if not place else FEATURES if place < cut else HEAD
        axis.text(place, 0, name, ha="center", va="center", bbox={"boxstyle": "round,pad=0.5", "fc": "w", "ec": color})
        axis.text(place, -0.55, _sizes(shape), ha="center", va="center", fontsize=9)
        if place:
            axis.annotate("", (place - 0.33, 0), (place - 0.67, 0), arrowprops={"arrowstyle": "->"})
    axis.plot([cut, cut], [-0.8, 0.8], color="black", linestyle="--")
    for start, end, color, text in (
        (0.55, cut - 0.08, FEATURES, "feature extractor: kept"),
        (cut + 0.08, len(shapes) - 0.55, HEAD, "head: trained anew"),
    ):
        axis.plot([start, end], [0.5, 0.5], color=color, linewidth=3)
        axis.text((start + end) / 2, 0.65, text, ha="center", va="bottom")
    axis.set(xlim=(-0.5, len(shapes) - 0.5), ylim=(-0.85, 1))
    return with_alt_text(
        figure,
        f"The network, cut after {last}: on the left the feature extractor, on the right the head. "
        f"For each image, {' × '.join(map(str, shapes[last]))} = {np.prod(shapes[last]):,} numbers pass the cut.",
    )


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


@as_designed
def strategies(names: Sequence[str]) -> Figure:
    """Draw each strategy as two blocks, its features and its head: filled if they come from the source task, white if
    they start at random, hatched if they are frozen.
    """
    shown = named_strategies(names)
    figure = new_figure(height=0.5 * len(shown) + 0.6)
    axis = figure.subplots()
    sentences = []
    for row, strategy in enumerate(shown):
        color = STYLES[strategy.name]["color"]
        trained = "frozen" if strategy.freezes else "trained"
        head = ("fresh", "trained first") if strategy.head == "trained" else (strategy.head, "trained")
        for left, origin, then in ((0.0, strategy.start, trained), (1.05, *head)):
            (bar,) = axis.barh(row, 1, left=left, height=0.7, edgecolor=color, linewidth=1.5)
            bar.set_facecolor((color, 0.3) if origin in ("pretrained", "reused") else "white")
            bar.set_hatch("///" if then == "frozen" else "")
            box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            axis.text(left + 0.5, row, f"{origin}, {then}", ha="center", va="center", bbox=box)
        sentences.append(f"{strategy.name}: features {strategy.start} and {trained}, head {' and '.join(head)}")
    show_rows(axis, [strategy.name for strategy in shown])
    axis.set_xticks([0.5, 1.55], ["features", "head"])
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.xaxis.tick_top()
    axis.set(xlim=(-0.02, 2.07), frame_on=False)
    text = "; ".join(sentences)
    return with_alt_text(figure, f"What each strategy starts from and trains. {text[0].upper()}{text[1:]}.")


@as_designed
def filters(models: Mapping[str, "keras.Model"], layer: str = "conv1", shown: int = 10) -> Figure:
    """Show the first kernels of a convolution, a row per network: zero is gray, negative darker, positive brighter.

    Kernels over three channels are in color; with any other number of channels, only the first one is shown.
    """
    figure = new_figure(height=0.8 * len(models) + 0.3)
    rows = figure.subplots(len(models), shown, squeeze=False)
    for row, (title, model) in zip(rows, models.items(), strict=True):
        kernels = model.get_layer(layer).kernel.numpy()
        limit = 2 * math.sqrt(6 / np.prod(kernels.shape[:2]) / sum(kernels.shape[2:]))  # twice the initial limit
        shades = np.clip(0.5 + kernels[:, :, slice(3 if kernels.shape[2] == 3 else 1)] / (2 * limit), 0, 1)
        row[0].text(-0.2, 0.5, title, transform=row[0].transAxes, ha="right", va="center")
        for axis, kernel in zip_longest(row, np.moveaxis(shades, -1, 0)[:shown]):
            axis.set(xticks=[], yticks=[], visible=kernel is not None)
            axis.spines[:].set(visible=True, color="0.8")  # without a border, a bright edge would blend into the page
            if kernel is not None:
                axis.imshow(np.broadcast_to(kernel, (*kernel.shape[:2], 3)))
    text = f"The first convolution's kernels, {' above '.join(models)}: dark is negative, bright positive."
    return with_alt_text(figure, text)


@as_designed
def feature_maps(image: np.ndarray, maps: np.ndarray, shown: int = 8) -> Figure:
    """Show an image `(height, width, channels)` and the first `shown` of its maps `(height, width, filters)`."""
    shown = min(shown, maps.shape[-1])
    figure = new_figure(height=1.4)
    axes = figure.subplots(1, shown + 1, subplot_kw=BARE)
    show_image(axes[0], image)
    axes[0].set_title("image", fontsize=9)
    for index, axis in enumerate(axes[1:]):
        axis.imshow(maps[:, :, index], vmin=0, vmax=maps.max())
        axis.set_title(f"map {index}", fontsize=9)
    text = f"One image and {shown} of the {maps.shape[-1]} feature maps that the extractor computes from it."
    return with_alt_text(figure, text)


@as_designed
def maps_by_depth(image: np.ndarray, maps: Mapping[str, np.ndarray], shown: int = 6) -> Figure:
    """Show an image `(height, width, 3)`, and at each depth the `shown` maps `(height, width, n)` that vary most."""
    figure = new_figure(height=1.15 * len(maps) + 0.3)
    panels = figure.subfigures(1, 2, squeeze=False, width_ratios=(2, 5))[0]
    show_image(panels[0].subplots(subplot_kw=BARE), image)
    rows = panels[1].subplots(len(maps), shown, squeeze=False, subplot_kw=BARE)
    for row, (depth, values) in zip(rows, maps.items(), strict=True):
        for axis, index in zip(row, np.argsort(-values.std(axis=(0, 1)), kind="stable"), strict=False):
            axis.imshow(values[..., index])
        size = _sizes(values.shape[:2])
        row[0].text(-0.15, 0.5, f"{depth}\n{size}", transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    sizes = ", ".join(f"{depth} {_sizes(values.shape)}" for depth, values in maps.items())
    return with_alt_text(figure, f"A photo and the {shown} feature maps that vary most at each depth: {sizes}.")


@as_designed
def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Show training and validation accuracy by update, with a color per training run, from each `Training.history`."""
    figure = new_figure(height=3.2)
    axis = figure.subplots()
    last = max(history["update"].iloc[-1] for history in histories.values())
    for color, (title, history) in zip(COLORS[1:], histories.items(), strict=False):
        axis.plot(history["update"], 100 * history["accuracy"], "o-", color=color, markersize=3)
        axis.plot(history["update"], 100 * history["validation_accuracy"], "s--", color=color, markersize=3)
        update, accuracy = history["update"].iloc[-1], 100 * history["validation_accuracy"].iloc[-1]
        place, side = ((0, 8), "right") if update > last / 2 else ((10, -4), "left")
        axis.annotate(title, (update, accuracy), place, textcoords="offset points", ha=side, color=color)
    axis.text(0.99, 0.04, "solid: training batches, dashed: validation", ha="right", transform=axis.transAxes)
    axis.set(xlabel="updates", ylabel="accuracy [%]", xlim=(0, 1.02 * last), ylim=(0, 112))
    ends = [f"{title}: {history['validation_accuracy'].iloc[-1]:.1%}" for title, history in histories.items()]
    return with_alt_text(figure, f"Accuracy by update. Validation accuracy at the end: {'; '.join(ends)}.")


@as_designed
def overfitting(curves: pd.DataFrame) -> Figure:
    """Show accuracy on the training images and on new ones during training, a panel per strategy: a thin line per seed,
    and a thick one for their mean. Columns: strategy, seed, update, training, new.
    """
    panels = curves.groupby("strategy", sort=False)
    figure, said = new_figure(height=3.5), []
    axes = figure.subplots(1, panels.ngroups, sharex=True, sharey=True, squeeze=False)[0]
    for axis, (strategy, rows) in zip(axes, panels, strict=True):
        for name, color, height in (("training", TRAINING, 0.13), ("new", VALIDATION, 0.04)):
            by_seed = 100 * rows.pivot(index="update", columns="seed", values=name)
            mean = by_seed.mean(axis=1)
            axis.plot(by_seed, color=color, linewidth=0.8, alpha=0.5)
            axis.plot(mean, color=color, linewidth=2.5)
            end = f"{name} images {mean.iloc[-1]:.0f}%"
            weight = "bold" if name == "new" else "normal"
            axis.text(0.97, height, end, color=color, ha="right", weight=weight, transform=axis.transAxes)
            said.append(f"{strategy}, {end}")
        axis.set(title=strategy, xlabel="updates", ylim=(0, 104), yticks=range(0, 101, 20))
    axes[0].set_ylabel("accuracy [%]")
    headline(figure, "Compare the networks on new images")
    return with_alt_text(figure, f"Accuracy by update. At the end, means over the seeds: {'; '.join(said)}.")


@as_designed
def epoch_seconds(seconds: Mapping[str, float]) -> Figure:
    """Show how many seconds one epoch takes with each training method."""
    figure = new_figure(height=0.42 * len(seconds) + 0.8)
    axis = figure.subplots()
    bars = axis.barh(range(len(seconds)), list(seconds.values()), color=TRAINING)
    axis.bar_label(bars, fmt=lambda value: f"{two_digits(value)} s", padding=3)
    show_rows(axis, list(seconds))
    axis.set(xlabel="seconds per epoch", xlim=(0, 1.15 * max(seconds.values())))
    text = "; ".join(f"{name}: {two_digits(value)}" for name, value in seconds.items())
    return with_alt_text(figure, f"Seconds per epoch: {text}.")

"""Figures: they draw the data, name the original classes, have units, and have a text alternative."""

import math
import warnings
from collections.abc import Sequence
from itertools import combinations, pairwise, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from small import result_rows

from helpers import cnn, plots
from helpers.backend import keras
from helpers.images import Dataset, Split
from helpers.plots.figures import STYLES, TRAINING, VALIDATION, Figure
from helpers.statistics import Finding, summarize
from helpers.tasks import Task, split_tasks
from helpers.transfer import STRATEGIES


def rendered(figure: Figure) -> Figure:
    """Draw a figure once, as a notebook would, without any warnings."""
    with warnings.catch_warnings(action="error"):
        figure.draw_without_rendering()
    return figure


def texts(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def titles(axes: Sequence[Axes]) -> list[str]:
    return [axis.get_title("left") for axis in axes]


def images(axis: Axes) -> list[np.ndarray]:
    return [np.asarray(child.get_array()) for child in axis.get_children() if isinstance(child, AxesImage)]


def tick_labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def task() -> Task:
    """Make a task of three classes with 4, 3 and 2 training images; every image has its own gray value."""

    def split(first: int, labels: list[int]) -> Split:
        values = np.arange(first, first + len(labels), dtype=np.uint8)
        return Split(np.broadcast_to(values[:, None, None, None], (len(labels), 8, 8, 1)), np.array(labels, np.int32))

    return Task(
        name="target",
        classes=(9, 5, 7),
        train=split(10, [2, 0, 1, 0, 0, 1, 2, 1, 0]),
        validation=split(100, [0, 1, 2]),
        test=split(200, [0, 0, 1, 1, 2, 2]),
    )


# probabilities for the task's test images; the second, third and last are wrong, the third most confidently
SCORES = np.array(
    [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.7, 0.0, 0.3]], np.float32
)


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    """Make a summary in which all strategies have similar accuracy and seconds, as on MNIST."""
    errors = {  # out of 1,000, with 10, 50 and all labels per class
        "scratch": (123, 38.5, 2.5),
        "random-frozen": (99.9, 42.4, 10.8),
        "frozen": (71.7, 21.5, 2.6),
        "head-first": (70.2, 21.9, 2.4),
        "fine-tuned": (78.4, 23, 2.9),
        "reused-head": (79.4, 27.2, 3.3),
    }
    tables = []
    for strategy, means in errors.items():
        seconds = (2.40, 2.42, 9.8) if strategy in ("scratch", "fine-tuned") else (0.58, 0.63, 5.1)
        seconds = (1.80, 1.85, 11.3) if strategy == "head-first" else seconds
        once, apart = 9.5 * (strategy not in ("scratch", "random-frozen")), 2 * (strategy != "scratch")
        for budget, mean, second in zip((10, 50, "all"), means, seconds, strict=True):
            seeds = [mean - apart, mean, mean + apart]
            tables.append(result_rows(strategy, seeds, budget, train_seconds=second, pretrain_seconds=once))
    return summarize(pd.concat(tables))


def names_a_best(text: str) -> bool:
    """Tell whether a text calls something best."""
    return any(word in text.lower() for word in ("best", "most accurate", "highest", "cheapest", "better", "worse"))


# All figures


OKABE_AND_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def test_every_strategy_has_its_own_marker_and_its_own_color_of_okabe_and_ito():
    assert list(STYLES) == [*STRATEGIES, "backbone"]
    for part in ("color", "marker"):
        assert len({style[part] for style in STYLES.values()}) == len(STYLES)
    assert {style["color"] for style in STYLES.values()} | {TRAINING, VALIDATION} <= OKABE_AND_ITO
    black, blue = (STYLES[name]["color"] for name in ("scratch", "frozen"))  # as lesson 05 calls them
    assert (black, blue) == ("#000000", "#0072B2")


IN_A_NOTEBOOK = """
import importlib
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell

table = pd.DataFrame([[1 / 7]] * 5)
default = repr(table)
pd.set_option("display.max_rows", 2, "display.precision", 1)
from helpers import plots
assert repr(table) != default, "outside a notebook nothing is reset"

shell = InteractiveShell.instance()
shell.ast_node_interactivity = "none"
importlib.reload(plots)
assert repr(table) == default and shell.ast_node_interactivity == "last_expr"
data, metadata = shell.display_formatter.format(plots.epoch_seconds({"frozen": 2.0}))
print(metadata["image/png"], data["text/plain"], data["image/png"][:4])
"""


def test_a_notebook_gets_alternative_text_with_a_picture_and_tables_that_no_setting_changes(python, tmp_path):
    (tmp_path / "matplotlibrc").write_text("no.such.setting: 1\n")
    finished = python(IN_A_NOTEBOOK, IPYTHONDIR=str(tmp_path), MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("{'alt': 'Seconds per epoch: frozen: 2.0.'} <Figure size ")
    assert finished.stdout.endswith("b'\\x89PNG'\n")


def test_a_name_is_drawn_as_it_is_with_dollar_signs():
    counted = pd.DataFrame([("sum", r"it is not $5_$ or \alpha", 3)], columns=["exercise", "reply", "learners"])
    figure = plots.misconceptions(counted)
    plots.png(figure)
    assert r"sum: it is not $5_$ or \alpha" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_letters_that_matplotlibs_font_lacks_are_taken_from_an_installed_font():
    figure = plots.photos([np.zeros((8, 8, 3), np.uint8)], ["ᶁ cat"])  # in STIX, which comes with Matplotlib
    with warnings.catch_warnings(action="error"):
        plots.png(figure)


# Lesson 01


def test_sample_images_stand_beside_their_original_labels(task: Task):
    figure = rendered(plots.sample_images([task], per_class=3))
    assert len(figure.axes) == 9  # three classes, three images each
    rows = np.array(figure.axes).reshape(3, 3)
    assert [texts(row[0]) for row in rows] == [["9"], ["5"], ["7"]]
    first_of_each = [11, 13, 14], [12, 15, 17], [10, 16]  # gray values of labels 0, 1 and 2, in the task's order
    for row, expected in zip(rows, first_of_each, strict=True):
        assert [int(image[0, 0, 0]) for axis in row for image in images(axis)] == expected


def test_sample_images_give_each_task_a_place_under_its_name_whatever_its_size(digits: Dataset):
    tasks = split_tasks(digits, [0, 1, 2, 3, 4, 5, 6], [7, 8, 9])
    figure = rendered(plots.sample_images(tasks, per_class=1))
    assert [panel.get_suptitle() for panel in figure.subfigs] == ["source task", "target task"]
    assert [texts(axis) for axis in figure.axes if axis.texts] == [[str(label)] for label in range(10)]
    assert figure.alternative_text == (
        "Training images, one row per class. Source task: 0, 1, 2, 3, 4, 5, 6. Target task: 7, 8, 9."
    )


def test_class_counts_are_stacked_bars_of_training_validation_and_test(task: Task):
    figure = rendered(plots.class_counts([task]))
    (axis,) = figure.axes
    bars = {container.get_label(): container for container in axis.containers}
    assert {name: [bar.get_height() for bar in bars[name]] for name in bars} == {
        "training": [4, 3, 2],
        "validation": [1, 1, 1],
        "test": [2, 2, 2],
    }
    assert [bar.get_y() for bar in bars["test"]] == [5, 4, 3]  # above the others
    assert tick_labels(axis.xaxis) == ["9", "5", "7"]
    assert (axis.get_title("left"), axis.get_xlabel(), axis.get_ylabel()) == ("target task", "class", "images")
    assert "between 5 and 7 images each" in figure.alternative_text


def of_classes(classes: tuple, channels: int = 1) -> Task:
    """Make a task with these classes and two images per class in each split."""
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), 2)
    split = Split(np.zeros((len(labels), 8, 8, channels), np.uint8), labels)
    return Task("target", classes, split, split, split)


@pytest.mark.parametrize(("number", "letters"), [(2, 30), (25, 30)])
def test_classes_can_be_read_however_many_and_however_long(number: int, letters: int):
    task = of_classes(tuple(f"{place:02}{'e' * (letters - 2)}" for place in range(number)))
    scores = np.eye(number)[(task.test.labels + 1) % number]
    for figure in (plots.class_counts([task, task]), plots.confusion(task, scores)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        for axis in (axis for panel in figure.axes[:2] for axis in (panel.xaxis, panel.yaxis)):
            names = [label for label in axis.get_ticklabels() if "e" in label.get_text()]
            assert len(names) in (0, number)
            boxes = [label.get_window_extent(renderer) for label in names]
            assert not any(a.overlaps(b) for a, b in pairwise(boxes))
            assert all(min(box.x0, box.y0) >= 0 for box in boxes)


def test_sample_images_are_in_color_if_the_data_is_and_of_many_classes_the_first_twelve():
    task = of_classes((0, 1), channels=3)
    task.train.images[:] = (255, 0, 128)
    figure = rendered(plots.sample_images([of_classes(tuple(range(50))), task], per_class=1))
    assert [panel.get_suptitle() for panel in figure.subfigs] == ["target task, 12 of 50 classes", "target task"]
    assert len([axis for axis in figure.axes if axis.texts]) == 14
    assert images(figure.subfigs[1].axes[0])[0][0, 0].tolist() == [255, 0, 128]


def test_the_confusion_matrix_of_many_classes_is_color_on_a_scale():
    task = of_classes(tuple(range(16)))
    axis, scale = rendered(plots.confusion(task, np.eye(16)[task.test.labels])).axes
    assert texts(axis) == []
    assert np.array_equal(images(axis)[0], 2 * np.eye(16))
    assert scale.get_ylabel() == "images"


# Lesson 02


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    """Return the costs of the published network's layers."""
    return cnn.layer_costs(cnn.build_cnn(cnn.Architecture()))


def test_the_network_shows_each_layers_share_of_parameters_and_of_multiply_adds(costs: pd.DataFrame):
    figure = rendered(plots.network(costs))
    parameters, multiply_adds = figure.axes
    assert titles(figure.axes) == ["parameters", "multiply-adds"]
    assert parameters.get_xlabel() == multiply_adds.get_xlabel() == "share of the total [%]"
    assert [bar.get_width() for bar in parameters.patches] == pytest.approx([*(100 * costs["parameters"] / 600_165)])
    assert texts(parameters) == ["320 (0.053%)", "9,248 (1.5%)", "589,952 (98%)", "645 (0.11%)"]
    assert texts(multiply_adds) == ["194,688 (3.2%)", "5,308,416 (87%)", "589,824 (9.7%)", "640 (0.011%)"]
    assert tick_labels(parameters.yaxis)[-1] == "scores  5" and parameters.yaxis_inverted()  # the input is at the top
    assert figure.get_suptitle() == "The convolutions have 1.6% of the parameters and do 90.3% of the work"


def convolution(filters: int, size: float) -> keras.Model:
    """Build a network whose first kernels have evenly spaced weights from minus `size` to `size`."""
    model = cnn.build_cnn(cnn.Architecture((8, 8, 1), filters=filters, dense_units=2))
    kernel = np.linspace(-size, size, 9 * filters, dtype=np.float32).reshape(3, 3, 1, filters)
    model.get_layer("conv1").set_weights([kernel, np.zeros(filters)])
    return model


def test_the_network_cut_in_two_shows_what_leaves_each_layer_and_passes_the_cut():
    figure = rendered(plots.cut_in_two(cnn.build_cnn(cnn.Architecture())))
    (axis,) = figure.axes
    assert {"image", "28×28×1", "conv1", "26×26×32", "pool", "12×12×32", "dense1", "128", "scores", "5"} <= {
        *texts(axis)
    }
    places = {text.get_text(): text.get_position()[0] for text in axis.texts}
    (cut,) = {x for line in axis.lines if line.get_linestyle() == "--" for x in line.get_xdata()}
    assert places["pool"] < cut < places["dense1"]
    assert "For each image, 12 × 12 × 32 = 4,608 numbers pass the cut" in figure.alternative_text


def test_strategies_are_filled_where_they_come_from_the_source_task_and_hatched_where_they_are_frozen():
    shown = list(STRATEGIES.values())
    (axis,) = rendered(plots.strategies([*STRATEGIES])).axes
    blocks = axis.patches  # features and head of each strategy in turn
    for strategy, features, head in zip(shown, blocks[::2], blocks[1::2], strict=True):
        color = to_hex(STYLES[strategy.name]["color"])
        filled = [to_hex(block.get_facecolor()) == color for block in (features, head)]
        assert filled == [strategy.start == "pretrained", strategy.head == "reused"]
        assert [bool(block.get_hatch()) for block in (features, head)] == [strategy.freezes, False]
        assert to_hex(features.get_edgecolor()) == to_hex(head.get_edgecolor()) == color


def test_filters_of_all_networks_and_lessons_have_the_same_shades():
    models = {"untrained": convolution(4, 0.1), "trained": convolution(40, 2.0)}
    figure = rendered(plots.filters(models))
    rows = [[axis for axis in figure.axes[start : start + 10] if axis.get_visible()] for start in (0, 10)]
    for row, (title, model) in zip(rows, models.items(), strict=True):
        assert [text.get_text() for text in row[0].texts] == [title]
        kernels = model.get_layer("conv1").get_weights()[0]
        assert len(row) == min(10, kernels.shape[-1])
        limit = 2 * math.sqrt(6 / (9 * (1 + kernels.shape[-1])))  # from black at -limit to white at limit
        for index, axis in enumerate(row):
            (picture,) = images(axis)
            assert np.allclose(picture, np.clip(0.5 + kernels[..., index] / (2 * limit), 0, 1))
    assert "untrained above trained: dark is negative, bright positive" in figure.alternative_text


def test_feature_maps_stand_beside_their_image_on_one_scale():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    maps = np.arange(4 * 32, dtype=np.float32).reshape(2, 2, 32)
    figure = rendered(plots.feature_maps(image, maps, shown=3))
    assert titles(figure.axes) == ["image", "map 0", "map 1", "map 2"]
    for index, axis in enumerate(figure.axes[1:]):
        assert np.array_equal(images(axis)[0], maps[:, :, index])
        assert axis.get_images()[0].get_clim() == (0, 127)
    assert "3 of the 32 feature maps" in figure.alternative_text


# Lesson 03


def test_learning_curves_show_both_accuracies_in_percent_by_update_and_name_them():
    history = pd.DataFrame({"update": [50, 100], "accuracy": [0.8, 0.9], "validation_accuracy": [0.85, 0.953]})
    short = history.assign(validation_accuracy=[0.6, 0.643])[:1]
    figure = rendered(plots.learning_curves({"rate 1.0": history, "rate 0.001": short}))
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("updates", "accuracy [%]")
    training, validation, *others = axis.lines
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    for line, percent in ((training, [80, 90]), (validation, [85, 95.3])):
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([50, 100], pytest.approx(percent))
    named = {text.get_text(): text.get_color() for text in axis.texts[:2]}
    assert named == {"rate 1.0": training.get_color(), "rate 0.001": others[0].get_color()}
    assert "rate 1.0: 95.3%; rate 0.001: 60.0%" in figure.alternative_text


def test_the_confusion_matrix_counts_true_labels_by_row_and_predicted_ones_by_column(task: Task):
    figure = rendered(plots.confusion(task, SCORES))
    (axis,) = figure.axes
    written = {text.get_position(): text.get_text() for text in axis.texts}
    expected = [[1, 1, 0], [0, 1, 1], [1, 0, 1]]  # rows 9, 5 and 7
    assert written == {(column, row): str(expected[row][column]) for row in range(3) for column in range(3)}
    assert np.array_equal(images(axis)[0], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # color marks only errors
    assert tick_labels(axis.xaxis) == tick_labels(axis.yaxis) == ["9", "5", "7"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert axis.get_title("left") == "target task: 3 of 6 test images are wrong"
    assert figure.alternative_text == "Confusion matrix of classes 9, 5, 7: 3 of 6 test images are wrong."
    figure = plots.confusion(task, np.eye(3)[[0, 1, 1]], split="validation")
    assert figure.alternative_text == "Confusion matrix of classes 9, 5, 7: 1 of 3 validation images are wrong."


# Lesson 04


def test_neighbors_of_another_class_have_a_frame(task: Task):
    nearest = {"pixels": np.array([[1, 0], [5, 1]]), "features": np.array([[1, 3], [2, 5]])}
    asked = Split(task.validation.images[:2], task.validation.labels[:2])
    figure = rendered(plots.neighbors(asked, task.train, nearest))
    new, *panels = figure.axes
    assert [int(image[0, 0, 0]) for image in images(new)] == [100, 101]
    assert titles(panels) == ["pixels: 2 differ", "features: 0 differ"]
    for panel, indices in zip(panels, nearest.values(), strict=True):
        assert [int(image[0, 0, 0]) for image in images(panel)] == (10 + indices.ravel()).tolist()
    framed = [[[int(edge) for edge in patch.get_xy()] for patch in panel.patches] for panel in panels]
    assert framed == [[[1, 0], [1, 1]], []]
    assert figure.alternative_text.endswith("Neighbors in other classes: pixels: 2 of 4; features: 0 of 4.")


# Lesson 05


def test_overfitting_draws_each_seed_and_their_mean_on_training_and_on_new_images():
    rows = [(0, 0.2, 0.2), (10, 1.0, 0.8), (0, 0.4, 0.2), (10, 1.0, 0.9)]
    curves = pd.DataFrame(rows, columns=["update", "training", "new"]).assign(seed=[0, 0, 1, 1], strategy="frozen")
    figure = rendered(plots.overfitting(pd.concat([curves, curves.assign(strategy="scratch", new=0.5)])))
    frozen, scratch = figure.axes
    assert titles(figure.axes) == ["frozen", "scratch"]
    heights = [line.get_ydata().tolist() for line in frozen.lines]
    assert heights[:3] == [[20, 100], [40, 100], pytest.approx([30, 100])]
    assert heights[3:] == [[20, 80], [20, 90], pytest.approx([20, 85])]
    assert {line.get_color() for line in frozen.lines} == {TRAINING, VALIDATION}
    assert texts(scratch) == ["training images 100%", "new images 50%"]
    assert "frozen, new images 85%; scratch, training images 100%" in figure.alternative_text


def test_mistakes_by_strategy_show_one_labels_errors_the_most_confident_first(task: Task):
    worse = SCORES.copy()
    worse[0] = [0.1, 0.2, 0.7]  # 9 mistaken for 7, more confidently than the other for 5
    figure = rendered(plots.mistakes_by_strategy(task, {"frozen": SCORES, "scratch": worse}, of_class=9, shown=3))
    frozen, scratch = np.array(figure.axes).reshape(2, 3)
    assert (texts(frozen[0]), texts(scratch[0])) == (["frozen\n1 wrong"], ["scratch\n2 wrong"])
    assert titles(frozen) == ["as 5, 60%", "", ""]
    assert titles(scratch) == ["as 7, 70%", "as 5, 60%", ""]
    assert [int(image[0, 0, 0]) for axis in frozen for image in images(axis)] == [201]
    assert [int(image[0, 0, 0]) for axis in scratch for image in images(axis)] == [200, 201]
    assert figure.get_suptitle() == "Test images of 9, taken for something else"
    assert figure.alternative_text == "Misclassified images of 9, out of 2, by strategy: frozen: 1; scratch: 2."


def test_errors_by_labels_are_drawn_in_each_strategys_style_with_intervals_and_names(summary: pd.DataFrame):
    figure = rendered(plots.errors_by_labels(summary.iloc[::-1]))  # the order of the rows doesn't matter
    (axis,) = figure.axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert tick_labels(axis.xaxis) == ["10", "50", "all"]
    names = {name.get_text(): name for name in axis.texts}
    for strategy, line, bands in zip(STRATEGIES, axis.lines, axis.collections, strict=True):
        rows = summary[summary["strategy"] == strategy].set_index("labels_per_class").loc[[10, 50, "all"]]
        rows = 100 - 100 * rows[["accuracy", "accuracy_low"]]
        assert line.get_ydata().tolist() == pytest.approx(rows["accuracy"].tolist())
        heights = np.concatenate([path.vertices[:, 1] for path in bands.get_paths()])
        assert heights.max() == pytest.approx(rows["accuracy_low"].max())
        style = {"color": line.get_color(), "marker": line.get_marker(), "linestyle": line.get_linestyle()}
        assert style == STYLES[strategy]
        assert names[strategy].get_color() == line.get_color()


def test_errors_by_labels_say_seeds_and_findings(summary: pd.DataFrame):
    figure = plots.errors_by_labels(summary[summary["labels_per_class"] != 50])
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("labels per class", "errors on new images [%]")
    found = "Frozen against scratch: better with 10 labels, no detectable difference with all"
    assert axis.get_title("left").replace("\n", " ").strip() == found
    other = plots.errors_by_labels(summary, about="random-frozen").axes[0].get_title("left")
    assert other.startswith("Random-frozen against scratch: ")
    assert figure.alternative_text == (
        "Errors by labels per class, mean of 3 seeds with 95% intervals: with 10 labels per class, 7.0% to 12.3%, "
        "better than scratch: frozen, head-first, fine-tuned, random-frozen, reused-head; with all labels per class, "
        "0.2% to 1.1%, worse than scratch: random-frozen."
    )


def test_errors_of_one_seed_have_no_interval_and_name_no_best(summary: pd.DataFrame):
    missing = [name for name in summary if name.endswith(("_low", "_high"))]
    told = summary["finding"].where(summary["strategy"] == "scratch", Finding.CANNOT_TELL)
    one = summary.assign(seeds=1, finding=told, **dict.fromkeys(missing, math.nan))
    figure = rendered(plots.errors_by_labels(one))
    assert "Target task, one seed, no interval" in texts(figure.axes[0])
    assert not names_a_best(figure.alternative_text)


def test_errors_stand_at_their_share_and_the_cuts_of_a_backbone_are_joined(summary: pd.DataFrame):
    cuts = summary.replace({"frozen": "block 3", "reused-head": "block 6"})
    cuts = cuts[cuts["strategy"].isin(["scratch", "block 3", "block 6"])]
    figure = rendered(plots.errors_by_strategy(cuts, "Found", ["block 3", "block 6"]))
    assert titles(figure.axes) == [f"{budget} labels per class" for budget in (10, 50, "all")]
    assert figure.axes[0].get_xscale() == "log" and figure.get_suptitle() == "Found"
    assert figure.axes[0].lines[-1].get_xdata().tolist() == pytest.approx([7.17, 7.94])
    assert "with 10 labels per class, scratch 12%, block 3 7.2%, block 6 7.9%" in figure.alternative_text
    certain = cuts.assign(accuracy=1.0, accuracy_low=1.0, accuracy_high=1.01)  # zero errors have no logarithm
    rendered(plots.errors_by_strategy(certain, "Found"))


def test_reliability_counts_all_images_by_how_sure_the_network_is():
    scores = np.repeat([[0.9, 0.1], [0.6, 0.4]], 10, axis=0)
    labels = np.repeat([0, 1, 0, 1], [8, 2, 5, 5])
    figure = rendered(plots.reliability(scores, labels, bins=2))
    assert figure.axes[0].get_title("left") == "75% sure on average, 65% right"
    points = [line.get_xydata()[0].tolist() for line in figure.axes[0].lines[1:]]
    assert points == [pytest.approx([60, 50]), pytest.approx([90, 80])]


def test_seconds_stand_at_their_medians_without_and_with_pretraining_beside_the_errors(summary):
    figure = rendered(plots.seconds_by_strategy(summary))
    assert not names_a_best(figure.alternative_text)
    assert titles(figure.axes) == [f"{budget} labels per class" for budget in (10, 50, "all")]
    axis = figure.axes[0]
    assert axis.get_xscale() == "log" and tick_labels(axis.yaxis)[:2] == ["scratch", "frozen"]
    spans = {line.get_color(): line.get_xdata().tolist() for line in axis.lines[::3]}
    shown = [spans[STYLES[name]["color"]] for name in ("scratch", "frozen")]
    assert shown == [[2.40, 2.40], pytest.approx([0.58, 10.08])] and "7.2%" in texts(axis)
    for boxes in ([text.get_window_extent() for text in axis.texts] for axis in figure.axes):
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert "frozen 0.58 s, 10 s with pretraining" in figure.alternative_text


def results(**columns: object) -> pd.DataFrame:
    """Return result rows as in `results.csv`, for two strategies, two budgets, and two seeds."""
    rows = [
        (strategy, budget, seed, str(0.9 + gain + int(seed) / 50))
        for strategy, gain in (("frozen", 0.02), ("scratch", 0.0))
        for budget in ("all", "10")
        for seed in ("0", "1")
    ]
    return pd.DataFrame(rows, columns=["strategy", "labels_per_class", "seed", "test_accuracy"]).assign(**columns)


def test_a_sweep_over_seeds_draws_points_with_their_mean_and_interval_and_no_line():
    rows = results().assign(parameter_seeds=lambda rows: "[" + rows["seed"] + "]")
    figure = rendered(plots.accuracy_by_parameter(rows, {"seeds": "parameter_seeds"}))
    assert titles(figure.axes) == ["10 labels per class", "all labels per class"]
    for axis in figure.axes:
        assert tick_labels(axis.xaxis) == ["scratch", "frozen"]
        heights = [line.get_ydata().tolist() for line in axis.lines]  # points, then mean, of each
        assert heights == [pytest.approx(values) for values in ([90, 92], [91], [92, 94], [93])]
        assert axis.lines[0].get_linestyle() == "None"
        assert len(axis.collections) == 2  # the intervals
    text = figure.alternative_text
    assert "means of 2 seeds with 95% intervals" in text and "scratch 91.00 ± 12.71%" in text
    assert not names_a_best(text)


def test_a_sweep_shows_each_label_budget_by_itself_and_joins_numbers_alone():
    values = [(recipe, rate) for recipe in ("fast", "published") for rate in ("0.1", "1.0")]
    parts = [
        results(recipe=recipe, rate=rate).assign(gain=0.005 * place) for place, (recipe, rate) in enumerate(values)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows["test_accuracy"] = (rows["test_accuracy"].astype(float) + rows["gain"]).astype(str)
    figure = rendered(plots.accuracy_by_parameter(rows, {"recipe": "recipe", "learning_rate": "rate", "seed": "seed"}))
    assert [axis.get_xlabel() for axis in figure.axes] == ["recipe"] * 2 + ["learning_rate"] * 2
    recipe, _, rate, _ = figure.axes
    assert tick_labels(recipe.xaxis) == ["fast", "published"]
    for axis, ends, joined in ((recipe, [91.25, 92.25], False), (rate, [91.5, 92], True)):
        scratch, frozen = axis.lines
        assert scratch.get_ydata().tolist() == pytest.approx(ends)
        assert frozen.get_ydata().tolist() == pytest.approx([end + 2 for end in ends])
        assert (scratch.get_linestyle() != "None") == joined
        assert [line.get_color() for line in axis.lines] == [STYLES[name]["color"] for name in ("scratch", "frozen")]
    assert not names_a_best(figure.alternative_text)


def trees(*grid: tuple[int, int, int]) -> pd.DataFrame:
    """Return rows by depth, leaf size and seed; leaves of 5 cost 10 points, and each level of depth gains one."""
    rows = [(f"run {run}", *run, 0.8 + run[0] / 100 - (run[1] - 1) / 40) for run in grid]
    return pd.DataFrame(rows, columns=["run", "depth", "min_leaf", "seed", "test_accuracy"]).astype(str)


def test_a_sweep_with_holes_in_its_grid_compares_equal_settings_and_counts_the_seeds():
    runs = [(5, 1, 0), *product((2, 4), (1, 5), (0, 1))]
    axes = {name: name for name in ("depth", "min_leaf", "seed")}
    figure = rendered(plots.accuracy_by_parameter(trees(*runs), axes))
    heights = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert heights == {"min_leaf=1": pytest.approx([82, 84, 85]), "min_leaf=5": pytest.approx([72, 74])}
    assert "Test accuracy, seed 0 only, as some settings lack the others; one seed" in figure.alternative_text
    apart = rendered(plots.accuracy_by_parameter(trees((5, 1, 2), *runs[1:]), axes)).alternative_text
    assert "settings have different seeds, so they cannot be compared fairly; means of 1 to 2 seeds" in apart
    assert "by depth, a line for each setting of min_leaf, from 72.0% to 85.0%" in figure.alternative_text
    full = rendered(plots.accuracy_by_parameter(trees(*runs[1:]), axes))
    assert [line.get_ydata().tolist() for line in full.axes[0].lines] == [pytest.approx([77, 79])], "no hole, so a mean"


def test_the_folds_of_a_run_are_counted_as_rows_and_not_as_a_seed():
    folds = pd.concat([trees((2, 1, 0), (4, 1, 0)).drop(columns="seed")] * 5)
    text = plots.accuracy_by_parameter(folds, {"depth": "depth"}).alternative_text
    assert text.startswith("Test accuracy, means of 5 rows: ")


# Lesson 07


def test_a_cheap_test_stands_beside_test_accuracy_and_the_choice_is_marked():
    rows = [(seed, "scratch", np.nan, 0.8, False) for seed in (0, 1)]
    rows += [(seed, "pixels", 0.7 + 0.1 * seed, 0.9, seed == 1) for seed in (0, 1)]
    scores = pd.DataFrame(rows, columns=["seed", "strategy", "logistic", "test_accuracy", "chosen"])
    figure = rendered(plots.cheap_and_true(scores, "A title"))
    cheap, true = figure.axes
    assert tick_labels(cheap.yaxis) == ["pixels\nchosen with 1 of 2 seeds", "scratch"], "the best comes first"
    assert texts(cheap) == ["75.0", "nothing to test"] and texts(true) == ["90.0", "80.0"]
    assert [line.get_xdata().tolist() for line in cheap.lines] == [pytest.approx([70, 80]), [pytest.approx(75)]]
    colors = [to_hex(line.get_color()).upper() for line in true.lines]
    assert colors == [VALIDATION, VALIDATION, TRAINING, TRAINING]
    assert figure.alternative_text.endswith("pixels 90.0%, scratch 80.0%. Chosen: pixels with 1 of 2 seeds.")


def test_a_map_of_pairs_is_pale_where_nothing_is_found_and_white_where_no_pair_is():
    pairs = [("all", "one", "a", 4.0, Finding.WORSE), ("10", "one", "a", 0.5, Finding.BETTER)]
    pairs += [("10", "two", "b", 1.5, str(Finding.CANNOT_TELL)), ("5", "one", "a", 1.0, Finding.AS_GOOD)]
    table = pd.DataFrame(pairs, columns=["labels_per_class", "start", "target", "error_ratio", "finding"])
    figure = rendered(plots.map_of_pairs(table, "Times the errors"))
    few, ten, every, empty = figure.axes
    assert titles([few, ten, every]) == [f"{n} labels per class" for n in (5, 10, "all")]
    assert not empty.axison
    assert [texts(axis) for axis in (few, ten, every)] == [["1.00"], ["0.50", "1.50"], ["4.00"]]
    (image,) = ten.images
    assert image.get_alpha().tolist() == [[1.0, 0.3], [0.3, 0.3]]
    assert np.isnan(image.get_array().filled(np.nan)).tolist() == [[False, True], [True, False]]
    assert "from 0.50 to 4.00: 2 starts and 2 target tasks, with 5, 10, all" in figure.alternative_text

"""What every figure is made of: its size, its alternative text, the strategies' colours; and buttons that redraw one.

A figure carries a sentence of alternative text that says what it shows. IPython puts it into the output's metadata,
and nbconvert into the HTML.
"""

import textwrap
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import matplotlib.figure
import matplotlib.style
import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis

from helpers.images import Classes
from helpers.transfer import STRATEGIES

if TYPE_CHECKING:
    import ipywidgets


# Okabe and Ito's palette, which colour-blind readers can tell apart; marker and line tell the strategies apart in grey.
COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00", "#56B4E9")  # one more than is needed
MARKERS, LINES = "os^DvPX", ("-", "-", "--", ":", "-.", "--", ":")
STYLES: dict[str, dict[str, Any]] = {  # how Matplotlib draws a line and its points
    name: {"color": color, "marker": marker, "linestyle": line}
    for name, color, marker, line in zip((*STRATEGIES, "backbone"), COLOURS, MARKERS, LINES, strict=False)
}
TRAINING, VALIDATION = "#0072B2", "#D55E00"
WIDTH = 8.0  # inches


class Figure(matplotlib.figure.Figure):  # so named, as a notebook shows the name
    """A Matplotlib figure with alternative text: one sentence that says what it shows."""

    alternative_text = ""


as_designed = matplotlib.style.context("default")  # a function draws so, whatever the user's matplotlibrc says


@as_designed
def png(figure: Figure) -> tuple[bytes, dict[str, str]]:
    """Render a figure as a PNG image, with its alternative text as the metadata that a notebook's output has."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue(), {"alt": figure.alternative_text}


# Matplotlib's own formatter for notebooks knows nothing of alternative text, so ours takes the more specific class.
if shell := get_ipython():
    shell.display_formatter.formatters["image/png"].for_type(Figure, png)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make an empty figure, sizes in inches. Pyplot does not manage it, so a notebook shows it once and frees it."""
    return Figure(figsize=(width, height), layout="constrained")


def described(figure: Figure, text: str) -> Figure:
    """Give a finished figure its alternative text."""
    figure.alternative_text = text
    return figure


def show_image(axis: Axes, image: np.ndarray) -> None:
    """Draw one image `(height, width, channels)`, in grey or in colour."""
    axis.set_axis_off()
    axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))


def two_digits(number: float) -> str:
    """Write a number with two significant digits, such as 0.043, 1.6 or 250, since "0.0 s" would say nothing."""
    return np.format_float_positional(number, precision=2, unique=False, fractional=False, trim="k").rstrip(".")


def wrapped(name: object) -> str:
    """Break a class's name into lines that leave room for an image."""
    return textwrap.fill(str(name), 14)


def name_classes(axis: XAxis | YAxis, classes: Classes) -> float:
    """Write a class beside each tick, along the axis if it is short; return the inches that the names take up."""
    names = [str(name) for name in classes]
    longest, size = max(map(len, names)), 10 if len(names) <= 15 else 7
    upright = axis.axis_name == "x" and (longest + 1) * len(names) > 36
    axis.set_ticks(range(len(names)), labels=names, fontsize=size, rotation=90 if upright else 0)
    return longest * size / 120 if upright or axis.axis_name == "y" else 0.2


def browse(draw: Callable[..., Figure], **choices: Sequence[object]) -> "ipywidgets.VBox":
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

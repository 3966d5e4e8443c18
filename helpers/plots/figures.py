"""Everything that figures share: size, alternative text, the strategies' colors, and the layout of names.

IPython puts a figure's alternative text into the output's metadata, and nbconvert copies it from there into the HTML.
"""

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import FigureBase
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from helpers.images import Classes
from helpers.transfer import STRATEGIES

# Color-blind readers can tell Okabe and Ito's colors apart; in grayscale, markers and line styles set strategies apart.
COLORS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00", "#56B4E9")  # one to spare
MARKERS, LINES = "os^DvPX", ("-", "-", "--", ":", "-.", "--", ":")
STYLES: dict[str, dict[str, Any]] = {  # how Matplotlib draws a line and its points
    name: {"color": color, "marker": marker, "linestyle": line}
    for name, color, marker, line in zip((*STRATEGIES, "backbone"), COLORS, MARKERS, LINES, strict=False)
}
TRAINING, VALIDATION = "#0072B2", "#D55E00"
WIDTH = 8.0  # inches
BARE: dict[str, Any] = {"frame_on": False, "xticks": (), "yticks": ()}  # subplots that show only what is drawn in them
MOST_CLASSES = 15  # with more, type is smaller, a matrix has no numbers, and panels are stacked


class Figure(matplotlib.figure.Figure):  # a notebook without pictures shows this name
    """A Matplotlib figure with alternative text: one sentence that says what it shows."""

    alternative_text = ""


# A decorator that gives figures the course's look, whatever the user's matplotlibrc says.
as_designed = matplotlib.style.context(["default", Path(__file__).with_name("course.mplstyle")])


@as_designed
def png(figure: Figure) -> tuple[bytes, dict[str, str]]:
    """Render a figure as a PNG image of at most 256 colors, and return it with its metadata for IPython.

    In full color, an image with photos would be four times as large, and a page with several of them would load slowly.
    """
    buffer, light = BytesIO(), BytesIO()
    texts = figure.findobj(Text)
    if fallback := fallback_fonts(frozenset("".join(text.get_text() for text in texts))):
        for text in texts:
            text.set_fontfamily(["sans-serif", *fallback])
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    Image.open(buffer).convert("RGB").quantize(256).save(light, "PNG", optimize=True)
    return light.getvalue(), {"alt": figure.alternative_text}


@cache
def fallback_fonts(letters: frozenset[str]) -> list[str]:
    """Return installed fonts for letters that Matplotlib's own font lacks, such as those in Chinese class names."""
    own, fonts = get_font(findfont("DejaVu Sans")).get_charmap(), []
    missing = {ord(letter) for letter in letters if letter.isprintable()} - own.keys()
    for font in fontManager.ttflist if missing else []:
        with suppress(OSError, RuntimeError):  # damaged, or removed since Matplotlib listed it
            letters_of = missing & {*get_font(font.fname).get_charmap()}
            if letters_of and "Last Resort" not in font.name:  # this font draws only boxes
                fonts.append(font.name)
                missing -= letters_of
    return fonts


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make an empty figure, sized in inches. Pyplot does not manage it, so a notebook shows it once and frees it."""
    return Figure(figsize=(width, height), layout="constrained")


def with_alt_text(figure: Figure, text: str) -> Figure:
    """Give a finished figure its alternative text, and return it."""
    figure.alternative_text = text
    return figure


def headline(figure: FigureBase, text: str) -> None:
    """Write a left-aligned headline across the top of a figure or a part of it."""
    figure.suptitle(text, x=0.01, ha="left")


def log_scale(axis: XAxis | YAxis) -> None:
    """Make an axis logarithmic, so that equal ratios are equal distances, with plain numbers at 1, 2 and 5."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def show_rows(axis: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure instead of showing a y-axis: the first row on top, with room for a number above it."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.7)
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


def show_image(axis: Axes, image: np.ndarray, extent: tuple[float, float, float, float] | None = None) -> None:
    """Draw one image `(height, width, channels)`, in gray or in color; `extent` says where, as in `imshow`."""
    axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), extent=extent)


def two_digits(number: float) -> str:
    """Write a number with two significant digits, such as 0.043, 1.6 or 250, since "0.0 s" would say nothing."""
    return np.format_float_positional(number, precision=2, unique=False, fractional=False, trim="k").rstrip(".")


def wrapped(name: object) -> str:
    """Break the name of a class into lines short enough to leave room for an image."""
    return textwrap.fill(str(name), 14)


def name_classes(axis: XAxis | YAxis, classes: Classes) -> float:
    """Write the classes at the ticks, along the axis if they are short; return the space they take up, in inches."""
    names = [str(name) for name in classes]
    longest, size = max(map(len, names)), 10 if len(names) <= MOST_CLASSES else 7
    upright = axis.axis_name == "x" and (longest + 1) * len(names) > 36
    axis.set_ticks(range(len(names)), labels=names, fontsize=size, rotation=90 if upright else 0)
    return longest * size / 120 if upright or axis.axis_name == "y" else 0.2

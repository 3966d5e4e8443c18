"""What a notebook shows: figures with alternative text, tables that look the same for everyone, buttons."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.plots.figures import Figure, png

if TYPE_CHECKING:
    import ipywidgets


def set_up(shell: Any) -> None:
    """Make an IPython shell show figures with their alternative text, and tables, arrays and values by default options.

    Importing `plots` in a notebook calls it, and every lesson does so before it shows anything. Its outputs are then
    the same whatever a startup file or an earlier cell has set.
    """
    # Matplotlib's own formatter ignores alternative text; IPython prefers ours, as it is for the more specific class.
    shell.display_formatter.formatters["image/png"].for_type(Figure, png)
    shell.ast_node_interactivity = "last_expr"
    with warnings.catch_warnings(action="ignore"):  # pandas warns of options that it will remove
        pd.reset_option("all")
    np.set_printoptions(edgeitems=3, threshold=1000, precision=8, floatmode="maxprec", suppress=False, linewidth=75)
    np.set_printoptions(nanstr="nan", infstr="inf", sign="-", formatter=None, legacy=False)


def browse(draw: Callable[..., Figure], **choices: Sequence[object]) -> "ipywidgets.VBox":
    """Return a row of buttons for each argument of `draw`, above its figure, which every choice redraws.

    `ipywidgets.interact` would show any kind of output, but it can make a headless run wait forever (nbclient issue
    312). Raises ImportError that says what to install if ipywidgets is missing.
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

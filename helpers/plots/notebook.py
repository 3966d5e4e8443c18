"""Notebook output: figures with alternative text, and tables that look the same for everyone."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from helpers.plots.figures import Figure, png


def set_up(shell: Any) -> None:
    """Make an IPython shell show figures with alternative text, and tables, arrays and values with default options.

    Importing `plots` in a notebook calls this function. Every lesson does so before it shows anything, so a lesson's
    outputs are the same, whatever a startup file or an earlier cell has set.
    """
    # Matplotlib's own formatter ignores alternative text. IPython prefers ours, which is for a more specific class.
    shell.display_formatter.formatters["image/png"].for_type(Figure, png)
    shell.ast_node_interactivity = "last_expr"
    with warnings.catch_warnings(action="ignore"):  # pandas warns about options that it will remove
        pd.reset_option("all")
    np.set_printoptions(edgeitems=3, threshold=1000, precision=8, floatmode="maxprec", suppress=False, linewidth=75)
    np.set_printoptions(nanstr="nan", infstr="inf", sign="-", formatter=None, legacy=False)

# ruff: noqa: E402 - Matplotlib reads the user's settings while it is imported
"""One function per figure: each takes results and returns a Matplotlib `Figure` with alternative text.

All lessons import this before they show anything. So it also gives their tables and arrays the looks that pandas,
NumPy and IPython come with, whatever a startup file or an earlier cell has set.
"""

import logging
import warnings

import numpy as np
import pandas as pd
from IPython import get_ipython

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a folder or a setting of the user's is not a lesson's output
with warnings.catch_warnings(action="ignore"):  # options on their way out
    pd.reset_option("all")
np.set_printoptions(edgeitems=3, threshold=1000, precision=8, floatmode="maxprec", suppress=False, linewidth=75)
np.set_printoptions(nanstr="nan", infstr="inf", sign="-", formatter=None, legacy=False)
if shell := get_ipython():
    shell.ast_node_interactivity = "last_expr"

from helpers.plots.comparisons import (
    accuracy_by_depth,
    accuracy_by_labels,
    accuracy_by_parameter,
    accuracy_by_seconds,
)
from helpers.plots.figures import browse, png, two_digits
from helpers.plots.networks import (
    cut_in_two,
    epoch_seconds,
    feature_maps,
    filters,
    learning_curves,
    network,
    strategies,
)
from helpers.plots.tasks import class_counts, confusion, mistakes_by_strategy, photo, sample_images

__all__ = [
    "accuracy_by_depth",
    "accuracy_by_labels",
    "accuracy_by_parameter",
    "accuracy_by_seconds",
    "browse",
    "class_counts",
    "confusion",
    "cut_in_two",
    "epoch_seconds",
    "feature_maps",
    "filters",
    "learning_curves",
    "mistakes_by_strategy",
    "network",
    "photo",
    "png",
    "sample_images",
    "strategies",
    "two_digits",
]

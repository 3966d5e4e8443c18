# ruff: noqa: E402 - Matplotlib reads the user's settings as soon as it is imported
"""One function per figure: each takes results and returns a Matplotlib `Figure` with alternative text."""

import logging

from IPython import get_ipython

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # or a lesson would show complaints about a matplotlibrc

from helpers.plots.choices import cheap_and_true as cheap_and_true, map_of_pairs as map_of_pairs
from helpers.plots.comparisons import (
    accuracy_by_parameter as accuracy_by_parameter,
    errors_by_labels as errors_by_labels,
    errors_by_strategy as errors_by_strategy,
    reliability as reliability,
    seconds_by_strategy as seconds_by_strategy,
)
from helpers.plots.figures import png as png, two_digits as two_digits
from helpers.plots.networks import (
    cut_in_two as cut_in_two,
    epoch_seconds as epoch_seconds,
    feature_maps as feature_maps,
    filters as filters,
    learning_curves as learning_curves,
    maps_by_depth as maps_by_depth,
    network as network,
    overfitting as overfitting,
    strategies as strategies,
)
from helpers.plots.notebook import set_up
from helpers.plots.tasks import (
    class_counts as class_counts,
    confusion as confusion,
    misconceptions as misconceptions,
    mistakes_by_strategy as mistakes_by_strategy,
    neighbors as neighbors,
    photos as photos,
    sample_images as sample_images,
)

if shell := get_ipython():
    set_up(shell)

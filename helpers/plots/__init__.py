"""One function per figure: each takes results and returns a Matplotlib `Figure` with alternative text."""

from helpers.plots.comparisons import accuracy_by_depth, accuracy_by_labels, accuracy_by_parameter, accuracy_by_seconds
from helpers.plots.figures import browse, png, two_digits
from helpers.plots.networks import epoch_seconds, feature_maps, filters, learning_curves, network
from helpers.plots.tasks import class_counts, confusion, mistakes_by_strategy, photo, sample_images

__all__ = [
    "accuracy_by_depth",
    "accuracy_by_labels",
    "accuracy_by_parameter",
    "accuracy_by_seconds",
    "browse",
    "class_counts",
    "confusion",
    "epoch_seconds",
    "feature_maps",
    "filters",
    "learning_curves",
    "mistakes_by_strategy",
    "network",
    "photo",
    "png",
    "sample_images",
    "two_digits",
]

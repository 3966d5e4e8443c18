"""Starts: everything that a classifier of your own images can start from without a download, trained and compared.

The atlas has the same starts: a network from scratch, the pixels, a source task's features, and MobileNet's
features after its sixth or its last block.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import cnn, files, photos
from helpers.backbones import BLOCKS, SMALL, Head, extractor, mobilenet, weights_file
from helpers.choice import TASK, few_for_tests
from helpers.cnn import Architecture
from helpers.experiment import Plan, pretrain_by_seed, result_row, train_strategies
from helpers.folders import PACKAGE
from helpers.images import Dataset, Picked, Split, fingerprint
from helpers.statistics import Interval, finding, interval, log_ratios
from helpers.tasks import Task, budgets_for, subsample
from helpers.training import RECIPES, Training
from helpers.transfer import (
    STRATEGIES,
    Features,
    Networks,
    Repetition,
    Row,
    extract_features,
    named_strategies,
)

ATLAS = PACKAGE / "data" / "atlas.csv"  # the atlas's rows, summarized by `error_ratios`
RECIPE, LARGE = RECIPES["fast"], 64  # pixels to which smaller images are enlarged for MobileNet, as in the atlas
CUTS = {f"mobilenet {block}": block for block in (6, BLOCKS)}


def load_images(my_images: str, photo_size: int = 160) -> Dataset:
    """Load a set of photos by name, or the images in a folder, an `.npz` file or a `.csv` file.

    Photos and a folder's images become squares of `photo_size` pixels. Raises ValueError for anything unreadable, and
    for a class with fewer than two training images or no test image.
    """
    if my_images in ("flowers", "ants_bees"):
        return photos.load_photos(my_images, photo_size)
    path = Path(os.path.expanduser(my_images))
    if not os.path.exists(path):
        raise ValueError(f"my_images: there is no folder or file {my_images!r}; give flowers, or {files.ALLOWED}")
    size, sizes = (photo_size, photos.SIZES) if path.is_dir() else (0, files.SIZES)
    read = files.read(path, size, "my_images", sizes)
    files.check_enough(read, "my_images")
    return read


def tasks_by_seed(
    dataset: Dataset,
    source_classes: Sequence[int | str],
    target_classes: Sequence[int | str],
    seeds: Sequence[int],
    images: Dataset | None = None,
) -> tuple[dict[int, Task], dict[int, Task]]:
    """Return the source and target tasks by seed. If there are `images`, all their classes form the target task.

    No validation images are held out from `images`, because cross-validation needs none. Raises ValueError for any plan
    that `Plan.check` refuses.
    """
    both = Plan(source_classes, target_classes, ["scratch"], ["all"], seeds).check(dataset)
    sources, targets = ({seed: tasks[place] for seed, tasks in both.items()} for place in (0, 1))
    return sources, targets if images is None else {seed: _whole_task(images, seed) for seed in seeds}


def _whole_task(images: Dataset, seed: int) -> Task:
    """Return the task of telling all classes apart; photos without a test set are split by the seed."""
    train, test = images.train, images.test
    if isinstance(images, photos.Photos):
        known, validation, held_out = images.split(seed)
        train, test = (
            Split(Picked(images.images, chosen), images.labels[chosen])
            for chosen in (np.concatenate([known, validation]), held_out)
        )
    return Task("target", images.classes, train, Split(train.images[:0], train.labels[:0]), test)


def label_budget(labels: int, targets: Mapping[int, Task]) -> int | str:
    """Return the label budget, or "all" if it exceeds the smallest class; raise ValueError if it is below two."""
    if type(labels) is not int or labels < 2:
        raise ValueError(
            f"labels: {labels!r} is too few; use at least two per class, one to learn from and one to test on"
        )
    budgets = {str(budgets_for(target.train, [labels])[0]) for target in targets.values()}
    return "all" if "all" in budgets else labels


class Starts:
    """All starts for a task, compiled once. They provide features for cheap tests, and can be trained.

    `sources` and `targets` are tasks by seed. Source networks and training runs of the course's own network are saved
    in the run folder, or reused from there.
    """

    def __init__(self, folder: Path, sources: Mapping[int, Task], targets: Mapping[int, Task]) -> None:
        self.folder, self.targets = folder, targets
        source, task = (tasks[min(tasks)] for tasks in (sources, targets))
        side, channels = task.image_shape[0], task.image_shape[2]
        self.small, self.source_shape = (min(side, SMALL), min(side, SMALL), channels), source.image_shape
        self.task, self.networks = cache(self._task), cache(lambda shape: _networks(shape, len(task.classes)))
        self.sources = pretrain_by_seed(folder, sources, _networks(source.image_shape, len(source.classes)))
        backbone = mobilenet(max(side, LARGE), weights=weights_file())
        self.cuts = {name: extractor(backbone, task.image_shape, block) for name, block in CUTS.items()}
        architecture = Architecture(self.small, len(task.classes))
        self.heads = {name: Head(cut.output_shape[1:], architecture, RECIPE) for name, cut in self.cuts.items()}
        self.tested: dict[tuple[str, str], Features] = {}  # MobileNet's features of the test images, for all seeds

    def features(self, start: str, labels: int | str, seed: int) -> Split:
        """Return features `(n, ...)` of the labeled images, at most 100 per class; test images are never used."""
        few = few_for_tests(self.targets[seed].train, labels, seed)
        if start == "pixels":
            return _flat(fitted(few, self.small))
        if start in CUTS:
            return extract_features(self.cuts[start], few, "float32")
        return extract_features(cnn.cut(self.sources[seed].model)[0], fitted(few, self.source_shape), "float32")

    def train(self, starts: Sequence[str], labels: int | str, seed: int) -> list[Row]:
        """Train from each of these starts with a label budget, and return the rows; each model is tested once."""
        by_shape = dict[tuple[int, ...], list[str]]()
        for start in starts:
            if start in STRATEGIES:
                by_shape.setdefault(self.small if start == "scratch" else self.source_shape, []).append(start)
        rows = {}
        for shape, names in by_shape.items():
            task = self.task(shape, labels, seed)
            repetition = Repetition(seed, task, self.sources[seed])
            chosen = named_strategies(names)
            for row, _ in train_strategies(self.networks(shape), chosen, [labels], repetition, self.folder):
                rows[row["strategy"]] = row
        rows |= {start: self._head(start, labels, seed) for start in starts if start in CUTS}
        rows |= {start: self._pixels(labels, seed) for start in starts if start == "pixels"}
        return [rows[start] for start in starts]

    def _task(self, shape: tuple[int, ...], labels: int | str, seed: int) -> Task:
        """Return the task with images of this shape; if they must be converted, only the labeled ones are kept."""
        task = self.targets[seed]
        if task.image_shape == shape:
            return task
        few = subsample(task.train, labels, seed)
        return replace(task, train=fitted(few, shape), test=fitted(task.test, shape))

    def _head(self, start: str, labels: int | str, seed: int) -> Row:
        """Train a head on MobileNet's features."""
        task, cut = self.targets[seed], self.cuts[start]
        train = extract_features(cut, subsample(task.train, labels, seed), "float32")
        key = start, fingerprint(task.test)
        if key not in self.tested:
            self.tested[key] = extract_features(cut, task.test, "float32")
        return self.heads[start].row(task, start, labels, seed, train, self.tested[key])[0]

    def _pixels(self, labels: int | str, seed: int) -> Row:
        """Fit a logistic regression to the pixels."""
        from sklearn.linear_model import LogisticRegression

        task = self.task(self.small, labels, seed)
        few = _flat(subsample(task.train, labels, seed))
        start = time.perf_counter()
        model = LogisticRegression(max_iter=1000).fit(few.images, few.labels)
        fit = Training(RECIPE, pd.DataFrame(), np.empty(0), 0, time.perf_counter() - start)
        return result_row(task, "pixels", labels, seed, fit, model.predict_proba(_flat(task.test).images))


def fitted(split: Split, shape: tuple[int, ...]) -> Split:
    """Convert images to a different shape: resize them, and convert them to gray or to three equal channels."""
    if split.images.shape[1:] == shape:
        return split
    images = files.as_uint8(split.images[:], "an image", shape[0])
    if images.shape[3] > shape[2]:
        images = np.rint(images @ np.array([0.299, 0.587, 0.114]))[..., np.newaxis].astype(np.uint8)  # as Pillow does
    return Split(np.broadcast_to(images, (len(split), *shape)), split.labels)


def _flat(split: Split) -> Split:
    """Return the pixels of each image as a row of numbers from 0 to 1."""
    return Split(split.images[:].reshape(len(split), -1) / 255, split.labels)


def _networks(shape: tuple[int, ...], classes: int) -> Networks:
    return Networks(Architecture(shape, classes), RECIPE)


def error_ratios(rows: pd.DataFrame, baseline: str = "scratch") -> pd.DataFrame:
    """Compare each start with a baseline on the same tasks, paired by seed; starts keep their order of appearance.

    Result rows need `choice.TASK`, strategy, source (empty if there is none), and errors. Columns of the result:
    labels_per_class, strategy, source, target, seeds, error_ratio with low and high, finding.
    """
    usual = rows[rows["strategy"] == baseline].set_index(TASK)["errors"]
    others = rows[rows["strategy"] != baseline]
    compared = usual.loc[pd.MultiIndex.from_frame(others[TASK])].to_numpy()
    logs = log_ratios(others["errors"], compared)
    by = ["labels_per_class", "strategy", "source", "target"]
    groups = logs.groupby([others[name] for name in by], sort=False, dropna=False)
    ratios = {place: (len(of_pair), Interval(*np.exp(interval(of_pair)))) for place, of_pair in groups}
    found = [(*place, seeds, *ratio, finding(ratio)) for place, (seeds, ratio) in ratios.items()]
    return pd.DataFrame(found, columns=[*by, "seeds", "error_ratio", "low", "high", "finding"])

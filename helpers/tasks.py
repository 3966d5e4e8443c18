"""Tasks: split a dataset by class, hold out validation images, and draw a label budget.

Labels are int32 `(n,)` and count from 0 within a task, which keeps the original numbers or names as `task.classes`.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from helpers.images import Classes, Dataset, Images, Picked, Split, class_name, fingerprint
from helpers.messages import check_list, listed


@dataclass(frozen=True)
class Task:
    """The images of some classes, in three splits; label `i` in a split means `classes[i]`."""

    name: str
    classes: Classes
    train: Split
    validation: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Return the height, width and channels of an image."""
        return self.train.images.shape[1:]

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the task's images and labels."""
        return fingerprint(self.train, self.validation, self.test)


def split_tasks(
    dataset: Dataset,
    source_classes: Sequence[int | str],
    target_classes: Sequence[int | str],
    validation_fraction: float = 0.1,
    seed: int = 0,
    copy: bool = True,
) -> tuple[Task, Task]:
    """Split a dataset by class into a source task and a target task; classes are given by number or by name.

    A share of each task's training images, `validation_fraction`, is held out, stratified by class and drawn with
    `seed`. Without `copy`, the tasks' images are `Picked` from the dataset's. Raises ValueError if the two sets of
    classes overlap, if a set has fewer than two classes or contains an unknown class, or if the fraction leaves a class
    without a validation or a training image, as any fraction does if a class has only one image.
    """
    if len(dataset.classes) < 4:
        raise ValueError(
            f"dataset: {dataset.name} has only the classes {listed(dataset.classes)}; two tasks need two classes each, "
            "so use data with at least four"
        )
    source = _checked_classes("source_classes", source_classes, dataset)
    target = _checked_classes("target_classes", target_classes, dataset)
    if shared := [label for label in dataset.classes if label in source and label in target]:
        raise ValueError(
            f"source_classes and target_classes both contain {listed(shared)} ({list(source)} and {list(target)}); "
            "assign each class to one task only"
        )
    check_seed("seed", seed)
    if not (isinstance(validation_fraction, float) and 0 < validation_fraction < 1):
        raise ValueError(f"validation_fraction: {validation_fraction!r} is not allowed; give a number between 0 and 1")
    return (
        _task("source", dataset, source, validation_fraction, seed, copy),
        _task("target", dataset, target, validation_fraction, seed, copy),
    )


def budgets_for(split: Split, labels_per_class: Sequence[int | str]) -> list[int | str]:
    """Return label budgets in the given order, without repeats; any larger than the smallest class becomes "all"."""
    smallest = int(np.bincount(split.labels).min())
    return list(dict.fromkeys("all" if isinstance(b, int) and b > smallest else b for b in labels_per_class))


def subsample(split: Split, labels_per_class: int | str, seed: int = 0) -> Split:
    """Keep `labels_per_class` images of each class, or all of them for `"all"`.

    The seed fixes an order within each class, and a budget takes the first images in that order, so budgets are nested:
    the images of budget 10 are among those of budget 50. Raises ValueError for a budget larger than the smallest class.
    """
    check_budget(split, labels_per_class)
    if labels_per_class == "all":
        return split
    kept = [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero(split.labels == label))[:labels_per_class]
        for label in np.unique(split.labels)
    ]
    indices = np.sort(np.concatenate(kept))
    return Split(split.images[indices], split.labels[indices])


def check_budget(split: Split, labels_per_class: int | str, classes: Classes = ()) -> None:
    """Raise ValueError unless each class has that many images or the budget is "all"; name the smallest class."""
    if labels_per_class == "all":
        return
    if type(labels_per_class) is not int or labels_per_class < 1:
        raise ValueError(
            f'labels_per_class: {labels_per_class!r} is not a label budget; give a whole number of at least 1, or "all"'
        )
    counts = np.bincount(split.labels)
    if labels_per_class > counts.min():
        smallest = f"class {classes[counts.argmin()]}" if classes else "the smallest class"
        raise ValueError(
            f"labels_per_class: {labels_per_class} is more than {smallest} has; give at most {counts.min()}, or "
            '"all" to train on every image'
        )


def budget_size(budget: int | str) -> float:
    """Return a label budget, a number or its text, as a number to sort by: infinity for "all"."""
    return float(budget) if str(budget).isdigit() else math.inf


def check_seed(parameter: str, seed: int) -> None:
    """Raise ValueError unless this is a whole number from 0 to 2**32 - 1, as NumPy and scikit-learn require."""
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"{parameter}: {seed!r} is not a seed; give a whole number from 0 to {2**32 - 1}")


def _checked_classes(parameter: str, classes: Sequence[int | str], dataset: Dataset) -> Classes:
    """Convert classes to the type of the dataset's; raise ValueError with the parameter's name if one is unknown."""
    check_list(parameter, classes, "classes, such as [0, 1, 2] or [cat, dog]")
    whole = all(isinstance(entry, int | np.integer) and not isinstance(entry, bool) for entry in classes)
    if not whole and not all(isinstance(entry, str) for entry in classes):
        raise ValueError(f"{parameter}: {list(classes)} is neither a list of whole numbers nor a list of names")
    if len(set(classes)) < max(2, len(classes)):
        raise ValueError(f"{parameter}: {list(classes)} is not allowed; list two or more classes, each once")
    named = isinstance(dataset.classes[0], str)
    chosen = [class_name(str(entry)) if named else int(entry) if whole else entry for entry in classes]
    if missing := [entry for entry in chosen if entry not in dataset.classes]:
        near = get_close_matches(str(missing[0]), map(str, dataset.classes), n=1)
        meant = f"did you mean {near[0]!r}? " if near and named else ""
        raise ValueError(
            f"{parameter}: {dataset.name} has no class {listed(missing)}; {meant}its classes are "
            f"{listed(dataset.classes)}"
        )
    return tuple(chosen)


def _task(name: str, dataset: Dataset, classes: Classes, validation_fraction: float, seed: int, copy: bool) -> Task:
    """Select a task's images, renumber its labels from 0, and hold out a stratified validation split."""
    from sklearn.model_selection import train_test_split

    positions = [dataset.classes.index(label) for label in classes]
    known, labels = _of_classes(dataset.train, positions)
    tested, test_labels = _of_classes(dataset.test, positions)
    for present, kind in ((labels, "training"), (test_labels, "test")):
        if without := [classes[label] for label in range(len(classes)) if label not in present]:
            raise ValueError(
                f"dataset: {dataset.name} has no {kind} images of class {listed(without)}; add some, or choose "
                "other classes"
            )
    if single := [classes[label] for label, images in enumerate(np.bincount(labels)) if images == 1]:
        raise ValueError(
            f"dataset: {dataset.name} has only one training image of class {listed(single)}; give each class at "
            "least two, one for training and one for validation"
        )
    train = validation = np.empty(0, int)  # remains empty if scikit-learn cannot put each class into both
    with suppress(ValueError):
        size = math.ceil(validation_fraction * len(known))
        train, validation = train_test_split(np.arange(len(known)), test_size=size, stratify=labels, random_state=seed)
    if any(len(np.unique(labels[part])) < len(classes) for part in (train, validation)):
        raise ValueError(
            f"validation_fraction: {validation_fraction} of {len(known)} images in {len(classes)} classes leaves a "
            f"class of {dataset.name} without a training or a validation image; choose a fraction that leaves "
            "every class with both"
        )

    def split(images: Images, chosen: np.ndarray, labels: np.ndarray) -> Split:
        return Split(images[chosen] if copy else Picked(images, chosen), labels)

    return Task(
        name=name,
        classes=classes,
        train=split(dataset.train.images, known[train], labels[train]),
        validation=split(dataset.train.images, known[validation], labels[validation]),
        test=split(dataset.test.images, tested, test_labels),
    )


def _of_classes(split: Split, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the images of some classes, and their labels: class `positions[i]` becomes `i`."""
    shifted = np.full(len(split), -1, dtype=np.int32)
    for new, position in enumerate(positions):
        shifted[split.labels == position] = new
    kept = np.flatnonzero(shifted >= 0)
    return kept, shifted[kept]

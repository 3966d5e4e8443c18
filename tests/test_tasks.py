"""Tasks: how a dataset is split by label, what is held out, and how a label budget is drawn."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st
from refusals import refused

from helpers.images import Dataset, Split
from helpers.tasks import Task, split_tasks, subsample

PARTS = ("train", "validation", "test")


def numbered(labels: np.ndarray, first: int = 0) -> Split:
    """Make images of 2x2 pixels, the four bytes of the image's number, so that each can be recognized."""
    numbers = np.arange(first, first + len(labels), dtype="<u4")
    return Split(numbers.view(np.uint8).reshape(-1, 2, 2, 1), np.asarray(labels, np.int32))


def numbers(split: Split) -> list[int]:
    """Read the images' numbers back."""
    return np.ascontiguousarray(split.images).reshape(len(split), 4).view("<u4")[:, 0].tolist()


def original_labels(task: Task, split: Split) -> np.ndarray:
    return np.array(task.classes)[split.labels]


def dataset_of(name: str, train: Split, test: Split) -> Dataset:
    """Make a dataset of splits with the original labels."""
    classes = np.unique(train.labels)
    train, test = (Split(split.images, np.searchsorted(classes, split.labels)) for split in (train, test))
    return Dataset(name, train, test, tuple(classes.tolist()))


def original(dataset: Dataset, split: Split) -> np.ndarray:
    return np.array(dataset.classes)[split.labels]


# Splitting by label


def test_mnist_by_label_has_the_published_numbers_of_images(mnist: Dataset):
    source, target = split_tasks(mnist, [5, 6, 7, 8, 9], [0, 1, 2, 3, 4])
    assert (len(source.train) + len(source.validation), len(source.test)) == (29_404, 4_861)
    assert (len(target.train) + len(target.validation), len(target.test)) == (30_596, 5_139)
    assert source.image_shape == target.image_shape == (28, 28, 1)


def test_label_i_of_a_task_means_the_original_label_classes_i():
    dataset = dataset_of("mine", numbered(np.tile([3, 9, 4, 7], 10)), numbered(np.tile([3, 9, 4, 7], 3), first=100))
    source, target = split_tasks(dataset, [9, 3], [7, 4], validation_fraction=0.3)
    assert (source.name, source.classes, target.name, target.classes) == ("source", (9, 3), "target", (7, 4))
    for task in (source, target):
        for part in (task.train, task.validation):
            drawn = [original(dataset, dataset.train)[number] for number in numbers(part)]
            assert drawn == original_labels(task, part).tolist()
    assert target.test.labels.tolist() == [1, 0, 1, 0, 1, 0]  # 4 and 7 in turn; 7 is label 0, 4 is label 1


def test_a_tenth_is_held_out_unless_asked_otherwise(digits: Dataset, tasks: tuple[Task, Task]):
    for task in tasks:
        images = int(np.isin(digits.train.labels, task.classes).sum())
        assert len(task.validation) == math.ceil(images / 10)


def test_the_seed_decides_which_images_are_held_out_and_leaves_the_test_split_alone(digits: Dataset):
    first, again, other = (split_tasks(digits, [5, 6], [0, 1], seed=seed) for seed in (1, 1, 2))
    assert [task.fingerprint for task in first] == [task.fingerprint for task in again]
    assert not {task.fingerprint for task in first} & {task.fingerprint for task in other}
    assert np.array_equal(first[1].test.images, other[1].test.images)


def test_a_tasks_fingerprint_covers_each_of_its_splits(tasks: tuple[Task, Task]):
    source, _ = tasks
    fewer = Split(source.test.images[1:], source.test.labels[1:])
    assert len({source.fingerprint, *(replace(source, **{part: fewer}).fingerprint for part in PARTS)}) == 4


@st.composite
def a_dataset(draw: st.DrawFn, fewest: int = 1) -> tuple[Dataset, list[int], list[int]]:
    """Draw a dataset with any labels, class sizes, and order, and two disjoint sets of at least two labels."""
    labels = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=9, unique=True))
    cut = draw(st.integers(2, len(labels) - 2))
    end = draw(st.integers(cut + 2, len(labels)))  # labels beyond the end belong to no task
    sizes = draw(st.lists(st.integers(fewest, 40), min_size=len(labels), max_size=len(labels)))
    order = np.random.default_rng(draw(st.integers(0, 99)))
    train = order.permutation(np.repeat(labels, sizes))
    test = order.permutation(np.repeat(labels, 2))
    return dataset_of("drawn", numbered(train), numbered(test, first=1000)), labels[:cut], labels[cut:end]


@given(a_dataset(fewest=10), st.floats(0.1, 0.5), st.integers(0, 2**32 - 1))
def test_splitting_loses_no_image_and_puts_none_in_two_splits(drawn, fraction: float, seed: int):
    dataset, *class_sets = drawn
    for task, classes in zip(split_tasks(dataset, *class_sets, fraction, seed), class_sets, strict=True):
        expected = np.flatnonzero(np.isin(original(dataset, dataset.train), classes)).tolist()
        assert sorted(numbers(task.train) + numbers(task.validation)) == expected
        assert numbers(task.test) == (1000 + np.flatnonzero(np.isin(original(dataset, dataset.test), classes))).tolist()
        for part, of in ((task.train, dataset.train), (task.validation, dataset.train), (task.test, dataset.test)):
            places = [number % 1000 for number in numbers(part)]
            assert original_labels(task, part).tolist() == original(dataset, of)[places].tolist()


@given(a_dataset(fewest=10), st.floats(0.1, 0.5), st.integers(0, 2**32 - 1))
def test_each_class_is_held_out_in_proportion_to_within_one_image(drawn, fraction: float, seed: int):
    dataset, *class_sets = drawn
    for task in split_tasks(dataset, *class_sets, fraction, seed):
        images = len(task.train) + len(task.validation)
        assert 0 <= len(task.validation) - fraction * images < 1 + 1e-9
        held_out = np.bincount(task.validation.labels, minlength=len(task.classes))
        counts = held_out + np.bincount(task.train.labels, minlength=len(task.classes))
        assert np.abs(held_out - counts * len(task.validation) / images).max() < 1


@given(a_dataset(), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_split_is_refused_only_where_a_class_would_be_left_without_an_image(drawn, fraction: float, seed: int):
    dataset, *class_sets = drawn
    try:
        tasks = split_tasks(dataset, *class_sets, fraction, seed)
    except ValueError as error:  # the first task that cannot be split gives the reason
        fewest = [
            min(int((original(dataset, dataset.train) == label).sum()) for label in classes) for classes in class_sets
        ]
        if "only one training image of class" in str(error):
            assert 1 in fewest
        else:
            assert str(error).startswith("validation_fraction: ")
            assert any(fraction * few < 1 or (1 - fraction) * few < 2 for few in fewest if few > 1)
    else:
        for task in tasks:
            for part in PARTS:
                assert set(getattr(task, part).labels) == set(range(len(task.classes)))


# Label budgets


@st.composite
def labeled(draw: st.DrawFn) -> Split:
    """Draw images of two or more classes, numbered from 0, of any sizes and in any order."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=2, max_size=10))
    order = np.random.default_rng(draw(st.integers(0, 99)))
    return numbered(order.permutation(np.repeat(np.arange(len(sizes)), sizes)))


@given(labeled(), st.data(), st.integers(0, 2**32 - 1))
def test_a_budget_takes_so_many_images_of_each_class_each_once_and_in_their_order(split: Split, draw, seed: int):
    budget = draw.draw(st.integers(1, int(np.bincount(split.labels).min())))
    kept = subsample(split, budget, seed)
    assert np.bincount(kept.labels).tolist() == [budget] * len(set(split.labels.tolist()))
    assert numbers(kept) == sorted(set(numbers(kept)))  # the split's images are in the order of their numbers
    assert kept.labels.tolist() == split.labels[numbers(kept)].tolist()


@given(labeled(), st.integers(0, 2**32 - 1))
def test_budgets_are_nested(split: Split, seed: int):
    smallest = int(np.bincount(split.labels).min())
    drawn = [set(numbers(subsample(split, budget, seed))) for budget in [*range(1, smallest + 1), "all"]]
    assert all(smaller <= larger for smaller, larger in pairwise(drawn))


def test_each_seed_draws_other_images_again_and_again_the_same_and_classes_are_drawn_independently():
    split = numbered(np.repeat([0, 1], 100))
    drawn = {tuple(numbers(subsample(split, 5, seed))) for seed in range(20)}
    assert len(drawn) == 20
    assert numbers(subsample(split, 5, 3)) == numbers(subsample(split, 5, 3))
    first, second = np.array(numbers(subsample(split, 10))).reshape(2, 10)
    assert (first + 100).tolist() != second.tolist()


def test_a_budget_larger_than_the_smallest_class_is_refused():
    with refused("labels_per_class: 3 is more", "at most 2"):
        subsample(numbered(np.array([0, 0, 0, 1, 1])), 3)


@pytest.mark.parametrize("budget", [0, 10.0, "10", True])
def test_what_is_no_budget_is_refused(tasks: tuple[Task, Task], budget: object):
    with refused(f"labels_per_class: {budget!r} ", "at least 1", '"all"'):
        subsample(tasks[1].train, budget)


# Refused input, with one sentence that names the parameter, the value, and the allowed values


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ([2], "[2] is not allowed; list two or more classes"),
        ([2, 3, 3], "[2, 3, 3] is not allowed; list two or more classes, each once"),
        ([2, 10], "digits has no class 10; its classes are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ("23", "'23' is not a list of classes"),
        ("[2, 3]", "'[2, 3]' is text; to pass a list to papermill, use -y"),
        ([2.0, 3.5], "[2.0, 3.5] is neither a list of whole numbers nor a list of names"),
        ([2, "3"], "[2, '3'] is neither a list of whole numbers nor a list of names"),
    ],
)
def test_classes_that_cannot_be_chosen_are_refused(digits: Dataset, classes: object, why: str):
    with refused(f"source_classes: {why}"):
        split_tasks(digits, classes, [8, 9])
    with refused(f"target_classes: {why}"):
        split_tasks(digits, [5, 6], classes)


@pytest.mark.parametrize(
    ("parameter", "values", "says"),
    [
        ("validation_fraction", (0.0, 1.0, math.nan, "0.1"), "between 0 and 1"),
        ("validation_fraction", (0.001, 0.999), "without a training or a validation image"),
        ("seed", (-1, 2**32, 1.0), "0 to 4294967295"),
    ],
)
def test_a_fraction_or_seed_that_is_not_allowed_is_refused(digits: Dataset, parameter: str, values: tuple, says: str):
    for value in values:
        with refused(f"{parameter}: {value!r} ", says):
            split_tasks(digits, [5, 6], [0, 1], **{parameter: value})


def test_class_sets_that_overlap_are_refused(digits: Dataset):
    with refused("source_classes and target_classes both contain 1, 2 ([0, 1, 2] and [2, 1, 5])"):
        split_tasks(digits, [0, 1, 2], [2, 1, 5])


def test_a_class_of_one_image_cannot_be_split():
    train, test = numbered(np.repeat([5, 6, 7, 8], [20, 1, 20, 20])), numbered(np.arange(5, 9))
    with refused("dataset: mine has only one training image of class 6", "at least two"):
        split_tasks(dataset_of("mine", train, test), [5, 6], [7, 8], 0.5)


def test_three_classes_are_too_few_for_two_tasks():
    split = numbered(np.repeat([0, 1, 2], 20))
    with refused("dataset: mine has only the classes 0, 1, 2;", "at least four"):
        split_tasks(dataset_of("mine", split, split), [0, 1], [1, 2])


def test_tasks_without_a_copy_hold_the_same_images(digits: Dataset):
    classes = [5, 6, 7, 8, 9], [0, 1, 2, 3, 4]
    for copied, picked in zip(split_tasks(digits, *classes), split_tasks(digits, *classes, copy=False), strict=True):
        assert copied.fingerprint == picked.fingerprint
        assert np.array_equal(picked.test.images[:], copied.test.images)
        assert np.array_equal(picked.train.images[[[3, 1], [0, 2]]], copied.train.images[[[3, 1], [0, 2]]])
        assert picked.image_shape == copied.image_shape
        assert not isinstance(picked.train.images, np.ndarray)

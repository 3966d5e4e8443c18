"""Datasets: what is accepted and refused, how they are split by label, and how a label budget is drawn."""

import gzip
import hashlib
import math
import re
import zipfile
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import data
from helpers.data import Dataset, Split, Task

PARTS = ("train", "validation", "test")


def numbered(labels: np.ndarray, first: int = 0) -> Split:
    """Make images of 2x2 pixels that are their own number, four bytes of it, so that each can be recognized."""
    numbers = np.arange(first, first + len(labels), dtype="<u4")
    return Split(numbers.view(np.uint8).reshape(-1, 2, 2, 1), np.asarray(labels, np.int32))


def numbers(split: Split) -> list[int]:
    """Read the numbers back."""
    return np.ascontiguousarray(split.images).reshape(len(split), 4).view("<u4")[:, 0].tolist()


def original_labels(task: Task, split: Split) -> np.ndarray:
    return np.array(task.classes)[split.labels]


def arrays(images: int = 40, size: int = 8, classes: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, np.ndarray]:
    """Make the four arrays of a small valid file; labels go round the classes."""
    rng = np.random.default_rng(0)
    labels = np.resize(np.array(classes), images)
    return {
        "x_train": rng.integers(0, 256, (images, size, size), np.uint8),
        "y_train": labels,
        "x_test": rng.integers(0, 256, (images, size, size), np.uint8),
        "y_test": labels,
    }


@pytest.fixture
def npz(tmp_path: Path):
    """Write a valid `.npz` file with some of its arrays replaced, or left out where None is given; return its path."""

    def write(**changed: np.ndarray | None) -> str:
        path = tmp_path / "mine.npz"
        np.savez(path, **{name: array for name, array in {**arrays(), **changed}.items() if array is not None})
        return str(path)

    return write


# The datasets


def test_mnist_by_label_has_the_published_numbers_of_images(mnist: Dataset):
    source, target = data.split_tasks(mnist, [5, 6, 7, 8, 9], [0, 1, 2, 3, 4])
    assert (len(source.train) + len(source.validation), len(source.test)) == (29_404, 4_861)
    assert (len(target.train) + len(target.validation), len(target.test)) == (30_596, 5_139)
    assert source.image_shape == target.image_shape == (28, 28, 1)


def test_mnist_has_the_published_numbers_of_each_digit(mnist: Dataset):
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train.labels).tolist() == published


def test_mnist_shares_no_image_between_training_and_test(mnist: Dataset):
    assert data.duplicated_images(mnist) == 0


def test_digits_are_1797_images_of_8_by_8_and_a_fifth_of_them_is_for_testing(digits: Dataset):
    assert len(digits.train) + len(digits.test) == 1797
    assert len(digits.test) == 360  # 0.2 * 1797 = 359.4, rounded up
    assert digits.train.images.shape[1:] == digits.test.images.shape[1:] == (8, 8, 1)
    assert digits.classes == tuple(range(10))


def test_digits_test_set_holds_a_fifth_of_each_digit(digits: Dataset):
    each = np.bincount(digits.train.labels) + np.bincount(digits.test.labels)
    assert each.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # scikit-learn's documentation of them
    assert np.abs(np.bincount(digits.test.labels) - each / 5).max() < 1


def test_images_are_uint8_and_labels_int32(digits: Dataset, tasks: tuple[Task, Task]):
    splits = [digits.train, digits.test, *(getattr(task, part) for task in tasks for part in PARTS)]
    assert {split.images.dtype for split in splits} == {np.dtype("uint8")}
    assert {split.labels.dtype for split in splits} == {np.dtype("int32")}


def test_digits_use_the_whole_range_of_grey_values(digits: Dataset):
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)
    assert len(np.unique(digits.train.images)) == 17  # 0 to 16 in the original


def test_the_digits_are_the_same_at_each_loading(digits: Dataset):
    assert data.load_dataset("digits").fingerprint == digits.fingerprint


def test_the_fingerprint_changes_with_one_pixel_and_with_one_label(npz):
    original = arrays()
    pixel, label = original["x_test"].copy(), original["y_train"].copy()
    pixel[-1, -1, -1] ^= 1
    label[0] = 3
    prints = [data.load_dataset(npz(**changed)).fingerprint for changed in ({}, {"x_test": pixel}, {"y_train": label})]
    assert len(set(prints)) == 3
    assert data.load_dataset(npz()).fingerprint == prints[0]


def test_a_file_of_ones_own_is_loaded_as_it_is(npz):
    mine = arrays()
    dataset = data.load_dataset(npz())
    assert np.array_equal(dataset.train.images[..., 0], mine["x_train"])
    assert np.array_equal(dataset.test.labels, mine["y_test"])
    assert (dataset.name, dataset.classes) == ("mine.npz", (0, 1, 2, 3))


@pytest.mark.parametrize("size", [8, 64])
def test_the_smallest_and_the_largest_images_are_accepted(npz, size: int):
    sized = arrays(size=size)
    dataset = data.load_dataset(npz(x_train=sized["x_train"], x_test=sized["x_test"]))
    assert dataset.train.images.shape == (40, size, size, 1)


def test_letters_may_be_labelled_10_to_35(npz):
    letters = arrays(images=260, classes=tuple(range(10, 36)))
    dataset = data.load_dataset(npz(**letters))
    source, target = data.split_tasks(dataset, list(range(10, 20)), [33, 34, 35], validation_fraction=0.2)
    assert dataset.classes == tuple(range(10, 36))
    assert (source.classes, target.classes) == (tuple(range(10, 20)), (33, 34, 35))
    assert sorted(set(target.train.labels)) == [0, 1, 2]
    assert len(target.train) + len(target.validation) == 30  # 10 images of each letter


@pytest.mark.parametrize("labels", [(-5, -1, 0, 7), (2**31 - 1, 0, 1, -(2**31))])
def test_labels_may_be_any_whole_numbers(npz, labels: tuple[int, ...]):
    mine = arrays(classes=labels)
    assert data.load_dataset(npz(**mine)).classes == tuple(sorted(labels))


def test_labels_too_large_for_int32_are_kept_or_refused_but_never_changed(npz):
    large = (2**32, 2**32 + 1, 2**33 + 5, 2**34 + 7)
    try:
        classes = data.load_dataset(npz(**arrays(classes=large))).classes
    except ValueError as error:
        assert "y_train" in str(error)
    else:
        assert classes == large


def test_duplicates_between_training_and_test_are_counted_by_test_image(npz):
    mine = arrays()
    mine["x_test"][[0, 1, 7]] = mine["x_train"][[5, 5, 39]]
    assert data.duplicated_images(data.load_dataset(npz())) == 0
    assert data.duplicated_images(data.load_dataset(npz(**mine))) == 3


def test_fashion_mnist_is_read_from_keras_cache(offline: Path, monkeypatch: pytest.MonkeyPatch):
    expected, hashes = arrays(images=30, size=28, classes=tuple(range(10))), {}
    (offline / "fashion-mnist").mkdir(parents=True)
    for name, (file, _) in data.FASHION_MNIST_HASHES.items():
        header = bytes(16 if name.startswith("x") else 8)  # an IDX file's type and sizes
        content = gzip.compress(header + expected[name].astype(np.uint8).tobytes())
        (offline / "fashion-mnist" / file).write_bytes(content)
        hashes[name] = (file, "md5:" + hashlib.md5(content).hexdigest())
    monkeypatch.setattr(data, "FASHION_MNIST_HASHES", hashes)
    dataset = data.load_dataset("fashion_mnist")
    assert np.array_equal(dataset.train.images[..., 0], expected["x_train"])
    assert np.array_equal(dataset.test.images[..., 0], expected["x_test"])
    assert np.array_equal(dataset.train.labels, expected["y_train"])


# Splitting by label


def test_label_i_of_a_task_means_the_original_label_classes_i():
    dataset = Dataset("mine", numbered(np.tile([3, 9, 4, 7], 10)), numbered(np.tile([3, 9, 4, 7], 3), first=100), "")
    source, target = data.split_tasks(dataset, [9, 3], [7, 4], validation_fraction=0.3)
    assert (source.classes, target.classes) == ((9, 3), (7, 4))
    for task in (source, target):
        for part in (task.train, task.validation):
            drawn = [dataset.train.labels[number] for number in numbers(part)]
            assert drawn == original_labels(task, part).tolist()
    assert target.test.labels.tolist() == [1, 0, 1, 0, 1, 0]  # 4 and 7 in turn; 7 is label 0, 4 is label 1


def test_the_tasks_know_their_names_and_original_labels(tasks: tuple[Task, Task]):
    source, target = tasks
    assert (source.name, source.classes) == ("source", (5, 6, 7, 8, 9))
    assert (target.name, target.classes) == ("target", (0, 1, 2, 3, 4))
    assert {tuple(np.unique(getattr(task, part).labels)) for task in tasks for part in PARTS} == {(0, 1, 2, 3, 4)}


def test_a_tenth_is_held_out_unless_asked_otherwise(digits: Dataset, tasks: tuple[Task, Task]):
    for task in tasks:
        images = int(np.isin(digits.train.labels, task.classes).sum())
        assert len(task.validation) == math.ceil(images / 10)


def test_the_seed_decides_which_images_are_held_out(digits: Dataset):
    def prints(seed: int) -> list[str]:
        return [task.fingerprint for task in data.split_tasks(digits, [5, 6], [0, 1], seed=seed)]

    assert prints(1) == prints(1)
    assert not set(prints(1)) & set(prints(2))


def test_the_seed_leaves_the_test_split_alone(digits: Dataset):
    first, second = (data.split_tasks(digits, [5, 6], [0, 1], seed=seed)[1] for seed in (1, 2))
    assert np.array_equal(first.test.images, second.test.images)


def test_a_tasks_fingerprint_covers_each_of_its_splits(tasks: tuple[Task, Task]):
    source, _ = tasks
    short = {part: Split(getattr(source, part).images[1:], getattr(source, part).labels[1:]) for part in PARTS}
    others = [Task(source.name, source.classes, **{**vars_of(source), part: short[part]}) for part in PARTS]
    assert len({source.fingerprint, *(task.fingerprint for task in others)}) == 4


def vars_of(task: Task) -> dict[str, Split]:
    return {part: getattr(task, part) for part in PARTS}


@st.composite
def datasets(draw: st.DrawFn, fewest: int = 1) -> tuple[Dataset, list[int], list[int]]:
    """Draw a dataset of any labels and class sizes, in any order, with two disjoint sets of two or more labels."""
    labels = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=9, unique=True))
    cut = draw(st.integers(2, len(labels) - 2))
    end = draw(st.integers(cut + 2, len(labels)))  # labels beyond the end belong to no task
    sizes = draw(st.lists(st.integers(fewest, 40), min_size=len(labels), max_size=len(labels)))
    order = np.random.default_rng(draw(st.integers(0, 99)))
    train = order.permutation(np.repeat(labels, sizes))
    test = order.permutation(np.repeat(labels, 2))
    return Dataset("drawn", numbered(train), numbered(test, first=1000), ""), labels[:cut], labels[cut:end]


@given(datasets(fewest=10), st.floats(0.1, 0.5), st.integers(0, 2**32 - 1))
def test_splitting_loses_no_image_and_puts_none_in_two_splits(drawn, fraction: float, seed: int):
    dataset, *class_sets = drawn
    for task, classes in zip(data.split_tasks(dataset, *class_sets, fraction, seed), class_sets, strict=True):
        expected = np.flatnonzero(np.isin(dataset.train.labels, classes)).tolist()
        assert sorted(numbers(task.train) + numbers(task.validation)) == expected
        assert numbers(task.test) == (1000 + np.flatnonzero(np.isin(dataset.test.labels, classes))).tolist()
        for part, of in ((task.train, dataset.train), (task.validation, dataset.train), (task.test, dataset.test)):
            places = [number % 1000 for number in numbers(part)]
            assert original_labels(task, part).tolist() == of.labels[places].tolist()


@given(datasets(fewest=10), st.floats(0.1, 0.5), st.integers(0, 2**32 - 1))
def test_each_class_is_held_out_in_proportion_to_within_one_image(drawn, fraction: float, seed: int):
    dataset, *class_sets = drawn
    for task in data.split_tasks(dataset, *class_sets, fraction, seed):
        images = len(task.train) + len(task.validation)
        assert 0 <= len(task.validation) - fraction * images < 1 + 1e-9
        held_out = np.bincount(task.validation.labels, minlength=len(task.classes))
        each = held_out + np.bincount(task.train.labels, minlength=len(task.classes))
        assert np.abs(held_out - each * len(task.validation) / images).max() < 1


@given(datasets(), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_split_is_refused_only_where_a_class_would_be_left_without_an_image(drawn, fraction: float, seed: int):
    dataset, *class_sets = drawn
    try:
        tasks = data.split_tasks(dataset, *class_sets, fraction, seed)
    except ValueError as error:
        fewest = min(int((dataset.train.labels == label).sum()) for label in chain(*class_sets))
        if fewest == 1:
            assert "a single training image of label" in str(error)
        else:
            assert str(error).startswith("validation_fraction: ")
            assert fraction * fewest < 1 or (1 - fraction) * fewest < 2
    else:
        for task in tasks:
            for part in PARTS:
                assert set(getattr(task, part).labels) == set(range(len(task.classes)))


@given(datasets(fewest=10), st.floats(0.1, 0.5), st.integers(0, 2**32 - 1))
def test_the_same_seed_splits_into_the_same_images_in_the_same_order(drawn, fraction: float, seed: int):
    first, second = (data.split_tasks(*drawn, fraction, seed) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert [numbers(getattr(one, part)) for part in PARTS] == [numbers(getattr(other, part)) for part in PARTS]


# Label budgets


@st.composite
def labelled(draw: st.DrawFn) -> Split:
    """Draw images of two or more classes, numbered from 0, of any sizes and in any order."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=2, max_size=10))
    order = np.random.default_rng(draw(st.integers(0, 99)))
    return numbered(order.permutation(np.repeat(np.arange(len(sizes)), sizes)))


@given(labelled(), st.data(), st.integers(0, 2**32 - 1))
def test_a_budget_takes_so_many_images_of_each_class_each_once_and_in_their_order(split: Split, draw, seed: int):
    budget = draw.draw(st.integers(1, int(np.bincount(split.labels).min())))
    kept = data.subsample(split, budget, seed)
    assert np.bincount(kept.labels).tolist() == [budget] * len(set(split.labels.tolist()))
    assert numbers(kept) == sorted(set(numbers(kept)))  # the split's images are in the order of their numbers
    assert kept.labels.tolist() == split.labels[numbers(kept)].tolist()


@given(labelled(), st.integers(0, 2**32 - 1))
def test_budgets_are_nested(split: Split, seed: int):
    smallest = int(np.bincount(split.labels).min())
    drawn = [set(numbers(data.subsample(split, budget, seed))) for budget in [*range(1, smallest + 1), "all"]]
    assert all(smaller <= larger for smaller, larger in pairwise(drawn))


@given(labelled(), st.integers(0, 2**32 - 1))
def test_the_same_seed_draws_the_same_images_in_the_same_order(split: Split, seed: int):
    assert numbers(data.subsample(split, 1, seed)) == numbers(data.subsample(split, 1, seed))


def test_another_seed_draws_other_images():
    split = numbered(np.repeat([0, 1], 100))
    drawn = {tuple(numbers(data.subsample(split, 5, seed))) for seed in range(20)}
    assert len(drawn) == 20


def test_classes_are_drawn_independently_of_each_other():
    split = numbered(np.repeat([0, 1], 100))
    first, second = np.array(numbers(data.subsample(split, 10))).reshape(2, 10)
    assert (first + 100).tolist() != second.tolist()


def test_the_budget_all_takes_every_image(tasks: tuple[Task, Task]):
    assert data.fingerprint(data.subsample(tasks[1].train, "all", seed=3)) == data.fingerprint(tasks[1].train)


def test_a_budget_may_be_as_large_as_the_smallest_class():
    split = numbered(np.array([0, 0, 0, 1, 1]))
    assert data.subsample(split, 2).labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"labels_per_class: 3 is more .* at most 2 are there"):
        data.subsample(split, 3)


@pytest.mark.parametrize("budget", [0, -1, 2.5, 10.0, "ten", "10", True, None, math.nan])
def test_what_is_not_a_budget_is_refused(tasks: tuple[Task, Task], budget: object):
    with pytest.raises(ValueError, match=re.escape(f"labels_per_class: {budget!r} is not")) as raised:
        data.subsample(tasks[1].train, budget)
    assert "at least 1" in str(raised.value) and '"all"' in str(raised.value)


# Bad input: each gets one sentence that names the parameter, the value and what is allowed


def refused(error: type[Exception], *parts: str):
    """Expect an error whose message is one line and holds each of these parts."""
    together = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    return pytest.raises(error, match=rf"\A{together}[^\n]*\Z")


@pytest.mark.parametrize("name", ["", 5, None, ["digits"]])
def test_what_names_no_dataset_is_refused(name: object):
    with refused(ValueError, f"dataset: {name!r}", '"mnist"', '"fashion_mnist"', '"digits"', ".npz"):
        data.load_dataset(name)


@settings(max_examples=300)
@given(st.integers(0, 3000), st.integers(1, 255))
def test_a_file_with_one_altered_byte_is_refused_or_means_the_same(altered_file, position: int, change: int):
    path, content, fingerprint = altered_file
    position %= len(content)
    path.write_bytes(content[:position] + bytes([content[position] ^ change]) + content[position + 1 :])
    try:
        assert data.load_dataset(str(path)).fingerprint == fingerprint
    except ValueError as error:
        assert str(error).startswith("dataset") and "\n" not in str(error)


@pytest.fixture(scope="module")
def altered_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, str]:
    """Return the path of a small valid file, what is in it, and the fingerprint of its dataset."""
    path = tmp_path_factory.mktemp("altered") / "mine.npz"
    np.savez(path, **arrays(images=4))
    return path, path.read_bytes(), data.load_dataset(str(path)).fingerprint


def test_a_file_with_members_for_other_folders_is_never_unpacked(npz, tmp_path: Path):
    path = npz()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.npy", "not an array")
    assert data.load_dataset(path).classes == (0, 1, 2, 3)
    assert [found.name for found in tmp_path.parent.rglob("*.np[yz]") if "outside" in found.name] == []


@pytest.mark.parametrize("name", ["y_train", "y_test"])
def test_a_class_in_only_one_of_training_and_test_is_refused(npz, name: str):
    labels = arrays()["y_train"].copy()
    labels[labels == 3] = 2
    with refused(ValueError, "'mine.npz'", "label 3 is in only one of y_train and y_test"):
        data.load_dataset(npz(**{name: labels}))


def test_fashion_mnist_that_cannot_be_downloaded_says_what_to_do_instead(offline: Path):
    with refused(data.DownloadError, 'dataset: "fashion_mnist"', "could not be", 'dataset="digits"') as raised:
        data.load_dataset("fashion_mnist")
    assert "MNIST_NPZ" not in str(raised.value)  # it would not help


def write_mnist(path: Path, mnist: Dataset, **changed: np.ndarray) -> None:
    """Write MNIST as a file of one's own, with some of its arrays replaced."""
    original = {
        "x_train": mnist.train.images[..., 0],
        "y_train": mnist.train.labels,
        "x_test": mnist.test.images[..., 0],
        "y_test": mnist.test.labels,
    }
    np.savez(path, **{**original, **changed})


def test_mnist_with_one_altered_pixel_is_refused(mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = mnist.test.images[..., 0].copy()
    images[0, 0, 0] ^= 1
    write_mnist(tmp_path / "altered.npz", mnist, x_test=images)
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path / "altered.npz"))
    with refused(ValueError, "MNIST_NPZ: 'altered.npz' is not MNIST, x_test differ"):
        data.load_dataset("mnist")


def test_mnist_npz_is_known_by_its_content_not_by_its_file(
    mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_mnist(tmp_path / "rewritten.npz", mnist)
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path / "rewritten.npz"))
    assert data.load_dataset("mnist").fingerprint == mnist.fingerprint


@pytest.mark.parametrize("parameter", ["source_classes", "target_classes"])
@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ([], "[] is not allowed; give two or more labels"),
        ([2], "[2] is not allowed; give two or more labels"),
        ([2, 2], "[2, 2] is not allowed; give two or more labels, each once"),
        ([2, 3, 3], "[2, 3, 3] is not allowed; give two or more labels, each once"),
        ([2, 10], "digits has no label 10; its labels are [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"),
        ([2, 11, -1], "digits has no label -1, 11"),
        ("23", "'23' is not a list of labels"),
        (23, "23 is not a list of labels"),
        (None, "None is not a list of labels"),
        ([2.0, 3.5], "[2.0, 3.5] holds something else than whole numbers"),
        (["2", "3"], "['2', '3'] holds something else than whole numbers"),
        ([False, True], "[False, True] holds something else than whole numbers"),
    ],
    ids=lambda value: "" if isinstance(value, str) and " " in value else repr(value),
)
def test_a_class_set_that_is_none_is_refused(digits: Dataset, parameter: str, classes: object, why: str):
    given = {"source_classes": [5, 6], "target_classes": [8, 9], parameter: classes}
    with refused(ValueError, f"{parameter}: {why}"):
        data.split_tasks(digits, **given)


def test_class_sets_that_overlap_are_refused(digits: Dataset):
    with refused(ValueError, "source_classes and target_classes both hold 1, 2 ([0, 1, 2] and [2, 1, 5])"):
        data.split_tasks(digits, [0, 1, 2], [2, 1, 5])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, 10, math.nan, math.inf, "0.1", None, True])
def test_a_validation_fraction_outside_0_to_1_is_refused(digits: Dataset, fraction: object):
    with refused(ValueError, f"validation_fraction: {fraction!r} is not allowed", "between 0 and 1"):
        data.split_tasks(digits, [5, 6], [0, 1], fraction)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, 1.0, "0", None, True])
def test_a_seed_that_is_none_is_refused(digits: Dataset, seed: object):
    with refused(ValueError, f"seed: {seed!r} is not a seed", "0 to 4294967295"):
        data.split_tasks(digits, [5, 6], [0, 1], seed=seed)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_validation_fraction_that_leaves_a_class_without_an_image_is_refused(digits: Dataset, fraction: float):
    with refused(ValueError, f"validation_fraction: {fraction} of ", "without a training or a validation image"):
        data.split_tasks(digits, [5, 6], [0, 1], fraction)


def test_a_class_of_one_image_cannot_be_split():
    train, test = numbered(np.repeat([5, 6, 7, 8], [20, 1, 20, 20])), numbered(np.arange(5, 9))
    with refused(ValueError, "dataset: mine has a single training image of label 6", "two or more"):
        data.split_tasks(Dataset("mine", train, test, ""), [5, 6], [7, 8], 0.5)


def test_three_classes_are_too_few_for_two_tasks():
    split = numbered(np.repeat([0, 1, 2], 20))
    with refused(ValueError, "dataset: mine has the labels [0, 1, 2] only", "four or more"):
        data.split_tasks(Dataset("mine", split, split, ""), [0, 1], [1, 2])

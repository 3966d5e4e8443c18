"""Datasets: what is accepted, and what is refused."""

import gzip
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from refusals import refused
from tiny_course import arrays

from helpers import datasets, files
from helpers.images import Dataset
from helpers.tasks import split_tasks

# The datasets


def test_mnist_has_the_published_numbers_of_each_digit(mnist: Dataset):
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train.labels).tolist() == published


def test_mnist_shares_no_image_between_training_and_test(mnist: Dataset):
    assert datasets.duplicated_images(mnist) == 0


def test_digits_are_1797_images_of_8_by_8_in_17_greys_and_a_fifth_of_each_digit_is_for_testing(digits: Dataset):
    assert len(digits.test) == 360  # 0.2 * 1797 = 359.4, rounded up
    assert digits.train.images.shape[1:] == digits.test.images.shape[1:] == (8, 8, 1)
    assert digits.classes == tuple(range(10))
    each = np.bincount(digits.train.labels) + np.bincount(digits.test.labels)
    assert each.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # scikit-learn's documentation of them
    assert np.abs(np.bincount(digits.test.labels) - each / 5).max() < 1
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)
    assert len(np.unique(digits.train.images)) == 17  # 0 to 16 in the original


def test_the_fingerprint_changes_with_one_pixel_and_with_one_label(npz, digits: Dataset):
    original = arrays()
    pixel, label = original["x_test"].copy(), original["y_train"].copy()
    pixel[-1, -1, -1] ^= 1
    label[0] = 9
    changes = ({}, {"x_test": pixel}, {"y_train": label})
    prints = [datasets.load_dataset(str(npz(**changed))).fingerprint for changed in changes]
    assert len(set(prints)) == 3
    assert datasets.load_dataset(str(npz())).fingerprint == prints[0]
    assert datasets.load_dataset("digits").fingerprint == digits.fingerprint


def test_a_file_of_ones_own_is_loaded_as_it_is(npz):
    dataset = datasets.load_dataset(str(npz()))
    assert dataset.fingerprint == files.read(npz()).fingerprint
    assert (dataset.name, dataset.classes) == ("mine.npz", (3, 5, 7, 9))


def test_letters_may_be_labelled_10_to_35(npz):
    letters = arrays(images=260, classes=tuple(range(10, 36)))
    dataset = datasets.load_dataset(str(npz(**letters)))
    source, target = split_tasks(dataset, list(range(10, 20)), [33, 34, 35], validation_fraction=0.2)
    assert dataset.classes == tuple(range(10, 36))
    assert (source.classes, target.classes) == (tuple(range(10, 20)), (33, 34, 35))
    assert sorted(set(target.train.labels)) == [0, 1, 2]
    assert len(target.train) + len(target.validation) == 30  # 10 images of each letter


def test_duplicates_between_training_and_test_are_counted_by_test_image(npz):
    mine = arrays()
    mine["x_test"][[0, 1, 7]] = mine["x_train"][[5, 5, 6]]
    assert datasets.duplicated_images(datasets.load_dataset(str(npz()))) == 0
    assert datasets.duplicated_images(datasets.load_dataset(str(npz(**mine)))) == 3


def publish_fashion_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Put the four files of another Fashion-MNIST into a folder, and let them be the published ones; return arrays."""
    published, hashes = arrays(images=30, size=28, classes=tuple(range(10))), {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (file, _) in datasets.FASHION_MNIST_HASHES.items():
        header = bytes(16 if name.startswith("x") else 8)  # an IDX file's type and sizes
        (folder / file).write_bytes(gzip.compress(header + published[name].astype(np.uint8).tobytes()))
        hashes[name] = (file, "md5:" + hashlib.md5((folder / file).read_bytes()).hexdigest())
    monkeypatch.setattr(datasets, "FASHION_MNIST_HASHES", hashes)
    return published


def test_fashion_mnist_is_read_from_keras_cache(offline: Path, monkeypatch: pytest.MonkeyPatch):
    expected = publish_fashion_mnist(offline / "fashion-mnist", monkeypatch)
    dataset = datasets.load_dataset("fashion_mnist")
    assert np.array_equal(dataset.train.images[..., 0], expected["x_train"])
    assert np.array_equal(dataset.test.images[..., 0], expected["x_test"])
    assert np.array_equal(dataset.train.labels, expected["y_train"])


# Bad input: each gets one sentence that names the parameter, the value and what is allowed


@pytest.mark.parametrize("name", ["", 5, None, ["digits"]])
def test_what_names_no_dataset_is_refused(name: object):
    with refused(f"dataset: {name!r}", "mnist, mnist_5k, fashion_mnist, digits", ".npz file", "folder of images"):
        datasets.load_dataset(name)


@settings(max_examples=300)
@given(st.integers(0, 3000), st.integers(1, 255))
def test_a_file_with_one_altered_byte_is_refused_or_means_the_same(altered_file, position: int, change: int):
    path, content, fingerprint = altered_file
    position %= len(content)
    path.write_bytes(content[:position] + bytes([content[position] ^ change]) + content[position + 1 :])
    try:
        assert datasets.load_dataset(str(path)).fingerprint == fingerprint
    except ValueError as error:
        assert str(error).startswith("dataset") and "\n" not in str(error)


@pytest.fixture(scope="module")
def altered_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, str]:
    """Return the path of a small valid file, what is in it, and the fingerprint of its dataset."""
    path = tmp_path_factory.mktemp("altered") / "mine.npz"
    np.savez(path, **arrays(images=4))
    return path, path.read_bytes(), datasets.load_dataset(str(path)).fingerprint


def test_a_file_with_members_for_other_folders_is_never_unpacked(npz, tmp_path: Path):
    path = npz()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.npy", "not an array")
    assert datasets.load_dataset(str(path)).classes == (3, 5, 7, 9)
    assert [found.name for found in tmp_path.parent.rglob("*.np[yz]") if "outside" in found.name] == []


def test_fashion_mnist_that_cannot_be_downloaded_says_what_to_do_instead(offline: Path):
    says = 'dataset: "fashion_mnist"', "could not be", 'dataset="mnist_5k"'
    with refused(*says, error=datasets.DownloadError) as raised:
        datasets.load_dataset("fashion_mnist")
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
    with refused("MNIST_NPZ: 'altered.npz' is not MNIST, x_test differ"):
        datasets.load_dataset("mnist")


def test_mnist_npz_is_known_by_its_content_not_by_its_file(
    mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_mnist(tmp_path / "rewritten.npz", mnist)
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path / "rewritten.npz"))
    assert datasets.load_dataset("mnist").fingerprint == mnist.fingerprint


# Files that would be downloaded, found in a folder


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Path) -> Path:
    """Put the four files of a Fashion-MNIST into the folder that the variable names."""
    publish_fashion_mnist(tmp_path, monkeypatch)
    monkeypatch.setenv("TRANSFER_TUTORIAL_DATA", str(tmp_path))
    return tmp_path


def test_published_files_are_found_in_the_folder_that_a_variable_names(published: Path):
    found = datasets.load_dataset("fashion_mnist")
    assert (len(found.train), len(found.test), found.classes) == (30, 30, tuple(range(10)))


def test_a_damaged_file_in_that_folder_is_refused_by_name(published: Path):
    (published / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half of it")
    with refused("TRANSFER_TUTORIAL_DATA: 't10k-labels-idx1-ubyte.gz' in this folder is not whole"):
        datasets.load_dataset("fashion_mnist")


def test_what_that_folder_lacks_is_looked_for_elsewhere(published: Path):
    (published / "t10k-labels-idx1-ubyte.gz").unlink()
    with refused('dataset: "fashion_mnist"', "TRANSFER_TUTORIAL_DATA", error=datasets.DownloadError):
        datasets.load_dataset("fashion_mnist")


# 5,000 of MNIST's images


def test_mnist_5k_has_400_training_and_100_test_images_of_each_digit():
    found = datasets.load_dataset("mnist_5k")
    assert np.bincount(found.train.labels).tolist() == [400] * 10
    assert np.bincount(found.test.labels).tolist() == [100] * 10
    assert found.train.images.shape == (4000, 28, 28, 1)
    assert datasets.duplicated_images(found) == 0


def test_mnist_5k_is_a_part_of_mnists_training_images(mnist: Dataset):
    part = datasets.load_dataset("mnist_5k")
    known = {(image.tobytes(), label) for image, label in zip(mnist.train.images, mnist.train.labels, strict=True)}
    for split in (part.train, part.test):
        assert {(image.tobytes(), label) for image, label in zip(split.images, split.labels, strict=True)} <= known

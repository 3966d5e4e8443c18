"""Photos for a pretrained network: the flowers of the course, ants and bees, or a folder of the user's own.

Test photos are never photos by somebody who also took one of the others, where it is known who took them.
"""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers import datasets, files
from helpers.folders import PACKAGE
from helpers.images import Dataset, Split
from helpers.messages import listed
from helpers.tasks import Task

SIZES = (32, 224)  # what MobileNet halves five times, and the size that it was trained at
FLOWERS = PACKAGE / "data" / "flowers"
TEST_FOLDS, VALIDATION_FOLDS = 3, 5  # a third of the photos for testing, a fifth of the rest for validation


@dataclass(frozen=True, kw_only=True)
class Photos(Dataset):
    """Photos in one array `(n, size, size, 3)`, those for training first, their labels, and who took them, if known.

    Without test photos, each seed draws its own.
    """

    images: np.ndarray
    labels: np.ndarray
    photographers: tuple[str, ...] = ()

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the indices of the training, the validation and the test photos of a seed.

        They are stratified by class; all photos by one photographer get into one of the three. Raises ValueError for
        a class that is too small to be in each of them.
        """
        known, test = np.arange(len(self.train)), np.arange(len(self.train), len(self.labels))
        if not len(test):
            known, test = self._hold_out(known, TEST_FOLDS, seed)
        train, validation = self._hold_out(known, VALIDATION_FOLDS, seed)
        return train, validation, test

    def task(self, seed: int) -> Task:
        """Return the task of telling all classes apart, with the photos as this seed splits them."""
        return Task("photos", self.classes, *(Split(self.images[part], self.labels[part]) for part in self.split(seed)))

    def _hold_out(self, chosen: np.ndarray, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.model_selection import StratifiedGroupKFold

        labels = self.labels[chosen]
        smallest = np.bincount(labels, minlength=len(self.classes)).min()
        makers = np.array(self.photographers or range(len(self.labels)))[chosen]
        folding = StratifiedGroupKFold(min(folds, smallest), shuffle=True, random_state=seed)
        rest, held_out = next(folding.split(labels, labels, makers))
        return chosen[rest], chosen[held_out]


def load_photos(photos: str = "flowers", photo_size: int = 160) -> Photos:
    """Load photos by name, or a folder of images by its path: `"flowers"`, which are in the package, or `"ants_bees"`,
    the 397 photos of PyTorch's transfer learning tutorial.

    All are cropped and resized to squares of `photo_size` pixels, 32 to 224. Raises ValueError for what `files.read`
    refuses and for classes with too few photos, DownloadError if photos cannot be downloaded.
    """
    given = {"flowers": lambda: FLOWERS, "ants_bees": datasets.ants_bees}
    folder = given.get(photos, lambda: Path(os.path.expanduser(str(photos))))()
    if not str(photos) or not folder.is_dir():
        raise ValueError(f"photos: {photos!r} is not a folder; give {listed(given)} or the path of a folder of images")
    read = replace(files.read(folder, photo_size, "photos", SIZES), name=Path(photos).name)
    if len(read.classes) < 2:
        raise ValueError(f"photos: {photos!r} has the class {listed(read.classes)} only; give two or more folders")
    for split, kind, needed in ((read.train, "training", 2), (read.test, "test", 1)):
        counts = np.bincount(split.labels, minlength=len(read.classes))
        if short := [label for label, count in zip(read.classes, counts, strict=True) if count < needed]:
            raise ValueError(
                f"photos: {read.name} has fewer than {needed} {kind} photos of class {listed(short)}; add some to it"
            )
    images = np.concatenate([read.train.images, read.test.images])
    images = np.broadcast_to(images, (*images.shape[:3], 3)).copy() if images.shape[3] == 1 else images
    labels, number, names = np.concatenate([read.train.labels, read.test.labels]), len(read.train), tuple[str, ...]()
    if photos == "flowers":
        number, names = len(labels), _photographers(read.files)
    train, test = (Split(images[part], labels[part]) for part in (slice(number), slice(number, None)))
    about = read.classes, read.notes, read.files
    return Photos(read.name, train, test, *about, images=images, labels=labels, photographers=names)


def _photographers(paths: tuple[Path, ...]) -> tuple[str, ...]:
    with open(FLOWERS.parent / "ATTRIBUTION.tsv", encoding="utf-8", newline="") as stream:
        names = {row["file"]: row["photographer"] for row in csv.DictReader(stream, delimiter="\t")}
    return tuple(names[f"{path.parent.name}/{path.name}"] for path in paths)

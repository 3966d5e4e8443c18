"""Photos for a pretrained network: the course's flowers, ants and bees, or the user's own folder.

If the photographers are known, no photographer has photos both in the test set and outside it.
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

SIZES = (32, 224)  # MobileNet halves an image five times, and was trained at 224 pixels
FLOWERS = PACKAGE / "data" / "flowers"
TEST_FOLDS, VALIDATION_FOLDS = 3, 5  # a third of the photos for testing, a fifth of the rest for validation


@dataclass(frozen=True, kw_only=True)
class Photos(Dataset):
    """Photos in one array `(n, size, size, 3)`, training photos first, with labels and, if known, photographers.

    If the photos come without a test set, each seed draws one.
    """

    images: np.ndarray
    labels: np.ndarray
    photographers: tuple[str, ...] = ()

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the indices of the training, the validation and the test photos for a seed.

        The splits are stratified by class; each photographer's photos end up in just one of them. Raises ValueError for
        a class that is too small to appear in all three.
        """
        known, test = np.arange(len(self.train)), np.arange(len(self.train), len(self.labels))
        if not len(test):
            known, test = self._hold_out(known, TEST_FOLDS, seed)
        train, validation = self._hold_out(known, VALIDATION_FOLDS, seed)
        return train, validation, test

    def task(self, seed: int) -> Task:
        """Return the task of telling all classes apart, with this seed's split of the photos."""
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
    """Load photos by name or from a folder. `"flowers"` comes with the package; `"ants_bees"` means the 397 photos from
    PyTorch's transfer learning tutorial.

    All are cropped and resized to squares of `photo_size` pixels, 32 to 224. Raises ValueError for input that
    `files.read` refuses and for classes with too few photos, and DownloadError if the photos cannot be downloaded.
    """
    given = {"flowers": lambda: FLOWERS, "ants_bees": datasets.ants_bees}
    folder = given.get(photos, lambda: Path(os.path.expanduser(str(photos))))()
    if not str(photos) or not folder.is_dir():
        raise ValueError(f"photos: {photos!r} is not a folder; give {listed(given)} or the path of a folder of images")
    read = replace(files.read(folder, photo_size, "photos", SIZES), name=Path(photos).name)
    files.check_enough(read, "photos", "photos")
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

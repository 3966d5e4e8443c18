"""Photos: the included ones, how a seed splits them, and which ones are refused."""

import csv
import zipfile
from collections import Counter

import numpy as np
import pytest
from conftest import CACHED, DATA
from PIL import Image
from refusals import refused

from helpers import datasets, photos

ANTS_BEES = [path for path in (DATA, CACHED.parent) for path in path.glob("hymenoptera_data*")]
SEEDS = range(5)


@pytest.fixture(scope="module")
def flowers() -> photos.Photos:
    return photos.load_photos("flowers", 32)


# The flowers


def test_each_flower_photo_has_a_credit_with_a_license():
    with open(photos.FLOWERS.parent / "ATTRIBUTION.tsv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    named = sorted(row["file"] for row in rows)
    assert named == sorted(path.relative_to(photos.FLOWERS).as_posix() for path in photos.FLOWERS.rglob("*.jpg"))
    for row in rows:
        assert row["photographer"] and row["changes"] and row["license"] == "CC BY 2.0"
        assert row["source"].startswith("https://www.flickr.com/photos/")


def test_there_are_60_flowers_of_each_kind_and_a_third_is_for_testing(flowers):
    assert np.bincount(flowers.labels).tolist() == [60] * 5 and flowers.notes == ()
    for seed in SEEDS:
        task = flowers.task(seed)
        counts = [np.bincount(part.labels).tolist() for part in (task.train, task.validation, task.test)]
        assert counts == [[32] * 5, [8] * 5, [20] * 5]


def test_a_photographer_is_never_on_two_sides(flowers):
    several = {name for name, count in Counter(flowers.photographers).items() if count > 1}
    assert len(several) > 10
    for seed in SEEDS:
        parts = [{flowers.photographers[index] for index in part} for part in flowers.split(seed)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_each_seed_draws_its_own_test_photos_and_the_same_seed_the_same(flowers):
    first, again, other = (flowers.split(seed)[2] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert len(set(first) & set(other)) < 60


def test_the_flowers_are_no_duplicates_of_each_other(flowers):
    assert len({image.tobytes() for image in flowers.images}) == 300


# A folder


def test_a_folder_keeps_its_test_photos_whatever_the_seed(photo_folder):
    mine = photos.load_photos(str(photo_folder), 32)
    assert mine.classes == ("dark", "light") and mine.photographers == ()
    splits = [mine.split(seed) for seed in SEEDS]
    assert all(np.array_equal(test, splits[0][2]) for _, _, test in splits)
    assert len({tuple(validation) for _, validation, _ in splits}) > 1
    for index, path in enumerate(mine.files):
        assert path.parts[-3:-1] == ("train" if index < 20 else "test", mine.classes[mine.labels[index]])
        assert abs(np.asarray(Image.open(path)).mean() - mine.images[index].mean()) < 10


@pytest.mark.parametrize("size", [31, 225])
def test_a_size_that_the_network_cannot_take_is_refused(photo_folder, size):
    with refused("photo_size", repr(size), "from 32 to 224"):
        photos.load_photos(str(photo_folder), size)


def test_photos_need_two_classes_with_images_in_both_sets(photo_folder, tmp_path):
    (tmp_path / "one").mkdir()
    (photo_folder / "train" / "dark").rename(tmp_path / "one" / "dark")
    with refused("photos", "only the class dark", "two or more"):
        photos.load_photos(str(tmp_path / "one"), 32)
    (photo_folder / "train" / "dark").mkdir()
    with refused("photos", "fewer than 2 training photos of class dark"):
        photos.load_photos(str(photo_folder), 32)


def test_a_name_that_is_no_folder_is_refused():
    with refused("photos", "'tulips'", "flowers, ants_bees", "folder"):
        photos.load_photos("tulips")


# From phones

HEIC = bytes([0, 0, 0, 36]) + b"ftypheic" + bytes(100)


def test_photos_from_phones_are_named_and_left_out(photo_folder):
    (photo_folder / "train" / "dark" / "IMG_1.HEIC").write_bytes(HEIC)
    (note,) = photos.load_photos(str(photo_folder), 32).notes
    assert note == "1 of 31 files is HEIC, which is not supported (export as JPEG): train/dark/IMG_1.HEIC"


def test_a_folder_of_nothing_but_photos_from_phones_is_refused(photo_folder, tmp_path):
    for kind in ("cats", "dogs"):
        (tmp_path / "phone" / kind).mkdir(parents=True)
        (tmp_path / "phone" / kind / "1.heic").write_bytes(HEIC)
    with refused("photos: 'phone' has only HEIC photos", "export them as JPEG"):
        photos.load_photos(str(tmp_path / "phone"))


# Ants and bees


def test_an_archive_is_checked_by_content_before_anything_is_unpacked(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "hymenoptera_data.zip", "w") as archive:
        archive.writestr("hymenoptera_data/train/ants/1.png", "")
        archive.writestr("../outside.png", "")
    with refused("TRANSFER_TUTORIAL_DATA", "'hymenoptera_data.zip'", "published"):
        photos.load_photos("ants_bees")
    assert not list(tmp_path.rglob("*.png"))


def test_without_a_network_and_photos_it_says_what_to_set(offline):
    says = "photos", '"ants_bees"', "TRANSFER_TUTORIAL_DATA", "hymenoptera_data.zip"
    with refused(*says, error=datasets.DownloadError):
        photos.load_photos("ants_bees")


@pytest.mark.skipif(not ANTS_BEES, reason="PyTorch's photos are neither in TRANSFER_TUTORIAL_DATA nor in Keras's cache")
def test_the_ants_and_bees_are_the_published_ones():
    ants_bees = photos.load_photos("ants_bees", 32)
    assert (len(ants_bees.train), len(ants_bees.test), ants_bees.classes) == (244, 153, ("ants", "bees"))
    assert ants_bees.notes == (
        "1 of 398 files is unusable (a placeholder or a broken link): train/ants/imageNotFound.gif",
    )

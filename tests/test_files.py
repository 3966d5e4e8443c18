"""A user's own images, from a folder, an .npz file, or a .csv file: what is read, and what is refused."""

import io
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin
from refusals import refused
from tiny_course import arrays

from helpers import files
from helpers.files import read
from helpers.images import Dataset
from helpers.layouts import ARRANGE, FORMATS
from helpers.tasks import split_tasks

RED, WHITE, GRAY = (255, 0, 0), (255, 255, 255), (90, 90, 90)


def colors(seed: int, size: int = 32) -> Image.Image:
    """Make an image of four plain squares, with colors chosen by the seed."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return Image.fromarray(corners.repeat(size // 2, 0).repeat(size // 2, 1))


def plain(color: object, mode: str = "RGB", size: int = 32, left: object = None) -> Image.Image:
    """Make an image of one color, optionally with a different color in its left half."""
    image = Image.new(mode, (size, size), color)
    if left is not None:
        image.paste(left, (0, 0, size // 2, size))
    return image


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def stored(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def fill(folder: Path, *classes: str, images: int = 2) -> Path:
    """Write some images of each class, no two of them equal."""
    for place, name in enumerate(classes):
        for number in range(images):
            save(colors(1000 * place + number + len(folder.parts[-1])), folder / name / f"{number}.png")
    return folder


def arrange(folder: Path, written: str) -> Path:
    """Write the named entries: two images (a/2), one image (1.png), a text (1.txt), or an empty folder (a/)."""
    folder.mkdir(exist_ok=True)
    for path in map(folder.joinpath, written.split()):
        if path.name.isdecimal():
            fill(path.parents[1], path.parent.name, images=int(path.name))
        elif path.suffix == ".png":
            save(colors(1), path)
        elif path.suffix or path.name.startswith("."):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("no image")
        else:
            path.mkdir()
    return folder


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system makes no links")


def read_alone(image: Image.Image, folder: Path, name: str = "x.png", **options: object) -> np.ndarray:
    """Read one image as the whole test set; color images in the training set give it three channels."""
    fill(folder / "train", "a")
    save(image, folder / "test" / "a" / name, **options)
    dataset = read(folder)
    assert dataset.notes == ()
    (alone,) = dataset.test.images
    return alone.astype(int)


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint


# A folder: its layout

A_FIFTH = "train/ is the training set, a fifth of it is held out as the test set"
LOST = "unusable (a placeholder or a broken link)"
NESTED = "in a subfolder of a class folder, which gives the class"
ALIKE = "which differ only in letter case or in invisible characters; rename or merge them"
LACKING = "these classes lack training or test images and cannot be chosen"
LAYOUTS = {  # contents of a folder: classes, training images, test images, notes
    "a/13 b/2": (("a", "b"), 11, 4, []),
    "Train/no/3 VAL/no/2": (("no",), 3, 2, []),
    "train/a/5 train/b/5 test/images/2": (("a", "b"), 8, 2, [f"not used: test/ ({A_FIFTH})"]),
    "bus/2 car/2 train/2": (("bus", "car", "train"), 3, 3, []),
    "trainset/a/2 trainset/b/2 segTest/a/1 segTest/b/1": (("a", "b"), 4, 2, []),
    "train_more/a/9 train/a/2 train/b/2 test/a/1 validation/a/1 validation/b/1": (
        *(("a", "b"), 4, 2),
        ["not used: test/, train_more/ (train/ is the training set, validation/ is the test set)"],
    ),
    "seg_train/seg_train/a/2 seg_train/seg_train/b/2 seg_test/seg_test/a/1 seg_test/seg_test/b/1 seg_pred/2": (
        *(("a", "b"), 4, 2, ["not used: seg_pred/ (seg_train/ is the training set, seg_test/ is the test set)"]),
    ),
    "train/a/2 train/b/2 test/a/1": (("a", "b"), 4, 1, [f"{LACKING}: b"]),
    "a/2 b/2 labels/1.txt": (
        *(("a", "b", "labels"), 2, 2),
        ["1 of 5 files is in an unrecognized format: labels/1.txt", f"{LACKING}: labels"],
    ),
    "images/a/2 images/b/2 labels/a/1.txt labels/b/1.txt": (("a", "b"), 2, 2, ["not used: labels/ (no images)"]),
    "a/all/1 b/all/1 b/2": (
        *(("a", "b"), 3, 1, [f"2 of 4 files are {NESTED}: a/all/0.png, b/all/0.png", f"{LACKING}: a"]),
    ),
    "outer/inner/a/2 outer/inner/b/2 outer/inner/license.txt": (
        *(("a", "b"), 2, 2, ["1 of 5 files is outside the class folders: outer/inner/license.txt"]),
    ),
    "9/2 0/2 10/2": ((0, 9, 10), 3, 3, []),
    "no/2 01/2 1e3/2 2/2 None/2 été/2": (("01", "1e3", "2", "None", "no", "été"), 6, 6, []),
}


@pytest.mark.parametrize("written", LAYOUTS)
def test_classes_training_and_test_images_are_recognized_in_each_layout(tmp_path: Path, written: str):
    dataset = read(arrange(tmp_path / "photos", written))
    assert (dataset.classes, len(dataset.train), len(dataset.test), [*dataset.notes]) == LAYOUTS[written]


def test_a_fifth_of_each_class_is_held_out(tmp_path: Path):
    dataset = read(fill(tmp_path, "ant", "bee", images=10))
    assert np.bincount(dataset.train.labels).tolist() == [8, 8]
    assert np.bincount(dataset.test.labels).tolist() == [2, 2]
    assert (dataset.train.images.dtype, dataset.train.labels.dtype) == (np.uint8, np.int32)
    assert len({image.tobytes() for image in (*dataset.train.images, *dataset.test.images)}) == 20


def test_images_and_labels_belong_together_and_are_in_the_order_of_their_paths(tmp_path: Path):
    fill(tmp_path / "train", "9", "10")
    for place, name in enumerate(["10/1.png", "10/10.png", "10/2.png", "9/sub/x.png", "9/z.png"]):
        save(plain((place, 0, 0)), tmp_path / "val" / name)
    dataset = read(tmp_path)
    assert dataset.test.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert [dataset.classes[label] for label in dataset.test.labels] == [10, 10, 10, 9, 9]
    assert [path.name for path in dataset.files[len(dataset.train) :]] == ["1.png", "10.png", "2.png", "x.png", "z.png"]


def test_hidden_files_and_those_of_operating_systems_are_ignored(tmp_path: Path):
    visible = read(fill(tmp_path, "a", "b"))
    fill(tmp_path, ".hidden", "__MACOSX", "a/.hidden", "a/__MACOSX")
    for name in (".DS_Store", "Thumbs.db", "a/._0.png", "b/desktop.ini", "b/thumbs.DB"):
        (tmp_path / name).write_bytes(b"no image")
    assert same(read(tmp_path), visible) and read(tmp_path).notes == ()


def test_links_are_followed_but_never_in_circles(tmp_path: Path):
    source = fill(tmp_path / "source", "a", "b", images=3)
    before = read(source)
    for name in ("a", "b"):
        link(tmp_path / "linked" / name, source / name)
    assert same(read(tmp_path / "linked"), before)
    for path, target in (("a/itself", "a"), ("b/root", "."), ("again", "."), ("b/above", "..")):
        link(source / path, source / target)
    assert same(read(source), before)


def test_dangling_links_and_pipes_are_no_images(tmp_path: Path):
    fill(tmp_path, "a")
    link(tmp_path / "a" / "gone.png", tmp_path / "absent.png")
    link(tmp_path / "a" / "self.png", tmp_path / "a" / "self.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "a" / "pipe.png")  # reading from it would block
    assert "files are unusable (a placeholder or a broken link): a/gone.png" in read(tmp_path).notes[0]


# A folder: the order of files, their names, and the image size don't change which images are held out


def test_files_listed_in_another_order_give_equal_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, scandir = read(fill(tmp_path, "a", "a/more", "b", images=6)), os.scandir

    def from_behind(path: Path) -> nullcontext[list[os.DirEntry]]:
        with scandir(path) as entries:
            return nullcontext(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", from_behind)
    assert same(read(tmp_path), one)


def test_which_images_are_held_out_depends_neither_on_their_names_nor_on_the_size(tmp_path: Path):
    fill(tmp_path / "one", "a", images=20)
    (tmp_path / "two" / "a").mkdir(parents=True)
    for number in range(20):
        shutil.copy(tmp_path / "one" / "a" / f"{number}.png", tmp_path / "two" / "a" / f"{(number * 7) % 20}.png")
    one, two = (sorted(image.tobytes() for image in read(tmp_path / name).test.images) for name in ("one", "two"))
    assert one == two and len(one) == 4
    small, large = read(tmp_path / "one", 8).test.images, read(tmp_path / "one", 64).test.images
    assert np.array_equal(small[:, ::7, ::7], large[:, ::63, ::63])  # the corners, far from where colors meet


# A folder: reading an image


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same(tmp_path: Path):
    photo = colors(3, 2048)
    exact = np.asarray(photo.resize((32, 32), Image.Resampling.BOX), int)
    assert np.abs(read_alone(photo, tmp_path, "x.jpg", quality=95) - exact)[2:14, 2:14].max() <= 4


@pytest.mark.parametrize("damaged", [False, True])
def test_a_photo_is_turned_upright_even_if_other_exif_data_are_damaged(tmp_path: Path, damaged: bool):
    upright, exif = colors(4), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    data = exif.tobytes()
    if damaged:  # by declaring the camera maker a fraction, which Pillow can read but not write
        data = data.replace(b"\x01\x0f\x00\x02", b"\x01\x0f\x00\x05") + bytes(48)
    photo = upright.transpose(Image.Transpose.ROTATE_90)
    alone = read_alone(photo, tmp_path, "x.jpg", quality=95, subsampling=0, exif=data)
    assert np.abs(alone - np.asarray(upright, int)).mean() <= 4


def gradient(top: int, kind: type) -> Image.Image:
    return Image.fromarray((LEVELS[..., 0] * (top / 255)).astype(kind))


def halves(left: object, right: object) -> np.ndarray:
    return np.array([[left] * 16 + [right] * 16] * 32).reshape(32, 32, -1)


LEVELS = np.linspace(0, 255, 32 * 32).reshape(32, 32, 1)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
DARK = Image.fromarray(np.full((32, 32), 255, np.uint16))
BOARD = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))  # alternating black and white
FRAMED = Image.new("RGB", (96, 32))
FRAMED.paste(RED, (32, 0, 64, 32))
CUT_OUT = plain((*GRAY, 255), "RGBA", left=(0, 0, 0, 0))  # black, but transparent
PALETTE = plain(200, "P", size=64)
PALETTE.putpalette([*(0, 255, 0) * 200, *RED])
LONG_TEXT = PngImagePlugin.PngInfo()
LONG_TEXT.add_text("comment", "long " * 1_000_000, zip=True)
READ = {  # an image, its file name, how it is saved; the expected pixels, and the tolerance
    "the content decides, not the extension": (plain(RED), "x.txt", {"format": "PNG"}, RED, 0),
    **{
        f"x.{kind} is read": (plain(RED), f"x.{kind}", {}, RED, 5)
        for kind in ("JPeG", "gif", "BMP", "webp", "TIFF", "ppm", "jp2", *["avif"] * ("AVIF" in FORMATS))
    },
    "megabytes of text in a PNG file": (plain(RED), "x.png", {"pnginfo": LONG_TEXT}, RED, 0),
    "a color image of the right size is kept to the pixel": (Image.fromarray(NOISE), "x.png", {}, NOISE, 0),
    "the central square": (FRAMED, "x.png", {}, RED, 0),
    **{f"smaller images are means: {mode}": (BOARD.convert(mode), "x.png", {}, 127.5, 8) for mode in ("L", "1", "P")},
    "transparent is white": (CUT_OUT, "x.png", {}, halves(WHITE, GRAY), 0),
    "a transparent edge is not darkened": (CUT_OUT.resize((640, 640), 0), "x.png", {}, 172, 87),
    "a transparent color": (plain(RED), "x.png", {"transparency": RED}, WHITE, 0),
    "a palette is resized by color, not by number": (PALETTE, "x.png", {}, RED, 0),
    "black and white become 0 and 255": (plain(1, "1", left=0), "x.png", {}, halves(0, 255), 0),
    "16 bits keep their brightness": (gradient(65535, np.uint16), "x.png", {}, LEVELS, 1),
    "a dark image of 16 bits stays dark, and Pillow scales this kind itself": (DARK, "x.pgm", {}, 1, 0),
    **{f"32 bits, from 0 to {top}": (gradient(top, np.float32), "x.tif", {}, LEVELS, 1) for top in (1, 255, 65535)},
}


@pytest.mark.parametrize(("image", "name", "saved", "expected", "tolerance"), READ.values(), ids=READ)
def test_an_image_is_read_as_it_looks(tmp_path: Path, image: Image.Image, name: str, saved, expected, tolerance):
    with warnings.catch_warnings(action="error"):
        alone = read_alone(image, tmp_path, name, **saved)
    assert (np.abs(alone - expected) <= tolerance).all()


def test_images_without_color_get_one_channel_however_they_are_stored(tmp_path: Path):
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8))
    for number, (mode, kind) in enumerate((("L", "png"), ("RGB", "jpg"), ("LA", "png"), ("P", "gif"))):
        save(gray.convert(mode), tmp_path / "a" / f"{number}.{kind}")
    (tmp_path / "a" / "broken.png").write_bytes(stored(colors(1))[:-60])  # a broken image doesn't count as color
    assert read(tmp_path).train.images.shape == (3, 32, 32, 1)


def test_one_pixel_of_color_gives_all_images_three_channels(tmp_path: Path):
    for name in ("train", "val"):
        save(plain(90, "L"), tmp_path / name / "a" / "1.png")
    image = plain(GRAY)
    image.putpixel((31, 31), (90, 90, 91))
    save(image, tmp_path / "val" / "a" / "2.png")
    dataset = read(tmp_path)
    assert dataset.train.images.shape[3] == dataset.test.images.shape[3] == 3
    assert (dataset.train.images == 90).all()


# A folder: skipped files


NOISY = Image.fromarray(NOISE).resize((64, 64))
OFF_THE_SCALE = Image.fromarray(np.full((32, 32), -1, np.float32))
SKIPPED = {  # files next to two images of a class, and the notes on them
    "a/photo.jpg": (b"<html>404</html>", "1 of 3 files is in an unrecognized format: a/photo.jpg"),
    "a/b.eps": (stored(colors(1), "EPS"), "1 of 3 files is in an unrecognized format: a/b.eps"),  # needs Ghostscript
    "a/half.png": (stored(NOISY)[:2000], "1 of 3 files is broken: a/half.png"),
    "a/negative.tif": (stored(OFF_THE_SCALE, "TIFF"), "1 of 3 files is broken: a/negative.tif"),
    "a/vast.png": (
        stored(Image.new("1", (7100, 7100))),
        "1 of 3 files is too large (over 50 million pixels): a/vast.png",
    ),
    "a/two\nlines.txt": (b"", "1 of 3 files is in an unrecognized format: 'a/two\\nlines.txt'"),
    "a/image_not_found (2).PNG": (stored(colors(9)), f"1 of 3 files is {LOST}: a/image_not_found (2).PNG"),
    "a/image_of_a_not_so_rare_bird.png": (stored(colors(9)), None),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_what_is_skipped_is_named_in_a_note(tmp_path: Path, name: str):
    content, note = SKIPPED[name]
    try:
        (fill(tmp_path, "a") / name).write_bytes(content)
    except OSError:
        pytest.skip("this system allows no such names")
    assert read(tmp_path).notes == ((note,) if note else ())


def test_each_reason_has_one_note_with_at_most_three_names(tmp_path: Path):
    fill(tmp_path, "a")
    for number in range(5):
        (tmp_path / "a" / f"{number}.txt").touch()
    (tmp_path / "a" / "half.png").write_bytes(stored(NOISY)[:2000])
    texts = "5 of 8 files are in an unrecognized format: a/0.txt, a/1.txt, a/2.txt and 2 more"
    assert read(tmp_path).notes == ("1 of 8 files is broken: a/half.png", texts)


# A folder: refused input


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (".DS_Store", f"is empty; ... {ARRANGE}"),
        ("1.png", f"has no class folders; ... {ARRANGE}"),
        ("train/1.png test/1.png", f"has no class folders in train/; ... {ARRANGE}"),
        ("a/1.jpg b/", f"has no readable images; ... {ARRANGE}"),
        ("a/1 b/1", "has only one image of each class; provide at least two"),
        ("train2017/2 val2017/2 labels/1.txt", f"has no class folders in train2017/; ... {ARRANGE}"),
        ("rgb/a/1 rgb/b/1 gray/a/1 gray/b/1", "has folders with the same names, such as a, b, in gray/, rgb/; use"),
        ("a/1 b/1 copy/a/1 copy/b/1", "has folders with the same names, such as a, b, in ./, copy/; use one of these"),
        ("train/A/1 train/b/1 test/a/1 test/b/1", f"has the folders A, a, {ALIKE}"),
        ("cat/1 cat\u200b/1", f"has the folders cat, 'cat\\u200b', {ALIKE}"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, written: str, says: str):
    with refused("MINE: 'photos' ", *says.split(" ... ")):
        read(arrange(tmp_path / "photos", written), parameter="MINE")


def test_composed_and_decomposed_letters_and_spaces_around_a_name_are_one_class_and_may_be_given_either_way(tmp_path):
    decomposed = "cafe\u0301"
    fill(tmp_path / "train", "café", "cat ", "dog", "ice\u00a0cream")
    fill(tmp_path / "test", decomposed, "cat", "dog ", "ice cream")
    dataset = read(tmp_path)
    assert (dataset.classes, dataset.notes) == (("café", "cat", "dog", "ice cream"), ())
    assert np.bincount(dataset.test.labels).tolist() == [2] * 4
    assert split_tasks(dataset, [decomposed, "cat"], ["dog", "ice cream"], 0.5)[0].classes == ("café", "cat")


@pytest.mark.parametrize(("written", "kind"), [("wasp/1.txt", "training"), ("wasp/1", "test")])
def test_a_class_without_images_or_with_a_single_one_is_refused_only_where_it_is_chosen(
    tmp_path: Path, written: str, kind: str
):
    dataset = read(arrange(fill(tmp_path, *"abcd", images=10), written))
    split_tasks(dataset, ["a", "b"], ["c", "d"])
    with refused(f"dataset: {tmp_path.name} has no {kind} images of class wasp; "):
        split_tasks(dataset, ["a", "b"], ["c", "wasp"])


@pytest.mark.parametrize("denied", ["photos", "0.png", "mine.npz", "mine.csv"])
def test_what_may_not_be_read_is_refused_not_skipped(tmp_path: Path, denied: str, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "photos", "a")
    for name in ("mine.npz", "mine.csv"):
        (tmp_path / name).touch()
    for module, name, real in ((os, "scandir", os.scandir), (files, "open", open), (np, "load", np.load)):

        def opened(path: Path, *mode: str, real: Callable = real, **options: object):
            if Path(path).name == denied:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *mode, **options)

        monkeypatch.setattr(module, name, opened, raising=False)
    with refused("dataset: ", f"{denied}' cannot be read"):
        read(tmp_path / (denied if denied.startswith("mine") else "photos"))


# Any path


@pytest.mark.parametrize("size", [7, 65, 32.0, "32", False])
def test_an_image_size_that_is_not_allowed_is_refused_before_anything_is_read(tmp_path: Path, size: object):
    with refused(f"image_size: {size!r} is neither 0 nor a whole number from 8 to 64"):
        read(tmp_path / "absent", size)


# An .npz file


@pytest.mark.parametrize("channels", [0, 3])
def test_kerass_layout_is_read_as_it_is(npz, channels: int):
    mine = arrays(channels=channels)
    dataset = read(npz(**mine))
    assert np.array_equal(dataset.train.images, mine["x_train"].reshape(8, 8, 8, -1))
    assert np.array_equal(dataset.test.images, mine["x_test"].reshape(8, 8, 8, -1))
    assert dataset.classes == (3, 5, 7, 9) and {type(label) for label in dataset.classes} == {int}
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == [0, 3, 1, 2, 0, 3, 1, 2]
    assert (dataset.train.images.dtype, dataset.test.labels.dtype, dataset.notes) == (np.uint8, np.int32, ())


def test_medmnists_layout_is_read_without_its_validation_set(tmp_path: Path):
    mine = arrays(channels=3)
    names = {"x_train": "train_images", "y_train": "train_labels", "x_test": "test_images", "y_test": "test_labels"}
    medical = {names[name]: array if "x" in name else array[:, np.newaxis] for name, array in mine.items()}
    np.savez(tmp_path / "medical.npz", **medical, val_images=np.zeros(3), val_labels=np.array(["unused"]))
    np.savez(tmp_path / "plain.npz", **mine)
    assert same(read(tmp_path / "medical.npz"), read(tmp_path / "plain.npz"))


def test_of_oblong_images_the_central_square_is_read(npz):
    images = np.zeros((8, 8, 11), np.uint8)
    images[:, :, 1:9] = 7
    dataset = read(npz(x_train=images, x_test=images))
    assert dataset.train.images.shape == dataset.test.images.shape == (8, 8, 8, 1)
    assert (dataset.train.images == 7).all() and (dataset.test.images == 7).all()


@pytest.mark.parametrize(("size", "channels"), [(4, 0), (100, 3)])
def test_arrays_are_resized_to_image_size(npz, size: int, channels: int):
    images = arrays(size=size, channels=channels)["x_train"]
    images[1], images[2] = 0, 200
    dataset = read(npz(x_train=images, x_test=images), 16)
    assert dataset.train.images.shape == dataset.test.images.shape == (8, 16, 16, channels or 1)
    assert [np.unique(dataset.train.images[place]).tolist() for place in (1, 2)] == [[0], [200]]
    assert abs(dataset.test.images.mean() - images.mean()) < 5


def test_training_and_test_images_of_different_sizes_need_an_image_size(npz):
    path = npz(x_test=arrays(size=28)["x_test"])
    with refused("dataset: 'mine.npz' cannot be used: the images are 8x8 in x_train, but 28x28 in x_test; give all"):
        read(path)
    assert read(path, 20).test.images.shape == (8, 20, 20, 1)
    with refused("the images are 8x8x3 in x_train, but 8x8 in x_test; give all images the same size"):
        read(npz(x_train=arrays(channels=3)["x_train"]))


IMAGES = arrays()["x_train"]
SCALES = {  # the stored values, and the same on a scale from 0 to 255
    **{kind: (IMAGES.astype(kind), IMAGES) for kind in ("uint64", "float32", ">i4")},
    "fractions of 255": (IMAGES.astype(np.float32) / np.float32(255), IMAGES),
    "nearly whole numbers": (IMAGES + 0.0005, IMAGES),
    "booleans are black and white": (IMAGES > 127, (IMAGES > 127) * 255),
    "small whole numbers": (np.ones((8, 8, 8), int), 1),
}


@pytest.mark.parametrize(("stored", "meant"), SCALES.values(), ids=SCALES)
def test_numbers_of_any_type_and_scale_are_read_as_brightness(npz, stored: np.ndarray, meant: np.ndarray):
    dataset = read(npz(x_train=stored, x_test=stored))
    assert (dataset.train.images[..., 0] == meant).all() and (dataset.test.images[..., 0] == meant).all()


def test_training_and_test_images_share_one_scale(npz):
    mine = arrays()
    dataset = read(npz(x_train=mine["x_train"].astype(float), x_test=np.ones((8, 8, 8))))
    assert (dataset.test.images == 1).all()  # nearly black: 1 of 255
    assert dataset.train.images.max() == 255


@pytest.mark.parametrize(
    ("kind", "value"), [("float64", -1), ("float64", 1.002), ("float64", np.nan), ("float16", np.inf), ("int64", 256)]
)
@pytest.mark.filterwarnings("error")
def test_values_that_are_no_brightness_are_refused(npz, kind: str, value: float):
    images = {key: arrays()[key].astype(kind) for key in ("x_train", "x_test")}
    images["x_test"][-1, -1, -1] = value
    with refused(f"'mine.npz' cannot be used: x_test contains {images['x_test'][-1, -1, -1]}; use whole numbers"):
        read(npz(**images))


@pytest.mark.parametrize(
    ("says", "changed"),
    [
        ("x_train has type uint8 and shape (8, 7, 7)", {"x_train": np.zeros((8, 7, 7), np.uint8)}),
        ("x_test has type uint8 and shape (8, 3, 32, 32)", {"x_test": np.zeros((8, 3, 32, 32), np.uint8)}),
        ("x_train has type <U1 and shape (8, 8, 8)", {"x_train": np.full((8, 8, 8), "a")}),
        ("x_train contains 7 images and y_train 8 labels", {"x_train": arrays(7)["x_train"]}),
        ("x_test contains 0 images and y_test 0 labels", {"x_test": arrays(0)["x_test"], "y_test": np.zeros(0, int)}),
        ("y_train has type float64 and shape (8,)", {"y_train": arrays()["y_train"] / 1}),
        ("y_train has type int64 and shape (8, 10)", {"y_train": np.eye(10, dtype=int)[arrays()["y_train"]]}),
        ("y_test contains labels outside the range of int32", {"y_test": np.arange(8, dtype=np.uint64) + 2**63}),
    ],
)
def test_arrays_of_another_layout_are_refused(npz, says: str, changed: dict[str, np.ndarray]):
    layout = "give images (n, height, width) or (n, height, width, 1 or 3)"
    with refused(f"dataset: 'mine.npz' cannot be used: {says}; {layout}"):
        read(npz(**changed))


def test_a_file_that_lacks_an_array_is_refused(npz):
    with refused("dataset: 'mine.npz' lacks y_test; give an .npz file with the arrays x_train, y_train, x_test"):
        read(npz(y_test=None))


@pytest.mark.parametrize("damage", ["text", "half", "an array"])
def test_a_file_that_is_no_whole_npz_is_refused(npz, damage: str):
    path, array = npz(), io.BytesIO()
    np.save(array, np.zeros(3))
    contents = {"text": b"label,pixel\n", "half": path.read_bytes()[:-200], "an array": array.getvalue()}
    path.write_bytes(contents[damage])
    with refused("dataset: 'mine.npz' cannot be read as an .npz file with the arrays x_train, y_train"):
        read(path)


class Unpickled:
    """Leave a trace when unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_nothing_is_ever_unpickled(npz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = npz(y_test=np.array([Unpickled()] * 8, object))
    with refused("dataset: 'mine.npz' cannot be read as an .npz file", "without pickled objects"):
        read(path)
    assert not (tmp_path / "unpickled").exists()


# A .csv file


def table(images: int = 40, size: int = 8, labels: tuple[object, ...] = (3, 9, 5, 7)) -> pd.DataFrame:
    """Make a table in Kaggle's layout, with labels that take turns."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, size * size))
    frame = pd.DataFrame(pixels, columns=[f"pixel{number}" for number in range(size * size)])
    frame.insert(0, "label", np.resize(np.array(labels, object), images))
    return frame


def with_pixel(value: object) -> pd.DataFrame:
    frame = table().astype(object)
    frame.loc[30, "pixel9"] = value
    return frame


@pytest.fixture
def csv(tmp_path: Path) -> Callable[[pd.DataFrame | str | bytes], Path]:
    """Write a table, or text, as a .csv file; return its path."""

    def write(content: pd.DataFrame | str | bytes) -> Path:
        path = tmp_path / "mine.csv"
        if isinstance(content, pd.DataFrame):
            content = content.to_csv(index=False)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_kaggles_layout_is_read_and_a_fifth_of_each_class_held_out(csv):
    frame = table()
    dataset = read(csv(frame))
    assert dataset.classes == (3, 5, 7, 9) and {type(label) for label in dataset.classes} == {int}
    assert np.bincount(dataset.train.labels).tolist() == [8] * 4
    assert np.bincount(dataset.test.labels).tolist() == [2] * 4
    assert (dataset.train.images.shape, dataset.train.images.dtype) == ((32, 8, 8, 1), np.uint8)
    images, labels = ([*getattr(dataset.train, part), *getattr(dataset.test, part)] for part in ("images", "labels"))
    classes = {image.tobytes(): dataset.classes[label] for image, label in zip(images, labels, strict=True)}
    rows = frame.drop(columns="label").to_numpy(np.uint8)
    assert classes == {row.tobytes(): label for row, label in zip(rows, frame["label"], strict=True)}


def test_neither_the_order_of_the_rows_nor_where_the_label_is_matters(csv):
    frame = table()
    shuffled = frame.sample(frac=1, random_state=0)
    shuffled["label"] = shuffled.pop("label")
    assert list(shuffled)[-1] == "label"
    assert same(read(csv(shuffled)), read(csv(frame)))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("wasp", "bee", "NA", "été"), ("NA", "bee", "wasp", "été")),
        (("1.0", " 02"), (1, 2)),
        (("café", "cafe\u0301", "cat", "cat "), ("café", "cat")),
    ],
)
def test_labels_are_names_or_whole_numbers_however_these_are_written(csv, labels: tuple, classes: tuple):
    assert read(csv(table(labels=labels))).classes == classes


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + table().to_csv(index=False),
        table().reset_index(names="id").to_csv(),  # including pandas' index
        table().to_csv(index=False, sep=";"),
        table().rename(columns={"label": " Label"}).to_csv(index=False),
        table().to_csv(index=False).replace("\n", ",\n"),
        "label" + "," * 64 + "\n" + table().to_csv(index=False, header=False),
    ],
    ids=["byte-order mark", "two indices", "semicolons", "Label", "commas at the end", "pixels without names"],
)
def test_a_table_may_be_written_in_many_ways(csv, text: str):
    assert same(read(csv(text)), read(csv(table())))


HEADER, *ROWS = table().to_csv(index=False).splitlines()
LAYOUT = "a UTF-8 .csv file with a header, a column 'label'"
NO_TABLE = f"cannot be read as {LAYOUT}"
REFUSED = {  # a table, and the message about it, with "..." for omitted parts
    "names and numbers": (table(labels=("a", "b", "1.5")), "has 'a' among its labels; use only int32 numbers, or"),
    "a name missing": (table(labels=(" ", "a")), "has a row without a label; give"),
    "no label": (table().drop(columns="label"), f"has no column 'label'; give {LAYOUT}"),
    "no rows": (table(0), f"has no rows; give {LAYOUT}"),
    "no second image": (table(4), "has only one image of each class; provide at least two"),
    "oblong": (table().drop(columns="pixel9"), "has 63 pixel columns; n*n are needed, with n from 8 to 64"),
    "letter case": (table(labels=("Cat", "cat")), "has the labels Cat, cat, which differ only in letter case or in"),
    "an empty pixel": (with_pixel(""), NO_TABLE),
    "a negative pixel": (with_pixel(-1), "a column of pixels contains -1.0; use whole numbers"),
    "half a pixel": (with_pixel(0.5), "a column of pixels contains 0.5; use whole numbers"),
    "an empty file": ("", NO_TABLE),
    "no text": (b"\xff\xfe\x00", NO_TABLE),
    "a short row": ("\n".join([HEADER, *ROWS, "3" + ",1" * 63]), NO_TABLE),
    "long rows only": ("\n".join([HEADER, *(f"{row},1" for row in ROWS)]), NO_TABLE),
}


@pytest.mark.parametrize(("content", "says"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(csv, content: pd.DataFrame | str | bytes, says: str):
    with refused("dataset: 'mine.csv' ", *says.split(" ... ")):
        read(csv(content))

"""A user's own images: what is read from a folder, an .npz or a .csv file, and what is refused."""

import io
import os
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from refusals import covers, refused
from tiny_course import arrays
from tqdm import tqdm

from helpers import files
from helpers.files import read
from helpers.images import Dataset
from helpers.tasks import split_tasks

RED, WHITE, GREY = (255, 0, 0), (255, 255, 255), (90, 90, 90)


def arrays_of(dataset: Dataset) -> tuple[np.ndarray, ...]:
    """Return the four arrays of a dataset."""
    return dataset.train.images, dataset.train.labels, dataset.test.images, dataset.test.labels


def colours(seed: int, size: int = 32) -> Image.Image:
    """Make an image of four plain squares, whose colours the seed chooses."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return Image.fromarray(corners.repeat(size // 2, 0).repeat(size // 2, 1))


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def fill(folder: Path, *classes: str, each: int = 2) -> Path:
    """Write some images of each class; no two are equal."""
    for place, name in enumerate(classes):
        for number in range(each):
            save(colours(1000 * place + number + len(folder.parts[-1])), folder / name / f"{number}.png")
    return folder


def only(
    image: Image.Image | bytes, folder: Path, name: str = "x.png", size: int = 32, **options: object
) -> np.ndarray:
    """Read one image as the test set's only one, beside a colour image, so that it has three channels."""
    fill(folder / "train", "a")
    target = folder / "test" / "a" / name
    target.parent.mkdir(parents=True)
    if isinstance(image, bytes):
        target.write_bytes(image)
    else:
        image.save(target, **options)
    found = read(folder, size)
    assert found.notes == ()
    (alone,) = found.test.images
    return alone.astype(int)


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint


# A folder: which files are read


def test_class_folders_alone_lose_a_fifth_of_each_class_to_the_test_set(tmp_path: Path):
    found = read(fill(tmp_path / "photos", "ant", "bee", "cat", "dog", each=10))
    assert found.classes == ("ant", "bee", "cat", "dog")
    assert np.bincount(found.train.labels).tolist() == [8] * 4
    assert np.bincount(found.test.labels).tolist() == [2] * 4
    assert found.train.images.shape == (32, 32, 32, 3) and found.test.images.shape == (8, 32, 32, 3)
    assert {array.dtype.name for array in arrays_of(found)} == {"uint8", "int32"}
    assert found.notes == ()
    assert len({image.tobytes() for image in (*found.train.images, *found.test.images)}) == 40


TRAIN_AND_TEST = "train/ is the training set, test/ is the test set"
A_FIFTH = "train/ is the training set, a fifth of it is held out as the test set"
ARRANGED = {  # what lies in a folder: classes, images to train on, images to test with, notes
    **{f"a/{each}": (("a",), each - held_out, held_out, []) for each, held_out in ((2, 1), (3, 1), (7, 1), (8, 2))},
    **{f"a/{each}": (("a",), each - held_out, held_out, []) for each, held_out in ((11, 2), (13, 3))},
    "a/2 b/2": (("a", "b"), 2, 2, []),  # fewer than four classes are for others to refuse
    "a/2 b/2 c/2": (("a", "b", "c"), 3, 3, []),
    "train/a/5 train/b/5": (("a", "b"), 8, 2, []),
    "train/a/1 test/a/1": (("a",), 1, 1, []),
    "train/a/2 test/a/2 val/a/2 masks/a/2": (("a",), 2, 2, [f"not used: masks/, val/ ({TRAIN_AND_TEST})"]),
    "train/a/5 test/1.png": (("a",), 4, 1, [f"not used: test/ ({A_FIFTH})"]),
    "bus/2 car/2 train/2": (("bus", "car", "train"), 3, 3, []),
    "a/2 a/2024/b/2": (("a",), 3, 1, []),
    "image_not_found/photo_unavailable/2 image_not_found/b/2": (("b", "photo_unavailable"), 2, 2, []),
    "train/a/2 val/a/2 train/loose.png README.txt": (
        *(("a",), 2, 2, ["2 of 6 files are outside the class folders: README.txt, train/loose.png"]),
    ),
}


def arrange(folder: Path, written: str) -> Path:
    """Write what is named: so many images (a/2), one (1.png), a text (1.txt), or an empty folder (a/)."""
    folder.mkdir(exist_ok=True)
    for path in map(folder.joinpath, written.split()):
        if path.name.isdecimal():
            fill(path.parents[1], path.parent.name, each=int(path.name))
        elif path.suffix == ".png":
            save(colours(1), path)
        elif path.suffix or path.name.startswith("."):
            path.parent.mkdir(exist_ok=True)
            path.write_text("no image")
        else:
            path.mkdir()
    return folder


@pytest.mark.parametrize("written", ARRANGED)
def test_classes_training_and_test_images_are_found_however_a_folder_is_arranged(tmp_path: Path, written: str):
    found = read(arrange(tmp_path / "photos", written))
    assert (found.classes, len(found.train), len(found.test), [*found.notes]) == ARRANGED[written]


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", "Test", "VAL"])
@pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
def test_training_and_test_folders_are_known_by_name(tmp_path: Path, train: str, test: str):
    fill(tmp_path / train, "no", "yes", each=3)
    save(Image.new("RGB", (32, 32), RED), tmp_path / test / "no" / "1.png")
    save(Image.new("RGB", (32, 32), GREY), tmp_path / test / "yes" / "1.png")
    found = read(tmp_path)
    assert found.classes == ("no", "yes")
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.test.labels.tolist() == [0, 1]
    assert found.test.images[:, 0, 0].tolist() == [list(RED), list(GREY)]
    assert found.notes == ()


@pytest.mark.parametrize("below", ["photos", "photos/photos"])
def test_a_folder_around_the_one_that_is_meant_is_looked_through(tmp_path: Path, below: str):
    meant = fill(tmp_path / "given" / below, "a", "b", each=5)
    (tmp_path / "given" / "read me.txt").write_text("Thank you for downloading.")
    assert same(read(tmp_path / "given"), read(meant))


def test_folders_that_are_all_called_by_numbers_are_numbers(tmp_path: Path):
    found = read(fill(tmp_path, "0", "10", "9", each=2))
    assert found.classes == (0, 9, 10)
    assert found.train.labels.tolist() == [0, 2, 1]  # in the order of the paths


def test_names_of_classes_stay_text_and_are_sorted_as_text(tmp_path: Path):
    names = ["no", "01", "1e3", "10", "2", "None", "a class named with 30 letters.", "été"]
    assert read(fill(tmp_path, *names)).classes == tuple(sorted(names))


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path):
    plain = read(fill(tmp_path, "a", "b"))
    for name in (".hidden", "__MACOSX", ".ipynb_checkpoints", "a/.hidden", "a/__MACOSX"):
        fill(tmp_path / name, "c")
    for name in (".DS_Store", "Thumbs.db", "a/._0.png", "a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", "b/thumbs.DB"):
        (tmp_path / name).write_bytes(b"no image")
    found = read(tmp_path)
    assert same(found, plain)
    assert (found.classes, found.notes) == (("a", "b"), ())


def test_hundreds_of_images_are_each_in_their_place(tmp_path: Path):
    for number in range(230):
        save(Image.new("RGB", (32, 32), (number, 0, 1)), tmp_path / "train" / "a" / f"{number:03}.png")
    fill(tmp_path / "test", "a")
    found = read(tmp_path)
    assert (found.train.images[..., 0] == np.arange(230)[:, np.newaxis, np.newaxis]).all()


# A folder: links


def link(path: Path, target: Path, folder: bool = True) -> None:
    try:
        path.symlink_to(target, target_is_directory=folder)
    except OSError:
        pytest.skip("this system makes no links")


def test_links_are_followed(tmp_path: Path):
    store = fill(tmp_path / "store", "a", "b")
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        link(tmp_path / "photos" / name, store / name)
    (tmp_path / "files" / "a").mkdir(parents=True)
    for number in range(2):
        link(tmp_path / "files" / "a" / f"{number}.png", store / "a" / f"{number}.png", folder=False)
    assert same(read(tmp_path / "photos"), read(store))
    assert len(read(tmp_path / "files").train) == 1


def test_links_do_not_lead_round_in_circles(tmp_path: Path):
    plain = read(fill(tmp_path / "photos", "a", "b", each=3))
    link(tmp_path / "photos" / "a" / "itself", tmp_path / "photos" / "a")
    link(tmp_path / "photos" / "b" / "root", tmp_path / "photos")
    link(tmp_path / "photos" / "again", tmp_path / "photos")
    link(tmp_path / "photos" / "b" / "above", fill(tmp_path, "not a photo"))
    found = read(tmp_path / "photos")
    assert same(found, plain)
    assert (found.classes, found.notes) == (("a", "b"), ())


def test_folders_that_link_to_each_other_are_read_to_an_end(tmp_path: Path):
    fill(tmp_path, "a", "b")
    link(tmp_path / "a" / "other", tmp_path / "b")
    link(tmp_path / "b" / "other", tmp_path / "a")
    found = read(tmp_path)
    assert len(found.train) + len(found.test) == 8


def test_links_to_nothing_and_to_themselves_are_no_images(tmp_path: Path):
    fill(tmp_path, "a")
    link(tmp_path / "a" / "gone.png", tmp_path / "absent.png", folder=False)
    link(tmp_path / "a" / "self.png", tmp_path / "a" / "self.png", folder=False)
    assert read(tmp_path).notes == ("2 of 4 files are no image: a/gone.png, a/self.png",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path):
    fill(tmp_path, "a")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert read(tmp_path).notes == ("1 of 3 files is no image: a/pipe.png",)


# A folder: the order of writing, of listing and of names does not matter


def test_copies_that_were_written_and_are_listed_in_another_order_give_equal_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = fill(tmp_path / "one", "a", "b", each=12)
    (source / "a" / "more").mkdir()
    (source / "a" / "0.png").rename(source / "a" / "more" / "0.png")
    for path in sorted(source.rglob("*.png"), reverse=True):
        target = tmp_path / "two" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    one, scandir = read(source), os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry]:
            return self.entries

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert same(read(tmp_path / "two"), one)


def test_images_are_in_the_order_of_their_paths(tmp_path: Path):
    fill(tmp_path / "train", "a", "b")
    for place, name in enumerate(["a/1.png", "a/10.png", "a/2.png", "b/sub/x.png", "b/z.png"]):
        save(Image.new("RGB", (32, 32), (place, 0, 0)), tmp_path / "val" / name)
    assert read(tmp_path).test.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_which_images_are_held_out_does_not_depend_on_their_names(tmp_path: Path):
    fill(tmp_path / "one", "a", each=20)
    for number in range(20):
        target = tmp_path / "two" / "a" / f"{(number * 7) % 20}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "one" / "a" / f"{number}.png", target)
    one, two = (sorted(image.tobytes() for image in read(tmp_path / name).test.images) for name in ("one", "two"))
    assert one == two and len(one) == 4


def test_which_images_are_held_out_does_not_depend_on_the_size(tmp_path: Path):
    fill(tmp_path, "a", each=20)
    small, large = read(tmp_path, 8).test.images, read(tmp_path, 64).test.images
    assert np.array_equal(small[:, ::7, ::7], large[:, ::63, ::63])  # the corners, far from where colours meet


def test_held_out_are_not_simply_the_first_or_last_names(tmp_path: Path):
    for number in range(50):
        save(Image.new("RGB", (32, 32), (number, 0, 1)), tmp_path / "a" / f"{number:02}.png")
    numbers = set(read(tmp_path).test.images[:, 0, 0, 0].tolist())
    assert len(numbers) == 10
    assert min(numbers) < 25 < max(numbers)


# A folder: what becomes of an image


@pytest.mark.parametrize("size", [0, 8, 64])
def test_images_get_the_size_that_is_asked_for_or_32(tmp_path: Path, size: int):
    fill(tmp_path, "a")
    save(colours(5, 100), tmp_path / "a" / "large.png")
    save(colours(6, 4), tmp_path / "a" / "small.png")
    assert read(tmp_path, size).train.images.shape == (3, size or 32, size or 32, 3)


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size_and_looks_the_same(tmp_path: Path):
    photo = colours(3, 2048)
    exact = np.asarray(photo.resize((32, 32), Image.Resampling.BOX), int)
    assert np.abs(only(photo, tmp_path, "x.jpg", quality=95) - exact)[2:14, 2:14].max() <= 4
    assert np.abs(only(photo, tmp_path / "as-png") - exact)[2:14, 2:14].max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(tmp_path: Path, orientation: int):
    upright = colours(4, 64)
    stored = {  # how a camera that was held so writes the upright scene
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = upright.transpose(stored) if stored is not None else upright
    alone = only(photo, tmp_path, "x.jpg", quality=95, subsampling=0, exif=exif)
    assert np.abs(alone - np.asarray(upright.resize((32, 32)), int))[4:12, 4:12].max() <= 4
    assert np.abs(alone - np.asarray(upright.resize((32, 32)), int))[20:28, 20:28].max() <= 4


def test_damaged_exif_data_costs_no_photo(tmp_path: Path):
    upright, exif = colours(4, 32), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    text, fraction = (
        b"\x01\x0f\x00\x02",
        b"\x01\x0f\x00\x05",
    )  # Pillow reads the maker as a fraction, but cannot write it
    damaged = exif.tobytes().replace(text, fraction) + bytes(48)
    assert fraction in damaged
    photo = upright.transpose(Image.Transpose.ROTATE_90)
    alone = only(photo, tmp_path, "x.jpg", quality=95, subsampling=0, exif=damaged)
    assert np.abs(alone - np.asarray(upright, int)).mean() <= 4


def test_a_resized_edge_of_transparency_is_no_darker_than_its_sides(tmp_path: Path):
    alone = only(CUT_OUT.resize((640, 640), Image.Resampling.NEAREST), tmp_path)
    assert alone.min() >= 85  # not black, which is the hidden colour


def plain(colour: object, mode: str = "RGB", size: int = 32, left: object = None) -> Image.Image:
    """Make an image of one colour, or with another in its left half."""
    image = Image.new(mode, (size, size), colour)
    if left is not None:
        image.paste(left, (0, 0, size // 2, size))
    return image


def halves(left: object, right: object) -> np.ndarray:
    """Return what an image of two colours should be read as, or within how much."""
    return np.array([[left] * 16 + [right] * 16] * 32).reshape(32, 32, -1)


def painted(image: Image.Image, *palette: tuple[int, int, int]) -> Image.Image:
    image.putpalette([value for colour in palette for value in colour])
    return image


def framed(width: int, height: int) -> Image.Image:
    """Make an image that is red in its central square and black beside it."""
    image, side = Image.new("RGB", (width, height)), min(width, height)
    image.paste(RED, ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2))
    return image


def gradient(top: int, kind: type) -> Image.Image:
    return Image.fromarray((LEVELS[..., 0] * (top / 255)).astype(kind))


LEVELS = np.linspace(0, 255, 32 * 32).reshape(32, 32, 1)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
BOARD = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))  # single black and white pixels
CUT_OUT = plain((*GREY, 255), "RGBA", left=(0, 0, 0, 0))  # transparent and, below, black
EARLY_END = b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + b"\xff" * 30
SEVERAL = {"save_all": True, "append_images": [plain(GREY)]}
READ = {  # an image, the name of its file, how it is saved; what is read, within how much
    "the content decides, not the extension": (plain(RED), "x.txt", {"format": "PNG"}, RED, 0),
    **{
        f"every format is read: {name}": (plain((250, 10, 10)), name, {}, (250, 10, 10), 5)
        for name in ("x.png", "x.jpg", "x.JPeG", "x.gif", "x.BMP", "x.webp", "x.TIFF")
    },
    "a colour image of the right size is kept to the pixel": (Image.fromarray(NOISE), "x.png", {}, NOISE, 0),
    **{
        f"the central square is kept: {sides}": (framed(*sides), "x.png", {}, RED, 0)
        for sides in ((96, 32), (32, 96), (97, 33))
    },
    **{f"smaller images are means: {mode}": (BOARD.convert(mode), "x.png", {}, 127.5, 8) for mode in ("L", "1", "P")},
    "Exif data that ends too early costs no photo": (plain(RED), "x.jpg", {"exif": EARLY_END}, RED, 5),
    **{
        f"what is transparent becomes white: {image.mode}, {name}": (
            image,
            name,
            how,
            halves(WHITE, GREY),
            halves(0, 2),
        )
        for image, name, how in (
            (CUT_OUT, "x.png", {}),
            (CUT_OUT.convert("LA"), "x.png", {}),
            (CUT_OUT.quantize(8), "x.png", {}),
            (CUT_OUT, "x.webp", {"lossless": True}),
        )
    },
    "half transparent is half white": (plain((0, 0, 0, 128), "RGBA"), "x.png", {}, 127, 1),
    "a place in a palette may stand for transparent": (
        *(painted(plain(1, "P", left=0), (0, 0, 0), RED), "x.png"),
        *({"transparency": 0}, halves(WHITE, RED), 0),
    ),
    "a grey may stand for transparent": (plain(0, "L"), "x.png", {"transparency": 0}, WHITE, 0),
    "a colour may stand for transparent": (plain(RED), "x.png", {"transparency": RED}, WHITE, 0),
    "a film shows its first frame": (plain(RED), "x.gif", {**SEVERAL, "duration": 100}, RED, 0),
    "a photo of several pictures shows the first": (plain(RED), "x.jpg", {**SEVERAL, "format": "MPO"}, RED, 5),
    "a palette gives its colours also where it is resized": (
        painted(plain(200, "P", size=64), *[(0, 255, 0)] * 200, RED),
        *("x.png", {}, RED, 0),
    ),
    "black and white become 0 and 255": (plain(1, "1", left=0), "x.png", {}, halves(0, 255), 0),
    **{
        f"print colours become screen colours: {name}": (plain((0, 255, 255, 0), "CMYK"), name, {}, RED, 5)
        for name in ("x.jpg", "x.tif")
    },
    **{
        f"16 bits keep their brightness: {name}": (gradient(65535, np.uint16), name, {}, LEVELS, 1)
        for name in ("x.png", "x.tif")
    },
    "a dark image of 16 bits stays dark": (Image.fromarray(np.full((32, 32), 255, np.uint16)), "x.png", {}, 1, 0),
    **{
        f"32 bits are taken on the smallest scale that holds them: {top}, {kind.__name__}": (
            *(gradient(top, kind), "x.tif", {}, LEVELS, 1),
        )
        for top, kind in ((255, np.int32), (65535, np.int32), (1, np.float32), (255, np.float32), (65535, np.float32))
    },
}


@pytest.mark.parametrize(("image", "name", "saved", "expected", "tolerance"), READ.values(), ids=READ)
def test_an_image_is_read_as_it_looks(tmp_path: Path, image: Image.Image, name: str, saved, expected, tolerance):
    with warnings.catch_warnings(action="error"):
        alone = only(image, tmp_path, name, **saved)
    assert (np.abs(alone - expected) <= tolerance).all()


def test_images_without_colour_get_one_channel_however_they_are_stored(tmp_path: Path):
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8))
    save(grey, tmp_path / "a" / "1.png")
    save(grey.convert("RGB"), tmp_path / "a" / "2.png")
    save(grey.convert("RGB"), tmp_path / "a" / "3.jpg")
    save(grey.convert("LA"), tmp_path / "a" / "4.png")
    save(grey.convert("P"), tmp_path / "a" / "5.gif")
    save(grey.resize((50, 50)).convert("RGBA"), tmp_path / "a" / "6.png")
    found = read(tmp_path)
    assert found.train.images.shape == (5, 32, 32, 1) and found.test.images.shape == (1, 32, 32, 1)


@pytest.mark.parametrize("where", ["train", "val"])
def test_one_pixel_of_colour_gives_all_images_three_channels(tmp_path: Path, where: str):
    for name in ("train", "val"):
        save(Image.new("L", (32, 32), 90), tmp_path / name / "a" / "1.png")
    assert read(tmp_path).train.images.shape[3] == read(tmp_path).test.images.shape[3] == 1
    image = Image.new("RGB", (32, 32), GREY)
    image.putpixel((31, 31), (90, 90, 91))
    save(image, tmp_path / where / "a" / "2.png")
    found = read(tmp_path)
    assert found.train.images.shape[3] == found.test.images.shape[3] == 3
    assert (found.train.images[0] == 90).all()


def test_a_broken_colour_image_gives_no_colour(tmp_path: Path):
    for number in range(3):
        save(Image.new("L", (32, 32), 90 + number), tmp_path / "a" / f"{number}.png")
    (tmp_path / "a" / "broken.png").write_bytes(content(colours(1))[:-60])
    assert read(tmp_path).train.images.shape == (2, 32, 32, 1)


# A folder: what is left out


def content(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """Write the beginning of a PNG file that claims a size, and almost no data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_truncated_image_is_left_out_and_named(tmp_path: Path, kind: str):
    plain = read(fill(tmp_path, "a", "b"))
    (tmp_path / "b" / f"half.{kind}").write_bytes(content(noise(), kind)[: -len(content(noise(), kind)) // 2])
    found = read(tmp_path)
    assert same(found, plain)
    assert [re.sub("is (broken|no image):", "is ...:", note) for note in found.notes] == [
        f"1 of 5 files is ...: b/half.{kind}"
    ]


def empty(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, b"")


LEFT_OUT = {  # files beside two images of a class, and the notes on them
    "what is no image": (
        {"a/photo.jpg": b"<html>404</html>", **empty("a/empty.png")},
        ["2 of 4 files are no image: a/empty.png, a/photo.jpg"],
    ),
    "a format for which Pillow starts another program": (
        {"a/drawing.eps": content(colours(1), "EPS")},
        ["1 of 3 files is no image: a/drawing.eps"],
    ),
    "half a JPEG": ({"a/half.jpg": content(noise(), "JPEG")[:2000]}, ["1 of 3 files is broken: a/half.jpg"]),
    **{
        f"32 bits on no scale: {value}": (
            {"a/odd.tif": content(Image.fromarray(np.full((32, 32), value, np.float32)), "TIFF")},
            ["1 of 3 files is broken: a/odd.tif"],
        )
        for value in (-1.0, 65536.0, float("nan"))
    },
    "each reason has one note": (
        {"a/broken.png": content(noise())[:-500], "a/vast.png": png_of_size(100_000, 100_000), **empty("a/text.png")},
        [
            "1 of 5 files is broken: a/broken.png",
            "1 of 5 files is no image: a/text.png",
            "1 of 5 files is too large (over 50 million pixels): a/vast.png",
        ],
    ),
    "a note names three files": (
        empty("a/0.txt", "a/1.txt", "a/2.txt"),
        ["3 of 5 files are no image: a/0.txt, a/1.txt, a/2.txt"],
    ),
    "a note names no more than three files": (
        empty(*(f"a/{number}.txt" for number in range(5))),
        ["5 of 7 files are no image: a/0.txt, a/1.txt, a/2.txt and 2 more"],
    ),
    "a note is one line whatever a file is called": (
        empty("a/two\nlines.txt"),
        ["1 of 3 files is no image: 'a/two\\nlines.txt'"],
    ),
    **{
        f"by its name it stands for a missing image: {name}": (
            {f"a/{name}": content(colours(9))},
            [f"1 of 3 files is no image: a/{name}"],
        )
        for name in (
            *("imageNotFound.gif", "image_not_found (2).PNG", "photo_unavailable.png", "Picture is not available.jpg"),
        )
    },
    **{
        f"its name stands for no missing image: {name}": ({f"a/{name}": content(colours(9))}, [])
        for name in ("found_image.png", "404.png", "image_of_a_not_so_rare_bird.png", "unavailable.png")
    },
}


@pytest.mark.parametrize(("written", "notes"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out_is_named_in_a_note(tmp_path: Path, written: dict[str, bytes], notes: list[str]):
    fill(tmp_path, "a")
    for name, stored in written.items():
        try:
            (tmp_path / name).write_bytes(stored)
        except OSError:
            pytest.skip("this system allows no such names")
    assert read(tmp_path).notes == tuple(notes)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (10_000, 10_000), (5_000_001, 10), (7_100, 7_100)])
def test_an_image_of_absurd_size_is_left_out_before_it_is_decoded(
    tmp_path: Path, width: int, height: int, monkeypatch: pytest.MonkeyPatch
):
    fill(tmp_path, "a")
    (tmp_path / "a" / "vast.png").write_bytes(png_of_size(width, height))
    loaded, prepared = [], files._prepared
    monkeypatch.setattr(files, "_prepared", lambda image, size: loaded.append(image.size) or prepared(image, size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path).notes == ("1 of 3 files is too large (over 50 million pixels): a/vast.png",)
    assert loaded == [(32, 32), (32, 32)]


def test_an_image_of_exactly_50_million_pixels_is_read(tmp_path: Path):
    alone = only(Image.new("1", (10_000, 5_000), 1), tmp_path)
    assert (alone == WHITE).all()


# A folder: the bar


def read_with_a_bar(folder: Path, monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    """Read a folder with a bar that shows itself after another delay, and at each of its steps."""
    asked = {}

    def bar(*results: object, **options: object) -> tqdm:
        asked.update(options)
        return tqdm(*results, **{**options, "delay": delay, "mininterval": 0, "miniters": 1})

    monkeypatch.setattr(files, "tqdm", bar)
    read(folder)
    assert (asked["delay"], asked["leave"]) == (2, False)


def test_a_bar_shows_while_images_are_read_and_is_wiped_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    read_with_a_bar(fill(tmp_path, "a", each=60), monkeypatch, delay=1e-9)
    error = capsys.readouterr().err
    assert "reading images" in error and "60/60" in error
    assert error.endswith(" \r")


def test_no_bar_shows_when_reading_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    read_with_a_bar(fill(tmp_path, "a", each=60), monkeypatch, delay=60)
    assert capsys.readouterr() == ("", "")


# A folder: what is refused


ARRANGE = "give one folder of images per class, or train/ and test/ (or val/) with such folders"


def test_the_parameter_is_named(tmp_path: Path):
    for name in ("photos", "empty.npz"):
        with refused(f"MINE: there is no file {str(tmp_path / name)!r}"):
            read(tmp_path / name, parameter="MINE")
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty.npz").touch()
    with refused("MINE: 'photos' is empty"):
        read(tmp_path / "photos", parameter="MINE")
    with refused("MINE: 'empty.npz' cannot be read"):
        read(tmp_path / "empty.npz", parameter="MINE")


@covers("training and test folders with different classes")
@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", f"is empty; ... {ARRANGE}"),
        (".DS_Store", f"is empty; ... {ARRANGE}"),
        ("1.png", f"holds no class folders; ... {ARRANGE}"),
        ("train/1.png", f"holds no class folders in train/; ... {ARRANGE}"),
        ("train/1.png test/1.png", f"holds no class folders in train/; ... {ARRANGE}"),
        ("a/ b/", f"has no readable image; ... {ARRANGE}"),
        ("a/1.jpg b/", f"has no readable image; ... {ARRANGE}"),
        *[
            (
                "train/a/2 train/b/2 train/c/2 " + " ".join(f"Validation/{name}/2" for name in classes),
                f"has class {single} in only one of train/ and Validation/; give it images in both",
            )
            for classes, single in (("ab", "c"), ("abde", "c, d, e"), ("bc", "a"))
        ],
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_what_is_wrong(tmp_path: Path, written: str, says: str):
    with refused("dataset: 'photos' ", *says.split(" ... ")):
        read(arrange(tmp_path / "photos", written))


@covers("folders that differ only in letter case")
@pytest.mark.parametrize("below", ["", "train", "val"])
def test_class_folders_that_differ_in_letter_case_only_are_refused(tmp_path: Path, below: str):
    folder = tmp_path / "photos"
    if below:
        fill(folder / "train", "ants")
        fill(folder / "val", "ants")
    fill(folder / below, "ants", "Ants")
    if len(list((folder / below).iterdir())) < 2:
        pytest.skip("this system cannot tell them apart either")
    with refused("dataset: 'photos' has the folders Ants, ants, which differ only in letter case; "):
        read(folder)


def test_two_training_folders_are_refused(tmp_path: Path):
    fill(tmp_path / "train", "a")
    fill(tmp_path / "Train", "a")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this system cannot tell them apart either")
    with refused("has the folders Train, train, which differ only in letter case"):
        read(tmp_path)


@pytest.mark.parametrize("below", ["", "train"])
def test_a_class_without_a_readable_image_is_refused_only_where_it_is_chosen(tmp_path: Path, below: str):
    photos = fill(tmp_path / "photos" / below, *"abcd", each=10)
    (photos / "wasps").mkdir()
    (photos / "wasps" / "1.jpg").write_text("no image")
    found = read(tmp_path / "photos")
    assert found.classes == ("a", "b", "c", "d", "wasps")
    split_tasks(found, ["a", "b"], ["c", "d"])
    with refused("dataset: photos has no training image of class wasps; "):
        split_tasks(found, ["a", "b"], ["c", "wasps"])


def test_a_class_without_a_test_image_is_refused_only_where_it_is_chosen(tmp_path: Path):
    for name in ("train", "test"):
        fill(tmp_path / name, *"abcde", each=10)
    for path in (tmp_path / "test" / "b").iterdir():
        path.write_text("no image")
    split_tasks(read(tmp_path), ["a", "c"], ["d", "e"])
    with refused(f"dataset: {tmp_path.name} has no test image of class b; "):
        split_tasks(read(tmp_path), ["a", "b"], ["d", "e"])


@pytest.mark.parametrize("below", ["", "train"])
def test_a_single_image_of_a_class_is_refused_where_it_is_chosen_and_a_test_set_must_be_held_out(
    tmp_path: Path, below: str
):
    fill(tmp_path / "photos" / below, *"abcd", each=10)
    fill(tmp_path / "photos" / below, "bees", each=1)
    found = read(tmp_path / "photos")
    split_tasks(found, ["a", "b"], ["c", "d"])
    with refused("dataset: photos has no test image of class bees; "):
        split_tasks(found, ["a", "b"], ["c", "bees"])


@covers("a folder that may not be read")
@pytest.mark.parametrize("at", ["photos", "a"])
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "photos", "a")
    scandir = os.scandir

    def closed(path: Path):
        if Path(path).name == at:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with refused("dataset: ", f"{at}' cannot be read (Permission denied)"):
        read(tmp_path / "photos")


def test_an_image_that_may_not_be_read_is_not_silently_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "a")

    def closed(path: Path, mode: str):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "open", closed, raising=False)
    with refused("dataset: ", ".png' cannot be read (Permission denied)"):
        read(tmp_path)


# Anything else


@pytest.mark.parametrize("size", [-1, 1, 7, 65, 32.0, "32", None, False, (32, 32)])
def test_another_image_size_is_refused_before_anything_is_read(tmp_path: Path, size: object):
    with refused(f"image_size: {size!r} is neither 0 nor a whole number from 8 to 64"):
        read(tmp_path / "absent", size)


@pytest.mark.parametrize("name", ["absent", "absent.npz", "absent.csv", "nul\0.npz"])
def test_a_path_to_nothing_is_refused(tmp_path: Path, name: str):
    with refused(
        f"dataset: there is no file {str(tmp_path / name)!r}; give the path of an .npz file", ".csv", "folder"
    ):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["photos.zip", "photo.png", "npz"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    with refused(f"dataset: {name!r} is not allowed; give the path of an .npz file, of a .csv file or of a folder"):
        read(tmp_path / name)


def test_the_folder_that_one_is_in_may_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "photos", "a")
    monkeypatch.chdir(tmp_path / "photos")
    assert read(Path(".")).classes == ("a",)
    monkeypatch.chdir(tmp_path / "photos" / "a")
    with refused("dataset: 'a' holds no class folders"):
        read(Path("."))


# An .npz file


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_kerass_layout_is_read_as_it_is(npz, channels: int):
    mine = arrays(channels=channels)
    found = read(npz(**mine))
    assert np.array_equal(found.train.images, mine["x_train"].reshape(8, 8, 8, -1))
    assert np.array_equal(found.test.images, mine["x_test"].reshape(8, 8, 8, -1))
    assert found.classes == (3, 5, 7, 9) and {type(label) for label in found.classes} == {int}
    assert found.train.labels.tolist() == found.test.labels.tolist() == [0, 3, 1, 2, 0, 3, 1, 2]
    assert {array.dtype.name for array in arrays_of(found)} == {"uint8", "int32"}
    assert found.notes == ()


def test_medmnists_layout_is_read_without_its_validation_set(tmp_path: Path):
    mine = arrays(channels=3)
    names = {"x_train": "train_images", "y_train": "train_labels", "x_test": "test_images", "y_test": "test_labels"}
    medical = {names[name]: array if "x" in name else array[:, np.newaxis] for name, array in mine.items()}
    np.savez(tmp_path / "medical.npz", **medical, val_images=np.zeros(3), val_labels=np.array(["unused"]))
    np.savez(tmp_path / "plain.npz", **mine)
    assert same(read(tmp_path / "medical.npz"), read(tmp_path / "plain.npz"))
    assert read(tmp_path / "medical.npz").classes == (3, 5, 7, 9)


def test_members_may_lack_the_ending_npy_and_the_file_may_shout(tmp_path: Path, npz):
    plain = npz()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "BARE.NPZ", "w") as target:
        for name in source.namelist():
            target.writestr(name.removesuffix(".npy"), source.read(name))
    assert same(read(tmp_path / "BARE.NPZ"), read(plain))


@pytest.mark.parametrize(("height", "width"), [(8, 11), (12, 8), (64, 200)])
def test_images_that_are_no_squares_lose_their_ends(npz, height: int, width: int):
    images = np.zeros((8, height, width), np.uint8)
    side = min(height, width)
    images[:, (height - side) // 2 :, (width - side) // 2 :][:, :side, :side] = 7
    found = read(npz(x_train=images, x_test=images))
    assert (
        found.train.images.shape == (8, side, side, 1)
        and (found.train.images == 7).all()
        and (found.test.images == 7).all()
    )


@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize("size", [4, 8, 40, 100])
def test_arrays_are_resized_to_image_size(npz, size: int, channels: int):
    mine = arrays(size=size, channels=channels)
    mine["x_train"][1], mine["x_train"][2] = 0, 200
    found = read(npz(x_train=mine["x_train"], x_test=mine["x_test"]), 16)
    assert found.train.images.shape == found.test.images.shape == (8, 16, 16, channels or 1)
    assert (
        [found.train.images[place].min() for place in (1, 2)]
        == [found.train.images[place].max() for place in (1, 2)]
        == [0, 200]
    )
    assert abs(found.test.images.mean() - mine["x_test"].mean()) < 5


def test_sizes_that_differ_may_be_made_one(npz):
    path = npz(x_test=arrays(size=28)["x_test"])
    with refused("dataset: 'mine.npz' cannot be used: x_train holds images of 8x8 and x_test of 28x28; give all"):
        read(path)
    assert read(path, 20).test.images.shape == (8, 20, 20, 1)


def test_grey_and_colour_images_are_not_mixed(npz):
    with refused("x_train holds images of 8x8x3 and x_test of 8x8; give all images one size"):
        read(npz(x_train=arrays(channels=3)["x_train"]))


def test_training_and_test_images_are_on_one_scale(npz):
    mine = arrays()
    found = read(npz(x_train=mine["x_train"].astype(float), x_test=np.ones((8, 8, 8))))
    assert (found.test.images == 1).all()  # nearly black, as 1 of 255 is
    assert found.train.images.max() == 255


IMAGES = arrays()["x_train"]
SMALL = np.minimum(IMAGES, 127)
SCALES = {  # what is stored, and what it means from 0 to 255
    "int8": (SMALL.astype("int8"), SMALL),
    **{
        kind: (IMAGES.astype(kind), IMAGES)
        for kind in ("int16", "uint16", "int64", "uint64", "float32", "float64", ">i4", "<f4")
    },
    "fractions of 255, float32": (IMAGES.astype(np.float32) / np.float32(255), IMAGES),
    "fractions of 255, float64": (IMAGES / 255, IMAGES),
    "fractions that are whole and beyond 1": (IMAGES % 3 / np.float32(1), IMAGES % 3),
    "booleans are black and white": (IMAGES > 127, (IMAGES > 127) * 255),
    **{f"small whole numbers, {kind}": (np.ones((8, 8, 8), kind), 1) for kind in ("uint8", "uint16", "int64")},
}


@pytest.mark.parametrize(("stored", "meant"), SCALES.values(), ids=SCALES)
def test_numbers_of_any_type_and_scale_are_read_as_brightness(npz, stored: np.ndarray, meant: np.ndarray):
    found = read(npz(x_train=stored, x_test=stored))
    assert (found.train.images[..., 0] == meant).all() and (found.test.images[..., 0] == meant).all()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int64"])
def test_small_whole_numbers_are_taken_as_they_are_where_they_are_resized_too(npz, kind: str):
    images = np.ones((8, 8, 8), kind)
    assert read(npz(x_train=images, x_test=images), 16).train.images.max() == 1


@covers("float images that are no brightness")
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float64", [-1, 256, 0.5, 1.002, np.nan, np.inf, -np.inf]),
        ("float32", [254.5]),
        ("float16", [60000]),
        ("int64", [-1, 256, 2**40]),
    ],
)
@pytest.mark.parametrize("name", ["x_train", "x_test"])
@pytest.mark.filterwarnings("error")
def test_values_that_are_no_brightness_are_refused(npz, kind: str, values: list[float], name: str):
    for value in values:
        images = {each: arrays()[each].astype(kind) for each in ("x_train", "x_test")}
        images[name][-1, -1, -1] = value
        shown = images[name][-1, -1, -1]
        with refused(f"'mine.npz' cannot be used: {name} holds {shown}; accepted are whole numbers from 0 to 255"):
            read(npz(**images))


def test_nearly_whole_is_whole(npz):
    mine = arrays()
    shifted = {name: mine[name].astype(float) + shift for name, shift in (("x_train", 0.0005), ("x_test", -0.0005))}
    assert np.array_equal(read(npz(**shifted)).train.images[..., 0], mine["x_train"])
    with refused("x_train holds"):
        read(npz(**{**shifted, "x_train": mine["x_train"] + 0.002}))


LAYOUT = "; accepted are images (n, height, width), or with 1 or 3 channels last"
EYE = np.eye(10)[arrays()["y_train"]]


@covers(
    "images and labels of different length",
    "images of another size",
    "images with two channels",
    "float labels",
    "one-hot labels",
    "letters as labels",
)
@pytest.mark.parametrize(
    ("says", "changed"),
    [
        ("x_train is uint8 (8, 7, 7)", {"x_train": np.zeros((8, 7, 7), np.uint8)}),
        ("x_train is uint8 (8, 65, 65)", {"x_train": np.zeros((8, 65, 65), np.uint8)}),
        ("x_test is uint8 (8, 3, 32, 32)", {"x_test": np.zeros((8, 3, 32, 32), np.uint8)}),
        ("x_test is uint8 (8, 8, 8, 2)", {"x_test": np.zeros((8, 8, 8, 2), np.uint8)}),
        ("x_test is uint8 (8, 8, 8, 4)", {"x_test": np.zeros((8, 8, 8, 4), np.uint8)}),
        ("x_test is uint8 (8, 64)", {"x_test": np.zeros((8, 64), np.uint8)}),
        ("x_test is uint8 ()", {"x_test": np.uint8(5)}),
        ("x_test is uint8 (8, 0, 8)", {"x_test": np.zeros((8, 0, 8), np.uint8)}),
        ("x_train is <U1 (8, 8, 8)", {"x_train": np.full((8, 8, 8), "a")}),
        ("x_train is complex128 (8, 8, 8)", {"x_train": np.zeros((8, 8, 8), complex)}),
        ("x_train holds 7 images and y_train 8 labels", {"x_train": arrays(7)["x_train"]}),
        ("x_test holds 8 images and y_test 0 labels", {"y_test": np.zeros(0, int)}),
        ("x_test holds 0 images and y_test 0 labels", {"x_test": arrays(0)["x_test"], "y_test": np.zeros(0, int)}),
        ("y_train is float64 (8,)", {"y_train": arrays()["y_train"] / 1}),
        ("y_train is float64 (8, 10)", {"y_train": EYE}),
        ("y_train is int64 (8, 10)", {"y_train": EYE.astype(np.int64)}),
        ("y_train is bool (8,)", {"y_train": np.zeros(8, bool)}),
        ("y_train is bool (8, 10)", {"y_train": EYE.astype(bool)}),
        ("y_train is <U1 (8,)", {"y_train": np.resize(["a", "b"], 8)}),
        ("y_test is int64 ()", {"y_test": np.int64(5)}),
        ("y_test is int64 (8, 1, 1)", {"y_test": arrays()["y_test"][:, None, None]}),
        ("y_test holds labels beyond the range of int32", {"y_test": np.arange(8) + 2**31}),
        ("y_test holds labels beyond the range of int32", {"y_test": np.arange(8, dtype=np.uint64) + 2**63}),
        ("y_test holds labels beyond the range of int32", {"y_test": -np.arange(8) - 2**31}),
    ],
)
def test_arrays_of_another_layout_are_refused(npz, says: str, changed: dict[str, np.ndarray]):
    with refused(f"dataset: 'mine.npz' cannot be used: {says}{LAYOUT}"):
        read(npz(**changed))


def test_labels_may_be_any_whole_numbers_of_int32(npz):
    labels = np.resize([2**31 - 1, -(2**31), 0, 7], 8)
    found = read(npz(y_train=labels, y_test=labels.astype(object).astype(np.int64)))
    assert found.classes == (-(2**31), 0, 7, 2**31 - 1)
    assert found.train.labels.tolist() == [3, 0, 1, 2] * 2


@pytest.mark.parametrize("name", ["y_train", "y_test"])
def test_a_label_in_only_one_of_training_and_test_is_refused(npz, name: str):
    labels = arrays()["y_train"].copy()
    labels[labels == 9] = 3
    with refused("'mine.npz' cannot be used: label 9 is in only one of y_train and y_test; give each class images in"):
        read(npz(**{name: labels}))


@covers("a file that lacks an array")
def test_a_file_that_lacks_an_array_is_refused(npz, tmp_path: Path):
    with refused("dataset: 'mine.npz' lacks y_test; allowed is an .npz file with the arrays x_train, y_train, x_test"):
        read(npz(y_test=None))
    with refused("dataset: 'mine.npz' lacks x_train, x_test; allowed is"):
        read(npz(x_train=None, x_test=None))
    np.savez(tmp_path / "medical.npz", train_images=np.zeros(1), train_labels=np.zeros(1), test_images=np.zeros(1))
    with refused("dataset: 'medical.npz' lacks test_labels; allowed is", "train_images, train_labels, test_images"):
        read(tmp_path / "medical.npz")
    np.savez(tmp_path / "medical.npz", images=np.zeros(1))
    with refused("dataset: 'medical.npz' lacks x_train, y_train, x_test, y_test; allowed is"):
        read(tmp_path / "medical.npz")


def broken_files(path: Path) -> dict[str, bytes]:
    """Return what may be in a file that is no whole .npz, by name; the path has one that is."""
    whole, array = path.read_bytes(), io.BytesIO()
    np.save(array, np.zeros(3))
    altered, encrypted = bytearray(whole), bytearray(whole)
    altered[600] ^= 1  # a pixel, so that the checksum is wrong
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(header), whole):
            encrypted[found.start() + flags] |= 1  # says that a password is needed
    broken = {"empty": b"", "text": b"label,pixel\n", "half": whole[:-200], "an array": array.getvalue()}
    return broken | {"bad": altered, "encrypted": encrypted}


@covers("a damaged file of one's own")
@pytest.mark.parametrize("name", ["empty", "text", "half", "an array", "bad", "encrypted"])
def test_a_file_that_is_no_whole_npz_is_refused(npz, name: str):
    path = npz()
    path.write_bytes(broken_files(path)[name])
    with refused("dataset: 'mine.npz' cannot be read as an .npz file with the arrays x_train, y_train", "pickled"):
        read(path)


def test_a_member_that_is_no_array_is_refused(npz):
    path = npz(y_test=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_test.npy", b"no array")
    with refused("dataset: 'mine.npz' can"):
        read(path)


class Unpickled:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@covers("pickled objects")
@pytest.mark.parametrize("name", ["x_train", "y_test"])
def test_nothing_is_ever_unpickled(npz, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = npz(**{name: np.array([Unpickled()] * 8, object)})
    with refused("dataset: 'mine.npz' cannot be read as an .npz file", "without pickled objects"):
        read(path)
    assert not (tmp_path / "unpickled").exists()


# A .csv file


def table(images: int = 40, size: int = 8, labels: tuple[object, ...] = (3, 9, 5, 7)) -> pd.DataFrame:
    """Make a table as Kaggle has them; labels go round."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, size * size))
    frame = pd.DataFrame(pixels, columns=[f"pixel{number}" for number in range(size * size)])
    frame.insert(0, "label", np.resize(np.array(labels, object), images))
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


def by_image(found: Dataset) -> dict[bytes, object]:
    """Return the class of each image, by its pixels."""
    both = [(found.train.images, found.train.labels), (found.test.images, found.test.labels)]
    return {
        image.tobytes(): found.classes[label]
        for images, labels in both
        for image, label in zip(images, labels, strict=True)
    }


def test_kaggles_layout_is_read_and_a_fifth_of_each_class_held_out(csv):
    frame = table()
    found = read(csv(frame))
    assert found.classes == (3, 5, 7, 9) and {type(label) for label in found.classes} == {int}
    assert np.bincount(found.train.labels).tolist() == [8] * 4
    assert np.bincount(found.test.labels).tolist() == [2] * 4
    assert found.train.images.shape == (32, 8, 8, 1)
    assert {array.dtype.name for array in arrays_of(found)} == {"uint8", "int32"}
    rows = frame.drop(columns="label").to_numpy(np.uint8)
    assert by_image(found) == {row.tobytes(): label for row, label in zip(rows, frame["label"], strict=True)}


def test_rows_run_from_the_top_left_corner_to_the_right(csv):
    frame = table(2, labels=(1,))
    frame.loc[:, "pixel0":] = 0
    frame["pixel1"] = 255
    assert np.argwhere(read(csv(frame)).train.images[0]).tolist() == [[0, 1, 0]]


def test_neither_the_order_of_the_rows_nor_where_the_label_is_matters(csv):
    frame = table()
    found = read(csv(frame))
    shuffled = frame.sample(frac=1, random_state=0)
    assert same(read(csv(shuffled)), found)
    shuffled["label"] = shuffled.pop("label")
    assert list(shuffled)[-1] == "label"
    assert same(read(csv(shuffled)), found)


def test_the_first_rows_are_not_simply_the_test_set(csv):
    frame = table(labels=(1,))
    frame["pixel0"] = range(40)
    numbers = read(csv(frame)).test.images[:, 0, 0, 0].tolist()
    assert len(numbers) == 8
    assert min(numbers) < 20 < max(numbers)


def test_the_test_set_of_a_table_is_the_same_at_any_size(csv):
    frame = table(labels=(1,))
    for number in range(40):
        frame.iloc[number, 1:] = number
    path = csv(frame)
    small, large = read(path), read(path, 16)
    assert large.test.images.shape == (8, 16, 16, 1)
    assert small.test.images[:, 0, 0, 0].tolist() == large.test.images[:, 0, 0, 0].tolist()


def test_equal_rows_are_no_trouble(csv):
    frame = pd.concat([table(4)] * 5)
    found = read(csv(frame))
    assert (len(found.train), len(found.test)) == (16, 4)


@pytest.mark.parametrize("size", [8, 28, 64])
def test_a_table_gives_images_of_the_size_that_it_has(csv, size: int):
    assert read(csv(table(8, size))).train.images.shape[1:] == (size, size, 1)


def test_names_in_a_table_are_classes_in_their_order(csv):
    found = read(csv(table(labels=("wasp", "bee", "NA", "été"))))
    assert found.classes == ("NA", "bee", "wasp", "été")
    assert np.bincount(found.train.labels).tolist() == [8] * 4


@pytest.mark.parametrize("labels", [("1.0", "2.0"), ("01", "2"), (" 1", "2 ")])
def test_whole_numbers_may_be_written_in_other_ways(csv, labels: tuple[str, ...]):
    assert read(csv(table(labels=labels))).classes == (1, 2)


def test_a_mark_at_the_beginning_of_the_file_is_no_part_of_the_header(csv):
    assert read(csv(b"\xef\xbb\xbf" + table().to_csv(index=False).encode())).classes == (3, 5, 7, 9)


def test_a_table_of_another_size_can_be_resized(csv):
    assert read(csv(table(size=5)), 8).train.images.shape[1:] == (8, 8, 1)
    assert read(csv(table(8, size=70)), 8).train.images.shape[1:] == (8, 8, 1)
    for number in (0, 63):
        with refused(f"has {number} columns of pixels"):
            read(csv(pixels(number)), 8)


def test_small_pixels_of_a_table_are_taken_as_they_are(csv):
    frame = table()
    frame.loc[:, "pixel0":] = 1
    assert read(csv(frame)).train.images.max() == 1


def pixels(number: int) -> pd.DataFrame:
    return pd.DataFrame(0, index=range(4), columns=["label", *range(number)])


def with_pixel(value: object) -> pd.DataFrame:
    frame = table().astype(object)
    frame.loc[30, "pixel9"] = value
    return frame


HEADER, *ROWS = table().to_csv(index=False).splitlines()
NO_TABLE = "cannot be read as a .csv file"
REFUSED = [  # what is said, "..." for parts left out, and tables of which it is said
    *[
        (f"has {odd!r} among its labels; give whole numbers of int32, or names only", table(labels=labels))
        for odd, labels in (("a", ("a", 1)), ("b3", (1, 2, "b3")), ("a", ("a", "b", "1.5")))
    ],
    *[
        (f"has {label!r} among its labels; give whole numbers", table(labels=(1, label)))
        for label in ("1.5", "3000000000", "-2147483649", "inf")
    ],
    *[("has a row without a label; give", table(labels=labels)) for labels in (("", 1), ("", "a"), (" ", "a"), ("",))],
    *[
        ("has no column 'label'; give a .csv file with a header, a column 'label'", without)
        for without in (
            table().drop(columns="label"),
            table().to_csv(index=False, header=False),
            table().to_csv(index=False, sep=";"),
        )
    ],
    *[
        (f"has {number} columns of pixels; give n*n, n from 8 to 64", pixels(number))
        for number in (0, 1, 49, 63, 65, 783, 65 * 65)
    ],
    (f"{NO_TABLE} with a header", with_pixel("")),
    (f"{NO_TABLE} with a header", with_pixel("NaN")),
    *[(f"{NO_TABLE} with a header ... {value}", with_pixel(value)) for value in ("x", "1 2")],
    *[
        (f"a column of pixels holds {float(value)}; accepted are whole numbers", with_pixel(value))
        for value in (-1, 256, 0.5, 1000000, "inf")
    ],
    *[
        ("a .csv file with a header, a column 'label'", stored)
        for stored in ("", "\n\n", b"\xff\xfe\x00", b"PK\x03\x04\0\0,\xff", '"')
    ],
    ("has no rows; give a .csv file", table(0)),
    *[
        (NO_TABLE, "\n".join([HEADER, *lines]) + "\n")
        for odd in ("3" + ",1" * 63, "3" + ",1" * 65, "3")
        for lines in ([odd, *ROWS], [*ROWS, odd])
    ],
    (NO_TABLE, "\n".join([HEADER, *(f"{row},1" for row in ROWS)])),  # a column too many in every row
    ("has a single image of each class; give two or more", table(4)),
]


@covers("a .csv file without labels", "a .csv file with 783 pixels")
@pytest.mark.parametrize(
    ("says", "stored"), REFUSED, ids=[f"{place} {says}" for place, (says, _) in enumerate(REFUSED)]
)
def test_a_table_that_cannot_be_used_is_refused_by_what_is_wrong(csv, says: str, stored: pd.DataFrame | str | bytes):
    with refused("dataset: 'mine.csv' ", *says.split(" ... ")):
        read(csv(stored))


def test_a_class_with_a_single_row_has_no_test_image(csv):
    frame = table(5, labels=(1,))
    frame.loc[4, "label"] = 2
    assert read(csv(frame)).test.labels.tolist() == [0]


@pytest.mark.parametrize("name", ["mine.npz", "mine.csv"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / name).touch()

    def closed(*given: object, **options: object):
        raise PermissionError(13, "Permission denied", str(tmp_path / name))

    monkeypatch.setattr(np, "load", closed)
    monkeypatch.setattr(pd, "read_csv", closed)
    with refused("dataset: ", f"{name}' cannot be read"):
        read(tmp_path / name)

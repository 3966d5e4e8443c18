"""Read a user's own images: a folder of images, an .npz file or a .csv file.

The result depends on contents and names, not on the order in which files were written. Some files of a folder are
skipped, with a note: those that are broken, that claim more than 50 million pixels, whose content is not an image in
one of the `FORMATS`, or whose name marks a placeholder, such as `imageNotFound.gif`.
"""

import hashlib
import math
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from tqdm.auto import tqdm

from helpers import layouts
from helpers.images import Classes, Dataset, Split, class_name
from helpers.layouts import ARRANGE, FORMATS, Refused
from helpers.messages import listed

ALLOWED = "the path of an .npz file, of a .csv file or of a folder of images"
SIZES = (8, 64)  # smallest and largest height and width that the network and its memory budget are made for
FOLDER_SIZE = 32  # photos come in sizes that a small network cannot use
MOST_PIXELS = 50_000_000  # a larger image may need more memory than there is
PngImagePlugin.MAX_TEXT_CHUNK = MOST_PIXELS  # bytes of a text or color profile; Pillow takes more than 1 MB for a bomb
STANDS_IN = re.compile(r"(image|photo|picture)[\W_]*(is[\W_]*)?(not[\W_]*(found|available)|unavailable)", re.IGNORECASE)
FAULTS = {
    UnidentifiedImageError: "not recognized as an image",
    Image.DecompressionBombError: "too large (over 50 million pixels)",
}
HEIC = "HEIC, which is not read (export as JPEG)"
BRANDS = (b"hei", b"hev", b"mif", b"msf")  # of HEIC, three of the bytes 8 to 11
INDEX = re.compile(r"(unnamed: \d+|index|id|)", re.IGNORECASE)  # a column of a table that pandas has written
KERAS_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MEDMNIST_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
SHAPES = f"images (n, height, width), or with 1 or 3 channels last, of {SIZES[0]} to {SIZES[1]} pixels if not resized"


def read(path: Path, image_size: int = 0, parameter: str = "dataset", sizes: tuple[int, int] = SIZES) -> Dataset:
    """Read a folder of images, an .npz or a .csv file, or raise ValueError with one sentence that says what is wrong.

    All images are cropped to their central square and resized to `image_size` pixels, 8 to 64 unless other `sizes`
    are allowed. With 0 they keep their size, and those of a folder get 32.
    """
    check_size(image_size, "image_size" if sizes == SIZES else "photo_size", sizes)
    path = Path(path)
    reader = {".npz": _read_npz, ".csv": _read_csv}.get(path.suffix.lower())
    try:
        if (given := str(path.absolute())) != given.encode("utf-8", "ignore").decode():
            raise ValueError(f"{parameter}: {given!r} is not valid UTF-8; rename the file or folder")
        if os.path.isdir(path):
            dataset = _read_folder(path, image_size or FOLDER_SIZE)
        elif not os.path.isfile(path):
            raise ValueError(f"{parameter}: there is no file {given!r}; give {ALLOWED}")
        elif reader is None:
            raise Refused(f"is not allowed; give {ALLOWED}")
        else:
            dataset = reader(path, image_size)
    except Refused as refused:
        raise ValueError(f"{parameter}: {path.absolute().name!r} {refused}") from refused.__cause__
    except OSError as error:
        what = f"{str(error.filename or path)!r} cannot be read ({error.strerror})"
        raise ValueError(f"{parameter}: {what}; give {ALLOWED} that you may read") from error
    counts = [np.bincount(split.labels, minlength=len(dataset.classes)) for split in (dataset.train, dataset.test)]
    if lacking := [str(name) for name, *images in zip(dataset.classes, *counts, strict=True) if 0 in images]:
        note = f"classes without training or without test images, which cannot be chosen: {_some(lacking)}"
        return replace(dataset, notes=(*dataset.notes, note))
    return dataset


def folder_sha256(root: Path) -> str:
    """Return the SHA-256 of all files of a folder and of their names, without hidden ones."""
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(root).as_posix(), file) for file in layouts.scan(root).all_files):
        with open(file, "rb") as stream:
            digest.update(os.fsencode(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n"))
    return digest.hexdigest()


def check_size(size: int, parameter: str = "image_size", sizes: tuple[int, int] = SIZES) -> None:
    """Raise ValueError unless this is a size that the network is made for, or 0 as an `image_size`."""
    unchanged = parameter == "image_size" and size == 0
    if type(size) is not int or not (unchanged or sizes[0] <= size <= sizes[1]):
        allowed = "neither 0 nor" if parameter == "image_size" else "not"
        raise ValueError(f"{parameter}: {size!r} is {allowed} a whole number from {sizes[0]} to {sizes[1]}")


def hold_out_a_fifth(labels: np.ndarray, digests: Sequence[bytes] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training and of the test images where data come without a test set.

    The rule: a fifth of each class is held out, always the same one, whatever the seed of an experiment. A user's
    images, given with their SHA-256 as `digests`, lose those of smallest SHA-256, so that neither names nor order
    matter; a class with a single image loses none. Named datasets, whose order is fixed, lose a fixed random fifth.
    """
    if digests is None:
        from sklearn.model_selection import train_test_split

        train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
        return train, test
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=digests.__getitem__)
        in_test[members[: max(1, round(len(members) / 5))] if len(members) > 1 else []] = True
    if not in_test.any():
        raise Refused("has a single image of each class; give two or more, to train on and to test with")
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _read_folder(root: Path, size: int) -> Dataset:
    """Read a training and a test set, or class folders of which a fifth is held out."""
    tree = layouts.scan(root)
    sets, notes = layouts.find_sets(tree)
    class_folders = [folder for one in sets for folder in one.folders.values()]
    if not class_folders:
        raise Refused(f"{'holds no class folders' if tree.files else 'is empty'}; {ARRANGE}")
    home = {file: folder.path for folder in class_folders for file in folder.all_files}
    files = sorted(home, key=lambda file: file.relative_to(root).as_posix())
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    faults, digests = _read_images(files, pixels)

    kept = np.flatnonzero([not fault for fault in faults])
    if not len(kept) and HEIC in faults:
        raise Refused("has no image but HEIC photos, and HEIC is not read; export them as JPEG")
    if not len(kept):
        raise Refused(f"has no readable image; {ARRANGE}; images may be {listed(FORMATS)}")
    names = {class_name(folder.path.name) for folder in class_folders}
    numbered = all(re.fullmatch("0|[1-9][0-9]{0,8}", name) for name in names)  # but 01 and 1e3 are names
    classes: Classes = tuple(sorted(map(int, names)) if numbered else sorted(names))
    position = {str(name): place for place, name in enumerate(classes)}
    labels = np.array([position[class_name(home[files[index]].name)] for index in kept], np.int32)
    if len(sets) == 2:
        in_test = np.array([home[files[index]].parent == sets[1].path for index in kept])
        for_training, for_testing = np.flatnonzero(~in_test), np.flatnonzero(in_test)
    else:
        for_training, for_testing = hold_out_a_fifth(labels, [digests[index] for index in kept])
    if not any((pixels[index] != pixels[index, ..., :1]).any() for index in kept):
        pixels = pixels[..., :1]
    train, test = (Split(pixels[kept[part]], labels[part]) for part in (for_training, for_testing))

    nested = "in a folder inside a class folder, and read as that class"
    remarks = {file: fault or nested * (file.parent != home[file]) for file, fault in zip(files, faults, strict=True)}
    remarks |= {file: "outside the class folders" for folder in (tree, *sets) for file in folder.files}
    notes += _notes({file.relative_to(root).as_posix(): remark for file, remark in remarks.items()})
    in_order = tuple(files[index] for part in (for_training, for_testing) for index in kept[part])
    return Dataset(root.absolute().name, train, test, classes, tuple(notes), in_order)


def _notes(remarks: dict[str, str]) -> list[str]:
    """Write one sentence for each remark on files, "" being none."""
    notes = []
    for remark in sorted({*remarks.values()} - {""}):
        names = [name for name, its_remark in remarks.items() if its_remark == remark]
        be = "is" if len(names) == 1 else "are"
        notes.append(f"{len(names)} of {len(remarks)} files {be} {remark}: {_some(names)}")
    return notes


def _some(names: list[str]) -> str:
    return listed(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_images(paths: list[Path], pixels: np.ndarray) -> tuple[list[str], list[bytes]]:
    """Fill an array; return for each image why it is skipped, or "", and the SHA-256 of its file.

    Two threads read photos 1.5 times as fast as one.
    """
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(2) as pool:  # Pillow warns of odd EXIF data
        results = pool.map(_read_image, paths, pixels)  # which Ctrl-C cancels
        read = list(tqdm(results, total=len(paths), desc="reading images", delay=2, leave=False))
    return [fault for fault, _ in read], [digest for _, digest in read]


def _read_image(path: Path, pixels: np.ndarray) -> tuple[str, bytes]:
    """Write an image into its place in an array; return why it is skipped, or "", and the SHA-256 of its file."""
    if STANDS_IN.search(path.stem) or not os.path.isfile(path):  # a dangling link, or a pipe, which would block
        return "no image", b""
    with open(path, "rb") as stream:  # outside of `try`: a file without permission is an error, not skipped
        try:
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                pixels[...] = _prepared(image, len(pixels))
        except Exception as error:  # a damaged file makes Pillow raise a dozen kinds
            return HEIC if _is_heic(path) else FAULTS.get(type(error), "broken"), b""
        stream.seek(0)
        return "", hashlib.file_digest(stream, "sha256").digest()


def _is_heic(path: Path) -> bool:
    with open(path, "rb") as stream:
        start = stream.read(11)
    return start[4:8] == b"ftyp" and start[8:] in BRANDS


def _prepared(image: Image.Image, size: int) -> Image.Image:
    """Return an image upright, cut to its central square, in this size and in RGB, white where it is transparent."""
    image.draft(None, (2 * size, 2 * size))  # decodes a large JPEG at a half, a fourth or an eighth, which is faster
    image.load()
    with suppress(Exception):  # damaged EXIF data says nothing against the pixels
        ImageOps.exif_transpose(image, in_place=True)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    mode = "I;16" if (image.format, image.mode) == ("PPM", "I") else image.mode  # Pillow scales these to 16 bits
    image = _in_8_bits(image.crop((left, top, left + side, top + side)), mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")  # the numbers of a palette, unlike its colors, have no mean
    image = image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _in_8_bits(image: Image.Image, mode: str) -> Image.Image:
    """Scale gray values of 16 bits to 8 bits, and those of 32 bits from the smallest scale that holds all of them."""
    scales = {"F": (1, 255, 65535), "I": (255, 65535)}.get(mode, (65535,) if mode[0] == "I" else ())
    if not scales:
        return image  # Pillow would cut the others off at 255; values beyond all scales count as broken
    values = np.asarray(image)
    scale = next(scale for scale in scales if values.min() >= 0 and values.max() <= scale)
    return Image.fromarray(np.rint(values * np.float32(255 / scale)).astype(np.uint8))


def _read_npz(path: Path, size: int) -> Dataset:
    """Read four arrays, named as by Keras or by MedMNIST; booleans become black and white. Never unpickles."""
    layout = f"an .npz file with the arrays {listed(KERAS_ARRAYS)}, or {listed(MEDMNIST_ARRAYS)}"
    try:
        with np.load(path, allow_pickle=False) as archive:  # fails for a single array, which np.load reads too
            names = max(KERAS_ARRAYS, MEDMNIST_ARRAYS, key=lambda names: len({*names} & {*archive.files}))
            missing = [name for name in names if name not in archive.files]
            arrays = [] if missing else [np.asarray(archive[name]) for name in names]  # foreign members are bytes
    except Exception as error:  # a damaged file makes zipfile, zlib and NumPy raise a dozen kinds
        raise Refused(f"cannot be read as {layout}, without pickled objects") from error
    if missing:
        raise Refused(f"lacks {listed(missing)}; allowed is {layout}")
    x, y, x_test, y_test = names
    train, labels = _checked(arrays[0], arrays[1], x, y, size)
    test, test_labels = _checked(arrays[2], arrays[3], x_test, y_test, size)
    factor = 255 if all(images.dtype.kind in "bf" and images.max() <= 1 for images in (train, test)) else 1
    train, test = as_uint8(train, x, size, factor), as_uint8(test, x_test, size, factor)
    if train.shape[1:] != test.shape[1:]:
        sizes = ["x".join(map(str, images.shape[1:])).removesuffix("x1") for images in (train, test)]
        problem = f"{x} holds images of {sizes[0]} and {x_test} of {sizes[1]}"
        raise Refused(f"cannot be used: {problem}; give all images one size")
    classes = np.union1d(labels, test_labels)
    labels, test_labels = (np.searchsorted(classes, both).astype(np.int32) for both in (labels, test_labels))
    return Dataset(path.name, Split(train, labels), Split(test, test_labels), tuple(classes.tolist()))


def _checked(images: np.ndarray, labels: np.ndarray, x: str, y: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the central squares `(n, side, side, channels)` and the labels `(n,)` of two arrays that fit."""
    shaped = images[..., np.newaxis] if images.ndim == 3 else images
    flat = labels[:, 0] if labels.shape[1:] == (1,) else labels
    side, (low, high) = min(shaped.shape[1:3], default=0), (1, math.inf) if size else SIZES
    usable = shaped.ndim == 4 and shaped.shape[3] in (1, 3) and images.dtype.kind in "buif"
    if not usable or not low <= side <= high:
        problem = f"{x} is {images.dtype} {images.shape}"
    elif flat.ndim != 1 or flat.dtype.kind not in "iu":
        problem = f"{y} is {labels.dtype} {labels.shape}"
    elif len(images) != len(flat) or not len(flat):
        problem = f"{x} holds {len(images)} images and {y} {len(flat)} labels"
    elif not np.array_equal(flat, flat.astype(np.int32)):
        problem = f"{y} holds labels beyond the range of int32"
    else:
        top, left = (shaped.shape[1] - side) // 2, (shaped.shape[2] - side) // 2
        return shaped[:, top : top + side, left : left + side], flat.astype(np.int32)
    raise Refused(f"cannot be used: {problem}; accepted are {SHAPES}, and integer labels (n,)")


def as_uint8(images: np.ndarray, what: str, size: int, factor: int = 1) -> np.ndarray:
    """Return images times a factor as uint8, in a size if it is not 0, if they are whole numbers from 0 to 255."""
    size, channels = size or images.shape[1], images.shape[3]
    if images.dtype == np.uint8 and size == images.shape[1]:
        return images
    whole = np.empty((len(images), size, size, channels), np.uint8)
    for image, place in zip(images, whole, strict=True):  # one by one: all of them as float64 take much memory
        exact = image.astype(np.float64) * factor
        rounded = np.nan_to_num(np.rint(exact)).clip(0, 255).astype(np.uint8)
        if not (fits := np.abs(exact - rounded) <= 1e-3).all():
            accepted = "whole numbers from 0 to 255, and in an .npz file also those divided by 255"
            raise Refused(f"cannot be used: {what} holds {image[~fits][0]}; accepted are {accepted}")
        picture = Image.fromarray(rounded if channels == 3 else rounded[..., 0])
        place[...] = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS)).reshape(place.shape)
    return whole


def _read_csv(path: Path, size: int) -> Dataset:
    """Read Kaggle's layout, in each row a label and the pixels of an image; a fifth is held out."""
    import pandas as pd

    layout = "a .csv file with a header, a column 'label' and a column for each of n*n pixels, in UTF-8"
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # of rows that are too long
            with open(path, "rb") as stream:
                delimiter = max(",;\t", key=stream.readline().decode("utf-8-sig").count)
            columns = list(pd.read_csv(path, sep=delimiter, nrows=0))
            label = next((name for name in columns if name.strip().lower() == "label"), None)
            pixels = [name for name in columns if name != label]
            if math.isqrt(len(pixels)) ** 2 < len(pixels):
                pixels = [name for name in pixels if not INDEX.fullmatch(name.strip())]
            if label is None:
                raise Refused(f"has no column 'label'; give {layout}")
            side = math.isqrt(len(pixels))
            if side * side != len(pixels) or not side or not (size or SIZES[0] <= side <= SIZES[1]):
                raise Refused(f"has {len(pixels)} columns of pixels; give n*n, n from {SIZES[0]} to {SIZES[1]}")
            types = {**dict.fromkeys(columns, str), **dict.fromkeys(pixels, np.float32)}
            table = pd.read_csv(path, sep=delimiter, dtype=types, index_col=False, na_filter=False)
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise Refused(f"cannot be read as {layout} ({' '.join(str(error).split())})") from error
    names = table[label].map(class_name)
    if (names == "").any() or not len(table):
        raise Refused(f"has {'a row without a label' if len(table) else 'no rows'}; give {layout}")
    numbers = pd.to_numeric(names, errors="coerce")
    if numbers.notna().any():
        if not (fits := (numbers % 1 == 0) & numbers.between(-(2**31), 2**31 - 1)).all():
            raise Refused(f"has {names[~fits].iloc[0]!r} among its labels; give whole numbers of int32, or names only")
        names = numbers.astype(np.int64)
    classes, labels = np.unique(names.to_numpy(), return_inverse=True)
    layouts.check_distinct(map(str, classes), "labels")
    rows = np.ascontiguousarray(table[pixels])
    digests = [hashlib.sha256(row).digest() for row in rows]
    order = np.array(sorted(range(len(rows)), key=lambda row: (labels[row], digests[row])))
    images, labels = as_uint8(rows[order].reshape(-1, side, side, 1), "a column of pixels", size), labels[order]
    for_training, for_testing = hold_out_a_fifth(labels, [digests[row] for row in order])
    train, test = (Split(images[part], labels[part].astype(np.int32)) for part in (for_training, for_testing))
    return Dataset(path.absolute().name, train, test, tuple(classes.tolist()))

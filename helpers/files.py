"""Read a user's own images: a folder of images, an .npz file or a .csv file.

The result depends on contents and names, not on the order in which files were written. Some files in a folder are
skipped, with a note: broken files, files that claim more than 50 million pixels, files that are not images in one of
the `FORMATS`, and files whose names mark them as placeholders, such as `imageNotFound.gif`.
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

ALLOWED = "the path of an .npz file, a .csv file or a folder of images"
SIZES = (8, 64)  # in pixels, limited by the network and by its memory budget
FOLDER_SIZE = 32  # photos are too large for a small network
MOST_PIXELS = 50_000_000  # a larger image may not fit into memory
PngImagePlugin.MAX_TEXT_CHUNK = MOST_PIXELS  # bytes of text or a color profile; Pillow's limit of 1 MB is too low
STANDS_IN = re.compile(r"(image|photo|picture)[\W_]*(is[\W_]*)?(not[\W_]*(found|available)|unavailable)", re.IGNORECASE)
FAULTS = {
    UnidentifiedImageError: "in an unrecognized format",
    Image.DecompressionBombError: "too large (over 50 million pixels)",
}
HEIC = "HEIC, which is not supported (export as JPEG)"
BRANDS = (b"ftyphei", b"ftyphev", b"ftypmif", b"ftypmsf")  # bytes 4 to 10 of a HEIC file
INDEX = re.compile(r"(unnamed: \d+|index|id|)", re.IGNORECASE)  # an index column written by pandas
KERAS_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MEDMNIST_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
SHAPES = f"images (n, height, width) or (n, height, width, 1 or 3), {SIZES[0]} to {SIZES[1]} pixels unless resized"


def read(path: Path, image_size: int = 0, parameter: str = "dataset", sizes: tuple[int, int] = SIZES) -> Dataset:
    """Read a folder of images, an .npz file or a .csv file; if that fails, raise ValueError with a one-sentence reason.

    All images are cropped to their central square and resized to `image_size` pixels, 8 to 64 unless `sizes` sets
    different limits. With 0, they keep their size, except that a folder's images are resized to 32.
    """
    check_size(image_size, sizes)
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
            raise Refused(f"has an unsupported format; give {ALLOWED}")
        else:
            dataset = reader(path, image_size)
    except Refused as refused:
        raise ValueError(f"{parameter}: {path.absolute().name!r} {refused}") from refused.__cause__
    except OSError as error:
        what = f"{str(error.filename or path)!r} cannot be read ({error.strerror})"
        raise ValueError(f"{parameter}: {what}; give {ALLOWED} that you have permission to read") from error
    counts = [np.bincount(split.labels, minlength=len(dataset.classes)) for split in (dataset.train, dataset.test)]
    if lacking := [str(name) for name, *images in zip(dataset.classes, *counts, strict=True) if 0 in images]:
        note = f"these classes lack training or test images and cannot be chosen: {_some(lacking)}"
        return replace(dataset, notes=(*dataset.notes, note))
    return dataset


def folder_sha256(root: Path) -> str:
    """Return the SHA-256 of the names and contents of all files in a folder, except hidden ones."""
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(root).as_posix(), file) for file in layouts.scan(root).all_files):
        with open(file, "rb") as stream:
            digest.update(os.fsencode(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n"))
    return digest.hexdigest()


def check_size(size: int, sizes: tuple[int, int] = SIZES) -> None:
    """Raise ValueError for a size beyond its limits: usually an `image_size`, which may be 0, else a `photo_size`."""
    parameter, allowed = ("image_size", "neither 0 nor") if sizes == SIZES else ("photo_size", "not")
    if type(size) is not int or not (sizes[0] <= size <= sizes[1] or (size == 0 and sizes == SIZES)):
        raise ValueError(f"{parameter}: {size!r} is {allowed} a whole number from {sizes[0]} to {sizes[1]}")


def check_enough(read: Dataset, parameter: str, what: str = "images") -> None:
    """Raise ValueError unless there are at least two classes, each with two training images and a test image."""
    if len(read.classes) < 2:
        raise ValueError(f"{parameter}: {read.name} has only the class {listed(read.classes)}; two or more are needed")
    for split, kind, needed in ((read.train, "training", 2), (read.test, "test", 1)):
        counts = np.bincount(split.labels, minlength=len(read.classes))
        if short := [label for label, count in zip(read.classes, counts, strict=True) if count < needed]:
            lack = "no" if needed == 1 else f"fewer than {needed}"
            raise ValueError(f"{parameter}: {read.name} has {lack} {kind} {what} of class {listed(short)}; add some")


def hold_out_a_fifth(labels: np.ndarray, digests: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and test images for data without a test set, given each image's SHA-256.

    A fifth of each class is held out, always the same images, regardless of an experiment's seed: the images with the
    smallest digests, so that neither the names nor the order matters. A class with a single image keeps it for
    training.
    """
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=digests.__getitem__)
        in_test[members[: max(1, round(len(members) / 5))] if len(members) > 1 else []] = True
    if not in_test.any():
        raise Refused("has only one image of each class; provide at least two, one to train on and one to test on")
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _read_folder(root: Path, size: int) -> Dataset:
    """Read a training set and a test set, or class folders from which a fifth of the images is held out."""
    tree = layouts.scan(root)
    sets, notes = layouts.find_sets(tree)
    class_folders = [folder for one in sets for folder in one.folders.values()]
    if not class_folders:
        raise Refused(f"{'has no class folders' if tree.files else 'is empty'}; {ARRANGE}")
    home = {file: folder.path for folder in class_folders for file in folder.all_files}
    files = sorted(home, key=lambda file: file.relative_to(root).as_posix())
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    faults, digests = _read_images(files, pixels)

    kept = np.flatnonzero([not fault for fault in faults])
    if not len(kept) and HEIC in faults:
        raise Refused("has only HEIC photos, which are not supported; export them as JPEG")
    if not len(kept):
        raise Refused(f"has no readable images; {ARRANGE}; supported formats: {listed(FORMATS)}")
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

    nested = "in a subfolder of a class folder, which gives the class"
    remarks = {file: fault or nested * (file.parent != home[file]) for file, fault in zip(files, faults, strict=True)}
    remarks |= {file: "outside the class folders" for folder in (tree, *sets) for file in folder.files}
    notes += _notes({file.relative_to(root).as_posix(): remark for file, remark in remarks.items()})
    in_order = tuple(files[index] for part in (for_training, for_testing) for index in kept[part])
    return Dataset(root.absolute().name, train, test, classes, tuple(notes), in_order)


def _notes(remarks: dict[str, str]) -> list[str]:
    """Write one sentence for each distinct remark about files; "" means no remark."""
    notes = []
    for remark in sorted({*remarks.values()} - {""}):
        names = [name for name, its_remark in remarks.items() if its_remark == remark]
        be = "is" if len(names) == 1 else "are"
        notes.append(f"{len(names)} of {len(remarks)} files {be} {remark}: {_some(names)}")
    return notes


def _some(names: list[str]) -> str:
    return listed(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_images(paths: list[Path], pixels: np.ndarray) -> tuple[list[str], list[bytes]]:
    """Read images into an array; return, for each image, the reason to skip it (or "") and the SHA-256 of its file.

    Two threads read photos 1.5 times as fast as one.
    """
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(2) as pool:  # no warnings about odd EXIF data
        results = pool.map(_read_image, paths, pixels)  # Ctrl-C cancels these
        read = list(tqdm(results, total=len(paths), desc="reading images", delay=2, leave=False))
    return [fault for fault, _ in read], [digest for _, digest in read]


def _read_image(path: Path, pixels: np.ndarray) -> tuple[str, bytes]:
    """Read an image into its place in an array; return the reason to skip it (or "") and the SHA-256 of its file."""
    if STANDS_IN.search(path.stem) or not os.path.isfile(path):  # a dangling link, or a pipe, which would block
        return "unusable (a placeholder or a broken link)", b""
    with open(path, "rb") as stream:  # not in `try`, because an unreadable file must raise an error
        try:
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                pixels[...] = _prepared(image, len(pixels))
        except Exception as error:  # Pillow raises a dozen kinds of errors for damaged files
            stream.seek(4)
            return HEIC if stream.read(7) in BRANDS else FAULTS.get(type(error), "broken"), b""
        stream.seek(0)
        return "", hashlib.file_digest(stream, "sha256").digest()


def _prepared(image: Image.Image, size: int) -> Image.Image:
    """Return an image in RGB, upright, cropped to its central square, resized, and white where it is transparent."""
    image.draft(None, (2 * size, 2 * size))  # decodes a large JPEG at a fraction of its size, which is faster
    image.load()
    with suppress(Exception):  # the pixels may be fine even if the EXIF data is damaged
        ImageOps.exif_transpose(image, in_place=True)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    mode = "I;16" if (image.format, image.mode) == ("PPM", "I") else image.mode  # Pillow scales these to 16 bits
    image = _in_8_bits(image.crop((left, top, left + side, top + side)), mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")  # colors can be averaged, palette indices cannot
    image = image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _in_8_bits(image: Image.Image, mode: str) -> Image.Image:
    """Scale gray values of 16 or 32 bits to 8 bits; for 32 bits, the smallest scale that fits all values is assumed."""
    scales = {"F": (1, 255, 65535), "I": (255, 65535)}.get(mode, (65535,) if mode[0] == "I" else ())
    if not scales:
        return image  # has 8 bits already
    values = np.asarray(image)  # not left to Pillow, which would clip them at 255
    scale = next(scale for scale in scales if values.min() >= 0 and values.max() <= scale)  # none: broken
    return Image.fromarray(np.rint(values * np.float32(255 / scale)).astype(np.uint8))


def _read_npz(path: Path, size: int) -> Dataset:
    """Read four arrays, named as in Keras or MedMNIST; booleans become black and white. Pickled objects are refused."""
    layout = f"an .npz file with the arrays {listed(KERAS_ARRAYS)}, or {listed(MEDMNIST_ARRAYS)}"
    try:
        with np.load(path, allow_pickle=False) as archive:  # fails for a single array, which np.load accepts
            names = max(KERAS_ARRAYS, MEDMNIST_ARRAYS, key=lambda names: len({*names} & {*archive.files}))
            missing = [name for name in names if name not in archive.files]
            arrays = [] if missing else [np.asarray(archive[name]) for name in names]  # members may be bytes
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds of errors
        raise Refused(f"cannot be read as {layout}, without pickled objects") from error
    if missing:
        raise Refused(f"lacks {listed(missing)}; give {layout}")
    x, y, x_test, y_test = names
    train, labels = _checked(arrays[0], arrays[1], x, y, size)
    test, test_labels = _checked(arrays[2], arrays[3], x_test, y_test, size)
    factor = 255 if all(images.dtype.kind in "bf" and images.max() <= 1 for images in (train, test)) else 1
    train, test = as_uint8(train, x, size, factor), as_uint8(test, x_test, size, factor)
    if train.shape[1:] != test.shape[1:]:
        sizes = ["x".join(map(str, images.shape[1:])).removesuffix("x1") for images in (train, test)]
        problem = f"the images are {sizes[0]} in {x}, but {sizes[1]} in {x_test}"
        raise Refused(f"cannot be used: {problem}; give all images the same size")
    classes = np.union1d(labels, test_labels)
    labels, test_labels = (np.searchsorted(classes, both).astype(np.int32) for both in (labels, test_labels))
    return Dataset(path.name, Split(train, labels), Split(test, test_labels), tuple(classes.tolist()))


def _checked(images: np.ndarray, labels: np.ndarray, x: str, y: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the central squares `(n, side, side, channels)` and the labels `(n,)` of two matching arrays."""
    shaped = images[..., np.newaxis] if images.ndim == 3 else images
    flat = labels[:, 0] if labels.shape[1:] == (1,) else labels
    side, (low, high) = min(shaped.shape[1:3], default=0), (1, math.inf) if size else SIZES
    usable = shaped.ndim == 4 and shaped.shape[3] in (1, 3) and images.dtype.kind in "buif"
    if not usable or not low <= side <= high:
        problem = f"{x} has type {images.dtype} and shape {images.shape}"
    elif flat.ndim != 1 or flat.dtype.kind not in "iu":
        problem = f"{y} has type {labels.dtype} and shape {labels.shape}"
    elif len(images) != len(flat) or not len(flat):
        problem = f"{x} contains {len(images)} images and {y} {len(flat)} labels"
    elif not np.array_equal(flat, flat.astype(np.int32)):
        problem = f"{y} contains labels outside the range of int32"
    else:
        top, left = (shaped.shape[1] - side) // 2, (shaped.shape[2] - side) // 2
        return shaped[:, top : top + side, left : left + side], flat.astype(np.int32)
    raise Refused(f"cannot be used: {problem}; give {SHAPES}, and integer labels (n,)")


def as_uint8(images: np.ndarray, what: str, size: int, factor: int = 1) -> np.ndarray:
    """Multiply images by a factor, convert them to uint8, and resize them unless the size is 0; refuse values that are
    not whole numbers from 0 to 255.
    """
    size, channels = size or images.shape[1], images.shape[3]
    if images.dtype == np.uint8 and size == images.shape[1]:
        return images
    whole = np.empty((len(images), size, size, channels), np.uint8)
    for image, place in zip(images, whole, strict=True):  # one by one, because float64 needs a lot of memory
        exact = image.astype(np.float64) * factor
        rounded = np.nan_to_num(np.rint(exact)).clip(0, 255).astype(np.uint8)
        if not (fits := np.abs(exact - rounded) <= 1e-3).all():
            accepted = "whole numbers from 0 to 255 or, in an .npz file, these numbers divided by 255"
            raise Refused(f"cannot be used: {what} contains {image[~fits][0]}; use {accepted}")
        picture = Image.fromarray(rounded if channels == 3 else rounded[..., 0])
        place[...] = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS)).reshape(place.shape)
    return whole


def _read_csv(path: Path, size: int) -> Dataset:
    """Read a table in Kaggle's layout, with the label and pixels of one image per row, and hold out a fifth."""
    import pandas as pd

    layout = "a UTF-8 .csv file with a header, a column 'label' and one column for each of n*n pixels"
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # for rows that are too long
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
                raise Refused(f"has {len(pixels)} pixel columns; n*n are needed, with n from {SIZES[0]} to {SIZES[1]}")
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
            raise Refused(f"has {names[~fits].iloc[0]!r} among its labels; use only int32 numbers, or only names")
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

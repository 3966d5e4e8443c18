"""Recognize the layout of a folder of images: which folders are classes, and which are the training and test sets.

The contents decide: class folders contain images, and sets contain class folders with the same names. A set's own name
decides only whether it is for training or for testing.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from helpers.images import class_name
from helpers.messages import listed

Image.init()  # otherwise, Pillow recognizes only the most common formats
KNOWN = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # others may launch programs
FORMATS = tuple(name for name in KNOWN if name in Image.OPEN)  # an old Pillow may lack one
HIDDEN = re.compile(r"\.|(__macosx|thumbs\.db|desktop\.ini|@eadir|\$recycle\.bin|lost\+found)$", re.IGNORECASE)
ROLE = re.compile(  # in the name of a set, as a word of its own or before "set" or "data"
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<test>test(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|eval(?:uation)?|dev))"
    r"(?:set|data)?(?![a-z])"
)
ARRANGE = "make one folder of images per class, or train/ and test/ (or val/) with one folder per class"


class Refused(Exception):
    """A reason to refuse a file or folder, worded to follow its name."""


@dataclass(frozen=True)
class Folder:
    """A folder's contents: all subfolders, those with images at any depth, its own files, and all files below it."""

    path: Path
    folders: dict[str, "Folder"]
    with_images: dict[str, "Folder"]
    files: list[Path]
    all_files: list[Path]
    has_images: bool  # directly in it


def scan(path: Path, above: frozenset[str] = frozenset()) -> Folder:
    """List a folder and everything below it, except hidden and system files; follow links, but never in circles."""
    if not above:
        real = Path(os.path.realpath(path))
        above = frozenset(map(str, (real, *real.parents)))
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if not HIDDEN.match(entry.name))
    folders, files = {}, []
    for name in names:
        if not os.path.isdir(path / name):
            files.append(path / name)
        elif (target := os.path.realpath(path / name)) not in above:
            folders[name] = scan(path / name, above | {target})
    all_files = [*files, *(file for folder in folders.values() for file in folder.all_files)]
    with_images = {name: folder for name, folder in folders.items() if folder.has_images or folder.with_images}
    return Folder(path, folders, with_images, files, all_files, any(map(_is_image, files)))


def find_sets(root: Folder) -> tuple[list[Folder], list[str]]:
    """Return the folder with the class folders, or the training set and the test set, with notes on unused folders."""
    folder, notes = _unwrapped(root)
    check_distinct(folder.folders, "folders")
    roles = {name: _role(name) for name in folder.with_images}
    inner = {name: _unwrapped(folder.folders[name])[0] for name, role in roles.items() if role}
    sets = {name: one for name, one in inner.items() if one.with_images}
    trains = sorted((name for name, role in roles.items() if role == "train"), key=len)
    train = next((name for name in trains if name in sets), None)
    if train is None:
        if trains and (len(roles) == 1 or {"test", "val"} & {*roles.values()}):  # else "train" is a class
            raise Refused(f"has no class folders in {trains[0]}/; {ARRANGE}")
        _check_classes(folder)
        return [folder], notes
    classes = _classes(sets[train])
    tests = [name for name in sets if roles[name] != "train" and _classes(sets[name]) & classes]
    test = min(tests, key=lambda name: (_classes(sets[name]) != classes, roles[name], len(name)), default=None)
    if test is None:
        _check_classes(folder)
    if unused := [f"{name}/" for name in folder.folders if name not in (train, test)]:
        role = f"{test}/ is the test set" if test else "a fifth of it is held out as the test set"
        notes = [*notes, f"not used: {listed(unused)} ({train}/ is the training set, {role})"]
    chosen = [sets[name] for name in (train, test) if name]
    check_distinct([name for one in chosen for name in one.folders], "folders")
    for one in chosen:
        _check_classes(one)
    return chosen, notes


def check_distinct(names: Iterable[str], kind: str) -> None:
    """Refuse class names that differ but look alike, and names that cannot be displayed."""
    by_look: dict[str, set[str]] = {}
    for name in names:
        if name != name.encode("utf-8", "ignore").decode():  # a notebook could not contain the name
            raise Refused(f"has {name!r} among its {kind}, a name that is not valid UTF-8; change it")
        look = "".join(filter(str.isprintable, class_name(name))).casefold()
        by_look.setdefault(look, set()).add(class_name(name))
    if alike := next((sorted(same) for same in by_look.values() if len(same) > 1), None):
        differ = "differ only in letter case or in invisible characters"
        raise Refused(f"has the {kind} {listed(alike)}, which {differ}; rename or merge them")


def _unwrapped(folder: Folder) -> tuple[Folder, list[str]]:
    """Skip outer folders, such as an archive's; return the first folder that matters, with notes on unused ones."""
    inner = [*folder.with_images.values()]
    if len(inner) != 1 or inner[0].has_images:
        return folder, []
    meant, notes = _unwrapped(inner[0])
    unused = [f"{name}/" for name in folder.folders if name not in folder.with_images]
    return meant, [*notes, *([f"not used: {listed(unused)} (no images)"] if unused else [])]


def _is_image(path: Path) -> bool:
    """Tell from its first bytes whether a file is an image; dangling links do not count, nor do pipes, which block."""
    if os.path.isfile(path):
        with open(path, "rb") as stream, warnings.catch_warnings(action="ignore"), suppress(Exception):
            Image.open(stream, formats=FORMATS)
            return True
    return False


def _role(name: str) -> str:
    """Return the role that a set's name states: "train", "test" or "val", or "" if it states none."""
    role = ROLE.search(re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return role.lastgroup or "" if role else ""


def _classes(folder: Folder) -> set[str]:
    return {class_name(name).casefold() for name in folder.folders}


def _check_classes(folder: Folder) -> None:
    """Refuse a folder with the same folder names in several places, because any of these could be the classes."""
    places = {f"{name}/": _unwrapped(one)[0] for name, one in folder.with_images.items() if not one.has_images}
    counts = Counter(name for one in (folder, *places.values()) for name in _classes(one))
    shared = {name for name, count in counts.items() if count > 1}
    if len(shared) > 1:
        among = [name for name, one in {"./": folder, **places}.items() if _classes(one) & shared]
        raise Refused(
            f"has folders with the same names, such as {listed(sorted(shared)[:2])}, in {listed(among[:3])}; use one "
            "of these, or name two of them train and test, or move the images of each class into one folder"
        )

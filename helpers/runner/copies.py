"""Copies of the lessons to work on outside the repository, with links that work from there."""

import json
import posixpath
import re
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from helpers.folders import PACKAGE, check_folder
from helpers.messages import listed
from helpers.runner import notebooks
from helpers.store import write_text

LINK = re.compile(  # relative links; code that looks like one is skipped
    r"(?P<code>`+).+?(?P=code)|!?\[(?P<text>[^\]]*)\]\((?!\w+:|[#/])(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)",
    re.DOTALL,
)


def write_lessons(folder: Path) -> list[Path]:
    """Write the lessons into a folder; return their paths.

    An existing lesson with the same cells is kept, with its outputs. Raises ValueError, before anything is written, for
    a folder that is not writable, or that has its own `helpers` or a different notebook under a lesson's name.
    """
    check_folder("DIR", str(folder), folder.absolute())
    for name in ("helpers", "helpers.py"):
        if (folder / name).exists() and (folder / name).resolve() != PACKAGE:
            raise ValueError(f"DIR: {str(folder)!r} contains {name}, which the lessons would import; use a new folder")
    copies = {folder / lesson.path.name: copied(lesson.path) for lesson in notebooks.lessons()}
    existing = {path: path.read_text("utf-8", "replace") for path in copies if path.exists()}
    if different := [path.name for path, text in existing.items() if _cells(text) != _cells(copies[path])]:
        raise ValueError(
            f"DIR: {str(folder)!r} already has {listed(different)} with different cells; nothing is overwritten, "
            "so choose a different folder, or move your notebook away"
        )
    for path, text in copies.items():
        if path not in existing:
            write_text(path, text)
    return list(copies)


def relinked(notebook: dict[str, Any], to: Callable[[str], str]) -> dict[str, Any]:
    """Return a lesson's content with the relative links in its prose replaced.

    `to` returns the address for a path in the repository, such as "docs/speed.md", or "" to remove the link.
    """

    def changed(link: re.Match[str]) -> str:
        if link["code"]:
            return link[0]
        address = to(posixpath.normpath(posixpath.join("notebooks", link["target"])))
        before = link[0].partition("[")[0]
        return f"{before}[{link['text']}]({address}{link['anchor'] or ''})" if address else link["text"]

    cells = [dict(cell) for cell in notebook["cells"]]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = LINK.sub(changed, "".join(cell["source"])).splitlines(keepends=True)
    return {**notebook, "cells": cells}


def as_json(notebook: dict[str, Any]) -> str:
    """Return a notebook as the text of its file, in Jupyter's format."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def address() -> str:
    """Return the repository's address, or "" if the installed package does not know it."""
    urls = list[str]()
    with suppress(PackageNotFoundError):
        urls = metadata("transfer-learning-tutorial").get_all("Project-URL") or []
    return dict(url.split(", ", 1) for url in urls).get("Repository", "").rstrip("/")


def copied(lesson: Path, linked: bool = True) -> str:
    """Return a lesson's file with its links pointing to the repository, if the repository's address is known.

    Unless `linked`, links to other lessons are removed, because the copies are in separate folders.
    """
    repository = address()

    def to(target: str) -> str:
        if target.startswith("notebooks/") and target.endswith(".ipynb"):
            return posixpath.relpath(target, "notebooks") if linked else ""
        return f"{repository}/blob/HEAD/{target}" if repository else ""

    return as_json(relinked(json.loads(lesson.read_text(encoding="utf-8")), to))


def _cells(text: str) -> list[tuple[str, str]]:
    """Return a file's notebook cells, without their outputs, or none if it is not a notebook."""
    with suppress(ValueError, KeyError, TypeError):
        return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return []

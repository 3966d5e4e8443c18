"""Copies of the lessons to work on, elsewhere than in the repository, with links that lead somewhere from there."""

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

LINK = re.compile(  # relative ones; code, which may look like one, is passed over
    r"(?P<code>`+).+?(?P=code)|!?\[(?P<text>[^\]]*)\]\((?!\w+:|[#/])(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)",
    re.DOTALL,
)


def write_lessons(folder: Path) -> list[Path]:
    """Write the lessons into a folder; return where they are.

    One that is there already with the same cells is left as it is, with what was computed in it. Raises ValueError,
    before anything is written, for a folder that holds something else under a lesson's name, or a `helpers` of its own,
    and for one that cannot be written to.
    """
    check_folder("DIR", str(folder), folder.absolute())
    for name in ("helpers", "helpers.py"):
        if (folder / name).exists() and (folder / name).resolve() != PACKAGE:
            raise ValueError(f"DIR: {str(folder)!r} holds {name}, which the lessons would import; give another folder")
    copies = {folder / lesson.path.name: copied(lesson.path) for lesson in notebooks.lessons()}
    there = {path: path.read_text("utf-8", "replace") for path in copies if path.exists()}
    if others := [path.name for path, text in there.items() if _cells(text) != _cells(copies[path])]:
        raise ValueError(
            f"DIR: {str(folder)!r} holds {listed(others)} with other cells, and nothing is overwritten; "
            "give another folder, or move yours away"
        )
    for path, text in copies.items():
        if path not in there:
            write_text(path, text)
    return list(copies)


def relinked(notebook: dict[str, Any], to: Callable[[str], str]) -> dict[str, Any]:
    """Return a lesson's content with the relative links in its prose changed.

    `to` gives an address for a path in the repository, such as "docs/speed.md", or "", and then no link is left.
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
    """Return the text of a notebook's file, as Jupyter writes it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def copied(lesson: Path, linked: bool = True) -> str:
    """Return a lesson's file; its links to other files than lessons lead to the repository, if its address is known.

    Unless it is `linked`, there are no links to other lessons, which may lie elsewhere.
    """
    address = ""
    with suppress(PackageNotFoundError):
        urls = metadata("transfer-learning-tutorial").get_all("Project-URL") or []
        address = dict(url.split(", ", 1) for url in urls).get("Repository", "").rstrip("/")

    def to(target: str) -> str:
        if target.startswith("notebooks/") and target.endswith(".ipynb"):
            return posixpath.relpath(target, "notebooks") if linked else ""
        return f"{address}/blob/HEAD/{target}" if address else ""

    return as_json(relinked(json.loads(lesson.read_text(encoding="utf-8")), to))


def _cells(text: str) -> list[tuple[str, str]]:
    """Return what people write of a notebook, without what it computed; nothing of what is none."""
    with suppress(ValueError, KeyError, TypeError):
        return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return []

"""Copies of the lessons to work on, elsewhere than in the repository, with links that lead somewhere from there."""

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.artefacts import COURSE, PACKAGE, check_folder, write_text
from helpers.images import listed
from helpers.runner import notebooks

LINK = re.compile(  # relative ones; code, which may look like one, is passed over
    r"(?P<code>`+).+?(?P=code)|!?\[(?P<text>[^\]]*)\]\((?!\w+:|[#/])(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)",
    re.DOTALL,
)


def write_lessons(folder: Path) -> list[Path]:
    """Write the lessons into a folder and the guides into `docs` below it; return where the lessons are.

    What is there already with the same cells or text is left as it is, with what was computed in it. Raises ValueError,
    before anything is written, for a folder that holds something else under one of these names, or a `helpers` of its
    own, and for one that cannot be written to.
    """
    check_folder("DIR", str(folder), folder.absolute())
    for name in ("helpers", "helpers.py"):
        if (folder / name).exists() and (folder / name).resolve() != PACKAGE:
            raise ValueError(f"DIR: {str(folder)!r} holds {name}, which the lessons would import; give another folder")
    lessons = [lesson.path for lesson in notebooks.lessons()]
    places = {f"notebooks/{path.name}": path.name for path in lessons}
    places |= {f"docs/{path.name}": f"docs/{path.name}" for path in sorted((COURSE / "docs").glob("*.md"))}
    copies = {place: _moved(page, places) for page, place in places.items()}
    there = {place: (folder / place).read_text("utf-8", "replace") for place in copies if (folder / place).exists()}
    if others := [place for place, text in there.items() if _written(text) != _written(copies[place])]:
        raise ValueError(
            f"DIR: {str(folder)!r} holds {listed(others)} with other content, and nothing is overwritten; "
            "give another folder, or move yours away"
        )
    for place in copies.keys() - there.keys():
        write_text(folder / place, copies[place])
    return [folder / path.name for path in lessons]


def relinked(text: str, page: str, to: Callable[[str], str | None]) -> str:
    """Return Markdown of a page of the repository, such as "docs/speed.md", with its relative links changed.

    `to` gives an address for a path in the repository, or None: then the link's text stays alone.
    """

    def changed(link: re.Match[str]) -> str:
        if link["code"]:
            return link[0]
        address = to(posixpath.normpath(posixpath.join(posixpath.dirname(page), link["target"])))
        before = link[0].partition("[")[0]
        return f"{before}[{link['text']}]({address}{link['anchor'] or ''})" if address else link["text"]

    return LINK.sub(changed, text)


def relinked_notebook(notebook: dict[str, Any], page: str, to: Callable[[str], str | None]) -> dict[str, Any]:
    """Return a notebook's content with the links in its prose changed as by `relinked`."""
    cells = [
        {**cell, "source": relinked("".join(cell["source"]), page, to).splitlines(keepends=True)}
        if cell["cell_type"] == "markdown"
        else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def as_json(notebook: dict[str, Any]) -> str:
    """Return the text of a notebook's file, as Jupyter writes it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _moved(page: str, places: dict[str, str]) -> str:
    """Return a page of the repository as it stands in its new place, with links to the new places of others."""

    def to(target: str) -> str | None:
        return posixpath.relpath(places[target], posixpath.dirname(places[page]) or ".") if target in places else None

    text = (COURSE / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        return as_json(relinked_notebook(json.loads(text), page, to))
    return relinked(text, page, to)


def _written(text: str) -> Any:
    """Return what a person writes of a file: a notebook's cells without what they computed, another file's text."""
    try:
        return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError):
        return text

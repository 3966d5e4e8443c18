"""Write copies of the lessons for Google Colab, each with a first cell that installs the course.

    python tools/colab.py https://github.com/OWNER/REPOSITORY FOLDER

Colab opens notebooks from branches on GitHub, so the copies are published in the folder `colab` of the branch
`gh-pages`, and link to each other there.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from nbformat.v4 import new_code_cell, new_markdown_cell

from helpers.runner.copies import as_json, relinked

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = "blob/gh-pages/colab"
ADDRESS = re.compile(r"(https|file)://[\w.~/-]+")  # "file" is for trying the copies locally
INSTALL = """\
!pip list --format=freeze > installed.txt
!pip install --quiet --constraint installed.txt git+{address}"""
SAYS = """\
**On Colab**, run this cell first, once per session. It installs the course from [its repository]({address}), together
with the packages that Colab lacks, and replaces none of Colab's own packages."""


def write_copies(folder: Path, address: str) -> None:
    """Write a copy of each lesson into a folder; `address` is the repository's.

    A copy keeps the lesson's outputs. Links to lessons lead to the copies on Colab, and all others to the repository.
    Raises ValueError for an invalid address.
    """
    address = address.removesuffix("/").removesuffix(".git")
    if not ADDRESS.fullmatch(address):
        raise ValueError(f"address: {address!r} is invalid; give one like https://github.com/OWNER/REPOSITORY")
    folder.mkdir(parents=True, exist_ok=True)
    for lesson in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(lesson.read_text(encoding="utf-8"))
        (folder / lesson.name).write_text(as_json(for_colab(notebook, address)), encoding="utf-8")


def colab_link(address: str, name: str) -> str:
    """Return the address at which Colab opens the published copy of a lesson, given its file name."""
    return f"{address.replace('//github.com/', '//colab.research.google.com/github/')}/{PUBLISHED}/{name}"


def for_colab(notebook: dict[str, Any], address: str) -> dict[str, Any]:
    """Return a lesson's content for Colab."""

    def to(target: str) -> str:
        path = Path(target)
        if path.match("notebooks/*.ipynb"):
            return colab_link(address, path.name)
        return f"{address}/blob/HEAD/{target}"

    copy = relinked(notebook, to)
    says = new_markdown_cell(SAYS.format(address=address), id="on-colab")
    install = new_code_cell(INSTALL.format(address=address), id="install")
    return {**copy, "cells": [says, install, *copy["cells"]]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address", help="address of the repository, such as https://github.com/OWNER/REPOSITORY")
    parser.add_argument("folder", type=Path, help="folder for the copies")
    arguments = parser.parse_args()
    try:
        write_copies(arguments.folder, arguments.address)
    except (ValueError, OSError) as error:
        parser.error(str(error))

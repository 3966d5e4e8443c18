"""Run the lessons and store their outputs: on MNIST in notebooks/, and on a small part of it in tests/reference/.

The result rows on that part are stored, too, but not their columns of seconds and cores. Then the notebooks in docs/
and lesson 07's table of the atlas are recomputed from the stored rows; `--only pages` does only this last step.

    MNIST_NPZ=.../mnist.npz TRANSFER_TUTORIAL_DATA=... python tools/refresh_outputs.py [--only 03,05] [--anew]

Stored outputs have no timestamps, execution metadata, widgets, absolute paths or log lines, and do not change from run
to run. If a cell's source has not changed since the last refresh, the cell keeps its stored output if the text is the
same, or if the cell is not compared (tagged nbval-ignore-output). `--anew` takes every output from this run, which is
necessary after a change to a figure.
"""

import argparse
import base64
import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from helpers.runner import notebooks
from helpers.starts import ATLAS, error_ratios

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
REFERENCE = ROOT / "tests" / "reference"
PAGES = ROOT / "docs"
# Offline and fast.
REFERENCE_PARAMETERS = {"dataset": "mnist_5k", "image_size": 14, "photo_size": 96, "filters": 16, "seeds": [0, 1]}
WIDGET = "application/vnd.jupyter.widget-view+json"
UNWANTED = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|usr|opt|Users)/|oneDNN|absl::|0x[0-9a-f]{6,}|\bdtype: ")


def execute(path: Path, parameters: dict) -> NotebookNode:
    """Run a notebook; return it with its outputs, and with papermill's parameters cell if any are given."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / path.name
        notebooks.execute(notebooks.find(str(path)), output, parameters, description=path.stem)
        return nbformat.read(output, as_version=4)


def sanitized(cell: NotebookNode, images: bool) -> list[NotebookNode]:
    """Return a cell's outputs with streams joined, and without widgets, counts and, unless `images`, pictures."""
    outputs = []
    for output in cell.outputs:
        if output.output_type == "stream" and outputs and outputs[-1].get("name") == output.name:
            outputs[-1].text += output.text
            continue
        data = output.get("data", {})
        if WIDGET in data or (not images and output.output_type == "display_data" and set(data) == {"image/png"}):
            continue
        if not images:
            data.pop("image/png", None)
            output.get("metadata", {}).pop("image/png", None)
        if "execution_count" in output:
            output.execution_count = None
        outputs.append(output)
    if found := UNWANTED.search(text_of(outputs)):  # text only, because a picture's base64 may match by chance
        raise SystemExit(f"the output of {cell.id} must not be stored: it contains {found.group()!r}")
    return outputs


def text_of(outputs: list[NotebookNode]) -> str:
    """Return the parts of outputs that nbval compares, as text."""
    kept = []
    for output in outputs:
        data = {kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"}
        kept.append((output.output_type, output.get("text"), sorted(data.items())))
    return str(kept)


def sources(path: Path) -> set[str]:
    """Return the sources of a stored notebook's cells, or an empty set if there is no such file."""
    return {cell.source for cell in nbformat.read(path, as_version=4).cells} if path.exists() else set()


def refresh(path: Path, stored_at: Path, parameters: dict, images: bool, unchanged: set[str]) -> None:
    """Run a lesson, store its outputs, and print how many cells changed.

    A cell may keep its stored output if its source is in `unchanged`.
    """
    start = time.perf_counter()
    ran = execute(path, parameters)
    stored = nbformat.read(stored_at, as_version=4) if stored_at.exists() else ran
    before = {cell.source: cell.outputs for cell in stored.cells if cell.cell_type == "code"}
    changed = 0
    for cell in ran.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {name: cell.metadata[name] for name in ("nbgrader", "tags") if cell.metadata.get(name)}
        if cell.cell_type != "code":
            continue
        cell.outputs = sanitized(cell, images)
        kept = before.get(cell.source, [])
        alike = text_of(kept) == text_of(cell.outputs)
        if cell.source in unchanged and (alike or (kept and "nbval-ignore-output" in tags)):
            cell.outputs = kept
        else:
            changed += not alike
        if "injected-parameters" in tags:
            cell.id = f"{path.name[:2]}-parameters"
    number_cells(ran)
    ran.metadata = {key: ran.metadata[key] for key in ("kernelspec",)} | {"language_info": {"name": "python"}}
    nbformat.validate(ran)
    nbformat.write(ran, stored_at)
    print(
        f"{path.stem}: {time.perf_counter() - start:.0f} s, {changed} cells changed in {stored_at.parent.name}/",
        flush=True,
    )


def number_cells(notebook: NotebookNode) -> None:
    """Number the code cells from 1, as in a run, because nbval treats a cell without a number as never run."""
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def store_results(home: Path, number: str, stored_at: Path) -> None:
    """Store the rows that a lesson saved, if any, without the columns of seconds and cores."""
    path = home / "runs" / "lessons" / f"results-{number}.csv"
    if path.is_file():
        rows = pd.read_csv(path, dtype=str)
        rows.drop(columns=rows.filter(regex="seconds|threads|at_once").columns).to_csv(stored_at, index=False)


def store_key_figure(page: Path) -> None:
    """Save a page's key figure next to the lessons, for the README and the home page."""
    for cell in nbformat.read(page, as_version=4).cells:
        if "key-figure" in cell.metadata.get("tags", []):
            (NOTEBOOKS / "result.png").write_bytes(base64.b64decode(cell.outputs[-1].data["image/png"]))


def atlas_table() -> pd.DataFrame:
    """Return the part of the atlas that lesson 07 shows: each start's error ratios to `scratch`, by set name."""
    rows = pd.read_csv(PAGES / "study" / "atlas.csv", dtype={"labels_per_class": str})
    sets = pd.read_csv(PAGES / "study" / "atlas_sets.csv").set_index("set")
    all_images = ~(rows["source_images"] < rows.groupby("source")["source_images"].transform("max"))
    shown = all_images & (rows["task"] == "target") & (rows["target"].map(sets["part"]) == "atlas")
    rows = rows[shown].sort_values(["source", "target"], na_position="first", kind="stable")
    return error_ratios(rows.assign(**{name: rows[name].map(sets["name"]) for name in ("source", "target")})).round(3)


def refresh_pages() -> None:
    """Compute the pages from the stored rows."""
    for path in sorted(PAGES.glob("*.ipynb")):
        refresh(path, path, {}, images=True, unchanged=set())
    store_key_figure(PAGES / "results.ipynb")


def main() -> None:
    """Refresh the chosen lessons on both datasets, in order, from an empty run folder; then the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="00,01,02,03,04,05,06,07", help="lessons to run, such as 03,05; or pages")
    parser.add_argument("--anew", action="store_true", help="take every output from this run")
    parser.add_argument("--reference-only", action="store_true", help="refresh only tests/reference/, without MNIST")
    chosen = parser.parse_args()
    atlas_table().to_csv(ATLAS, index=False)  # for lesson 07
    if chosen.only == "pages":
        refresh_pages()
        return
    if not chosen.reference_only:
        if "MNIST_NPZ" not in os.environ:
            parser.error("set MNIST_NPZ to the path of mnist.npz, or give --reference-only")
        os.environ["MNIST_NPZ"] = str(Path(os.environ["MNIST_NPZ"]).resolve())
    REFERENCE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["TRANSFER_TUTORIAL_HOME"] = home
        for number in chosen.only.split(","):
            (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
            unchanged = set() if chosen.anew else sources(REFERENCE / path.name)  # the lesson itself is already edited
            known = notebooks.defaults(path)
            given = {name: value for name, value in REFERENCE_PARAMETERS.items() if name in known}
            refresh(path, REFERENCE / path.name, given, images=False, unchanged=unchanged)
            store_results(Path(home), number, REFERENCE / f"results-{number}.csv")
            if not chosen.reference_only:
                refresh(path, path, {}, images=True, unchanged=unchanged)
    if not chosen.reference_only:
        refresh_pages()


if __name__ == "__main__":
    main()

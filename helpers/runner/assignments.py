"""Turn lessons into nbgrader assignments, and count the checks' replies to submitted answers, without using nbgrader.

A checked exercise is one cell in a lesson and two in an assignment: one for the learner, and a locked one with only the
check, which nbgrader restores before grading.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from helpers.folders import check_folder
from helpers.messages import listed
from helpers.runner import copies
from helpers.runner.notebooks import Notebook
from helpers.store import write_text

if TYPE_CHECKING:
    import pandas as pd

STOPS = {"KeyboardInterrupt": "the code takes too long"}  # other errors are reported by name
STOPS |= dict.fromkeys(("SyntaxError", "IndentationError", "TabError"), "a syntax error")
CONFIG = Path(__file__).with_name("templates") / "nbgrader_config.txt"


def write(folder: Path, chosen: Sequence[Notebook], values: Mapping[str, Any]) -> list[Path]:
    """Write lessons with these parameters as nbgrader sources, and write nbgrader's settings unless they exist.

    Returns the notebooks' paths. Raises ValueError, before anything is written, if an assignment already exists.
    """
    check_folder("DIR", str(folder), folder.absolute())
    texts = {folder / "source" / lesson.name / lesson.path.name: _assignment(lesson, values) for lesson in chosen}
    if there := [path.stem for path in texts if path.exists()]:
        raise ValueError(f"DIR: {str(folder)!r} already has {listed(there)}, which is never overwritten; move it away")
    for path, text in {folder / "nbgrader_config.py": CONFIG.read_text("utf-8"), **texts}.items():
        if not path.exists():
            write_text(path, text)
    return list(texts)


def _assignment(lesson: Notebook, values: Mapping[str, Any]) -> str:
    """Return a lesson's file with these parameters, without outputs, and with each check in a separate cell.

    If the repository's address is known, a first cell installs the course on Colab.
    """
    notebook, cells = nbformat.reads(copies.copied(lesson.path, linked=False), as_version=4), list[Any]()
    if address := copies.address():
        install = CONFIG.with_name("colab.txt").read_text("utf-8").strip().format(address=address)
        cells.append(nbformat.v4.new_code_cell(install, id="install"))
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs = []
        cell.source = cell.source.replace("run the cell to check it", "run the cell and the check below it")
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, values)
        if about := cell.metadata.get("nbgrader"):
            cell.source, call = re.split(r"\n+checks\.", cell.source)
            source = f"from helpers import checks\n\nprint(checks.{call})"
            graded = {"nbgrader": {**about, "solution": False, "locked": True}}
            cells.append(nbformat.v4.new_code_cell(source, id=f"{cell.id}-check", metadata=graded))
            about.update(grade=False, grade_id=f"{about.grade_id}-answer")
            del about["points"]
    notebook.cells = cells
    return str(nbformat.writes(notebook)) + "\n"


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """Return the source of a parameters cell with these values; types and comments stay the same."""
    from papermill.translators import PythonTranslator

    for name, value in values.items():
        written = PythonTranslator.translate(value).replace("\\", r"\\")
        source = re.sub(rf"(?m)^({name}: \w+ = )(?:\[[^]]*\]|.*?)(?=  #|$)", rf"\g<1>{written}", source)
    return source


def write_misconceptions(course: Path, lesson: str) -> tuple["pd.DataFrame", Path]:
    """Save a figure of the replies to a lesson in the course folder; return their counts and the figure's path."""
    from helpers import plots

    counted, picture = misconceptions(course, lesson), course / f"misconceptions-{lesson}.png"
    picture.write_bytes(plots.png(plots.misconceptions(counted))[0])
    return counted, picture


def misconceptions(course: Path, lesson: str) -> "pd.DataFrame":
    """Count the checks' replies in the graded notebooks of a lesson, by exercise, the most common first; replies that
    differ only in numbers count as one. Raises ValueError if no notebook has been graded.
    """
    import pandas as pd

    paths = sorted(course.glob(f"autograded/*/{lesson}/{lesson}.ipynb"))
    rows = [reply for path in paths for reply in _replies(nbformat.read(path, as_version=4).cells)]
    if not rows:
        raise ValueError(f"DIR: {str(course)!r} has no graded notebooks for {lesson}; run nbgrader autograde first")
    said = pd.DataFrame(rows, columns=["exercise", "reply"])
    alike = said["reply"].str.replace(r"\d+([.,]\d+)*", "…", regex=True)
    differing = said.groupby(["exercise", alike])["reply"].transform("nunique") > 1
    said["reply"] = said["reply"].mask(differing, alike)
    counted = said.groupby(["exercise", "reply"]).size().rename("learners").reset_index()
    return counted.sort_values(["exercise", "learners"], ascending=[True, False], kind="stable")


def not_graded(course: Path, lesson: str) -> dict[str, str]:
    """Return, for each learner without a graded notebook of a lesson, the reason, and what nbgrader exports for them.

    Anyone who is in the gradebook or has a folder in `submitted/` counts as a learner.
    """
    learners, gradebook = {path.name for path in course.glob("submitted/*/")}, (course / "gradebook.db").absolute()
    listed_there = set[str]()
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{gradebook.as_uri()}?mode=ro", uri=True)) as book:
        listed_there = {learner for (learner,) in book.execute("SELECT id FROM student")}
    learners |= listed_there
    said, place = {}, Path(lesson, f"{lesson}.ipynb")
    others = {path.name for path in course.glob("source/*")} - {lesson}
    for learner in sorted(learners - {path.parents[1].name for path in course.glob(f"autograded/*/{place}")}):
        folder = course / "submitted" / learner
        found = [path.relative_to(folder) for path in sorted(folder.rglob("*.ipynb"))]
        found = [path for path in found if path.stem == lesson or path.parts[0] not in others]
        said[learner] = "not graded; nbgrader autograde says why" if place in found else "nothing handed in"
        if found and place not in found:
            said[learner] = f"handed in {listed(found)}; for nbgrader, move it to submitted/{learner}/{place}"
        exported = "gives 0 points" if learner in listed_there else "leaves this learner out"
        said[learner] += f". nbgrader export {exported}"
    return said


def _replies(cells: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield each check's id and reply; an error in the answer above replaces the reply, because the error says more."""
    stopped = ""
    for cell in cells:
        about = cell.metadata.get("nbgrader", {})
        if about.get("grade"):
            yield about.grade_id, _reply(cell.outputs, stopped)
        errors = [output.ename for output in cell.get("outputs", []) if output.output_type == "error"]
        stopped = errors[0] if errors and about.get("solution") else ""


def _reply(outputs: list[Any], stopped: str) -> str:
    """Return a check's reply without its hint."""
    for output in outputs:
        if output.output_type == "error":
            said = re.match(r"Not yet: (.+)\. Hint: |Not answered yet", output.evalue, re.DOTALL)
            name = stopped or output.ename
            return (said[1] or "no answer") if said else STOPS.get(name, f"the code stops with {name}")
    printed = "".join(output.get("text", "") for output in outputs)
    return "right" if printed.endswith("Right.\n") else "points awarded, but no reply from the check"

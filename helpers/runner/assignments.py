"""Lessons as nbgrader assignments, and the checks' replies to the answers that came back. Neither needs nbgrader.

A checked exercise is one cell in a lesson and two in an assignment: the learner's, and a locked one with only the
check, which nbgrader restores before grading.
"""

import re
from collections.abc import Mapping, Sequence
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

CONFIG = Path(__file__).with_name("templates") / "nbgrader_config.txt"


def write(folder: Path, chosen: Sequence[Notebook], values: Mapping[str, Any]) -> list[Path]:
    """Write lessons as nbgrader sources with these parameters, and nbgrader's settings unless there are any.

    Returns the notebooks. Raises ValueError, before anything is written, for assignments that already exist.
    """
    check_folder("DIR", str(folder), folder.absolute())
    texts = {folder / "source" / lesson.name / lesson.path.name: _assignment(lesson, values) for lesson in chosen}
    if there := [path.stem for path in texts if path.exists()]:
        raise ValueError(f"DIR: {str(folder)!r} has {listed(there)} already, and nothing is overwritten; move it away")
    for path, text in {folder / "nbgrader_config.py": CONFIG.read_text("utf-8"), **texts}.items():
        if not path.exists():
            write_text(path, text)
    return list(texts)


def _assignment(lesson: Notebook, values: Mapping[str, Any]) -> str:
    """Return a lesson's file with these parameters, without outputs, and with each check in a cell of its own."""
    notebook, cells = nbformat.reads(copies.copied(lesson.path, linked=False), as_version=4), []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs = []
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
    """Return the source of a parameters cell with these values; types and comments stay."""
    from papermill.translators import PythonTranslator

    for name, value in values.items():
        written = PythonTranslator.translate(value).replace("\\", r"\\")
        source = re.sub(rf"(?m)^({name}: \w+ = ).*?(?=  #|$)", rf"\g<1>{written}", source)
    return source


def write_misconceptions(course: Path, lesson: str) -> tuple["pd.DataFrame", Path]:
    """Draw the counted replies to a lesson into the course folder; return the counts and the path of the figure."""
    from helpers import plots

    counted, picture = misconceptions(course, lesson), course / f"misconceptions-{lesson}.png"
    picture.write_bytes(plots.png(plots.misconceptions(counted))[0])
    return counted, picture


def misconceptions(course: Path, lesson: str) -> "pd.DataFrame":
    """Count the checks' replies in the graded notebooks of a lesson, by exercise, the most common first; replies that
    differ only in numbers count as one. Raises ValueError if no notebook was graded.
    """
    import pandas as pd

    rows = [
        (cell.metadata.nbgrader.grade_id, _reply(cell.outputs))
        for path in sorted(course.glob(f"autograded/*/{lesson}/{lesson}.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.metadata.get("nbgrader", {}).get("grade")
    ]
    if not rows:
        raise ValueError(f"DIR: {str(course)!r} has no graded notebooks of {lesson}; run nbgrader autograde first")
    said = pd.DataFrame(rows, columns=["exercise", "reply"])
    alike = said["reply"].str.replace(r"\d+([.,]\d+)*", "…", regex=True)
    differing = said.groupby(["exercise", alike])["reply"].transform("nunique") > 1
    said["reply"] = said["reply"].mask(differing, alike)
    counted = said.groupby(["exercise", "reply"]).size().rename("learners").reset_index()
    return counted.sort_values(["exercise", "learners"], ascending=[True, False], kind="stable")


def _reply(outputs: list[Any]) -> str:
    """Return a check's reply without its hint."""
    for output in outputs:
        if output.output_type == "error":
            said = re.match(r"Not yet: (.+)\. Hint: |Not answered yet", output.evalue, re.DOTALL)
            return (said[1] or "no answer") if said else f"the code stops with {output.ename}"
    printed = "".join(output.get("text", "") for output in outputs)
    return "right" if printed.endswith("Right.\n") else "points without a word of the check"

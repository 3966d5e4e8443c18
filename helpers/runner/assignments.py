"""Lessons as assignments of nbgrader, and what the checks said of the answers that came back. Neither needs nbgrader.

An exercise that a lesson checks is one cell there, and two in an assignment: the learner's, and a locked one with the
check alone, which nbgrader puts back before it gives points.
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
    """Write lessons as nbgrader's sources, with these parameters, and its settings unless there are some.

    Returns the notebooks. Raises ValueError, before anything is written, for assignments that are there already.
    """
    check_folder("DIR", str(folder), folder.absolute())
    texts = {folder / "source" / each.name / each.path.name: _assignment(each, values) for each in chosen}
    if there := [path.stem for path in texts if path.exists()]:
        raise ValueError(f"DIR: {str(folder)!r} has {listed(there)} already, and nothing is overwritten; move it away")
    for path, text in {folder / "nbgrader_config.py": CONFIG.read_text("utf-8"), **texts}.items():
        if not path.exists():
            write_text(path, text)
    return list(texts)


def _assignment(lesson: Notebook, values: Mapping[str, Any]) -> str:
    """Return the file of a lesson with these parameters, without outputs, and with each check in a cell of its own."""
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
    """Return the source of a cell of parameters, a line each, with these values; types and comments stay."""
    from papermill.translators import PythonTranslator

    for name, value in values.items():
        written = PythonTranslator.translate(value).replace("\\", r"\\")
        source = re.sub(rf"(?m)^({name}: \w+ = ).*?(?=  #|$)", rf"\g<1>{written}", source)
    return source


def replies(course: Path, lesson: str) -> "pd.DataFrame":
    """Return what the checks said in the graded notebooks of a lesson: a row per learner and exercise.

    Raises ValueError where there are none.
    """
    import pandas as pd

    rows = [
        (path.parts[-3], cell.metadata.nbgrader.grade_id, _reply(cell.outputs))
        for path in sorted(course.glob(f"autograded/*/{lesson}/{lesson}.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.metadata.get("nbgrader", {}).get("grade")
    ]
    if not rows:
        raise ValueError(f"DIR: {str(course)!r} has no graded notebooks of {lesson}; give nbgrader autograde first")
    return pd.DataFrame(rows, columns=["learner", "exercise", "reply"])


def _reply(outputs: list[Any]) -> str:
    """Return what a check said, without its hint."""
    for output in outputs:
        if output.output_type == "error":
            said = re.match(r"Not yet: (.+)\. Hint: |Not answered yet", output.evalue, re.DOTALL)
            return (said[1] or "no answer") if said else f"the code stops with {output.ename}"
    printed = "".join(output.get("text", "") for output in outputs)
    return "right" if printed.endswith("Right.\n") else "points without a word of the check"


def misconceptions(said: "pd.DataFrame") -> "pd.DataFrame":
    """Count the replies of each exercise, the commonest first; those that differ in numbers alone are one."""
    alike = said["reply"].str.replace(r"\d+([.,]\d+)*", "…", regex=True)
    differing = said.groupby(["exercise", alike])["reply"].transform("nunique") > 1
    rows = said.assign(reply=said["reply"].mask(differing, alike)).groupby(["exercise", "reply"])
    counted = rows.size().rename("learners").reset_index()
    return counted.sort_values(["exercise", "learners"], ascending=[True, False], kind="stable")

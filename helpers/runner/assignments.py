"""Lessons as assignments of nbgrader, and what the checks said of the answers that came back. Neither needs nbgrader.

An exercise that a lesson checks is one cell there, and two in an assignment: the learner's, and a locked one with the
check alone, which nbgrader puts back before it gives points.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from nbformat import NotebookNode

from helpers.artefacts import check_folder, write_text
from helpers.images import listed
from helpers.runner import copies, notebooks
from helpers.runner.notebooks import Notebook

if TYPE_CHECKING:
    import pandas as pd

CONFIG = Path(__file__).with_name("templates") / "nbgrader_config.txt"
FORGING = re.compile(r"\bchecks\b|NBGRADER|get_ipython|sys\.modules|_exit")  # words that no answer needs


def write(folder: Path, chosen: Sequence[Notebook], values: Mapping[str, Any]) -> list[Path]:
    """Write lessons as nbgrader's sources, with these parameters, and its settings unless there are some.

    Returns the notebooks. Raises ValueError, before anything is written, for assignments that are there already.
    """
    check_folder("DIR", str(folder), folder.absolute())
    paths = {folder / "source" / each.name / each.path.name: each for each in chosen}
    if there := [path.stem for path in paths if path.exists()]:
        raise ValueError(f"DIR: {str(folder)!r} has {listed(there)} already, and nothing is overwritten; move it away")
    for path, lesson in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        known = notebooks.defaults(lesson.path)
        given = {name: value for name, value in values.items() if name in known}
        write_text(path, nbformat.writes(_assignment(lesson, given)) + "\n")
    if not (config := folder / "nbgrader_config.py").exists():
        write_text(config, CONFIG.read_text(encoding="utf-8"))
    return list(paths)


def _assignment(lesson: Notebook, values: Mapping[str, Any]) -> NotebookNode:
    """Return a lesson with these parameters, without outputs, and each check in a cell of its own."""
    notebook: NotebookNode = nbformat.reads(copies.copied(lesson.path, "../{stem}/{name}"), as_version=4)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, values)
        if exercise := cell.metadata.get("nbgrader"):
            answer, call = cell.source.rsplit("\nchecks.", 1)
            check = nbformat.v4.new_code_cell(
                f"from helpers import checks\n\nprint(checks.{call})",
                id=f"{cell.id}-check",
                metadata={"nbgrader": {**exercise, "solution": False, "locked": True}},
            )
            cells.append(check)
            cell.source = answer.rstrip()
            cell.metadata.nbgrader = {**exercise, "grade": False, "grade_id": f"{exercise.grade_id}-answer"}
            del cell.metadata.nbgrader["points"]
    notebook.cells = cells
    return notebook


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """Return the source of a cell of parameters with these values; types and comments stay."""
    from papermill.translators import PythonTranslator

    changed = source
    for line in ast.parse(source).body:
        if isinstance(line, ast.AnnAssign) and (name := ast.unparse(line.target)) in values:
            written = f"{name}: {ast.unparse(line.annotation)} = "
            old = ast.get_source_segment(source, line)
            changed = changed.replace(str(old), written + PythonTranslator.translate(values[name]))
    return changed


def replies(course: Path, lesson: str) -> "pd.DataFrame":
    """Return what the checks said in the graded notebooks of a lesson: a row per learner and exercise.

    Raises ValueError where there are none.
    """
    import pandas as pd

    rows = []
    for path in sorted(course.glob(f"autograded/*/{lesson}/{lesson}.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            about = cell.metadata.get("nbgrader", {})
            if about.get("grade"):
                rows.append((path.parts[-3], about["grade_id"], _reply(cell)))
    if not rows:
        raise ValueError(f"DIR: {str(course)!r} has no graded notebooks of {lesson}; give nbgrader autograde first")
    return pd.DataFrame(rows, columns=["learner", "exercise", "reply"])


def _reply(cell: NotebookNode) -> str:
    """Return what a check said, without its hint."""
    for output in cell.outputs:
        if output.output_type == "error":
            said = re.match(r"Not yet: (.+)\. Hint: |Not (answered) yet", output.evalue, re.DOTALL)
            return f"the code stops with {output.ename}" if said is None else said[1] or "no answer"
    printed = "".join(output.get("text", "") for output in cell.outputs)
    return "right" if printed.endswith("Right.\n") else "points without a word of the check"


def misconceptions(said: "pd.DataFrame") -> "pd.DataFrame":
    """Count the replies of each exercise, the commonest first; those that differ in numbers alone are one."""
    alike = said["reply"].str.replace(r"\d+([.,]\d+)*", "…", regex=True)
    differing = said.groupby(["exercise", alike])["reply"].transform("nunique") > 1
    rows = said.assign(reply=said["reply"].mask(differing, alike)).groupby(["exercise", "reply"])
    counted = rows.size().rename("learners").reset_index()
    return counted.sort_values(["exercise", "learners"], ascending=[True, False])

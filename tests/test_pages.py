"""The pages that compute what they say from stored rows. That they show it is checked by nbval, in docs/."""

from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSON_05 = "notebooks/05_transfer_comparison.ipynb"


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def text_of(page: str) -> str:
    """Return what a page shows, as text with single spaces."""
    outputs = [output.get("data", {}) for cell in code_cells(ROOT / "docs" / page) for output in cell.outputs]
    return " ".join(" ".join(data.get("text/markdown") or data.get("text/plain", "") for data in outputs).split())


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_rows_are_parameters_and_are_there(path):
    parameters = papermill.inspect_notebook(str(path))
    assert parameters
    for parameter in parameters.values():
        assert (ROOT / parameter["default"].strip("\"'")).is_file()
        assert parameter["help"]


def test_other_rows_can_be_shown_and_nothing_waits_for_tensorflow(python):
    source = "\n".join(cell.source for cell in code_cells(ROOT / "docs" / "results.ipynb"))
    others = source.replace("docs/study/lesson_05.csv", "tests/reference/results-05.csv")
    ran = python(f"{others}\nimport sys\nprint(summary['seeds'].max(), 'tensorflow' in sys.modules)")
    assert ran.stdout.splitlines()[-1] == "2 False", ran.stderr


@pytest.mark.parametrize(
    ("file", "quoted", "page", "shown"),
    [
        ("README.md", "0.69 times", "results.ipynb", "with 50 labels per class: helps**, 0.69 times the errors"),
        ("README.md", "0.50 to 0.96", "results.ipynb", "helps**, 0.69 times the errors (0.50 to 0.96)"),
        ("README.md", "with all labels they are as good", "results.ipynb", "all labels per class: as good as scratch"),
        ("README.md", "(0.66, from 0.59 to 0.75)", "does_it_hold.ipynb", "50 better: 0.66 (0.59 to 0.75)"),
        (LESSON_05, "With 50, 55 of the sets", "does_it_hold.ipynb", "50 frozen better 55 fine-tuned"),
        (LESSON_05, "with 10 only 25.", "does_it_hold.ipynb", "10 frozen better 25 fine-tuned"),
        (LESSON_05, "`frozen` makes 0.61 to 0.78 times the errors", "does_it_hold.ipynb", "make 0.61 to 0.78 times"),
    ],
)
def test_what_is_quoted_elsewhere_is_what_a_page_shows(file, quoted, page, shown):
    assert shown in text_of(page)
    for path in (file, "docs/index.md") if file == "README.md" else (file,):
        assert quoted in (ROOT / path).read_text(encoding="utf-8")

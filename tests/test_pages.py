"""The pages that compute what they say from stored rows. That they show it is checked by nbval, in docs/."""

from itertools import combinations
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from helpers.statistics import Finding, Interval, finding, interval, log_ratios

ROOT = Path(__file__).resolve().parents[1]


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def text_of(page: str) -> str:
    """Return what a page shows, as text with single spaces."""
    outputs = [output.get("data", {}) for cell in code_cells(ROOT / "docs" / page) for output in cell.outputs]
    return " ".join(" ".join(data.get("text/markdown") or data.get("text/plain", "") for data in outputs).split())


def prose(path: str) -> str:
    """Return the text of a guide or of a lesson, with single spaces."""
    if path.endswith(".ipynb"):
        cells = nbformat.read(ROOT / path, as_version=4).cells
        return " ".join(" ".join(cell.source for cell in cells if cell.cell_type == "markdown").split())
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_rows_are_parameters_and_are_there(path):
    parameters = papermill.inspect_notebook(str(path))
    assert parameters
    for parameter in parameters.values():
        assert (ROOT / parameter["default"].strip("\"'")).is_file()
        assert parameter["help"]


def test_other_rows_can_be_shown_and_nothing_waits_for_tensorflow(python, tmp_path):
    rows = pd.read_csv(ROOT / "docs/study/trainings.csv", keep_default_na=False)
    rows[rows["seed"] < 4].to_csv(tmp_path / "four.csv", index=False)
    source = "\n".join(cell.source for cell in code_cells(ROOT / "docs" / "results.ipynb"))
    others = source.replace("docs/study/trainings.csv", str(tmp_path / "four.csv"))
    ran = python(f"{others}\nimport sys\nprint(summary['seeds'].max(), 'tensorflow' in sys.modules)")
    assert ran.stdout.splitlines()[-1] == "4 False", ran.stderr


# Results that are quoted in prose


@pytest.fixture(scope="module")
def errors() -> pd.DataFrame:
    """Return the errors of ten seeds: label budgets and seeds as rows, strategies as columns."""
    rows = pd.read_csv(ROOT / "docs/study/trainings.csv", keep_default_na=False)
    rows = rows[(rows["question"] == "seeds") & (rows["task"] == "target")]
    return rows.pivot(index=["labels_per_class", "seed"], columns="strategy", values="errors")


def ratio(errors: pd.DataFrame, pair: str, budget: str, seeds: range = range(10)) -> Interval:
    """Return the error ratio of a pair of strategies, "one / other", with its interval."""
    one, other = pair.split(" / ")
    of_seeds = errors.loc[budget].loc[list(seeds)]
    return Interval(*np.exp(interval(log_ratios(of_seeds[one], of_seeds[other]))))


README, LESSON_04, LESSON_05 = (
    "README.md",
    "notebooks/04_freezing.ipynb",
    "notebooks/05_transfer_comparison.ipynb",
)
TEN, THREE, SEVEN = range(10), range(3), range(3, 10)


@pytest.mark.parametrize(
    ("file", "pair", "budget", "seeds", "quoted"),
    [
        (
            README,
            "frozen / scratch",
            "10",
            TEN,
            "make {:.2f} times the errors of the ordinary network ({:.2f} to {:.2f} w",
        ),
        (README, "frozen / scratch", "50", TEN, "pretrained features make {:.2f} times the errors"),
        (README, "frozen / scratch", "50", TEN, "{1:.2f} to {2:.2f} with 50)"),
        (README, "frozen / scratch", "all", TEN, "as good ({:.2f}, from {:.2f} to {:.2f})"),
        (
            README,
            "frozen / fine-tuned",
            "10",
            TEN,
            "{:.2f} times the errors of fine-tuning with 10 labels per class ({:.2f} to {:.2f})",
        ),
        (
            LESSON_04,
            "frozen / fine-tuned",
            "50",
            TEN,
            "makes {:.2f} times the errors, and the interval from {:.2f} to {:.2f}",
        ),
        (LESSON_04, "frozen / fine-tuned", "10", TEN, "with {:.2f} times the errors ({:.2f} to {:.2f})"),
        (LESSON_05, "random-frozen / scratch", "10", THREE, "with {:.2f} times the errors ({:.2f} to {:.2f})"),
        (LESSON_05, "random-frozen / scratch", "10", TEN, "With ten seeds it is {:.2f} times ({:.2f} to {:.2f})"),
        (
            LESSON_05,
            "frozen / scratch",
            "50",
            SEVEN,
            "they find {:.2f} times the errors of `scratch` ({:.2f} to {:.2f})",
        ),
        (LESSON_05, "frozen / scratch", "10", SEVEN, "with 10 labels {:.2f} times ({:.2f} to {:.2f})"),
        (
            LESSON_05,
            "frozen / scratch",
            "10",
            TEN,
            "make {:.2f} times the errors of the ordinary network with 10 labels per class ({:.2f} to {:.2f})",
        ),
        (LESSON_05, "frozen / scratch", "50", TEN, "with 50 as well ({1:.2f} to {2:.2f})"),
        (
            LESSON_05,
            "frozen / scratch",
            "all",
            TEN,
            "`frozen` makes {:.2f} times the errors ({:.2f} to {:.2f}), the published",
        ),
        (LESSON_05, "reused-head / scratch", "all", TEN, "the published variant {:.2f} times ({:.2f} to {:.2f})"),
        (
            LESSON_05,
            "frozen / fine-tuned",
            "10",
            TEN,
            "makes {:.2f} times the errors of `fine-tuned` with 10 labels ({:.2f} to {:.2f})",
        ),
        (LESSON_05, "frozen / random-frozen", "10", TEN, "`random-frozen` with 10 labels ({1:.2f} to {2:.2f})"),
        (LESSON_05, "frozen / random-frozen", "all", TEN, "and {:.2f} times with all ({:.2f} to {:.2f})"),
    ],
)
def test_a_quoted_ratio_is_that_of_the_rows(errors, file, pair, budget, seeds, quoted):
    numbers = quoted.format(*ratio(errors, pair, budget, seeds))
    for path in (file, "docs/index.md") if file == README else (file,):
        assert numbers in prose(path), path


@pytest.mark.parametrize(
    ("pair", "budgets", "found"),
    [
        ("frozen / scratch", ["5", "10", "20", "50", "100", "200", "500"], Finding.BETTER),
        ("frozen / scratch", ["all"], Finding.AS_GOOD),
        ("reused-head / scratch", ["all"], Finding.AS_GOOD),
        ("random-frozen / scratch", ["10"], Finding.AS_GOOD),
        ("frozen / fine-tuned", ["5", "10", "20"], Finding.BETTER),
        ("frozen / fine-tuned", ["50", "100", "200", "500"], Finding.AS_GOOD),
        ("frozen / fine-tuned", ["all"], Finding.NO_DIFFERENCE),
    ],
)
def test_the_findings_that_readme_and_lessons_tell_are_those_of_ten_seeds(errors, pair, budgets, found):
    assert {finding(ratio(errors, pair, budget)) for budget in budgets} == {found}


def test_how_often_three_seeds_find_what_ten_do_and_how_much_luck_strategies_share(errors):
    sets = list(combinations(range(10), 3))
    better = [
        sum(finding(ratio(errors, "frozen / scratch", budget, some)) is Finding.BETTER for some in sets)
        for budget in ("50", "10")
    ]
    assert "With 50 labels, {} of the sets find `frozen` better than `scratch`; with 10 labels, only {} do".format(
        *better
    ) in prose(LESSON_05)
    shared = (1 - errors.loc[["5", "10", "20"]]).groupby(level=0).corr()["scratch"].drop("scratch", level=1)
    assert f"correlate with those of `scratch` by {shared.min():.1f} to {shared.max():.1f}" in prose(LESSON_05)


def test_a_result_quoted_of_other_digits_is_what_the_page_shows():
    quoted = "`frozen` makes 0.61 to 0.78 times the errors"
    assert "frozen features make 0.61 to 0.78 times" in text_of("does_it_hold.ipynb") and quoted in prose(LESSON_05)

"""The pages that compute their sentences from stored rows. nbval compares their outputs, in docs/."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from helpers.backend import keras
from helpers.datasets import load_dataset
from helpers.statistics import Finding, Interval, finding, interval, log_ratios

ROOT = Path(__file__).resolve().parents[1]


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def text_of(page: str) -> str:
    """Return a page's outputs as text with single spaces."""
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


def test_the_steps_on_the_page_to_take_home_run_as_written_and_compute_the_interval_of_the_course(monkeypatch, capsys):
    blocks = re.findall(r"(?s)```python\n(.+?)```", (ROOT / "docs/how_to_transfer.md").read_text(encoding="utf-8"))
    digits = load_dataset("digits")
    data = [(split.images[..., 0], split.labels) for split in (digits.train, digits.test)]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: data)
    page = {}
    exec(re.sub(r"epochs=\d+", "epochs=1", "".join(blocks)).replace("range(5)", "range(2)"), page)  # in seconds
    assert np.bincount(page["few"][1]).tolist() == [50] * 5
    scratch, *others = pd.DataFrame(page["rows"]).T.to_numpy()
    for name, errors, said in zip(("frozen", "head first"), others, capsys.readouterr().out.splitlines(), strict=True):
        mean, low, high = np.exp(interval(log_ratios(errors, scratch)))
        assert said == f"{name}: {mean:.2f} times as many errors as scratch ({low:.2f} to {high:.2f})"


# Results that are quoted in prose


@pytest.fixture(scope="module")
def errors() -> pd.DataFrame:
    """Return the errors of ten seeds: label budgets and seeds as rows, strategies as columns."""
    rows = pd.read_csv(ROOT / "docs/study/trainings.csv", keep_default_na=False)
    rows = rows[rows["question"].isin(["seeds", "alternatives"]) & (rows["task"] == "target")]
    return rows.pivot(index=["labels_per_class", "seed"], columns="strategy", values="errors")


def ratio(errors: pd.DataFrame, pair: str, budget: str, seeds: Sequence[int] = range(10)) -> Interval:
    """Return the error ratio of a pair of strategies, "one / other", with its interval."""
    one, other = (errors.loc[budget].loc[list(seeds), name] for name in pair.split(" / "))
    return Interval(*np.exp(interval(log_ratios(one, other))))


README, LESSON_05 = "README.md", "notebooks/05_transfer_comparison.ipynb"
QUOTED = {  # "#" stands for the ratio, "%" for its interval
    README: {
        "frozen / scratch, 10": "frozen pretrained features make # times as many errors as a network from scratch (%",
        "frozen / scratch, 50": "With 50 labels, they also make # times as many (%)",
        "frozen / scratch, all": "as good as a network from scratch (error ratio #, from %)",
        "frozen / fine-tuned, 10": "freezing makes # times as many errors as fine-tuning (%)",
        "head-first / frozen, 10": "it makes # times as many errors as freezing (%)",
    },
    LESSON_05: {
        "random-frozen / scratch, 10": "if at all: the control makes # times as many errors (%)",
        "random-frozen / scratch, 10, 0 to 9": "With ten seeds, the ratio is # (%)",
        "frozen / scratch, 10": "make # times as many errors as the ordinary network with 10 labels per class (%)",
        "frozen / scratch, 50": "with 50 labels as well (%)",
        "frozen / scratch, all": "`frozen` makes # times as many errors as `scratch` (%)",
        "reused-head / scratch, all": "the published variant makes # times as many (%)",
        "frozen / fine-tuned, 10": "makes # times as many errors as `fine-tuned` with 10 labels (%)",
        "frozen / random-frozen, 10": "makes # times as many errors as its control `random-frozen` with 10 labels (%)",
        "random-frozen / scratch, all": "With all labels, the control makes # times as many (%)",
        "head-first / frozen, 10": "`head-first` makes # times as many errors as `frozen` with 10 labels (%)",
        "random-frozen / scratch, 10, 0 to 2": "*better* with 10 labels per class, with # times as many errors (%)",
        "frozen / scratch, 50, 3 to 9": "`frozen` makes # times as many errors as `scratch` with 50 labels (%)",
        "frozen / scratch, 10, 3 to 9": "and # times as many with 10 labels (%)",
    },
}
FOUND = {
    "frozen / scratch": {"better": "10 50", "as good": "all"},
    "reused-head / scratch": {"as good": "all"},
    "head-first / frozen": {"better": "10 20 500 all", "as good": "5 50 100 200"},
    "random-frozen / scratch": {"as good": "10"},
    "frozen / fine-tuned": {"better": "5 10 20", "as good": "50 100 200 500", "no detectable difference": "all"},
}


@pytest.mark.parametrize(("file", "compared", "quoted"), [(at, *one) for at in QUOTED for one in QUOTED[at].items()])
def test_a_quoted_ratio_is_that_of_the_rows(errors, file, compared, quoted):
    pair, budget, *seeds = compared.split(", ")
    first, last = map(int, (seeds or ["0 to 9"])[0].split(" to "))
    mean, low, high = ratio(errors, pair, budget, range(first, last + 1))
    numbers = quoted.replace("#", f"{mean:.2f}").replace("%", f"{low:.2f} to {high:.2f}")
    for path in (file, "docs/index.md") if file == README else (file,):
        assert numbers in prose(path), path


def test_what_transfer_is_worth_on_photos_is_quoted_with_the_wider_interval():
    shown = text_of("does_it_hold.ipynb").partition(" other photos ")[2]
    scratch, random = re.findall(r"\) (\S+ \(.+?\))", shown)[:2]
    for path in (README, "docs/index.md"):
        for numbers, what in ((scratch, "a small network from scratch"), (random, "the same head on random weights")):
            assert f"{numbers[:4]} times as many errors as {what} {numbers[5:]}" in prose(path)


@pytest.mark.parametrize("pair", FOUND)
def test_the_findings_that_readme_and_lessons_tell_are_those_of_ten_seeds(errors, pair):
    for found, budgets in FOUND[pair].items():
        assert {finding(ratio(errors, pair, budget)) for budget in budgets.split()} == {Finding(found)}


@pytest.mark.parametrize(
    ("strategy", "updates", "of_scratch", "files", "quoted"),
    [
        ("frozen", 287, 144, (README, "docs/index.md", "docs/speed.md"), "make # times as many errors (%)"),
        ("frozen", 287, 144, (LESSON_05,), "`frozen` makes # times as many errors as `scratch` (%)"),
        ("reused-head", 287, 144, (LESSON_05,), "the published variant makes # times as many (%)"),
        ("frozen", 144, 574, (LESSON_05,), "with # times as many errors (%)"),
    ],
)
def test_a_quoted_ratio_at_equal_seconds_is_that_of_the_rows(strategy, updates, of_scratch, files, quoted):
    runs = pd.read_csv(ROOT / "docs/updates.csv").pivot(
        index="seed", columns=["strategy", "updates"], values="test_errors"
    )
    logs = log_ratios(runs[strategy, updates], runs["scratch", of_scratch])
    mean, low, high = np.exp(interval(logs))
    numbers = quoted.replace("#", f"{mean:.2f}").replace("%", f"{low:.2f} to {high:.2f}")
    assert all(numbers in prose(file) for file in files)


def test_what_tuning_leaves_of_the_lead_of_freezing_is_quoted():
    page = text_of("does_it_hold.ipynb")
    numbers = re.search(r"both tuned: 10 labels better: (\S+) (\(.+?\)); 50 labels better", page).groups()
    assert "and {} times as many {} if each is tuned".format(*numbers) in prose(LESSON_05)


def test_other_numbers_that_lesson_05_quotes_are_those_of_the_rows(errors):
    sets = list(combinations(range(10), 3))
    found = {
        budget: [finding(ratio(errors, "frozen / scratch", budget, some)) for some in sets] for budget in ("50", "10")
    }
    many, few = (found[budget].count(Finding.BETTER) for budget in ("50", "10"))
    assert f"in {many} of the sets. It is found" in prose(LESSON_05)
    assert f"with 10 labels in only {few} of them." in prose(LESSON_05)
    page = text_of("does_it_hold.ipynb") + text_of("should_i_transfer.ipynb")
    assert "50 labels better: 0.82 (0.75 to 0.89)" in page
    assert "with 50 labels 0.82 times as many (0.75 to 0.89; five seeds)" in prose(README)
    assert "10 labels as good: 1.02 (0.95 to 1.09)" in page
    assert "makes 1.02 times as many errors as tuned freezing (0.95 to 1.09; five seeds)" in prose(README)
    assert "frozen features make 0.61 to 0.78 times" in page
    assert "10 labels better: 0.91 (0.84 to 0.98)" in page
    assert "it still makes 0.91 times as many (0.84 to 0.98; five seeds)" in prose(README)
    assert "alone by +1.19 (+0.00 to +2.38)" in page and "costs 1.19 (0.00 to 2.38 over families)" in prose(README)
    assert "better 6 6 6 5 better, after a correction 3 4 4 2 worse 0 0 0 2 worse, after a correction 0 0 0 0" in page
    assert "six of nine target tasks (three or four after a correction), and worse on none" in prose(README)
    assert "`frozen` makes 0.61 to 0.78 times as many errors as `scratch`" in prose(LESSON_05)
